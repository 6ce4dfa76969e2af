"""The node: whom it serves, who owns what, and what it does about every loss.

Every loss, of the bus, of the lease, of a client's pace, is mended by the same means: the session is replayed from the
last offset written to it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

from hub.engineio.core.prepared import PreparedMessage
from hub.errors import Unavailable
from hub.message import StoredMessage
from hub.node.maintenance import Maintenance
from hub.pid import Pid
from hub.pubsub.replay import Replayer
from hub.pubsub.rooms import Room, Rooms
from hub.pubsub.session import Peer, Session, SessionState
from hub.settings import Settings
from hub.store.results import NotOwner, SessionClaim
from hub.store.store import Store

log = logging.getLogger("hub.node")

# The join offset of a subscription that is under way: above every message.
NOT_YET = 10**17
# Seconds within which a node parks a session that it has taken for a connection already gone.
ABANDONED = 1.0


class Node:
    """One hub process's share of the hub.

    `expel` disconnects a connection that another one has replaced; `retry_later` one that should come back; `failed`
    hears of a fault of the hub's own that leaves the node deaf: the process is of no use any more.
    """

    def __init__(
        self,
        settings: Settings,
        url: str,
        *,
        expel: Callable[[Session], None],
        retry_later: Callable[[Session], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self.settings = settings
        self._expel = expel
        self._retry_later = retry_later
        self.store = Store(
            settings,
            url,
            on_messages=self._heard,
            on_bus_lost=self._deaf,
            on_bus_back=self._recover,
            on_changed=self._redis_changed,
        )
        self._rooms = Rooms(settings, self.store, self.replay_all)
        self._replayer = Replayer(
            settings, self.store, self._rooms, spawn=self.spawn, lost=self.lost, failed=self._broken
        )
        # How often the bus was lost; and the order in which connections took their sessions.
        self._losses = 0
        self._order = itertools.count(1)
        # By client: the newest connection of each.
        self.sessions: dict[str, Session] = {}
        self._by_connection: dict[str, Session] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self.upkeep = Maintenance(
            settings,
            self.store,
            self.sessions,
            replay_all=self.replay_all,
            probe=self._replayer.probe,
            spawn=self.spawn,
            failed=failed,
        )
        # Kept: up to Python 3.11 asking for the running loop asks the kernel for the process id each time.
        self._loop = asyncio.get_running_loop()
        self._node_channel = self.store.keys.node_channel(self.store.node).encode()
        self._all_nodes_channel = self.store.keys.all_nodes_channel.encode()

    async def start(self) -> None:
        """Connect to Redis and take a lease. Raises HubError where that fails or takes too long; `stop` either way."""
        await self.store.start()
        for channel in (self._node_channel, self._all_nodes_channel):
            self.store.bus.want(channel)
            await self.store.bus.confirmed(channel, self.settings.redis_timeout)
        await self.store.renew(first=True)

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self.store.stop()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something in the background; an unexpected failure is logged."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a background task failed", exc_info=error)

    # -- sessions

    async def connect(
        self,
        peer: Peer,
        connection: str,
        *,
        client_id: str | None,
        pid: Pid | None,
        offset: int | None,
        bare: bool = False,
        manual: bool = False,
    ) -> Session | None:
        """Make a connection the owner of a session; None: refused. `begin` starts it.

        Raises Unavailable.
        """
        order = next(self._order)
        taken = await self.store.take(
            connection, client_id=client_id, pid=pid, offset=None if manual else offset
        )
        if taken is None:
            return None
        rooms = [self._rooms.want(name) for name in taken.rooms]
        try:
            for room in rooms:
                if peer.closed:
                    break  # parked at once: nobody waits for the bus
                await self.store.bus.confirmed(room.channel, self.settings.redis_timeout)
            if peer.closed:
                raise Unavailable("the connection is gone")
            older = self.sessions.get(taken.client_id)
            if older is not None and older.order > order:  # rule: late_admission/1
                raise Unavailable("a newer connection came in between")
            session = self._admit(peer, connection, taken, bare=bare, manual=manual)
            session.order = order
            return session
        except BaseException:
            # The session is this connection's already: park it in its name.
            self.spawn(self._park(taken.client_id, connection, taken.position))
            raise
        finally:
            for room in rooms:
                self._rooms.unwant(room)

    def _admit(
        self, peer: Peer, connection: str, taken: SessionClaim, *, bare: bool, manual: bool
    ) -> Session:
        if (older := self.sessions.get(taken.client_id)) is not None:
            self._replaced(older)
        session = Session(
            peer,
            connection,
            taken,
            named=f"@{taken.client_id}" in taken.rooms,
            bare=bare,
            manual=manual,
            on_slow=self._replayer.slow,
        )
        self.sessions[taken.client_id] = session
        self._by_connection[connection] = session
        self._replayer.admitted(session)
        for name, join in taken.rooms.items():
            room = self._rooms.want(name)
            room.members[session] = join
        return session

    def begin(self, session: Session, *reply: PreparedMessage) -> None:
        """Write the answer to its CONNECT and `hub:session`, in one piece, then replay."""
        if session.closed:
            session.write(*reply)
            return
        taken = session.taken
        session.peer.listener = session
        session.tell(
            "hub:session",
            {
                "protocol": 1,
                "client_id": taken.client_id,
                "recovered": taken.how != "new",
                "missed": taken.missed,
                "rooms": sorted(taken.rooms),
                "head": str(taken.head),
            },
            *reply,
        )
        if taken.how == "new" and not taken.rooms:
            session.go_live(taken.head)  # it is in no room, so it cannot have missed anything
        if session.state is not SessionState.LIVE:
            self._replayer.catch_up(session)

    async def leave(self, session: Session, *, deliberate: bool) -> None:
        """Its connection is gone: end an anonymous session that was left deliberately, park any other."""
        if session.closed:
            return
        self._forget(session)
        if not deliberate or session.named:
            await self._park(session.client_id, session.connection, session.proven)
            return
        try:
            await self.store.finish(session.client_id, session.connection)
        except (NotOwner, Unavailable):
            pass  # a newer connection owns it, or it will expire

    async def _park(self, client_id: str, connection: str, position: int) -> None:
        try:
            await self.store.park(client_id, connection, position, gone=True)
        except NotOwner:
            pass  # a newer connection owns it: nothing of this one counts any more
        except Unavailable:
            # It stays unparked, and so without an inbox: its client will be told everything from the logs.
            log.info("a session could not be parked")

    def _forget(self, session: Session) -> None:
        session.close()
        if self.sessions.get(session.client_id) is session:
            del self.sessions[session.client_id]
        self._by_connection.pop(session.connection, None)
        for name in list(session.joins):
            self._rooms.leave(session, name)
        if session.task is not None:
            session.task.cancel()

    def _replaced(self, session: Session) -> None:
        """A newer connection owns the session: what this one still sends or gets changes nothing."""
        if not session.closed:
            self._forget(session)
            self.spawn(self._put_out(session))

    async def _put_out(self, session: Session) -> None:
        """Disconnect a replaced connection: for good, unless what replaced it turns out to be gone.

        A CONNECT can be late (its node was stopped, the way to Redis slow) and its connection long abandoned: its
        node parks the session when it notices, which may have to wait for the bus, and the connection that it replaced
        is the client's newest. It comes back. So does one that a failover has forgotten: the owner that is remembered
        is an older one.
        """
        taken = session.taken
        until = self._loop.time() + self.settings.redis_timeout
        replaced: bool | None = None
        while replaced is None and self._loop.time() <= until:
            await asyncio.sleep(ABANDONED)
            try:
                replaced = await self.store.replaced(taken)  # rule: late_admission/2, takes_count
            except Unavailable:
                replaced = False  # nobody can know; a newer connection will replace it again
        if replaced:
            self._expel(session)
        else:
            self._retry_later(session)

    def lost(self, session: Session, refusal: NotOwner) -> None:
        """A script has refused the session's connection."""
        if refusal.replaced:
            self._replaced(session)
        else:
            self._broken(session)

    def _broken(self, session: Session) -> None:
        """End a connection that the hub could not serve; its client comes back."""
        if not session.closed:
            self._forget(session)
            self._retry_later(session)

    def replay_all(self, sessions: Iterable[Session]) -> None:
        for session in list(sessions):
            self._replayer.catch_up(session)

    # -- rooms

    async def subscribe(
        self, session: Session, name: str, answer: Callable[[int], Awaitable[None]]
    ) -> None:
        """Join a room. `answer` gets the offset to count from and writes the answer, before any message behind it comes.

        That is the join, or the position resumed from where this is newer: an earlier connection may have joined without
        its client hearing of it, and have passed messages of the room by. Raises HubError, NotOwner.
        """
        room = self._rooms.want(name)
        timeout = self.settings.redis_timeout
        try:
            await self.store.bus.confirmed(room.channel, timeout)  # rule: sub_bus_first
            if session.closed:  # rule: closed_join
                # It is in no room any more, as far as it knows: it would join anew, behind what its client has yet to get.
                raise Unavailable("the connection is gone")
            losses = self._losses
            session.hold()
            # Heard, and held, from before the script runs; what is not above the join is dropped later.
            room.members.setdefault(session, NOT_YET)
            try:
                join, _ = await self.store.subscribe(
                    session.client_id, session.connection, name, known=name in session.joins
                )
                await answer(max(join, session.taken.position))  # rule: passed_join
                if not session.closed:
                    self._rooms.enter(session, name, join)
            finally:
                if room.members.get(session) == NOT_YET:
                    del room.members[session]
                if losses != self._losses:
                    session.stale = True  # a replay under way did not wait for this room's channel
                if not session.release():
                    self._replayer.catch_up(session)
        finally:
            self._rooms.unwant(room)

    async def unsubscribe(self, session: Session, name: str) -> None:
        """Leave a room: nothing of it is delivered after this. Raises HubError, NotOwner."""
        await self.store.unsubscribe(session.client_id, session.connection, name)
        self._rooms.leave(session, name)

    # -- the bus

    def _heard(self, messages: list[tuple[bytes, bytes]]) -> None:
        """Deliver what one read of the bus brought; a room's messages in a row go out in one write.

        All is decoded before the first is written: a receiver that is woken by one write finds the next ones there,
        and need not be woken again.
        """
        runs: list[tuple[Room, list[StoredMessage]]] = []
        latest: Room | None = None
        for channel, payload in messages:
            room = self._rooms.find(channel)
            if room is None:
                self._deliver(runs)
                runs.clear()
                self._told(channel, payload)
            elif room is latest:
                runs[-1][1].append(StoredMessage.from_bus(room.name, payload))
            else:
                runs.append((room, [StoredMessage.from_bus(room.name, payload)]))
            latest = room
        self._deliver(runs)

    def _deliver(self, runs: list[tuple[Room, list[StoredMessage]]]) -> None:
        fan_out = self._rooms.fan_out
        for room, messages in runs:
            fan_out(room, messages)

    def _told(self, channel: bytes, payload: bytes) -> None:
        """Something was said to all nodes, or to this one alone."""
        if channel == self._all_nodes_channel:
            self.replay_all(self.sessions.values())
        elif channel == self._node_channel:
            what, _, rest = payload.decode().partition(" ")
            if what == "probe":
                self._rooms.passed(int(rest))
            elif what == "fence" and (session := self._by_connection.get(rest)) is not None:
                self._replaced(session)

    def _deaf(self) -> None:
        """The bus is lost: nobody is live until it is back and the logs were read."""
        log.warning("lost the bus")
        self._losses += 1
        self.store.seen.freeze()
        self._rooms.deaf()
        self._replayer.lost_bus(self.sessions.values())
        for session in self.sessions.values():
            session.stale = True
            session.go_away()  # rule: heal_holds

    def _recover(self) -> None:
        log.info("the bus is back")
        self.replay_all(self.sessions.values())

    def _redis_changed(self) -> None:
        self._replayer.redis_changed(self.sessions.values())
        self.upkeep.redis_changed()

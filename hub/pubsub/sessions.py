"""The sessions that connections of this node own: claimed, started, subscribed, replayed, detached.

Every loss, of the bus, of the lease, of a client's pace, is mended by the same means: the session is replayed from the
last offset written to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

from hub.engineio.core.connection import Connection
from hub.engineio.core.prepared import PreparedMessage
from hub.engineio.core.state import CloseCode
from hub.errors import HubError, Unavailable
from hub.pid import Pid
from hub.pubsub.arrival_pings import ArrivalPings
from hub.pubsub.replay import Replayer
from hub.pubsub.rooms import Room, Rooms
from hub.pubsub.session import Session, SessionState, SlowReaders
from hub.pubsub.session_observers import SessionObservers
from hub.refusals import RefusalLog
from hub.settings import Settings
from hub.store.results import NotOwner, SessionClaim
from hub.store.store import Store
from hub.tasks import BackgroundTasks

log = logging.getLogger("hub.pubsub")

# The join offset of a subscribe that is in progress: above every message.
NOT_YET = 10**17
# Seconds within which a node parks a session that it has claimed for a connection that is already gone.
ABANDONED = 1.0
# Socket.IO's packet DISCONNECT.
DISCONNECT = "1"
# Of a replaced connection: the operator's line in the log, and the sentence of `hub:closing` for the client's developer.
REPLACED = (
    "disconnected a client for good because a newer connection has its client_id: give each tab, device and process a "
    "client_id of its own"
)
TAKEN_OVER = (
    "a newer connection of client_id {!r} has taken the session over, so this one is closed for good: "
    "a client_id is for one device, tab or process"
)


class Sessions(SlowReaders):
    """All sessions of a node; there is at most one for each client."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        rooms: Rooms,
        replayer: Replayer,
        tasks: BackgroundTasks,
        observers: SessionObservers,
    ) -> None:
        self._store = store
        self._rooms = rooms
        self._replayer = replayer
        self._tasks = tasks
        self._observers = observers
        # Connections that a newer one has replaced.
        self.refusals = RefusalLog(log)
        self._timeout = settings.redis_timeout
        self._clock = asyncio.get_running_loop().time
        # The order in which connections claim sessions.
        self._order = itertools.count(1)
        self._arrival_pings = ArrivalPings()
        self._by_client: dict[str, Session] = {}
        # By `connection_id`.
        self._by_connection: dict[str, Session] = {}
        # Replaced sessions whose connections are still to be disconnected, with the tasks that do so.
        self._disconnecting: dict[Session, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._by_client)

    def __iter__(self) -> Iterator[Session]:
        """Iterate over the sessions as they are now, whatever is done with them meanwhile."""
        return iter(list(self._by_client.values()))

    def stop(self) -> None:
        """Ping nobody any more; the sessions are left as they are."""
        self._arrival_pings.stop()

    def of_connection(self, connection_id: str) -> Session | None:
        return self._by_connection.get(connection_id)

    # -- beginning

    async def claim(
        self,
        connection: Connection,
        *,
        client_id: str | None,
        pid: Pid | None,
        offset: int | None,
        data_only: bool = False,
        manual_acks: bool = False,
        again: bool = False,
    ) -> Session | None:
        """Make a connection the owner of a session; None: refused. `start_session` starts it.

        `again`: the connection has owned a session before, and its client has left that one. Raises Unavailable.
        """
        order = next(self._order)
        # Each session of a connection has an id of its own: a late message to the owner of the one before is not for it.
        connection_id = f"{connection.sid}.{order}" if again else connection.sid
        claim = await self._store.sessions.claim(
            connection_id, client_id=client_id, pid=pid, offset=None if manual_acks else offset
        )
        if claim is None:
            return None
        rooms = self._rooms.acquire_all(claim.rooms)
        try:
            for room in rooms:
                if connection.closed:
                    break  # parked at once: nobody waits for the bus
                if not self._store.bus.is_subscribed(room.channel):
                    await self._store.bus.wait_subscribed(room.channel, self._timeout)
            if connection.closed:
                raise Unavailable("the connection is gone")
            older = self._by_client.get(claim.client_id)
            if older is not None and older.order > order:  # rule: late_admission/1
                raise Unavailable("a newer connection came in between")
            # A named session whose client has returned neither a pid nor an offset of it yet.
            offsetless = (
                client_id is not None
                and not manual_acks
                and claim.how != "pid"
                and claim.position != offset
            )
            session = self._add(
                connection,
                connection_id,
                claim,
                rooms,
                data_only=data_only,
                manual_acks=manual_acks,
                offsetless=offsetless,
            )
            session.order = order
            return session
        except BaseException:
            # The session is this connection's already: park it in its name.
            self._tasks.spawn(self._park(claim.client_id, connection_id, claim.position))
            for room in rooms:
                self._rooms.release(room)
            raise

    def _add(
        self,
        connection: Connection,
        connection_id: str,
        claim: SessionClaim,
        rooms: Iterable[Room],
        *,
        data_only: bool,
        manual_acks: bool,
        offsetless: bool,
    ) -> Session:
        """Serve a session from now on; `rooms`: its rooms, acquired for it."""
        if (older := self._by_client.get(claim.client_id)) is not None:
            self.on_replaced(older)
        session = Session(
            connection,
            connection_id,
            claim,
            named=f"@{claim.client_id}" in claim.rooms,
            data_only=data_only,
            manual_acks=manual_acks,
            offsetless=offsetless,
            slow_readers=self,
        )
        self._by_client[claim.client_id] = session
        self._by_connection[session.connection_id] = session
        if offsetless:
            self._arrival_pings.add(session)
        self._store.loss_detector.on_claimed(session)
        for room in rooms:
            room.members[session] = claim.rooms[room.name]
        self._observers.on_claimed(session)
        return session

    def start_session(self, session: Session, *reply: PreparedMessage) -> None:
        """Write the reply to its CONNECT and `hub:session`, in one piece, then replay."""
        if session.closed:
            session.write(*reply)
            return
        claim = session.claim
        if log.isEnabledFor(logging.DEBUG):
            details = {"how": claim.how, "rooms": len(claim.rooms), "missed": claim.missed}
            log.debug("connected", extra={"client_id": session.client_id, **details})
        session.connection.listener = session
        session.send_event(
            "hub:session",
            {
                "protocol": 1,
                "client_id": claim.client_id,
                "resumed": None if claim.how == "new" else claim.how,
                "missed": claim.missed,
                "rooms": sorted(claim.rooms),
                "head": str(claim.head),
            },
            *reply,
        )
        if claim.how == "new" and not claim.rooms:
            session.go_live(claim.head)  # it is in no room, so it cannot have missed anything
        if session.state is not SessionState.LIVE:
            self.catch_up(session)

    # -- catching up

    def catch_up(self, session: Session) -> None:
        """Replay a session until it is live; at most one task a session does so."""
        if session.closed:
            return
        session.needs_replay = True
        session.go_away()  # rule: heal_holds
        if session.task is None:
            session.task = self._tasks.spawn(self._replay(session))

    def catch_up_all(self, sessions: Iterable[Session]) -> None:
        for session in list(sessions):
            self.catch_up(session)

    def park_slow(self, session: Session) -> None:
        """Park a session whose socket buffer is full: the rest waits in its inbox until the buffer has drained."""
        log.debug("parked a slow reader", extra={"client_id": session.client_id})
        session.go_away()
        session.needs_park = True
        if session.task is None:
            session.task = self._tasks.spawn(self._replay(session))

    def on_bus_lost(self) -> None:
        """Let no session be live until the bus is back and the logs were read."""
        for session in self:
            session.needs_replay = True
            session.go_away()  # rule: heal_holds

    async def _replay(self, session: Session) -> None:
        try:
            await self._replayer.replay(session)
        except NotOwner as refusal:
            session.task = None
            self.on_not_owner(session, refusal)
        except Exception:
            # A fault of the hub's own: better a client that reconnects than one that gets nothing.
            log.exception("a replay failed")
            session.task = None
            self.disconnect_retry(session)
        finally:
            session.task = None

    # -- rooms

    @contextlib.asynccontextmanager
    async def joining(
        self, session: Session, names: Sequence[str]
    ) -> AsyncIterator[list[int | HubError]]:
        """Join rooms together, in this order. Within the context their answers are written, before any newer message comes.

        The context has for each room the offset to count from, or why it was not joined. That offset is the join, or how far
        the connection has been sent where this is newer: an earlier connection may have joined, and messages of the room have
        passed since. Raises HubError, NotOwner.
        """
        rooms = self._rooms.acquire_all(names)
        try:
            timeout = self._timeout
            for room in rooms:
                await self._store.bus.wait_subscribed(room.channel, timeout)  # rule: sub_bus_first
            if session.closed:  # rule: closed_join
                # The session is in no room any more, as far as this node knows: it would join anew, after messages that its
                # client has yet to get.
                raise Unavailable("the connection is gone")
            losses = self._rooms.bus_losses
            session.pause_delivery()
            # The rooms' messages are buffered from before the script runs; those up to the join are dropped later.
            for room in rooms:
                room.members.setdefault(session, NOT_YET)
            try:
                joins = await self._store.sessions.subscribe(
                    session.client_id,
                    session.connection_id,
                    [(name, name in session.joins) for name in names],
                )
                # Nothing is written until the answers are, so it stays so.
                sent = session.sent
                yield [
                    join if isinstance(join, HubError) else max(join, sent)  # rule: passed_join
                    for join in joins
                ]
                if not session.closed:
                    for name, join in zip(names, joins, strict=True):
                        if not isinstance(join, HubError):
                            self._rooms.add_member(session, name, join)
            finally:
                for room in rooms:
                    if room.members.get(session) == NOT_YET:
                        del room.members[session]
                if losses != self._rooms.bus_losses:
                    # A replay in progress did not wait for these rooms' channels.
                    session.needs_replay = True
                if not session.resume_delivery():
                    self.catch_up(session)
        finally:
            for room in rooms:
                self._rooms.release(room)

    async def unsubscribe(self, session: Session, name: str) -> None:
        """Leave a room: nothing of it is delivered after this. Raises HubError, NotOwner."""
        await self._store.sessions.unsubscribe(session.client_id, session.connection_id, name)
        self._rooms.remove_member(session, name)

    # -- the end

    async def detach(self, session: Session, *, deliberate: bool) -> None:
        """Note that its client has left it, or that its connection is gone.

        An anonymous session that was left deliberately ends. Any other is parked. A deliberate end makes the pid of a
        named session void: a client that has logged out is to name itself again.
        """
        if session.closed:
            # Replaced, and perhaps not disconnected yet. The connection may go on with another session.
            if (task := self._disconnecting.pop(session, None)) is not None:
                task.cancel()
            return
        self._remove(session)
        if not deliberate or session.named:
            self._observers.on_parked(session)
            await self._park(
                session.client_id, session.connection_id, session.acked, logged_out=deliberate
            )
            return
        self._observers.on_ended(session)
        try:
            await self._store.sessions.end_session(session.client_id, session.connection_id)
        except (NotOwner, Unavailable):
            pass  # a newer connection owns it, or it will expire

    async def _park(
        self, client_id: str, connection_id: str, position: int, *, logged_out: bool = False
    ) -> None:
        try:
            await self._store.sessions.park(
                client_id, connection_id, position, gone=True, logged_out=logged_out
            )
            log.debug("parked", extra={"client_id": client_id, "position": position})
        except NotOwner:
            pass  # a newer connection owns it: nothing of this one counts any more
        except Unavailable:
            # It stays unparked, and so without an inbox: its client will get everything from the logs.
            log.info("a session could not be parked")

    def on_not_owner(self, session: Session, refusal: NotOwner) -> None:
        """A script has refused the session's connection."""
        if refusal.replaced:
            self.on_replaced(session)
        else:
            self.disconnect_retry(session)

    def on_replaced(self, session: Session) -> None:
        """A newer connection owns the session: what this one still sends or gets changes nothing."""
        if not session.closed:
            self._remove(session)
            self._observers.on_replaced(session)
            self._disconnecting[session] = self._tasks.spawn(self._disconnect_replaced(session))

    async def _disconnect_replaced(self, session: Session) -> None:
        """Disconnect a replaced connection for good, unless the one that replaced it turns out to be gone.

        A CONNECT can be late (its node was stopped, the way to Redis slow) and its connection long abandoned. Then its node
        parks the session when it notices, which may have to wait for the bus, and the connection that it replaced is the
        client's newest: that one is to reconnect. So is one that a failover has forgotten: Redis then remembers an older
        owner.
        """
        until = self._clock() + self._timeout
        claim, is_replaced = session.claim, self._store.sessions.is_replaced
        replaced: bool | None = None
        while replaced is None and self._clock() <= until:
            await asyncio.sleep(ABANDONED)
            try:
                replaced = await is_replaced(claim)  # rule: late_admission/2, takes_count
            except Unavailable:
                replaced = False  # nobody can know; a newer connection will replace it again
        self._disconnecting.pop(session, None)
        if replaced:
            client_id = session.client_id
            self.refusals.note(
                "replaced", client_id, REPLACED, level=logging.INFO, client_id=client_id
            )
            session.send_event(
                "hub:closing",
                {"reason": "replaced", "message": TAKEN_OVER.format(client_id)},
            )
            session.write(PreparedMessage(DISCONNECT))
            session.connection.close(CloseCode.DONE)
        else:
            session.connection.close(CloseCode.TRY_AGAIN)

    def disconnect_retry(self, session: Session) -> None:
        """Close a connection that the hub could not serve; its client reconnects."""
        if not session.closed:
            self._remove(session)
            self._observers.on_parked(session)
            session.connection.close(CloseCode.TRY_AGAIN)

    def _remove(self, session: Session) -> None:
        """Serve a session no more; Redis is not asked."""
        session.close()
        if self._by_client.get(session.client_id) is session:
            del self._by_client[session.client_id]
        self._by_connection.pop(session.connection_id, None)
        if session.offsetless:
            self._arrival_pings.discard(session)
        for name in list(session.joins):
            self._rooms.remove_member(session, name)
        if session.task is not None:
            session.task.cancel()

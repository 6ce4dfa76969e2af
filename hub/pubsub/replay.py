"""Catching up: how a session that was away, slow or deaf gets what it missed, and goes live.

One loop for every cause. A batch comes from the logs, or from what the rooms remember; each is written when the
socket has drained, and the last one makes the session live.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from hub.errors import Unavailable
from hub.message import StoredMessage
from hub.pubsub.rooms import Rooms
from hub.pubsub.session import Session, SessionState
from hub.settings import Settings
from hub.store.results import NotOwner, ReplayBatch
from hub.store.store import Store

log = logging.getLogger("hub.pubsub")

# Seconds behind a change of Redis in which another node may notice that something is forgotten.
NOTICED = 60.0
# Rooms of one session above which it is not asked what they remember.
MANY_ROOMS = 32


class Replayer:
    """Replays the sessions of a node.

    `lost` hears that a session is another connection's, `failed` that the hub's own fault ended a replay.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        rooms: Rooms,
        *,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        lost: Callable[[Session, NotOwner], None],
        failed: Callable[[Session], None],
    ) -> None:
        self._settings = settings
        self._store = store
        self._rooms = rooms
        self._spawn = spawn
        self._lost = lost
        self._failed = failed
        # Replays at a time: a burst of returning clients must not starve the others.
        self._turns = asyncio.Semaphore(64)
        self._clock = asyncio.get_running_loop().time
        # Until then it may be told that Redis has forgotten what sessions should have got before it changed.
        self._doubtful_until = 0.0

    def lost_bus(self, sessions: Iterable[Session]) -> None:
        """Note where everybody is: if the server turns out to have changed, it may have forgotten what was to come."""
        for session in sessions:
            session.at_loss = session.sent

    def redis_changed(self, sessions: Iterable[Session]) -> None:
        """Let resets count from there for a while: others may notice late, when everybody here has gone on."""
        for session in sessions:
            session.doubtful = session.at_loss
        self._doubtful_until = self._clock() + NOTICED

    def admitted(self, session: Session) -> None:
        """Note where a session begins that comes in such a time."""
        if self._clock() <= self._doubtful_until:
            session.doubtful = session.sent

    def _doubtful(self, session: Session) -> int | None:
        in_doubt = self._clock() <= self._doubtful_until
        return session.doubtful if in_doubt else None  # rule: noticed_late

    def catch_up(self, session: Session) -> None:
        """Replay a session until it is live; at most one task a session does so."""
        if session.closed:
            return
        session.stale = True
        session.go_away()  # rule: heal_holds
        if session.task is None:
            session.task = self._spawn(self._replay(session))

    def slow(self, session: Session) -> None:
        """Its socket's buffer is full: the rest waits in its inbox."""
        session.go_away()
        session.parking = True
        if session.task is None:
            session.task = self._spawn(self._replay(session))

    async def _replay(self, session: Session) -> None:
        delay = 0.05
        try:
            while not session.closed:
                try:
                    if session.parking:
                        session.parking = False
                        await self._store.park(
                            session.client_id, session.connection, session.proven, gone=False
                        )
                    await session.drained()
                    await self._rooms.confirmed(session)  # rule: heal_cut/1
                    if await self._batch(session):
                        delay = 0.05
                    else:
                        await asyncio.sleep(0)  # let the others hear of it too
                    if session.state is SessionState.LIVE:
                        return
                except Unavailable:
                    await asyncio.sleep(delay)
                    delay = min(2 * delay, 1.0)
        except NotOwner as refusal:
            session.task = None
            self._lost(session, refusal)
        except Exception:
            # A fault of the hub's own: better a client that comes back than one that is deaf.
            log.exception("a replay failed")
            session.task = None
            self._failed(session)
        finally:
            session.task = None

    async def _batch(self, session: Session) -> bool:
        """Hand out one batch; the last one makes the session live, unless its buffer is full again.

        False: the bus was lost before the batch was asked for.
        """
        try:
            async with self._turns:
                # Going live is right only if every channel is heard at the moment when the script looks.
                if not self._rooms.hears(session):  # rule: heal_cut/2, deaf_again
                    return False
                session.begin_batch()
                after = session.sent
                lows = self._rooms.lows(session) if len(session.joins) <= MANY_ROOMS else {}
                batch = await self._store.replay(
                    session.client_id, session.connection, after, lows,
                    doubtful=self._doubtful(session),
                )  # fmt: skip
            # The answer to a subscription comes before the room's messages.
            await session.freed()
            if not session.closed:
                self._write(session, after, lows, batch)
            return True
        finally:
            session.end_batch()

    def _write(
        self, session: Session, after: int, lows: dict[str, int], batch: ReplayBatch
    ) -> None:
        """Write a batch, the answer to a call that told `after` and `lows`, and learn from it."""
        if batch.remembered:
            self._from_memory(session, lows, batch.now)
            return
        session.write_batch(batch)
        for gap in batch.gaps:
            self._rooms.lost(session, gap)
            if gap.reason == "reset" and session.doubtful is not None:
                session.doubtful = max(session.doubtful, gap.before - 1)  # told, once
        # The server is still the one that it was, or this node has been told: what it has handed out is not in doubt.
        reached = batch.live_from or batch.position
        session.at_loss = max(session.at_loss, reached)  # rule: told_once
        if batch.live_from is not None:
            session.go_live(batch.live_from)
        if batch.whole and not session.stale:
            before = self._rooms.read
            self._rooms.learn(session, after, batch.messages, last=batch.live_from is not None)
            if self._rooms.read > before and self._rooms.ahead:
                self._spawn(self.probe())

    async def probe(self) -> None:
        """Say something on the node's own channel: its bus is never silent, and comes to what was read from logs."""
        try:
            await self._store.probe(self._rooms.read)
        except Unavailable:
            pass  # what is heard next tells as well

    def _from_memory(self, session: Session, rooms: dict[str, int], now: int) -> None:
        """Write what was missed, as the rooms remember it; the session is live in Redis already.

        Live from what was heard, not from the clock: what lies between is on its way.
        """
        found = self._rooms.remembered(session, rooms)
        if found is None or session.kept is None:
            session.stale = True
            return
        # Of the other rooms nothing was missed but what was heard while the script was asked.
        found.update((m.offset, m) for m in session.kept if m.offset > session.sent)
        messages = [found[offset] for offset in sorted(found)]
        count = self._fit(messages)
        handed = messages[:count]
        position = handed[-1].offset if handed else session.sent
        for_it = [m for m in handed if m.skip != session.client_id and not m.expired(now)]
        session.write_batch(ReplayBatch(None, position, messages=for_it))
        if count == len(messages):
            session.go_live(session.sent)

    def _fit(self, messages: list[StoredMessage]) -> int:
        """Return how many messages make one batch."""
        size = 0
        for count, message in enumerate(messages[: self._settings.replay_count]):
            size += len(message.body)
            if count and size > self._settings.replay_bytes:
                return count
        return min(len(messages), self._settings.replay_count)

"""Replay: how a session that was away, slow or cut off from the bus gets what it missed, and goes live.

There is one loop for every cause. A batch comes from the logs, or from the replay caches of the rooms; each one is
written when the socket has drained, and the last one makes the session live.
"""

from __future__ import annotations

import asyncio

from hub.errors import Unavailable
from hub.message import StoredMessage
from hub.pubsub.cached_replay import CachedReplay
from hub.pubsub.rooms import Rooms
from hub.pubsub.session import Session, SessionState
from hub.settings import Settings
from hub.store.results import ReplayBatch
from hub.store.store import Store
from hub.tasks import BackgroundTasks

# Replay calls at a time: a burst of returning clients must not starve the others.
CALLS = 64
# Rooms of one session above which its rooms' caches are not asked.
MANY_ROOMS = 32
# Seconds between two attempts while Redis is away: doubled from the first to the last.
FIRST_DELAY, LAST_DELAY = 0.05, 1.0


class Replayer:
    """Replays the sessions of a node."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        rooms: Rooms,
        cached: CachedReplay,
        tasks: BackgroundTasks,
    ) -> None:
        self._settings = settings
        self._store = store
        self._rooms = rooms
        self._cached = cached
        self._tasks = tasks
        self._calls = asyncio.Semaphore(CALLS)

    async def replay(self, session: Session) -> None:
        """Hand out what a session missed, batch by batch, until it is live or closed. Raises NotOwner."""
        delay = FIRST_DELAY
        while not session.closed:
            try:
                if session.needs_park:
                    session.needs_park = False
                    await self._store.sessions.park(
                        session.client_id, session.connection_id, session.acked, gone=False
                    )
                await session.wait_drained()
                await self._rooms.wait_subscribed(session)  # rule: heal_cut/1
                if await self._batch(session):
                    delay = FIRST_DELAY
                else:
                    await asyncio.sleep(0)  # let the others notice the lost bus too
                if session.state is SessionState.LIVE:
                    return
            except Unavailable:
                await asyncio.sleep(delay)
                delay = min(2 * delay, LAST_DELAY)

    async def _batch(self, session: Session) -> bool:
        """Hand out one batch; the last one makes the session live, unless its buffer is full again.

        False: the bus was lost before the batch was asked for.
        """
        try:
            async with self._calls:
                # Going live is right only if every channel is subscribed at the moment when the script looks, so nothing is
                # awaited between this look and the call.
                if not self._rooms.is_subscribed(session):  # rule: heal_cut/2, deaf_again
                    return False
                session.begin_batch()
                after = session.sent
                complete_from: dict[str, int] = {}
                if len(session.joins) <= MANY_ROOMS:
                    complete_from = self._cached.complete_rooms(session)
                batch = await self._store.sessions.replay(
                    session.client_id,
                    session.connection_id,
                    after,
                    complete_from,
                    cursor=session.replay_cursor,
                    reset_from=self._store.loss_detector.reset_from(session),
                )
            # The answer to a subscribe comes before the room's messages.
            await session.wait_delivery_resumed()
            if not session.closed:
                if batch.in_cache:
                    self._write_cached(session, complete_from, batch.now)
                else:
                    self._write(session, after, batch)
            return True
        finally:
            session.end_batch()

    def _write(self, session: Session, after: int, batch: ReplayBatch) -> None:
        """Write a batch that comes after the offset `after`, and learn from it."""
        session.write_batch(batch)
        for gap in batch.gaps:
            self._rooms.suppress_gap(session, gap)
        self._store.loss_detector.on_handed_out(session, batch)
        if batch.live_from is not None:
            session.go_live(batch.live_from)
        if batch.complete and not session.needs_replay:
            last = batch.live_from is not None
            if self._cached.learn(session, after, batch.messages, last=last):
                self._tasks.spawn(self._cached.probe())

    def _write_cached(self, session: Session, complete_from: dict[str, int], now: int) -> None:
        """Write what was missed from the rooms' caches; in Redis the session is live already.

        It goes live from what the bus brought, not from the clock: what lies between is on its way.
        """
        missed = self._cached.missed(session, complete_from)
        buffered = session.buffered_in_replay
        if missed is None or buffered is None:
            session.needs_replay = True
            return
        # Of the other rooms nothing was missed but what came while the script was asked.
        missed.update((m.offset, m) for m in buffered if m.offset > session.sent)
        messages = [missed[offset] for offset in sorted(missed)]
        count = self._fit(messages)
        handed = messages[:count]
        position = handed[-1].offset if handed else session.sent
        for_it = [m for m in handed if m.skip_client != session.client_id and not m.expired(now)]
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

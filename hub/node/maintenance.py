"""Maintenance: what a node does every so often so that nothing of it lapses, and after a change of Redis."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any

from hub.errors import Unavailable
from hub.pubsub.cached_replay import CachedReplay
from hub.pubsub.session import Session
from hub.pubsub.sessions import Sessions
from hub.settings import Settings
from hub.store.results import NotOwner
from hub.store.store import Store
from hub.tasks import BackgroundTasks

log = logging.getLogger("hub.node")

# Sessions that one script looks after, and rooms of theirs: while it runs, nobody else is served.
SESSIONS, ROOMS = 100, 1000


class Maintenance:
    """The maintenance of one node. Where it fails by a fault of the hub's own, the node is of no use any more."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        sessions: Sessions,
        cached_replay: CachedReplay,
        tasks: BackgroundTasks,
    ) -> None:
        self._settings = settings
        self._store = store
        self._sessions = sessions
        self._cached_replay = cached_replay
        self._tasks = tasks

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Keep the node's lease, sessions and bus alive while the body runs."""
        settings = self._settings
        life = min(settings.anonymous_life, settings.named_life)
        work: list[tuple[float, Callable[[], Awaitable[Any]]]] = [
            (settings.lease / 4, self.renew),
            (settings.lease / 4, self._store.leases.check_writes),
            (settings.lease / 2, self.sweep),
            (settings.bus_silence / 4, self._cached_replay.probe),
            (settings.bus_silence / 4, self._store.raise_failure),
            (min(2.0, settings.lease / 4), self.commit),
            (max(life / 2, 0.5), self.touch),
        ]
        tasks = [self._tasks.spawn(self._every(seconds, job), vital=True) for seconds, job in work]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _every(self, seconds: float, job: Callable[[], Awaitable[Any]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await job()
            except Unavailable:
                pass  # the store says so once, and tries to get Redis back

    async def renew(self) -> None:
        """Renew the lease. Where it had lapsed others parked the sessions: replay them. Raises Unavailable."""
        bus_was_up = self._store.bus.up
        held = await self._store.leases.renew()
        if bus_was_up:
            self._store.loss_detector.trust_bus()
        if not held:
            log.warning("the lease had lapsed")
            self._sessions.catch_up_all(self._sessions)  # rule: lapse_replays/1
            await self.touch()

    async def sweep(self) -> None:
        """Park what dead nodes served; after an outage of Redis, when all leases are over, wait one lease first."""
        loop = asyncio.get_running_loop()
        if loop.time() - self._store.connected_at < self._settings.lease:
            return
        while await self._store.leases.sweep(SESSIONS, ROOMS):
            pass  # each call yields to the others

    async def touch(self) -> None:
        """Keep the sessions served here from expiring. Raises Unavailable."""
        for batch in _batched(self._sessions):
            await self._store.sessions.touch([(s.client_id, s.connection_id) for s in batch])

    async def commit(self) -> None:
        """Write back what is known to have arrived. Raises Unavailable."""
        for batch in _batched([session for session in self._sessions if session.dirty]):
            await self._write_back(batch)

    async def commit_now(self, session: Session) -> None:
        """Write back what is known to have arrived at one session. Raises Unavailable, NotOwner."""
        if not await self._write_back([session]):
            raise NotOwner(b"replaced")  # rule: ack_stored

    async def _write_back(self, sessions: list[Session]) -> int:
        for session in sessions:
            session.dirty = False
        try:
            return await self._store.sessions.commit(
                [(s.client_id, s.connection_id, s.acked) for s in sessions]
            )
        except Unavailable:
            for session in sessions:
                # The next round writes it back, even if nothing more arrives.
                session.dirty = True
            raise

    # -- a change of Redis

    def on_redis_changed(self) -> None:
        """Take the lease anew and replay every session: Redis was restarted or replaced."""
        self._tasks.spawn(self._after_change(), vital=True)

    async def _after_change(self) -> None:
        delay = 0.05
        while True:
            try:
                await self.renew()
                await self.touch()
                break
            except Unavailable:  # it went away again, or is full
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))
                delay = min(2 * delay, 2.0)
        self._sessions.catch_up_all(self._sessions)


def _batched(sessions: Iterable[Session]) -> Iterator[list[Session]]:
    """Yield the sessions, as they are now, in batches: at most SESSIONS, in ROOMS together, or one that is in more."""
    batch: list[Session] = []
    rooms = 0
    for session in list(sessions):
        if len(batch) == SESSIONS or (batch and rooms + len(session.joins) > ROOMS):
            yield batch
            batch, rooms = [], 0
        batch.append(session)
        rooms += len(session.joins)
    if batch:
        yield batch

"""What a node does every so often so that nothing of it lapses, and what it does when Redis is not the one it was."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
)
from typing import Any

from hub.errors import Unavailable
from hub.pubsub.session import Session
from hub.settings import Settings
from hub.store.results import NotOwner
from hub.store.store import Store

log = logging.getLogger("hub.node")

# Sessions that one script looks after, and rooms of theirs: it holds up everybody else's.
SESSIONS, ROOMS = 100, 1000


class Maintenance:
    """The upkeep of one node, whose `sessions` are given by client.

    `replay_all` replays all of them, `probe` lets the bus be heard; `failed` hears of a fault of the hub's own that
    leaves the node deaf: the process is of no use any more.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        sessions: Mapping[str, Session],
        *,
        replay_all: Callable[[Iterable[Session]], None],
        probe: Callable[[], Awaitable[None]],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._settings = settings
        self._store = store
        self._sessions = sessions
        self._replay_all = replay_all
        self._probe = probe
        self._spawn = spawn
        self._failed = failed

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Keep the node's lease, sessions and bus alive while the body runs."""
        settings = self._settings
        life = min(settings.anonymous_life, settings.named_life)
        work: list[tuple[float, Callable[[], Awaitable[Any]]]] = [
            (settings.lease / 4, self.renew),
            (settings.lease / 2, self.sweep),
            (settings.bus_silence / 4, self._probe),
            (settings.bus_silence / 4, self._store.watch),
            (min(2.0, settings.lease / 4), self.prove),
            (max(life / 2, 0.5), self.touch),
        ]
        tasks = [asyncio.create_task(self._every(seconds, job)) for seconds, job in work]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _every(self, seconds: float, job: Callable[[], Awaitable[Any]]) -> None:
        try:
            while True:
                await asyncio.sleep(seconds)
                try:
                    await job()
                except Unavailable:
                    pass  # the store says so once, and tries to get Redis back
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody would do this work any more
            self._failed(error)

    async def renew(self) -> None:
        """Renew the lease. Where it had lapsed others parked the sessions: replay them. Raises Unavailable."""
        heard = self._store.bus.up
        held = await self._store.renew()
        if heard:
            self._store.seen.thaw()  # the bus is back, and the server is still the one it was
        if not held:
            log.warning("the lease had lapsed")
            self._replay_all(self._sessions.values())  # rule: lapse_replays/1
            await self.touch()

    async def sweep(self) -> None:
        """Park what dead nodes served; after an outage of Redis, when all leases are over, wait one lease first."""
        loop = asyncio.get_running_loop()
        if loop.time() - self._store.connected_at < self._settings.lease:
            return
        while await self._store.sweep(SESSIONS, ROOMS):
            pass  # each call yields to the others

    async def touch(self) -> None:
        """Keep the sessions served here from expiring. Raises Unavailable."""
        for batch in _batched(self._sessions.values()):
            await self._store.touch([(s.client_id, s.connection) for s in batch])

    async def prove(self) -> None:
        """Write back what is proven to have arrived. Raises Unavailable."""
        dirty = [session for session in self._sessions.values() if session.dirty]
        for batch in _batched(dirty):
            await self._write_back(batch)

    async def prove_now(self, session: Session) -> None:
        """Write back what one session has proven. Raises Unavailable, NotOwner."""
        if not await self._write_back([session]):
            raise NotOwner(b"replaced")  # rule: ack_stored

    async def _write_back(self, sessions: list[Session]) -> int:
        for session in sessions:
            session.dirty = False
        try:
            return await self._store.prove(
                [(s.client_id, s.connection, s.proven) for s in sessions]
            )
        except Unavailable:
            for session in sessions:
                # The next round writes it back, even if nothing more arrives.
                session.dirty = True
            raise

    # -- a change of Redis

    def redis_changed(self) -> None:
        """Redis was restarted or replaced: take the lease anew, and read everything anew."""
        self._spawn(self._after_change()).add_done_callback(self._vital)

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
        self._replay_all(self._sessions.values())

    def _vital(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)


def _batched(sessions: Iterable[Session]) -> Iterator[list[Session]]:
    """Deal sessions out, as they are now: at most SESSIONS at a time, and ROOMS or one that is in more."""
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

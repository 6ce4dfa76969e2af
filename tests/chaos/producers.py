"""Producers: they number what they publish, keep what was acknowledged, and try again until it is.

Each publication has an idempotency id, under which it is sent again whenever its outcome is unknown.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

from tests.chaos.history import History, Publication, blob
from tests.chaos.member import LOST, Member
from tests.support.times import MS, UNIT

# Only these say that trying again is of use.
RETRYABLE = ("unavailable", "rate_limited")


class Producer:
    """Publishes into rooms at a pace, with up to `window` publications under way.

    `pad`: so many characters more in each. `traits`: some are volatile, have a ttl, or carry binary data.
    """

    def __init__(
        self, member: Member, history: History, rooms: list[str], *, pause: float, window: int = 1,
        pad: int = 0, traits: bool = False,
    ) -> None:  # fmt: skip
        self.member = member
        self.name = member.name
        self._history = history
        self._rooms = rooms
        self._pause = pause
        self._window = window
        self._pad = "x" * pad
        self._traits = traits
        self._count = 0
        # How often the hub said `unavailable`, or nothing.
        self.refused = self.silent = 0
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        await self.member.start()
        self._tasks = [asyncio.create_task(self._work()) for _ in range(self._window)]

    async def stop(self) -> None:
        """Let what is under way be acknowledged, then stop."""
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def cancel(self) -> None:
        """Stop whatever is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _work(self) -> None:
        while not self._stopping:
            for room in self._rooms:
                await self.publish(room)
            await asyncio.sleep(self._pause * random.uniform(0.5, 1.5))

    async def publish(self, room: str) -> Publication:
        """Publish one message, and return when the hub has it, or may have it if it is volatile."""
        self._count += 1
        key = f"{self.name}-{self._count}"
        publication = Publication(room, key, time.monotonic())
        data: dict[str, Any] = {"k": key}
        if self._pad:
            data["x"] = self._pad
        if self._traits:
            self._vary(publication, data)
        fields: dict[str, Any] = {"room": room, "event": "m", "data": data, "id": key}
        if publication.volatile:
            fields["volatile"] = True
        if publication.ttl is not None:
            fields["ttl"] = publication.ttl
        self._history.publications[key] = publication
        while True:
            publication.tries += 1
            try:
                answer = await self.member.ask("publish", **fields)
            except LOST:
                self.silent += 1
                answer = None
            if answer is not None and answer["ok"]:
                publication.offset = int(answer["offset"])
                publication.acked_at = time.monotonic()
                return publication
            if answer is not None:
                assert answer["error"]["code"] in RETRYABLE, answer
                self.refused += 1
            if publication.volatile:
                return publication  # who is there now has heard it, or nobody
            await asyncio.sleep(random.uniform(50 * MS, 250 * MS))

    @staticmethod
    def _vary(publication: Publication, data: dict[str, Any]) -> None:
        match random.randrange(6):
            case 0:
                publication.volatile = True
            case 1:
                publication.ttl = random.choice([500 * MS, 2 * UNIT, 600 * UNIT])
            case 2 | 3:
                data["b"] = blob(publication.key)

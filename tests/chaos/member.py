"""What every client of the storm is: it joins rooms, acknowledges, and writes down what it is told.

A member's record holds what arrived in the order of its packets. Members come back by their own means.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from typing import Any

import aiohttp

from tests.chaos.history import (
    Acked,
    Acking,
    Began,
    Gap,
    Got,
    Joined,
    Joining,
    Leaving,
    Left,
    Record,
    blob,
)
from tests.support.times import MS, UNIT, eventually

# Seconds for one attempt to connect, and for one answer.
ATTEMPT = 4 * UNIT
# What ends a bare connection or an attempt at one.
LOST = (aiohttp.ClientError, OSError, TimeoutError, AssertionError)


class Tap(list[Any]):
    """A list of the drivers' that passes on what is appended."""

    def __init__(self, hear: Callable[[Any], None]) -> None:
        super().__init__()
        self._hear = hear

    def append(self, item: Any) -> None:
        self._hear(item)


class Member:
    """A client; its rooms are joined as soon as it can, and again where it had left them."""

    kind = ""
    returns = True

    def __init__(self, url: str, record: Record) -> None:
        self.url = url
        self.record = record
        # Where it is, as far as it was answered.
        self.rooms: set[str] = set()
        # Whether an earlier session can be continued.
        self._known = False
        # When the present attempt to connect began; 0: its own affair.
        self._asked = 0.0
        # Tells connections apart that are written down side by side.
        self._via = 0
        # Set when the client was stopped for good by the hub.
        self.fault: str | None = None

    @property
    def name(self) -> str:
        return self.record.name

    async def start(self) -> None:
        """Begin to connect; return at once or when connected."""
        raise NotImplementedError

    async def stop(self) -> None:
        """Cut the connection, and stay away."""
        raise NotImplementedError

    async def ask(self, verb: str, **fields: Any) -> dict[str, Any]:
        """Ask once. Raises one of LOST where there is no answer."""
        raise NotImplementedError

    def standing(self) -> str:
        """Say how its connection stands by its own account, for whoever has to understand why it is deaf."""
        return ""

    async def began(self) -> None:
        """Wait for its first session: one fault lasts half a minute, and others follow on it."""
        await eventually(
            lambda: any(isinstance(event, Began) for event in self.record.events),
            120 * UNIT,
            self.name,
        )

    async def acknowledge(self) -> None:
        """Tell again and again, until cancelled, that what has arrived is processed."""
        while True:
            await asyncio.sleep(random.uniform(200 * MS, 600 * MS))
            with contextlib.suppress(*LOST):
                await self.acknowledge_once()

    async def acknowledge_once(self) -> None:
        """Tell that what has arrived is processed. Raises one of LOST where there is no answer."""
        arrived = [event.offset for event in self.record.events if isinstance(event, Got)]
        if not arrived:
            return
        self.record.add(Acking(arrived[-1]))
        asked = time.monotonic()
        answer = await self.ask("ack", offset=str(arrived[-1]))
        if answer["ok"]:
            self.record.add(Acked(int(answer["offset"]), asked, time.monotonic()))

    async def join(self, room: str, **fields: int) -> None:
        """Ask to join until that is answered."""
        self.record.add(Joining(room))
        answer = await self._insist("subscribe", room=room, **fields)
        self.record.add(Joined(room, int(answer["offset"])))
        self.rooms.add(room)

    async def leave(self, room: str) -> None:
        """Ask to leave until that is answered."""
        self.rooms.discard(room)
        self.record.add(Leaving(room))
        await self._insist("unsubscribe", room=room)
        self.record.add(Left(room))

    async def _insist(self, verb: str, **fields: Any) -> dict[str, Any]:
        while True:
            try:
                answer = await self.ask(verb, **fields)
            except LOST:
                await asyncio.sleep(100 * MS)
                continue
            if answer["ok"]:
                return answer
            if not answer["error"]["retryable"]:
                raise AssertionError(f"{self.name}: {verb} {fields}: {answer}")
            await asyncio.sleep(random.uniform(100 * MS, 300 * MS))

    def hear(self, event: str, args: list[Any]) -> None:
        """Write an event of the hub's down."""
        if event == "hub:session":
            info = args[0]
            self.record.add(
                Began(
                    int(args[-1]), info["resumed"] is not None, info["missed"], self._known, time.monotonic(),
                    self._asked, self._via,
                )
            )  # fmt: skip
            self._known = True
        elif event == "hub:gap":
            told = args[0]
            self.record.add(
                Gap(
                    told["room"], told["reason"], int(told["after"]), int(told["before"]), told["dropped"]
                )
            )  # fmt: skip
        elif event == "m":
            data, meta, offset = args
            self.got(meta["room"], data, offset)

    def got(self, room: str, data: Any, offset: str) -> None:
        """Write a message down."""
        whole = "b" not in data or data["b"] == blob(data["k"])
        self.record.add(Got(room, data["k"], int(offset), whole, self._via))

    def last(self, room: str) -> int:
        """Return the newest offset heard of in a room, in a message or a gap."""
        for event in reversed(self.record.events):
            if isinstance(event, Got) and event.room == room:
                return event.offset
            if isinstance(event, Gap) and event.room == room:
                return event.before - 1
            if isinstance(event, Joined) and event.room == room:
                return event.offset
        return 0

"""Reading a room's log for a client that asks for its history.

A page is read in slices, and few messages at a time: Redis and the event loop are shared by all, and what the others
ask waits for a slice or two, never for a page.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from hub.model import ATTACHMENTS
from hub.settings import Settings
from hub.store.results import HistoryPage
from hub.store.store import Store
from hub.strict_json import renumber

# Messages of a slice, and messages that a node reads at the same time: few long slices, or many short ones.
SLICE, TOGETHER = 100, 200


class HistoryReader:
    """Reads the logs of rooms, for all connections of a node."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._store = store
        self._limit, self._bytes = settings.history_limit, settings.replay_bytes
        self._turns = WeightedSemaphore(TOGETHER)

    async def read(
        self, room: str, *, after: int | None, before: int | None, limit: int | None
    ) -> HistoryPage:
        """Return the first messages after an offset, or else the last ones, before another offset if one is given.

        At most `limit` of them, of `history_limit` and of `replay_bytes` in all, but one however long it is; `more` says
        of others within the two offsets. Raises Unavailable.
        """
        most = self._limit if limit is None else min(limit, self._limit)
        page = await self._slice(room, after, before, most, self._bytes)
        whole, size = page, page.size
        while page.more and len(whole.messages) < most and size < self._bytes:
            if after is None:
                before = page.reached
            else:
                after = page.reached
            wanted = most - len(whole.messages)
            page = await self._slice(room, after, before, wanted, self._bytes - size)
            size += page.size
            whole.examined += page.examined
            whole.more = page.more
            # The page ends before what the log has lost meanwhile: a client that reads on from there gets `gap`.
            if size > self._bytes or page.gap:
                whole.more = True
                break
            if after is None:
                whole.messages = page.messages + whole.messages
            else:
                whole.messages += page.messages
        return whole

    async def _slice(
        self, room: str, after: int | None, before: int | None, limit: int, size: int
    ) -> HistoryPage:
        limit = min(limit, SLICE)
        async with self._turns.taking(limit):
            return await self._store.history(room, after, before, limit, size)


class WeightedSemaphore:
    """Allows `most` to be held at a time. A taker of more than is free waits, and so does every later one."""

    def __init__(self, most: int) -> None:
        self._free = most
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @contextlib.asynccontextmanager
    async def taking(self, amount: int) -> AsyncIterator[None]:
        """Wait until so much is free, and hold it."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((amount, turn))
        self._admit()
        try:
            await turn
            yield
        finally:
            self._free += 0 if turn.cancelled() else amount
            self._admit()

    def _admit(self) -> None:
        while self._waiting:
            amount, turn = self._waiting[0]
            if not turn.done():
                if amount > self._free:
                    return
                self._free -= amount
                turn.set_result(None)
            self._waiting.popleft()


def answer(page: HistoryPage, *, newest: bool) -> tuple[dict[str, Any], list[bytes]]:
    """Return a page as an answer holds it, with at most 10 attachments; messages with more of them are left out.

    `newest`: what is asked for is the end of the log, so it is the beginning of the page that goes.
    """
    chosen: list[dict[str, Any]] = []
    attachments: list[bytes] = []
    more = page.more
    for message in reversed(page.messages) if newest else page.messages:
        entry, binary = message.history()
        if len(attachments) + len(binary) > ATTACHMENTS:
            more = True
            break
        if binary:
            entry["data"] = msgspec.Raw(renumber(bytes(entry["data"]), len(attachments)))
            attachments += binary
        chosen.append(entry)
    if newest:
        chosen.reverse()
    return {"messages": chosen, "more": more, "gap": page.gap}, attachments

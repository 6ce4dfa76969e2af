"""What tests expect of a stream of messages, said in one place."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Protocol

from tests.support.times import SOON, eventually


@contextlib.asynccontextmanager
async def flow(publisher: Any, room: str) -> AsyncIterator[list[int]]:
    """Publish numbers while the body runs; yields the list of those acknowledged so far."""
    sent: list[int] = []
    stop = asyncio.Event()

    async def go() -> None:
        while not stop.is_set():
            await publisher.publish(room, len(sent))
            sent.append(len(sent))

    going = asyncio.create_task(go())
    try:
        yield sent
    finally:
        stop.set()
        await going


class Hears(Protocol):
    """Anything that keeps the arguments of the events that it heard."""

    def named(self, name: str) -> list[list[Any]]: ...

    def data(self, name: str = "m") -> list[Any]: ...


def in_order(client: Hears, name: str = "m") -> None:
    """Messages end with offsets that rise from each to the next, so none was repeated."""
    offsets = [int(args[-1]) for args in client.named(name)]
    assert offsets == sorted(set(offsets)), "repeated or out of order"


async def exactly(
    client: Hears, expected: list[Any], name: str = "m", *, within: float = SOON
) -> None:
    """The client hears these messages, each once and in this order, and no others."""
    await eventually(
        lambda: len(client.data(name)) >= len(expected), within=within,
        what=lambda: f"{len(client.data(name))} of {len(expected)}: {client.data(name)[-20:]}",
    )  # fmt: skip
    assert client.data(name) == expected
    in_order(client, name)


def at_least_once(data: list[Any], expected: list[Any]) -> bool:
    """Return whether the first hearing of each is in this order; repeats may follow."""
    return list(dict.fromkeys(data)) == expected

"""The lane of one connection, with a carrier that fails."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from hub.api.limits import ConnectionLimits, SharedLoad
from hub.api.pipeline import VerbPipeline
from hub.api.requests import HistoryRequest, PublishRequest
from hub.settings import Settings
from tests.support.times import eventually


class Peer:
    """Keeps the frames written to it."""

    direct = None
    paused = False

    def __init__(self) -> None:
        self.written: list[Any] = []

    def write(self, data: bytes, frames: list[Any]) -> None:
        self.written += frames

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False


class Carrier:
    """Fails at every publish; other verbs are carried out by themselves."""

    def publish(self, *_: Any) -> None:
        raise ZeroDivisionError

    async def carry_out(self, lane: VerbPipeline, request: Any, reply: Any) -> None:
        await asyncio.sleep(0)
        reply({"ok": True}, [])

    def call_soon(self, work: Any) -> None:
        asyncio.get_running_loop().call_soon(work)

    def spawn(self, work: Any) -> asyncio.Task[None]:
        return asyncio.create_task(work)


@pytest.mark.parametrize("behind_another", [False, True])
async def test_a_publish_that_fails_is_answered_and_counts_no_longer(behind_another, caplog):
    """Where the hub itself is at fault, too; and what is behind it is carried out."""
    load, peer = SharedLoad(10), Peer()
    limits = ConnectionLimits(Settings(), peer, asyncio.get_running_loop(), load)
    lane = VerbPipeline(Carrier(), peer, None, limits)
    publish = PublishRequest(room="r", event="e", data=msgspec.Raw(b"1"))
    verbs = [publish, HistoryRequest(room="r")]
    if behind_another:
        verbs = [HistoryRequest(room="r"), *verbs]
    for number, verb in enumerate(verbs):
        lane.submit(verb, [], str(number), 10)
    await eventually(lambda: len(peer.written) == len(verbs))
    told = [frame.wire[2:] for frame in peer.written]
    assert [b'"code":"internal"' in answer for answer in told] == [
        verb is publish for verb in verbs
    ]
    assert load.under_way == 0
    assert [record.message for record in caplog.records] == ["a publish failed"]
    caplog.clear()

"""The verbs of one connection, where a handler fails."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from hub.api.limits import ConnectionLimits, SharedLoad
from hub.api.pipeline import Call, Verb, VerbPipeline
from hub.api.requests import HistoryRequest, PublishRequest
from hub.settings import Settings
from hub.tasks import BackgroundTasks
from tests.support.times import eventually


class Peer:
    """Keeps the frames written to it."""

    write_direct = None
    paused = False

    def __init__(self) -> None:
        self.written: list[Any] = []

    def write(self, data: bytes, frames: list[Any]) -> None:
        self.written += frames

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False


class Node:
    """As much of a node as a pipeline uses."""

    def __init__(self) -> None:
        self.tasks = BackgroundTasks()


def fails(call: Call, request: Any) -> None:
    raise ZeroDivisionError


async def answers(call: Call, request: Any) -> None:
    await asyncio.sleep(0)
    call.reply({"ok": True})


PUBLISH = Verb("publish", PublishRequest, fails)
HISTORY = Verb("history", HistoryRequest, answers)


@pytest.mark.parametrize("behind_another", [False, True])
async def test_a_publish_that_fails_is_answered_and_counts_no_longer(behind_another, caplog):
    """Where the hub itself is at fault, too; and what is behind it is carried out."""
    load, peer = SharedLoad(10), Peer()
    limits = ConnectionLimits(Settings(), peer, asyncio.get_running_loop(), load)
    node: Any = Node()
    session: Any = None
    pipeline = VerbPipeline(node, peer, session, limits)
    publish = PublishRequest(room="r", event="e", data=msgspec.Raw(b"1"))
    history = HistoryRequest(room="r")
    verbs = [(PUBLISH, publish), (HISTORY, history)]
    if behind_another:
        verbs = [(HISTORY, history), *verbs]
    for number, (verb, request) in enumerate(verbs):
        pipeline.submit(verb, request, [], str(number), 10)
    await eventually(lambda: len(peer.written) == len(verbs))
    told = [frame.wire[2:] for frame in peer.written]
    assert [b'"code":"internal"' in answer for answer in told] == [
        verb is PUBLISH for verb, _ in verbs
    ]
    assert load.in_progress == 0
    assert [record.message for record in caplog.records] == ["a publish failed"]
    caplog.clear()

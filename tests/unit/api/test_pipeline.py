"""The verbs of one connection, where a handler fails."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from hub.api import pipeline as pipeline_module
from hub.api.limits import ConnectionLimits, SharedLoad
from hub.api.pipeline import Call, Verb, VerbPipeline
from hub.api.requests import HistoryRequest, PublishRequest
from hub.errors import NotFound
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


async def test_neighbours_of_one_verb_go_together(monkeypatch):
    """In the order sent, none past another verb or one that has to go alone; what is left unanswered gets the error."""
    monkeypatch.setattr(pipeline_module, "TOGETHER", 3)
    groups: list[list[str]] = []

    async def join(calls: list[Call], requests: list[Any]) -> None:
        groups.append([request.room for request in requests])
        await asyncio.sleep(0)
        calls[0].reply_soon({"ok": True})
        if len(calls) > 1:
            raise NotFound("no room")

    async def alone(call: Call, request: Any) -> None:
        groups.append([f"history {request.room}"])

    joins = Verb("join", HistoryRequest, join, together=lambda request: request.limit is None)
    history = Verb("history", HistoryRequest, alone)
    load, peer = SharedLoad(100), Peer()
    limits = ConnectionLimits(Settings(), peer, asyncio.get_running_loop(), load)
    node: Any = Node()
    session: Any = None
    pipeline = VerbPipeline(node, peer, session, limits)
    for number, name in enumerate("abcde!fg-hi"):
        if name == "-":
            pipeline.submit(history, HistoryRequest(room=name), [], "", 10)
        else:
            limit = 1 if name == "!" else None
            pipeline.submit(joins, HistoryRequest(room=name, limit=limit), [], str(number), 10)
    await eventually(lambda: not load.in_progress)
    assert groups == [["a", "b", "c"], ["d", "e"], ["!"], ["f", "g"], ["history -"], ["h", "i"]]
    told = [frame.wire[2:].decode() for frame in peer.written]
    assert [text[: text.index("[")] for text in told] == [f"43{n}" for n in range(11) if n != 8]
    fine = ["43" + number for number in ("0", "3", "5", "6", "9")]
    assert [text[: text.index("[")] for text in told if '"ok":true' in text] == fine


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

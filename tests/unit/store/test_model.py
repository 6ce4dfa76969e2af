"""Random interleavings of what scripts do to one session, against a model of a few lines.

The model knows every message published after the session's joins, and what its client has got. In the end each of them
has arrived once and in order, or a gap names it, and gaps count exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from hub.store.scripts import read_all
from tests.integration.walk.lab import START, Raw, fake_time
from tests.support.redis import RedisServer

ROOMS = ("A", "B", "C")
SCRIPTS = {name: fake_time(script) for name, script in read_all().items()}
LIFE, AGE = 1000, 2000  # seconds

_server: list[RedisServer] = []


@pytest.fixture(autouse=True)
def shared(server: RedisServer) -> Iterator[None]:
    """Let the machine find the server."""
    _server.append(server)
    server.client.flushall()
    for script in SCRIPTS.values():
        server.client.script_load(script.text)
    yield
    _server.pop()


class Session(RuleBasedStateMachine):
    """One session, its client, and everybody else's messages."""

    def __init__(self) -> None:
        super().__init__()
        self.raw = Raw(str(_server[-1].socket))
        self.raw.call("FLUSHALL")
        self.raw.call("SET", "now", START)

    @initialize(
        log=st.integers(1, 6), inbox=st.integers(1, 12), batch=st.integers(1, 4), rooms=st.sets(st.sampled_from(ROOMS))
    )  # fmt: skip
    def begin(self, log: int, inbox: int, batch: int, rooms: set[str]) -> None:
        self.log, self.inbox, self.batch = log, inbox, batch
        self.connections = 1
        answer = self.take("", "", "", "")
        self.client, self.generation, self.secret = answer[1], answer[2], "h"
        self.position = self.offset = int(answer[5])
        self.state = "replaying"
        # Room -> join; what was published in it since, and whether the session is in it.
        self.joins: dict[str, int] = {}
        self.due: dict[str, list[int]] = {}
        self.got: list[int] = []
        self.gaps: list[tuple[str, int, int, int | None]] = []
        # The last batch, where its answer may yet be lost.
        for room in sorted(rooms):
            self.subscribe(room)

    def run(self, name: str, *args: Any) -> Any:
        reply = self.raw.call("EVALSHA", SCRIPTS[name].sha, 1, "w:{0}:clock", *args)
        assert not isinstance(reply, Exception), reply
        return reply

    @property
    def owner(self) -> str:
        return f"n/{self.connections}"

    def take(self, client: str, generation: str, secret: str, offset: str) -> list[str]:
        reply = self.run(
            "take", client, "0", generation, "0" if generation else "", secret, "anon", "h", "sid", self.owner, offset,
            "0", LIFE * 1000, LIFE * 1000, "w:{0}:bus:node:",
        )  # fmt: skip
        return [part.decode() for part in reply]

    # -- what others do

    @rule(room=st.sampled_from(ROOMS), count=st.integers(1, 4))
    def publish(self, room: str, count: int) -> None:
        base = f"w:{{0}}:room:{room}:"
        for _ in range(count):
            reply = self.raw.call(
                "EVALSHA", SCRIPTS["publish"].sha, 4, "w:{0}:clock", base + "log", base + "meta", base + "away", room,
                "w:{0}:bus:room:" + room, "3 5 5 * 0 *", '"m",1', "0", "0", "0", self.log, AGE * 10**6, AGE * 1000,
                (AGE + 2 * LIFE + 120) * 1000, self.inbox, "120000",
            )  # fmt: skip
            offset = int(reply)
            if room in self.joins:
                self.due[room].append(offset)
                if self.state == "live":
                    self.receive(offset)

    @rule(room=st.sampled_from(ROOMS))
    def expire(self, room: str) -> None:
        """A log expires idle."""
        self.raw.call("DEL", f"w:{{0}}:room:{room}:log")

    @rule()
    def lose_inbox(self) -> None:
        """The list is gone, for whatever reason."""
        self.raw.call("DEL", f"w:{{0}}:inbox:{self.client}:{self.generation}")

    # -- what its node does

    @rule(gone=st.booleans())
    def park(self, gone: bool) -> None:
        assert self.run("park", self.client, self.owner, "0", "1" if gone else "0") == b"ok"
        self.state = "gone" if gone else "replaying"
        if gone:
            self.connect(self.offset)

    @rule(back=st.integers(0, 3))
    def come_back(self, back: int) -> None:
        """Return without anybody's having noticed; the last few may not have been handled."""
        for _ in range(min(back, len(self.got))):
            lost = self.got.pop()
            self.offset = min(self.offset, lost - 1)
        self.gaps = [gap for gap in self.gaps if gap[2] <= self.offset + 1]
        self.connect(self.offset)

    def connect(self, offset: int) -> None:
        self.connections += 1
        answer = self.take(self.client, self.generation, self.secret, str(offset))
        assert answer[0] == "pid"
        self.position = int(answer[5])
        assert self.position == offset
        self.state = "replaying"
        self.told = True

    @precondition(lambda self: self.state == "replaying")
    @rule(lost=st.sampled_from([False, False, False, True]))
    def replay(self, lost: bool) -> None:
        reply = self.run(
            "replay", self.client, self.owner, self.position, self.batch, 10**6, AGE * 10**6
        )
        if lost:
            return
        live, position, gaps, messages = reply[:4]
        for room, _, after, before, dropped in gaps:
            self.tell(room.decode(), int(after), int(before), int(dropped) if dropped else None)
        assert len(messages) <= self.batch
        for room, offset, *_ in messages:
            assert int(offset) > self.joins[room.decode()]
            self.receive(int(offset))
        self.position = int(position)
        if live:
            self.position = self.offset = int(live)
            self.state = "live"

    @precondition(lambda self: self.state == "live")
    @rule()
    def lose_bus(self) -> None:
        """The node was deaf for a while: the session is replayed from where it was."""
        self.position = self.offset
        self.state = "replaying"

    @rule(room=st.sampled_from(ROOMS))
    def subscribe(self, room: str) -> None:
        join, new = self.run(
            "subscribe", self.client, self.owner, room, 100, "1" if room in self.joins else "0"
        )
        assert (new == b"1") == (room not in self.joins)
        if room not in self.joins:
            self.joins[room] = int(join)
            self.due[room] = []

    @precondition(lambda self: self.joins)
    @rule(data=st.data())
    def unsubscribe(self, data: st.DataObject) -> None:
        room = data.draw(st.sampled_from(sorted(self.joins)))
        assert self.run("unsubscribe", self.client, self.owner, room) == b"ok"
        del self.joins[room], self.due[room]
        self.gaps = [gap for gap in self.gaps if gap[0] != room]

    # -- what its client makes of it

    def receive(self, offset: int) -> None:
        assert not self.got or offset > self.got[-1], "repeated, or out of order"
        assert not any(offset in self.due.get(r, ()) and a < offset < b for r, a, b, _ in self.gaps)
        self.got.append(offset)
        self.offset = offset

    def tell(self, room: str, after: int, before: int, dropped: int | None) -> None:
        inside = [offset for offset in self.due[room] if after < offset < before]
        assert inside, "a gap in which nothing was"
        assert not set(inside) & set(self.got), "a gap that names what had arrived"
        if dropped is not None:
            assert dropped == len(inside)
        self.gaps = [
            g for g in self.gaps if not (g[0] == room and after <= g[1] and g[2] <= before)
        ]
        self.gaps.append((room, after, before, dropped))

    def teardown(self) -> None:
        try:
            if hasattr(self, "state"):
                for _ in range(500):
                    if self.state == "live":
                        break
                    self.replay(lost=False)
                assert self.state == "live"
                for room, due in self.due.items():
                    for offset in due:
                        told = any(r == room and a < offset < b for r, a, b, _ in self.gaps)
                        assert offset in self.got or told, f"lost {offset} of {room}: {self.gaps}"
        finally:
            self.raw.close()


def test_one_session_against_the_model() -> None:
    """No loss without a gap, no repeat, no reorder, and exact counts, in every interleaving."""
    run_state_machine_as_test(
        Session,
        settings=settings(
            max_examples=150, stateful_step_count=40, deadline=None, database=None, derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip

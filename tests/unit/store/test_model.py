"""Random interleavings of what scripts do to one session, against a model of a few lines.

The model knows every message published after the session's joins, what its node has written and remembers, and what its
client has got. In the end each message has arrived once and in order, or a gap names it, and gaps count exactly.

`HUB_MODEL=5000 pytest --timeout 0 --hypothesis-seed 7 tests/unit/store/test_model.py` tries more of them.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from hub.store.scripts import read_all
from tests.integration.walk.lab import LEAP, START, Raw, predictable
from tests.support.redis import RedisServer
from tests.support.switches import Mutation

ROOMS = ("A", "B", "C")
ROOM = st.sampled_from(ROOMS)
SELDOM = st.sampled_from([False, False, False, True])
# Of the bounds in bytes so little is left that they are met all the time: a run of `replay` sees two rooms.
FEW = Mutation(LONG_BODY=0, MOST_PEEKED=7)
SCRIPTS = {
    few: {name: predictable(script) for name, script in mutation.apply(read_all()).items()}
    for few, mutation in ((False, Mutation()), (True, FEW))
}
LIFE, AGE = 1000, 2000  # seconds
ROOM_LIFE = 10**7  # seconds: however time leaps, a room is not forgotten before its sessions

_server: list[RedisServer] = []


@pytest.fixture(autouse=True)
def shared(server: RedisServer) -> Iterator[None]:
    """Let the machine find the server."""
    _server.append(server)
    server.client.flushall()
    for scripts in SCRIPTS.values():
        for script in scripts.values():
            server.client.script_load(script.text)
    yield
    _server.pop()


class Session(RuleBasedStateMachine):
    """One session, its node, its client, and everybody else's messages."""

    def __init__(self) -> None:
        super().__init__()
        self.raw = Raw(str(_server[-1].socket))
        self.raw.call("FLUSHALL")
        self.raw.call("SET", "now", START)

    @initialize(
        log=st.integers(1, 6), inbox=st.integers(1, 12), batch=st.integers(1, 4), rooms=st.sets(ROOM, min_size=1),
        few=st.booleans(),
    )  # fmt: skip
    def begin(self, log: int, inbox: int, batch: int, rooms: set[str], few: bool) -> None:
        self.scripts = SCRIPTS[few]
        self.log, self.inbox, self.batch = log, inbox, batch
        self.life = LIFE
        self.connections = 1
        answer = self.claim("", "", "", "")
        self.client, self.generation, self.secret = answer[1], answer[2], "h"
        # On the node: everything up to here was written. What is on its way to it; None: it is deaf. What it remembers of
        # each room: all that it heard behind an offset. `gone`: it has noticed that the connection is.
        self.live = self.gone = False
        self.sent = self.first = int(answer[5])
        # What the node has to send with its next replay call.
        self.cursor = b""
        self.bus: list[tuple[str, int]] | None = []
        self.memory: dict[str, tuple[int, list[int]]] = {}
        # Room -> join; up to where its node has told this connection of gaps; what was published since the join; which of
        # all that is its own, with echo off.
        self.joins: dict[str, int] = {}
        self.told: dict[str, int] = {}
        self.due: dict[str, list[int]] = {}
        self.own: set[int] = set()
        # What the client has got: (its offset from then on, a gap or None for a message); how many are acked.
        self.got: list[tuple[int, tuple[str, int, int] | None]] = []
        self.acked = 0
        for room in sorted(rooms):
            self.subscribe(room)

    def run(self, name: str, *args: Any) -> Any:
        reply = self.raw.call("EVALSHA", self.scripts[name].sha, 1, "w:{0}:clock", *args)
        assert not isinstance(reply, Exception), reply
        return reply

    @property
    def owner(self) -> str:
        return f"n/{self.connections}"

    def claim(self, client: str, generation: str, secret: str, offset: str) -> list[str]:
        reply = self.run(
            "claim", client, "0", generation, "0" if generation else "", secret, "anon", "h", "sid", self.owner, offset,
            "0", self.life * 1000, self.life * 1000, "w:{0}:bus:node:",
        )  # fmt: skip
        return [part.decode() for part in reply]

    # -- what others do

    @rule(rooms=st.lists(ROOM, min_size=1, max_size=8), own=SELDOM, late=SELDOM)
    def publish(self, rooms: list[str], own: bool, late: bool) -> None:
        """Somebody publishes; or the client itself, with echo off. The bus may bring it later."""
        header = f"3 5 5 {self.client if own else '*'} 0 *"
        words = [("c" if own else "", room, header, '"m",1', "") for room in rooms]
        offsets = self.raw.call(
            "EVALSHA", self.scripts["publish"].sha, 1, "w:{0}:clock", "0", self.log, AGE * 10**6, ROOM_LIFE * 1000,
            ROOM_LIFE * 1000, self.inbox, "120000", "w:{0}:bus:room:", *itertools.chain(*words),
        )  # fmt: skip
        for room, offset in zip(rooms, map(int, offsets), strict=True):
            if own:
                self.own.add(offset)
            if room in self.joins:
                self.due[room].append(offset)
            if self.bus is not None:
                self.bus.append((room, offset))
        if not late:
            self.hear(len(self.bus or ()))

    @rule(
        what=st.sampled_from(["wait", "expire", "lose_inbox", "lose_bus", "forget", "void_cursor"]),
        room=ROOM,
    )
    def fail(self, what: str, room: str) -> None:
        getattr(self, what)(room)

    @rule(share=st.integers(1, 99))
    def leap(self, share: int) -> None:
        """Let a share of the time pass that the session has to live if nobody touches it."""
        left = self.raw.call("PTTL", f"w:{{0}}:session:{self.client}")
        self.raw.call("EVAL", LEAP, 0, max(left - 5000, 0) * share // 100)

    @invariant()
    def outlives_its_inbox(self) -> None:
        """The away sets of an away session's rooms are there for as long as its inbox is."""
        if not hasattr(self, "got"):
            return
        inbox = f"w:{{0}}:inbox:{self.client}:{self.generation}"
        fields = self.raw.call("HGETALL", f"w:{{0}}:session:{self.client}")
        session = dict(zip(fields[::2], fields[1::2], strict=True))
        if session[b"away"] == b"1" and (left := self.raw.call("PTTL", inbox)) > 0:
            for room in (field[2:].decode() for field in session if field.startswith(b"r:")):
                assert self.raw.call("PTTL", f"w:{{0}}:room:{room}:away") >= left, room

    def wait(self, _: str) -> None:
        """What comes next finds older messages of its room past the log's age."""
        self.raw.call("INCRBY", "now", (AGE + 1) * 10**6)

    def expire(self, room: str) -> None:
        """A log expires idle; or sooner, which must do no harm either."""
        self.raw.call("DEL", f"w:{{0}}:room:{room}:log")

    def lose_inbox(self, _: str) -> None:
        """The list is gone, for whatever reason."""
        self.raw.call("DEL", f"w:{{0}}:inbox:{self.client}:{self.generation}")

    def lose_bus(self, _: str = "") -> None:
        """What is on its way is lost; the session is replayed from where it was, once the bus is back."""
        self.bus = None
        self.memory.clear()
        self.live = False

    def void_cursor(self, _: str) -> None:
        """Redis has changed, without a loss: the node sends no cursor, and what was reported may be reported again."""
        self.cursor = b""

    def forget(self, room: str) -> None:
        """The node forgets the older half of what it remembers of a room."""
        if messages := self.memory.get(room, (0, []))[1]:
            count = (len(messages) + 1) // 2
            self.memory[room] = messages[count - 1], messages[count:]

    # -- what its node does

    @rule()
    def touch(self) -> None:
        """The node keeps what it serves from expiring."""
        self.run("touch", "n", self.client, self.owner)

    @rule(count=st.integers(1, 9))
    def hear(self, count: int) -> None:
        """The bus brings some messages."""
        for _ in range(min(count, len(self.bus or ()))):
            assert self.bus
            room, offset = self.bus.pop(0)
            _, messages = self.memory.setdefault(room, (offset - 1, []))
            messages.append(offset)
            if self.live and offset > max(self.sent, self.joins.get(room, offset)):
                self.receive(offset)

    @precondition(lambda self: not self.gone)
    @rule(gone=st.booleans(), unacked=st.integers(0, 5))
    def park(self, gone: bool, unacked: int) -> None:
        """The client is slow or gone; all that it got but the last few is acked to have arrived."""
        self.acked = max(self.acked, len(self.got) - unacked)
        args = self.client, self.owner, self.offset(self.acked), "1" if gone else "0"
        assert self.run("park", *args) == b"ok"
        self.live = False
        self.gone = gone

    @rule(
        back=st.none() | st.integers(0, 5),
        elsewhere=SELDOM,
        life=st.sampled_from([LIFE // 4, LIFE, LIFE]),
    )
    def come_back(self, back: int | None, elsewhere: bool, life: int = LIFE) -> None:
        """Return, whether noticed or not, all but the last few things handled; None: without an offset."""
        self.life = life
        if back is not None:
            self.acked = max(0, len(self.got) - back)
        self.got = self.got[: self.acked]
        offset = self.offset(self.acked)
        self.connections += 1
        given = "" if back is None else str(offset)
        answer = self.claim(self.client, self.generation, self.secret, given)
        assert answer[0] == "pid"
        assert int(answer[5]) == offset
        self.sent, self.cursor = offset, b""
        self.told.clear()
        self.live = self.gone = False
        if elsewhere:
            self.lose_bus()

    def offset(self, count: int) -> int:
        """Return the client's offset after so many of the things it got."""
        return self.got[count - 1][0] if count > 0 else self.first

    @precondition(lambda self: not self.gone)
    @rule(times=st.integers(1, 5), lost=SELDOM, silent=st.sets(ROOM))
    def replay(self, times: int, lost: bool, silent: set[str]) -> None:
        """Ask for batches, the last answer of which may be lost; the node says of most rooms what it remembers."""
        if self.bus is None:
            self.bus = []
        for left in range(times, 0, -1):
            if not self.live:
                self.ask(silent, lost=lost and left == 1)

    def ask(self, silent: set[str], *, lost: bool) -> None:
        lows = {room: self.memory[room][0] for room in sorted(set(self.memory) - silent)}
        reply = self.run(
            "replay", self.client, self.owner, self.sent, self.batch, 10**6, AGE * 10**6, self.sent, self.cursor,
            *[word for pair in lows.items() for word in pair],
        )  # fmt: skip
        if lost:
            return
        live, position, gaps, messages, how, _, self.cursor = reply
        if how == b"cache":
            assert live
            assert not gaps
            assert not messages
            self.remember(lows)
            return
        after = self.sent
        for room, _, start, before, dropped in gaps:
            self.tell(room.decode(), int(start), int(before), int(dropped) if dropped else None)
        assert len(messages) <= self.batch
        for room, offset, *_ in messages:
            assert int(offset) > self.joins[room.decode()]
            assert int(offset) not in self.own
            self.receive(int(offset))
        assert self.sent <= int(position)
        self.sent = int(position)
        until = int(live or position)
        missed = sorted(
            offset
            for room, due in self.due.items()
            for offset in due
            if max(after, self.told.get(room, 0)) < offset <= until
        )
        assert how == b"part" or missed == [int(offset) for _, offset, *_ in messages]
        if live:
            self.sent = int(live)
            self.live = True

    def remember(self, lows: dict[str, int]) -> None:
        """Redis says that the session is live, and the node has all that it missed: write a batch of it."""
        missed = sorted(
            offset
            for room in set(lows) & set(self.joins)
            for offset in self.memory[room][1]
            if offset > max(self.sent, self.joins[room], self.told.get(room, 0))
        )
        for offset in missed[: self.batch]:
            self.receive(offset)
        self.live = len(missed) <= self.batch

    @precondition(lambda self: not self.gone)
    @rule(room=ROOM)
    def subscribe(self, room: str) -> None:
        known = room in self.joins
        args = self.client, self.owner, 100, room, "1" if known else "0"
        join, new = self.run("subscribe", *args)
        assert (new == b"1") == (not known)
        if not known:
            self.joins[room] = int(join)
            self.due[room] = []

    @precondition(lambda self: not self.gone)
    @rule(room=ROOM)
    def unsubscribe(self, room: str) -> None:
        assert self.run("unsubscribe", self.client, self.owner, room) == b"ok"
        self.joins.pop(room, None)
        self.told.pop(room, None)
        self.due.pop(room, None)

    # -- what its client makes of it

    @property
    def messages(self) -> set[int]:
        return {offset for offset, gap in self.got if gap is None}

    def named(self, room: str, offset: int) -> bool:
        """Tell whether a gap has named a message."""
        gaps = [gap for _, gap in self.got if gap]
        return any(name == room and after < offset < before for name, after, before in gaps)

    def receive(self, offset: int) -> None:
        assert offset > self.offset(len(self.got)), "repeated, or out of order"
        assert offset > self.sent, "written already"
        rooms = [room for room, due in self.due.items() if offset in due]
        assert len(rooms) == 1, "of a room that it is not in"
        if offset not in self.own:
            assert not self.named(rooms[0], offset), "told to be lost"
            self.got.append((offset, None))
        self.sent = offset

    def tell(self, room: str, after: int, before: int, dropped: int | None) -> None:
        inside = [offset for offset in self.due[room] if after < offset < before]
        meant = [offset for offset in inside if offset not in self.own]
        assert inside, "a gap in which nothing was"
        assert not set(inside) & self.messages, "a gap that names what had arrived"
        assert dropped in (None, len(meant))
        self.got.append((self.sent, (room, after, before)))
        self.told[room] = max(self.told.get(room, 0), before - 1)

    def teardown(self) -> None:
        try:
            if hasattr(self, "got"):
                self.finish()
        finally:
            self.raw.close()

    def finish(self) -> None:
        if self.gone:
            self.come_back(0, False)
        self.replay(500, False, set())
        assert self.live
        self.hear(len(self.bus or ()))
        messages = self.messages
        for room, due in self.due.items():
            for offset in set(due) - self.own:
                assert offset in messages or self.named(room, offset), f"lost {offset} of {room}"


def test_one_session_against_the_model() -> None:
    """No loss without a gap, no repeat, no reorder, and exact counts, in every interleaving."""
    more = os.environ.get("HUB_MODEL")
    # Nothing is made smaller when it fails: that takes longer than a test may.
    run_state_machine_as_test(
        Session,
        settings=settings(
            max_examples=int(more or 200), stateful_step_count=40, deadline=None, database=None, derandomize=not more,
            suppress_health_check=list(HealthCheck), phases=[Phase.generate],
        ),
    )  # fmt: skip

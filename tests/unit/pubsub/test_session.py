"""A session's states and moves, also those that no node would make."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from hub.engineio.core.prepared import PreparedMessage
from hub.errors import Unavailable
from hub.message import StoredMessage, encode, meta
from hub.pid import Pid
from hub.pubsub import session as module
from hub.pubsub.replay import Replayer
from hub.pubsub.session import Session, SessionState
from hub.pubsub.session_observers import SessionObservers
from hub.pubsub.sessions import Sessions
from hub.settings import Settings
from hub.store.loss_detector import LossDetector
from hub.store.results import ReplayBatch, ReplayCursor, ReplayGap, SessionClaim
from hub.tasks import BackgroundTasks
from tests.support.times import MS


class Peer:
    """A connection that keeps what it was given."""

    sid = "c"

    def __init__(self) -> None:
        self.listener: Any = None
        self.closed = False
        self.frames: list[Any] = []
        self.buffered = 0
        self.write_direct: Any = None
        self.writes = 0

    def write(self, wire: bytes, frames: Any) -> None:
        assert wire == b"".join(frame.wire for frame in frames)
        self.frames += frames
        self.writes += 1

    @property
    def packets(self) -> list[Any]:
        return [json.loads(frame.packets[0][1:]) for frame in self.frames]

    @property
    def offsets(self) -> list[int]:
        return [int(packet[-1]) for packet in self.packets]


def message(
    offset: int, room: str = "A", skip_client: str | None = None, data: bytes = b"1"
) -> StoredMessage:
    header, body = encode("m", data, meta(room, None), skip_client=skip_client)
    return StoredMessage.from_log(room, b"%d" % offset, b"%d" % offset, header, body)


class Subject:
    """A session in rooms A and B from 10 on, and the calls that it makes."""

    def __init__(self, **options: Any) -> None:
        self.peer = Peer()
        self.slow = 0
        taken = SessionClaim(
            "new", "ada", Pid("ada", "1", "0", "s" * 24), "sid", 10, 10, 0, 1, {"A": 10, "B": 10}
        )

        self.session = Session(self.peer, "c", taken, named=True, slow_readers=self, **options)

    def park_slow(self, session: Session) -> None:
        self.slow += 1
        session.go_away()

    def live(self) -> Session:
        self.session.begin_batch()
        self.session.go_live(10)
        return self.session


@pytest.fixture
def subject() -> Subject:
    return Subject()


def test_what_is_told_leaves_with_what_comes_before_it(subject):
    """The answer to CONNECT and `hub:session` are one write, in this order."""
    subject.session.send_event("hub:session", {}, PreparedMessage('0{"sid":"x"}'))
    assert [frame.packets[0] for frame in subject.peer.frames] == [
        '0{"sid":"x"}',
        '2["hub:session",{},"10"]',
    ]
    assert subject.peer.writes == 1


def test_nothing_is_delivered_before_it_is_live(subject):
    """What is heard while a replay call is under way is kept, and delivered where it is newer."""
    session = subject.session
    session.deliver(message(11))
    session.begin_batch()
    session.deliver(message(12))
    session.deliver(message(15))
    session.deliver(message(14, "B"))
    assert subject.peer.frames == []
    session.write_batch(ReplayBatch(13, 12, [], [message(11), message(12)]))
    session.go_live(13)
    session.end_batch()
    assert subject.peer.offsets == [11, 12, 14, 15]
    assert session.state is SessionState.LIVE
    assert session.fast_path


def test_a_session_gets_each_message_once_and_only_from_its_join_on(subject):
    """Neither what was written nor what came before the join, nor of rooms that it is not in."""
    session = subject.live()
    session.joins["C"] = 20
    for offset, room in [
        (11, "A"),
        (11, "A"),
        (9, "B"),
        (12, "D"),
        (19, "C"),
        (13, "B"),
        (21, "C"),
        (20, "A"),
    ]:
        session.deliver(message(offset, room))
    assert subject.peer.offsets == [11, 13, 21]


def test_own_messages_without_echo_only_move_the_position(subject):
    """They are not written, and come no more."""
    session = subject.live()
    session.deliver(message(11, skip_client="ada"))
    session.deliver(message(12, skip_client="bob"))
    assert subject.peer.offsets == [12]
    assert session.sent == 12


def test_holding_is_for_all_rooms(subject):
    """While a subscription is under way nothing comes, from whatever room; then all of it in order."""
    session = subject.live()
    session.pause_delivery()
    session.pause_delivery()
    assert not session.fast_path
    session.deliver(message(13, "B"))
    session.deliver(message(12, "A"))
    assert session.resume_delivery()
    assert subject.peer.frames == []
    assert session.resume_delivery()
    assert subject.peer.offsets == [12, 13]
    assert session.fast_path


@pytest.mark.parametrize("how", ["buffered_in_replay", "buffered_in_subscribe"])
@pytest.mark.parametrize(
    ("bound", "most"), [("BUFFERED", 3), ("BUFFERED_BYTES", 2 * len(message(1).body) + 1)]
)
def test_what_is_kept_is_bounded(subject, monkeypatch, how, bound, most):
    """In messages and in bytes: more than that is left to a replay, and nothing of it is delivered."""
    monkeypatch.setattr(module, bound, most)
    session = subject.session
    if how == "buffered_in_replay":
        session.begin_batch()
    else:
        session = subject.live()
        session.pause_delivery()
    for offset in range(11, 14):
        session.deliver(message(offset))
    assert [m.offset for m in getattr(session, how)] == [11, 12, 13], "so many may wait"
    for offset in range(14, 16):
        session.deliver(message(offset))
    assert getattr(session, how) is None, "and what is too much is let go"
    if how == "buffered_in_replay":
        session.go_live(10)
        assert session.state is SessionState.REPLAYING
    else:
        assert session.resume_delivery() is False
        assert session.needs_replay
    assert subject.peer.frames == []


class Answers:
    """A store, the rooms of a node and their caches, of which a replay asks one batch after the other."""

    def __init__(self) -> None:
        nothing: Any = None
        self.loss_detector = LossDetector(nothing, nothing, nothing)
        self.sessions = self
        self.calls: list[asyncio.Future[ReplayBatch]] = []
        # The position and the cursor of each call.
        self.asked: list[tuple[int, ReplayCursor | None]] = []

    async def replay(self, _: str, __: str, after: int, *___: Any, **given: Any) -> ReplayBatch:
        self.asked.append((after, given["cursor"]))
        self.calls.append(asyncio.get_running_loop().create_future())
        return await self.calls[-1]

    async def wait_subscribed(self, _: Session) -> None: ...

    def is_subscribed(self, _: Session) -> bool:
        return True

    def complete_rooms(self, _: Session) -> dict[str, int]:
        return {}


async def test_only_a_call_under_way_keeps_what_is_heard(subject):
    """Before the first batch, and while its client reads one, nothing is: the next batch brings it."""
    answers: Any = Answers()
    tasks = BackgroundTasks()
    replayer = Replayer(Settings(), answers, answers, answers, tasks)
    sessions = Sessions(Settings(), answers, answers, replayer, tasks, SessionObservers())
    session = subject.session

    async def turns() -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    session.deliver(message(11))
    assert not session.buffered_in_replay
    sessions.catch_up(session)
    await turns()
    session.deliver(message(12))
    assert len(session.buffered_in_replay) == 1
    session.on_high()
    answers.calls[0].set_result(ReplayBatch(None, 12, [], [message(11), message(12)]))
    await turns()
    session.deliver(message(13))
    assert (session.state, len(session.buffered_in_replay)) == (SessionState.PARKED, 0)
    session.on_low()
    await turns()
    answers.calls[1].set_exception(Unavailable("redis"))
    await turns()
    session.deliver(message(14))
    assert (session.state, len(session.buffered_in_replay)) == (SessionState.PARKED, 0)
    while len(answers.calls) < 3:
        await asyncio.sleep(10 * MS)
    session.deliver(message(15))
    session.needs_replay = True
    answers.calls[2].set_result(ReplayBatch(14, 14, [], [message(13), message(14)]))
    await turns()
    session.deliver(message(16))
    assert len(answers.calls) == 4
    answers.calls[3].set_result(ReplayBatch(15, 15, [], [message(15)]))
    await turns()
    assert session.state is SessionState.LIVE
    assert subject.peer.offsets == [11, 12, 13, 14, 15, 16]


async def test_a_cursor_goes_with_its_position(subject):
    """After a lost answer both are those of the batch before; a live session has none."""
    answers: Any = Answers()
    tasks = BackgroundTasks()
    replayer = Replayer(Settings(), answers, answers, answers, tasks)
    session, cursor = subject.session, ReplayCursor(0, b"counted")
    replay = tasks.spawn(replayer.replay(session))

    async def answered(number: int) -> None:
        while len(answers.calls) < number:
            await asyncio.sleep(0.01)

    await answered(1)
    answers.calls[0].set_result(ReplayBatch(None, 12, [], [message(12)], cursor=cursor))
    await answered(2)
    answers.calls[1].set_exception(Unavailable("the answer is lost"))
    await answered(3)
    answers.calls[2].set_result(ReplayBatch(14, 14, [], [message(14)]))
    await replay
    assert answers.asked == [(10, None), (12, cursor), (12, cursor)]
    assert session.replay_cursor is None


def test_stale_sessions_do_not_go_live(subject):
    """Something may have been missed while the replay call was under way: it is to be repeated."""
    session = subject.session
    session.begin_batch()
    session.needs_replay = True
    session.go_live(12)
    assert session.state is SessionState.REPLAYING
    assert session.sent == 12
    session.begin_batch()
    session.go_live(14)
    assert session.state is SessionState.LIVE


def test_a_full_buffer_parks(subject):
    """From the high mark on nothing is written; a session that goes live onto a full buffer is parked at once."""
    session = subject.live()
    session.on_high()
    assert (subject.slow, session.state) == (1, SessionState.PARKED)
    session.deliver(message(11))
    session.on_high()
    assert (subject.peer.frames, subject.slow) == ([], 1)
    session.begin_batch()
    session.deliver(message(12))
    session.go_live(11)
    assert (subject.slow, session.state, subject.peer.frames) == (2, SessionState.PARKED, [])
    session.on_low()
    session.begin_batch()
    session.go_live(12)
    assert session.state is SessionState.LIVE


def test_gaps_end_with_the_position_before_them(subject):
    """They move nothing; what was left meanwhile is not told, and of a room joined later nothing older is written."""
    session = subject.session
    session.joins = {"A": 10, "C": 14}
    session.begin_batch()
    gaps = [ReplayGap("A", "overflow", 10, 13, 2), ReplayGap("B", "reset", 10, 13, None)]
    session.write_batch(
        ReplayBatch(
            None, 15, gaps, [message(13), message(14, "B"), message(14, "C"), message(15, "C")]
        )
    )
    assert subject.peer.packets[0] == [
        "hub:gap", {"room": "A", "reason": "overflow", "after": "10", "before": "13", "dropped": 2}, "10",
    ]  # fmt: skip
    assert subject.peer.offsets == [10, 13, 15]
    assert session.sent == 15


def test_bare_clients_get_data_alone():
    """No meta, no offset."""
    subject = Subject(data_only=True)
    session = subject.live()
    assert not session.fast_path
    session.deliver(message(11))
    session.send_event("hub:x", 1)
    assert subject.peer.packets == [["m", 1], ["hub:x", 1]]


def test_the_next_poll_proves_the_response_before_it():
    """Not what was written since; and only where the client returns no offset."""
    session = Subject(offsetless=True).live()
    session.deliver(message(11))
    session.on_poll_answered()
    session.deliver(message(12))
    session.on_poll()
    assert (session.acked, session.dirty) == (11, True)
    other = Subject().live()
    other.deliver(message(11))
    other.on_poll_answered()
    other.on_poll()
    assert other.acked == 10


@pytest.mark.parametrize("manual", [False, True])
def test_proofs(manual):
    """A pong proves what was sent before its ping; with manual acks only an ack does, and never more than was sent."""
    session = Subject(manual_acks=manual).live()
    session.deliver(message(11))
    session.on_ping()
    session.deliver(message(12))
    session.on_pong()
    assert session.acked == (10 if manual else 11)
    assert session.dirty is not manual
    session.commit(99)
    assert session.acked == 12
    session.commit(5)
    assert session.acked == 12


def test_closed_is_for_ever(subject):
    """Whatever comes then changes nothing and writes nothing."""
    session = subject.live()
    session.pause_delivery()
    session.close()
    assert subject.peer.listener is None
    session.deliver(message(11))
    session.resume_delivery()
    session.on_high()
    session.on_low()
    session.go_away()
    session.deliver(message(12))
    assert session.closed
    assert not session.fast_path
    assert subject.peer.frames == []
    assert subject.slow == 0


class Anything(RuleBasedStateMachine):
    """Every call in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.subject = Subject()
        self.session = self.subject.session
        self.clock = 10
        self.batch = False

    @rule(room=st.sampled_from("ABC"), back=st.integers(0, 3))
    def deliver(self, room: str, back: int) -> None:
        self.clock += 1
        self.session.deliver(message(self.clock - back, room))

    @rule()
    def begin(self) -> None:
        if not self.session.closed:
            self.session.begin_batch()
            self.batch = True

    @rule()
    def live(self) -> None:
        if self.batch and not self.session.closed and not self.session.pauses:
            self.session.go_live(self.clock)
            self.batch = False

    @rule()
    def hold(self) -> None:
        self.session.pause_delivery()

    @rule()
    def release(self) -> None:
        if self.session.pauses and not self.session.resume_delivery():
            self.session.go_away()

    @rule(
        name=st.sampled_from(
            ["on_high", "on_low", "go_away", "on_ping", "on_pong", "on_poll", "close"]
        )
    )
    def call(self, name: str) -> None:
        if name != "close" or self.clock > 30:
            getattr(self.session, name)()

    @invariant()
    def order(self) -> None:
        session, offsets = self.session, self.subject.peer.offsets
        assert offsets == sorted(set(offsets))
        assert session.acked <= session.sent <= self.clock
        assert not session.fast_path or (session.state is SessionState.LIVE and not session.pauses)


def test_no_sequence_breaks_the_order():
    """Ascending, each once, nothing proven that was not sent; written without a look only when that is right."""
    run_state_machine_as_test(
        Anything,
        settings=settings(
            max_examples=100, stateful_step_count=40, derandomize=True, deadline=None
        ),
    )

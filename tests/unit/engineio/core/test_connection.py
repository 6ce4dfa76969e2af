"""A session without sockets: its moves one by one, then at random."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.engineio.core.connection import Connection
from hub.engineio.core.packet import ProtocolError
from hub.engineio.core.prepared import PreparedMessage
from hub.engineio.core.state import CloseCode, ConnectionState
from hub.engineio.core.timer_wheel import TimerWheel
from hub.engineio.options import EngineOptions
from tests.unit.engineio.core.test_prepared import unframe
from tests.unit.engineio.core.test_timer_wheel import Loop


class FakeSocket:
    """A WebSocket that takes `room` bytes and holds the rest."""

    def __init__(self, *, deflate: bool = False) -> None:
        self.deflate = deflate
        self.write_direct = self.write
        self.written = b""
        self.buffered = 0
        self.in_kernel = 0
        self.taken = 0
        self.codes: list[int] = []
        self.aborted = False
        self.paused = False
        self.marks: tuple[int, int] | None = None

    def write(self, data: bytes) -> None:
        self.written += data

    @property
    def unacknowledged(self) -> int:
        return self.buffered + self.in_kernel

    def set_marks(self, high: int, low: int) -> None:
        self.marks = high, low

    def close(self, code: int) -> None:
        self.codes.append(code)

    def abort(self) -> None:
        self.aborted = True

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    @property
    def packets(self) -> list[str | bytes]:
        return [
            payload.decode() if first == 0x81 else payload
            for first, payload in unframe(self.written)
        ]


class FakeHost:
    def __init__(self, **given: Any) -> None:
        self.options = EngineOptions(**given)
        self.counters: Counter[str] = Counter()
        self.tick = 0.05
        self.loop: Any = Loop()
        self.timers = TimerWheel(self.loop, self.tick)
        self.delivered: list[str | bytes] = []
        self.ends: list[str] = []
        self.removed = 0

    def clock(self) -> float:
        return float(self.loop.now)

    def handle_message(self, sid: str, data: str | bytes) -> Awaitable[None] | None:
        if data == "bad":
            raise ProtocolError("bad")
        self.delivered.append(data)
        return None

    def answer_poll_soon(self, answer: Callable[[], None]) -> None:
        answer()

    def report_disconnect(self, sid: str, reason: str) -> None:
        self.ends.append(reason)

    def remove_connection(self, sid: str, remote: str) -> None:
        self.removed += 1


class Listener:
    """Notes the events of its connection."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def on_high(self) -> None:
        self.heard.append("high")

    def on_low(self) -> None:
        self.heard.append("low")

    def on_ping(self) -> None:
        self.heard.append("ping")

    def on_pong(self) -> None:
        self.heard.append("pong")

    def on_poll_answered(self) -> None: ...

    def on_poll(self) -> None: ...


class PollListener(Listener):
    """Notes the events of polls, too."""

    def on_poll_answered(self) -> None:
        self.heard.append("answered")

    def on_poll(self) -> None:
        self.heard.append("poll")


class Polls:
    """What was answered to polls."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.answers: list[str | None] = []

    def poll(self) -> None:
        self.connection.poll(self.answers.append)


def polling(**given: Any) -> tuple[FakeHost, Connection, Polls]:
    host = FakeHost(**{"connect_timeout": 0} | given)
    connection = Connection(host, "sid", "1.2.3.4", dict)
    connection.open(None)
    polls = Polls(connection)
    polls.poll()
    assert polls.answers.pop() is not None
    return host, connection, polls


def websocket(*, deflate: bool = False, **given: Any) -> tuple[FakeHost, Connection, FakeSocket]:
    host = FakeHost(**{"connect_timeout": 0} | given)
    connection = Connection(host, "sid", "1.2.3.4", dict)
    socket = FakeSocket(deflate=deflate)
    connection.open(socket)
    assert str(socket.packets[0]).startswith("0{")
    socket.written = b""
    return host, connection, socket


class TestOutput:
    def test_a_websocket_is_written_directly(self) -> None:
        _, connection, socket = websocket()
        messages = [PreparedMessage("2[1]"), PreparedMessage('51-["b",0]', b"x")]
        connection.write(b"".join(each.wire for each in messages), messages)
        assert socket.packets == ["42[1]", '451-["b",0]', b"x"]

    def test_a_compressed_websocket_gets_compressed_messages(self) -> None:
        _, connection, socket = websocket(deflate=True)
        connection.send(PreparedMessage("x" * 5000))
        assert unframe(socket.written)[0][0] == 0xC1

    def test_high_and_low_are_told_once_each(self) -> None:
        _, connection, socket = websocket(buffer_limit=1_000_000)
        connection.listener = listener = Listener()
        connection.on_high()
        connection.on_high()
        connection.send(PreparedMessage("still goes out, in order"))
        connection.on_low()
        connection.on_low()
        connection.send(PreparedMessage("directly again"))
        assert listener.heard == ["high", "low"]
        assert socket.packets == ["4still goes out, in order", "4directly again"]

    def test_a_full_buffer_ends_the_session(self) -> None:
        host, connection, socket = websocket()
        connection.on_high()
        socket.buffered = host.options.buffer_limit
        connection.send(PreparedMessage("x"))
        assert socket.codes == [1013]
        assert host.ends == ["transport error"]
        connection.send(PreparedMessage("dropped"))
        assert not socket.packets

    def test_a_full_polling_queue_ends_the_session(self) -> None:
        host, connection, polls = polling(buffer_high=1000, buffer_low=100, buffer_limit=10_000)
        connection.listener = listener = Listener()
        for _ in range(12):
            connection.send(PreparedMessage("x" * 1000))
        assert connection.closed
        assert listener.heard == ["high"]
        assert host.ends == ["transport error"]
        polls.poll()
        assert polls.answers == [None]

    def test_polling_tells_low_when_polls_have_taken_enough(self) -> None:
        _, connection, polls = polling(buffer_high=1000, buffer_low=100)
        connection.listener = listener = Listener()
        for _ in range(20):
            connection.send(PreparedMessage("x" * 100))
        assert connection.buffered > 1000
        polls.poll()
        assert listener.heard == ["high"]
        polls.poll()
        assert listener.heard == ["high", "low"]
        assert connection.buffered == 0

    def test_a_poll_tells_that_the_response_before_it_has_arrived(self) -> None:
        """The response that took all that was queued; a poll that may be a repeated one tells nothing."""
        _, connection, polls = polling(answer_packets=2)
        connection.listener = listener = PollListener()
        for _ in range(3):
            connection.send(PreparedMessage("x"))
        connection.poll(polls.answers.append, "mark1")
        assert listener.heard == ["poll"]
        connection.poll(polls.answers.append, "mark2")
        assert listener.heard == ["poll", "poll", "answered"]
        connection.poll(polls.answers.append)
        connection.send(PreparedMessage("x"))
        assert listener.heard == ["poll", "poll", "answered", "answered"]
        connection.poll(polls.answers.append, "mark3")
        connection.poll(polls.answers.append, "mark3")
        assert listener.heard == ["poll", "poll", "answered", "answered", "poll"]
        assert connection.failed

    def test_a_client_that_leaves_its_answers_unread_is_not_read(self) -> None:
        """Above twice the high mark; and again below it, whether or not the low mark is reached."""
        host, connection, socket = websocket(buffer_high=1000, buffer_low=100)
        connection.listener = listener = Listener()
        connection.on_high()
        socket.buffered = 2000
        connection.send(PreparedMessage("x"))
        assert not socket.paused
        socket.buffered = 2001
        connection.send(PreparedMessage("x"))
        assert socket.paused
        assert socket.marks == (2000, 2000)
        assert host.counters["output unread"] == 1
        connection.pause()
        connection.resume()
        assert socket.paused
        socket.buffered = 2000
        connection.on_drained()
        assert not socket.paused
        assert socket.marks == (100, 100)
        assert listener.heard == ["high"]
        socket.buffered = 100
        connection.on_drained()
        assert socket.marks == (1000, 100)
        assert listener.heard == ["high", "low"]

    def test_a_single_long_write_counts_too(self) -> None:
        _, connection, socket = websocket(buffer_high=1000, buffer_low=100)
        socket.buffered = 5000
        connection.on_high()  # as asyncio calls it within the write
        assert socket.paused
        connection.pause()
        socket.buffered = 0
        connection.on_drained()
        assert socket.paused
        connection.resume()
        assert not socket.paused

    def test_a_client_that_does_not_poll_is_not_read(self) -> None:
        _, connection, polls = polling(buffer_high=1000, buffer_low=100)
        for _ in range(30):
            connection.send(PreparedMessage("x" * 100))
        resumed: list[bool] = []
        connection.when_resumed(lambda: resumed.append(True))
        assert connection.paused
        polls.poll()
        assert not connection.paused
        assert resumed == [True]

    def test_an_upgrade_does_not_wait_for_polls(self) -> None:
        """Its client polls no more, and waits until its POST is answered."""
        _, connection, polls = polling(buffer_high=1000, buffer_low=100, max_payload=5000)
        message = PreparedMessage("x" * 100)
        for _ in range(30):
            connection.send(message)
        assert connection.paused
        socket = FakeSocket()
        assert connection.begin_upgrade(socket)
        assert connection.paused
        connection.receive_probe(socket, "2probe")
        assert not connection.paused
        while connection.buffered <= 12_000:
            connection.send(message)
        assert connection.paused
        while connection.buffered > 12_000:
            polls.poll()
        assert not connection.paused
        connection.abandon_upgrade(socket)
        assert connection.paused

    @pytest.mark.parametrize(("left", "paused"), [(5000, True), (500, False), (0, False)])
    def test_an_upgrade_takes_what_is_unread_along(self, left: int, paused: bool) -> None:
        """The low mark is told in any case, also if the socket is left between the marks."""
        _, connection, _ = polling(buffer_high=1000, buffer_low=100)
        connection.listener = listener = Listener()
        for _ in range(30):
            connection.send(PreparedMessage("x" * 100))
        socket = FakeSocket()
        assert connection.begin_upgrade(socket)
        connection.receive_probe(socket, "2probe")
        socket.buffered = left
        connection.receive_probe(socket, "5")
        assert connection.paused is socket.paused is paused
        assert listener.heard == (["high"] if left else ["high", "low"])
        if left:
            assert socket.marks == ((2000, 2000) if paused else (100, 100))
            socket.buffered = 0
            connection.on_drained()
        assert listener.heard == ["high", "low"]
        assert not socket.paused


class TestHeartbeat:
    def test_a_ping_can_be_sent_before_it_is_due(self) -> None:
        """One at a time; the regular ones are counted from it."""
        host, connection, socket = websocket(ping_interval=25.0, ping_timeout=20.0)
        connection.listener = listener = Listener()
        host.loop.run(host.clock() + 3.0)
        connection.ping_now()
        connection.ping_now()
        assert (socket.packets, listener.heard) == (["2"], ["ping"])
        connection.receive("3")
        assert listener.heard == ["ping", "pong"]
        host.loop.run(host.clock() + 24.0)
        assert socket.packets == ["2"]
        host.loop.run(host.clock() + 1.1)
        assert socket.packets == ["2", "2"]
        connection.close()
        connection.ping_now()
        assert socket.packets == ["2", "2"]

    def test_ping_and_pong_are_told(self) -> None:
        host, connection, socket = websocket()
        connection.listener = listener = Listener()
        connection.receive("3")
        assert listener.heard == []
        host.loop.run(host.clock() + 25.1)
        assert socket.packets == ["2"]
        connection.receive("3")
        connection.receive("3")
        assert listener.heard == ["ping", "pong"]
        host.loop.run(host.clock() + 30)
        assert listener.heard == ["ping", "pong", "ping"]

    def test_a_pong_proves_nothing_before_the_ping_was_taken(self) -> None:
        host, connection, polls = polling()
        connection.listener = listener = Listener()
        host.loop.run(host.clock() + 25.1)
        connection.receive("3")
        assert listener.heard == ["ping"]
        polls.poll()
        assert polls.answers == ["2"]
        connection.receive("3")
        assert listener.heard == ["ping", "pong"]

    def test_a_ping_that_waits_in_an_upgrade_keeps_its_place(self) -> None:
        host, connection, _ = polling(upgrade_timeout=60)
        connection.listener = listener = Listener()
        socket = FakeSocket()
        assert connection.begin_upgrade(socket)
        connection.receive_probe(socket, "2probe")
        connection.send(PreparedMessage("before"))
        host.loop.run(host.clock() + 25.1)
        connection.send(PreparedMessage("after"))
        connection.receive("3")
        connection.receive_probe(socket, "5")
        assert socket.packets == ["3probe", "4before", "2", "4after"]
        connection.receive("3")
        assert listener.heard == ["ping", "pong"]

    def test_no_pong_ends_the_session(self) -> None:
        host, connection, socket = websocket()
        host.loop.run(host.clock() + 45.1)
        assert host.ends == ["ping timeout"]
        assert socket.codes == [1001]
        host.loop.run(host.clock() + 1)
        assert socket.aborted
        assert host.removed == 1
        assert connection.state is ConnectionState.CLOSED
        assert len(host.timers) == 0

    def test_a_paused_session_lives(self) -> None:
        host, connection, socket = websocket()
        connection.pause()
        assert socket.paused
        host.loop.run(host.clock() + 200)
        assert not connection.closed
        # The client is pinged all the while, or it would leave.
        assert len(socket.packets) == 8
        connection.resume()
        host.loop.run(host.clock() + 19)
        assert not connection.closed
        host.loop.run(host.clock() + 2)
        assert host.ends == ["ping timeout"]

    @pytest.mark.parametrize("asked", [True, False])
    def test_a_paused_session_whose_output_stands_still_ends(self, asked: bool) -> None:
        host, connection, socket = websocket()
        socket.buffered = 300_000 if asked else 600_000
        connection.on_high()
        if asked:
            connection.pause()
        assert socket.paused
        host.loop.run(host.clock() + 44)
        assert not connection.closed
        host.loop.run(host.clock() + 1.5)
        assert host.ends == ["ping timeout"]

    def test_it_has_the_whole_time_to_take_some(self) -> None:
        """Output that was not there when the ping was sent stands still only from the first look on."""
        host, connection, socket = websocket()
        host.loop.run(host.clock() + 44)
        socket.buffered = 600_000
        connection.on_high()
        assert socket.paused
        host.loop.run(host.clock() + 20)
        assert not connection.closed
        host.loop.run(host.clock() + 2)
        assert host.ends == ["ping timeout"]

    @pytest.mark.parametrize("paused", [True, False])
    def test_a_slow_reader_lives(self, paused: bool) -> None:
        """Whatever is written meanwhile: what is taken counts, and not what is left."""
        host, connection, socket = websocket(buffer_limit=10**8)
        socket.buffered = 600_000 if paused else 300_000
        connection.on_high()
        for _ in range(50):
            host.loop.run(host.clock() + 10)
            connection.send(PreparedMessage("x" * 1000))
            socket.taken += 1
            assert not connection.closed
        assert socket.paused is paused
        host.loop.run(host.clock() + 50)
        assert host.ends == ["ping timeout"]

    def test_a_reader_that_has_read_all_but_little_lives(self) -> None:
        """Its pong may be on the way: it gets its whole time again, once."""
        host, connection, socket = websocket()
        socket.buffered = 300_000
        connection.on_high()
        host.loop.run(host.clock() + 30)
        socket.buffered = 0
        connection.on_drained()
        host.loop.run(host.clock() + 30)
        assert not connection.closed
        host.loop.run(host.clock() + 10)
        assert host.ends == ["ping timeout"]

    def test_a_ping_may_wait_in_the_kernel(self) -> None:
        """Where that holds much for a slow peer, although the session's own buffer is empty."""
        host, connection, socket = websocket()
        socket.in_kernel = 300_000
        host.loop.run(host.clock() + 60)
        socket.taken = 1000
        host.loop.run(host.clock() + 20)
        assert not connection.closed
        host.loop.run(host.clock() + 6)
        assert host.ends == ["ping timeout"]

    def test_a_slow_reader_of_a_long_response_lives(self) -> None:
        """It cannot get its ping before it has read the whole response."""
        host, connection, _ = polling()
        carrier = FakeSocket()
        connection.send(PreparedMessage("x" * 1_000_000))
        connection.poll(lambda text: None, carrier=carrier)
        carrier.in_kernel = 1_000_000
        for _ in range(20):
            host.loop.run(host.clock() + 10)
            carrier.taken += 1
            assert not connection.closed
        host.loop.run(host.clock() + 50)
        assert host.ends == ["ping timeout"]

    def test_a_client_that_posts_and_never_polls_ends(self) -> None:
        host, connection, _ = polling()
        while not connection.paused:
            connection.send(PreparedMessage("x" * 10_000))
        connection.begin_handling()  # its POST waits for `resume`
        host.loop.run(host.clock() + 46)
        assert connection.closed


class TestThrottling:
    def test_messages_above_the_rate_wait_and_all_of_them_count(self) -> None:
        host, connection, _ = websocket(events_per_second=10)
        assert not any(connection.message_rate.take() for _ in range(10))
        wait = connection.message_rate.take()
        assert connection.throttle(wait) == wait == 0.1
        assert host.counters["events throttled"] == 1
        host.loop.run(host.clock() + 0.1)
        assert connection.message_rate.take() == pytest.approx(0.1)
        connection.charge(10)
        assert connection.message_rate.take() == pytest.approx(1.1)

    def test_a_pause_is_long_enough_for_many_messages(self) -> None:
        host, connection, _ = websocket(events_per_second=10_000)
        connection.charge(10_000)
        assert connection.throttle(connection.message_rate.take()) == 0.1
        host.loop.run(host.clock() + 0.1)
        assert sum(not connection.message_rate.take() for _ in range(2000)) == 999

    def test_no_limit(self) -> None:
        _, connection, _ = websocket(events_per_second=0)
        assert not any(connection.message_rate.take() for _ in range(100))


class TestDeadlines:
    def test_without_establish_the_session_ends(self) -> None:
        host, connection, _ = websocket(connect_timeout=5)
        host.loop.run(host.clock() + 5.1)
        assert host.ends == ["server disconnect"]
        host, connection, _ = websocket(connect_timeout=5)
        connection.establish()
        host.loop.run(host.clock() + 20)
        assert not host.ends
        connection.unestablish()
        host.loop.run(host.clock() + 4.9)
        assert not host.ends
        host.loop.run(host.clock() + 0.2)
        assert host.ends == ["server disconnect"]

    def test_a_goodbye_waits_for_the_next_poll_but_not_for_ever(self) -> None:
        host, connection, polls = polling(close_timeout=3)
        connection.send(PreparedMessage("1"))
        connection.close(CloseCode.DONE)
        assert host.ends == ["server disconnect"]
        assert connection.state is ConnectionState.CLOSING
        polls.poll()
        assert polls.answers == ["41"]
        assert connection.state.value == "closed"
        host, connection, _ = polling(close_timeout=3)
        connection.send(PreparedMessage("1"))
        connection.close(CloseCode.DONE)
        host.loop.run(host.clock() + 3.1)
        assert connection.state is ConnectionState.CLOSED
        assert host.ends == ["server disconnect"]


def test_the_end_is_told_after_what_is_being_handled() -> None:
    host, connection, _ = websocket()
    connection.begin_handling()
    connection.abort("transport close")
    assert not host.ends
    connection.end_handling()
    assert host.ends == ["transport close"]


def test_illegal_moves_are_refused() -> None:
    _, connection, _ = websocket()
    connection.abort("x")
    with pytest.raises(RuntimeError, match="no way from closed to open"):
        connection.open(None)


STEPS = st.one_of(
    st.tuples(st.just("send"), st.integers(1, 12)),
    st.tuples(st.just("poll"), st.none()),
    st.tuples(st.just("lose_poll"), st.none()),
    st.tuples(
        st.just("receive"), st.sampled_from(["3", "3", "6", "4x", "4bad", "1", "2", "5", b"x"])
    ),
    st.tuples(st.just("upgrade"), st.none()),
    st.tuples(st.just("probe"), st.sampled_from(["2probe", "5", "2probe", "5", "4x", b""])),
    st.tuples(st.just("abandon"), st.none()),
    st.tuples(st.just("wait"), st.floats(0.01, 30)),
    st.tuples(st.just("handle"), st.booleans()),
    st.tuples(st.just("pause"), st.booleans()),
    st.tuples(st.just("congest"), st.booleans()),
    st.tuples(st.just("close"), st.sampled_from(list(CloseCode))),
    st.tuples(st.just("abort"), st.none()),
    st.tuples(st.just("establish"), st.booleans()),
)


@settings(max_examples=400, deadline=None)
@given(st.booleans(), st.lists(STEPS, max_size=60))
def test_whatever_happens(on_websocket: bool, steps: list[tuple[str, Any]]) -> None:
    """Messages arrive once, in order, up to the end; every poll is answered once; the end is told once."""
    walk = Walk(on_websocket)
    for name, argument in steps:
        getattr(walk, name)(argument)
        walk.check()
    walk.finish()


class Walk:
    """One session, what was done to it, and what must hold."""

    def __init__(self, on_websocket: bool) -> None:
        self.host = FakeHost(connect_timeout=20, upgrade_timeout=5, answer_packets=8)
        self.connection = Connection(self.host, "sid", "1.2.3.4", dict)
        self.connection.listener = self.listener = Listener()
        self.socket = FakeSocket() if on_websocket else None
        self.connection.open(self.socket)
        self.sockets = [self.socket] if self.socket else []
        self.asked = 0
        self.answers: list[str | None] = []
        self.sent: list[str] = []
        self.handling = False

    def send(self, size: int) -> None:
        message = PreparedMessage(*(f"{len(self.sent) + part}" for part in range(size)))
        if not self.connection.closed:
            self.sent += [f"4{packet!s}" for packet in message.packets]
        self.connection.send(message)

    def poll(self, _: None) -> None:
        self.asked += 1
        self.connection.poll(self.answers.append)

    def lose_poll(self, _: None) -> None:
        if self.asked > len(self.answers):
            self.asked -= 1
            self.connection.on_poll_lost()

    def receive(self, packet: str | bytes) -> None:
        assert self.connection.receive(packet) is None

    def upgrade(self, _: None) -> None:
        socket = FakeSocket()
        if self.connection.begin_upgrade(socket):
            self.sockets.append(socket)

    def probe(self, packet: str | bytes) -> None:
        if self.sockets:
            self.connection.receive_probe(self.sockets[-1], packet)

    def abandon(self, _: None) -> None:
        if self.sockets:
            self.connection.abandon_upgrade(self.sockets[-1])

    def wait(self, seconds: float) -> None:
        self.host.loop.run(self.host.clock() + seconds)

    def handle(self, begin: bool) -> None:
        self.handling = begin
        (self.connection.begin_handling if begin else self.connection.end_handling)()

    def pause(self, on: bool) -> None:
        (self.connection.pause if on else self.connection.resume)()

    def congest(self, on: bool) -> None:
        (self.connection.on_high if on else self.connection.on_low)()

    def establish(self, on: bool) -> None:
        (self.connection.establish if on else self.connection.unestablish)()

    def close(self, code: CloseCode) -> None:
        self.connection.close(code)

    def abort(self, _: None) -> None:
        if self.connection.transport == "websocket":
            self.connection.abort("transport close")

    def check(self) -> None:
        got: list[str] = []
        for answer in self.answers:
            got += [] if answer is None else answer.split("\x1e")
        for socket in self.sockets:
            got += [str(packet) for packet in socket.packets]
        messages = [packet for packet in got if packet.startswith("4")]
        assert messages == self.sent[: len(messages)]
        assert self.asked - len(self.answers) in (0, 1)
        assert len(self.host.ends) <= 1
        assert self.host.removed <= 1
        if self.connection.transport == "websocket" and not self.connection.closed:
            assert messages == self.sent
        heard = [word for word in self.listener.heard if word in ("ping", "pong")]
        assert heard == ["ping", "pong"] * (len(heard) // 2) + ["ping"] * (len(heard) % 2)

    def finish(self) -> None:
        self.connection.close()
        if self.handling:
            self.connection.end_handling()
        self.wait(60)
        assert self.connection.state is ConnectionState.CLOSED
        assert len(self.host.ends) == 1
        assert self.host.removed == 1
        assert self.asked == len(self.answers)
        assert len(self.host.timers) == 0
        assert all(socket.aborted or socket.codes for socket in self.sockets)
        self.check()

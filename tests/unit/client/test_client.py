"""HubClient against a hub that does what it is told."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import json
import os
import re
import stat
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from hub import errors
from hub.client import (
    HandlerFailed,
    HubClient,
    Publisher,
    Replaced,
    acknowledger,
    connection,
    reconnecting,
)
from hub.client.position import checksum
from hub.model import Gap, Meta
from tests.support.fake_hub import FakeHub
from tests.support.times import MS, UNIT, eventually


@pytest.fixture
async def fake() -> AsyncIterator[FakeHub]:
    async with FakeHub() as hub:
        yield hub


@pytest.fixture
async def connect(fake: FakeHub) -> AsyncIterator[Callable[..., Any]]:
    clients: list[HubClient] = []

    def make(**options: Any) -> HubClient:
        clients.append(HubClient(fake.url, transports=["websocket"], **options))
        return clients[-1]

    yield make
    for client in clients:
        await client.close()


def collect(client: HubClient, event: str = "m") -> list[tuple[Any, str]]:
    """Register a handler that keeps data and offset of each message."""
    got: list[tuple[Any, str]] = []
    client.on(event)(lambda data, meta: got.append((data, meta.offset)))
    return got


async def test_messages_are_given_in_order_one_at_a_time(fake, connect):
    """A handler that takes its time is not overtaken, and sees `(data, meta)`."""
    client, running, seen = connect(), 0, []

    @client.on("m")
    async def handle(data: Any, meta: Meta) -> None:
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(2 * MS if data % 2 else 0)
        seen.append((data, meta.room, meta.offset))
        running -= 1

    await client.connect()
    for number in range(50):
        await fake.peers[0].message(100 + number, number)
    await eventually(lambda: len(seen) == 50)
    assert seen == [(number, "r", str(100 + number)) for number in range(50)]
    assert client.offset == "149"


async def test_repeats_are_dropped(fake, connect):
    """What is not newer than the newest message handled is not handled again."""
    client = connect()
    got = collect(client)
    await client.connect()
    for offset in (100, 101, 100, 101, 102):
        await fake.peers[0].message(offset)
    await eventually(lambda: client.offset == "102")
    assert [offset for _, offset in got] == ["100", "101", "102"]


async def test_what_came_with_the_connect_reply_is_handled(fake, connect):
    """Messages that follow `hub:session` at once are not lost, nor those before `connect` returns."""
    fake.replay = [(100 + number, number) for number in range(20)]
    client = connect()
    got = collect(client)
    await client.connect()
    await eventually(lambda: len(got) == 20)


async def test_handlers_registered_behind_connect_are_in_time(fake, connect, monkeypatch):
    """Nothing is handed out before the caller of `connect` had its turn, however much has come."""
    fake.replay = [(100 + number, number) for number in range(20)]
    client = connect()
    wait_connected = client._connection.wait_connected

    async def wait_for_the_replay() -> Any:
        connection = await wait_connected()
        await connection.call_verb("history", {"room": "r"})  # answered after the replay
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(client._connection, "wait_connected", wait_for_the_replay)
        await client.connect()
        got = collect(client)
        await eventually(lambda: client.offset == "119")
    assert len(got) == 20


async def test_a_lost_connection_is_resumed_with_the_newest_position(fake, connect):
    """Each CONNECT sends the pid of the last reply and the position as it is then."""
    client = connect()
    got = collect(client)
    await client.connect()
    assert fake.peers[0].auth == {}
    await fake.peers[0].message(100)
    await eventually(lambda: got)
    fake.session |= {"resumed": "pid"}
    fake.offset, fake.replay = "100", [(100, None), (101, None)]
    await fake.peers[0].ws.close(code=1012)
    await eventually(lambda: len(got) == 2)
    assert fake.peers[1].auth == {"pid": "s1.secret", "offset": "100"}
    assert [offset for _, offset in got] == ["100", "101"]
    assert client.resumed == "pid"
    assert client.session is not None
    assert client.session.client_id == "c"


async def test_the_position_waits_for_the_handler(fake, connect):
    """A message whose handler raised is handed out again and counts as handled only after that."""
    client, calls = connect(attempts=3), []

    @client.on("m")
    def handle(data: Any, meta: Meta) -> None:
        calls.append((meta.offset, client.offset))
        if len(calls) < 3:
            raise RuntimeError("not yet")

    await client.connect()
    await fake.peers[0].message(100)
    await eventually(lambda: client.offset == "100")
    assert calls == [("100", "10")] * 3


async def test_a_handler_that_goes_on_failing_ends_the_client(fake, connect):
    """After `attempts` calls `wait` and verbs raise, and the position stays before the message."""
    client = connect(attempts=2)

    @client.on("m")
    def handle(data: Any, meta: Meta) -> None:
        raise RuntimeError("never")

    await client.connect()
    await fake.peers[0].message(100)
    with pytest.raises(HandlerFailed, match="never"):
        await asyncio.wait_for(client.wait(), 5 * UNIT)
    assert client.offset == "10"
    with pytest.raises(HandlerFailed):
        await client.publish("r", "m", 1)


async def test_a_failed_client_closes_its_http_session(fake, connect):
    """`close` waits until the connection is closed, also if the client has ended by itself."""
    client = connect(attempts=1)

    @client.on("m")
    def handle(data: Any, meta: Meta) -> None:
        raise RuntimeError("never")

    await client.connect()
    await fake.peers[0].message(100)
    with pytest.raises(HandlerFailed):
        await asyncio.wait_for(client.wait(), 5 * UNIT)
    await client.close()
    sessions = [found for found in gc.get_objects() if isinstance(found, aiohttp.ClientSession)]
    assert all(session.closed for session in sessions)


async def test_a_cancellation_inside_a_handler_is_its_failure(fake, connect):
    """A handler that awaits what somebody cancels is called again, as if it had raised."""
    client, calls = connect(), []

    @client.on("m")
    async def handle(data: Any, meta: Meta) -> None:
        calls.append(meta.offset)
        if len(calls) == 1:
            work = asyncio.create_task(asyncio.sleep(3600))
            work.cancel()
            await work

    await client.connect()
    await fake.peers[0].message(100)
    await eventually(lambda: client.offset == "100")
    assert calls == ["100", "100"]


async def test_closing_cancels_a_handler_at_work(fake, connect):
    """It ends in its middle, and the position stays before its message."""
    client, ended = connect(), []

    @client.on("m")
    async def handle(data: Any, meta: Meta) -> None:
        try:
            ended.append(False)
            await asyncio.sleep(3600)
        finally:
            ended[:] = [True]

    await client.connect()
    await fake.peers[0].message(100)
    await eventually(lambda: ended)
    await asyncio.wait_for(client.close(), 5 * UNIT)
    assert ended == [True]
    assert client.offset == "10"


async def test_a_full_queue_stops_the_reading(fake, connect):
    """Back-pressure reaches the socket; a handler may still ask verbs, and nothing is lost."""
    client, gate, got = connect(queue=10), asyncio.Event(), []

    @client.on("m")
    async def handle(data: Any, meta: Meta) -> None:
        await gate.wait()
        if not got:
            await client.publish("r", "m", "from a handler")
        got.append(data)

    await client.connect()
    for number in range(60):
        await fake.peers[0].message(100 + number, number)
    queue = client._delivery._queue
    await eventually(lambda: len(queue) >= 10)
    assert len(queue) <= 11
    gate.set()
    await eventually(lambda: len(got) == 60)
    assert got == list(range(60))
    assert len(fake.peers) == 1


async def test_the_hard_bound_parts_with_the_connection(fake, connect):
    """A handler that waits for an answer behind too many messages costs the connection only."""
    client, got = connect(queue=10, timeout=20 * UNIT), []
    fake.answer = lambda peer, verb, fields: None if len(fake.peers) == 1 else {"ok": True}

    @client.on("m")
    async def handle(data: Any, meta: Meta) -> None:
        if not got:
            await client.publish("r", "m", 1)
        got.append(data)

    await client.connect()
    for number in range(200):
        await fake.peers[0].message(100 + number, number)
        if number == 0:
            await eventually(lambda: fake.asked("publish"))
    await eventually(lambda: len(fake.peers) == 2)
    assert len(client._delivery._queue) <= 100


async def test_publish_is_retried_with_the_same_id(fake, connect):
    """Where the outcome is unknown, the same message goes out again under the same id."""
    client = connect()
    answers = [{"ok": False, "error": {"code": "unavailable", "message": "?", "retryable": True}}]
    fake.answer = lambda *_: answers.pop() if answers else {"ok": True, "offset": "9"}
    await client.connect()
    published = await client.publish("r", "m", {"x": None})
    assert (published.offset, published.duplicate) == ("9", False)
    first, second = fake.asked("publish")
    assert first == second
    assert first["id"]
    assert set(first) == {"room", "event", "data", "id"}


async def test_publish_is_retried_after_a_lost_connection(fake, connect):
    """A connection that goes while the answer is awaited does not lose the message."""
    client = connect()
    await client.connect()

    def lose(peer: Any, verb: str, fields: Any) -> dict[str, Any] | None:
        if len(fake.peers) == 1:
            peer.ws._req.transport.abort()
            return None
        return {"ok": True, "offset": "9", "duplicate": True}

    fake.answer = lose
    assert (await client.publish("r", "m", None)).duplicate
    first, second = fake.asked("publish")
    assert first["id"] == second["id"]
    assert first["data"] is None


async def test_an_unanswered_verb_replaces_the_connection(fake, connect):
    """A half-open connection is found out by a verb that gets no answer, long before a ping."""
    client = connect(answer_timeout=200 * MS)
    await client.connect()
    fake.answer = lambda peer, *_: None if peer is fake.peers[0] else {"ok": True, "offset": "9"}
    assert (await client.publish("r", "m", 1)).offset == "9"
    assert len(fake.peers) == 2


async def test_a_poll_cut_off_in_its_body_replaces_the_connection():
    """The stock client's reading loop dies of it without a word to anybody."""
    shaken = 0
    session = ["hub:session", FakeHub().session, "10"]
    answers = iter(["40" + json.dumps({"sid": "x", "pid": "p"}), "42" + json.dumps(session), None])

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal shaken
        while request := await reader.readline():
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if b"content-length: " in head:
                length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
            if request.startswith(b"POST"):
                body: str | None = "ok"
            elif b"sid=" not in request:
                shaken += 1
                times = {"pingInterval": 25000, "pingTimeout": 20000}
                body = "0" + json.dumps({"sid": "e", "upgrades": [], **times})
            else:
                body = next(answers, "6")
            length = 1000 if body is None else len(body)
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}".encode())
            if body is None:
                break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = HubClient(f"http://127.0.0.1:{port}", transports=["polling"])
    await client.connect()
    await eventually(lambda: shaken >= 2)
    await client.close()
    server.close()


@pytest.mark.parametrize(
    "data",
    [float("nan"), [float("-inf")], object(), {"a": {1}}, (b"x",), [b"x"] * 11],
    ids=["nan", "infinity", "object", "set", "bytes in a tuple", "attachments"],
)
async def test_what_no_hub_can_take_is_refused_at_once(fake, connect, data):
    """Nothing is sent that the hub would close the connection over, and the error says why."""
    client = connect()
    await client.connect()
    with pytest.raises(errors.BadRequest, match="publish: data: "):
        await client.publish("r", "m", data)
    with pytest.raises(errors.BadRequest, match="publish: ttl: "):
        await client.publish("r", "m", 1, ttl=float("nan"))
    assert fake.verbs == []
    await client.publish("r", "m", 1)
    assert len(fake.peers) == 1


async def test_what_is_too_large_is_refused_at_once(fake, connect):
    """The bound is the handshake's `maxPayload`, for the message with its attachments."""
    fake.max_payload = 200
    client = connect()
    await client.connect()
    for data in ("x" * 200, b"x" * 201, [b"x" * 50] * 3):
        with pytest.raises(errors.TooLarge, match="the hub takes 200"):
            await client.publish("r", "m", data)
    assert fake.verbs == []
    await client.publish("r", "m", "x" * 100)
    assert len(fake.peers) == 1


async def test_events_of_names_with_another_meaning_are_skipped(fake, connect, caplog):
    """Rooms may hold them from before the hub refused them. A catch-all handler would fail at each attempt."""
    client = connect()
    got: list[Any] = []
    client.on("*")(lambda event, data, meta: got.append((event, data)))
    await client.connect()
    for offset, name in enumerate(("*", "connect", "disconnect", "newListener", "m"), 100):
        await fake.peers[0].message(offset, "hub:session", name)
    await eventually(lambda: got)
    assert got == [("m", "hub:session")]
    warnings = [record.message for record in caplog.records if record.name == "hub.client"]
    assert warnings[0] == "skipping a message of room 'r': its event is named '*'"
    assert len(warnings) == 4
    assert client._delivery.position.offset == "104"
    assert len(fake.peers) == 1


async def test_volatile_is_not_retried(fake, connect):
    """A message that may be lost is not sent twice either."""
    client = connect(answer_timeout=200 * MS)
    await client.connect()
    fake.answer = lambda *_: None
    with pytest.raises(errors.Unavailable):
        await client.publish("r", "m", 1, volatile=True)
    assert len(fake.asked("publish")) == 1
    assert "id" not in fake.asked("publish")[0]


async def test_verbs_are_bounded_in_time(fake, connect):
    """A verb ends with `unavailable` when its time is over, with no connection too."""
    client = connect(timeout=500 * MS)
    await client.connect()
    fake.refuse = 1000
    await fake.peers[0].ws.close()
    with pytest.raises(errors.Unavailable):
        await client.publish("r", "m", 1)


async def test_closing_ends_the_pause_before_the_next_try(fake, connect, monkeypatch):
    """A verb that waits to be sent again is told at once that there is no client any more."""
    monkeypatch.setattr(reconnecting, "BACKOFF_MIN", 20 * UNIT)
    monkeypatch.setattr(reconnecting, "BACKOFF_MAX", 20 * UNIT)
    client = connect()
    await client.connect()
    said = {"code": "unavailable", "message": "?", "retryable": True}
    fake.answer = lambda *_: {"ok": False, "error": said}
    asking = asyncio.create_task(client.history("r"))
    await eventually(lambda: fake.asked("history"))
    await client.close()
    with pytest.raises(errors.Unavailable, match="closed"):
        await asyncio.wait_for(asking, 5 * UNIT)


@pytest.mark.parametrize(
    "options",
    [
        {"acks": "none"}, {"timeout": 0}, {"timeout": 91}, {"answer_timeout": 0}, {"queue": 0},
        {"attempts": 0}, {"answer_timeout": float("nan")}, {"transports": "websocket"},
        {"transports": []}, {"transports": ["carrier pigeon"]}, {"position_file": "/no/such/file"},
    ],
    ids=str,
)  # fmt: skip
async def test_options_out_of_bounds_are_refused(options):
    """At once, by name, in a sentence, instead of a client that cannot work."""
    with pytest.raises(ValueError, match=f"^{next(iter(options))}: .* "):
        HubClient("http://127.0.0.1:9", **options)


VERBS: list[Callable[[HubClient], Any]] = [
    lambda client: client.subscribe("r"),
    lambda client: client.unsubscribe("r"),
    lambda client: client.publish("r", "m", 1),
    lambda client: client.history("r"),
    lambda client: client.ack("1"),
    lambda client: client.wait(),
    lambda client: client.wait_connected(),
]


@pytest.mark.parametrize("call", VERBS)
async def test_a_call_before_connect_fails_at_once(connect, call):
    """It would wait for a connection that nobody makes."""
    with pytest.raises(RuntimeError, match=r"^\w+: call `await client\.connect\(\)` first$"):
        await asyncio.wait_for(call(connect()), 5 * UNIT)


async def test_a_call_from_another_event_loop_fails_at_once(fake, connect):
    """It would wait for an answer that wakes nobody."""
    client = connect()
    await client.connect()
    with pytest.raises(RuntimeError, match="publish: the client belongs to the event loop"):
        await asyncio.to_thread(asyncio.run, client.publish("r", "m", 1))


async def test_connect_is_called_once(fake, connect):
    client = connect()
    await client.connect()
    with pytest.raises(RuntimeError, match="make another HubClient"):
        await client.connect()


async def test_an_event_without_a_name_is_refused(connect):
    with pytest.raises(TypeError, match="name of an event is missing"):
        connect().on(lambda data, meta: None)


async def test_an_answer_that_is_not_understood(fake, connect):
    client = connect()
    await client.connect()
    fake.answer = lambda *_: {"ok": True, "messages": 5}
    with pytest.raises(errors.Internal, match=r"answer is not understood: .*messages"):
        await client.history("r")


@pytest.mark.parametrize("code", sorted(errors.ERRORS))
async def test_errors_are_typed(fake, connect, code):
    """Every code of the protocol becomes its class; what no retry mends is not retried."""
    client = connect(timeout=300 * MS)
    await client.connect()
    said = {"code": code, "message": "so it is", "retryable": False}
    fake.answer = lambda *_: {"ok": False, "error": said}
    with pytest.raises(errors.ERRORS[code], match="so it is"):
        await client.subscribe("r")
    if not errors.ERRORS[code].retryable:
        assert len(fake.verbs) == 1


async def test_handshake_503_is_retried(fake, connect):
    """A hub that is not ready yet is asked again; `connect` returns when it is."""
    fake.refuse = 2
    client = connect()
    await client.connect()
    assert client.connected


@pytest.mark.parametrize("transports", [["polling"], ["websocket"]], ids=str)
async def test_retry_after_is_obeyed(fake, connect, transports):
    """The hub says when to try again; not all clients return at the same moment."""
    fake.refuse, fake.retry_after = 1, "1"
    client = HubClient(fake.url, transports=transports)
    connecting = asyncio.create_task(client.connect())
    await eventually(lambda: len(fake.handshakes) == 2)
    first, second = fake.handshakes
    assert second - first >= 1  # seconds, by the header
    connecting.cancel()
    await asyncio.gather(connecting, return_exceptions=True)


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        ("7", 7),
        ("100000", 60),
        ("-1", 0),
        ("soon", 0),
        ("٧", 0),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0),
    ],
)
def test_retry_after_has_a_bound(asked, seconds):
    """What cannot be read counts as none."""
    assert connection._http_failure(503, {"Retry-After": asked}).retry_after == seconds


def test_pauses_grow_and_are_spread():
    """Many clients that lost their hub together do not return together."""
    for failures, longest in ((0, 0.2), (3, 1.6), (50, 10)):
        pauses = [reconnecting._pause(failures, 0) for _ in range(200)]
        assert longest / 2 <= min(pauses) < 0.6 * longest
        assert 0.9 * longest < max(pauses) <= longest
    asked = [reconnecting._pause(0, 10) for _ in range(200)]
    assert 10 <= min(asked) < 11
    assert 14 < max(asked) <= 15


async def test_connections_that_end_at_once_are_made_less_and_less_often(fake, connect):
    """A hub or a message that ends each connection is not asked five times a second."""
    fake.short = True
    await connect().connect(wait=False)
    await asyncio.sleep(3 * UNIT)
    assert 3 <= len(fake.handshakes) <= 6


async def test_connecting_without_waiting(fake, connect, caplog):
    """A backend that starts before the hub: it logs that once, and connects as soon as it can."""
    fake.refuse = 3
    client = connect()
    got = collect(client)
    fake.replay = [(100, "m")]
    await client.connect(wait=False)
    assert not client.connected
    await client.wait_connected()
    assert client.connected
    await eventually(lambda: got)
    said = [record for record in caplog.records if record.levelname == "WARNING"]
    assert [record.getMessage() for record in said] == [
        f"cannot connect to {fake.url}: HTTP 503 Service Unavailable; trying again"
    ]


async def test_a_verb_waits_for_the_connection(fake, connect):
    fake.refuse = 2
    client = connect()
    await client.connect(wait=False)
    assert (await client.publish("r", "m", 1)).offset == "11"


async def test_a_refusal_ends_a_client_that_nobody_waits_for(fake, connect):
    fake.error = {"message": "who?", "data": {"code": "unauthorized"}}
    client = connect()
    await client.connect(wait=False)
    for call in (client.wait, client.wait_connected, lambda: client.publish("r", "m", 1)):
        with pytest.raises(errors.Unauthorized, match=r"the hub refused the connection: who\?"):
            await asyncio.wait_for(call(), 5 * UNIT)


def of_clients() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name().startswith("hub-client")]


@pytest.mark.parametrize("refuse", [1000, 0])
async def test_a_cancelled_connect_ends_the_client(fake, connect, refuse):
    """Nothing of it goes on reconnecting, whether it waits for the next attempt or for an answer."""
    fake.refuse = refuse
    fake.silent = True
    client = connect()
    connecting = asyncio.create_task(client.connect())
    await eventually(lambda: fake.handshakes)
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    assert of_clients() == []
    made = len(fake.handshakes)
    await asyncio.sleep(500 * MS)
    assert len(fake.handshakes) == made
    with pytest.raises(errors.Unavailable, match="the client is closed"):
        await client.publish("r", "m", 1)


async def test_a_cancelled_close_ends_the_client(fake, connect):
    client = connect(client_id="c")
    await client.connect()
    closing = asyncio.create_task(client.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    await eventually(lambda: of_clients() == [])
    await asyncio.wait_for(client.wait(), 5 * UNIT)
    assert len(fake.handshakes) == 1


@pytest.mark.parametrize("call", VERBS[:5])
async def test_a_cancelled_verb_leaves_nothing(fake, connect, call):
    """Its late answer finds nobody, and the connection stays."""
    client = connect()
    await client.connect()
    fake.answer = lambda *_: None
    calling = asyncio.create_task(call(client))
    await eventually(lambda: fake.verbs)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    peer, current = fake.peers[0], client._connection.current
    assert current is not None
    assert current._pending_answers == set()
    assert set(current.callbacks["/"]) == {0}  # under 0 it keeps the next number
    await peer.write("3", [{"ok": True}], 1)
    fake.answer = lambda *_: {"ok": True, "room": "r", "offset": "11"}
    await client.publish("r", "m", 1)
    assert client._connection.current is current


async def serve(answer: bytes | None) -> asyncio.Server:
    """Answer each request with the same bytes, or with silence."""

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            if answer is None:
                await reader.read()
            else:
                writer.write(answer)
        writer.close()

    return await asyncio.start_server(take, "127.0.0.1", 0)


@pytest.mark.parametrize("transports", [["polling"], ["websocket"]], ids=str)
@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (None, "no answer within"),
        (b"", "[Ss]erver disconnected"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "HTTP 404 Not Found"),
        (b"HTTP/1.1 499 \r\nContent-Length: 0\r\n\r\n", "HTTP 499"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
            "(the answer is not that of a Socket.IO server|HTTP 200 OK)",
        ),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "the answer is not that of a Socket.IO server"),
    ],
    ids=["silence", "closed", "404", "499", "a page", "not HTTP"],
)
async def test_why_there_is_no_connection(monkeypatch, transports, answer, sentence):
    """The error names the address and the reason; no part of it is empty or only the name of a class."""
    monkeypatch.setattr(reconnecting, "OPEN_TIMEOUT", 300 * MS)
    server = await serve(answer)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    client = HubClient(url.replace("http://", "http://user:secret@"), transports=transports,
                       timeout=600 * MS)  # fmt: skip
    with pytest.raises(errors.Unavailable) as caught:
        await client.connect()
    server.close()
    text = str(caught.value)
    assert re.fullmatch(
        rf"connect: not connected within [\d.]+ s: cannot connect to {url}: \S.*{sentence}.*"
        rf"|connect: not connected within [\d.]+ s: cannot connect to {url}: {sentence}.*",
        text,
    )
    assert "()" not in text
    assert "secret" not in text


async def test_a_verb_without_a_connection_says_why(fake, connect):
    client = connect(timeout=500 * MS)
    fake.refuse = 1000
    await client.connect(wait=False)
    with pytest.raises(errors.Unavailable) as caught:
        await client.history("r")
    assert str(caught.value) == (
        f"history: not connected within {0.5 * UNIT:g} s: "
        f"cannot connect to {fake.url}: HTTP 503 Service Unavailable"
    )


async def test_what_a_refusing_hub_says_is_passed_on(fake):
    """Over polling the answer has a body."""
    fake.refuse = 1000
    client = HubClient(fake.url, transports=["polling"], timeout=300 * MS)
    with pytest.raises(errors.Unavailable, match=r"HTTP 503 Service Unavailable: not now$"):
        await client.connect()


async def test_the_path_of_the_url_is_the_base_path():
    async with FakeHub("/live/hub") as fake:
        client = HubClient(fake.url + "/", transports=["websocket"])
        await client.connect()
        await client.close()


async def test_a_refusal_is_raised_and_not_retried(fake, connect):
    """CONNECT_ERROR is for good: `connect` raises its error class."""
    fake.error = {"message": "who?", "data": {"code": "unauthorized"}}
    with pytest.raises(errors.Unauthorized, match="who"):
        await connect().connect()
    assert len(fake.peers) == 1


async def test_a_replaced_client_stays_away(fake, connect):
    """After `41` the client does not return; `wait` and verbs say why."""
    client = connect()
    await client.connect()
    await fake.peers[0].ws.send_str("41")
    with pytest.raises(Replaced):
        await asyncio.wait_for(client.wait(), 5 * UNIT)
    with pytest.raises(Replaced):
        await client.history("r")
    assert len(fake.peers) == 1


@pytest.mark.parametrize(
    ("reason", "kind"), [("replaced", Replaced), ("expelled", errors.Forbidden)]
)
async def test_the_hub_says_why_it_ends_a_client(fake, connect, reason, kind):
    """The message of `hub:closing` is the error's text. The client stays away, also if no `41` follows."""
    client = connect(client_id="c")
    await client.connect()
    said = "another connection has the name c"
    await fake.peers[0].send("hub:closing", {"reason": reason, "message": said}, "10")
    for call in (client.wait, lambda: client.history("r")):
        with pytest.raises(kind) as caught:
            await asyncio.wait_for(call(), 5 * UNIT)
        assert str(caught.value) == said
        assert type(caught.value) is kind
    await asyncio.sleep(300 * MS)
    assert len(fake.handshakes) == 1


async def test_a_refusal_at_a_reconnection_ends_the_client(fake, connect):
    """CONNECT_ERROR is for good there, too."""
    client = connect()
    await client.connect()
    fake.error = {"message": "no more", "data": {"code": "forbidden"}}
    await fake.peers[0].ws.close(code=1012)
    with pytest.raises(errors.Forbidden, match="the hub refused the connection: no more"):
        await asyncio.wait_for(client.wait(), 5 * UNIT)
    await asyncio.sleep(300 * MS)
    assert len(fake.handshakes) == 2


async def test_a_refusal_that_a_retry_can_mend_is_retried(fake, connect):
    """A CONNECT_ERROR with a retryable code is like a connection that failed."""
    fake.error = {"message": "later", "data": {"code": "unavailable"}}
    client = connect()
    await client.connect(wait=False)
    await eventually(lambda: fake.handshakes)
    fake.error = None
    await client.wait_connected()


async def test_a_gap_holds_nothing_that_was_handled(fake, connect):
    """A named client without a file acknowledges now and then, and the hub counts gaps from the newest of that."""
    client, told = connect(client_id="ada"), []
    client.on_gap(told.append)
    client.on("m")(lambda data, meta: None)
    await client.connect()
    await fake.peers[0].message(25)
    await eventually(lambda: client.offset == "25")
    for after, before in ((10, 20), (10, 26), (10, 30), (25, 31)):
        gap = {"room": "r", "reason": "overflow", "after": str(after), "before": str(before)}
        await fake.peers[0].send("hub:gap", gap | {"dropped": 3}, str(after))
    await eventually(lambda: len(told) == 2)
    assert told == [Gap("r", "overflow", "25", "30", None), Gap("r", "overflow", "25", "31", 3)]


async def test_gaps_are_told_once(fake, connect):
    """A gap told again is not told again; a larger one takes the place of the smaller."""
    client, told = connect(), []
    client.on_gap(told.append)
    await client.connect()
    small = {"room": "r", "reason": "overflow", "after": "10", "before": "20", "dropped": 9}
    large = small | {"before": "30", "dropped": 19}
    for gap in (small, small, large):
        await fake.peers[0].send("hub:gap", gap, "10")
    await eventually(lambda: len(told) == 2)
    assert client.gaps == [Gap("r", "overflow", "10", "30", 19)]
    assert client.offset == "10"


async def test_a_new_session_gets_its_rooms_back(fake, connect):
    """Where the hub could not continue, rooms are joined again and what lies between is a gap."""
    client, told = connect(), []
    client.on_gap(told.append)
    await client.connect()
    await client.subscribe("r")
    await client.subscribe("left")
    await client.unsubscribe("left")
    fake.offset, fake.pid = "500", "s2.secret"
    fake.answer = lambda *_: {"ok": True, "room": "r", "offset": "600"}
    await fake.peers[0].ws.close()
    await eventually(lambda: told)
    assert told == [Gap("r", "expired", "10", "601", None)]
    assert [fields["room"] for fields in fake.asked("subscribe")] == ["r", "left", "r"]
    assert client.offset == "500"


def lose_session(fake: FakeHub) -> None:
    """Let the next connection get a new session, in the rooms that are joined from then on."""
    fake.offset, fake.pid = "500", "s2.secret"
    fake.session |= {"resumed": None, "rooms": []}

    def answer(peer: Any, verb: str, fields: dict[str, Any]) -> dict[str, Any]:
        if verb == "subscribe":
            fake.session |= {"resumed": "pid", "rooms": [*fake.session["rooms"], fields["room"]]}
        return {"ok": True, "room": fields["room"], "offset": "600"}

    fake.answer = answer


async def test_a_cut_while_rooms_are_joined_again_loses_no_gap(fake, connect):
    """What was not joined yet is owed; nothing of the broken connection was handled."""
    client, told = connect(), []
    got = collect(client)
    client.on_gap(told.append)
    await client.connect()
    await client.subscribe("a")
    await client.subscribe("b")
    lose_session(fake)
    joins = fake.answer

    def cut(peer: Any, verb: str, fields: dict[str, Any]) -> dict[str, Any] | None:
        if fields["room"] == "b":
            fake.answer = joins
            peer.ws._req.transport.abort()
            return None
        return joins(peer, verb, fields)

    fake.answer, fake.replay = cut, [(650, None)]
    await fake.peers[0].ws.close()
    await eventually(lambda: got)
    assert fake.peers[2].auth == {"pid": "s2.secret", "offset": "10"}
    assert told == [Gap(room, "expired", "10", "601", None) for room in ("a", "b")]
    assert [fields["room"] for fields in fake.asked("subscribe")] == ["a", "b", "a", "b", "b"]
    assert client.offset == "650"


async def test_a_lost_session_loses_the_personal_room_too(fake, connect):
    """A named session is in `@name` without asking: the new one lists it, and the gap is told."""
    client, told = connect(client_id="c"), []
    client.on_gap(told.append)
    fake.session |= {"rooms": ["@c"]}
    await client.connect()
    await fake.peers[0].message(100)
    await eventually(lambda: client.offset == "100")
    assert fake.asked("subscribe") == []
    fake.offset, fake.pid = "500", "s2.secret"
    await fake.peers[0].ws.close()
    await eventually(lambda: told)
    assert told == [Gap("@c", "expired", "100", "12", None)]


async def test_a_room_missing_from_a_recovered_session_is_joined_again(fake, connect):
    """A session whose room the hub has forgotten is brought back into that room alone."""
    client, told = connect(), []
    client.on_gap(told.append)
    await client.connect()
    await client.subscribe("kept")
    await client.subscribe("gone")
    fake.session |= {"resumed": "pid", "rooms": ["kept"]}
    await fake.peers[0].ws.close()
    await eventually(lambda: told)
    assert [gap.room for gap in told] == ["gone"]
    assert fake.asked("subscribe")[2:] == [{"room": "gone"}]


async def test_rooms_of_an_earlier_process_come_back(fake, connect):
    """Rooms that a resumed session is in already are joined again when it is lost."""
    client, told = connect(client_id="c"), []
    client.on_gap(told.append)
    fake.session |= {"resumed": "pid", "rooms": ["@c", "r"]}
    await client.connect()
    lose_session(fake)
    fake.session["rooms"] = ["@c"]
    await fake.peers[0].ws.close()
    await eventually(lambda: len(told) == 2)
    assert fake.asked("subscribe") == [{"room": "@c"}, {"room": "r"}]


async def test_a_room_that_was_left_stays_left(fake, connect):
    """A reconnection in the middle of `unsubscribe` finds the session in the room, for a moment."""
    client, told = connect(), []
    client.on_gap(told.append)
    await client.connect()
    await client.subscribe("left")
    await client.subscribe("kept")
    plain = fake.answer

    def cut(peer: Any, verb: str, fields: dict[str, Any]) -> None:
        fake.answer = plain
        peer.ws._req.transport.abort()

    fake.answer = cut
    fake.session |= {"resumed": "pid", "rooms": ["left", "kept"]}
    await client.unsubscribe("left")
    lose_session(fake)
    await fake.peers[1].ws.close()
    await eventually(lambda: told)
    assert fake.asked("subscribe")[2:] == [{"room": "kept"}]


@pytest.mark.parametrize(("missed", "publishes"), [(5, True), (50, False)])
async def test_more_rooms_and_messages_than_may_wait(fake, connect, missed, publishes):
    """With the smallest queue and a handler at work, which may publish, all rooms come back."""
    client, got, told = connect(queue=1), [], []
    working, gate = asyncio.Event(), asyncio.Event()
    client.on_gap(told.append)

    @client.on("m")
    async def handle(data: Any, meta: Meta) -> None:
        if not got:
            working.set()
            await gate.wait()
            if publishes:
                await client.publish("r", "m", 1)
        got.append(meta.offset)

    await client.connect()
    rooms = [f"r{number:02}" for number in range(30)]
    for room in rooms:
        await client.subscribe(room)
    await fake.peers[0].message(100)
    await eventually(working.is_set)
    lose_session(fake)
    fake.replay = [(700 + number, None) for number in range(missed)]
    await fake.peers[0].ws.close()
    await eventually(lambda: len(fake.peers) >= 2)
    gate.set()
    await eventually(lambda: len(got) == 1 + missed)
    assert told == [Gap(room, "expired", "100", "601", None) for room in rooms]
    assert len(fake.asked("subscribe")) == 2 * len(rooms)
    assert got == ["100", *(str(700 + number) for number in range(missed))]


async def test_an_unanswered_join_does_not_hold_the_client_up(fake, connect):
    """Each join has `answer_timeout`; then another connection is made. Closing ends it at any time."""
    client = connect(answer_timeout=200 * MS)
    await client.connect()
    await client.subscribe("r")
    lose_session(fake)
    fake.answer = lambda *_: None
    await fake.peers[0].ws.close()
    await eventually(lambda: len(fake.peers) == 3, within=5 * UNIT)
    await asyncio.wait_for(client.close(), 5 * UNIT)


async def test_reset_moves_the_position_back(fake, connect):
    """A hub whose clock lies behind the client's position is believed."""
    client = connect()
    await client.connect()
    await fake.peers[0].message(900)
    await eventually(lambda: client.offset == "900")
    fake.session |= {"resumed": "pid", "head": "300"}
    fake.offset, fake.replay = "300", [(301, None)]
    got = collect(client)
    await fake.peers[0].ws.close()
    await eventually(lambda: got)
    assert client.offset == "301"


async def test_manual_acks(fake, connect):
    """Only `ack` moves the position; what was not acknowledged is handed out again."""
    client = connect(acks="manual")
    got = collect(client)
    await client.connect()
    assert fake.peers[0].auth == {"acks": "manual"}
    for offset in (100, 101):
        await fake.peers[0].message(offset)
    await eventually(lambda: len(got) == 2)
    assert client.offset == "10"
    await client.ack("100")
    assert client.offset == "100"
    fake.session |= {"resumed": "pid"}
    fake.offset, fake.replay = "100", [(101, None)]
    await fake.peers[0].ws.close()
    await eventually(lambda: len(got) == 3)
    assert fake.peers[1].auth == {"acks": "manual", "pid": "s1.secret", "offset": "100"}


async def test_a_named_client_reports_what_it_has_handled(fake, connect, monkeypatch):
    """Its next process continues there: a message that has only arrived is not reported."""
    monkeypatch.setattr(acknowledger, "INTERVAL", 100 * MS)
    client, gate = connect(client_id="c"), asyncio.Event()

    @client.on("m")
    async def handle(data: Any, meta: Meta) -> None:
        if meta.offset == "101":
            await gate.wait()

    await client.connect()
    assert fake.peers[0].auth == {"client_id": "c", "acks": "manual"}
    for offset in (100, 101, 102):
        await fake.peers[0].message(offset)
    await eventually(lambda: {"offset": "100"} in fake.asked("ack"))
    await asyncio.sleep(300 * MS)
    assert fake.asked("ack")[-1] == {"offset": "100"}
    assert fake.asked("ack").count({"offset": "100"}) == 1
    fake.session |= {"resumed": "pid"}
    fake.offset = "100"
    await fake.peers[0].ws.close()
    await eventually(lambda: fake.asked("ack").count({"offset": "100"}) == 2)
    gate.set()
    await eventually(lambda: client.offset == "101")
    await client.close()
    await eventually(lambda: fake.asked("ack")[-1] == {"offset": "101"})


async def test_a_named_client_closes_after_its_last_report_is_stored(fake, connect, monkeypatch):
    """The end of the connection could overtake it. A hub that does not answer delays the close for a bounded time."""
    monkeypatch.setattr(acknowledger, "FINISH_TIMEOUT", 100 * UNIT)
    fake.answer = lambda _peer, verb, _fields: None if verb == "ack" else {"ok": True}
    client = connect(client_id="c")
    await client.connect()
    await fake.peers[0].message(100)
    await eventually(lambda: client.offset == "100")
    closing = asyncio.create_task(client.close())
    await eventually(lambda: {"offset": "100"} in fake.asked("ack"))
    assert await asyncio.wait([closing], timeout=300 * MS) == (set(), {closing})
    await fake.peers[0].ws.close()
    await asyncio.wait_for(closing, 5 * UNIT)
    monkeypatch.setattr(acknowledger, "FINISH_TIMEOUT", 100 * MS)
    other = connect(client_id="c")
    await other.connect()
    await asyncio.wait_for(other.close(), 5 * UNIT)


@pytest.mark.parametrize("options", [{}, {"client_id": "c", "position_file": True}])
async def test_other_clients_report_nothing(fake, connect, monkeypatch, tmp_path, options):
    """Without a name there is no next process, and with a file it knows by itself."""
    monkeypatch.setattr(acknowledger, "INTERVAL", 50 * MS)
    if "position_file" in options:
        options = {**options, "position_file": tmp_path / "p"}
    client = connect(**options)
    await client.connect()
    await fake.peers[0].message(100)
    await eventually(lambda: client.offset == "100")
    await asyncio.sleep(200 * MS)
    await client.close()
    assert (fake.asked("ack"), fake.peers[0].auth.get("acks")) == ([], None)


async def test_position_file(fake, connect, tmp_path):
    """A restarted process goes on from the file, which only its owner can read."""
    path = tmp_path / "position"
    client = connect(client_id="c", position_file=path)
    await client.connect()
    await fake.peers[0].message(100)
    await eventually(lambda: client.offset == "100")
    await client.close()
    assert not fake.peers[0].goodbye
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    kept = json.loads(path.read_text())
    del kept["checksum"]
    assert kept == {"pid": "s1.secret", "offset": "100", "client_id": "c"}
    assert list(tmp_path.iterdir()) == [path]

    await connect(client_id="c", position_file=path).connect()
    assert fake.peers[1].auth == {"client_id": "c", "pid": "s1.secret", "offset": "100"}
    await connect(client_id="other", position_file=path).connect()
    assert fake.peers[2].auth == {"client_id": "other"}


NO_OFFSET = {"pid": "p", "offset": "x", "client_id": None, "checksum": checksum("p", "x", None)}


@pytest.mark.parametrize("text", ["", "{", '{"pid": 1}', json.dumps(NO_OFFSET)])
async def test_a_spoilt_position_file_starts_anew(fake, connect, tmp_path, text):
    """Whatever is in the file, the client connects."""
    path = tmp_path / "position"
    path.write_text(text)
    await connect(position_file=path).connect()
    assert fake.peers[0].auth == {}


@pytest.mark.parametrize(("options", "ended"), [({}, True), ({"client_id": "c"}, False)])
async def test_close_ends_what_nothing_can_continue(fake, connect, options, ended):
    """Closing ends an anonymous session and leaves a named one to come back to."""
    client = connect(**options)
    await client.connect()
    await client.close()
    await client.wait()
    await eventually(lambda: fake.peers[0].ws.closed)
    assert fake.peers[0].goodbye is ended
    with pytest.raises(errors.Unavailable, match="closed"):
        await client.publish("r", "m", 1)


async def test_a_handler_may_close_its_client(fake, connect):
    """Closing from within a handler does not wait for that handler."""
    client = connect()

    @client.on("m")
    async def handle(data: Any, meta: Meta) -> None:
        await client.close()

    await client.connect()
    await fake.peers[0].message(100)
    await asyncio.wait_for(client.wait(), 5 * UNIT)


async def test_catch_all(fake, connect):
    """The handler of `*` gets what no other handler takes, with the event's name."""
    client, rest = connect(), []
    got = collect(client)
    client.on("*")(lambda event, data, meta: rest.append((event, data)))
    await client.connect()
    await fake.peers[0].message(100, 1)
    await fake.peers[0].message(101, b"\x00", event="other")
    await eventually(lambda: rest)
    assert (got, rest) == ([(1, "100")], [("other", b"\x00")])


async def test_publisher(fake):
    """Threads publish through one connection, and get errors as exceptions."""

    def work() -> list[str]:
        with Publisher(fake.url, transports=["websocket"]) as publisher:
            offsets = [publisher.publish("r", "m", number).offset for number in range(5)]
            said = {"code": "too_large", "message": "no", "retryable": False}
            fake.answer = lambda *_: {"ok": False, "error": said}
            with pytest.raises(errors.TooLarge):
                publisher.publish("r", "m", "x")
            return offsets

    assert await asyncio.to_thread(work) == ["11"] * 5
    await eventually(lambda: fake.peers[0].goodbye)


async def test_closing_a_publisher_ends_the_calls_of_other_threads(fake):
    """Each gets a HubError, in time, wherever it was: unanswered, between two tries, or too late."""
    publisher = Publisher(fake.url, transports=["websocket"])
    said = {"code": "unavailable", "message": "?", "retryable": True}
    refused = {"ok": False, "error": said}
    fake.answer = lambda _peer, _verb, fields: refused if fields["data"] % 2 else None

    def publish(number: int) -> None:
        with pytest.raises(errors.Unavailable):
            publisher.publish("r", "m", number)

    publishing = [asyncio.create_task(asyncio.to_thread(publish, number)) for number in range(4)]
    await eventually(lambda: len(fake.asked("publish")) >= 4)
    await asyncio.to_thread(publisher.close)
    await asyncio.wait_for(asyncio.gather(*publishing), 5 * UNIT)


async def test_a_call_that_races_the_close_of_a_publisher(fake, monkeypatch):
    """One that is about to be submitted when another thread closes ends well, or by a HubError."""
    publisher = Publisher(fake.url, transports=["websocket"])
    closing = threading.Thread(target=publisher.close)
    submit = asyncio.run_coroutine_threadsafe

    def submit_late(*args: Any) -> Any:
        monkeypatch.undo()
        closing.start()
        closing.join(500 * MS)  # all the way, where nothing keeps it back
        return submit(*args)

    def publish() -> None:
        publisher.publish("r", "m", 1)
        monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", submit_late)
        with contextlib.suppress(errors.HubError):
            publisher.publish("r", "m", 2)
        closing.join()

    await asyncio.wait_for(asyncio.to_thread(publish), 5 * UNIT)


async def test_publisher_without_a_hub():
    """No hub: a clear error when the time is over, and no thread left."""

    def work() -> None:
        with (
            pytest.raises(errors.Unavailable, match="not connected within"),
            Publisher("http://127.0.0.1:9", timeout=300 * MS) as publisher,
        ):
            publisher.publish("r", "m", 1)

    await asyncio.to_thread(work)
    assert "hub-publisher" not in [thread.name for thread in threading.enumerate()]


async def test_each_call_of_a_publisher_is_bounded_by_itself():
    """Threads that publish while there is no hub do not wait for each other."""
    publisher = Publisher("http://127.0.0.1:9", timeout=500 * MS)

    def publish() -> float:
        begin = time.monotonic()
        with pytest.raises(errors.Unavailable, match=r"^publish: not connected within .*127\.0"):
            publisher.publish("r", "m", 1)
        return time.monotonic() - begin

    took = await asyncio.gather(*(asyncio.to_thread(publish) for _ in range(4)))
    assert max(took) < 900 * MS
    await asyncio.to_thread(publisher.close)


async def test_a_publisher_that_waits_for_its_hub(fake):
    """Calls made before the hub is there succeed when it is, and a failed `with` may be tried again."""
    fake.refuse = 1000
    publisher = Publisher(fake.url, transports=["websocket"], timeout=1 * UNIT)
    entering = asyncio.to_thread(publisher.__enter__)
    with pytest.raises(errors.Unavailable):
        await entering
    publishing = asyncio.create_task(asyncio.to_thread(publisher.publish, "r", "m", 1))
    await asyncio.sleep(200 * MS)
    fake.refuse = 0
    assert (await publishing).offset == "11"
    await asyncio.to_thread(publisher.close)


async def test_a_publisher_in_a_forked_process(fake):
    """The child connects by itself, and the parent's connection stays."""
    publisher = Publisher(fake.url, transports=["websocket"])
    await asyncio.to_thread(publisher.publish, "r", "m", "parent")

    def fork() -> int:
        if (child := os.fork()) == 0:
            status = 1
            with contextlib.suppress(BaseException):
                publisher.publish("r", "m", "child")
                status = 0
            os._exit(status)
        return os.waitpid(child, 0)[1]

    assert await asyncio.to_thread(fork) == 0
    await asyncio.to_thread(publisher.publish, "r", "m", "parent again")
    assert [fields["data"] for fields in fake.asked("publish")] == [
        "parent", "child", "parent again",
    ]  # fmt: skip
    assert len(fake.peers) == 2
    await asyncio.to_thread(publisher.close)


def test_signatures_are_typed():
    """An editor and a type checker know each argument of each public method."""
    for method in (HubClient, Publisher, *public_methods(HubClient), *public_methods(Publisher)):
        for parameter in inspect.signature(method).parameters.values():
            assert parameter.kind is not parameter.VAR_KEYWORD, method
            assert parameter.name == "self" or parameter.annotation is not parameter.empty, method


def public_methods(kind: type) -> list[Any]:
    return [f for name, f in vars(kind).items() if inspect.isfunction(f) and name[0] != "_"]

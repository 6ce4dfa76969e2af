"""What ordinary producers send by accident, with stock clients: answered, and nothing else is harmed."""

from __future__ import annotations

import asyncio
import json
import math

import pytest
import socketio
import socketio.exceptions

from tests.support.socketio_wire import EVENT, encode
from tests.support.times import SOON, eventually

both = pytest.mark.parametrize("transport", ["websocket", "polling"])
# aiohttp warns of what the stock Python client does over polling.
pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")

LIMIT = 1_000_000
DEEP = json.loads("[" * 400 + "]" * 400)
# What a Python program has in its data, the code of the answer, and words of its message.
FROM_PYTHON = {
    "NaN": (math.nan, "bad_request", "data: NaN"),
    "NaN in a list": ({"prices": [1.5, math.nan]}, "bad_request", "data: NaN"),
    "infinity": (-math.inf, "bad_request", "data: -Infinity"),
    "deep": (DEEP, "bad_request", "data: nested deeper than 100"),
    "a large integer": (10**150, "bad_request", "data: a number out of range"),
    "eleven binary values": ([b"x"] * 11, "bad_request", "at most 10 binary values"),
    "a hundred binary values": ([b"x"] * 100, "bad_request", "at most 10 binary values"),
    "a long text": ("x" * LIMIT, "too_large", "a message may have 1000000"),
    "a long text of long characters": ("€" * (LIMIT // 6), "too_large", "a message may have 1000000"),
    "long binary": (b"x" * (LIMIT + 1), "too_large", "1000000 bytes"),
    "binary values that are long together": ([b"x" * 400_000] * 3, "too_large", "1000000 bytes"),
}  # fmt: skip


def publish(room, data):
    return {"room": room, "event": "m", "data": data}


@both
@pytest.mark.parametrize("accident", FROM_PYTHON)
async def test_from_a_python_producer(hub, raw, stock, room, transport, accident):
    """The publishes before and behind it, which do not wait for its answer, are carried out."""
    data, code, words = FROM_PYTHON[accident]
    reader = await raw(hub.url)
    await reader.join(room)
    producer = await stock(hub.url, transport)
    answers = {}
    for number, value in enumerate([0, data, 2]):
        await producer.sio.emit(
            "publish", publish(room, value), callback=lambda answer, n=number: answers.update({n: answer})
        )  # fmt: skip
    await eventually(lambda: len(answers) == 3, within=2 * SOON, what=lambda: answers)
    assert answers[0]["ok"] is answers[2]["ok"] is True
    error = answers[1]["error"]
    assert (error["code"], error["retryable"]) == (code, False)
    assert words in error["message"], error
    await eventually(lambda: reader.data() == [0, 2])
    assert producer.disconnects == []
    assert (await producer.sio.call("publish", publish(room, 3)))["ok"] is True


@pytest.mark.parametrize("accident", ["NaN", "deep", "eleven binary values", "long binary"])
@both
async def test_from_a_synchronous_python_producer(hub, raw, room, transport, accident):
    data, code, words = FROM_PYTHON[accident]
    reader = await raw(hub.url)
    await reader.join(room)

    def produce():
        with socketio.SimpleClient(handle_sigint=False, reconnection=False) as client:
            client.connect(hub.url, transports=[transport])
            return [client.call("publish", publish(room, value)) for value in (0, data, 2)]

    first, refused, last = await asyncio.to_thread(produce)
    assert first["ok"] is last["ok"] is True
    assert refused["error"]["code"] == code
    assert words in refused["error"]["message"]
    await eventually(lambda: reader.data() == [0, 2])


@both
@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        ({"$deep": 3000}, "bad_request", "data: nested deeper than 100"),
        ([b"x"] * 11, "bad_request", "at most 10 binary values"),
        ([b"x"] * 100, "bad_request", "at most 10 binary values"),
        ("x" * LIMIT, "too_large", "a message may have 1000000"),
        (b"x" * (LIMIT + 1), "too_large", "1000000 bytes"),
    ],
    ids=["deep", "eleven binary values", "a hundred binary values", "long text", "long binary"],
)
async def test_from_a_javascript_producer(hub, js, raw, room, transport, data, code, words):
    """The client does not send it again, though it retries events without an answer, and sends the events queued after it."""
    reader = await raw(hub.url)
    await reader.join(room)
    producer = await js(hub.url, transports=[transport], retries=3, ackTimeout=int(SOON * 1000))
    answers = await asyncio.gather(
        *(producer.do("retried", name="publish", args=[publish(room, value)]) for value in (0, data, 2))
    )  # fmt: skip
    assert answers[0]["ok"] is answers[2]["ok"] is True
    assert answers[1]["error"]["code"] == code
    assert words in answers[1]["error"]["message"]
    await eventually(lambda: reader.data() == [0, 2])
    assert (producer.disconnects, len(producer.connects)) == ([], 1)


@both
async def test_beyond_twice_the_length_the_connection_is_closed(hub, js, stock, room, transport):
    """The engine reads no further; stock clients reconnect."""
    producer = await js(hub.url, transports=[transport])
    await producer.do("emit", name="publish", args=[publish(room, "x" * (2 * LIMIT))])
    await eventually(lambda: producer.disconnects)
    await producer.back()
    other = await stock(hub.url, transport)
    await other.sio.emit("publish", publish(room, b"x" * (2 * LIMIT + 1)))
    await eventually(lambda: other.disconnects)


@both
async def test_neighbours_in_one_polling_body_or_one_read(hub, raw, room, transport):
    """All that came together is carried out, whatever is between it."""
    reader = await raw(hub.url)
    await reader.join(room)
    sender = await raw(hub.url, transport)
    bad = [f'42{{id}}["publish",{json.dumps(publish(room, 0))[:-2]}{text}}}]' for text in ("NaN", "[" * 2000 + "]" * 2000)]  # fmt: skip
    packets = []
    for number in range(20):
        packets += encode(EVENT, ["publish", publish(room, number)], number=100 + number)
        packets.append(bad[number % 2].replace("{id}", str(200 + number)))
        packets += [f'4511-{300 + number}["publish",{{"room":"{room}","event":"m","data":0}}]', *[b"x"] * 11]  # fmt: skip
    await sender.send(*packets)
    await eventually(lambda: len(sender.answers) == 60 or sender.closed)
    assert not sender.closed
    for number in range(20):
        assert sender.answers[100 + number]["ok"] is True
        assert sender.answers[200 + number]["error"]["code"] == "bad_request"
        assert sender.answers[300 + number]["error"]["code"] == "bad_request"
    await eventually(lambda: reader.data() == list(range(20)))


@both
async def test_without_an_acknowledgement_it_is_ignored(hub, raw, stock, room, transport):
    reader = await raw(hub.url)
    await reader.join(room)
    producer = await stock(hub.url, transport)
    await producer.sio.emit("publish", publish(room, 0))
    for accident, (data, _, _) in FROM_PYTHON.items():
        # The stock Python client puts all that waits into one polling body, however long it gets.
        if transport == "websocket" or "long" not in accident:
            await producer.sio.emit("publish", publish(room, data))
    await producer.sio.emit("connect", {"client_id": "x"})
    await producer.sio.emit("disconnect")
    await producer.sio.emit("publish", publish(room, 1))
    await eventually(lambda: reader.data() == [0, 1], within=2 * SOON)
    assert producer.disconnects == []


@both
async def test_names_that_are_no_verb(hub, js, stock, transport):
    """Numbers too, which the JavaScript client sends as names, and the reserved names, which the Python client sends."""
    client = await js(hub.url, transports=[transport])
    for name in (5, None, "message", "publish ", "*", "hub:session"):
        answer = await client.ask(name, {})
        assert answer["error"]["code"] == "not_found", (name, answer)
        assert answer["error"]["message"].startswith("there is no verb ")
    assert (client.disconnects, len(client.connects)) == ([], 1)
    python = await stock(hub.url, transport)
    for name in ("connect", "disconnect", "connect_error", "newListener", "", "*"):
        answer = await python.sio.call(name, {})
        assert answer["error"]["code"] == "not_found", (name, answer)
    assert python.disconnects == []


@both
async def test_what_stock_clients_send_as_auth(hub, js, stock, transport):
    """CONNECT_ERROR with a sentence: the client is not left to reconnect for ever."""
    for auth, words in (("token", "auth: an object"), ({"x": {"$deep": 3000}}, "auth: nested deeper than 100")):  # fmt: skip
        client = await js(hub.url, wait=False, transports=[transport], auth=auth)
        await eventually(lambda client=client: client.errors)
        assert client.errors[0]["message"] == words
        assert client.errors[0]["active"] is False
    for auth, words in (({"client_id": math.nan}, "NaN is no finite number"), ("token", "an object")):  # fmt: skip
        client = socketio.AsyncClient(reconnection=False, handle_sigint=False)
        refused = []
        client.on("connect_error", lambda data, refused=refused: refused.append(data))
        with pytest.raises(socketio.exceptions.ConnectionError):
            await client.connect(hub.url, auth=auth, transports=[transport], wait_timeout=SOON)
        assert refused == [{"message": f"auth: {words}"}]

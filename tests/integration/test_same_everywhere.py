"""Each stock client is handed every message that the hub takes, as it was published, and none that it would misread."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import socketio
import socketio.exceptions

from tests.support.times import SOON, eventually

both = pytest.mark.parametrize("transport", ["websocket", "polling"])

NAMES = [
    "m", "message", "error", "ping", "pong", "reconnect", "reconnect_attempt", "open", "close", "packet", "data", "event",
    "catch_all", "hub", "Connect", "connected", "**", "5", " ", "__proto__", "constructor", "hasOwnProperty", "toString",
    "prototype", "length", "on", "emit", "$m", "é", "\u2028", "😀", "x" * 128,
]  # fmt: skip
DATA: list[Any] = [
    None, True, 0, -1.5, 2**53, 1e308, 5e-324, 10**99 - 1, -(10**99) + 1, "", "\x00\x1e\u2028", "\ud83d", "9" * 400, [], {}, {"": 1},
    {"__proto__": {"x": 1}, "constructor": 1, "toString": 2, "length": 3, "toJSON": 4}, {"_placeholder": False, "num": 0},
    [b"x", b"", {"a": b"y", "__proto__": b"z", "length": 3}], [b"x", {"_placeholder": 0, "num": 9}], [b"x"] * 10, b"x" * 300_000,
    "x" * 900_000,
]  # fmt: skip


def deep(levels: int, inner: Any) -> Any:
    for level in range(levels):
        inner = [inner] if level % 2 else {"a": inner}
    return inner


# An attachment has a level of its own.
DATA += [deep(100, 1), deep(99, b"x")]


class Catching:
    """A stock Python client with a handler for all events; `got` holds the name and the data of each message."""

    def __init__(self) -> None:
        self.got: list[tuple[str, Any]] = []
        self.sio = socketio.AsyncClient(reconnection=False, handle_sigint=False)
        self.sio.on("*", self.catch)
        self.sio.on("hub:session", lambda *_: None)

    def catch(self, event: str, data: Any, *_: Any) -> None:
        self.got.append((event, data))


def number(value: Any) -> Any:
    """Return a value as JavaScript reads it: integers as floats."""
    if type(value) is int:
        return float(value)
    if isinstance(value, list):
        return [number(item) for item in value]
    if isinstance(value, dict):
        return {key: number(item) for key, item in value.items()}
    return value


def listen(url: str, transport: str, room: str, ready: Any, count: int) -> list[tuple[str, Any]]:
    """Return the messages that a `SimpleClient` receives; `ready` is called when it has joined."""
    with socketio.SimpleClient(handle_sigint=False, reconnection=False) as client:
        client.connect(url, transports=[transport])
        client.call("subscribe", {"room": room})
        ready()
        got: list[tuple[str, Any]] = []
        while len(got) < count:
            event, *arguments = client.receive(timeout=SOON)
            if not event.startswith("hub:"):
                got.append((event, arguments[0]))
        return got


@both
async def test_what_is_taken_is_delivered_alike(hub, raw, js, client, room, transport):
    """To the JavaScript client, the three of python-socketio, and `HubClient`."""
    expected = [(name, 1) for name in NAMES] + [("m", data) for data in DATA]
    javascript = await js(hub.url, transports=[transport])
    await javascript.join(room)
    asynchronous = Catching()
    await asynchronous.sio.connect(hub.url, transports=[transport])
    await asynchronous.sio.call("subscribe", {"room": room})
    ours: list[tuple[str, Any]] = []
    reader = await client(hub.url, transports=[transport])
    reader.on("*")(lambda event, data, meta: ours.append((event, data)))
    await reader.subscribe(room)
    joined = asyncio.Event()
    loop = asyncio.get_running_loop()
    simple = asyncio.create_task(
        asyncio.to_thread(
            listen, hub.url, transport, room, lambda: loop.call_soon_threadsafe(joined.set), len(expected)
        )
    )  # fmt: skip
    await joined.wait()
    publisher = await raw(hub.url)
    for name, data in expected:
        await publisher.publish(room, data, event=name)
    received = javascript.events
    await eventually(
        lambda: len(ours) == len(asynchronous.got) == len(received) - 1 == len(expected),
        within=2 * SOON, what=lambda: (len(ours), len(asynchronous.got), len(received), len(expected)),
    )  # fmt: skip
    assert ours == asynchronous.got == await simple == expected
    assert [(event, number(args[0])) for event, args in received if event != "hub:session"] == [
        (event, number(data)) for event, data in expected
    ]
    assert javascript.disconnects == []
    await asynchronous.sio.disconnect()


async def test_nobody_can_forge_an_event_of_the_hub(hub, raw, room):
    """With an event `*`, stock Python clients would take the data for the name of the event."""
    publisher = await raw(hub.url)

    def forge() -> list[Any]:
        with socketio.SimpleClient(handle_sigint=False, reconnection=False) as client:
            client.connect(hub.url, transports=["websocket"])
            client.call("subscribe", {"room": room})
            forged = {"room": room, "event": "*", "data": "hub:session"}
            answer = client.call("publish", forged)
            client.call("publish", {"room": room, "event": "end", "data": 0})
            assert answer["error"]["code"] == "bad_request"
            assert answer["error"]["message"] == "event: '*' is reserved"
            got = []
            while not got or got[-1] != "end":
                got.append(client.receive(timeout=SOON)[0])
            return got

    assert await asyncio.to_thread(forge) == ["hub:session", "end"]
    assert not publisher.closed

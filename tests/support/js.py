"""Drives the stock JavaScript client, unmodified, in a Node process of its own."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from pathlib import Path
from typing import Any

from tests.support.hubs import secrets
from tests.support.times import SOON, UNIT, eventually
from tests.support.tools import node, node_modules

DRIVER = Path(__file__).with_name("js_driver.cjs")
LINE = 1 << 26
# Only haste, in milliseconds: how a client returns is its own affair.
QUICK = {
    "reconnectionDelay": 20 * UNIT, "reconnectionDelayMax": 100 * UNIT, "timeout": 5000 * UNIT,
}  # fmt: skip


class JSClient:
    """One Node process with one socket.

    `events` holds `(name, args)` of all that came, `connects` the states at each connect.
    """

    def __init__(self) -> None:
        self.events: list[tuple[str, list[Any]]] = []
        self.connects: list[dict[str, Any]] = []
        self.disconnects: list[str] = []
        self.errors: list[dict[str, Any]] = []
        self.uncaught: list[str] = []
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._ids = itertools.count(1)
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    async def connect(self, url: str, *, wait: bool = True, **options: Any) -> JSClient:
        """Start Node, connect, and return when connected."""
        self._process = await asyncio.create_subprocess_exec(
            node(), str(DRIVER), str(node_modules()),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=LINE,
        )  # fmt: skip
        self._reader = asyncio.create_task(self._read())
        await self.do("connect", url=url, options=QUICK | options)
        if wait:
            await eventually(lambda: self.connects, what=lambda: self.errors)
        return self

    async def do(self, command: str, **fields: Any) -> Any:
        """Carry out a command of the driver and return its result."""
        assert self._process is not None
        stdin = self._process.stdin
        assert stdin is not None
        number = next(self._ids)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        line = json.dumps({"id": number, "command": command, **_pack(fields)})
        stdin.write(line.encode() + b"\n")
        await stdin.drain()
        async with asyncio.timeout(2 * SOON):
            return await answer

    async def ask(self, verb: str, *args: Any) -> Any:
        """Send a verb and return its answer."""
        return await self.do("ask", name=verb, args=list(args), timeout=int(SOON * 1000))

    async def join(self, *rooms: str) -> None:
        """Subscribe to rooms."""
        for room in rooms:
            answer = await self.ask("subscribe", {"room": room})
            assert answer["ok"] is True, answer

    async def state(self) -> dict[str, Any]:
        """Return what the socket knows: connected, recovered, sid, pid, offset, transport."""
        return await self.do("state")

    def named(self, name: str) -> list[list[Any]]:
        """Return the arguments of each event of that name."""
        return [args for event, args in self.events if event == name]

    def data(self, name: str = "m") -> list[Any]:
        """Return the data of each message of that name."""
        return [args[0] for args in self.named(name)]

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """Return what each `hub:session` said."""
        return [args[0] for args in self.named("hub:session")]

    async def back(self, times: int = 2) -> dict[str, Any]:
        """Wait until the client has connected so many times and been told its session."""
        await eventually(
            lambda: len(self.connects) >= times and len(self.sessions) >= times,
            within=2 * SOON, what=lambda: (self.connects, self.disconnects, self.errors),
        )  # fmt: skip
        return self.connects[times - 1]

    async def close(self) -> None:
        """End the Node process, which cuts its connections."""
        if self._process is None:
            return
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        if self._reader:
            await self._reader
        self._process._transport.close()  # type: ignore[attr-defined]

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            said = _unpack(json.loads(line))
            match said.pop("kind"):
                case "answer":
                    answer = self._answers.pop(said["id"])
                    if answer.done():
                        continue
                    if "error" in said:
                        answer.set_exception(AssertionError(said["error"]))
                    else:
                        answer.set_result(said["result"])
                case "event":
                    self.events.append((said["name"], said["args"]))
                case "connect":
                    if said.get("pid"):
                        secrets.add(said["pid"])
                    self.connects.append(said)
                case "disconnect":
                    self.disconnects.append(said["reason"])
                case "connect_error":
                    self.errors.append(said)
                case "uncaught":
                    self.uncaught.append(said["message"])


def _pack(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, list | tuple):
        return [_pack(item) for item in value]
    if isinstance(value, dict):
        return {key: _pack(item) for key, item in value.items()}
    return value


def _unpack(value: Any) -> Any:
    if isinstance(value, list):
        return [_unpack(item) for item in value]
    if isinstance(value, dict):
        if set(value) == {"$bytes"}:
            return base64.b64decode(value["$bytes"])
        return {key: _unpack(item) for key, item in value.items()}
    return value

"""Starts and ends what is measured: the hub and its peers, each alone on the server's core."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import redis

from bench.places import BUILD, PEERS, ROOT, SERVER_CORE
from bench.process import children, runs
from tests.support.tools import node, valkey

START_TIMEOUT = 30.0


@dataclass
class Server:
    """A running server. `redis` is the process that keeps its data, `socket` where that listens."""

    name: str
    port: int
    pid: int
    redis: int | None = None
    socket: Path | None = None
    pids: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.pids = [self.pid, *([self.redis] if self.redis else [])]

    def store(self) -> redis.Redis:
        """Return a connection to its Redis."""
        assert self.socket is not None
        return redis.Redis(unix_socket_path=str(self.socket), protocol=2)


@dataclass(frozen=True)
class Choice:
    """What is meant by the names of servers."""

    # The checkout that the hub is started from, and one to compare it with.
    hub: Path = ROOT
    other: Path | None = None
    node: str = field(default_factory=node)
    # A Redis that hubs are given instead of the one that they bring along.
    redis: str | None = None

    def checkout(self, name: str) -> Path:
        """Return where the hub of this name is started from."""
        found = self.hub if name == "hub" else self.other
        assert found is not None
        return found


@contextmanager
def running(name: str, choice: Choice) -> Iterator[Server]:
    """Start a server by its name, and end it with all that it left behind."""
    with ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        if name in ("hub", "other"):
            checkout = choice.checkout(name)
            if choice.redis:
                store = stack.enter_context(_redis(data, choice.redis))
                yield stack.enter_context(_hub(name, checkout, data, store))
            else:
                yield stack.enter_context(_hub(name, checkout, data))
            return
        store = stack.enter_context(_redis(data, valkey())) if name.endswith("-redis") else None
        socket = data / "redis.sock" if store else None
        command = {
            "node": [choice.node, "server.cjs"],
            "node-redis": [choice.node, "server.cjs", str(socket)],
            "python-socketio": [str(ROOT / ".venv/bin/python"), "server.py"],
            "python-socketio-redis": [str(ROOT / ".venv/bin/python"), "server.py", str(socket)],
            "sender": [str(BUILD / "sender")],
        }[name]
        process, line = stack.enter_context(_started(command, PEERS, {}))
        yield Server(name, int(line), process.pid, store, socket)


def second(first: Server, choice: Choice) -> AbstractContextManager[Server]:
    """Start a second process of a running hub, on the same Redis."""
    assert first.socket is not None
    return _hub(first.name, choice.checkout(first.name), first.socket.parent, first.redis)


@contextmanager
def _hub(name: str, checkout: Path, data: Path, given: int | None = None) -> Iterator[Server]:
    """Run the hub of a checkout on its defaults, with its own Valkey or on the Redis that is the process `given`."""
    socket = data / "redis.sock"
    settings = {"HUB_PORT": "0", "HUB_DATA_DIR": str(data)}
    if given:
        settings["HUB_REDIS_URL"] = f"unix://{socket}"
    with _started([str(checkout / ".venv/bin/hub"), "serve"], checkout, settings) as (hub, line):
        found = re.search(r"http://[\d.]+:(\d+)", line)
        assert found is not None, line
        (store,) = [given] if given else children(hub.pid)
        try:
            yield Server(name, int(found[1]), hub.pid, store, socket)
        finally:
            hub.kill()
            while not given and runs(store):  # its own ends with the hub
                time.sleep(0.02)


@contextmanager
def _redis(data: Path, binary: str) -> Iterator[int]:
    """Run a server for whoever brings none along, as durable as the one that comes with the hub."""
    socket = data / "redis.sock"
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "dir": str(data),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "logfile": str(data / "redis.log"),
    }
    command = [binary, *(word for key, value in options.items() for word in (f"--{key}", value))]
    process = subprocess.Popen(_pinned(command), cwd=data)
    try:
        deadline = time.monotonic() + START_TIMEOUT
        while not socket.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{binary} does not start")
            time.sleep(0.02)
        yield process.pid
    finally:
        process.kill()
        process.wait()


@contextmanager
def _started(
    command: list[str], where: Path, variables: dict[str, str]
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a server that says on its first line where it listens."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("HUB_")}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            _pinned(command),
            cwd=where,
            env=environ | variables,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                log.seek(0)
                raise RuntimeError(f"{command[0]} does not start: {log.read().decode()}")
            yield process, line
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()


def _pinned(command: list[str]) -> list[str]:
    return ["taskset", "-c", str(SERVER_CORE), *command]

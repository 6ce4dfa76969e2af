"""Runs the product's nodes on a real server while the test decides what happens next.

Time stands still unless told, and every command, reply and bus message waits until it is let through: connections are
FIFO each, and nothing orders one against another. What is random is random by one seed, so that a run can be repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import re
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

import hiredis

from hub.api.limits import ConnectionLimits, SharedLoad
from hub.api.pipeline import VerbPipeline
from hub.engineio.core import ids
from hub.engineio.core.state import CloseCode
from hub.errors import Unavailable
from hub.node.node import Node
from hub.pubsub.session import Session
from hub.redis import bus, commands, reconnecting
from hub.redis.bus import Bus
from hub.redis.connection import ConnectionListener, GrowingCommand
from hub.settings import Settings
from hub.store import store
from hub.store.scripts import Script, read, read_all
from hub.store.server_check import CHECKED_COMMANDS, ServerIdentity
from tests.support.redis import RedisServer
from tests.support.switches import Mutation

START = 1_700_000_000_000_000

# Time comes from a key, so that it can leap; each look at it is a microsecond later.
_TIME = re.compile(r"(redis\.)?\bcall\('TIME'\)")
_FAKE_TIME = (
    "(function() local n = redis.call('INCR', 'now') "
    "return { string.format('%.0f', math.floor(n / 1000000)), string.format('%.0f', n % 1000000) } end)()"
)
# A set gives its members away in one order, so that a walk can be repeated.
_POP = "redis.call('SPOP', "
_POP_FIRST = """
local function pop_first(key)
  local members = redis.call('SMEMBERS', key)
  table.sort(members)
  if members[1] then redis.call('SREM', key, members[1]) end
  return members[1]
end
"""
# What would have expired by then is gone; everything else has so much less to live.
LEAP = """
for _, key in ipairs(redis.call('KEYS', '*')) do
  local left = redis.call('PTTL', key)
  if left >= 0 then
    if left <= tonumber(ARGV[1]) then redis.call('DEL', key)
    else redis.call('PEXPIRE', key, string.format('%.0f', left - ARGV[1])) end
  end
end
redis.call('INCRBY', 'now', ARGV[1] .. '000')
"""


# What Redis had at some moment: each key's dump, and how many milliseconds it had to live.
Past = dict[str, tuple[bytes, int]]


class Bad(AssertionError):
    """A promise was broken."""


def predictable(script: Script) -> Script:
    """Return a script with time under control, which takes members of sets in one order."""
    text = _TIME.sub(_FAKE_TIME, script.text)
    if _POP in text:
        text = _POP_FIRST + text.replace(_POP, "pop_first(")
    return Script(script.name, text)


@functools.cache
def _scripts(mutation: Mutation | None) -> dict[str, Script]:
    """Return the product's scripts, made predictable, and perhaps a rule off."""
    scripts = (mutation or Mutation()).apply(read_all())
    return {name: predictable(script) for name, script in scripts.items()}


class Loop(asyncio.SelectorEventLoop):
    """An event loop that runs what is ready and never waits; its time moves when told."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    def settle(self) -> None:
        while True:
            self.call_soon(self.stop)
            self.run_forever()
            if not self._ready:  # type: ignore[attr-defined]
                return


class Raw:
    """A blocking connection to the server."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(10)
        self.socket.connect(path)
        self.reader = hiredis.Reader()

    def send(self, packed: bytes) -> None:
        self.socket.sendall(packed)

    def receive(self) -> Any:
        while (reply := self.reader.gets()) is False:
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionError("the server has closed the connection")
            self.reader.feed(data)
        return reply

    def call(self, *command: Any) -> Any:
        words = (word if isinstance(word, bytes) else str(word) for word in command)
        self.send(hiredis.pack_command(tuple(words)))
        return self.receive()

    def close(self) -> None:
        self.socket.close()


class Wire:
    """Stands in for hub.redis.connection.RedisConnection: what goes and what comes waits to be let through."""

    def __init__(self, lab: Lab, node: str, listener: ConnectionListener) -> None:
        self.lab = lab
        self.node = node
        self.listener = listener
        self.is_bus = isinstance(listener, Bus)
        self.raw = Raw(lab.path)
        self.going: deque[tuple[bytes | GrowingCommand, Callable[[Any], None] | None]] = deque()
        self.coming: deque[tuple[Callable[[Any], None] | None, Any]] = deque()
        self.closed = False
        # Its process is dead: nobody is told anything any more.
        self.dead = False
        lab.wires.append(self)

    @property
    def alive_at(self) -> float:
        return self.lab.loop.time()

    def __len__(self) -> int:
        return sum(callback is not None for callback, _ in self.coming) + len(self.going)

    @property
    def growing(self) -> GrowingCommand | None:
        """What has not left yet, and is the last to leave, may grow."""
        if not self.going or isinstance(self.going[-1][0], bytes):
            return None
        return self.going[-1][0]

    def send(self, command: bytes | GrowingCommand, callback: Callable[[Any], None] | None) -> None:
        if self.dead:
            return
        if self.closed:
            if callback is not None:
                callback(Unavailable("Redis is away"))
            return
        self.going.append((command, callback))
        if len(self.going) == 1 and isinstance(command, bytes) and command.startswith(_AT_ONCE):
            # Setting a connection up is not what is tried here.
            self.execute()
            self.lab.loop.call_soon(self.release)

    def call(self, *command: Any) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self.lab.loop.create_future()

        def done(reply: Any) -> None:
            if future.done():
                return
            if isinstance(reply, Exception):
                future.set_exception(reply)
            else:
                future.set_result(reply)

        self.send(hiredis.pack_command(command), done)
        return future

    def execute(self) -> None:
        """Let the server carry out the next command."""
        command, callback = self.going.popleft()
        packed = command if isinstance(command, bytes) else command.packed()
        self.raw.send(packed)
        if callback is None:
            self.collect()
            return
        reply = self.raw.receive()
        self.coming.append((callback, reply))
        self.lab.ran(self.node, packed, reply)

    def collect(self) -> None:
        """Take in what the server has pushed up to now."""
        self.raw.send(b"PING\r\n")
        while True:
            reply = self.raw.receive()
            if reply == b"PONG" or reply[0] == b"pong":
                return
            self.coming.append((None, reply))

    def release(self, count: int = 1) -> None:
        """Let the node have the next reply, or the next pushes."""
        if self.closed or not self.coming:
            return
        callback, reply = self.coming.popleft()
        if callback is not None:
            callback(reply)
            return
        pushed = [reply]
        while len(pushed) < count and self.coming and self.coming[0][0] is None:
            pushed.append(self.coming.popleft()[1])
        self.listener.on_pushed(pushed)

    def close(self) -> None:
        self.cut(0)

    def cut(self, executed: int, *, dead: bool = False) -> None:
        """End the connection; the server has still carried out so many of the commands under way."""
        if self.closed:
            return
        for _ in range(min(executed, len(self.going))):
            self.execute()
        self.closed = True
        self.dead = dead
        self.raw.close()
        self.lab.wires.remove(self)
        pending = [callback for callback, _ in [*self.coming]] + [c for _, c in self.going]
        self.coming.clear()
        self.going.clear()
        if dead:
            return
        for callback in pending:
            if callback is not None:
                callback(Unavailable("the connection to Redis was lost"))
        self.listener.on_connection_lost()


_AT_ONCE = (
    *(
        b"*%d\r\n$%d\r\n%b\r\n" % (count, len(word), word)
        for word, count in [
            (b"SCRIPT", 3), (b"INFO", 2), (b"GET", 2), (b"CLIENT", 2), (b"CLIENT", 4), (b"PING", 1),
            (b"CONFIG", 3),
        ]
    ),
    # The script `permissions`, which runs before a connection is used.
    hiredis.pack_command(
        ("EVALSHA", read("permissions").sha, "1", *("" for _ in range(2 + len(CHECKED_COMMANDS))))
    ).partition(b"$1\r\n")[0],
)  # fmt: skip


class Peer:
    """Stands in for a client's connection: a socket buffer of a few frames, read when the test says so."""

    HIGH, LOW = 4, 1
    write_direct: Any = None

    def __init__(self, sid: str) -> None:
        self.sid = sid
        self.listener: Any = None
        self.closed = False
        self.out: deque[Any] = deque()
        self.congested = False
        # True: a ping is not answered yet; as a pong does not say which it answers, there is no second one meanwhile.
        self.pinged = False
        # True: the response to a poll is on its way, and the client has not polled again.
        self.answered = False

    @property
    def buffered(self) -> int:
        return len(self.out)

    def write(self, wire: bytes, frames: Any) -> None:
        if self.closed:
            return
        assert wire == b"".join(frame.wire for frame in frames)
        self.out.extend(frames)
        if len(self.out) > self.HIGH and not self.congested:
            self.congested = True
            if self.listener is not None:
                self.listener.on_high()

    def read(self) -> Any:
        item = self.out.popleft()
        if self.congested and len(self.out) <= self.LOW:
            self.congested = False
            if self.listener is not None:
                self.listener.on_low()
        return item

    def close(self, code: CloseCode) -> None:
        """End the connection; what was written is still read."""
        self.closed = True
        self.on_closed()

    def on_closed(self) -> None:
        """For the test that wants to know."""

    def ping_now(self) -> None:
        """The engine's: ping, unless a ping is not answered yet."""
        if self.listener is not None and not self.pinged:
            self.pinged = True
            self.listener.on_ping()
            self.out.append(("ping",))

    def pong(self) -> None:
        """The client has answered the ping."""
        self.pinged = False
        if self.listener is not None:
            self.listener.on_pong()

    def answer_poll(self) -> None:
        """End the response to a poll behind what was written; when the client has read that far, it polls again."""
        if self.listener is not None and not self.answered:
            self.answered = True
            self.listener.on_poll_answered()
            self.out.append(("polled",))

    def poll(self) -> None:
        """The client polls again."""
        self.answered = False
        if self.listener is not None:
            self.listener.on_poll()

    def pause(self) -> None:
        """The engine's: stop reading. Verbs are few here."""

    def resume(self) -> None:
        """The engine's."""


class Host:
    """A node of the product, its wires, and whether its process runs."""

    def __init__(self, lab: Lab, name: str) -> None:
        self.lab = lab
        self.name = name
        self.alive = True
        self.paused = False
        self.connections: dict[str, Any] = {}
        self.busy: set[str] = set()
        self.node = Node(lab.settings, f"unix://{name}", name)

    @property
    def runs(self) -> bool:
        return self.alive and not self.paused

    def wire(self, kind: str) -> Wire | None:
        """Return its present connection, `commands` or `bus`."""
        for wire in self.lab.wires:
            if wire.node == self.name and wire.is_bus == (kind == "bus"):
                return wire
        return None

    def pipeline(self, peer: Peer, session: Session) -> VerbPipeline:
        limits = ConnectionLimits(
            self.lab.settings,
            peer,
            asyncio.get_running_loop(),
            SharedLoad(1000),  # type: ignore[arg-type]
        )
        return VerbPipeline(self.node, peer, session, limits)

    def task(self, work: Awaitable[Any], kind: str = "") -> None:
        """Run something on the node; Redis may be away, and then it is tried again some other time."""

        async def run() -> None:
            try:
                await work
            except Unavailable:
                pass
            finally:
                self.busy.discard(kind)

        if kind:
            self.busy.add(kind)
        self.node.tasks.spawn(run())

    def crash(self, executed: int) -> None:
        """End the process as `kill -9` does."""
        self.alive = False
        for wire in [wire for wire in self.lab.wires if wire.node == self.name]:
            wire.cut(0 if wire.is_bus else executed, dead=True)
        store = self.node.store
        tasks = [*self.node.tasks, store.commands._reconnecting, store.bus._reconnecting]
        for task in tasks:
            if task is not None:
                task.cancel()


class Lab:
    """A world of nodes on one server. `scripts` of the product, with time under control and perhaps a rule off."""

    def __init__(
        self,
        server: RedisServer,
        mutation: Mutation | None = None,
        **settings: Any,
    ) -> None:
        self.path = str(server.socket)
        self.admin = Raw(self.path)
        self.admin.call("FLUSHALL")
        self.admin.call("SET", "now", START)
        self.settings = Settings(
            **{
                "redis_prefix": "w", "inbox_length": 4, "log_length": 6, "replay_count": 2,
                # What nodes remember hides what the logs and lists are for; walks have it on in every other episode.
                "replay_memory": 0,
                "anonymous_life": 3000.0, "named_life": 3000.0, "log_age": 3000.0, **settings,
            }
        )  # fmt: skip
        self.scripts = _scripts(mutation)
        self._names = {script.sha: name for name, script in self.scripts.items()}
        self.loop = Loop()
        self.wires: list[Wire] = []
        self.hosts: list[Host] = []
        self.failures: list[str] = []
        self.loop.set_exception_handler(self._failed)
        self._tokens = random.Random(0)
        self._patched = contextlib.ExitStack()
        self._patch(commands, "connect", self._connect)
        self._patch(bus, "connect", self._connect)
        self._patch(ids, "secrets", self)
        self._patch(store, "read_all", lambda: self.scripts)
        # A lost connection is made anew at once.
        self._patch(reconnecting, "STEADY", -1.0)
        if mutation is not None:
            self._patched.enter_context(mutation.patch())
        # Seconds that leaps have taken.
        self.elapsed = 0.0

    def close(self) -> None:
        for host in self.hosts:
            if host.alive:
                host.crash(0)
        self.loop.settle()
        self._patched.close()
        for wire in list(self.wires):
            wire.raw.close()
        self.admin.close()
        self.loop.close()

    def _patch(self, owner: Any, name: str, value: Any) -> None:
        before = owner.__dict__[name]
        setattr(owner, name, value)
        self._patched.callback(setattr, owner, name, before)

    def _failed(self, _: Any, context: dict[str, Any]) -> None:
        if "was destroyed" in context["message"]:
            return  # of a process that was killed
        error = context.get("exception")
        self.failures.append(f"{context['message']}: {error!r}")

    # -- what the product gets in place of the real ones

    async def _connect(self, url: str, listener: ConnectionListener) -> Wire:
        return Wire(self, url.removeprefix("unix://"), listener)

    def token_bytes(self, count: int) -> bytes:
        return self._tokens.randbytes(count)

    def ran(self, node: str, packed: bytes, reply: Any) -> None:
        """A command was carried out; every bus has what it published."""
        for wire in self.wires:
            if wire.is_bus and not wire.dead:
                wire.collect()
        if isinstance(reply, hiredis.ReplyError):
            return
        reader = hiredis.Reader()
        reader.feed(packed)
        request = reader.gets()
        if request[0] == b"EVALSHA":
            keys = int(request[2])
            name = self._names[request[1].decode()]
            # A replay's cursor is no text.
            args = [word.decode(errors="replace") for word in request[3 + keys :]]
            self.script_ran(node, name, args, reply)

    def script_ran(self, node: str, name: str, args: list[str], reply: Any) -> None:
        """For those who keep a record."""

    # -- what a test does

    def do(self, action: Callable[[], Any]) -> Any:
        """Call something in the loop, then run what became ready."""
        result: list[Any] = []

        def call() -> None:
            try:
                result.append(action())
            except Exception as error:  # noqa: BLE001 raised below, outside the loop
                result.append(error)

        self.loop.call_soon(call)
        self.loop.settle()
        if isinstance(result[0], Exception):
            raise result[0]
        self.raise_failures()
        return result[0]

    def raise_failures(self) -> None:
        """Raise what has failed in a node, if anything has."""
        for host in self.hosts:
            if host.node.tasks.failure is not None:
                raise Bad(repr(host.node.tasks.failure))
        if self.failures:
            raise Bad(self.failures[0])

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine to its end, letting everything through in order."""
        task = self.loop.create_task(work)
        self.loop.settle()
        for _ in range(1000):
            if task.done():
                return task.result()
            self.pump(once=True)
        task.cancel()
        raise Bad("does not come to an end")

    def start_host(self, name: str) -> Host:
        host = self.do(lambda: Host(self, name))
        self.hosts.append(host)
        self.run(host.node.start())
        return host

    def pump(self, *, once: bool = False) -> None:
        """Let everything through, each connection in its order, until nothing is under way."""
        while True:
            moved = False
            for wire in list(self.wires):
                host = next((h for h in self.hosts if h.name == wire.node), None)
                if wire.going and not wire.closed:
                    self.do(wire.execute)
                    moved = True
                if wire.coming and not wire.closed and (host is None or host.runs):
                    self.do(wire.release)
                    moved = True
            if not moved or once:
                if not moved:
                    self.advance(0.1)
                return

    def advance(self, seconds: float) -> None:
        """Let timers of the nodes come due."""
        self.loop.now += seconds
        self.loop.settle()
        self.raise_failures()

    def remember(self) -> Past:
        """Return all that Redis has, time aside."""
        call = self.admin.call
        return {
            key: (call("DUMP", key), call("PTTL", key)) for key in self.all_keys() if key != "now"
        }

    def forget(self, past: Past) -> None:
        """Put Redis back to what it was, as another run of the server; whoever is connected does not know yet."""
        raw = self.admin
        for key in self.all_keys():
            if key != "now":
                raw.call("DEL", key)
        for key, (dump, ttl) in past.items():
            raw.send(hiredis.pack_command(("RESTORE", key, str(max(ttl, 0)), dump)))
            assert raw.receive() == b"OK"
        for host in self.hosts:
            host.node.store._identity = ServerIdentity("another", "run")

    def leap(self, seconds: float) -> None:
        """Let time pass in Redis."""
        self.elapsed += seconds
        reply = self.admin.call("EVAL", LEAP, 0, int(seconds * 1000))
        assert not isinstance(reply, Exception), reply

    def all_keys(self) -> Iterator[str]:
        for key in self.admin.call("KEYS", "*"):
            yield key.decode()

"""One connection to Redis: commands of one loop turn leave in one write, replies are parsed in a batch.

No retries and no reconnecting here: a command whose reply is lost has an unknown outcome, and only the
layer above knows what that means.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, cast

import hiredis
from redis.asyncio.connection import parse_url
from redis.exceptions import RedisError

from hub.errors import BadRequest, Unavailable

Reply = Any
Callback = Callable[[Reply], None]
pack: Callable[[tuple[Any, ...]], bytes] = hiredis.pack_command
ReplyError = hiredis.ReplyError


def packed_part(*words: str) -> bytes:
    """Return some words of a command as they travel; the command's length comes before its first."""
    return pack(words).split(b"\r\n", 1)[1]


def info_fields(info: bytes) -> dict[str, str]:
    """Parse an answer of INFO."""
    pairs = (line.partition(":") for line in info.decode().splitlines() if ":" in line)
    return {name: value for name, _, value in pairs}


class GrowingCommand(Protocol):
    """A command that may grow as long as it is the last one of its turn: `hub.store.publishing.CommitGroup`."""

    def packed(self) -> bytes: ...


class ConnectionListener(Protocol):
    """Is notified of what happens to a connection: `hub.redis.bus.Bus`, `hub.redis.commands.Commands`."""

    def on_pushed(self, replies: list[Reply], /) -> None:
        """Take what one read has brought while no command waited for a reply: the messages of a subscriber."""

    def on_connection_lost(self) -> None:
        """The connection has ended; called once."""


# Seconds to connect and log in.
CONNECT_TIMEOUT = 5.0


def resolve(future: asyncio.Future[Reply]) -> Callback:
    """Return a callback that hands a reply, or the exception that came instead, to a future."""

    def done(reply: Reply) -> None:
        if future.done():
            return
        if isinstance(reply, Exception):
            future.set_exception(reply)
        else:
            future.set_result(reply)

    return done


class RedisConnection(asyncio.Protocol):
    """One connection, from its beginning to its end."""

    def __init__(self, listener: ConnectionListener) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        # Commands of this turn of the loop, written at its end.
        self._out: list[bytes] = []
        # The last of them, where it may still grow.
        self.growing: GrowingCommand | None = None
        # Callbacks that wait for a reply, oldest first. Bounded by the verbs that connections may have waiting.
        self._pending: deque[Callback] = deque()
        # When something was last received, or sent while no reply was awaited.
        self.alive_at = self._loop.time()
        self.closed = False

    def __len__(self) -> int:
        """Return how many replies are awaited."""
        return len(self._pending)

    def send(self, command: bytes | GrowingCommand, callback: Callback | None) -> None:
        """Send a command; `callback` gets its reply, a ReplyError, or Unavailable where the connection ended.

        None: there is no reply but pushes (the commands of a subscriber).
        """
        if self.closed:
            if callback is not None:
                callback(Unavailable("Redis is away"))
            return
        if self.growing is not None:
            self._out.append(self.growing.packed())
            self.growing = None
        elif not self._out:
            self._loop.call_soon(self._flush)
        if isinstance(command, bytes):
            self._out.append(command)
        else:
            self.growing = command
        if callback is not None:
            if not self._pending:
                self.alive_at = self._loop.time()
            self._pending.append(callback)

    def call(self, *command: Any) -> asyncio.Future[Reply]:
        """Send a command; the future raises ReplyError or Unavailable."""
        future: asyncio.Future[Reply] = self._loop.create_future()
        self.send(pack(command), resolve(future))
        return future

    def close(self) -> None:
        """End the connection at once. Idempotent."""
        if self._transport is not None:
            self._transport.abort()
        self._end()

    def _flush(self) -> None:
        if self.growing is not None:
            self._out.append(self.growing.packed())
            self.growing = None
        if self._transport is not None and not self.closed:
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def _end(self) -> None:
        if self.closed:
            return
        self.closed = True
        self.growing = None  # its senders are answered now; a message added later would not be
        pending, self._pending = self._pending, deque()
        for callback in pending:
            callback(Unavailable("the connection to Redis was lost; the outcome is unknown"))
        self._listener.on_connection_lost()

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.alive_at = self._loop.time()
        reader, pending = self._reader, self._pending
        reader.feed(data)
        pushed: list[Reply] = []
        try:
            while (reply := reader.gets()) is not False:
                if pending:
                    pending.popleft()(reply)
                else:
                    pushed.append(reply)
        except hiredis.ProtocolError:
            self.close()
            return
        if pushed:
            self._listener.on_pushed(pushed)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()


def _options(url: str) -> dict[str, Any]:
    try:
        return dict(parse_url(url))
    except ValueError as error:
        raise BadRequest(f"redis_url: {error}") from None


def database(url: str) -> int:
    """Return the number of a URL's database. Raises BadRequest for a URL that cannot be meant."""
    return int(_options(url).get("db", 0))


async def connect(url: str, listener: ConnectionListener) -> RedisConnection:
    """Connect and log in. Raises Unavailable, or BadRequest for a URL that cannot be meant."""
    options = _options(url)
    loop = asyncio.get_running_loop()
    connection = RedisConnection(listener)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            if "path" in options:
                await loop.create_unix_connection(lambda: connection, options["path"])
            else:
                await loop.create_connection(
                    lambda: connection,
                    options.get("host", "localhost"),
                    options.get("port", 6379),
                    ssl=_tls(options) if url.startswith("rediss:") else None,
                )
            if options.get("password"):
                user = (options["username"],) if options.get("username") else ()
                await connection.call("AUTH", *user, options["password"])
            if options.get("db"):
                await connection.call("SELECT", options["db"])
    except (OSError, TimeoutError, ReplyError, RedisError, Unavailable) as error:
        connection.close()
        raise Unavailable(f"Redis is away: {str(error) or type(error).__name__}") from None
    except BaseException:
        connection.close()
        raise
    return connection


def _tls(options: dict[str, Any]) -> ssl.SSLContext:
    """Build a TLS context from the query options that redis-py documents for rediss:// URLs."""
    context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
    if str(options.get("ssl_check_hostname", True)).lower() in ("false", "0", "no"):
        context.check_hostname = False
    if options.get("ssl_cert_reqs", "required") in ("none", None):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if options.get("ssl_certfile"):
        context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"))
    return context

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


class Growing(Protocol):
    """A command that may grow as long as it is the last one of its turn."""

    def packed(self) -> bytes: ...


# Seconds to connect and log in.
CONNECT_TIMEOUT = 5.0


def settling(future: asyncio.Future[Reply]) -> Callback:
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
    """A connection.

    `on_push` gets what arrives while no command waits for a reply (the messages of a subscriber), a list a read;
    without it that is an error. `on_lost` is called once when the connection ends.
    """

    def __init__(
        self,
        on_lost: Callable[[], None],
        on_push: Callable[[list[Reply]], None] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_lost = on_lost
        self._on_push = on_push
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        # Commands of this turn of the loop, written at its end.
        self._out: list[bytes] = []
        # The last of them, where it may still grow.
        self.growing: Growing | None = None
        # What awaits a reply, oldest first. Bounded by the verbs that connections may have waiting.
        self._pending: deque[Callback] = deque()
        # When something was last heard, or asked while nothing was awaited.
        self.alive_at = self._loop.time()
        self.closed = False

    def __len__(self) -> int:
        """How many replies are awaited."""
        return len(self._pending)

    def send(self, command: bytes | Growing, callback: Callback | None) -> None:
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
        self.send(pack(command), settling(future))
        return future

    def close(self) -> None:
        """End the connection at once. Idempotent."""
        if self._transport is not None:
            self._transport.abort()
        self._lost()

    def _flush(self) -> None:
        if self.growing is not None:
            self._out.append(self.growing.packed())
            self.growing = None
        if self._transport is not None and not self.closed:
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def _lost(self) -> None:
        if self.closed:
            return
        self.closed = True
        self.growing = None  # its senders are answered now, and who came later would not be
        pending, self._pending = self._pending, deque()
        for callback in pending:
            callback(Unavailable("the connection to Redis was lost; the outcome is unknown"))
        self._on_lost()

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
            if self._on_push is None:
                self.close()
            else:
                self._on_push(pushed)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost()


def _options(url: str) -> dict[str, Any]:
    try:
        return dict(parse_url(url))
    except ValueError as error:
        raise BadRequest(f"redis_url: {error}") from None


def database(url: str) -> int:
    """Return the number of a URL's database. Raises BadRequest for a URL that cannot be meant."""
    return int(_options(url).get("db", 0))


async def connect(
    url: str,
    on_lost: Callable[[], None],
    on_push: Callable[[list[Reply]], None] | None = None,
) -> RedisConnection:
    """Connect and log in. Raises Unavailable, or BadRequest for a URL that cannot be meant."""
    options = _options(url)
    loop = asyncio.get_running_loop()
    link = RedisConnection(on_lost, on_push)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            if "path" in options:
                await loop.create_unix_connection(lambda: link, options["path"])
            else:
                await loop.create_connection(
                    lambda: link,
                    options.get("host", "localhost"),
                    options.get("port", 6379),
                    ssl=_tls(options) if url.startswith("rediss:") else None,
                )
            if options.get("password"):
                user = (options["username"],) if options.get("username") else ()
                await link.call("AUTH", *user, options["password"])
            if options.get("db"):
                await link.call("SELECT", options["db"])
    except (OSError, TimeoutError, ReplyError, RedisError, Unavailable) as error:
        link.close()
        raise Unavailable(f"Redis is away: {str(error) or type(error).__name__}") from None
    except BaseException:
        link.close()
        raise
    return link


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

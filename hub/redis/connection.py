"""One connection to Redis: commands of one loop turn leave in one write, replies are parsed in a batch.

No retries and no reconnecting here: a command whose reply is lost has an unknown outcome, and only the
layer above knows what that means.
"""

from __future__ import annotations

import asyncio
import re
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


# Seconds to connect and log in, and of these, for the TLS handshake.
CONNECT_TIMEOUT, TLS_TIMEOUT = 5.0, 4.0
# The beginning of a sentence about a Redis that cannot be reached; the rest may hold addresses, and is the operator's.
AWAY = "Redis is away"
# Characters of Redis's own words that are passed on.
MAX_WORDS = 300
# Why a connection has ended.
LOST = "the connection to Redis was lost; the outcome is unknown"
NO_ANSWER = "Redis has closed the connection before it answered anything; if it expects TLS, the URL begins with rediss://"
NOT_REDIS = "the server at the URL of Redis speaks another protocol; if it expects TLS, the URL begins with rediss://"
_PLACE_IN_SCRIPT = re.compile(r"\.? script: .*$|, on @user_script:\d+\.?$")


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
        self._why_closed = NO_ANSWER

    def __len__(self) -> int:
        """Return how many replies are awaited."""
        return len(self._pending)

    def send(self, command: bytes | GrowingCommand, callback: Callback | None) -> None:
        """Send a command; `callback` gets its reply, a ReplyError, or Unavailable where the connection ended.

        None: there is no reply but pushes (the commands of a subscriber).
        """
        if self.closed:
            if callback is not None:
                callback(Unavailable(AWAY))
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
            callback(Unavailable(self._why_closed))
        self._listener.on_connection_lost()

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.alive_at = self._loop.time()
        self._why_closed = LOST
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
            self._why_closed = NOT_REDIS
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
    connection = RedisConnection(listener)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            await _open(connection, options, tls=url.startswith("rediss:"))
            await _log_in(connection, options)
    except TimeoutError:
        connection.close()
        raise Unavailable(f"{AWAY}: it has not answered within {CONNECT_TIMEOUT:g} s") from None
    except BaseException:
        connection.close()
        raise
    return connection


async def _open(connection: RedisConnection, options: dict[str, Any], *, tls: bool) -> None:
    """Open the connection. Raises Unavailable."""
    loop = asyncio.get_running_loop()
    try:
        if "path" in options:
            await loop.create_unix_connection(lambda: connection, options["path"])
            return
        async with asyncio.timeout(TLS_TIMEOUT if tls else None):
            await loop.create_connection(
                lambda: connection,
                options.get("host", "localhost"),
                options.get("port", 6379),
                ssl=_tls(options) if tls else None,
            )
    except ssl.SSLCertVerificationError as error:
        raise Unavailable(f"the TLS certificate of Redis is not accepted: {error}") from None
    except (ssl.SSLError, ConnectionResetError, ConnectionAbortedError, TimeoutError) as error:
        if not tls:
            raise Unavailable(f"{AWAY}: {error}") from None
        raise Unavailable(
            f"the TLS handshake with Redis has failed: {str(error) or 'no answer'}; if this Redis speaks no TLS, "
            "the URL begins with redis://"
        ) from None
    except (OSError, RedisError) as error:
        raise Unavailable(f"{AWAY}: {str(error) or type(error).__name__}") from None


async def _log_in(connection: RedisConnection, options: dict[str, Any]) -> None:
    """Log in and choose the database. Raises Unavailable."""
    try:
        if options.get("password"):
            user = (options["username"],) if options.get("username") else ()
            await connection.call("AUTH", *user, options["password"])
    except ReplyError as error:
        raise Unavailable(f"Redis refuses the login: {error}") from None
    try:
        if options.get("db"):
            await connection.call("SELECT", options["db"])
    except ReplyError as error:
        if str(error).startswith(("NOAUTH", "NOPERM")):
            raise Unavailable(refusal_sentence(error)) from None
        raise Unavailable(f"Redis refuses the database {options['db']}: {error}") from None


def refusal_sentence(error: ReplyError) -> str:
    """Return what a refusal means, followed by Redis's own words."""
    words = own_words(error)
    match words.split(" ", 1)[0]:
        case "NOAUTH":
            return f"Redis wants a password, which the URL has to hold: {words}"
        case "NOPERM":
            return f"Redis does not allow the hub's user what the hub needs: {words}"
        case _:
            return f"Redis refuses: {words}"


def own_words(error: ReplyError) -> str:
    """Return Redis's own words, without the place in a script, and without what Redis 6.2 puts before those of a script."""
    words = str(error)
    if words.startswith("ERR Error running script"):
        words = words.rpartition(": -")[2]
    return _PLACE_IN_SCRIPT.sub("", words)[:MAX_WORDS]


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

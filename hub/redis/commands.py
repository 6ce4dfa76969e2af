"""The command connection to Redis: commands and scripts, which take effect in the order sent.

No command is repeated by itself if it may have run: its sender gets Unavailable.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from hub.errors import HubError, Unavailable
from hub.redis.connection import (
    AWAY,
    Callback,
    GrowingCommand,
    RedisConnection,
    Reply,
    ReplyError,
    connect,
    own_words,
    pack,
    refusal_sentence,
    resolve,
)
from hub.redis.reconnecting import ReconnectingConnection

log = logging.getLogger("hub.redis")

# Refusals of a server that has become a replica; the connection to it stays open.
DEMOTED = ("READONLY", "MASTERDOWN")
# Refusals of writes, and what lets them pass.
WRITES_REFUSED = {
    "OOM": "Redis refuses writes because its memory is full: raise maxmemory, or let the hub keep less (HUB_LOG_LENGTH, "
    "HUB_LOG_AGE, HUB_NAMED_LIFE)",
    "MISCONF": "Redis refuses writes because it cannot save its data: mend what it says",
    "NOREPLICAS": "Redis refuses writes because it has too few replicas: bring them back, or lower min-replicas-to-write",
}
# Other refusals that are no fault of the hub's.
EXPECTED = ("LOADING", "BUSY", "NOSCRIPT")


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script and the digest that Redis knows it by."""

    name: str
    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", sha)


class CommandsListener(Protocol):
    """Is notified of what happens to the command connection: `hub.store.store.Store`."""

    async def on_connected(self) -> None:
        """There is a new connection. Awaited before anybody else may use it; if it raises Unavailable, another one is made."""

    def on_demoted(self) -> None:
        """The server has become a replica, and the connection was closed."""


class Commands(ReconnectingConnection):
    """A connection for commands; `scripts`, by name, are loaded into Redis each time it is connected.

    `timeout`: seconds without an answer after which the connection is closed.
    """

    def __init__(
        self,
        url: str,
        scripts: Mapping[str, Script],
        listener: CommandsListener,
        timeout: float = 10.0,
    ) -> None:
        super().__init__(url, "commands", timeout / 4)
        self._listener = listener
        self._timeout = timeout
        self.scripts = scripts
        # While scripts are being loaded again: the commands whose script Redis did not know, and those that came after.
        self._unknown: list[tuple[bytes | GrowingCommand, Callback]] = []
        self._waiting: list[tuple[bytes | GrowingCommand, Callback]] = []
        self._reloading = False
        # Why Redis refused the last write, in its own words; empty: it takes writes, as far as is known.
        self.refused_write = ""
        # What Redis calls this connection, and the one before; 0: unknown.
        self._id = self._previous_id = 0

    @property
    def connected(self) -> bool:
        """Return whether there is a connection, if only for `call`."""
        return self._connection is not None and not self._connection.closed

    @property
    def growing(self) -> GrowingCommand | None:
        """Return the last command sent, while it may grow."""
        return None if self._connection is None else self._connection.growing

    def send(self, command: bytes | GrowingCommand, callback: Callback) -> None:
        """Run a script whose command is packed already, or will be at the end of the turn.

        `callback` gets its answer or a HubError. Scripts take effect in the order sent.
        """
        connection = self._connection
        if connection is None or not self.up:
            callback(Unavailable(self.why_down))
            return
        if self._reloading:
            self._waiting.append((command, callback))
        else:
            self._send(connection, command, callback)

    def call_script(
        self, name: str, keys: Sequence[str], args: Sequence[Any]
    ) -> asyncio.Future[Reply]:
        """Run a script; the future raises HubError."""
        loop = self._loop or asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()
        packed = pack(("EVALSHA", self.scripts[name].sha, len(keys), *keys, *args))
        self.send(packed, resolve(future))
        return future

    async def call(self, *command: Any) -> Reply:
        """Send one plain command, also before others may use the connection. Raises Unavailable."""
        connection = self._connection
        if connection is None:
            raise Unavailable(self.why_down)
        try:
            return await connection.call(*command)
        except ReplyError as error:
            raise self._refusal(connection, error) from None

    async def kill_previous(self) -> None:
        """Let no command that lies unread in the lost connection take effect after those of this one.

        A server that was stopped for a while finds both connections full of commands, and reads them in any order.
        """
        if self._previous_id:
            try:
                await self.call("CLIENT", "KILL", "ID", self._previous_id)
            except HubError:
                log.warning("the earlier connection could not be closed by Redis")

    # -- refusals

    def _refusal(self, connection: RedisConnection, error: ReplyError) -> HubError:
        """Return what a refusal of Redis means to a client: nothing was stored, try later."""
        words = own_words(error)
        code = words.split(" ", 1)[0]
        if code in DEMOTED:
            # Later, because answers to other commands may have come together with this one.
            asyncio.get_running_loop().call_soon(self._leave_replica, connection)
        elif code in WRITES_REFUSED:
            self.refused_write = words
            self._refusals.note("redis", code, WRITES_REFUSED[code], reason=words)
        elif code in EXPECTED:
            self._refusals.note("redis", code, "Redis refuses commands for now", reason=words)
        elif self.up:
            level = logging.ERROR
            self._refusals.note("redis", code, "Redis refused a command", level=level, error=words)
        return Unavailable(refusal_sentence(error))

    def note_written(self) -> None:
        """Note that a script has written: Redis takes writes."""
        if self.refused_write:
            self.refused_write = ""
            log.warning("Redis takes writes again")

    def _leave_replica(self, connection: RedisConnection) -> None:
        """Close a connection whose server is no primary any more; a new one is of use only if it leads to a primary."""
        if not connection.closed:
            log.warning("Redis is a replica now")
            connection.close()
            self._listener.on_demoted()

    # -- scripts that Redis has forgotten

    def _send(
        self, connection: RedisConnection, command: bytes | GrowingCommand, callback: Callback
    ) -> None:
        def done(reply: Reply) -> None:
            if isinstance(reply, ReplyError):
                if str(reply).startswith("NOSCRIPT"):
                    self._reload_scripts(connection, command, callback)
                    return
                reply = self._refusal(connection, reply)
            elif self._unknown and not isinstance(reply, Exception):
                # A later script ran already: those before it would come out of order.
                late, self._unknown = self._unknown, []
                for _, other in late:
                    other(Unavailable("Redis had forgotten the scripts"))
            callback(reply)

        connection.send(command, done)

    def _reload_scripts(
        self, connection: RedisConnection, command: bytes | GrowingCommand, callback: Callback
    ) -> None:
        """Load all scripts and send the command again; hold what comes after it, so that the order stays."""
        self._unknown.append((command, callback))
        if self._reloading:
            return
        self._reloading = True

        def load(_: Reply) -> None:
            for script in self.scripts.values():
                connection.send(pack(("SCRIPT", "LOAD", script.text)), lambda _: None)
            again = self._unknown + self._waiting
            self._unknown, self._waiting = [], []
            self._reloading = False
            for each, waiter in again:
                self._send(connection, each, waiter)

        # Its answer comes after those of all commands that are in progress; they may be refused as well.
        connection.send(pack(("PING",)), load)

    # -- connecting

    async def _connect(self) -> None:
        connection = await connect(self._url, self)
        try:
            async with asyncio.timeout(self._timeout):
                await asyncio.gather(
                    *(connection.call("SCRIPT", "LOAD", s.text) for s in self.scripts.values())
                )
                self._connection = connection
                self._previous_id, self._id = self._id, await self._read_id(connection)
                await self._listener.on_connected()
        except ReplyError as error:
            connection.close()
            raise Unavailable(refusal_sentence(error)) from None
        except TimeoutError:
            connection.close()
            raise Unavailable(f"{AWAY}: it has not answered within {self._timeout:g} s") from None
        except BaseException:
            connection.close()
            raise
        self.up = not connection.closed

    async def _read_id(self, connection: RedisConnection) -> int:
        """Return what Redis calls a connection; 0 where Redis does not tell."""
        try:
            return int(await connection.call("CLIENT", "ID"))
        except ReplyError as error:
            if not own_words(error).startswith("NOPERM"):
                raise
            return 0

    def _on_down(self) -> None:
        log.warning("lost the connection to Redis")

    def on_pushed(self, replies: list[Reply]) -> None:
        """Close the connection: a reply has come that no command waits for."""
        self.cut()

    def on_connection_lost(self) -> None:
        late = self._unknown + self._waiting
        self._unknown, self._waiting, self._reloading = [], [], False
        super().on_connection_lost()
        for _, callback in late:
            callback(Unavailable("the connection to Redis was lost"))

    def _check(self) -> None:
        connection, now = self._connection, asyncio.get_running_loop().time()
        if connection is None or not len(connection):
            return
        if now - connection.alive_at > self._timeout:
            log.warning("Redis has not answered in time")
            connection.close()

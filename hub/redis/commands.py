"""The command connection to Redis: scripts in order, kept connected.

No command is ever repeated by itself where it may have run: whoever sent it hears Unavailable.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hub.errors import HubError, Unavailable
from hub.redis.connection import (
    Callback,
    Growing,
    RedisConnection,
    Reply,
    ReplyError,
    connect,
    pack,
    settling,
)
from hub.redis.reconnecting import ReconnectingConnection

log = logging.getLogger("hub.redis")

# What a server answers that has been made a replica; the connection to it stays open.
DEMOTED = ("READONLY", "MASTERDOWN")
# Refusals that are nobody's fault here.
EXPECTED = ("OOM", "LOADING", "MISCONF", "NOREPLICAS", "BUSY", "NOSCRIPT")


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script and the digest that Redis knows it by."""

    name: str
    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", sha)


class Commands(ReconnectingConnection):
    """A connection for commands; `scripts`, by name, are loaded each time it is connected.

    `on_up` is awaited each time it is connected, before anybody else may use it; where it raises
    Unavailable the connection is tried anew. `on_demoted` is called where the server turns out to be a replica now, and
    the connection was given up. `timeout`: seconds without an answer after which it is given up.
    """

    def __init__(
        self,
        url: str,
        scripts: Mapping[str, Script],
        on_up: Callable[[], Awaitable[None]],
        on_demoted: Callable[[], None],
        timeout: float = 10.0,
    ) -> None:
        super().__init__(url, "commands", timeout / 4)
        self._on_up = on_up
        self._on_demoted = on_demoted
        self._timeout = timeout
        self.scripts = scripts
        # While scripts are being loaded again: those that Redis did not know, and those that came after.
        self._unknown: list[tuple[bytes | Growing, Callback]] = []
        self._waiting: list[tuple[bytes | Growing, Callback]] = []
        self._reloading = False
        # How Redis calls this connection, and the one before.
        self._id = self._previous = 0

    def run(self, name: str, keys: Sequence[str], args: Sequence[Any], callback: Callback) -> None:
        """Run a script; `callback` gets its answer or a HubError. Scripts take effect in the order sent."""
        self.send(pack(("EVALSHA", self.scripts[name].sha, len(keys), *keys, *args)), callback)

    @property
    def growing(self) -> Growing | None:
        """Return the last command sent, while it may grow."""
        return None if self._link is None else self._link.growing

    def send(self, command: bytes | Growing, callback: Callback) -> None:
        """Run a script whose command is packed already, or will be at the end of the turn."""
        link = self._link
        if link is None or not self.up:
            callback(Unavailable("Redis is away"))
            return
        if self._reloading:
            self._waiting.append((command, callback))
        else:
            self._send(link, command, callback)

    def ask(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> asyncio.Future[Reply]:
        """Run a script; the future raises HubError."""
        loop = self._loop or asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()
        self.run(name, keys, args, settling(future))
        return future

    async def call(self, *command: Any) -> Reply:
        """Send one plain command. Raises Unavailable."""
        link = self._link
        if link is None:
            raise Unavailable("Redis is away")
        try:
            return await link.call(*command)
        except ReplyError as error:
            raise self._refused(link, error) from None

    async def silence_previous(self) -> None:
        """Let nothing that lies unread in the lost connection take effect behind what follows.

        A server that was stopped for a while finds both connections full of commands, and reads them in any order.
        """
        if self._previous:
            try:
                await self.call("CLIENT", "KILL", "ID", self._previous)
            except HubError:
                log.warning("the earlier connection could not be closed by Redis")

    # -- refusals

    def _refused(self, link: RedisConnection, error: ReplyError) -> HubError:
        """Say what a refusal of Redis means to a client: nothing was stored, try later."""
        words = _unwrapped(str(error))
        code = words.split(" ", 1)[0]
        if code in DEMOTED:
            # Not before those whose answers came together with this one have heard them.
            asyncio.get_running_loop().call_soon(self._demoted, link)
        elif code not in EXPECTED:
            log.error("Redis refused a command", extra={"error": words})
        return Unavailable("Redis refuses: " + code)

    def _demoted(self, link: RedisConnection) -> None:
        """Leave a server that is no primary any more: the next connection is one to what is, or none."""
        if not link.closed:
            log.warning("Redis is a replica now")
            link.close()
            self._on_demoted()

    # -- scripts that Redis has forgotten

    def _send(self, link: RedisConnection, command: bytes | Growing, callback: Callback) -> None:
        def done(reply: Reply) -> None:
            if isinstance(reply, ReplyError):
                if str(reply).startswith("NOSCRIPT"):
                    self._forgotten(link, command, callback)
                    return
                reply = self._refused(link, reply)
            elif self._unknown and not isinstance(reply, Exception):
                # A later script ran already: those before it would come out of order.
                late, self._unknown = self._unknown, []
                for _, other in late:
                    other(Unavailable("Redis had forgotten the scripts"))
            callback(reply)

        link.send(command, done)

    def _forgotten(
        self, link: RedisConnection, command: bytes | Growing, callback: Callback
    ) -> None:
        """Hold everything that comes after, let what is under way be answered, load, send again in order."""
        self._unknown.append((command, callback))
        if self._reloading:
            return
        self._reloading = True

        def answered(_: Reply) -> None:
            for script in self.scripts.values():
                link.send(pack(("SCRIPT", "LOAD", script.text)), lambda _: None)
            again = self._unknown + self._waiting
            self._unknown, self._waiting = [], []
            self._reloading = False
            for each, waiter in again:
                self._send(link, each, waiter)

        link.send(pack(("PING",)), answered)

    # -- keeping connected

    async def _connect(self) -> None:
        link = await connect(self._url, self._lost)
        try:
            async with asyncio.timeout(self._timeout):
                await asyncio.gather(
                    *(link.call("SCRIPT", "LOAD", s.text) for s in self.scripts.values())
                )
                self._link = link
                self._previous, self._id = self._id, int(await link.call("CLIENT", "ID"))
                await self._on_up()
        except (TimeoutError, ReplyError) as error:
            link.close()
            raise Unavailable(f"Redis does not answer: {error}") from None
        except BaseException:
            link.close()
            raise
        self.up = not link.closed

    def _on_down(self) -> None:
        log.warning("lost the connection to Redis")

    def _lost(self) -> None:
        late = self._unknown + self._waiting
        self._unknown, self._waiting, self._reloading = [], [], False
        super()._lost()
        for _, callback in late:
            callback(Unavailable("the connection to Redis was lost"))

    def _check(self) -> None:
        link = self._link
        if link is None or not len(link):
            return
        if asyncio.get_running_loop().time() - link.alive_at > self._timeout:
            log.warning("Redis has not answered in time")
            link.close()


def _unwrapped(words: str) -> str:
    """Return the words of an error that a script ended with; Redis 6.2 puts them behind words of its own."""
    return words.rpartition(": -")[2] if words.startswith("ERR Error running script") else words

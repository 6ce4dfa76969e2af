"""The hub's state in Redis, in the hub's own words: every method is one atomic move."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hub.engine.ids import Ids
from hub.errors import BadRequest, Unavailable
from hub.message import Message
from hub.pid import Pid
from hub.settings import Settings
from hub.store.bus import Bus, Messages
from hub.store.commands import Commands
from hub.store.keys import Keys
from hub.store.link import packed_part
from hub.store.publishing import Callback, Group

log = logging.getLogger("hub.store")

# Of the keys' shapes. Raised with each change that an older node would read wrongly.
SCHEMA = "2"

# The first of a message's words in publish.lua, and the same room's name again and again.
_PLAIN, _VOLATILE, _ODD = packed_part(""), packed_part("v"), packed_part("o")
_packed_word = functools.lru_cache(4096)(packed_part)


@dataclass(slots=True)
class Taken:
    """A session, and that this connection owns it from now on."""

    # 'new', or continued by 'pid' or by 'name'.
    how: str
    client_id: str
    pid: Pid
    sid: str
    # Everything up to here has arrived.
    position: int
    # The newest offset at this moment, and how many messages up to it are missed.
    head: int
    missed: int
    # How often the session was taken, this time included.
    takes: int
    # The offset at which each room was joined.
    rooms: dict[str, int]


@dataclass(slots=True)
class Gap:
    """Messages of a room with after < offset < before that are lost. `dropped` is None where nobody can know."""

    room: str
    reason: str
    after: int
    before: int
    dropped: int | None


@dataclass(slots=True)
class Batch:
    """What a replay hands out: gaps, told first, and messages. `live_from`: nothing was left, the session is live."""

    live_from: int | None
    position: int
    gaps: list[Gap] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    # There are no messages, as the node remembers all of them.
    remembered: bool = False
    # The messages are all that came behind the position asked for: none was lost, or is not for this client.
    whole: bool = False
    # The server's time in microseconds.
    now: int = 0


@dataclass(slots=True)
class Page:
    """Messages of a log. `gap`: it no longer reaches back to where it was asked to begin."""

    messages: list[Message]
    more: bool
    gap: bool
    # Entries that were looked at for it, and the offset of the last of them; 0: there was none.
    looked: int = 0
    reached: int = 0

    @property
    def size(self) -> int:
        """Bytes of its messages."""
        return sum(len(message.body) for message in self.messages)


class NotOwner(Exception):
    """The connection does not own the session any more.

    `replaced`: a newer connection does; otherwise there is no such session, it has ended or Redis forgot it.
    """

    def __init__(self, reply: bytes) -> None:
        super().__init__(reply.decode())
        self.replaced = reply == b"replaced"


class Store:
    """Redis as one node sees it.

    `on_messages` hears the bus; `on_bus_lost` and `on_bus_back` say when it broke and when there is a new one;
    `on_changed` is called when Redis came back as another server or with a past (restart, failover).
    """

    def __init__(
        self,
        settings: Settings,
        url: str,
        *,
        on_messages: Callable[[Messages], None],
        on_bus_lost: Callable[[], None],
        on_bus_back: Callable[[], None],
        on_changed: Callable[[], None],
    ) -> None:
        self.settings = settings
        self.keys = Keys(settings.prefix)
        self.node = secrets.token_hex(8)
        self._ids = Ids(42)
        # The newest offset that this node has seen anywhere; later ones are larger even if Redis forgets.
        self.newest = 0
        # Room and offset of the newest one that lies in a log, as far as the bus has told.
        self.witness: tuple[str, int] | None = None
        # Both as they were when the bus was lost: what comes after may be of another past.
        self._frozen: tuple[int, tuple[str, int] | None] | None = None
        self._on_changed = on_changed
        self._identity: tuple[str, str] | None = None
        self.commands = Commands(url, self._connected, settings.redis_timeout)
        self.bus = Bus(url, on_messages, on_bus_lost, on_bus_back, settings.bus_silence)
        # When the command connection was last made, on the loop's clock.
        self.connected_at = 0.0
        # A room's numbers outlive every session that may have missed some of them, one included that nobody parked
        # (it is kept for two lives and a minute, see common.lua).
        life = max(settings.named_life, settings.anonymous_life)
        forget_after = max(settings.log_age, 2 * life) + life + min(life, 60.0)
        self._forget_after = str(int(forget_after * 1e6))
        self._publish_args = (
            str(settings.log_length),
            str(int(settings.log_age * 1e6)),
            str(int(settings.log_age * 1e3)),
            str(int(forget_after * 1e3)),
            str(settings.inbox_length),
            str(int(settings.dedupe_life * 1e3)),
        )

    async def start(self) -> None:
        """Connect. Raises Unavailable; BadRequest for a Redis that must not be used."""
        await self.commands.start()
        try:
            await self.bus.start()
        except BaseException:
            await self.commands.stop()
            raise

    async def stop(self) -> None:
        await self.bus.stop()
        await self.commands.stop()

    @property
    def ready(self) -> bool:
        return self.commands.up and self.bus.up

    async def watch(self) -> None:
        """Raise what ended a connection's keeper, if anything has: nobody would make the connection anew."""
        self.commands.watch()
        self.bus.watch()

    async def _connected(self) -> None:
        """Check the server; notice whether it is another one than before, or has forgotten something."""
        call = self.commands.call
        info = _fields(await call("INFO", "server")) | _fields(await call("INFO", "replication"))
        version = tuple(int(part) for part in info.get("redis_version", "0").split(".")[:2])
        if version < (6, 2):
            raise BadRequest(
                f"Redis {info.get('redis_version')} is too old: the hub needs 6.2 or later"
            )
        if info.get("role", "master") != "master":
            raise Unavailable("this Redis is a replica")
        policy = _fields(await call("INFO", "memory")).get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            raise BadRequest(
                f"this Redis has maxmemory-policy {policy}, which throws messages away: set it to noeviction"
            )
        schema = await call("GET", self.keys.schema)
        if schema is not None and schema.decode() != SCHEMA:
            raise BadRequest(
                f"the keys under prefix {self.settings.prefix!r} were written by schema version "
                f"{schema.decode()}, this hub writes {SCHEMA}: use another prefix or an empty Redis"
            )
        self.connected_at = asyncio.get_running_loop().time()
        identity = (info.get("run_id", ""), info.get("master_replid", ""))
        known, self._identity = self._identity, identity
        changed = known is not None and identity != known
        if known is not None and identity[0] == known[0]:
            await self.commands.silence_previous()
        if changed:
            log.warning("Redis was restarted or replaced")
            self._on_changed()

    # -- messages

    def publish(
        self,
        room: str,
        header: bytes,
        body: bytes,
        callback: Callback,
        *,
        volatile: bool = False,
        odd: bool = False,
        dedupe: str | None = None,
    ) -> None:
        """Write a message. `callback` gets its offset and whether the idempotency key had been seen, or an error.

        `odd`: not every session is to count it (echo off, ttl).
        """
        key = b"$0\r\n\r\n" if dedupe is None else packed_part(dedupe)
        message = b"%b%b$%d\r\n%b\r\n$%d\r\n%b\r\n%b" % (
            _VOLATILE if volatile else _ODD if odd else _PLAIN,
            _packed_word(room),
            len(header),
            header,
            len(body),
            body,
            key,
        )
        group = self.commands.growing
        if isinstance(group, Group) and not group.full:
            group.add(message, callback)
        else:
            group = Group(self._pack_publish)
            group.add(message, callback)
            self.commands.send(group, functools.partial(self._published, group))

    def _published(self, group: Group, reply: Any) -> None:
        self.newest = max(self.newest, group.answer(reply))

    # Publishing is what a hub does most: of the command only what changes is packed each time.

    @functools.cached_property
    def _publish_begin(self) -> bytes:
        sha = self.commands.scripts["publish"].sha
        return packed_part("EVALSHA", sha, "1", self.keys.clock)

    @functools.cached_property
    def _publish_settings(self) -> bytes:
        return packed_part(*self._publish_args)

    def _pack_publish(self, messages: list[bytes]) -> bytes:
        newest = b"%d" % self.newest
        return b"*%d\r\n%b$%d\r\n%b\r\n%b%b" % (
            5 + len(self._publish_args) + 5 * len(messages),
            self._publish_begin,
            len(newest),
            newest,
            self._publish_settings,
            b"".join(messages),
        )

    async def history(
        self, room: str, after: int | None, before: int | None, limit: int, size: int
    ) -> Page:
        """Read a log forwards from `after` or, without it, backwards from its end or `before`.

        At most `limit` messages, `size` bytes of them, but one however long it is; fewer where many have expired.
        """
        keys = self.keys
        bounds = ("" if offset is None else str(offset) for offset in (after, before))
        found, more, gap, looked, reached = await self.commands.ask(
            "history",
            (keys.clock, keys.log(room), keys.meta(room)),
            (*bounds, str(limit), str(size)),
        )
        messages = [Message.from_log(room, *entry) for entry in found]
        return Page(messages, more == b"1", gap == b"1", looked, int(reached or 0))

    # -- sessions

    async def take(
        self,
        connection: str,
        *,
        client_id: str | None,
        pid: Pid | None,
        offset: int | None,
    ) -> Taken | None:
        """Make a connection the owner of the session that it proves or names, or of a new one; None: refused."""
        # Drawn together; four characters hold three bytes.
        drawn = self._ids.draw()
        secret, sid, anonymous = drawn[:24], drawn[24:40], drawn[40:]
        lives = self.settings.anonymous_life, self.settings.named_life
        proof = ("", "", "") if pid is None else (pid.generation, pid.serial, _hash(pid.secret))
        reply = await self.commands.ask(
            "take",
            (self.keys.clock,),
            (
                client_id or (pid.client_id if pid else ""), "1" if client_id else "0", *proof,
                anonymous, _hash(secret), sid, self.owner(connection),
                "" if offset is None else str(offset), str(self.newest),
                *(str(int(life * 1e3)) for life in lives), self.keys.node_channel_base,
            ),
        )  # fmt: skip
        if reply[0] == b"refused":
            return None
        how, client, generation, serial, sid, position, head, missed, takes = (
            part.decode() for part in reply[:9]
        )
        self.newest = max(self.newest, int(head))
        names, joins = reply[9::2], reply[10::2]
        return Taken(
            how,
            client,
            Pid(client, generation, serial, pid.secret if how == "pid" and pid else secret),
            sid,
            int(position),
            int(head),
            int(missed),
            int(takes),
            {name.decode(): int(join) for name, join in zip(names, joins, strict=True)},
        )

    async def replay(
        self, client: str, connection: str, after: int, lows: Mapping[str, int] | None = None
    ) -> Batch:
        """Hand out the next batch after an offset. Raises NotOwner, Unavailable.

        `lows`: of these rooms the node remembers every message behind the offset.
        """
        settings = self.settings
        known = [str(word) for room in (lows or {}).items() for word in room]
        reply = await self.commands.ask(
            "replay",
            (self.keys.clock,),
            (
                client, self.owner(connection), str(after), str(settings.replay_count),
                str(settings.replay_bytes), str(int(settings.log_age * 1e6)), *known,
            ),
        )  # fmt: skip
        if isinstance(reply, bytes):
            raise NotOwner(reply)
        live_from, position, gaps, messages, how, now = reply
        self.newest = max(self.newest, int(live_from or position))
        return Batch(
            int(live_from) if live_from else None,
            int(position),
            [
                Gap(room.decode(), why.decode(), int(a), int(b), int(d) if d else None)
                for room, why, a, b, d in gaps
            ],
            [Message.from_log(room.decode(), *entry) for room, *entry in messages],
            remembered=how == b"memory",
            whole=how == b"whole",
            now=int(now),
        )

    async def subscribe(
        self, client: str, connection: str, room: str, *, known: bool
    ) -> tuple[int, bool]:
        """Return the offset at which the room was joined, and whether it was just now.

        `known`: the connection knows that it is in the room, so that the first join counts.
        """
        reply = await self.commands.ask(
            "subscribe",
            (self.keys.clock,),
            (
                client, self.owner(connection), room, str(self.settings.rooms_per_session),
                "1" if known else "0",
            ),
        )  # fmt: skip
        if reply == b"full":
            raise BadRequest(
                f"room: at most {self.settings.rooms_per_session} rooms for one session"
            )
        if isinstance(reply, bytes):
            raise NotOwner(reply)
        return int(reply[0]), reply[1] == b"1"

    async def unsubscribe(self, client: str, connection: str, room: str) -> None:
        await self._owned("unsubscribe", client, connection, room)

    async def park(self, client: str, connection: str, position: int, *, gone: bool) -> None:
        await self._owned("park", client, connection, str(position), "1" if gone else "0")

    async def finish(self, client: str, connection: str) -> None:
        await self._owned("finish", client, connection)

    async def _owned(self, script: str, client: str, connection: str, *args: str) -> None:
        args = (client, self.owner(connection), *args)
        reply = await self.commands.ask(script, (self.keys.clock,), args)
        if reply != b"ok":
            raise NotOwner(reply)

    async def replaced(self, taken: Taken) -> bool:
        """Return whether a later connection than the one that has taken a session owns it now."""
        owner, generation, takes = await self.commands.call(
            "HMGET", self.keys.session(taken.client_id), "owner", "gen", "takes"
        )
        now = int(generation or 0), int(takes or 0)
        return bool(owner) and now > (int(taken.pid.generation), taken.takes)

    async def prove(self, proofs: Sequence[tuple[str, str, int]]) -> int:
        """Write back (client id, connection, position) triples; return how many of the connections are owners."""
        args: list[str] = []
        for client, connection, position in proofs:
            args += (client, self.owner(connection), str(position))
        return int(await self.commands.ask("prove", (self.keys.clock,), args))

    # -- nodes

    async def renew(self, *, first: bool = False) -> bool:
        """Renew this node's lease; False: it had lapsed."""
        settings = self.settings
        keep = 3 * max(settings.named_life, settings.anonymous_life) + settings.log_age
        reply = await self.commands.ask(
            "renew",
            (self.keys.clock,),
            (
                self.node, str(int(settings.lease * 1e3)), str(int(keep * 1e3)),
                "1" if first else "0", SCHEMA,
            ),
        )  # fmt: skip
        return bool(reply == b"1")

    async def touch(self, sessions: Sequence[tuple[str, str]]) -> int:
        """Keep (client id, connection) pairs that this node serves from expiring; return how many it owns."""
        args = [self.node]
        for client, connection in sessions:
            args += (client, self.owner(connection))
        return int(await self.commands.ask("touch", (self.keys.clock,), args))

    async def sweep(self, limit: int = 100) -> int:
        """Park sessions of dead nodes; return how many, `limit` where there may be more."""
        return int(await self.commands.ask("sweep", (self.keys.clock,), (str(limit),)))

    async def release(self) -> None:
        """Give the lease up: the node ends, and serves nobody any more."""
        keep = self.settings.log_age + max(self.settings.named_life, self.settings.anonymous_life)
        await self.commands.ask("release", (self.keys.clock,), (self.node, str(int(keep * 1e3))))

    def freeze(self) -> None:
        """Keep what is known now for a rollback to compare with; until `thaw` it stays so."""
        if self._frozen is None:
            self._frozen = self.newest, self.witness

    def thaw(self) -> None:
        self._frozen = None

    async def rollback(self) -> bool:
        """Tell everybody where Redis has forgotten what this node had seen; return whether it has."""
        newest, witness = self._frozen or (self.newest, self.witness)
        keep = str(int(max(self.settings.named_life, self.settings.anonymous_life) * 1e3))
        reply = await self.commands.ask(
            "rollback",
            (self.keys.clock,),
            (
                str(newest), keep, self.keys.all_nodes_channel,
                *(("", "") if witness is None else (witness[0], str(witness[1]))), self._forget_after,
            ),
        )  # fmt: skip
        self.thaw()
        return bool(reply == b"1")

    async def clock(self) -> int:
        return int(await self.commands.call("GET", self.keys.clock) or 0)

    async def probe(self, read: int = 0) -> None:
        """Say something on the node's own channel: that the bus is heard, and has come to the offset `read`."""
        await self.commands.call("PUBLISH", self.keys.node_channel(self.node), f"probe {read}")

    def owner(self, connection: str) -> str:
        return f"{self.node}/{connection}"


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _fields(info: bytes) -> dict[str, str]:
    """Parse an answer of INFO."""
    pairs = (line.partition(":") for line in info.decode().splitlines() if ":" in line)
    return {name: value for name, _, value in pairs}

"""The hub's state in Redis, in the hub's own words: every method is one atomic move."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from collections.abc import Mapping, Sequence
from typing import Protocol

from hub.engineio.core.ids import Ids
from hub.errors import BadRequest
from hub.message import StoredMessage
from hub.pid import Pid
from hub.redis.bus import Bus, BusListener
from hub.redis.commands import Commands
from hub.redis.connection import database
from hub.settings import Settings
from hub.store.keys import SCHEMA, Keys
from hub.store.loss_detector import LossDetector
from hub.store.publishing import GroupCommit
from hub.store.results import HistoryPage, NotOwner, ReplayBatch, ReplayGap, SessionClaim
from hub.store.scripts import read_all
from hub.store.server_check import Identity, identify

log = logging.getLogger("hub.store")


class StoreListener(BusListener, Protocol):
    """Who is told what happens to the bus and to Redis; the node is."""

    def on_redis_changed(self) -> None:
        """Redis came back as another server, or with another past (a restart, a failover)."""


class Store:
    """Redis as one node sees it. Raises BadRequest for a URL that cannot be meant."""

    def __init__(self, settings: Settings, url: str, listener: StoreListener) -> None:
        self.settings = settings
        self.keys = Keys(settings.prefix, database=database(url))
        self.node = secrets.token_hex(8)
        self._ids = Ids(42)
        self.loss_detector = LossDetector()
        self._listener = listener
        self._identity: Identity | None = None
        self.bus = Bus(url, listener, settings.bus_silence)
        # A replica's bus brings what its new primary says, of another past perhaps: what was seen before counts.
        self.commands = Commands(
            url, read_all(), self._connected, self.bus.cut, settings.redis_timeout
        )
        # When the command connection was last made, on the loop's clock.
        self.connected_at = 0.0
        self.publishing = GroupCommit(settings, self.commands, self.keys, self.loss_detector)

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
        identity = await identify(self.commands, self.keys)
        self.connected_at = asyncio.get_running_loop().time()
        known = self._identity
        if known is not None and identity[0] == known[0]:
            await self.commands.silence_previous()
        if known is None or identity == known:
            self._identity = identity
            return
        log.warning("Redis was restarted or replaced")
        if self.bus.server != identity[0]:
            self.bus.cut()  # first: what was seen up to here is what the new one has to know
        # Before anybody else is let in: whatever is published hides what was forgotten.
        await self.detect_loss()
        self._identity = identity
        self._listener.on_redis_changed()

    # -- logs

    async def history(
        self, room: str, after: int | None, before: int | None, limit: int, size: int
    ) -> HistoryPage:
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
        messages = [StoredMessage.from_log(room, *entry) for entry in found]
        return HistoryPage(messages, more == b"1", gap == b"1", looked, int(reached or 0))

    # -- sessions

    async def claim(
        self,
        connection: str,
        *,
        client_id: str | None,
        pid: Pid | None,
        offset: int | None,
    ) -> SessionClaim | None:
        """Make a connection the owner of the session that it proves or names, or of a new one; None: refused."""
        # Drawn together; four characters hold three bytes.
        drawn = self._ids.draw()
        secret, sid, anonymous = drawn[:24], drawn[24:40], drawn[40:]
        lives = self.settings.anonymous_life, self.settings.named_life
        proof = ("", "", "") if pid is None else (pid.generation, pid.serial, _hash(pid.secret))
        reply = await self.commands.ask(
            "claim",
            (self.keys.clock,),
            (
                client_id or (pid.client_id if pid else ""), "1" if client_id else "0", *proof,
                anonymous, _hash(secret), sid, self.owner(connection),
                "" if offset is None else str(offset), str(self.loss_detector.newest),
                *(str(int(life * 1e3)) for life in lives), self.keys.node_channel_base,
            ),
        )  # fmt: skip
        if reply[0] == b"refused":
            return None
        how, client, generation, serial, sid, position, head, missed, takes = (
            part.decode() for part in reply[:9]
        )
        self.loss_detector.note_answer(int(head))
        names, joins = reply[9::2], reply[10::2]
        return SessionClaim(
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
        self,
        client: str,
        connection: str,
        after: int,
        lows: Mapping[str, int] | None = None,
        *,
        reset_from: int | None = None,
    ) -> ReplayBatch:
        """Hand out the next batch after an offset. Raises NotOwner, Unavailable.

        `lows`: of these rooms the node remembers every message behind the offset. `reset_from`: an earlier offset, up to
        which the client was before Redis may have forgotten something.
        """
        settings = self.settings
        known = [str(word) for room in (lows or {}).items() for word in room]
        reply = await self.commands.ask(
            "replay",
            (self.keys.clock,),
            (
                client, self.owner(connection), str(after), str(settings.replay_count),
                str(settings.replay_bytes), str(int(settings.log_age * 1e6)),
                str(after if reset_from is None else min(reset_from, after)), *known,
            ),
        )  # fmt: skip
        if isinstance(reply, bytes):
            raise NotOwner(reply)
        live_from, position, told, messages, how, now = reply
        gaps = [
            ReplayGap(room.decode(), why.decode(), int(a), int(b), int(d) if d else None)
            for room, why, a, b, d in told
        ]
        # A gap ends at the first message that is there, or behind the newest offset: none is given out within it again.
        self.loss_detector.note_answer(
            max([int(live_from or position), *(gap.before - 1 for gap in gaps)])
        )
        return ReplayBatch(
            int(live_from) if live_from else None,
            int(position),
            gaps,
            [StoredMessage.from_log(room.decode(), *entry) for room, *entry in messages],
            remembered=how == b"cache",
            whole=how == b"logs",
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

    async def end_session(self, client: str, connection: str) -> None:
        await self._owned("end_session", client, connection)

    async def _owned(self, script: str, client: str, connection: str, *args: str) -> None:
        args = (client, self.owner(connection), *args)
        reply = await self.commands.ask(script, (self.keys.clock,), args)
        if reply != b"ok":
            raise NotOwner(reply)

    async def is_replaced(self, claim: SessionClaim) -> bool | None:
        """Return whether a later connection than the one that has taken a session owns it now.

        None: one has taken it, and was not served yet. It may be gone.
        """
        owner, served, generation, takes = await self.commands.call(
            "HMGET", self.keys.session(claim.client_id), "owner", "served", "gen", "takes"
        )
        now = int(generation or 0), int(takes or 0)
        if not owner or now <= (int(claim.pid.generation), claim.epoch):
            return False
        return True if owner == served else None  # rule: served_first

    async def commit(self, proofs: Sequence[tuple[str, str, int]]) -> int:
        """Write back (client id, connection, position) triples; return how many of the connections are owners."""
        args: list[str] = []
        for client, connection, position in proofs:
            args += (client, self.owner(connection), str(position))
        return int(await self.commands.ask("commit", (self.keys.clock,), args))

    # -- nodes

    async def renew(self, *, first: bool = False) -> bool:
        """Renew this node's lease; False: it had lapsed."""
        settings = self.settings
        keep = 3 * settings.longest_life + settings.log_age
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

    async def sweep(self, sessions: int = 100, rooms: int = 1000) -> int:
        """Park sessions of dead nodes, so many of them or of their rooms; return how many, 0 where no more are left."""
        limits = str(sessions), str(rooms)
        return int(await self.commands.ask("sweep", (self.keys.clock,), limits))

    async def release(self) -> None:
        """Give the lease up: the node ends, and serves nobody any more."""
        keep = self.settings.log_age + self.settings.longest_life
        await self.commands.ask("release", (self.keys.clock,), (self.node, str(int(keep * 1e3))))

    async def detect_loss(self) -> bool:
        """Tell everybody where Redis has forgotten what this node had seen; return whether it has."""
        newest, (room, offset) = self.loss_detector.past
        settings = self.settings
        # Not by `ask`: it is done while the connection is being made.
        reply = await self.commands.call(
            "EVALSHA", self.commands.scripts["detect_loss"].sha, "1", self.keys.clock,
            str(newest), str(int(settings.longest_life * 1e3)), self.keys.all_nodes_channel,
            room, str(offset), str(int(settings.numbers_life * 1e6)),
        )  # fmt: skip
        self.loss_detector.on_same_server()
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

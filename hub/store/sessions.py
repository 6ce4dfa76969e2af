"""The moves of sessions in Redis: each method runs one script, `lua/<its name>.lua`, which changes everything or nothing.

A connection owns a session from its claim until another connection claims it. Every other move names its connection, and
raises NotOwner if that is not the owner.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from hub.engineio.core.ids import Ids
from hub.errors import BadRequest
from hub.message import StoredMessage
from hub.pid import Pid
from hub.redis.commands import Commands
from hub.settings import Settings
from hub.store.keys import Keys
from hub.store.loss_detector import LossDetector
from hub.store.results import NotOwner, ReplayBatch, ReplayCursor, ReplayGap, SessionClaim


class StoredSessions:
    """The sessions in Redis, as one node may change them."""

    def __init__(
        self,
        settings: Settings,
        commands: Commands,
        keys: Keys,
        loss_detector: LossDetector,
        node_id: str,
    ) -> None:
        self._settings = settings
        self._commands = commands
        self._keys = keys
        self._loss_detector = loss_detector
        self._node_id = node_id
        self._ids = Ids(42)

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
        lives = self._settings.anonymous_life, self._settings.named_life
        proof = ("", "", "") if pid is None else (pid.generation, pid.version, _hash(pid.secret))
        reply = await self._commands.call_script(
            "claim",
            (self._keys.clock,),
            (
                client_id or (pid.client_id if pid else ""), "1" if client_id else "0", *proof,
                anonymous, _hash(secret), sid, self._owner(connection),
                "" if offset is None else str(offset), str(self._loss_detector.newest),
                *(str(int(life * 1e3)) for life in lives), self._keys.node_channel_base,
            ),
        )  # fmt: skip
        if reply[0] == b"refused":
            return None
        how, client, generation, version, sid, position, head, missed, epoch = (
            part.decode() for part in reply[:9]
        )
        self._loss_detector.note_answer(int(head))
        names, joins = reply[9::2], reply[10::2]
        return SessionClaim(
            how,
            client,
            Pid(client, generation, version, pid.secret if how == "pid" and pid else secret),
            sid,
            int(position),
            int(head),
            int(missed),
            int(epoch),
            {name.decode(): int(join) for name, join in zip(names, joins, strict=True)},
        )

    async def subscribe(
        self, client: str, connection: str, rooms: Iterable[tuple[str, bool]]
    ) -> list[int | BadRequest]:
        """Join rooms, and return for each the offset at which it was joined, or why it was not.

        With each room goes whether the connection knows that it is in it, so that the first join counts.
        """
        args = [client, self._owner(connection), str(self._settings.rooms_per_session)]
        for room, known in rooms:
            args += (room, "1" if known else "0")
        reply = await self._commands.call_script("subscribe", (self._keys.clock,), args)
        if isinstance(reply, bytes):
            raise NotOwner(reply)
        most = self._settings.rooms_per_session
        return [
            int(join) if join else BadRequest(f"room: at most {most} rooms for one session")
            for join in reply[::2]
        ]

    async def unsubscribe(self, client: str, connection: str, room: str) -> None:
        await self._run_as_owner("unsubscribe", client, connection, room)

    async def replay(
        self,
        client: str,
        connection: str,
        after: int,
        complete_from: Mapping[str, int] | None = None,
        *,
        cursor: ReplayCursor | None = None,
        reset_from: int | None = None,
    ) -> ReplayBatch:
        """Hand out the next batch after an offset. Raises NotOwner, Unavailable.

        `complete_from`: rooms of which the node has every message after the offset given with each. `cursor`: of the batch
        that led to this offset. `reset_from`: an earlier offset, where the client was before Redis may have lost data.
        """
        settings = self._settings
        changes, counted = self._loss_detector.redis_changes, b""
        if cursor is not None and cursor.redis_changes == changes:  # rule: cursor_void
            counted = cursor.data
        cached = [str(word) for room in (complete_from or {}).items() for word in room]
        reply = await self._commands.call_script(
            "replay",
            (self._keys.clock,),
            (
                client, self._owner(connection), str(after), str(settings.replay_count),
                str(settings.replay_bytes), str(int(settings.log_age * 1e6)),
                str(after if reset_from is None else min(reset_from, after)), counted, *cached,
            ),
        )  # fmt: skip
        if isinstance(reply, bytes):
            raise NotOwner(reply)
        live_from, position, found, messages, source, now, following = reply
        gaps = [
            ReplayGap(room.decode(), why.decode(), int(a), int(b), int(d) if d else None)
            for room, why, a, b, d in found
        ]
        # A gap ends before the first message that is there, or after the newest offset: no offset within it is given out
        # again.
        self._loss_detector.note_answer(
            max([int(live_from or position), *(gap.before - 1 for gap in gaps)])
        )
        return ReplayBatch(
            int(live_from) if live_from else None,
            int(position),
            gaps,
            [StoredMessage.from_log(room.decode(), *entry) for room, *entry in messages],
            in_cache=source == b"cache",
            complete=source == b"logs",
            now=int(now),
            cursor=ReplayCursor(changes, following) if following else None,
        )

    async def park(
        self,
        client: str,
        connection: str,
        position: int,
        *,
        gone: bool,
        logged_out: bool = False,
    ) -> None:
        """Make a session away. `gone`: its connection has ended, so nobody owns it any more.

        `logged_out`: its client has left deliberately, so its pid is void.
        """
        flags = ("1" if flag else "0" for flag in (gone, logged_out))
        await self._run_as_owner("park", client, connection, str(position), *flags)

    async def commit(self, acked: Sequence[tuple[str, str, int]]) -> int:
        """Store acknowledged positions, given as (client id, connection, position).

        Return how many of the connections own their sessions.
        """
        args: list[str] = []
        for client, connection, position in acked:
            args += (client, self._owner(connection), str(position))
        return int(await self._commands.call_script("commit", (self._keys.clock,), args))

    async def touch(self, owned: Sequence[tuple[str, str]]) -> int:
        """Keep sessions, given as (client id, connection), from expiring; return how many of them this node owns."""
        args = [self._node_id]
        for client, connection in owned:
            args += (client, self._owner(connection))
        return int(await self._commands.call_script("touch", (self._keys.clock,), args))

    async def end_session(self, client: str, connection: str) -> None:
        """Delete a session for good."""
        await self._run_as_owner("end_session", client, connection)

    async def is_replaced(self, claim: SessionClaim) -> bool | None:
        """Return whether a later connection than that of `claim` owns the session now.

        None: a later one has claimed it, and was not sent its first batch yet. It may be gone.
        """
        owner, active_owner, generation, epoch = await self._commands.call(
            "HMGET", self._keys.session(claim.client_id), "owner", "served", "gen", "takes"
        )
        now = int(generation or 0), int(epoch or 0)
        if not owner or now <= (int(claim.pid.generation), claim.epoch):
            return False
        return True if owner == active_owner else None  # rule: served_first

    async def _run_as_owner(self, script: str, client: str, connection: str, *args: str) -> None:
        args = (client, self._owner(connection), *args)
        reply = await self._commands.call_script(script, (self._keys.clock,), args)
        if reply != b"ok":
            raise NotOwner(reply)

    def _owner(self, connection: str) -> str:
        return f"{self._node_id}/{connection}"


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()

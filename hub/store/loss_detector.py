"""Detects that Redis has lost the end of its data, and says from where that counts for each session of this node.

A restart without an append-only file or a failover can lose what Redis had answered. Redis does not know of that. A node
does: it was given offsets and messages that are not there any more. So a node keeps the newest of both, and hands them to
Redis (`detect`) when Redis is another server than before, or has another history.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

from hub.redis.commands import Commands
from hub.settings import Settings
from hub.store.keys import Keys
from hub.store.results import ReplayBatch

# A room and an offset in its log; no room: none is known.
Logged = tuple[str, int]
NOTHING_LOGGED: Logged = ("", 0)
# Seconds after a change of Redis within which another node may notice that data is lost.
NOTICED = 60.0


class TrackedSession(Protocol):
    """What the detector reads and keeps of a session."""

    # Everything up to this offset was written to its connection.
    sent: int
    # How far the session was when the bus was last lost, or what replays have handed out since.
    position_at_bus_loss: int
    # The same when Redis last changed: lost messages count from here. None: Redis has not changed since it is here.
    reset_from: int | None


class LossDetector:
    """The newest data that Redis has given to one node, and how far its sessions were before Redis may have lost some of it."""

    def __init__(self, settings: Settings, commands: Commands, keys: Keys) -> None:
        self._settings = settings
        self._commands = commands
        self._keys = keys
        # The newest offset given anywhere; later ones are larger even if Redis has lost some.
        self.newest = 0
        # The newest message that is known to lie in a log.
        self.newest_logged = NOTHING_LOGGED
        # Both as they were when the bus was lost: what it brings after that may be of another history.
        self._frozen: tuple[int, Logged] | None = None
        # How often Redis has changed: it became another server, or its data those of another history.
        self.redis_changes = 0
        # Until this time another node may notice what Redis had lost when it changed; on the loop's clock.
        self._may_be_noticed_until = 0.0

    # -- what is known

    def note_answer(self, offset: int, room: str = "") -> None:
        """Note an offset that a script has answered; `room`: in whose log it lies.

        It counts even while what is known is frozen: a server that has changed is asked for nothing before `detect`.
        """
        self.newest, self.newest_logged = _later(self.newest, self.newest_logged, offset, room)
        if self._frozen is not None:
            self._frozen = _later(*self._frozen, offset, room)

    def note_received(self, offset: int, room: str) -> None:
        """Note an offset that the bus has brought; `room`: in whose log it lies."""
        self.newest = max(self.newest, offset)
        if room and offset > self.newest_logged[1]:
            self.newest_logged = room, offset

    # -- changes of Redis

    async def detect(self) -> bool:
        """Let Redis compare its data with what is known here. Return whether it has lost some; then every node is notified."""
        self.redis_changes += 1
        newest, (room, offset) = self._frozen or (self.newest, self.newest_logged)
        settings = self._settings
        # Not by `call_script`: nobody else may use the connection before this is done.
        reply = await self._commands.call(
            "EVALSHA", self._commands.scripts["detect_loss"].sha, "1", self._keys.clock,
            str(newest), str(int(settings.longest_life * 1e3)), self._keys.all_nodes_channel,
            room, str(offset), str(int(settings.numbers_life * 1e6)),
        )  # fmt: skip
        self.trust_bus()
        return bool(reply == b"1")

    def on_bus_lost(self, sessions: Iterable[TrackedSession]) -> None:
        """Keep what is known now, and how far each session is: Redis may come back without what follows."""
        if self._frozen is None:
            self._frozen = self.newest, self.newest_logged
        for session in sessions:
            session.position_at_bus_loss = session.sent

    def trust_bus(self) -> None:
        """Trust what the bus brings again: the server was asked, or is the one that it was before the bus was lost."""
        self._frozen = None

    def on_redis_changed(self, sessions: Iterable[TrackedSession]) -> None:
        """Let losses count from where each session was for a while: other nodes may notice them late."""
        for session in sessions:
            session.reset_from = session.position_at_bus_loss
        self._may_be_noticed_until = asyncio.get_running_loop().time() + NOTICED

    def on_claimed(self, session: TrackedSession) -> None:
        """Note where a session begins that is claimed within that time."""
        if self._noticing():
            session.reset_from = session.sent

    def on_handed_out(self, session: TrackedSession, batch: ReplayBatch) -> None:
        """Note what a replay has handed out to a session: a loss that was reported to it is not reported again."""
        for gap in batch.gaps:
            if gap.reason == "reset" and session.reset_from is not None:
                session.reset_from = max(session.reset_from, gap.before - 1)
        # The server is still the same one, or the loss was detected before: what it has handed out is not in doubt.
        reached = batch.live_from or batch.position
        session.position_at_bus_loss = max(session.position_at_bus_loss, reached)  # rule: told_once

    def reset_from(self, session: TrackedSession) -> int | None:
        """Return the offset after which losses count for a session, where that is earlier than its position."""
        noticing = self._noticing()
        return session.reset_from if noticing else None  # rule: noticed_late

    def _noticing(self) -> bool:
        until = self._may_be_noticed_until
        return until > 0 and asyncio.get_running_loop().time() <= until


def _later(newest: int, logged: Logged, offset: int, room: str) -> tuple[int, Logged]:
    if room and offset > logged[1]:
        logged = room, offset
    return max(newest, offset), logged

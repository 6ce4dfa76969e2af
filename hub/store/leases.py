"""The moves of nodes in Redis: a node holds a lease while it is alive, and any node sweeps the sessions of dead ones."""

from __future__ import annotations

from hub.redis.commands import Commands
from hub.settings import Settings
from hub.store.keys import SCHEMA, Keys


class Leases:
    """The lease of one node, and those of the others."""

    def __init__(self, settings: Settings, commands: Commands, keys: Keys, node_id: str) -> None:
        self._settings = settings
        self._commands = commands
        self._keys = keys
        self._node_id = node_id

    async def renew(self, *, first: bool = False) -> bool:
        """Renew this node's lease; False: it had lapsed."""
        settings = self._settings
        keep = 3 * settings.longest_life + settings.log_age
        reply = await self._commands.call_script(
            "renew",
            (self._keys.clock,),
            (
                self._node_id, str(int(settings.lease * 1e3)), str(int(keep * 1e3)),
                "1" if first else "0", SCHEMA,
            ),
        )  # fmt: skip
        return bool(reply == b"1")

    async def check_writes(self) -> None:
        """Find out whether Redis takes writes. Raises Unavailable where it does not.

        `renew` would not do: a script that begins with a removal passes when Redis is full.
        """
        key, life = self._keys.lease(self._node_id), int(self._settings.lease * 1e3)
        await self._commands.call("SET", key, "1", "PX", life, "XX")
        self._commands.note_written()

    async def release(self) -> None:
        """Give the lease up: the node stops, and owns no sessions any more."""
        keep = self._settings.log_age + self._settings.longest_life
        await self._commands.call_script(
            "release", (self._keys.clock,), (self._node_id, str(int(keep * 1e3)))
        )

    async def sweep(self, sessions: int = 100, rooms: int = 1000) -> int:
        """Park the next sessions of dead nodes: so many at most, or those that are in so many rooms together.

        Return how many sessions were looked at; 0: none is left.
        """
        limits = str(sessions), str(rooms)
        return int(await self._commands.call_script("sweep", (self._keys.clock,), limits))

    async def probe(self, read: int = 0) -> None:
        """Publish on the node's own channel: a sign that the bus works, and has come to the offset `read`."""
        await self._commands.call(
            "PUBLISH", self._keys.node_channel(self._node_id), f"probe {read}"
        )

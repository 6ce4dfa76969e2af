"""Every Redis key and channel, by name; the scripts spell the keys in the same words in lua/common.lua."""

from __future__ import annotations

import hashlib

# The version of what is stored. Raised with each change that an older node would read wrongly.
SCHEMA = "3"


class Keys:
    """The key names of one shard under one prefix.

    All of them share one hash tag, so that every script is legal on Redis Cluster. A server's channels are the same in all
    its databases, so a channel's name contains the number of the database, unless it is 0.
    """

    def __init__(self, prefix: str = "hub", shard: int = 0, database: int = 0) -> None:
        self.prefix = prefix
        self.base = f"{prefix}:{{{shard}}}:"
        self.clock = self.base + "clock"
        self.schema = self.base + "schema"
        bus = f"{self.base}bus{database or ''}:"
        self.room_channel_base = bus + "room:"
        self.node_channel_base = bus + "node:"
        # The channel that every node subscribes.
        self.all_nodes_channel = bus + "nodes"

    def log(self, room: str) -> str:
        return f"{self.base}room:{room}:log"

    def meta(self, room: str) -> str:
        return f"{self.base}room:{room}:meta"

    def session(self, client: str) -> str:
        return f"{self.base}session:{client}"

    def lease(self, node: str) -> str:
        return f"{self.base}node:{node}"

    def room_channel(self, room: str) -> str:
        return self.room_channel_base + room

    def node_channel(self, node: str) -> str:
        return self.node_channel_base + node

    def dedupe(self, room: str, publisher: str, key: str) -> str:
        """Name an idempotency key; hashed, because the publisher chooses it."""
        digest = hashlib.blake2b(
            b"\0".join(part.encode() for part in (room, publisher, key)), digest_size=16
        )
        return f"{self.base}dedupe:{digest.hexdigest()}"

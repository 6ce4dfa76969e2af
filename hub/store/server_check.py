"""Which Redis server the hub is connected to, and whether the hub may use it."""

from __future__ import annotations

from typing import NamedTuple

from hub.errors import BadRequest, Unavailable
from hub.redis.commands import Commands
from hub.redis.connection import info_fields
from hub.store.keys import SCHEMA, Keys


class ServerIdentity(NamedTuple):
    """Tells a server from others. Where both are what they were, its data is what it was."""

    # Another one after each start of the server.
    run_id: str
    # The same for servers that share their history; another one after a failover.
    replication_id: str


async def check_server(commands: Commands, keys: Keys) -> ServerIdentity:
    """Return a server's identity. Raises BadRequest for one that must not be used, Unavailable for one not yet to be used."""
    call = commands.call
    info = info_fields(await call("INFO", "server")) | info_fields(
        await call("INFO", "replication")
    )
    version = tuple(int(part) for part in info.get("redis_version", "0").split(".")[:2])
    if version < (6, 2):
        raise BadRequest(
            f"Redis {info.get('redis_version')} is too old: the hub needs 6.2 or later"
        )
    if info.get("role", "master") != "master":
        raise Unavailable("this Redis is a replica")
    policy = info_fields(await call("INFO", "memory")).get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise BadRequest(
            f"this Redis has maxmemory-policy {policy}, which throws messages away: set it to noeviction"
        )
    schema = await call("GET", keys.schema)
    if schema is not None and schema.decode() != SCHEMA:
        raise BadRequest(
            f"the keys under prefix {keys.prefix!r} were written by schema version "
            f"{schema.decode()}, this hub writes {SCHEMA}: use another prefix or an empty Redis"
        )
    return ServerIdentity(info.get("run_id", ""), info.get("master_replid", ""))

"""Which Redis this is, and whether the hub may use it."""

from __future__ import annotations

from hub.errors import BadRequest, Unavailable
from hub.redis.commands import Commands
from hub.redis.connection import info_fields
from hub.store.keys import SCHEMA, Keys

# A run of a server, and a past that servers share.
Identity = tuple[str, str]


async def identify(commands: Commands, keys: Keys) -> Identity:
    """Ask a server who it is. Raises BadRequest for one that must not be used, Unavailable for one not yet to be used."""
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
    return info.get("run_id", ""), info.get("master_replid", "")

"""Which Redis server the hub is connected to, and whether the hub may use it."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from hub.errors import BadRequest, HubError, Unavailable
from hub.redis.commands import Commands
from hub.redis.connection import info_fields
from hub.store.keys import SCHEMA, Keys

log = logging.getLogger("hub.store")

# What the hub's user in Redis has to be allowed, beside the keys and channels with the prefix: the commands that the hub
# sends (SELECT only for another database than 0), and those of its scripts.
COMMANDS = (
    "select", "ping", "info", "script|load", "evalsha", "get", "hmget", "publish", "subscribe", "unsubscribe",
)  # fmt: skip
SCRIPT_COMMANDS = (
    "del", "exists", "get", "hdel", "hget", "hgetall", "hincrby", "hkeys", "hlen", "hmget", "hset", "lindex", "lrange", "ltrim", "pexpire",
    "pttl", "publish", "rpush", "rpushx", "sadd", "set", "smembers", "spop", "srem", "time", "xadd", "xrange",
    "xrevrange", "xtrim",
)  # fmt: skip
# What Redis is asked about when the hub connects.
CHECKED_COMMANDS = (*SCRIPT_COMMANDS, "ping", "subscribe", "unsubscribe")
# Without one of these the hub runs, and says what it cannot do.
OPTIONAL_COMMANDS = ("client|id", "client|kill", "config|get")


class ServerDescription(NamedTuple):
    """What an operator wants to know of a server."""

    # Its name and version: `Valkey 9.1.2`.
    product: str
    # How it keeps its data, in words.
    persistence: str


class ServerIdentity(NamedTuple):
    """Tells a server from others. Where both are what they were, its data is what it was."""

    # Another one after each start of the server.
    run_id: str
    # The same for servers that share their history; another one after a failover.
    replication_id: str


async def check_server(commands: Commands, keys: Keys) -> ServerIdentity:
    """Return a server's identity. Raises BadRequest for one that must not be used, Unavailable for one not yet to be used."""
    call = commands.call
    await _check_permissions(commands, keys)
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


async def _check_permissions(commands: Commands, keys: Keys) -> None:
    """Raise BadRequest if the user may not run a command that the hub needs; Redis before 7 cannot be asked."""
    sha = commands.scripts["permissions"].sha
    reply = await commands.call(
        "EVALSHA", sha, 1, keys.clock, keys.all_nodes_channel, *CHECKED_COMMANDS
    )
    if reply:
        forbidden = ", ".join(name.decode().upper() for name in reply)
        raise BadRequest(
            f"Redis does not allow the hub's user a command on keys and channels with the prefix {keys.prefix!r}: "
            f"{forbidden}"
        )


async def describe_server(commands: Commands) -> ServerDescription:
    """Return what an operator wants to know; warn of what the hub cannot do with this server. Raises Unavailable."""
    info = info_fields(await commands.call("INFO", "server"))
    persistent = info_fields(await commands.call("INFO", "persistence")).get("aof_enabled") == "1"
    product = f"Redis {info.get('redis_version', '')}"
    if "valkey_version" in info:
        product = f"Valkey {info['valkey_version']}"
    persistence = "none that keeps every message"
    if persistent:
        fsync = await _allowed(commands, "CONFIG", "GET", "appendfsync")
        fsync = fsync[1].decode() if fsync else "unknown, because Redis does not allow CONFIG GET"
        persistence = f"append-only file, fsync {fsync}"
    else:
        log.warning(
            "this Redis writes no append-only file: it forgets messages and sessions when it ends; set its appendonly to yes"
        )
    # No connection has this number.
    killed = await _allowed(commands, "CLIENT", "KILL", "ID", 2**62)
    if killed is None or await _allowed(commands, "CLIENT", "ID") is None:
        log.warning(
            "Redis does not allow CLIENT KILL or CLIENT ID: when a connection to Redis was lost, a command that was sent over it can "
            "take effect after later ones"
        )
    return ServerDescription(product, persistence)


async def _allowed(commands: Commands, *command: object) -> Any:
    """Return the reply to a command; None: Redis does not allow it. Raises Unavailable."""
    try:
        return await commands.call(*command)
    except HubError:
        if not commands.connected:
            raise
        return None

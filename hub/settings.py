"""Everything that can be set, with its default, unit and bounds: one frozen struct.

Each field is an environment variable too: `HUB_` and the field's name in capitals.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from hub.errors import BadRequest

Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Bytes = Annotated[int, Meta(ge=1024, le=1 << 30)]
Seconds = Annotated[float, Meta(gt=0, le=10 * 365 * 86400)]

# Scheme, host and port; the slash that people like to write behind it is no part of an origin.
_ORIGIN = re.compile(
    r"([a-z][a-z0-9+.-]*)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(\d{1,5}))?/?", re.ASCII
)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The hub's settings. Times are seconds, sizes bytes."""

    # -- where it listens and what it stands on
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8000
    # Empty: the embedded server. Otherwise redis://, rediss:// or unix://.
    redis_url: str = ""
    data_dir: str = ".hub"
    # Of every Redis key and channel; no braces, they name the hash tag.
    prefix: Annotated[str, Meta(pattern=r"^[^{}\s]{1,64}$")] = "hub"
    # How often the embedded server's append-only file reaches the disk.
    fsync: Annotated[str, Meta(pattern=r"^(everysec|always)$")] = "everysec"
    # Origins of pages that may connect, scheme://host[:port], comma-separated; "*" for all; empty: same origin only.
    cors: str = ""
    # Addresses or networks of proxies whose X-Forwarded-For, without it Forwarded, is believed, comma-separated.
    trusted_proxies: str = ""
    log_level: Annotated[str, Meta(pattern=r"^(debug|info|warning|error)$")] = "info"

    # -- Engine.IO
    ping_interval: Seconds = 25.0
    ping_timeout: Seconds = 20.0
    max_payload: Bytes = 1_000_000
    websocket_compression: bool = False
    # Of large polling answers.
    http_compression: bool = True
    # From the handshake to CONNECT, and from the WebSocket of an upgrade to its end.
    connect_timeout: Seconds = 45.0
    upgrade_timeout: Seconds = 10.0
    # Of one connection: messages a second (above it is read more slowly), packets in one polling body, and how deep
    # arrays and objects of its JSON may nest (stock Python clients fail at some 900).
    events_per_second: Count = 100_000
    max_packets: Count = 10_000
    max_depth: Annotated[int, Meta(ge=1, le=500)] = 100
    # The socket buffer of one client, above which it is parked and below which it is resumed.
    buffer_high: Bytes = 256 * 1024
    buffer_low: Annotated[int, Meta(ge=0, le=1 << 30)] = 64 * 1024
    # Connections of one hub process; 0: as many as it may have files open. Polling clients can take two files each.
    max_connections: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    # While its event loop is behind by more than this, newcomers are told to come back later.
    max_lag: Seconds = 1.0
    # Connections that one address may hold, and new ones it may bring a second, ten times as many at once; loopback
    # aside. An IPv6 network of 64 bits counts as one address. 0: no limit.
    connections_per_address: Annotated[int, Meta(ge=0, le=1_000_000)] = 1000
    newcomers_per_address: Annotated[int, Meta(ge=0, le=1_000_000)] = 100
    # Verbs that one connection may have under way, and the bytes that they came in; beyond them it is not read. All
    # that is under way is what everybody's next publish waits for.
    pending_verbs: Count = 200
    pending_bytes: Bytes = 4 * 1024 * 1024
    # Verbs that all connections together have under way, beyond which those that have more than 4 of them take turns;
    # each counts once more for each 4 KiB of it.
    pending_together: Count = 32
    # Publishes and acks of one connection a second, and all its other verbs, malformed ones among them; five times as
    # many at once. Each 16 KiB of an answer, or 25 messages, count as a verb more. Beyond: rate_limited.
    publishes_per_second: Count = 100_000
    verbs_per_second: Count = 1000

    # -- bounds of what is remembered (PROTOCOL §5)
    inbox_length: Count = 1000
    log_length: Count = 10_000
    log_age: Seconds = 86400.0
    anonymous_life: Seconds = 600.0
    named_life: Seconds = 86400.0
    rooms_per_session: Count = 1000
    history_limit: Annotated[int, Meta(ge=1, le=1000)] = 1000
    # One batch of a replay, and one answer with history, whichever comes first.
    replay_count: Count = 200
    replay_bytes: Bytes = 512 * 1024
    # What a node remembers of its rooms, so that clients that return together need no reading of logs; 0: nothing.
    replay_memory: Annotated[int, Meta(ge=0, le=1 << 40)] = 32 * 1024 * 1024
    dedupe_life: Seconds = 120.0

    # -- nodes
    # A node that has not renewed its lease for so long is dead, and its sessions are parked.
    lease: Seconds = 10.0
    # A bus on which the node's own probe has not come back for so long is deaf.
    bus_silence: Seconds = 4.0
    # A command to Redis not answered within this makes its connection count as broken.
    redis_timeout: Seconds = 10.0
    # SIGTERM: clients are let go evenly over this many seconds; few of them sooner, ten a second at least.
    drain: Annotated[float, Meta(ge=0, le=3600)] = 5.0

    def __post_init__(self) -> None:
        if self.buffer_low >= self.buffer_high:
            raise ValueError("buffer_low must be below buffer_high")
        _ = self.origins, self.proxies  # now, and not when half of the hub has been started

    @property
    def origins(self) -> tuple[str, ...]:
        """`cors` as browsers name origins. Raises ValueError."""
        return tuple(_origin(word) for word in _words(self.cors))

    @property
    def proxies(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """`trusted_proxies` as networks. Raises ValueError."""
        return tuple(_network(word) for word in _words(self.trusted_proxies))

    @property
    def longest_life(self) -> float:
        """How long a session may be away, whichever kind it is of."""
        return max(self.named_life, self.anonymous_life)

    @property
    def numbers_life(self) -> float:
        """How long a room's running numbers are kept after its last message.

        Longer than any session may have missed some of them, one included that nobody parked (it is kept for three
        lives, see common.lua).
        """
        life = self.longest_life
        return max(self.log_age, 2 * life) + life + min(life, 60.0)  # rule: numbers_last


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _origin(text: str) -> str:
    if text == "*":
        return text
    found = _ORIGIN.fullmatch(text.lower())
    if found is None:
        raise ValueError(f"cors: {text!r} is neither * nor scheme://host[:port]")
    scheme, host, port = found.groups()
    # Browsers leave out the scheme's own port.
    own = {"http": "80", "https": "443"}.get(scheme)
    return f"{scheme}://{host}" + (f":{port}" if port and port != own else "")


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"trusted_proxies: {text!r} is no address or network") from None


def load(environ: Mapping[str, str], **given: Any) -> Settings:
    """Return the settings: `given` (None: not given) wins over `HUB_*` variables, those over defaults.

    Raises BadRequest, naming the setting and the bound that it breaks.
    """
    values: dict[str, Any] = {}
    for name in Settings.__struct_fields__:
        if given.get(name) is not None:
            values[name] = given[name]
        elif (text := environ.get(f"HUB_{name.upper()}")) is not None:
            values[name] = text
    try:
        return msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        raise BadRequest(f"{where.rstrip('`')}: {what}" if where else what) from None

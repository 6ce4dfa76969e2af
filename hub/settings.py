"""Everything that can be set, with its meaning, unit, default and bounds: one frozen struct.

Each field is an environment variable too: `HUB_` and the field's name in capitals.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
import msgspec.inspect
from msgspec import Meta

from hub.errors import BadRequest
from hub.model import DEDUPE_LIFE, HISTORY_LIMIT

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
HOUR, YEAR = 3600.0, 365 * 86400.0


def _unit(name: str) -> Meta:
    """State the unit of a setting, for its explanation."""
    return Meta(extra={"unit": name})


def _rule(sentence: str) -> Meta:
    """State the bounds of a setting in words, where its type does not say them."""
    return Meta(extra={"rule": sentence})


Count = Annotated[int, Meta(ge=1, le=1_000_000)]
CountFromZero = Annotated[int, Meta(ge=0, le=1_000_000)]
Messages = Annotated[Count, _unit("messages")]
Connections = Annotated[CountFromZero, _unit("connections")]
Verbs = Annotated[Count, _unit("verbs")]
VerbsPerSecond = Annotated[Count, _unit("verbs a second")]
Bytes = Annotated[int, Meta(ge=KIB, le=GIB), _unit("bytes")]
Seconds = Annotated[float, Meta(gt=0, le=10 * YEAR), _unit("seconds")]

# Scheme, host and port; the slash that people like to write behind it is no part of an origin.
_ORIGIN = re.compile(
    r"([a-z][a-z0-9+.-]*)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(\d{1,5}))?/?", re.ASCII
)
_PATH_SEGMENT = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._~-]+", re.ASCII)
_HOST_NAME = re.compile(r"[a-z0-9._-]+", re.ASCII)


# Former names of variables, which are still taken, and their fields.
FORMER_VARIABLES = {"HUB_PREFIX": "redis_prefix"}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The hub's settings. Times are seconds, sizes bytes.

    `hub.cli.settings_reference` reads the lines below: `# -- …` begins a section, and the string
    under a field explains it to the hub's users.
    """

    # -- Where it listens

    host: str = "127.0.0.1"
    """The hub listens on these IP addresses, comma-separated. A name such as `localhost` stands for
    all of its addresses, 0.0.0.0 for every IPv4 address, and `::` for every IPv6 and IPv4 address.
    The option can be given several times."""

    port: Annotated[int, Meta(ge=0, le=65535)] = 8000
    """The hub listens on this TCP port. 0 picks a free one."""

    base_path: str = "/"
    """The path of every URL begins with this one: with `/hub` the page is at `/hub/`, and stock
    clients connect with the option `path: "/hub/socket.io"`. It is for a reverse proxy that passes
    on a path of its site unchanged."""

    # -- Redis

    redis_url: Annotated[str, _rule("it begins with redis://, rediss:// or unix://")] = ""
    """The hub uses the Redis (6.2 or newer) or Valkey at this URL. Without a URL it starts a server
    of its own, the embedded server."""

    data_dir: str = ".hub"
    """The embedded server keeps its data in this directory."""

    fsync: Literal["everysec", "always"] = "everysec"
    """The embedded server writes its data to the disk every second (`everysec`) or before each
    answer (`always`). With `everysec` a power cut may lose about two seconds of data. With `always`
    it loses nothing, but each publish takes longer."""

    redis_prefix: Annotated[
        str,
        # Braces would name the hash tag.
        Meta(pattern=r"^[^{}\s]{1,64}\Z"),
        _rule("it needs 1 to 64 characters, none of them a brace or a blank"),
    ] = "hub"
    """Every Redis key and channel begins with this word. Hubs with different prefixes can share one
    Redis. The former names `HUB_PREFIX` and `--prefix` are still taken."""

    redis_timeout: Seconds = 10.0
    """Redis has this long to answer a command. A connection on which an answer takes longer is
    replaced by a new one."""

    # -- Browsers and proxies

    hosts: str = ""
    """The hub serves requests for these host names, comma-separated and without ports, or `*` for any.
    Requests whose `Host` header names another one get HTTP 421: so no foreign web page can reach the
    hub under a name of its own (DNS rebinding). If the list is empty, a hub that listens on loopback
    alone serves `localhost`, `127.0.0.1`, `[::1]` and what `HUB_HOST` names, and any other hub serves
    every name. The `X-Forwarded-Host` of a trusted proxy must be in the list, too."""

    cors: str = ""
    """Web pages of these origins may connect: `scheme://host[:port]`, comma-separated, `*` for all, or
    `dev` for those on `localhost`, `127.0.0.1` and `[::1]` with any port. If the list is empty, only
    pages of the hub's own origin may connect."""

    page: bool = True
    """If true, the demo page is served at `/`. The stock client's files are served in any case."""

    trusted_proxies: str = ""
    """These are IP addresses or networks of proxies, comma-separated. Only from these does the hub
    believe the headers `X-Forwarded-For` (without it `Forwarded`) and `X-Forwarded-Host`."""

    # -- Connections

    ping_interval: Seconds = 25.0
    """The hub pings each connection at this interval."""

    ping_timeout: Seconds = 20.0
    """A client has this long to answer a ping. After that its connection is closed. While more than
    `HUB_BUFFER_HIGH` waits for the client, it has this long again each time that it has read some
    of it."""

    connect_timeout: Seconds = 45.0
    """A new connection has this long until its CONNECT, the first packet of Socket.IO, is accepted.
    After that it is closed."""

    upgrade_timeout: Seconds = 10.0
    """An upgrade from polling to WebSocket may take this long. After that the client stays on
    polling."""

    max_message: Bytes = 1_000_000
    """A message that a client sends may have this size, its binary values included. A longer one is
    answered with `too_large`. A WebSocket message or the body of a polling request that is more
    than twice as long closes the connection. Stock Python clients close their connection at
    a message of more than 4 MiB."""

    max_packets: Annotated[Count, _unit("packets")] = 10_000
    """The body of one polling request may hold this many packets. A body with more closes the
    connection."""

    # Stock Python clients fail at 500 levels of a message with binary values.
    max_depth: Annotated[int, Meta(ge=1, le=400), _unit("levels")] = 100
    """Arrays and objects in a client's JSON may be nested this deep. A verb with deeper nesting is
    answered with `bad_request`."""

    buffer_high: Bytes = 256 * KIB
    """The socket buffer of a client holds what the hub has sent and the client has not taken. If it
    is larger than this, its session is parked: further messages wait in Redis until the client has
    read enough. If it is larger than twice this, the hub reads nothing more from the client until
    then: the answers would make it larger still."""

    buffer_low: Annotated[int, Meta(ge=0, le=GIB), _unit("bytes")] = 64 * KIB
    """A session that was parked because of its socket buffer is resumed when no more than this is
    left in the buffer. It must be below `HUB_BUFFER_HIGH`."""

    websocket_compression: bool = False
    """If true, WebSocket messages are compressed for clients that offer it (permessage-deflate)."""

    http_compression: bool = True
    """If true, large polling answers are compressed for clients that accept gzip."""

    # -- Limits

    max_connections: Connections = 0
    """A hub process holds at most this many connections. Beyond that, a new client gets HTTP 503
    with `Retry-After`. 0 allows as many as the process may have files open, less 200; a polling
    client can take two files."""

    max_lag: Seconds = 1.0
    """While the event loop of a hub process is late by more than this, new clients get HTTP 503
    with `Retry-After`."""

    connections_per_address: Connections = 1000
    """One client address may hold this many connections. Beyond that, new ones get HTTP 503 with
    `Retry-After`. Loopback is exempt, and an IPv6 network of 64 bits counts as one address. 0 means
    no limit."""

    newcomers_per_address: Annotated[CountFromZero, _unit("connections a second")] = 100
    """One client address may open this many connections a second, and ten times as many at once.
    Beyond that, new ones get HTTP 503 with `Retry-After`. Loopback is exempt, and an IPv6 network
    of 64 bits counts as one address. 0 means no limit."""

    events_per_second: Annotated[Count, _unit("packets a second")] = 100_000
    """One connection may send this many Engine.IO packets a second, and as many at once. If it sends
    more, the hub reads it more slowly."""

    # What is in progress is what everybody's next publish waits for.
    pending_verbs: Verbs = 200
    """This many verbs of one connection may be in progress at a time. At this number the hub stops
    reading the connection until half of them are answered."""

    pending_bytes: Bytes = 4 * MIB
    """The verbs of one connection that are in progress may have this size together. At this size
    the hub stops reading the connection until half of it is answered."""

    pending_together: Verbs = 32
    """This many verbs of all connections of a hub process together may be in progress at a time. A
    verb counts once more for each 4 KiB of its size. Beyond that, the hub stops reading each
    connection that has more than 4 verbs in progress, until half of all are answered."""

    publishes_per_second: VerbsPerSecond = 100_000
    """One connection may send this many publishes and acks a second, and five times as many at
    once. Beyond that, the answer is `rate_limited`."""

    verbs_per_second: VerbsPerSecond = 1000
    """One connection may send this many verbs a second beside publishes and acks, and five times as
    many at once. Malformed verbs count, too. Each 16 KiB of an answer with history, or each 25
    messages that the hub reads for it, count as one more verb. Beyond that, the answer is
    `rate_limited`."""

    # -- What is remembered

    log_length: Messages = 10_000
    """A room's log keeps this many messages. Beyond that, the oldest are trimmed, and sessions that
    have not received them get a `hub:gap`."""

    log_age: Seconds = 24 * HOUR
    """A room's log keeps a message this long. After that it is trimmed, and sessions that have not
    received it get a `hub:gap`."""

    inbox_length: Messages = 1000
    """The inbox of a session that is away refers to at most this many messages. Beyond that, the
    oldest references are trimmed, and their messages are read from the room logs instead."""

    named_life: Seconds = 24 * HOUR
    """The session of a client with a `client_id` is kept this long after its connection ended.
    After that the client starts afresh."""

    anonymous_life: Seconds = 600.0
    """The session of a client without a `client_id` is kept this long after its connection ended.
    After that the client starts afresh."""

    rooms_per_session: Annotated[Count, _unit("rooms")] = 1000
    """A session may be subscribed to this many rooms. Beyond that, `subscribe` is answered with
    `bad_request`."""

    history_limit: Annotated[int, Meta(ge=1, le=HISTORY_LIMIT), _unit("messages")] = HISTORY_LIMIT
    """One answer with history holds at most this many messages. If the log has more, the answer has
    `more: true`."""

    replay_count: Messages = 200
    """One batch of a replay holds at most this many messages. The next batch follows when the
    client has read this one."""

    replay_bytes: Bytes = 512 * KIB
    """One batch of a replay, or one answer with history, ends at this size if it has not ended at
    its number of messages. It holds at least one message."""

    replay_memory: Annotated[int, Meta(ge=0, le=TIB), _unit("bytes")] = 32 * MIB
    """A hub process keeps the newest messages of its rooms in this much memory. Clients that
    reconnect at the same time are then replayed from memory and not from the room logs. Beyond
    that, the oldest messages are dropped from memory, never from the logs. 0 keeps none."""

    dedupe_life: Seconds = DEDUPE_LIFE
    """The `id` of a publish is remembered this long. After that, a publish with the same `id` is
    stored again."""

    # -- Operation

    lease: Seconds = 10.0
    """A hub process that has not renewed its lease in Redis for this long counts as dead. The other
    processes then park its sessions."""

    bus_silence: Seconds = 4.0
    """A hub process sends probes to itself over the bus (Redis pub/sub). If nothing arrives over
    the bus for this long, not even a probe, the bus counts as lost. The process then connects it
    anew, and reads missed messages from the room logs."""

    drain: Annotated[float, Meta(ge=0, le=HOUR), _unit("seconds")] = 5.0
    """After SIGTERM, the hub disconnects its clients evenly over this time, at least ten a
    second."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The hub logs messages of this level, or more severe ones, on standard error."""

    log_format: Literal["text", "json"] = "text"
    """A line of the log is text with fields as `key=value`, or one JSON object."""

    def __post_init__(self) -> None:
        if self.buffer_low >= self.buffer_high:
            raise ValueError(f"buffer_low: it must be below HUB_BUFFER_HIGH ({self.buffer_high})")
        # Now, and not when half of the hub has been started.
        _ = self.listening_names, self.url_prefix, self.host_names, self.origins, self.proxies

    @property
    def listening_names(self) -> tuple[str, ...]:
        """The addresses and names in `host`, without brackets. Raises ValueError."""
        names = tuple(word.removeprefix("[").removesuffix("]") for word in _words(self.host))
        if not names:
            raise ValueError("host: it names no address")
        return names

    @property
    def url_prefix(self) -> str:
        """`base_path` as a path begins with it: empty, or `/` and the segments. Raises ValueError."""
        segments = self.base_path.strip("/").split("/")
        if segments == [""]:
            return ""
        if not all(map(_PATH_SEGMENT.fullmatch, segments)):
            raise ValueError(
                f"base_path: {self.base_path!r} is no path of letters, digits, '.', '_', '~' and '-'"
            )
        return "/" + "/".join(segments)

    @property
    def host_names(self) -> tuple[str, ...]:
        """`hosts` as a `Host` header names them, without ports. Raises ValueError."""
        return tuple(_host_name(word) for word in _words(self.hosts))

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
        lives, see session.lua).
        """
        life = self.longest_life
        return max(self.log_age, 2 * life) + life + min(life, 60.0)  # rule: numbers_last


def without_password(url: str) -> str:
    """Return the URL with `***` instead of its password, which stands before the host or in the query."""
    password = urlsplit(url).password
    url = url.replace(f":{password}@", ":***@") if password else url
    return re.sub(r"(?<=password=)[^&#]*", "***", url)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _host_name(text: str) -> str:
    if text == "*":
        return text
    try:
        address = ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        if _HOST_NAME.fullmatch(text.lower()):
            return text.lower()
        raise ValueError(f"hosts: {text!r} is neither * nor a host name without a port") from None
    return f"[{address}]" if address.version == 6 else str(address)


def _origin(text: str) -> str:
    if text in ("*", "dev"):
        return text
    found = _ORIGIN.fullmatch(text.lower())
    if found is None:
        raise ValueError(f"cors: {text!r} is neither *, dev nor scheme://host[:port]")
    scheme, host = found[1], found[2]
    port = int(found[3] or 0)
    if found[3] and not 0 < port < 65536:
        raise ValueError(f"cors: {text!r} has no port of 1 to 65535")
    # Browsers leave out the scheme's own port.
    own = {"http": 80, "https": 443}.get(scheme)
    return f"{scheme}://{host}" + (f":{port}" if port and port != own else "")


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"trusted_proxies: {text!r} is no address or network") from None


# The settings that take one of a few words.
_WORDS = frozenset(
    field.name
    for field in msgspec.inspect.type_info(Settings).fields  # type: ignore[attr-defined]
    if isinstance(field.type, msgspec.inspect.LiteralType)
)


def load(environ: Mapping[str, str], **given: Any) -> Settings:
    """Return the settings: `given` (None: not given) wins over `HUB_*` variables, those over defaults.

    Words that a setting lists as its values are taken in capitals too. Raises BadRequest, naming the setting and the bound that it breaks.
    """
    values: dict[str, Any] = {
        field: environ[variable]
        for variable, field in FORMER_VARIABLES.items()
        if variable in environ
    }
    for name in Settings.__struct_fields__:
        if given.get(name) is not None:
            values[name] = given[name]
        elif (text := environ.get(f"HUB_{name.upper()}")) is not None:
            values[name] = text
    for name in _WORDS & values.keys():
        values[name] = str(values[name]).lower()
    try:
        return msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        raise BadRequest(f"{where.rstrip('`')}: {what}" if where else what) from None

"""The options of `hub serve`, as a table: which settings they are, their headings and help."""

from __future__ import annotations

from typing import NamedTuple


class Flag(NamedTuple):
    """An option of `hub serve`: a field of Settings, under a heading of the help."""

    group: str
    field: str
    help: str
    metavar: str | None = None
    shown_default: str | None = None

    @property
    def name(self) -> str:
        return "--" + self.field.replace("_", "-")

    @property
    def envvar(self) -> str:
        return f"HUB_{self.field.upper()}"


LISTENING, STORAGE, WEB = "Listening", "Where messages are kept", "Browsers and proxies"
MEMORY, LINKS, OPERATION = "What is remembered", "Connections", "Operation"

FLAGS = (
    Flag(LISTENING, "host", "Address to listen on; 0.0.0.0 for every IPv4 address.", "ADDRESS"),
    Flag(LISTENING, "port", "Port to listen on; 0 picks a free one.", "PORT"),
    Flag(
        STORAGE,
        "redis_url",
        "A Redis (6.2 or newer) or Valkey to use: redis://, rediss:// or unix://. "
        "Without one the hub starts a server of its own and keeps its data in the data directory.",
        "URL",
        "a server of the hub's own",
    ),
    Flag(STORAGE, "data_dir", "Directory of the hub's own server.", "DIRECTORY"),
    Flag(
        STORAGE,
        "fsync",
        "How often the hub's own server writes through to the disk: 'always' loses nothing at a "
        "power cut and costs time, 'everysec' may lose about two seconds.",
    ),
    Flag(
        STORAGE,
        "prefix",
        "First part of every Redis key and channel; several hubs share one Redis by it.",
        "WORD",
    ),
    Flag(
        WEB,
        "cors",
        "Origins whose pages may connect, comma-separated, such as https://example.org; '*' for all.",
        "ORIGINS",
        "the hub's own pages only",
    ),
    Flag(
        WEB,
        "trusted_proxies",
        "Addresses or networks of proxies whose Forwarded headers are believed, comma-separated.",
        "NETWORKS",
        "none",
    ),
    Flag(MEMORY, "log_length", "Messages a room's log keeps.", "COUNT"),
    Flag(MEMORY, "log_age", "How long a room's log keeps a message.", "SECONDS"),
    Flag(MEMORY, "inbox_length", "Missed messages an absent client's inbox holds.", "COUNT"),
    Flag(
        MEMORY,
        "named_life",
        "How long a client with a name may be away before it starts afresh.",
        "SECONDS",
    ),
    Flag(MEMORY, "anonymous_life", "The same for a client without a name.", "SECONDS"),
    Flag(LINKS, "ping_interval", "Time between two pings of a connection.", "SECONDS"),
    Flag(LINKS, "ping_timeout", "How long a connection may take to answer one.", "SECONDS"),
    Flag(LINKS, "max_payload", "Largest message a client may send.", "BYTES"),
    Flag(
        LINKS,
        "max_connections",
        "Connections this process takes; beyond them newcomers are told to come back later.",
        "COUNT",
        "as many as it may have files open",
    ),
    Flag(
        LINKS,
        "connections_per_address",
        "Connections one address may hold, loopback aside; 0: no limit.",
        "COUNT",
    ),
    Flag(OPERATION, "drain", "At SIGTERM, let clients go evenly over this time.", "SECONDS"),
    Flag(OPERATION, "log_level", "What to log on standard error."),
)

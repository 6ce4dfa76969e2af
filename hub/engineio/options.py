"""What can be set on the engine: one frozen dataclass, every bound beside its default."""

from __future__ import annotations

from dataclasses import dataclass, fields
from ipaddress import IPv4Network, IPv6Network
from typing import Any

Network = IPv4Network | IPv6Network

# What python-socketio hands down to its Engine.IO server and this engine has no use for.
_NOT_OURS = frozenset({"async_handlers", "async_mode", "json", "logger", "monitor_clients"})


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """The engine's settings. Times are seconds, sizes bytes.

    0 is no limit in what decides who may come in, in connect_timeout and in events_per_second.
    """

    # -- heartbeat
    ping_interval: float = 25.0
    ping_timeout: float = 20.0

    # -- deadlines
    # From the WebSocket of an upgrade to its `5`; then the session stays on polling.
    upgrade_timeout: float = 10.0
    # From the handshake until the layer above calls `establish()`; then the session is closed.
    connect_timeout: float = 45.0
    # How long what was written may take to leave after close(), and the peer to say goodbye too.
    close_timeout: float = 5.0

    # -- input, per connection
    # One WebSocket message, and one polling body. Told to clients as maxPayload.
    max_payload: int = 1_000_000
    # Packets in one polling body. The stock client fills bodies up to maxPayload.
    max_packets: int = 10_000
    # Attachments of one Socket.IO packet; stock clients stop at 10 themselves.
    max_attachments: int = 10
    # Nesting of arrays and objects in a client's JSON.
    max_depth: int = 100
    # Messages a second of one connection; above it is read more slowly, never refused. The layer above may count
    # those that cost it more as several.
    events_per_second: int = 100_000

    # -- output, per connection
    # Bytes that the peer has not taken: listener.on_high() above, listener.on_low() below.
    buffer_high: int = 256 * 1024
    buffer_low: int = 64 * 1024
    # Above this the connection is closed: whoever writes did not heed on_high().
    buffer_limit: int = 16 * 1024 * 1024
    # The most packets in a polling answer; stock Python clients drop longer ones.
    answer_packets: int = 16

    # -- who may come in: above one of these a handshake gets 503 with Retry-After
    # Connections altogether.
    max_connections: int = 0
    # Seconds that the event loop may be behind.
    max_lag: float = 1.0
    # Connections that one address may hold, and new ones it may bring a second; ten times as many at once. Loopback aside.
    connections_per_address: int = 1000
    newcomers_per_address: int = 100

    # -- peers
    # Origins of pages that may connect. "*": any, without credentials. Empty: same origin only.
    cors: tuple[str, ...] = ()
    # Whose Forwarded and X-Forwarded-* headers are believed.
    trusted_proxies: tuple[Network, ...] = ()

    # -- compression
    websocket_compression: bool = False
    http_compression: bool = True
    # Answers and messages shorter than this are never compressed.
    compression_threshold: int = 1024

    def __post_init__(self) -> None:
        if self.ping_interval <= 0 or self.ping_timeout <= 0:
            raise ValueError("ping_interval and ping_timeout must be above 0")
        if not 0 <= self.buffer_low < self.buffer_high <= self.buffer_limit:
            raise ValueError("buffer_low < buffer_high <= buffer_limit must hold")
        if self.max_payload < 1 or self.max_packets < 1 or self.answer_packets < 1:
            raise ValueError("max_payload, max_packets and answer_packets must be at least 1")


def from_kwargs(given: dict[str, Any]) -> EngineOptions:
    """Return the options from keyword arguments as python-socketio passes them down.

    Raises TypeError for a name that is none of the engine's options.
    """
    known = {field.name for field in fields(EngineOptions)}
    values = {name: value for name, value in given.items() if name not in _NOT_OURS}
    if unknown := sorted(values.keys() - known):
        raise TypeError(f"unknown engine options: {', '.join(unknown)}")
    return EngineOptions(**values)

"""The options of the engine: one frozen dataclass, each bound with its default.

Where the hub has a setting of the same name, its default stands in `hub.settings`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from hub.model import ATTACHMENTS, POLLING_PACKETS
from hub.settings import Settings

Network = IPv4Network | IPv6Network

# Options of python-socketio's that it passes on to its Engine.IO server, and that this engine does not use.
_NOT_OURS = frozenset({"async_handlers", "async_mode", "json", "logger", "monitor_clients"})

_SETTINGS = Settings()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """The engine's options. Times are in seconds, sizes in bytes.

    0 means no limit for the options of admission control, for connect_timeout and for events_per_second.
    """

    # -- heartbeat
    ping_interval: float = _SETTINGS.ping_interval
    ping_timeout: float = _SETTINGS.ping_timeout

    # -- deadlines
    # From the WebSocket of an upgrade to its `5` packet. A longer upgrade fails, and the session stays on polling.
    upgrade_timeout: float = _SETTINGS.upgrade_timeout
    # From the handshake until the layer above calls `establish`. A session that takes longer is closed.
    connect_timeout: float = _SETTINGS.connect_timeout
    # From `close` until all that was written has left and the peer has closed too. What takes longer is cut.
    close_timeout: float = 5.0

    # -- input, per connection
    # The longest Socket.IO message, its attachments included. Clients get it as maxPayload: no body need be longer.
    max_message: int = _SETTINGS.max_message
    # The longest WebSocket message, and the longest body of a POST. It leaves room for messages that are refused with an
    # answer, and for attachments in base64.
    max_payload: int = 2 * _SETTINGS.max_message
    # Packets in the body of one POST. The stock client fills bodies up to maxPayload.
    max_packets: int = _SETTINGS.max_packets
    # Attachments of one Socket.IO packet.
    max_attachments: int = ATTACHMENTS
    # Nesting of arrays and objects in a client's JSON.
    max_depth: int = _SETTINGS.max_depth
    # Messages a second; above it the connection is read more slowly, and none is refused. The layer above may count a
    # message that costs it more as several.
    events_per_second: int = _SETTINGS.events_per_second

    # -- output, per connection
    # Bytes that the peer has not taken: above buffer_high the listener's on_high is called, at buffer_low its on_low.
    buffer_high: int = _SETTINGS.buffer_high
    buffer_low: int = _SETTINGS.buffer_low
    # Above this the connection is ended: the layer above has ignored on_high.
    buffer_limit: int = 16 * 1024 * 1024
    # The most packets in the response to a poll.
    answer_packets: int = POLLING_PACKETS

    # -- admission control: above one of these a handshake gets HTTP 503 with Retry-After
    # Connections altogether.
    max_connections: int = 0
    # Seconds that the event loop may be late.
    max_lag: float = _SETTINGS.max_lag
    # Connections of one address, and its new connections a second; ten times as many at once. Loopback is not limited.
    connections_per_address: int = _SETTINGS.connections_per_address
    newcomers_per_address: int = _SETTINGS.newcomers_per_address

    # -- origins and proxies
    # Origins of pages that may connect. "*": any, without credentials. "dev": any on localhost. Empty: same origin only.
    cors: tuple[str, ...] = ()
    # Proxies whose Forwarded and X-Forwarded-* headers are believed.
    trusted_proxies: tuple[Network, ...] = ()

    # -- compression
    websocket_compression: bool = _SETTINGS.websocket_compression
    http_compression: bool = _SETTINGS.http_compression
    # Responses and messages shorter than this are never compressed.
    compression_threshold: int = 1024

    def __post_init__(self) -> None:
        if self.ping_interval <= 0 or self.ping_timeout <= 0:
            raise ValueError("ping_interval and ping_timeout must be above 0")
        if not 0 <= self.buffer_low < self.buffer_high <= self.buffer_limit:
            raise ValueError("buffer_low < buffer_high <= buffer_limit must hold")
        if self.max_payload < 1 or self.max_packets < 1 or self.answer_packets < 1:
            raise ValueError("max_payload, max_packets and answer_packets must be at least 1")


def from_kwargs(given: dict[str, Any]) -> EngineOptions:
    """Return the options from the keyword arguments that python-socketio passes on.

    Raises TypeError for an unknown name.
    """
    known = {field.name for field in fields(EngineOptions)}
    values = {name: value for name, value in given.items() if name not in _NOT_OURS}
    if unknown := sorted(values.keys() - known):
        raise TypeError(f"unknown engine options: {', '.join(unknown)}")
    return EngineOptions(**values)

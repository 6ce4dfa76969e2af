"""The engine's options that follow from the settings."""

from __future__ import annotations

from hub.engineio.options import EngineOptions
from hub.settings import Settings


def engine_options(settings: Settings, max_connections: int) -> EngineOptions:
    """Return the engine's options; `max_connections` is what the process can hold."""
    return EngineOptions(
        ping_interval=settings.ping_interval,
        ping_timeout=settings.ping_timeout,
        upgrade_timeout=settings.upgrade_timeout,
        connect_timeout=settings.connect_timeout,
        max_message=settings.max_message,
        max_payload=2 * settings.max_message,
        max_packets=settings.max_packets,
        max_depth=settings.max_depth,
        events_per_second=settings.events_per_second,
        buffer_high=settings.buffer_high,
        buffer_low=settings.buffer_low,
        # A replayed batch is written in one piece, also into a buffer that is filled up to buffer_high.
        buffer_limit=max(
            EngineOptions().buffer_limit, 4 * (settings.buffer_high + settings.replay_bytes)
        ),
        max_connections=max_connections,
        max_lag=settings.max_lag,
        connections_per_address=settings.connections_per_address,
        newcomers_per_address=settings.newcomers_per_address,
        cors=settings.origins,
        trusted_proxies=settings.proxies,
        websocket_compression=settings.websocket_compression,
        http_compression=settings.http_compression,
    )

"""The states of an Engine.IO session, the moves between them, and how a session is said goodbye."""

from __future__ import annotations

import enum


class ConnectionState(enum.Enum):
    OPENING = "opening"  # the layer above decides whether it wants this session
    OPEN = "open"
    UPGRADING = "upgrading"  # on polling, with a WebSocket that is being probed
    CLOSING = "closing"  # over for the layer above; what was written is still leaving
    CLOSED = "closed"


MOVES: dict[ConnectionState, frozenset[ConnectionState]] = {
    ConnectionState.OPENING: frozenset({ConnectionState.OPEN, ConnectionState.CLOSED}),
    ConnectionState.OPEN: frozenset(
        {ConnectionState.UPGRADING, ConnectionState.CLOSING, ConnectionState.CLOSED}
    ),
    ConnectionState.UPGRADING: frozenset(
        {ConnectionState.OPEN, ConnectionState.CLOSING, ConnectionState.CLOSED}
    ),
    ConnectionState.CLOSING: frozenset({ConnectionState.CLOSED}),
    ConnectionState.CLOSED: frozenset(),
}


class CloseCode(enum.Enum):
    """Why we end a connection, as the WebSocket close code; on polling the next poll gets 400."""

    DONE = 1000  # after a Socket.IO disconnect: the client stays away
    GOING_AWAY = 1001  # come back
    RESTART = 1012  # come back, this server restarts
    TRY_AGAIN = 1013  # come back, but not at once


class DisconnectReason:
    """Why a session ended, in python-engineio's words."""

    SERVER_DISCONNECT = "server disconnect"
    CLIENT_DISCONNECT = "client disconnect"
    PING_TIMEOUT = "ping timeout"
    TRANSPORT_CLOSE = "transport close"
    TRANSPORT_ERROR = "transport error"

"""The states of an Engine.IO session, the moves between them, and why a session ends."""

from __future__ import annotations

import enum


class ConnectionState(enum.Enum):
    OPENING = "opening"  # the connect handler decides whether to accept the session
    OPEN = "open"
    UPGRADING = "upgrading"  # on polling; a WebSocket is being probed
    CLOSING = (
        "closing"  # the end was reported to the layer above; what was written is still being sent
    )
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
    """Why the server ends a connection, as its WebSocket close code. On polling the next poll gets HTTP 400."""

    DONE = 1000  # after a Socket.IO disconnect: the client does not reconnect
    GOING_AWAY = 1001  # the client may reconnect
    RESTART = 1012  # the client may reconnect, this server restarts
    TRY_AGAIN = 1013  # the client may reconnect, but not at once


class DisconnectReason:
    """Why a session ended, in python-engineio's words."""

    SERVER_DISCONNECT = "server disconnect"
    CLIENT_DISCONNECT = "client disconnect"
    PING_TIMEOUT = "ping timeout"
    TRANSPORT_CLOSE = "transport close"
    TRANSPORT_ERROR = "transport error"

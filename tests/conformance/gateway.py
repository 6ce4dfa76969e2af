"""A gateway that leaves everything to the Socket.IO server's own handlers; tests replace what they look at."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from hub.engineio.core.connection import Connection
from hub.engineio.core.prepared import PreparedMessage
from hub.errors import HubError
from hub.socketio.server import SocketIOServer


def connection_of(server: SocketIOServer, sid: str) -> Connection | None:
    """Return the connection of a Socket.IO sid of "/"; None: there is none."""
    client = server._clients.get(server.manager.eio_sid_from_sid(sid, "/") or "")
    return None if client is None else client.connection


class PlainGateway:
    def __init__(self, server: SocketIOServer) -> None:
        self.server = server
        server.gateway = self

    async def on_connect(self, connection: Connection, auth: Any) -> Any:
        sid = self.server.manager.sid_from_eio_sid(connection.sid, "/")
        return await self._call("connect", sid, connection.environ, auth)

    def write_connect_reply(self, connection: Connection, reply: PreparedMessage) -> None:
        connection.send(reply)

    async def on_disconnect(self, connection: Connection, reason: str) -> None:
        sid = self.server.manager.sid_from_eio_sid(connection.sid, "/")
        await self._call("disconnect", sid, reason)

    def on_event(
        self, connection: Connection, ack: str, text: str, attachments: Sequence[bytes] = ()
    ) -> bool:
        return False

    def on_refused(self, connection: Connection, ack: str, error: HubError) -> None:
        pass

    async def _call(self, event: str, *arguments: Any) -> Any:
        handler = self.server.handlers.get("/", {}).get(event)
        result = handler(*arguments) if handler is not None else None
        return await result if inspect.isawaitable(result) else result

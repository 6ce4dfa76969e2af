"""A gateway that leaves everything to the Socket.IO server's own handlers; tests replace what they look at."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from hub.engineio.core.connection import Connection
from hub.engineio.core.prepared import PreparedMessage
from hub.socketio.server import SocketIOServer


class PlainGateway:
    def __init__(self, server: SocketIOServer) -> None:
        self.server = server
        server.gateway = self

    async def on_connect(self, sid: str, environ: Mapping[str, Any], auth: Any) -> Any:
        return await self._call("connect", sid, environ, auth)

    def write_connect_reply(self, sid: str, reply: PreparedMessage) -> None:
        connection = self.server.connection(sid)
        assert connection is not None
        connection.send(reply)

    async def on_disconnect(self, sid: str, reason: str) -> None:
        await self._call("disconnect", sid, reason)

    def on_event(
        self, connection: Connection, ack: str, text: str, attachments: Sequence[bytes] = ()
    ) -> bool:
        return False

    async def _call(self, event: str, *arguments: Any) -> Any:
        handler = self.server.handlers.get("/", {}).get(event)
        result = handler(*arguments) if handler is not None else None
        return await result if inspect.isawaitable(result) else result

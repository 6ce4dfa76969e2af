"""The stock asyncio Python client, with handlers that take what the hub sends."""

from __future__ import annotations

from typing import Any

import socketio

from tests.support.times import eventually


class Stock:
    """A `socketio.AsyncClient` that keeps what it hears; only its haste is not the default."""

    def __init__(self) -> None:
        self.sio = socketio.AsyncClient(
            reconnection_delay=0.05, reconnection_delay_max=0.2, randomization_factor=0,
            handle_sigint=False,
        )  # fmt: skip
        self.sessions: list[dict[str, Any]] = []
        self.messages: list[list[Any]] = []
        self.disconnects: list[str] = []
        self.sio.on("hub:session", lambda info, _offset: self.sessions.append(info))
        self.sio.on("m", lambda data, meta, offset: self.messages.append([data, meta, offset]))
        self.sio.on("disconnect", self.disconnects.append)

    async def connect(self, url: str, transport: str = "websocket", **auth: Any) -> Stock:
        """Connect and return when the session is there."""
        await self.sio.connect(url, auth=auth, transports=[transport], wait_timeout=5)
        await eventually(lambda: self.sessions)
        return self

    def data(self) -> list[Any]:
        """Return the data of each message."""
        return [data for data, _, _ in self.messages]

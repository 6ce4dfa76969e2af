"""The stock asyncio Python client, with handlers that take what the hub sends."""

from __future__ import annotations

from typing import Any

import aiohttp
import socketio

from tests.support.times import MS, UNIT, eventually


class Stock:
    """A `socketio.AsyncClient` that keeps what it hears; its haste is not the default, and it is not patient for ever.

    `silence`: seconds after which a silent connection counts as dead, as docs/client.md advises.
    """

    def __init__(self, silence: float = 45.0) -> None:
        times = aiohttp.ClientTimeout(total=None, sock_connect=silence, sock_read=silence)
        self.sio = socketio.AsyncClient(
            reconnection_delay=50 * MS, reconnection_delay_max=200 * MS, randomization_factor=0,
            handle_sigint=False,
            http_session=lambda: aiohttp.ClientSession(timeout=times),
            websocket_extra_options={
                "timeout": aiohttp.ClientWSTimeout(ws_receive=silence, ws_close=silence)
            },
        )  # fmt: skip
        self.sessions: list[dict[str, Any]] = []
        self.messages: list[list[Any]] = []
        self.disconnects: list[str] = []
        self.sio.on("hub:session", lambda info, _offset: self.sessions.append(info))
        self.sio.on("m", lambda data, meta, offset: self.messages.append([data, meta, offset]))
        self.sio.on("disconnect", self.disconnects.append)

    async def connect(self, url: str, *transports: str, **auth: Any) -> Stock:
        """Connect, over WebSocket where nothing else is said, and return when the session is there."""
        await self.sio.connect(
            url, auth=auth, transports=list(transports or ["websocket"]), wait_timeout=5 * UNIT
        )  # fmt: skip
        await eventually(lambda: self.sessions)
        return self

    def data(self) -> list[Any]:
        """Return the data of each message."""
        return [data for data, _, _ in self.messages]

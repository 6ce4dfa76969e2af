"""The aiohttp application of one hub process: the page, its health, and Socket.IO."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from hub.node.node import Node
from hub.runtime import static_files
from hub.socketio.server import SocketIOServer

PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build_app(node: Node, server: SocketIOServer) -> web.Application:
    """Return the application that serves a node. Raises NotFound where files of the page are missing."""
    app = web.Application()
    app.router.add_get("/healthz", _healthz)
    app.router.add_get("/readyz", _readyz(node, server))
    for path, file in static_files.routes().items():
        app.router.add_get(path, _page_file(file))
    server.attach(app)
    return app


async def _healthz(_: web.Request) -> web.Response:
    """Say that the process is up."""
    return web.json_response({"ok": True})


def _readyz(node: Node, server: SocketIOServer) -> Handler:
    """Return the handler that says whether Redis and the bus are connected and new clients are admitted."""

    async def readyz(_: web.Request) -> web.Response:
        state = {"redis": node.store.commands.up, "bus": node.store.bus.up}
        ready = all(state.values()) and not server.eio.admission.refusing
        return web.json_response({"ok": ready, **state}, status=200 if ready else 503)

    return readyz


def _page_file(path: Path) -> Handler:
    """Return the handler that serves one file of the page."""

    async def page_file(_: web.Request) -> web.StreamResponse:
        return web.FileResponse(path, headers=PAGE_HEADERS)

    return page_file

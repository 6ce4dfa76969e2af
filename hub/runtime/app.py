"""The aiohttp application of one hub process: the page, its health, and Socket.IO."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from aiohttp import web

from hub.node.node import Node
from hub.runtime import static_files
from hub.settings import Settings
from hub.socketio.server import SocketIOServer

PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


def build_app(settings: Settings, node: Node, server: SocketIOServer) -> web.Application:
    """Return the application of one hub process; all of its paths begin with the base path."""
    app = web.Application()
    prefix, health = settings.url_prefix, Health(node, server)
    app.router.add_get(f"{prefix}/healthz", health.answer_healthz)
    app.router.add_get(f"{prefix}/readyz", health.answer_readyz)
    for path, file in static_files.routes(page=settings.page).items():
        app.router.add_get(prefix + path, PageFile(file).serve)
    if prefix and settings.page:
        # The page's URLs are relative to a path that ends in a slash.
        app.router.add_get(prefix, partial(_redirect, f"{prefix}/"))
    server.attach(app, f"{prefix}/socket.io")
    app.on_response_prepare.append(_hide_versions)
    return app


async def _redirect(path: str, _: web.Request) -> web.StreamResponse:
    return web.Response(status=308, headers={"Location": path})


async def _hide_versions(_: web.Request, response: web.StreamResponse) -> None:
    """Remove the header in which aiohttp tells its version and Python's."""
    response.headers.popall("Server", None)


class Health:
    """Answers whether the process runs, and whether it is ready for new clients."""

    def __init__(self, node: Node, server: SocketIOServer) -> None:
        self._node = node
        self._server = server

    async def answer_healthz(self, _: web.Request) -> web.Response:
        """Answer that the process runs."""
        return web.json_response({"ok": True})

    async def answer_readyz(self, _: web.Request) -> web.Response:
        """Answer 200 if new clients are admitted and Redis is connected, takes writes and has the bus, otherwise 503.

        Then `reason` says why.
        """
        commands, bus = self._node.store.commands, self._node.store.bus
        state: dict[str, object] = {
            "redis": commands.up,
            "writes": commands.up and not commands.refused_write,
            "bus": bus.up,
        }
        reason = ""
        if not commands.up:
            reason = commands.why_down
        elif commands.refused_write:
            reason = f"Redis refuses writes: {commands.refused_write}"
        elif not bus.up:
            reason = f"the bus: {bus.why_down}"
        elif self._server.eio.admission.refusing:
            reason = "this process is ending"
        if reason:
            return web.json_response({"ok": False, **state, "reason": reason}, status=503)
        return web.json_response({"ok": True, **state})


class PageFile:
    """One file of the page or of the browser libraries."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._headers = PAGE_HEADERS | {"Content-Type": static_files.content_type(path)}

    async def serve(self, _: web.Request) -> web.StreamResponse:
        return web.FileResponse(self._path, headers=self._headers)

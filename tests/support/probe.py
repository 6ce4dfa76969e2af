"""A test build of the hub that tells at `/held` what its process holds. Imported for that effect."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from typing import Any

from aiohttp import web

import hub.runtime.process

# What to start instead of the hub's own command.
MAIN = "import tests.support.probe; from hub.cli.main import main; main()"


class Probed(hub.runtime.process.HubProcess):
    """Counts on request."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.app.router.add_get("/held", self._held)

    async def _held(self, request: web.Request) -> web.Response:
        circles = gc.collect()
        kinds = Counter(type(thing).__qualname__ for thing in gc.get_objects())
        return web.json_response(
            {
                "circles": circles,
                "tasks": len(asyncio.all_tasks()),
                "connections": len(self.server.eio.connections),
                "sessions": len(self.node.sessions),
                "objects": kinds.total(),
                "kinds": dict(kinds),
            }
        )


hub.runtime.process.HubProcess = Probed  # type: ignore[misc]

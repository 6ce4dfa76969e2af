"""python-socketio as it is, on aiohttp: in memory, or with its Redis manager where a Redis socket is named.

    python server.py [REDIS_SOCKET]

Prints the port that it listens on. Understands the hub's verbs `subscribe` and `publish`.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import socketio
from aiohttp import web


async def serve(redis: str | None) -> None:
    manager = socketio.AsyncRedisManager(f"unix://{redis}") if redis else None
    sio = socketio.AsyncServer(async_mode="aiohttp", client_manager=manager)

    @sio.event
    async def subscribe(sid: str, verb: dict[str, Any]) -> dict[str, Any]:
        await sio.enter_room(sid, verb["room"])
        return {"ok": True}

    @sio.event
    async def publish(_: str, verb: dict[str, Any]) -> dict[str, Any]:
        await sio.emit(verb["event"], verb["data"], room=verb["room"])
        return {"ok": True}

    app = web.Application()
    sio.attach(app)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=4096)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


asyncio.run(serve(sys.argv[1] if len(sys.argv) > 1 else None))

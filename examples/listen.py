"""Listens to a room with the stock Python client. Enter loses the connection for five seconds.

python examples/listen.py [url] [room]
"""

import asyncio
import sys
import uuid

import aiohttp
import socketio

# Seconds of silence that end a connection, its beginning included: the hub's ping interval and timeout.
SILENCE = 45

url, room = [*sys.argv[1:], *["http://127.0.0.1:8000", "news"][len(sys.argv) - 1 :]]
times = aiohttp.ClientTimeout(total=None, sock_connect=SILENCE, sock_read=SILENCE)
client = socketio.AsyncClient(
    reconnection_delay=5,
    reconnection_delay_max=5,
    randomization_factor=0,
    # By itself this client waits for ever where a connection goes silent while it is being made.
    http_session=lambda: aiohttp.ClientSession(timeout=times),
    websocket_extra_options={
        "timeout": aiohttp.ClientWSTimeout(ws_receive=SILENCE, ws_close=SILENCE)
    },
)


@client.event
async def connect():
    await client.emit("subscribe", {"room": room})
    print(f"listening to {room}", flush=True)


@client.event
async def disconnect():
    print("connection lost", flush=True)


@client.on("headline")
async def headline(data, meta, offset):
    print("headline", data["text"], flush=True)


async def main():
    # The name keeps the session while this program runs: this client returns nothing else that would prove
    # who it is. Each start has a name of its own, so that it gets nothing that an earlier one has printed.
    name = f"listen-{uuid.uuid4().hex[:8]}"
    await client.connect(url, transports=["websocket"], auth={"client_id": name})
    while await asyncio.to_thread(sys.stdin.readline):
        await client.eio.ws.close()
    await client.disconnect()


asyncio.run(main())

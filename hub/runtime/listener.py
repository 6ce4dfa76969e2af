"""The listening sockets: how connections come in, several in one turn of the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Callable
from typing import Any

# Connections that wait to be accepted: a burst of returning clients must not wait for TCP to try again.
BACKLOG = 4096
# Connections accepted in one turn of the event loop. uvloop accepts one a turn for each listening socket, and so there
# are as many of the same port. Clients that come together are then served together: what they ask of Redis goes out in one write.
AT_ONCE = 16


async def listen(
    stack: contextlib.AsyncExitStack,
    protocol: Callable[[], asyncio.BaseProtocol],
    host: str,
    port: int,
    patience: float,
) -> Any:
    """Accept connections, kept alive by TCP, until `stack` is closed; return the address. Raises OSError.

    `patience`: seconds after which a peer that takes nothing of what was written to it is cut, whatever it is served.
    """
    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, host, port, backlog=BACKLOG)
    stack.callback(server.close)
    for listening in server.sockets:
        # Connections inherit it: cheaper than for each of them.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if sys.platform == "linux":
            listening.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(patience * 1000)
            )
        for _ in range(AT_ONCE - 1):
            # The same socket under another number: they share one queue.
            again = socket.fromfd(listening.fileno(), listening.family, listening.type)
            stack.callback((await loop.create_server(protocol, sock=again, backlog=BACKLOG)).close)
    return server.sockets[0].getsockname()

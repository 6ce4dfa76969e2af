"""The listening sockets, which accept several connections in one turn of the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Callable
from typing import Any

# Connections that may wait to be accepted. With fewer, TCP would refuse some of a burst of clients that reconnect, and
# they would wait until TCP tries again.
BACKLOG = 4096
# Connections accepted in one turn of the event loop. uvloop accepts one in each turn from each listening socket, so the
# port has this many. Clients that connect together are then served together: their Redis commands go out in one write.
ACCEPTS_PER_TURN = 16


async def listen(
    stack: contextlib.AsyncExitStack,
    protocol: Callable[[], asyncio.BaseProtocol],
    host: str,
    port: int,
    write_timeout: float,
) -> Any:
    """Accept connections until `stack` is closed; return the address. Raises OSError where it cannot listen.

    A connection whose peer acknowledges nothing of what was written to it for `write_timeout` seconds is cut.
    """
    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, host, port, backlog=BACKLOG)
    stack.callback(server.close)
    for listening in server.sockets:
        # Accepted connections inherit these options.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if sys.platform == "linux":
            listening.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(write_timeout * 1000)
            )
        for _ in range(ACCEPTS_PER_TURN - 1):
            # The same socket under another number; they share one queue of connections.
            duplicate = socket.fromfd(listening.fileno(), listening.family, listening.type)
            stack.callback(
                (await loop.create_server(protocol, sock=duplicate, backlog=BACKLOG)).close
            )
    return server.sockets[0].getsockname()

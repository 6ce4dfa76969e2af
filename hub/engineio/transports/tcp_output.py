"""How far the peer of a TCP connection has taken what was written to it, as the kernel knows."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import sys
import termios

# Where Linux has the field tcpi_bytes_acked in its struct tcp_info.
BYTES_ACKED = 120


def unacknowledged(transport: asyncio.Transport) -> int:
    """Return how many bytes wait for the peer: in the transport's buffer, and in the kernel."""
    queued = bytes(4)
    with contextlib.suppress(OSError, ValueError):  # some systems do not tell
        tcp = transport.get_extra_info("socket")
        queued = fcntl.ioctl(tcp.fileno(), termios.TIOCOUTQ, queued)
    return transport.get_write_buffer_size() + int.from_bytes(queued, sys.byteorder)


def taken(transport: asyncio.Transport) -> int:
    """Return how many bytes the peer's kernel has acknowledged; where the system does not tell, a number that changes with it."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        tcp = transport.get_extra_info("socket")
        info = tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, BYTES_ACKED + 8)
        if len(info) == BYTES_ACKED + 8:
            return int.from_bytes(info[BYTES_ACKED:], sys.byteorder)
    return -transport.get_write_buffer_size()

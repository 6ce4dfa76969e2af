"""Tells how much of the output of a TCP connection its peer has acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import sys
import termios

from hub.engineio.core.interfaces import Carrier

# Where Linux has the field tcpi_bytes_acked in its struct tcp_info.
BYTES_ACKED = 120


class TcpCarrier(Carrier):
    """A carrier that has its TCP connection in `_transport`."""

    __slots__ = ()

    _transport: asyncio.Transport

    @property
    def unacknowledged(self) -> int:
        """Return how many bytes wait for the peer: in the transport's buffer, and in the kernel."""
        queued = bytes(4)
        with contextlib.suppress(OSError, ValueError):  # some systems do not tell
            tcp = self._transport.get_extra_info("socket")
            queued = fcntl.ioctl(tcp.fileno(), termios.TIOCOUTQ, queued)
        return self._transport.get_write_buffer_size() + int.from_bytes(queued, sys.byteorder)

    @property
    def taken(self) -> int:
        """Return how many bytes the peer's kernel has acknowledged.

        Where the system does not tell, it is a number that changes with that.
        """
        with contextlib.suppress(OSError, ValueError, AttributeError):
            tcp = self._transport.get_extra_info("socket")
            info = tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, BYTES_ACKED + 8)
            if len(info) == BYTES_ACKED + 8:
                return int.from_bytes(info[BYTES_ACKED:], sys.byteorder)
        return -self._transport.get_write_buffer_size()

"""The listening sockets: all addresses on one port, each accepting several connections in one turn of the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from hub.errors import Unavailable

# Connections that may wait to be accepted. With fewer, TCP would refuse some of a burst of clients that reconnect, and
# they would wait until TCP tries again.
BACKLOG = 4096
# Connections accepted in one turn of the event loop. uvloop accepts one in each turn from each listening socket, so the
# port has this many. Clients that connect together are then served together: their Redis commands go out in one write.
ACCEPTS_PER_TURN = 16
# How often a free port is looked for that is free on all addresses.
PORT_ATTEMPTS = 10
# What a name stands for beside its own addresses: `::` for all of this machine.
ALSO = {"::": ("0.0.0.0",)}  # noqa: S104
WILDCARDS = ("0.0.0.0", "::")  # noqa: S104
# Errors for an address that the machine does not have, such as ::1 without IPv6. Other addresses of the name may do.
_NO_SUCH_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class ListeningAddress(NamedTuple):
    """An address to listen on, and the name in the settings that stands for it."""

    name: str
    family: socket.AddressFamily
    # As `socket.bind` takes it: first the IP address, then the port.
    place: tuple[Any, ...]

    @property
    def ip(self) -> str:
        return str(self.place[0])


async def bind(names: Sequence[str], port: int) -> list[socket.socket]:
    """Return a bound socket for each address of the names, all on one port. 0: one that is free.

    Raises Unavailable where it cannot listen.
    """
    addresses = await _resolve(names, port)
    attempts = PORT_ATTEMPTS if port == 0 else 1
    for attempt in range(1, attempts + 1):
        with contextlib.ExitStack() as stack, contextlib.suppress(_PortIsTaken):
            sockets = _bind_all(stack, addresses, port, last=attempt == attempts)
            stack.pop_all()
            return sockets
    raise AssertionError("the last attempt returns or raises")


async def listen(
    stack: contextlib.AsyncExitStack,
    protocol: Callable[[], asyncio.BaseProtocol],
    sockets: Sequence[socket.socket],
    write_timeout: float,
) -> None:
    """Accept connections on bound sockets until `stack` is closed, which closes them, too.

    A connection whose peer acknowledges nothing of what was written to it for `write_timeout` seconds is cut.
    """
    loop = asyncio.get_running_loop()
    for each in sockets:
        stack.callback(each.close)
    for listening in sockets:
        # Accepted connections inherit these options.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if sys.platform == "linux":
            listening.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(write_timeout * 1000)
            )
        # The same socket under other numbers; they share one queue of connections.
        duplicates = [
            socket.fromfd(listening.fileno(), listening.family, listening.type)
            for _ in range(ACCEPTS_PER_TURN - 1)
        ]
        for each in (listening, *duplicates):
            server = await loop.create_server(protocol, sock=each, backlog=BACKLOG)
            stack.callback(server.close)


class _PortIsTaken(Exception):
    """A port that was free on one address is taken on another."""


async def _resolve(names: Sequence[str], port: int) -> list[ListeningAddress]:
    """Return every address of the names once. An address that a wildcard covers is left out."""
    loop = asyncio.get_running_loop()
    found: list[ListeningAddress] = []
    for name in names:
        for each in (name, *ALSO.get(name, ())):
            try:
                infos = await loop.getaddrinfo(
                    each, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
                )
            except (OSError, UnicodeError) as error:
                raise _cannot_listen(name, port, error) from None
            found += [ListeningAddress(name, info[0], info[4]) for info in infos]
    covered = {address.family for address in found if address.ip in WILDCARDS}
    once: dict[tuple[int, tuple[Any, ...]], ListeningAddress] = {}
    for address in found:
        if address.ip in WILDCARDS or address.family not in covered:
            once.setdefault((address.family, address.place), address)
    return list(once.values())


def _bind_all(
    stack: contextlib.ExitStack, addresses: Sequence[ListeningAddress], port: int, *, last: bool
) -> list[socket.socket]:
    """Bind each address to the port; `stack` closes the sockets. 0: to the port that the first one gets.

    Raises Unavailable; but _PortIsTaken, unless this is the last attempt, where another free port may do.
    """
    sockets: list[socket.socket] = []
    bound: set[str] = set()
    unknown: dict[str, OSError] = {}
    for address in addresses:
        chosen = sockets[0].getsockname()[1] if sockets else port
        try:
            sockets.append(stack.enter_context(_bind_one(address, chosen)))
            bound.add(address.name)
        except OSError as error:
            if error.errno in _NO_SUCH_ADDRESS:
                unknown.setdefault(address.name, error)
            elif error.errno == errno.EADDRINUSE and chosen != port and not last:
                raise _PortIsTaken from None
            else:
                raise _cannot_listen(address.name, chosen, error) from None
    for name, reason in unknown.items():
        if name not in bound:
            raise _cannot_listen(name, port, reason)
    return sockets


def _bind_one(address: ListeningAddress, port: int) -> socket.socket:
    bound = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        bound.setblocking(False)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address.family == socket.AF_INET6:
            # IPv4 has a socket of its own, so clients' addresses look the same whatever the hub listens on.
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((address.ip, port, *address.place[2:]))
    except BaseException:
        bound.close()
        raise
    return bound


def _cannot_listen(name: str, port: int, error: Exception) -> Unavailable:
    place = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
    why = error.strerror if isinstance(error, OSError) else "it is no host name"
    return Unavailable(f"Cannot listen on {place}: {why}.")

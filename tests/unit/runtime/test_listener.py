"""Accepting connections: several in one turn of the event loop, on every address of the host."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest
import uvloop

from hub.runtime.listener import ACCEPTS_PER_TURN, listen


def kept_alive(transport: asyncio.BaseTransport) -> bool:
    accepted = transport.get_extra_info("socket")
    return bool(accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))


def write_timeout(transport: asyncio.BaseTransport) -> int:
    accepted = transport.get_extra_info("socket")
    return accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_clients_that_come_together_are_accepted_together(host):
    accepted: list[asyncio.BaseTransport] = []

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            accepted.append(transport)

    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            address = await listen(stack, Protocol, host, 0, 30.0)
            for _ in range(
                ACCEPTS_PER_TURN
            ):  # the kernel connects them; the loop stands still meanwhile
                stack.enter_context(socket.create_connection((host, address[1])))
            for _ in range(3):
                await asyncio.sleep(0)
            assert len(accepted) == ACCEPTS_PER_TURN
            assert all(map(kept_alive, accepted))
            assert set(map(write_timeout, accepted)) == {30_000}
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, address[1]))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())

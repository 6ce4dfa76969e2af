"""Accepting connections: several in one turn of the event loop, on every address of the names."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket

import pytest
import uvloop

from hub.errors import Unavailable
from hub.runtime import listener
from hub.runtime.listener import ACCEPTS_PER_TURN, bind, listen


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
            sockets = await bind([host], 0)
            port = sockets[0].getsockname()[1]
            await listen(stack, Protocol, sockets, 30.0)
            for _ in range(
                ACCEPTS_PER_TURN
            ):  # the kernel connects them; the loop stands still meanwhile
                stack.enter_context(socket.create_connection((host, port)))
            for _ in range(3):
                await asyncio.sleep(0)
            assert len(accepted) == ACCEPTS_PER_TURN
            assert all(map(kept_alive, accepted))
            assert set(map(write_timeout, accepted)) == {30_000}
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, port))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


async def bound(*names: str, port: int = 0) -> set[str]:
    """Return the IP addresses that are bound for the names; all are on one port."""
    sockets = await bind(names, port)
    try:
        assert len({each.getsockname()[1] for each in sockets}) == 1
        return {each.getsockname()[0] for each in sockets}
    finally:
        for each in sockets:
            each.close()


@pytest.fixture
def named(monkeypatch):
    """A machine whose names have the addresses that a test gives."""
    names: dict[str, list[str]] = {}
    real = socket.getaddrinfo

    def getaddrinfo(host, *args, **options):
        return [each for ip in names.get(host, [host]) for each in real(ip, *args, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return names


async def test_a_name_stands_for_all_of_its_addresses(named):
    named["localhost"] = ["127.0.0.1", "::1"]
    assert await bound("localhost") == {"127.0.0.1", "::1"}
    assert await bound("localhost", "127.0.0.1", "127.0.0.2") == {"127.0.0.1", "::1", "127.0.0.2"}


async def test_an_address_that_the_machine_does_not_have_is_left_out_of_a_name(named):
    """192.0.2.1 is nobody's. Alone it is an error, which names it."""
    named["half"] = ["192.0.2.1", "127.0.0.1"]
    named["none"] = ["192.0.2.1"]
    assert await bound("half") == {"127.0.0.1"}
    for name in ("none", "192.0.2.1"):
        with pytest.raises(Unavailable, match=f"^Cannot listen on {name}:0: .*assign.*address"):
            await bound("127.0.0.1", name)


@pytest.mark.parametrize(
    ("names", "addresses"),
    [
        (["::"], {"::", "0.0.0.0"}),
        (["0.0.0.0"], {"0.0.0.0"}),
        (["0.0.0.0", "127.0.0.1", "::1"], {"0.0.0.0", "::1"}),
        (["127.0.0.1", "::"], {"::", "0.0.0.0"}),
    ],
)
async def test_wildcards(names, addresses):
    """`::` stands for both families; an address that a wildcard covers needs no socket."""
    assert await bound(*names) == addresses


async def test_a_free_port_is_free_on_all_addresses(monkeypatch):
    """Where another program has it on the second address, another port is taken."""
    real, taken = listener._bind_one, []

    def bind_one(address, port):
        if address.ip == "127.0.0.2" and len(taken) < 3:
            taken.append(port)
            raise OSError(errno.EADDRINUSE, "Address already in use")
        return real(address, port)

    monkeypatch.setattr(listener, "_bind_one", bind_one)
    assert await bound("127.0.0.1", "127.0.0.2") == {"127.0.0.1", "127.0.0.2"}
    assert len(taken) == 3


@pytest.mark.parametrize("name", ["127.0.0.1", "::1", "::"])
async def test_a_taken_port_is_an_error_in_a_sentence(name):
    family = socket.AF_INET6 if ":" in name else socket.AF_INET
    with socket.create_server((name, 0), family=family) as other:
        port = other.getsockname()[1]
        shown = f"[{name}]" if ":" in name else name
        with pytest.raises(Unavailable) as refused:
            await bound(name, port=port)
    assert refused.value.message == f"Cannot listen on {shown}:{port}: Address already in use."


@pytest.mark.parametrize("name", ["no.such.host.invalid", "a..b", "http://a"])
async def test_what_is_no_name_is_an_error_in_a_sentence(name):
    with pytest.raises(Unavailable, match=f"^Cannot listen on .*{name}.*:0: .*[.]$"):
        await bound(name)

"""The client's address, read from the headers of trusted proxies where one is between."""

from __future__ import annotations

import functools
from ipaddress import IPv4Address, IPv6Address, ip_address

from aiohttp import web
from multidict import CIMultiDictProxy

from hub.engineio.options import EngineOptions, Network

Address = IPv4Address | IPv6Address


@functools.lru_cache(1024)
def _address(text: str) -> Address | None:
    """Return the address in `1.2.3.4`, `1.2.3.4:80`, `"[::1]:80"`, `::1`."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


# Cached, as the same addresses come again and again.
_text = functools.lru_cache(1024)(str)


def _is_trusted(address: Address | None, proxies: tuple[Network, ...]) -> bool:
    return address is not None and any(address in network for network in proxies)


def _forwarded(headers: CIMultiDictProxy[str]) -> list[str]:
    """Return the addresses in X-Forwarded-For or else in Forwarded (RFC 7239), the client's first.

    Proxies that write X-Forwarded-For pass a client's own Forwarded on unchanged, so that one counts only without it.
    Some proxies add a header line instead of extending the one that is there, so all lines are joined.
    """
    if lines := headers.getall("X-Forwarded-For", ()):
        return ",".join(lines).split(",")
    chain = []
    for element in ",".join(headers.getall("Forwarded", ())).split(","):
        for pair in element.split(";"):
            name, _, value = pair.partition("=")
            if name.strip().lower() == "for":
                chain.append(value)
    return chain


def remote_address(request: web.BaseRequest, options: EngineOptions) -> str:
    """Return the client's address: of the chain of addresses the nearest one that is no trusted proxy."""
    peer = request.remote or ""
    nearest = _address(peer)
    if not _is_trusted(nearest, options.trusted_proxies):
        return _text(nearest) if nearest is not None else peer
    for text in reversed(_forwarded(request.headers)):
        address = _address(text)
        if address is None:
            break
        nearest = address
        if not _is_trusted(address, options.trusted_proxies):
            break
    return _text(nearest)


def comes_from_trusted_proxy(request: web.BaseRequest, proxies: tuple[Network, ...]) -> bool:
    """Return whether the TCP connection of a request comes from one of the trusted proxies."""
    return _is_trusted(_address(request.remote or ""), proxies)


def forwarded_host(request: web.BaseRequest, proxies: tuple[Network, ...]) -> str:
    """Return the host that the client asked for, as a trusted proxy forwards it; empty: none does."""
    if not comes_from_trusted_proxy(request, proxies):
        return ""
    return request.headers.get("X-Forwarded-Host", "").partition(",")[0].strip()


def is_loopback(remote: str) -> bool:
    """Return whether an address is this machine's own; that of a Unix socket, which is empty, is one too."""
    address = _address(remote)
    return address is None or address.is_loopback


def counted_as(remote: str) -> str:
    """Return the key for limits of an address: for IPv6 its network of 64 bits, which belongs to one customer."""
    address = _address(remote)
    if isinstance(address, IPv6Address):
        return str(IPv6Address(int(address) >> 64 << 64))
    return remote

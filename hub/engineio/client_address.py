"""Who is calling: the peer's address behind trusted proxies, and which pages may connect (CORS)."""

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


# Addresses as text; they come again and again.
_text = functools.lru_cache(1024)(str)


def _trusted(address: Address | None, proxies: tuple[Network, ...]) -> bool:
    return address is not None and any(address in network for network in proxies)


def _forwarded(headers: CIMultiDictProxy[str]) -> list[str]:
    """Return the chain of addresses that proxies noted, the client first (de facto, or RFC 7239).

    Proxies that write `X-Forwarded-For` pass a client's own `Forwarded` on as it is; and some begin a line of their own.
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
    """Return the peer's address: the nearest one that is no trusted proxy."""
    peer = request.remote or ""
    nearest = _address(peer)
    if not _trusted(nearest, options.trusted_proxies):
        return _text(nearest) if nearest is not None else peer
    for text in reversed(_forwarded(request.headers)):
        address = _address(text)
        if address is None:
            break
        nearest = address
        if not _trusted(address, options.trusted_proxies):
            break
    return _text(nearest)


def is_loopback(remote: str) -> bool:
    """Tell whether an address is this machine (a Unix socket's empty one too)."""
    address = _address(remote)
    return address is None or address.is_loopback


def counted_as(remote: str) -> str:
    """Return what a peer's limits are counted under: an IPv6 network of 64 bits, which is one customer's, or its address."""
    address = _address(remote)
    if isinstance(address, IPv6Address):
        return str(IPv6Address(int(address) >> 64 << 64))
    return remote


def cors_headers(request: web.BaseRequest, options: EngineOptions) -> dict[str, str] | None:
    """Return the headers that let the page read the answer; None: it may not connect at all."""
    origin = request.headers.get("Origin")
    if origin is None:
        return {}
    if origin in options.cors:
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Credentials": "true",
            "Vary": "Origin",
        }
    if "*" in options.cors:
        return {"Access-Control-Allow-Origin": "*"}
    if _same_origin(origin, request, options):
        return {"Vary": "Origin"}
    return None


def preflight_headers(request: web.BaseRequest) -> dict[str, str]:
    """Return what a preflight request asks for, beyond `cors_headers`."""
    headers = {"Access-Control-Allow-Methods": "GET, POST", "Access-Control-Max-Age": "600"}
    if asked := request.headers.get("Access-Control-Request-Headers"):
        headers["Access-Control-Allow-Headers"] = asked
    return headers


def _same_origin(origin: str, request: web.BaseRequest, options: EngineOptions) -> bool:
    scheme, _, host = origin.partition("://")
    hosts = {request.headers.get("Host", "")}
    if _trusted(_address(request.remote or ""), options.trusted_proxies):
        hosts.add(request.headers.get("X-Forwarded-Host", "").split(",")[0].strip())
    hosts.discard("")
    port = {"http": ":80", "https": ":443"}.get(scheme, "")
    host = host.removesuffix(port)
    return bool(host) and any(host == known.removesuffix(port) for known in hosts)

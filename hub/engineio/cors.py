"""CORS: which origins' pages may connect, and the headers that tell the browser so."""

from __future__ import annotations

import re

from aiohttp import web

from hub.engineio.client_address import forwarded_host
from hub.engineio.options import EngineOptions

# What "dev" allows: the pages of development servers on this machine.
_LOCAL = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?", re.ASCII)


def cors_headers(request: web.BaseRequest, options: EngineOptions) -> dict[str, str] | None:
    """Return the headers that let the page read the response; None: the page may not connect."""
    origin = request.headers.get("Origin")
    if origin is None:
        return {}
    if _is_listed(origin, options.cors):
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
    """Return the headers that a preflight response has in addition to `cors_headers`."""
    headers = {"Access-Control-Allow-Methods": "GET, POST", "Access-Control-Max-Age": "600"}
    if asked := request.headers.get("Access-Control-Request-Headers"):
        headers["Access-Control-Allow-Headers"] = asked
    return headers


def _is_listed(origin: str, cors: tuple[str, ...]) -> bool:
    if "dev" in cors and _LOCAL.fullmatch(origin):
        return True
    return "://" in origin and origin in cors


def _same_origin(origin: str, request: web.BaseRequest, options: EngineOptions) -> bool:
    # Names of hosts have no case; browsers send small letters, other clients what somebody typed.
    scheme, _, host = origin.lower().partition("://")
    hosts = (request.headers.get("Host", ""), forwarded_host(request, options.trusted_proxies))
    port = {"http": ":80", "https": ":443"}.get(scheme, "")
    host = host.removesuffix(port)
    return bool(host) and any(host == known.lower().removesuffix(port) for known in hosts)

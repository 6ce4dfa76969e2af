"""Which hosts are served: a request that names another one in its `Host` header is refused with HTTP 421.

Without this, any web page could reach a hub that only this machine or network can reach. The page's own host name
resolves to the hub's address at a later time (DNS rebinding). The browser then sends the hub requests of the page, whose
origin is the host that they name. So they look like requests of the hub's own page.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from ipaddress import ip_address

from aiohttp import web

from hub.engineio.client_address import forwarded_host
from hub.engineio.http_errors import ErrorResponse, Handle
from hub.refusals import RefusalLog
from hub.settings import Settings

FOREIGN_HOST = (
    "refused a request for a host that is not served: list it in HUB_HOSTS if it is to be"
)
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
# The most characters of a refused name that the answer quotes.
QUOTED = 100
_PORT = re.compile(r":\d*\Z", re.ASCII)


def served_hosts(settings: Settings, addresses: Iterable[str]) -> frozenset[str] | None:
    """Return the names of the hosts that a hub serves which listens on these IP addresses; None: any."""
    names = settings.host_names
    if not names and all(_is_loopback(address) for address in addresses):
        own = settings.listening_names
        names = (*LOOPBACK_NAMES, *(f"[{name}]" if ":" in name else name.lower() for name in own))
    return None if not names or "*" in names else frozenset(names)


def _is_loopback(address: str) -> bool:
    return ip_address(address.partition("%")[0]).is_loopback


class HostCheck:
    """Refuses requests for hosts that are not served, before anything else is done with them."""

    def __init__(
        self,
        served: frozenset[str],
        settings: Settings,
        counters: Counter[str],
        refusals: RefusalLog,
    ) -> None:
        self._served = served
        self._proxies = settings.proxies
        self._counters = counters
        self._refusals = refusals

    def checked(self, handle: Handle) -> Handle:
        """Return a handler that answers requests for other hosts with HTTP 421, and passes the others to `handle`."""

        async def check(request: web.BaseRequest) -> web.StreamResponse:
            refused = self.refused_host(request)
            if refused is None:
                return await handle(request)
            self._counters["host refused"] += 1
            self._refusals.note("host", refused, FOREIGN_HOST, host=refused, setting="HUB_HOSTS")
            refusal = web.json_response({"message": host_refusal(refused)}, status=421)
            return ErrorResponse.like(refusal)

        return check

    def refused_host(self, request: web.BaseRequest) -> str | None:
        """Return the host of a request that is not served (empty: it names none); None: all are served."""
        hosts = [request.headers.get("Host", "")]
        if forwarded := forwarded_host(request, self._proxies):
            hosts.append(forwarded)
        for host in hosts:
            if _PORT.sub("", host.lower()) not in self._served:
                return host
        return None


def host_refusal(host: str) -> str:
    """Return the sentence for a refused host that the answer to its request has."""
    if not host:
        return "The request names no host. This hub serves only some; HUB_HOSTS lists them."
    quoted = host if len(host) <= QUOTED else f"{host[:QUOTED]}…"
    return f"This hub does not serve the host {quoted!r}. If it is to, list the host in HUB_HOSTS."

"""What the engine logs about requests that it refuses: what would admit them, and which setting that is."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from hub.engineio.admission import Refusal
from hub.engineio.client_address import remote_address
from hub.engineio.options import EngineOptions
from hub.refusals import RefusalLog

FOREIGN_ORIGIN = (
    "refused a page of an origin that is not listed: list it in HUB_CORS; or, if it is the hub's own page behind a "
    "proxy, let the proxy pass the Host header on (nginx: proxy_set_header Host $http_host)"
)
OLD_CLIENT = (
    "refused a client of another protocol version: the hub speaks Engine.IO 4, as socket.io-client 3 and 4 and "
    "python-socketio 5 do; update the client"
)
# By the option that is the bound.
ADMIT = {
    "max_connections": "refused a new connection because this process is full: raise HUB_MAX_CONNECTIONS, or the limit of "
    "open files if that is the bound, or start another process",
    "max_lag": "refused a new connection because this process is behind with its work: start another process, or raise "
    "HUB_MAX_LAG",
    "connections_per_address": "refused a new connection because its address has too many: raise "
    "HUB_CONNECTIONS_PER_ADDRESS, or list the address in HUB_TRUSTED_PROXIES if it is a proxy of yours",
    "newcomers_per_address": "refused a new connection because its address makes too many a second: raise "
    "HUB_NEWCOMERS_PER_ADDRESS, or list the address in HUB_TRUSTED_PROXIES if it is a proxy of yours",
}


class RequestRefusals:
    """Logs the requests that an engine refuses."""

    def __init__(self, log: RefusalLog, options: EngineOptions) -> None:
        self._log = log
        self._options = options

    def note_origin(self, request: web.BaseRequest) -> None:
        """Log that the page of a request may not connect."""
        origin = request.headers.get("Origin", "")
        host = request.headers.get("Host", "")
        self._log.note(
            "origin", origin, FOREIGN_ORIGIN, origin=origin, host=host, setting="HUB_CORS"
        )

    def note_protocol(self, request: web.BaseRequest) -> None:
        """Log that a client speaks another version of the protocol."""
        address = remote_address(request, self._options)
        version = request.query.get("EIO", "none")
        self._log.note("protocol", address, OLD_CLIENT, EIO=version, address=address)

    def note_admission(self, refusal: Refusal, remote: str) -> None:
        """Log that a handshake was refused by admission control. While the process ends that is no news."""
        option = refusal.option
        if option is None:
            return
        by_address = option.endswith("_per_address")
        address: dict[str, Any] = {"address": remote} if by_address else {}
        self._log.note(
            option,
            remote if by_address else "",
            ADMIT[option],
            **address,
            limit=getattr(self._options, option),
            setting=f"HUB_{option.upper()}",
        )

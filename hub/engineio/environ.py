"""The handshake request as the WSGI-like dictionary that python-socketio's handlers expect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aiohttp import web


class Environ(Mapping[str, Any]):
    """A request's environ, made at the first access: most handlers never read it."""

    __slots__ = ("_made", "_remote", "_request")

    def __init__(self, request: web.BaseRequest, remote: str) -> None:
        self._request = request
        self._remote = remote
        self._made: dict[str, Any] | None = None

    def _all(self) -> dict[str, Any]:
        if self._made is None:
            self._made = environ_of(self._request, self._remote)
        return self._made

    def __getitem__(self, key: str) -> Any:
        return self._all()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


def environ_of(request: web.BaseRequest, remote: str) -> dict[str, Any]:
    """Return the environ of a request. `remote` is the client's address."""
    environ: dict[str, Any] = {
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": request.scheme,
        "wsgi.async": True,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "SERVER_SOFTWARE": "aiohttp",
        "SERVER_PROTOCOL": f"HTTP/{request.version[0]}.{request.version[1]}",
        "SERVER_NAME": "aiohttp",
        "SERVER_PORT": "0",
        "REQUEST_METHOD": request.method,
        "QUERY_STRING": request.query_string,
        "RAW_URI": request.path_qs,
        "PATH_INFO": request.path,
        "SCRIPT_NAME": "",
        "REMOTE_ADDR": remote,
        "REMOTE_PORT": "0",
        "aiohttp.request": request,
    }
    for name, value in request.headers.items():
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = f"HTTP_{key}"
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    return environ

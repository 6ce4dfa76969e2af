"""The hub's address: the URL that an application gives, checked and taken apart."""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass
from typing import Self

SCHEMES = ("http", "https", "ws", "wss")
SOCKETIO_PATH = "socket.io"


@dataclass(frozen=True)
class HubAddress:
    """Where a hub is."""

    # The given URL. python-socketio ignores its path.
    url: str
    # The path of the Socket.IO endpoint: the URL's path, which is the hub's base path, and `socket.io`.
    path: str
    # The URL without its user, its password and its query, for messages.
    shown: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """Take a URL apart. Raises ValueError with a sentence that says what is wrong, TypeError if it is no text."""
        if not isinstance(url, str):
            raise TypeError(f"url: text such as http://127.0.0.1:8000 is needed, not {url!r}")
        example = f"http://{url}" if "://" not in url else "http://127.0.0.1:8000"
        try:
            parts = urllib.parse.urlsplit(url.strip())
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ValueError(f"url: {url!r} is not a URL: {error}") from None
        if parts.scheme not in SCHEMES or not parts.netloc:
            raise ValueError(f"url: {url!r} has to begin with http:// or https://, as in {example}")
        if not host:
            raise ValueError(f"url: {url!r} names no host")
        if parts.fragment:
            raise ValueError(f"url: {url!r} has a fragment (#), which a hub's address cannot have")
        base = parts.path.strip("/")
        if base.rpartition("/")[2] == SOCKETIO_PATH:
            raise ValueError(
                f"url: {url!r} ends in /{SOCKETIO_PATH}, which the client adds by itself"
            )
        path = f"{base}/{SOCKETIO_PATH}" if base else SOCKETIO_PATH
        netloc = f"[{host}]" if ":" in host else host
        netloc += f":{port}" if port is not None else ""
        shown = f"{parts.scheme}://{netloc}" + (f"/{base}" if base else "")
        return cls(url.strip(), path, shown)

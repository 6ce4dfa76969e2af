"""Finds the page and the browser libraries, in a checkout and in an installed wheel alike."""

from __future__ import annotations

from pathlib import Path

from hub.errors import NotFound

_PACKAGE = Path(__file__).resolve().parents[1]
_INSTALLED = _PACKAGE / "_static"
_CHECKOUT = _PACKAGE.parent / "static"

PAGE_FILES = ("index.html", "app.js", "style.css", "icon.svg")
# The builds that Node's Socket.IO server serves too; each with its source map.
CLIENT_FILES = tuple(
    f"{name}{suffix}"
    for name in ("socket.io.js", "socket.io.min.js", "socket.io.esm.min.js")
    for suffix in ("", ".map")
)


def static_dir() -> Path:
    """Return the directory of the page's own files: index.html, app.js, style.css."""
    return _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT


def client_dir() -> Path:
    """Return the directory of the stock client's builds: socket.io.min.js and its siblings."""
    if _INSTALLED.is_dir():
        return _INSTALLED / "socket.io"
    return _CHECKOUT / "node_modules" / "socket.io-client" / "dist"


def routes() -> dict[str, Path]:
    """Return URL path → file for every file that the hub serves.

    Other files of the directories are not served. Raises NotFound if a file is missing: in a checkout,
    `make setup` fetches the libraries.
    """
    found = {"/": static_dir() / "index.html"}
    found |= {f"/static/{name}": static_dir() / name for name in PAGE_FILES[1:]}
    found |= {f"/socket.io/{name}": client_dir() / name for name in CLIENT_FILES}
    for file in found.values():
        if not file.is_file():
            raise NotFound(f"{file} is missing; in a checkout, `make setup` fetches it.")
    return found

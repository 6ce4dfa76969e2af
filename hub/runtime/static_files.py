"""Finds the page and the browser libraries, in a checkout and in an installed wheel alike."""

from __future__ import annotations

import logging
from pathlib import Path

log = logging.getLogger("hub.runtime")

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


# By the end of the name. Python would ask the machine's tables, and those of many machines know no source map, or a
# wrong type of JavaScript, which browsers refuse.
CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".map": "application/json; charset=utf-8",
    ".svg": "image/svg+xml",
}


def static_dir() -> Path:
    """Return the directory of the page's own files: index.html, app.js, style.css."""
    return _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT


def client_dir() -> Path:
    """Return the directory of the stock client's builds: socket.io.min.js and its siblings."""
    if _INSTALLED.is_dir():
        return _INSTALLED / "socket.io"
    return _CHECKOUT / "node_modules" / "socket.io-client" / "dist"


def content_type(file: Path) -> str:
    """Return the type of a file's content."""
    return CONTENT_TYPES[file.suffix]


def routes(*, page: bool) -> dict[str, Path]:
    """Return URL path → file for every file that the hub serves: the stock client's, and with `page` the page's.

    Other files of the directories are not served. A file that is missing is not either; the log names it.
    """
    wanted = {f"/socket.io/{name}": client_dir() / name for name in CLIENT_FILES}
    if page:
        wanted |= {f"/static/{name}": static_dir() / name for name in PAGE_FILES[1:]}
        wanted["/"] = static_dir() / "index.html"
        # Browsers ask for it where they show a response that is no page.
        wanted["/favicon.ico"] = static_dir() / "icon.svg"
    found = {path: file for path, file in wanted.items() if file.is_file()}
    if missing := sorted(wanted.keys() - found.keys()):
        log.warning(
            "files are missing, so these paths are not served; in a checkout, `make setup` fetches them",
            extra={"paths": " ".join(missing)},
        )
    return found

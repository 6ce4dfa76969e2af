"""What the figures were measured on and with."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from bench.places import PEERS
from bench.servers import Choice
from tests.support.tools import valkey

# What the hub's speed depends on.
_PACKAGES = ("python-socketio", "aiohttp", "uvloop", "msgspec", "hiredis", "redis")
_ASK = "import importlib.metadata as m, platform, sys; print(platform.python_version(), *map(m.version, sys.argv[1:]))"
_NODE_PACKAGES = ("socket.io", "@socket.io/redis-streams-adapter", "redis")


def facts(choice: Choice) -> dict[str, Any]:
    """Return machine and versions; every value is a string, but `cores` and `memory_mib`."""
    info = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.*)", info)
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    python, *versions = _output(choice.hub / ".venv/bin/python", "-c", _ASK, *_PACKAGES).split()
    return {
        "cpu": model[1] if model else platform.machine(),
        "cores": os.cpu_count(),
        "memory_mib": int(memory[1]) // 1024 if memory else 0,
        "kernel": platform.release(),
        "hub": _revision(choice.hub),
        "other": _revision(choice.other) if choice.other else "",
        "python": python,
        "node": _output(choice.node, "--version").removeprefix("v"),
        "redis server": _server(choice.redis or valkey()),
        **dict(zip(_PACKAGES, versions, strict=True)),
        **{f"{name} (npm)": _npm_version(name) for name in _NODE_PACKAGES},
    }


def heading(machine: dict[str, Any]) -> str:
    """Say in two lines what was measured on what."""
    return (
        f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}; server on one core, load on another\n"
        f"hub {machine['hub']}; Python {machine['python']}, uvloop {machine['uvloop']}, {machine['redis server']}; "
        f"Socket.IO {machine['socket.io (npm)']} on Node {machine['node']}; python-socketio {machine['python-socketio']}"
    )


def _output(*command: str | Path) -> str:
    return subprocess.run(
        [str(word) for word in command], check=True, capture_output=True, text=True
    ).stdout.strip()


def _server(binary: str) -> str:
    """Return such as 'Redis 7.0.15, jemalloc-5.2.1'."""
    words = _output(binary, "--version").split()
    facts = dict(word.split("=", 1) for word in words if "=" in word)
    return f"{words[0]} {facts['v']}, {facts['malloc']}"


def _revision(checkout: Path) -> str:
    """Return the checkout's commit, '+' where it was changed since; 'unknown' outside git."""
    try:
        return _output("git", "-C", checkout, "describe", "--always", "--dirty=+")
    except (subprocess.CalledProcessError, FileNotFoundError):
        return "unknown"


def _npm_version(name: str) -> str:
    return json.loads((PEERS / "node_modules" / name / "package.json").read_text())["version"]

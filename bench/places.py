"""Where things are, and on which core what runs."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
HERE = Path(__file__).parent
PEERS = HERE / "peers"
# What is compiled, and results that nobody named a place for; ignored by git.
BUILD = HERE / ".build"

SERVER_CORE, LOAD_CORE = 0, 1

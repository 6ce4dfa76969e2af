"""The connections to Redis are tested on the store's servers."""

from __future__ import annotations

from tests.unit.store.conftest import node, server, start

__all__ = ["node", "server", "start"]

"""The Python client: `HubClient` for asyncio, and `Publisher` for scripts and web backends.

It knows only errors and the model of the hub; `docs/client.md` shows how to use it.
"""

from __future__ import annotations

from hub.client.client import HubClient
from hub.client.connection import Replaced
from hub.client.delivery import HandlerFailed
from hub.client.publisher import Publisher

__all__ = ["HandlerFailed", "HubClient", "Publisher", "Replaced"]

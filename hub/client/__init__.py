"""The Python client: `HubClient` for asyncio, and `Publisher` for scripts and web backends.

`docs/client.md` shows how to use it. Of the hub it imports only errors and the model.
"""

from __future__ import annotations

from hub.client.client import HubClient
from hub.client.connection import Replaced
from hub.client.delivery import HandlerFailed
from hub.client.publisher import Publisher

__all__ = ["HandlerFailed", "HubClient", "Publisher", "Replaced"]

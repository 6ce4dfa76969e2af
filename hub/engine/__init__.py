"""An Engine.IO v4 server: a core without I/O, WebSocket and long-polling transports on aiohttp."""

from hub.engine.bucket import Bucket
from hub.engine.connection import Connection
from hub.engine.frame import Frame
from hub.engine.options import EngineOptions
from hub.engine.packet import ProtocolError
from hub.engine.server import EngineServer
from hub.engine.state import Goodbye, Reason, State

__all__ = [
    "Bucket",
    "Connection",
    "EngineOptions",
    "EngineServer",
    "Frame",
    "Goodbye",
    "ProtocolError",
    "Reason",
    "State",
]

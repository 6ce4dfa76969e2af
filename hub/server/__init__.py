"""python-socketio's server on the hub's engine, with its faults mended; nowhere else is that done."""

from hub.server.manager import Manager
from hub.server.packet import Packet
from hub.server.server import Server

__all__ = ["Manager", "Packet", "Server"]

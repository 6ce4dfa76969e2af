"""Socket.IO Hub: a realtime pub/sub hub whose clients get what they missed."""

__version__ = "0.1.0"

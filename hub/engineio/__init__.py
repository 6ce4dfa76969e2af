"""An Engine.IO v4 server: a core without I/O, WebSocket and long-polling transports on aiohttp."""

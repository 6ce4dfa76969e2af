"""WebSocket and long-polling on top of aiohttp's HTTP server."""

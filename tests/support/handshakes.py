"""Handshakes as clients and proxies may write them, all of which the reference server accepts (engine.io 6.6, ws 8)."""

from __future__ import annotations

POLLING = "GET /socket.io/?EIO=4&transport=polling"
WEBSOCKET = "GET /socket.io/?EIO=4&transport=websocket"
HOST = "Host: 127.0.0.1"
UPGRADE = "Upgrade: websocket"
CONNECTION = "Connection: Upgrade"
VERSION = "Sec-WebSocket-Version: 13"
KEY = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
HANDSHAKE = (HOST, UPGRADE, CONNECTION, VERSION, KEY)
COOKIES = "; ".join(f"cookie{number}={'x' * 500}" for number in range(20))


def http_request(line: str, *headers: str, version: str = "1.1", body: str = "") -> bytes:
    """Return the bytes of an HTTP request."""
    return "\r\n".join((f"{line} HTTP/{version}", *headers, "", body)).encode()


POLLING_HANDSHAKES = {
    "plain": http_request(POLLING, HOST),
    "HTTP/1.0, as nginx speaks by default": http_request(POLLING, HOST, version="1.0"),
    "Connection: upgrade, as nginx is often told": http_request(POLLING, HOST, "Connection: upgrade"),
    "an upgrade to HTTP/2 on offer": http_request(
        POLLING, HOST, "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AA",
    ),
    "an empty sid": http_request(POLLING + "&sid=", HOST),
    "parameters of the application": http_request(POLLING + "&token=a%20b&x=&t=1&b64=1", HOST),
    "10 KB of cookies": http_request(POLLING, HOST, f"Cookie: {COOKIES}"),
    "an empty body": http_request(POLLING, HOST, "Content-Length: 0"),
    "a body": http_request(POLLING, HOST, "Content-Length: 2", body="{}"),
    "an odd header": http_request(POLLING, HOST, "X_Under-Score.1!: \xe9"),
    "an empty header": http_request(POLLING, HOST, "X-Empty:", "Accept:"),
    "a path below": http_request(POLLING.replace("/?", "/one/two?"), HOST),
    "parameters twice": http_request(POLLING.replace("EIO", "transport=websocket&EIO=3&EIO"), HOST),
    "140 headers": http_request(POLLING, HOST, *(f"X-{number}: 1" for number in range(140))),
    "an origin in capitals": http_request(POLLING, "Host: LocalHost:80", "Origin: http://LOCALHOST"),
}  # fmt: skip
WEBSOCKET_HANDSHAKES = {
    "plain": http_request(WEBSOCKET, *HANDSHAKE),
    "names in small letters": http_request(WEBSOCKET, *(line.lower() for line in HANDSHAKE[:4]), KEY),
    "an Upgrade in capitals": http_request(WEBSOCKET, HOST, "Upgrade: WebSocket", *HANDSHAKE[2:]),
    "two tokens": http_request(WEBSOCKET, "Connection: keep-alive, upgrade", HOST, UPGRADE, VERSION, KEY),
    "two lines": http_request(WEBSOCKET, "Connection: keep-alive", *HANDSHAKE),
    "HTTP/1.0": http_request(WEBSOCKET, *HANDSHAKE, version="1.0"),
    "an empty sid": http_request(WEBSOCKET + "&sid=", *HANDSHAKE),
    "a parameter j of the application": http_request(WEBSOCKET + "&j=0", *HANDSHAKE),
    "an empty body": http_request(WEBSOCKET, *HANDSHAKE, "Content-Length: 0"),
    "a subprotocol": http_request(WEBSOCKET, *HANDSHAKE, "Sec-WebSocket-Protocol: mine, other"),
    "an unknown extension": http_request(WEBSOCKET, *HANDSHAKE, "Sec-WebSocket-Extensions: x-webkit-deflate-frame"),
    "a key with spare bits": http_request(WEBSOCKET, *HANDSHAKE[:4], KEY.replace("A==", "B==")),
    "10 KB of cookies": http_request(WEBSOCKET, *HANDSHAKE, f"Cookie: {COOKIES}"),
    "an origin": http_request(WEBSOCKET, *HANDSHAKE, "Origin: http://127.0.0.1"),
}  # fmt: skip

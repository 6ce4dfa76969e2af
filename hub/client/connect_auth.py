"""What the client sends in `auth` of its Socket.IO CONNECT: who it is, and where its session continues."""

from __future__ import annotations

from typing import Any

from hub.client.position import Position


class ConnectAuth:
    """The CONNECT auth of one client."""

    def __init__(
        self, position: Position, *, token: str | None, client_id: str | None, manual_acks: bool
    ) -> None:
        self._position = position
        self._token = token
        self._client_id = client_id
        self._manual_acks = manual_acks

    def fields(self) -> dict[str, Any]:
        """Return the fields of `auth`, with the pid and the offset of this moment."""
        pid = self._position.pid
        fields = {
            "token": self._token,
            "client_id": self._client_id,
            "acks": "manual" if self._manual_acks else None,
            "pid": pid,
            "offset": (self._position.offset or None) if pid else None,
        }
        return {name: value for name, value in fields.items() if value is not None}

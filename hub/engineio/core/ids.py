"""Ids and secrets that cannot be guessed: the id of a session gives access to its messages by polling."""

from __future__ import annotations

import secrets
from base64 import urlsafe_b64encode

# Ids for which randomness is drawn at once: asking the kernel for it is the most expensive part.
_BATCH = 64


class Ids:
    """Draws ids of `size` random bytes, a multiple of 3. Each three bytes become four URL-safe characters."""

    def __init__(self, size: int = 15) -> None:
        self._size = size
        self._drawn = b""

    def draw(self) -> str:
        if not self._drawn:
            self._drawn = secrets.token_bytes(_BATCH * self._size)
        id_, self._drawn = self._drawn[: self._size], self._drawn[self._size :]
        return urlsafe_b64encode(id_).decode()

"""Session ids and secrets, hard to guess: an id is all that a polling request shows."""

from __future__ import annotations

import secrets
from base64 import urlsafe_b64encode

# Drawn at once: asking the kernel for randomness costs more than all the rest of it.
_BATCH = 64


class Ids:
    """Draws ids of `size` bytes, as four URL-safe characters for three of them; `size` is a multiple of 3."""

    def __init__(self, size: int = 15) -> None:
        self._size = size
        self._drawn = b""

    def draw(self) -> str:
        if not self._drawn:
            self._drawn = secrets.token_bytes(_BATCH * self._size)
        id_, self._drawn = self._drawn[: self._size], self._drawn[self._size :]
        return urlsafe_b64encode(id_).decode()

"""Session ids, hard to guess: an id is all that a polling request shows."""

from __future__ import annotations

import secrets
from base64 import urlsafe_b64encode

# Bytes of an id; a multiple of 3, so that base64 needs no padding.
_SIZE = 15
# Ids drawn at once: asking the kernel for randomness costs more than all the rest of it.
_BATCH = 64


class Ids:
    """Draws ids of 20 URL-safe characters."""

    def __init__(self) -> None:
        self._drawn = b""

    def draw(self) -> str:
        if not self._drawn:
            self._drawn = secrets.token_bytes(_BATCH * _SIZE)
        id_, self._drawn = self._drawn[:_SIZE], self._drawn[_SIZE:]
        return urlsafe_b64encode(id_).decode()

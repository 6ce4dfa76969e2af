"""Logs refusals: each kind has its line at once, and no flood of refusals floods the log."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

# Seconds between two lines about one kind and subject.
INTERVAL = 60.0
# Subjects that are known at a time; all others of a kind count as one subject.
SUBJECTS = 100
# Characters that are logged of a text that a client has chosen.
TEXT = 200


class CountedRefusal:
    """The latest refusal of a kind and subject, and how many of them were not logged yet."""

    __slots__ = ("count", "fields", "level", "message", "timer")

    def __init__(self) -> None:
        self.count = 0
        self.message = ""
        self.level = logging.WARNING
        self.fields: dict[str, Any] = {}
        self.timer: asyncio.TimerHandle | None = None


class RefusalLog:
    """Logs the first refusal of a kind and subject at once, and counts the others: one line a minute says how many.

    A subject is the origin, the address or the client_id that was refused. It needs a running event loop.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._known: dict[tuple[str, str], CountedRefusal] = {}

    def note(
        self, kind: str, subject: str, message: str, *, level: int = logging.WARNING, **fields: Any
    ) -> None:
        """Log or count a refusal. `message` names the refused thing and the way to have it admitted; `fields` are details."""
        if not self._log.isEnabledFor(level):
            return
        key = kind, subject[:TEXT]
        refusal = self._known.get(key)
        if refusal is None and len(self._known) >= SUBJECTS:
            key = kind, ""
            refusal = self._known.get(key)
        if refusal is None:
            refusal = self._known[key] = CountedRefusal()
        refusal.message, refusal.level = message, level
        refusal.fields = {
            name: value[:TEXT] if isinstance(value, str) else value
            for name, value in fields.items()
        }
        if refusal.timer is None:
            self._write(key, refusal)
        else:
            refusal.count += 1

    def close(self) -> None:
        """Log the refusals that were only counted so far, and forget all."""
        known, self._known = self._known, {}
        for refusal in known.values():
            if refusal.timer is not None:
                refusal.timer.cancel()
            if refusal.count:
                self._write_line(refusal)

    def _write(self, key: tuple[str, str], refusal: CountedRefusal) -> None:
        self._write_line(refusal)
        refusal.count = 0
        loop = asyncio.get_running_loop()
        refusal.timer = loop.call_later(INTERVAL, self._after_interval, key, refusal)

    def _write_line(self, refusal: CountedRefusal) -> None:
        times = {"times": refusal.count} if refusal.count else {}
        self._log.log(refusal.level, refusal.message, extra=refusal.fields | times)

    def _after_interval(self, key: tuple[str, str], refusal: CountedRefusal) -> None:
        """Log how many were counted; forget a refusal that has not occurred again."""
        if refusal.count:
            self._write(key, refusal)
        else:
            del self._known[key]

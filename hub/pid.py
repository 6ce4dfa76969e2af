"""The secret that proves ownership of a session.

Its text is `<client id>.<generation>.<serial>.<secret>`: the generation tells a session from an earlier one of
the same client, the serial, the larger the later, a pid from those that a continuation by name made void.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from hub.model import CLIENT_ID

_PID = re.compile(rf"({CLIENT_ID})\.([0-9]{{1,16}})\.([0-9]{{1,16}})\.([A-Za-z0-9_-]{{22,64}})\Z")


@dataclass(frozen=True, slots=True, repr=False)
class Pid:
    """A pid, taken apart. Never logged."""

    client_id: str
    generation: str
    serial: str
    secret: str

    @classmethod
    def parse(cls, text: str) -> Pid | None:
        """Return the pid that a text holds; None where it cannot be one."""
        found = _PID.match(text)
        return cls(*found.groups()) if found else None

    def __str__(self) -> str:
        return f"{self.client_id}.{self.generation}.{self.serial}.{self.secret}"

"""The secret that proves ownership of a session.

Its text is `<client id>.<generation>.<version>.<secret>`. The generation tells a session from an earlier one of the same
client. The version tells a pid from earlier ones of the same session, which a claim by name made void: a later pid has a
larger version.
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
    version: str
    secret: str

    @classmethod
    def parse(cls, text: str) -> Pid | None:
        """Return the pid that a text holds; None where it cannot be one."""
        found = _PID.match(text)
        return cls(*found.groups()) if found else None

    @classmethod
    def of_another(cls, client_id: str) -> Pid:
        """Return what stands for a pid that came with a client id and is not of that client: it proves no session."""
        return cls(client_id, "x", "x", "x")

    def __str__(self) -> str:
        return f"{self.client_id}.{self.generation}.{self.version}.{self.secret}"

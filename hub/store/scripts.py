"""The Lua scripts, read from `lua/`: each one atomic move."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from importlib.resources import files

# publish.lua stands alone: it is the one that runs for every message.
_ALONE = frozenset({"publish"})


@dataclass(frozen=True, slots=True)
class Script:
    """A script and the digest that Redis knows it by."""

    name: str
    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha", _sha(self.text))


def _sha(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def read(name: str) -> Script:
    """Read `lua/<name>.lua`, with what it shares with others in front."""
    folder = files("hub.store") / "lua"
    text = (folder / f"{name}.lua").read_text()
    if name not in _ALONE:
        text = (folder / "common.lua").read_text() + "\n" + text
    return Script(name, text)


NAMES = (
    "publish", "subscribe", "unsubscribe", "take", "park", "replay", "finish", "prove",
    "history", "renew",
    "release", "touch", "sweep", "rollback",
)  # fmt: skip


def read_all() -> dict[str, Script]:
    return {name: read(name) for name in NAMES}

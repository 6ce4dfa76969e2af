"""The Lua scripts, read from `lua/`: each one atomic move."""

from __future__ import annotations

from importlib.resources import files

from hub.redis.commands import Script

# publish.lua stands alone: it is the one that runs for every message.
_ALONE = frozenset({"publish"})


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

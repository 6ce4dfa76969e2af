"""The Lua scripts, read from `lua/`: each one atomic move."""

from __future__ import annotations

from importlib.resources import files

from hub.redis.commands import Script

# Each script, and the files of shared functions that it needs. publish.lua needs none: it runs for every message.
_SHARED: dict[str, tuple[str, ...]] = {
    "publish": (),
    "permissions": (),
    "history": ("common",),
    "detect_loss": ("common",),
    "renew": ("common",),
    "release": ("common",),
    "commit": ("common",),
    **dict.fromkeys(
        (
            "claim", "subscribe", "unsubscribe", "replay", "park", "touch", "end_session",
            "sweep",
        ),
        ("common", "session"),
    ),
}  # fmt: skip
NAMES = tuple(_SHARED)


def read(name: str) -> Script:
    """Read `lua/<name>.lua`, with the shared functions that it needs before it."""
    folder = files("hub.store") / "lua"
    texts = [(folder / f"{each}.lua").read_text() for each in (*_SHARED[name], name)]
    return Script(name, "\n".join(texts))


def read_all() -> dict[str, Script]:
    """Read all scripts, by name."""
    return {name: read(name) for name in NAMES}

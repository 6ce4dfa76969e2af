"""How deep JSON nests, found without recursion: how deep it may be is what is asked."""

from __future__ import annotations

from typing import Any


def depth(value: Any) -> int:
    """Return how deep arrays and objects are nested, level by level."""
    deepest = 0
    level = [value] if type(value) in (list, dict) else []
    while level:
        deepest += 1
        level = [
            item
            for parent in level
            for item in (parent.values() if type(parent) is dict else parent)
            if type(item) is list or type(item) is dict
        ]
    return deepest

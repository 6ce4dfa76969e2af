"""Calls a function when a publish has its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hub.store.publishing import PublishListener


class OnPublished(PublishListener):
    def __init__(self, call: Callable[[Any, bool], Any]) -> None:
        self._call = call

    def on_published(self, result: Any, duplicate: bool) -> None:
        self._call(result, duplicate)

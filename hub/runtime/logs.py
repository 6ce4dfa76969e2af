"""Structured, quiet logs on standard error: one line per record, fields as `key=value`.

    2026-11-23T14:31:07.482Z info hub.runtime.process listening url=http://127.0.0.1:8000/

Fields are given with the record, `log.info("parked", extra={"rooms": 3})`. Secrets and message
bodies have no place in a log; a field that by its name would hold one is blotted out.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, TextIO

# What a LogRecord has of itself; anything beyond came through `extra`.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_SECRET = frozenset(
    {"pid", "token", "auth", "authorization", "cookie", "password", "data", "payload"}
)
_PLAIN = re.compile(r"[^\s\"=\\\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_FRAMES = 5

# Libraries that tell more than anybody wants: payloads, one line per request, every poll.
_NOISY = ("socketio", "engineio", "aiohttp.access", "asyncio")


class LineFormatter(logging.Formatter):
    """Formats a record as one line, whatever is in it."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        parts = [
            when.replace("+00:00", "Z"),
            record.levelname.lower(),
            record.name,
            _CONTROL.sub(" ", record.getMessage()),
        ]
        fields = {key: value for key, value in vars(record).items() if key not in _OWN}
        parts += [f"{key}={_value(key, value)}" for key, value in fields.items()]
        if record.exc_info and record.exc_info[1] is not None:
            parts += _exception(record.exc_info[1])
        return " ".join(parts)


def setup(level: str, stream: TextIO | None = None) -> None:
    """Send all logs to `stream` (standard error); the hub's own from `level` up, libraries' warnings."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(LineFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("hub").setLevel(level.upper())
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)


def _value(key: str, value: Any) -> str:
    """Return one field's value: as it is where that is one plain word, else as a JSON string."""
    if key.lower() in _SECRET:
        return "***"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def _exception(error: BaseException) -> list[str]:
    """Return an exception as fields: what it was, and where, innermost frame first."""
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    places = [f"{_short(frame.filename)}:{frame.lineno}:{frame.name}" for frame in reversed(frames)]
    text = f"{type(error).__name__}: {error}"
    return [f"error={_value('error', text)}", f"at={_value('at', ' < '.join(places))}"]


def _short(filename: str) -> str:
    """Return a file's name from its package on: hub/store/bus.py."""
    return "/".join(re.split(r"[\\/]", filename)[-2:])

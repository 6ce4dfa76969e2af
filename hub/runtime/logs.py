"""Structured, quiet logs on standard error: one line per record, fields as `key=value`, or one JSON object.

    2026-11-23T14:31:07.482Z error hub.embedded the embedded server ended; restarting it exit=SIGKILL
    {"time": "2026-11-23T14:31:07.482Z", "level": "error", "logger": "hub.embedded", "message": "…", "exit": "SIGKILL"}

Fields are given with the record, `log.info("parked", extra={"rooms": 3})`. Secrets and the data of messages
do not belong in a log. The value of a field that has the name of one is written as `***`.
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, TextIO

# The attributes of every LogRecord; any other came through `extra`.
_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_SECRET_FIELDS = frozenset(
    {"pid", "token", "auth", "authorization", "cookie", "password", "data", "payload"}
)
_PLAIN_VALUE = re.compile(r"[^\s\"=\\\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_MAX_FRAMES = 5  # stack frames of an exception in its line

# Libraries that at lower levels log payloads, or a line for each request or poll.
_NOISY_LIBRARIES = ("socketio", "engineio", "aiohttp.access", "asyncio")


class LineFormatter(logging.Formatter):
    """Formats a record as one line, whatever it contains."""

    def format(self, record: logging.LogRecord) -> str:
        parts = [
            _time(record),
            record.levelname.lower(),
            record.name,
            _CONTROL.sub(" ", record.getMessage()),
        ]
        parts += [f"{key}={_value(key, value)}" for key, value in _fields(record).items()]
        return " ".join(parts)


class JSONFormatter(logging.Formatter):
    """Formats a record as one JSON object. A field that has the name of one of the first four replaces none of them."""

    def format(self, record: logging.LogRecord) -> str:
        head = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields = {key: _json_value(key, value) for key, value in _fields(record).items()}
        return json.dumps(head | {k: v for k, v in fields.items() if k not in head})


def setup(level: str, form: str = "text", stream: TextIO | None = None) -> None:
    """Write the hub's logs from `level` up, and libraries' warnings, to `stream` (None: standard error).

    `form` is "text" or "json".
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JSONFormatter() if form == "json" else LineFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("hub").setLevel(level.upper())
    for name in _NOISY_LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)


def _time(record: logging.LogRecord) -> str:
    when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    return when.replace("+00:00", "Z")


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """Return what came with a record: its own fields, and those of its exception."""
    fields = {key: value for key, value in vars(record).items() if key not in _STANDARD_FIELDS}
    if record.exc_info and record.exc_info[1] is not None:
        fields |= _exception(record.exc_info[1])
    return fields


def _json_value(key: str, value: Any) -> Any:
    """Return the value of a field as it stands in JSON: numbers and truth values as such, all else as text."""
    if key.lower() in _SECRET_FIELDS:
        return "***"
    plain = value is None or isinstance(value, bool | int)
    return value if plain or (isinstance(value, float) and math.isfinite(value)) else str(value)


def _value(key: str, value: Any) -> str:
    """Return the value of a field: as it is if it is one plain word, otherwise as a JSON string."""
    if key.lower() in _SECRET_FIELDS:
        return "***"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text if _PLAIN_VALUE.fullmatch(text) else json.dumps(text)


def _exception(error: BaseException) -> dict[str, str]:
    """Return an exception as fields: its type and text, and its stack frames, the innermost first."""
    frames = traceback.extract_tb(error.__traceback__)[-_MAX_FRAMES:]
    places = [f"{_short(frame.filename)}:{frame.lineno}:{frame.name}" for frame in reversed(frames)]
    return {"error": f"{type(error).__name__}: {error}", "at": " < ".join(places)}


def _short(filename: str) -> str:
    """Return a file's name with its folder: `store/keys.py`."""
    return "/".join(re.split(r"[\\/]", filename)[-2:])

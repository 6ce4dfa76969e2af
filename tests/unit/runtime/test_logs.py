"""The logs: one line a record, whatever is in it, and nothing secret."""

from __future__ import annotations

import io
import json
import logging
import re
import warnings
from collections.abc import Iterator

import pytest

from hub.runtime import logs


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """Logs at 'info' into a string; everything as before afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in ("hub", *logs._NOISY_LIBRARIES)}
    stream = io.StringIO()
    logs.setup("info", stream=stream)
    yield stream
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def test_a_record_is_a_line_with_its_fields(written):
    logging.getLogger("hub.app").info("listening", extra={"url": "http://x/", "rooms": 3})
    line = written.getvalue()
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info hub\.app listening url=http://x/ rooms=3\n",
        line,
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a b", '"a b"'),
        ('say "x"', json.dumps('say "x"')),
        ("", '""'),
        ("two\nlines", '"two\\nlines"'),
        ("\x1b[31m", '"\\u001b[31m"'),
        ("\u2028", '"\\u2028"'),
        ("a=b", '"a=b"'),
        (True, "true"),
        (0.1 + 0.2, "0.3"),
        (None, "None"),
    ],
)
def test_a_value_cannot_break_the_line(written, value, text):
    logging.getLogger("hub").info("x", extra={"field": value})
    assert written.getvalue().endswith(f" x field={text}\n")
    assert len(written.getvalue().splitlines()) == 1


def test_a_message_cannot_break_the_line(written):
    logging.getLogger("hub").info("a %s", "b\r\n2026 info hub forged\x00")
    assert len(written.getvalue().splitlines()) == 1


def test_an_exception_is_fields_too(written):
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("hub").exception("failed")
    line = written.getvalue()
    assert 'error="ValueError: two\\nlines" at=' in line
    assert "runtime/test_logs.py:" in line
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize("name", ["pid", "token", "auth", "data", "payload", "Password"])
def test_secrets_and_bodies_are_blotted_out(written, name):
    logging.getLogger("hub").info("x", extra={name: "s3cret"})
    assert written.getvalue().endswith(f" x {name}=***\n")


def test_quiet(written):
    """Below the level nothing is said, nor by libraries below a warning."""
    logging.getLogger("hub.node").debug("x")
    for name in ("aiohttp.access", "socketio.server", "engineio.server", "other"):
        logging.getLogger(name).info("x")
    assert written.getvalue() == ""
    logging.getLogger("socketio.server").warning("x")
    assert written.getvalue().endswith("warning socketio.server x\n")


def test_debug_is_the_hubs_own(written):
    logs.setup("debug", stream=written)
    logging.getLogger("hub.node").debug("x")
    logging.getLogger("asyncio").debug("y")
    logging.getLogger("socketio").info("y")
    assert written.getvalue().endswith("debug hub.node x\n")
    assert len(written.getvalue().splitlines()) == 1


def test_warnings_are_logged(written):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logs.setup("info", stream=written)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert "warning py.warnings" in written.getvalue()
    assert len(written.getvalue().splitlines()) == 1


def test_json_is_one_object_a_line(written):
    """Numbers stay numbers; an exception is two fields; secrets are blotted out; nothing replaces the message."""
    logs.setup("info", "json", written)
    log = logging.getLogger("hub.app")
    log.info(
        "two\nlines",
        extra={"rooms": 3, "late": 0.5, "odd": float("nan"), "pid": "s3cret", "time": "x"},
    )
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("failed")
    first, second = (json.loads(line) for line in written.getvalue().splitlines())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", first.pop("time"))
    assert first == {
        "level": "info", "logger": "hub.app", "message": "two\nlines", "rooms": 3, "late": 0.5, "odd": "nan",
        "pid": "***",
    }  # fmt: skip
    assert second["error"] == "ValueError: why"
    assert "test_logs.py:" in second["at"]

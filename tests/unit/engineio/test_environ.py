"""The environ that handlers get: made when they look, and once."""

from __future__ import annotations

from typing import Any

from hub.engineio.environ import Environ


def test_an_environ_is_made_when_somebody_looks() -> None:
    made: list[dict[str, Any]] = []

    def make() -> dict[str, Any]:
        made.append({"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "hub"})
        return made[-1]

    environ = Environ(make)
    assert not made
    assert environ["REMOTE_ADDR"] == "127.0.0.1"
    assert environ.get("HTTP_ORIGIN") is None
    assert "HTTP_HOST" in environ
    assert dict(environ) == made[0]
    assert len(made) == 1

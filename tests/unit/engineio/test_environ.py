"""The environ that handlers get: made when they read it, and once."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request

from hub.engineio import environ as module
from hub.engineio.environ import Environ


def test_an_environ_is_made_at_the_first_access(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []
    environ_of = module.environ_of

    def make(*given: Any) -> dict[str, Any]:
        made.append(environ_of(*given))
        return made[-1]

    monkeypatch.setattr(module, "environ_of", make)
    environ = Environ(make_mocked_request("GET", "/", headers={"Host": "hub"}), "192.0.2.1")
    assert not made
    assert environ["REMOTE_ADDR"] == "192.0.2.1"
    assert environ["HTTP_HOST"] == "hub"
    assert environ.get("HTTP_ORIGIN") is None
    assert dict(environ) == made[0]
    assert len(made) == 1

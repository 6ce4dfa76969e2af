"""Fixtures that every kind of test shares: a real Redis server, and tools that must be there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.redis import RedisServer
from tests.support.times import UNIT


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Stretch the time that a test may take, as all times are."""
    if config.option.timeout is None:
        config.option.timeout = float(config.getini("timeout")) * UNIT


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the slow tests: at the end one of them would keep a worker busy while the other has nothing left."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One server for the run; tests share it under prefixes of their own."""
    server = RedisServer()
    yield server
    server.stop()


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """Yield a server of the test's own, which it may kill; what was acknowledged is on disk."""
    server = RedisServer("--appendonly", "yes", "--appendfsync", "always")
    yield server
    server.stop()

"""Fixtures of the tests that break things: hubs on a Redis of their own, and bare clients."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.chaos.cluster import Cluster
from tests.support.raw import Raw


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    """Two hubs on one Redis, each behind a door; nothing but what the test does goes wrong."""
    async with Cluster(hubs=2, doors=2) as running:
        yield running
        running.check()


@pytest.fixture
async def raw() -> AsyncIterator[Callable[..., Any]]:
    """Open bare sessions, cut after the test."""
    sessions: list[Raw] = []

    async def connect(url: str, **auth: Any) -> Raw:
        sessions.append(Raw(url))
        await sessions[-1].open()
        await sessions[-1].connect(auth)
        return sessions[-1]

    yield connect
    for session in sessions:
        await session.drop()

"""What a node looks after, in pieces that hold nobody up."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from hub.node.maintenance import ROOMS, SESSIONS, Maintenance
from hub.settings import Settings


class Subject:
    """A session in so many rooms."""

    connection_id = "c"

    def __init__(self, number: int, rooms: int) -> None:
        self.client_id = str(number)
        self.joins = dict.fromkeys(range(rooms), 1)


@pytest.mark.parametrize(
    ("rooms", "batches"),
    [
        ([], []),
        ([1] * (SESSIONS + 1), [SESSIONS, 1]),
        ([ROOMS // 2] * 5, [2, 2, 1]),
        ([1, ROOMS, 2 * ROOMS, 1, 1], [1, 1, 1, 2]),
    ],
)
async def test_sessions_are_touched_by_number_and_rooms(rooms, batches):
    """A script goes through the rooms of each: whoever is in many is touched alone. Nobody is left out."""
    touched: list[list[tuple[str, str]]] = []
    sessions = {str(number): Subject(number, count) for number, count in enumerate(rooms)}

    class StoredSessions:
        async def touch(self, batch: list[tuple[str, str]]) -> None:
            touched.append(batch)
            sessions.pop(batch[0][0])  # somebody leaves meanwhile

    class Everybody:
        def __iter__(self) -> Iterator[Subject]:
            return iter(list(sessions.values()))

    parts: Any = (SimpleNamespace(sessions=StoredSessions()), Everybody(), None, None)
    await Maintenance(Settings(), *parts).touch()
    assert [len(batch) for batch in touched] == batches
    assert [client for batch in touched for client, _ in batch] == [
        str(number) for number in range(len(rooms))
    ]

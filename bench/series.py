"""How cost grows: with clients, rooms, message size and away clients, one of them at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.rows import Row
from bench.scenarios import Scenario, flow


@dataclass(frozen=True)
class Series:
    """Points along one axis; each is measured like a row."""

    name: str
    title: str
    points: Sequence[Row]


def _series(name: str, title: str, unit: str, scenarios: dict[int, Scenario]) -> Series:
    """Make a point of each scenario, by the number that it stands for."""
    return Series(
        name,
        title,
        [
            Row(f"{name} {number}", f"{number:,} {unit}", scenario, (), ("node",))
            for number, scenario in scenarios.items()
        ],
    )


SECONDS = 3
SERIES = (
    _series(
        "clients",
        "clients in one room, 4 messages in flight",
        "clients",
        {n: flow(clients=n, window=4, seconds=SECONDS) for n in (1, 10, 100, 1000, 5000)},
    ),
    _series(
        "rooms",
        "1,000 clients spread over rooms, 64 messages in flight",
        "rooms",
        {
            n: flow(clients=1000, rooms=n, window=64, publishers=min(n, 8), seconds=SECONDS)
            for n in (1, 10, 100, 1000)
        },
    ),
    _series(
        "size",
        "message size, 100 clients in one room, 4 messages in flight",
        "bytes",
        {
            n: flow(clients=100, window=4, size=n, seconds=SECONDS)
            for n in (100, 1024, 4096, 16_384, 65_536)
        },
    ),
    _series(
        "away",
        "away clients beside 100 present ones, 1 message in flight",
        "away",
        {n: flow(clients=100, window=1, away=n, seconds=SECONDS) for n in (0, 100, 1000, 10_000)},
    ),
)
POINTS = [point for series in SERIES for point in series.points]

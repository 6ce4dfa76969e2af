"""What was measured, pair by pair, and what it comes to: medians, ratios, targets met or missed."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.rows import Row, Target

# Of one pair: server → figure → value. What went wrong is under FAULTS.
Pair = dict[str, dict[str, Any]]
FAULTS = "faults"


def values(pairs: list[Pair], server: str, figure: str) -> list[float]:
    """Return a server's figure in every pair that has it."""
    return [pair[server][figure] for pair in pairs if figure in pair.get(server, {})]


def median(pairs: list[Pair], server: str, figure: str) -> float | None:
    found = values(pairs, server, figure)
    return statistics.median(found) if found else None


def ratios(pairs: list[Pair], server: str, peer: str, figure: str) -> list[float]:
    """Return figure of `server` / figure of `peer` for every pair that has both."""
    return [
        pair[server][figure] / pair[peer][figure]
        for pair in pairs
        if figure in pair.get(server, {}) and pair.get(peer, {}).get(figure)
    ]


def faults(pairs: list[Pair], server: str) -> dict[str, float]:
    """Return what went wrong with a server, at worst."""
    worst: dict[str, float] = {}
    for pair in pairs:
        for name, count in pair.get(server, {}).get(FAULTS, {}).items():
            worst[name] = max(count, worst.get(name, 0))
    return worst


@dataclass(frozen=True)
class Verdict:
    """A target and what was measured: the median of `spread`, one value a pair."""

    target: Target
    spread: list[float]

    @property
    def value(self) -> float:
        return statistics.median(self.spread)

    @property
    def met(self) -> bool:
        if self.target.least:
            return self.value >= self.target.bound
        return self.value <= self.target.bound

    @property
    def text(self) -> str:
        """Return 'met', or by how much it was missed."""
        if self.met:
            return "met"
        value, bound = self.value, self.target.bound
        if self.target.least:
            return f"missed: {value / bound:.2f} of it"
        return f"missed: {value / bound:.2f} × it" if bound else f"missed by {value:g}"


def verdicts(row: Row, pairs: list[Pair], server: str = "hub") -> list[Verdict]:
    """Return a verdict on each target that was measured."""
    found = []
    for target in row.targets:
        if target.against is None:
            spread = values(pairs, server, target.figure)
        else:
            spread = ratios(pairs, server, target.against, target.figure)
        if spread:
            found.append(Verdict(target, spread))
    return found


@dataclass
class Results:
    """All that one file holds: the machine, and for each row its pairs."""

    machine: dict[str, Any]
    rows: dict[str, list[Pair]]

    @classmethod
    def load(cls, path: Path) -> Results:
        held = json.loads(path.read_text())
        return cls(held["machine"], held["rows"])

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"machine": self.machine, "rows": self.rows}, indent=1)
        path.write_text(text + "\n")

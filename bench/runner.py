"""Measures rows: in each pair every server once, in turn."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Sequence

from bench.places import LOAD_CORE
from bench.results import FAULTS, Pair
from bench.rows import Row
from bench.scenarios import beginning
from bench.servers import Choice


def prepare() -> None:
    """Take the load's core, where this process only waits, and allow many files to all it starts."""
    os.sched_setaffinity(0, {LOAD_CORE})
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def measure(row: Row, servers: Sequence[str], choice: Choice, tell: Callable[[str], None]) -> Pair:
    """Run a row's scenario once on each server; a fresh server each time."""
    pair: Pair = {}
    for server in servers:
        faults: dict[str, float] = {}
        figures = row.scenario(lambda name=server, held=faults: beginning(name, choice, held))
        rounded = {name: float(f"{value:.6g}") for name, value in figures.items()}
        pair[server] = rounded | ({FAULTS: faults} if faults else {})
        figure = f"{rounded[row.figure]:.3g} {row.unit}"
        tell(f"{row.name}  {server}  {figure}" + (f"  faults: {faults}" if faults else ""))
    return pair

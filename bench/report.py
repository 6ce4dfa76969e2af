"""The table that people read."""

from __future__ import annotations

import statistics

from rich.console import Console
from rich.table import Table

from bench.machine import heading
from bench.results import FAULTS, Pair, Results, Verdict, faults, median, ratios, verdicts
from bench.rows import ROWS, TITLES


def number(value: float | None) -> str:
    """Write a figure with three digits that count; '' for None."""
    if value is None:
        return ""
    if value and abs(value) < 100:
        return f"{value:.3g}"
    return f"{value:,.0f}"


def show(results: Results, console: Console) -> None:
    """Print targets, then every server's own figures, then what went wrong."""
    console.print(heading(results.machine), style="dim", highlight=False)
    console.print(_targets(results))
    console.print(_figures(results))
    for row in ROWS:
        pairs = results.rows.get(row.name, [])
        for server in TITLES:
            if wrong := faults(pairs, server):
                told = ", ".join(f"{count:g} {name}" for name, count in wrong.items())
                console.print(f"{row.name}, {TITLES[server]}: {told}", style="yellow")


def _targets(results: Results) -> Table:
    table = Table(title="Targets: the median of all pairs")
    for name in ("work", "figure", "target", "measured", "of all pairs", "with Redis", "verdict"):
        table.add_column(name, justify="right" if name == "measured" else "left")
    for row in ROWS:
        pairs = results.rows.get(row.name, [])
        servers = [name for name in ("hub", "other") if any(name in pair for pair in pairs)]
        for server in servers:
            title = row.title if server == "hub" else f"{row.title} (other)"
            for verdict in verdicts(row, pairs, server):
                both = _with_redis(verdict, pairs, server)
                table.add_row(
                    title,
                    *_cells(verdict),
                    both,
                    verdict.text,
                    style=None if verdict.met else "red",
                )
                title = ""
    return table


def _cells(verdict: Verdict) -> tuple[str, str, str, str]:
    target = verdict.target
    peer = f" / {TITLES[target.against]}" if target.against else ""
    spread = (
        f"{number(min(verdict.spread))} to {number(max(verdict.spread))}, {len(verdict.spread)}"
    )
    sign = "≥" if target.least else "≤"
    return (
        target.text + peer,
        f"{sign} {number(target.bound)}",
        number(verdict.value),
        spread,
    )


def _with_redis(verdict: Verdict, pairs: list[Pair], server: str) -> str:
    """Return the ratio of what the servers and their Redis cost together, where it is another one."""
    target = verdict.target
    if target.figure != "cpu_us" or target.against is None:
        return ""
    return number(statistics.median(ratios(pairs, server, target.against, "sum_us")))


def _figures(results: Results) -> Table:
    """One line a server and row: every figure's median."""
    table = Table(title="Figures: medians")
    for name in ("row", "server", "figures"):
        table.add_column(name)
    for row in ROWS:
        pairs = results.rows.get(row.name, [])
        name = row.name
        for server, title in TITLES.items():
            figures = {key for pair in pairs for key in pair.get(server, {}) if key != FAULTS}
            ordered = [key for pair in pairs[:1] for key in pair.get(server, {}) if key in figures]
            if ordered:
                cells = (f"{key} {number(median(pairs, server, key))}" for key in ordered)
                table.add_row(name, title, "  ".join(cells))
                name = ""
    return table

"""What people read: the tables, and the bars."""

from __future__ import annotations

import statistics

from rich.console import Console
from rich.table import Table

from bench.chart import Bar, Group, draw, short
from bench.machine import heading
from bench.results import FAULTS, Pair, Results, Verdict, faults, median, ratios, verdicts
from bench.rows import ROWS, TITLES, Row
from bench.series import POINTS, SERIES


def show(results: Results, console: Console) -> None:
    """Print targets, then every server's own figures, then what went wrong."""
    console.print(heading(results.machine), style="dim", highlight=False)
    if any(row.name in results.rows for row in ROWS):
        console.print(_targets(results))
    console.print(_figures(results))
    for row in (*ROWS, *POINTS):
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
    spread = f"{short(min(verdict.spread))} to {short(max(verdict.spread))}, {len(verdict.spread)}"
    sign = "≥" if target.least else "≤"
    return (
        target.text + peer,
        f"{sign} {short(target.bound)}",
        short(verdict.value),
        spread,
    )


def _with_redis(verdict: Verdict, pairs: list[Pair], server: str) -> str:
    """Return the ratio of what the servers and their Redis cost together, where it is another one."""
    target = verdict.target
    if target.figure != "cpu_us" or target.against is None:
        return ""
    return short(statistics.median(ratios(pairs, server, target.against, "sum_us")))


def _figures(results: Results) -> Table:
    """One line a server and row: every figure's median."""
    table = Table(title="Figures: medians")
    for name in ("row", "server", "figures"):
        table.add_column(name)
    for row in (*ROWS, *POINTS):
        pairs = results.rows.get(row.name, [])
        name = row.name
        for server, title in TITLES.items():
            figures = {key for pair in pairs for key in pair.get(server, {}) if key != FAULTS}
            ordered = [key for pair in pairs[:1] for key in pair.get(server, {}) if key in figures]
            if ordered:
                cells = (f"{key} {short(median(pairs, server, key))}" for key in ordered)
                table.add_row(name, title, "  ".join(cells))
                name = ""
    return table


def bars(results: Results) -> str:
    """Return the SVG of all rows measured: the medians of each row's main figure."""
    return draw([group for row in ROWS if (group := _group(row, results)).bars])


def series_bars(results: Results) -> str:
    """Return the SVG of all series measured: the hub's and its peer's cost at each point."""
    groups = []
    for series in SERIES:
        found = [
            Bar(f"{point.title}, {name}", value, own=server == "hub")
            for point in series.points
            for server, name in (("hub", "hub"), ("node", "Node"))
            if (value := median(results.rows.get(point.name, []), server, point.figure)) is not None
        ]
        if found:
            groups.append(Group(series.title, "µs of CPU a delivery", found))
    return draw(groups)


def _group(row: Row, results: Results) -> Group:
    pairs = results.rows.get(row.name, [])
    found = [
        Bar(title, value, own=server in ("hub", "other"))
        for server, title in TITLES.items()
        if (value := median(pairs, server, row.figure)) is not None
    ]
    return Group(row.title, row.unit, found, _bound(row, pairs))


def _bound(row: Row, pairs: list[Pair]) -> float | None:
    """Return where the hub's bar is to end: by the first target that speaks of this figure."""
    for target in row.targets:
        if target.figure == row.figure:
            if target.against is None:
                return target.bound
            peer = median(pairs, target.against, row.figure)
            return None if peer is None else target.bound * peer
    return None

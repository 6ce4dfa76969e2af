"""Measures the hub against its peers and says which targets are met.

    python -m bench                               the whole table, five pairs each
    python -m bench --quick                       the first three rows in under two minutes
    python -m bench --rows fanout4,rooms          some rows
    python -m bench --series                      how cost grows, one pair each
    python -m bench --hub PATH                    the hub of another checkout
    python -m bench --against PATH                another checkout's hub as one more peer
    python -m bench --redis redis-server          the hub on another server than its own
    python -m bench --add                         more pairs to those that --json holds
    python -m bench --show                        nothing new: what --json holds

Beside the JSON file come bars.svg and, of series, series.svg.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from rich.console import Console

from bench import generator, machine, report
from bench.places import BUILD
from bench.results import Results
from bench.rows import QUICK, ROWS, TITLES, Row
from bench.runner import measure, prepare
from bench.series import SERIES
from bench.servers import Choice
from tests.support.tools import node


def arguments() -> argparse.Namespace:
    rows = {row.name: [row] for row in ROWS}
    series = {one.name: list(one.points) for one in SERIES}
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--rows", help=f"of {','.join(rows)}; all by default")
    what.add_argument("--quick", action="store_true", help=f"the rows {','.join(QUICK)}")
    what.add_argument(
        "--series", nargs="?", const=",".join(series), help=f"of {','.join(series)}; all by default"
    )
    what.add_argument("--show", action="store_true", help="print and draw what --json holds")
    parser.add_argument("--pairs", type=int, help="5 by default; 2 with --quick, 1 with --series")
    parser.add_argument("--servers", help=f"only these, of {','.join(TITLES)}")
    parser.add_argument("--hub", type=Path, help="checkout whose .venv/bin/hub is measured")
    parser.add_argument("--against", type=Path, help="checkout to compare it with")
    parser.add_argument("--node", default=node(), help="the Node that runs Socket.IO")
    parser.add_argument("--redis", help="server that hubs are given instead of their own")
    parser.add_argument("--json", type=Path, default=BUILD / "results.json")
    parser.add_argument("--add", action="store_true", help="keep the pairs that --json holds")
    given = parser.parse_args()
    if given.series:
        given.work = _choose(parser, given.series.split(","), series)
    else:
        names = QUICK if given.quick else (given.rows or ",".join(rows)).split(",")
        given.work = _choose(parser, names, rows)
    given.servers = given.servers.split(",") if given.servers else None
    _choose(parser, given.servers or (), {name: [] for name in TITLES})
    given.pairs = given.pairs or (2 if given.quick else 1 if given.series else 5)
    return given


def _choose(
    parser: argparse.ArgumentParser, names: list[str] | tuple[str, ...], known: dict[str, list[Row]]
) -> list[Row]:
    for name in names:
        if name not in known:
            parser.error(f"there is no {name!r}, only {', '.join(known)}")
    return [row for name in names for row in known[name]]


def servers_of(row: Row, given: argparse.Namespace) -> list[str]:
    """Return whom to measure: the hub first, then its peers in turn."""
    everybody = ["hub", *(["other"] if given.against else []), *row.peers, *row.more]
    if given.servers:
        return [name for name in everybody if name in given.servers]
    return [name for name in everybody if not given.quick or name not in row.more]


def present(results: Results, path: Path, console: Console) -> None:
    """Print the tables, and draw the bars beside the JSON file."""
    report.show(results, console)
    drawings = {"bars.svg": report.bars(results), "series.svg": report.series_bars(results)}
    for name, drawing in drawings.items():
        if drawing:
            path.with_name(name).write_text(drawing)


def main() -> None:
    given = arguments()
    console = Console()
    console.width = max(console.width, 150)
    if given.show:
        present(Results.load(given.json), given.json, console)
        return
    choice = Choice(
        **({"hub": given.hub.resolve()} if given.hub else {}),
        other=given.against.resolve() if given.against else None,
        node=given.node,
        redis=given.redis,
    )
    generator.build()
    prepare()
    held = Results.load(given.json).rows if given.add and given.json.exists() else {}
    results = Results(machine.facts(choice), held)
    for row in given.work:
        servers = servers_of(row, given)
        for number in range(1, given.pairs + 1 if servers else 1):
            tell = partial(console.print, f"{number}/{given.pairs}", highlight=False)
            results.rows.setdefault(row.name, []).append(measure(row, servers, choice, tell))
            results.save(given.json)
    present(results, given.json, console)


if __name__ == "__main__":
    main()

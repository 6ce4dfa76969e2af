"""Measures the hub against its peers and says which targets are met.

python -m bench                               the whole table, five pairs each
python -m bench --quick                       the first three rows in under two minutes
python -m bench --rows fanout4,rooms          some rows
python -m bench --hub PATH                    the hub of another checkout
python -m bench --against PATH                another checkout's hub as one more peer
python -m bench --add                         more pairs to those that --json holds
python -m bench --show                        nothing new: what --json holds
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from bench import generator, machine, report
from bench.places import BUILD
from bench.results import Results
from bench.rows import QUICK, ROWS, TITLES, Row
from bench.runner import measure, prepare
from bench.servers import Choice
from tests.support.tools import node


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [row.name for row in ROWS]
    parser.add_argument("--rows", help=f"of {','.join(names)}")
    parser.add_argument("--pairs", type=int, help="5; with --quick 2")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--servers", help=f"only these, of {','.join(TITLES)}")
    parser.add_argument("--hub", type=Path, help="checkout whose .venv/bin/hub is measured")
    parser.add_argument("--against", type=Path, help="checkout to compare it with")
    parser.add_argument("--node", help="the Node to use")
    parser.add_argument("--json", type=Path, default=BUILD / "results.json")
    parser.add_argument("--add", action="store_true")
    parser.add_argument("--show", action="store_true")
    given = parser.parse_args()
    given.rows = given.rows.split(",") if given.rows else list(QUICK) if given.quick else names
    if unknown := set(given.rows) - set(names):
        parser.error(f"no such rows: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    given.servers = given.servers.split(",") if given.servers else None
    if unknown := set(given.servers or ()) - set(TITLES):
        parser.error(f"no such servers: {', '.join(sorted(unknown))}")
    given.pairs = given.pairs or (2 if given.quick else 5)
    return given


def servers_of(row: Row, given: argparse.Namespace) -> list[str]:
    """Return whom to measure: the hub first, then its peers in turn."""
    if given.servers:
        everybody = ["hub", "other", *row.peers, *row.more]
        return [name for name in everybody if name in given.servers]
    more = [] if given.quick else row.more
    return ["hub", *(["other"] if given.against else []), *row.peers, *more]


def main() -> None:
    given = arguments()
    console = Console()
    console.width = max(console.width, 150)
    if given.show:
        report.show(Results.load(given.json), console)
        return
    choice = Choice(
        **({"hub": given.hub.resolve()} if given.hub else {}),
        other=given.against.resolve() if given.against else None,
        node=given.node or node(),
    )
    generator.build()
    prepare()
    facts = machine.facts(choice)
    held = Results.load(given.json).rows if given.add and given.json.exists() else {}
    results = Results(facts, held)
    for row in (row for row in ROWS if row.name in given.rows):
        servers = servers_of(row, given)
        for number in range(given.pairs if servers else 0):
            tell = lambda text, at=number: console.print(f"{at + 1}/{given.pairs}  {text}")  # noqa: E731
            results.rows.setdefault(row.name, []).append(measure(row, servers, choice, tell))
            results.save(given.json)
    report.show(results, console)


main()

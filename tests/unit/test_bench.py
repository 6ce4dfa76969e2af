"""The arithmetic of `bench/`: medians and ratios, targets, the file of results, the bars."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench import report
from bench.chart import Bar, Group, draw
from bench.results import Pair, Results, Verdict, faults, median, ratios, verdicts
from bench.rows import QUICK, ROWS, TITLES, Target
from bench.scenarios import costs
from bench.series import SERIES

SVG = "{http://www.w3.org/2000/svg}"


def pair(hub: float, node: float) -> Pair:
    return {"hub": {"cpu_us": hub}, "node": {"cpu_us": node}}


def test_a_ratio_is_that_of_each_pair() -> None:
    """The machine may be slow during one pair: its two halves are compared with each other alone."""
    pairs = [pair(2, 4), pair(3, 30), pair(9, 10)]
    assert ratios(pairs, "hub", "node", "cpu_us") == [0.5, 0.1, 0.9]
    row = next(row for row in ROWS if row.name == "fanout4")
    (verdict,) = verdicts(row, pairs)
    assert verdict.value == 0.5  # the ratio of the medians would be 3 / 10
    assert not verdict.met
    assert verdict.text == "missed: 2.00 × it"


def test_what_was_not_measured_counts_nowhere() -> None:
    pairs = [pair(1, 4), {"hub": {"cpu_us": 9.0}}, {"node": {"cpu_us": 9.0}}, pair(1, 0)]
    assert ratios(pairs, "hub", "node", "cpu_us") == [0.25]
    assert median(pairs, "hub", "cpu_us") == 1
    assert median(pairs, "sender", "cpu_us") is None
    assert all(not verdicts(row, []) for row in ROWS)


@pytest.mark.parametrize(
    ("bound", "least", "value", "text"),
    [
        (0.5, False, 0.5, "met"),
        (0.5, False, 0.75, "missed: 1.50 × it"),
        (1.0, True, 1.0, "met"),
        (1.0, True, 0.4, "missed: 0.40 of it"),
        (0, False, 0, "met"),
        (0, False, 3, "missed by 3"),
    ],
)
def test_a_target_is_met_or_missed_by_so_much(
    bound: float, least: bool, value: float, text: str
) -> None:
    verdict = Verdict(Target("f", "a figure", bound, least=least), [value])
    assert verdict.text == text
    assert verdict.met == (text == "met")


def test_costs_are_those_of_one() -> None:
    answer = {"cpu": [2.0, 0.5], "own_cpu": 1.0, "seconds": 4.0}
    assert costs(answer, 1_000_000) == {
        "cpu_us": 2.0,
        "redis_us": 0.5,
        "sum_us": 2.5,
        "per_s": 250_000,
        "load_busy": 0.25,
    }
    assert costs(answer | {"cpu": [2.0]}, 1_000_000)["sum_us"] == 2.0
    second = costs(answer | {"cpu": [1.5, 0.5, 0.5]}, 1_000_000)
    assert (second["cpu_us"], second["redis_us"]) == (2.0, 0.5)


def test_the_worst_fault_is_told() -> None:
    pairs: list[Pair] = [
        {"hub": {"faults": {"lost": 2.0}}},
        {"hub": {"faults": {"lost": 1.0, "gone": 1.0}}},
    ]
    assert faults(pairs, "hub") == {"lost": 2.0, "gone": 1.0}


def test_results_come_back_from_their_file(tmp_path: Path) -> None:
    results = Results({"cpu": "one"}, {"fanout4": [pair(1, 4)]})
    path = tmp_path / "new" / "results.json"
    results.save(path)
    assert Results.load(path) == results


def test_every_target_speaks_of_a_peer_that_is_measured() -> None:
    for row in ROWS:
        assert {target.against for target in row.targets} - {None} <= set(row.peers)
        assert set(row.peers) | set(row.more) <= set(TITLES)
    names = [row.name for row in ROWS] + [point.name for one in SERIES for point in one.points]
    assert len(set(names)) == len(names)
    assert set(QUICK) <= set(names)


def test_bars_are_a_wellformed_drawing() -> None:
    """Names are escaped, lengths are in proportion, the target's mark stays inside."""
    bars = [Bar("a < b & c", 4, own=True), Bar("other", 1)]
    drawing = ET.fromstring(draw([Group("one & all", "µs", bars, target=8)]))
    own, other = drawing.findall(f"{SVG}rect")
    assert own.get("class") == "own"
    assert float(own.get("width", "")) == pytest.approx(4 * float(other.get("width", "")), rel=0.01)
    (line,) = drawing.findall(f"{SVG}line")
    assert float(line.get("x1", "")) < float(drawing.get("width", ""))
    assert "a < b & c" in [text.text for text in drawing.findall(f"{SVG}text")]
    assert draw([]) == ""


def test_bars_of_results_show_what_was_measured() -> None:
    """A row that was measured is a group; the target's mark lies at its part of the peer's bar."""
    pairs = {"fanout4": [pair(2, 4)], "clients 10": [pair(1, 2)]}
    drawing = ET.fromstring(report.bars(Results({}, pairs)))
    hub, node = (float(bar.get("width", "")) for bar in drawing.findall(f"{SVG}rect"))
    (line,) = drawing.findall(f"{SVG}line")
    begin = float(drawing.findall(f"{SVG}rect")[0].get("x", ""))
    assert float(line.get("x1", "")) - begin == pytest.approx(node / 4, abs=0.2)
    assert hub == pytest.approx(node / 2, abs=0.2)
    series = ET.fromstring(report.series_bars(Results({}, {"clients 10": [pair(1, 2)]})))
    assert len(series.findall(f"{SVG}rect")) == 2

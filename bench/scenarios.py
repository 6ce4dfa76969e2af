"""What is done to a server to measure it. Each scenario returns figures by name, costs in microseconds of CPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from bench.generator import Load, loading
from bench.process import resident_kib, settle
from bench.servers import Choice, Server, running, second

Figures = dict[str, float]
# What the load generator counts and should find none of.
FAULTS = ("lost", "repeated", "misplaced_gaps", "missing", "refused", "failed", "gone", "stalled")


@dataclass
class Bench:
    """A server, the load on it, and what has gone wrong."""

    server: Server
    load: Load
    faults: dict[str, float]
    choice: Choice
    # Ends what was started beside the server, once the load is gone.
    stack: ExitStack

    def __call__(self, command: str, **arguments: float) -> dict[str, Any]:
        """Run a command of the load generator and note its faults."""
        answer = self.load(command, **arguments)
        for name in FAULTS:
            if answer.get(name):
                self.faults[name] = float(answer[name])
        return answer

    def settle(self) -> None:
        settle(self.server.pids)

    def connect(self, n: int, **arguments: float) -> dict[str, Any]:
        """Connect and subscribe `n` clients, and wait until the server has nothing left to do."""
        answer = self("connect", n=n, **arguments)
        self.settle()
        return answer

    def move_elsewhere(self) -> None:
        """Start a second process of the hub on the same Redis; from now on clients connect there."""
        server = self.stack.enter_context(second(self.server, self.choice))
        self("move", port=server.port, pid=server.pid)


# Starts the row's server afresh and ends it; a scenario may need more than one.
Begin = Callable[[], AbstractContextManager[Bench]]
Scenario = Callable[[Begin], Figures]


@contextmanager
def beginning(name: str, choice: Choice, faults: dict[str, float]) -> Iterator[Bench]:
    with (
        running(name, choice) as server,
        ExitStack() as stack,
        loading(server.port, server.pids) as load,
    ):
        yield Bench(server, load, faults, choice, stack)


def costs(answer: dict[str, Any], count: float) -> Figures:
    """Return what one of `count` cost: the server, its Redis, both; and how busy the load was.

    The load's answer counts the server first, then its Redis if it has one, then a second process of the server.
    """
    cpu = answer["cpu"]
    server, store = cpu[0] + sum(cpu[2:]), sum(cpu[1:2])
    each = 1e6 / max(count, 1)
    return {
        "cpu_us": server * each,
        "redis_us": store * each,
        "sum_us": (server + store) * each,
        "per_s": count / answer["seconds"],
        "load_busy": answer["own_cpu"] / answer["seconds"],
    }


def flow(
    *,
    clients: int,
    window: int,
    rooms: int = 1,
    publishers: int = 1,
    size: int = 100,
    away: int = 0,
    polling: bool = False,
    named: bool = False,
    rate: float = 0,
    seconds: float = 4,
) -> Scenario:
    """Publish with `window` messages in flight, or at a rate; costs are those of one delivery.

    With `away`, so many more have subscribed and lost their connection before. `named`: clients give a name alone, and so
    return no offset.
    """

    def scenario(begin: Begin) -> Figures:
        with begin() as bench:
            if away:
                with loading(bench.server.port, bench.server.pids) as leaving:
                    leaving("connect", n=away, rooms=rooms)
                    leaving("drop")
                    bench.settle()
            bench.connect(clients, rooms=rooms, publishers=publishers, polling=polling, named=named)
            answer = bench("flow", window=window, size=size, rate=rate, ms=seconds * 1000)
            latency = {f"{key}_ms": answer["latency"][key] for key in ("p50", "p99")}
            pings = {"pings": answer["pings"]} if named else {}
            return costs(answer, answer["deliveries"]) | latency | pings

    return scenario


def latency(*, clients: int, rate: float, seconds: float = 10) -> Scenario:
    """Publish at a rate; latency runs from sending a message to each arrival of it."""

    def scenario(begin: Begin) -> Figures:
        with begin() as bench:
            bench.connect(clients)
            answer = bench("flow", rate=rate, ms=seconds * 1000)
            figures = {f"{key}_ms": answer["latency"][key] for key in ("p50", "p95", "p99", "max")}
            return figures | costs(answer, answer["deliveries"])

    return scenario


def connecting(*, clients: int) -> Scenario:
    """Connect clients, 200 of them under way at once: WebSocket, CONNECT, subscribe acknowledged."""

    def scenario(begin: Begin) -> Figures:
        with begin() as bench:
            answer = bench("connect", n=clients, rooms=clients)
            return costs(answer, answer["connected"])

    return scenario


def joining(*, rooms: Sequence[int], times: int = 5) -> Scenario:
    """Let a client join many rooms, all subscribes sent at once, lose its connection, and return to what it missed.

    For each number of rooms it is done by so many clients, one after the other, after one that is not counted.
    """

    def scenario(begin: Begin) -> Figures:
        figures: Figures = {}
        for count in rooms:
            with begin() as bench:
                found = [_join_and_return(bench, count) for _ in range(times + 1)][1:]
                join, back = (statistics.median(seconds) for seconds in zip(*found, strict=True))
                figures |= {
                    f"join{count}_ms": join * 1000,
                    f"return{count}_ms": back * 1000,
                    f"share{count}": back / join,
                }
        return figures

    return scenario


def _join_and_return(bench: Bench, rooms: int) -> tuple[float, float]:
    """Return how many seconds joining took, and then returning with one message missed."""
    with loading(bench.server.port, bench.server.pids) as load:
        client = replace(bench, load=load)
        client.connect(1)
        join = client("join", n=rooms)["seconds"]
        client("publish", n=5, window=1)
        client("drop")
        client.settle()
        client("publish", n=1)
        client.settle()
        back = client("return")
        if not back["recovered"]:
            client.faults["failed"] = 1
        client("drop")
        client.settle()
    return join, back["seconds"]


def idle(*, clients: int, seconds: float = 25) -> Scenario:
    """Hold connections that do nothing; `seconds` is one round of pings at the default interval."""

    def scenario(begin: Begin) -> Figures:
        with begin() as bench:
            bench.settle()
            before = resident_kib(bench.server.pid)
            connected = bench.connect(clients, rooms=clients)["connected"]
            held = resident_kib(bench.server.pid) - before
            answer = bench("idle", ms=seconds * 1000)
            return {
                "kib": held / connected,
                "ping_s": answer["cpu"][0],
                "redis_s": sum(answer["cpu"][1:]),
                "pings": answer["pings"],
            }

    return scenario


def storm(*, clients: int, missed: int, elsewhere: bool = False) -> Scenario:
    """Everybody loses the connection, misses messages, and returns with pid and offset.

    `elsewhere`: to another process of the hub, which was started meanwhile and has served nobody yet.
    """

    def scenario(begin: Begin) -> Figures:
        with begin() as bench:
            bench.connect(clients)
            bench("publish", n=5, window=1)
            bench("drop")
            bench.settle()
            bench("publish", n=missed)
            if elsewhere:
                bench.move_elsewhere()
            bench.settle()
            answer = bench("return")
            figures = costs(answer, answer["received"])
            wrong = answer["lost"] + answer["repeated"] + answer["missing"]
            return figures | {
                "wrong": wrong,
                "recovered": answer["recovered"],
                "seconds": answer["seconds"],
            }

    return scenario


def slow_readers(*, clients: int, deaf: int, window: int = 16, seconds: float = 8) -> Scenario:
    """Publish at full rate without, and then with, clients that never read; at last they read."""

    def scenario(begin: Begin) -> Figures:
        with begin() as bench:
            bench.connect(clients - deaf)
            alone = bench("flow", window=window, ms=seconds * 1000)
        with begin() as bench:
            bench.connect(clients, deaf=deaf)
            bench("flow", window=window, ms=1)  # everything is warm, and what has a size has it
            before = resident_kib(bench.server.pid)
            beside = bench("flow", window=window, ms=seconds * 1000)
            grown = resident_kib(bench.server.pid) - before
            bench.settle()
            read = bench("read")
            grown = max(grown, resident_kib(bench.server.pid) - before)
            per_s = [answer["messages"] / answer["seconds"] for answer in (alone, beside)]
            return {
                "share": per_s[1] / per_s[0],
                "alone_per_s": per_s[0],
                "beside_per_s": per_s[1],
                "grown_mib": grown / 1024,
                "wrong": read["lost"] + read["repeated"] + read["missing"] + read["misplaced_gaps"],
                "gaps": read["gaps"],
                "gaps_without_count": read["unknown_gaps"],
                "dropped": read["dropped"],
                "kept": read["least_since_gap"],
            }

    return scenario


def away(*, clients: int, inbox: int = 1000, part: int = 200) -> Scenario:
    """Publish into a room of clients that are away, while their inboxes fill and when they are full."""

    def scenario(begin: Begin) -> Figures:
        with begin() as bench:
            bench.connect(clients)
            bench("probe", on=1)
            bench("drop")
            bench.settle()
            parking = bench("probe", on=1)["probes"]
            filling = _redis_ms(bench, part)
            bench("probe", on=0)
            bench("publish", n=inbox, window=1)
            bench("probe", on=1)
            full = _redis_ms(bench, part)
            probes = bench("probe", on=0)["probes"]
            return {
                "filling_ms": statistics.median(filling),
                "filling_mean_ms": sum(filling) / part,
                "filling_most_ms": filling[-1],
                "full_ms": statistics.median(full),
                "full_mean_ms": sum(full) / part,
                "full_most_ms": full[-1],
                "blocked_ms": probes["max"],
                "blocked_p99_ms": probes["p99"],
                "parking_blocked_ms": parking["max"],
            }

    return scenario


def _redis_ms(bench: Bench, count: int) -> list[float]:
    """Publish `count` messages; return how long Redis spent on each, sorted, in ms.

    It is the one script here that takes more than a millisecond. The slow log has single commands of it too.
    """
    store = bench.server.store()
    store.config_set("slowlog-log-slower-than", 1000)
    store.config_set("slowlog-max-len", 100 * count)
    store.slowlog_reset()
    bench("publish", n=count, window=1)
    entries = store.slowlog_get(100 * count)
    scripts = (entry for entry in entries if entry["command"].startswith((b"EVAL", b"FCALL")))
    return sorted(entry["duration"] / 1000 for entry in scripts)


def away_memory(*, clients: int, missed: int, sizes: tuple[int, int] = (512, 5120)) -> Scenario:
    """Let clients miss messages of two sizes; memory is Redis's, without what it held empty."""

    def scenario(begin: Begin) -> Figures:
        figures: Figures = {}
        for size in sizes:
            with begin() as bench:
                store = bench.server.store()
                before = store.info("memory")["used_memory"]
                bench.connect(clients)
                bench("drop")
                bench.settle()
                bench("publish", n=missed, size=size)
                time.sleep(1)  # until buffers of the moment are given back
                used = store.info("memory")["used_memory"] - before
                figures[f"mb_{size}"] = used / 1e6
        figures["growth"] = figures[f"mb_{sizes[1]}"] / figures[f"mb_{sizes[0]}"]
        return figures

    return scenario

"""The table: what is measured, on which servers, and what it is to come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench import scenarios
from bench.scenarios import Scenario

# How servers are called where people read.
TITLES = {
    "hub": "the hub",
    "other": "the other hub",
    "node": "Socket.IO on Node, in memory",
    "node-redis": "Socket.IO on Node, Redis Streams",
    "python-socketio": "python-socketio",
    "python-socketio-redis": "python-socketio, Redis",
    "sender": "C, a send() per delivery",
}


@dataclass(frozen=True)
class Target:
    """What one figure of the hub is to be: itself, or divided by the same figure of a peer."""

    figure: str
    text: str
    bound: float
    against: str | None = None
    # The bound is the least, not the most.
    least: bool = False


@dataclass(frozen=True)
class Row:
    """A measurement. `peers` are measured in turn with the hub; `more` of them only on demand."""

    name: str
    title: str
    scenario: Scenario
    targets: Sequence[Target]
    peers: Sequence[str] = ()
    more: Sequence[str] = ()
    # What the bars show.
    figure: str = "cpu_us"
    unit: str = "µs of CPU"


def _cost(bound: float, against: str, what: str) -> Target:
    return Target("cpu_us", f"CPU per {what}", bound, against)


ROWS = (
    Row(
        "fanout4",
        "1,000 clients in one room, 4 messages in flight",
        scenarios.flow(clients=1000, window=4),
        [_cost(0.25, "node", "delivery")],
        ["node"],
        ["node-redis", "python-socketio"],
    ),
    Row(
        "fanout1",
        "1,000 clients in one room, 1 message in flight",
        scenarios.flow(clients=1000, window=1),
        [_cost(0.70, "node", "delivery"), _cost(1.6, "sender", "delivery")],
        ["node", "sender"],
        ["python-socketio"],
    ),
    Row(
        "fanout1_named",
        "1,000 named clients that return no offset in one room, 1 message in flight",
        scenarios.flow(clients=1000, window=1, named=True),
        [],
    ),
    Row(
        "trickle",
        "1,000 clients in one room, a message a second",
        scenarios.flow(clients=1000, window=1, rate=1, seconds=10),
        [],
    ),
    Row(
        "trickle_named",
        "1,000 named clients that return no offset in one room, a message a second",
        scenarios.flow(clients=1000, window=1, rate=1, seconds=10, named=True),
        [],
    ),
    Row(
        "rooms",
        "500 rooms of one client, 64 in flight: publish, log, deliver, acknowledge",
        scenarios.flow(clients=500, rooms=500, window=64),
        [_cost(0.50, "node-redis", "message")],
        ["node-redis"],
        ["python-socketio-redis"],
    ),
    Row(
        "latency",
        "500 clients, 50 messages/s",
        scenarios.latency(clients=500, rate=50),
        [Target("p99_ms", "p99 latency", 1.1, "node")],
        ["node"],
        ["python-socketio"],
        figure="p99_ms",
        unit="ms, p99",
    ),
    Row(
        "idle",
        "9,000 idle connections in rooms",
        scenarios.idle(clients=9000),
        [
            Target("kib", "KiB per connection", 18),
            Target("kib", "memory per connection", 1.1, "node"),
            Target("ping_s", "CPU of a round of pings", 1.0, "node"),
        ],
        ["node"],
        ["python-socketio"],
        figure="kib",
        unit="KiB a connection",
    ),
    Row(
        "connect",
        "connecting 5,000 clients",
        scenarios.connecting(clients=5000),
        [Target("per_s", "clients per second", 1.0, "node", least=True)],
        ["node"],
        ["python-socketio"],
        figure="per_s",
        unit="clients a second",
    ),
    Row(
        "join",
        "a client joins 200 and 1,000 rooms, and returns to them",
        scenarios.joining(rooms=(200, 1000)),
        [
            Target("join200_ms", "ms to join 200 rooms", 1.5, "node"),
            Target("join1000_ms", "ms to join 1,000 rooms", 2.0, "node"),
            Target("share1000", "time to return to 1,000, against joining", 0.5),
        ],
        ["node"],
        figure="join1000_ms",
        unit="ms for 1,000 rooms",
    ),
    Row(
        "storm",
        "3,000 clients return, 500 missed messages each",
        scenarios.storm(clients=3000, missed=500),
        [_cost(0.50, "node", "replayed message"), Target("wrong", "lost or repeated", 0)],
        ["node"],
        ["node-redis"],
    ),
    Row(
        "storm_elsewhere",
        "3,000 clients return to another process, 500 missed messages each",
        scenarios.storm(clients=3000, missed=500, elsewhere=True),
        [Target("wrong", "lost or repeated", 0)],
    ),
    Row(
        "away",
        "10,000 away clients in one room, one publish",
        scenarios.away(clients=10_000),
        [
            Target("filling_ms", "ms of Redis, inboxes filling", 16),
            Target("full_ms", "ms of Redis, inboxes full", 22),
            Target("blocked_ms", "ms until the event loop answers, at worst", 50),
        ],
        figure="full_ms",
        unit="ms of Redis, inboxes full",
    ),
    Row(
        "memory",
        "10,000 away clients × 1,000 missed messages",
        scenarios.away_memory(clients=10_000, missed=1000),
        [
            Target("mb_512", "MB of Redis, 512 bytes", 300),
            Target("growth", "times as much at 5 KiB", 1.1),
        ],
        figure="mb_512",
        unit="MB of Redis",
    ),
    Row(
        "polling",
        "500 polling clients in one room, 1 message in flight",
        scenarios.flow(clients=500, window=1, polling=True),
        [_cost(1.5, "node", "delivery")],
        ["node"],
        ["python-socketio"],
    ),
    Row(
        "slow",
        "200 clients of which 20 never read, at full rate",
        scenarios.slow_readers(clients=200, deaf=20),
        [
            Target("share", "rate of the others, against without", 0.9, least=True),
            Target("grown_mib", "MiB that the hub grows", 64),
            Target("wrong", "lost, repeated or not reported", 0),
            Target("kept", "messages still received after the gap", 10_000, least=True),
        ],
        figure="share",
        unit="of the rate without them",
    ),
)
QUICK = ("fanout4", "fanout1", "rooms")

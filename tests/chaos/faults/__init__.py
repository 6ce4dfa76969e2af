"""Everything that is broken, each alone or all mixed at random."""

from __future__ import annotations

from tests.chaos.faults.clients import (
    ClientGone,
    HalfOpen,
    HubGone,
    Reset,
    SlowReaders,
    StalledDown,
    StalledUp,
)
from tests.chaos.faults.fault import Fault
from tests.chaos.faults.hubs import Frozen, Killed, Rolling
from tests.chaos.faults.redis import (
    AnswersLost,
    BusKilled,
    ClockSetBack,
    CommandsKilled,
    FailedOver,
    RedisFull,
    RedisKilled,
    RedisSlow,
    RedisUnreachable,
    ScriptFlush,
    SilentBus,
)

ALL: tuple[type[Fault], ...] = (
    Reset, HalfOpen, ClientGone, HubGone, StalledDown, StalledUp, SlowReaders,
    Killed, Frozen, Rolling,
    RedisKilled, RedisUnreachable, RedisSlow, RedisFull, AnswersLost, BusKilled, CommandsKilled, SilentBus,
    ScriptFlush, ClockSetBack, FailedOver,
)  # fmt: skip

__all__ = [
    "ALL",
    "AnswersLost",
    "BusKilled",
    "ClientGone",
    "ClockSetBack",
    "CommandsKilled",
    "FailedOver",
    "Fault",
    "Frozen",
    "HalfOpen",
    "HubGone",
    "Killed",
    "RedisFull",
    "RedisKilled",
    "RedisSlow",
    "RedisUnreachable",
    "Reset",
    "Rolling",
    "ScriptFlush",
    "SilentBus",
    "SlowReaders",
    "StalledDown",
    "StalledUp",
]

"""Who may come in: each bound refuses by itself, says so, and lets in again."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

from hub.engineio.admission import ADDRESSES, ENDING, FULL, AdmissionControl
from hub.engineio.client_address import counted_as
from hub.engineio.options import EngineOptions
from tests.support.times import eventually

FAR = "192.0.2.1"


def door_of(**given: Any) -> AdmissionControl:
    return AdmissionControl(EngineOptions(**given), Counter())


async def test_a_full_server_refuses_and_lets_in_who_comes_when_somebody_has_left() -> None:
    door = door_of(max_connections=2)
    assert [door.enter("127.0.0.1"), door.enter(FAR)] == [None, None]
    refusal = door.enter("127.0.0.1")
    assert refusal is not None
    assert refusal.why == "this server is full"
    assert FULL[0] <= refusal.retry_after <= FULL[1]
    door.leave("127.0.0.1")
    assert door.enter(FAR) is None
    door.close()


async def test_those_who_are_refused_do_not_all_come_back_at_once() -> None:
    door = door_of(max_connections=1)
    door.enter(FAR)
    told = {refusal.retry_after for _ in range(200) if (refusal := door.enter(FAR)) is not None}
    assert len(told) == FULL[1] - FULL[0] + 1
    door.close()


async def test_a_server_that_is_behind_refuses_until_it_has_caught_up() -> None:
    door = door_of(max_lag=0.2)
    assert door.enter(FAR) is None
    time.sleep(0.5)
    refusal = door.enter(FAR)
    assert refusal is not None
    assert refusal.why == "this server is behind with its work"
    await eventually(lambda: door.enter(FAR) is None)
    door.close()


async def test_a_server_that_ends_refuses_everybody() -> None:
    door = door_of()
    door.refusing = True
    assert door.enter("127.0.0.1") == ("this server is ending", ENDING)


async def test_newcomers_of_an_address_are_counted_by_the_second() -> None:
    door = door_of(newcomers_per_address=1, connections_per_address=0)
    assert [door.enter(FAR) for _ in range(10)] == [None] * 10
    refusal = door.enter(FAR)
    assert refusal is not None
    assert refusal.why == "too many new connections from this address"
    assert door.enter("198.51.100.7") is None
    assert [door.enter("127.0.0.1") for _ in range(100)] == [None] * 100
    door.close()


async def test_addresses_without_connections_are_forgotten() -> None:
    door = door_of(newcomers_per_address=1000)
    door.enter("203.0.113.1")
    for number in range(20 * ADDRESSES):
        address = f"2001:db8:{number >> 8:x}:{number & 255:x}::1"
        door.enter(address)
        door.leave(address)
        if number % 256 == 0:
            await asyncio.sleep(0.002)  # a token comes back in a millisecond
    assert len(door._callers) <= 2 * ADDRESSES
    assert "203.0.113.1" in door._callers
    door.close()


def test_an_ipv6_customer_is_one_address() -> None:
    assert counted_as("2001:db8:1:2:3:4:5:6") == counted_as("2001:db8:1:2:ffff::") != FAR
    assert counted_as("2001:db8:1:2::1") != counted_as("2001:db8:1:3::1")
    assert counted_as("192.0.2.1") == "192.0.2.1"
    assert counted_as("") == ""

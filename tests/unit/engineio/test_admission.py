"""Who may come in: each bound refuses by itself, says so, and lets in again."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

from hub.engineio.admission import ADDRESSES, ENDING, FULL, AdmissionControl
from hub.engineio.client_address import counted_as
from hub.engineio.options import EngineOptions
from tests.support.times import MS, eventually

FAR = "192.0.2.1"


def admission_of(**given: Any) -> AdmissionControl:
    return AdmissionControl(EngineOptions(**given), Counter())


async def test_a_full_server_refuses_and_lets_in_who_comes_when_somebody_has_left() -> None:
    admission = admission_of(max_connections=2)
    assert [admission.admit("127.0.0.1"), admission.admit(FAR)] == [None, None]
    refusal = admission.admit("127.0.0.1")
    assert refusal is not None
    assert refusal.why == "this server is full"
    assert FULL[0] <= refusal.retry_after <= FULL[1]
    admission.release("127.0.0.1")
    assert admission.admit(FAR) is None
    admission.close()


async def test_those_who_are_refused_do_not_all_come_back_at_once() -> None:
    admission = admission_of(max_connections=1)
    admission.admit(FAR)
    waits = {
        refusal.retry_after for _ in range(200) if (refusal := admission.admit(FAR)) is not None
    }
    assert len(waits) == FULL[1] - FULL[0] + 1
    admission.close()


async def test_a_server_that_is_behind_refuses_until_it_has_caught_up() -> None:
    admission = admission_of(max_lag=200 * MS)
    assert admission.admit(FAR) is None
    time.sleep(500 * MS)
    refusal = admission.admit(FAR)
    assert refusal is not None
    assert refusal.why == "this server is behind with its work"
    await eventually(lambda: admission.admit(FAR) is None)
    admission.close()


async def test_a_server_that_ends_refuses_everybody() -> None:
    admission = admission_of()
    admission.refusing = True
    assert admission.admit("127.0.0.1") == ("this server is ending", ENDING, None)


async def test_newcomers_of_an_address_are_counted_by_the_second() -> None:
    admission = admission_of(newcomers_per_address=1, connections_per_address=0)
    assert [admission.admit(FAR) for _ in range(10)] == [None] * 10
    refusal = admission.admit(FAR)
    assert refusal is not None
    assert refusal.why == "too many new connections from this address"
    assert admission.admit("198.51.100.7") is None
    assert [admission.admit("127.0.0.1") for _ in range(100)] == [None] * 100
    admission.close()


async def test_addresses_without_connections_are_forgotten() -> None:
    admission = admission_of(newcomers_per_address=1000)
    admission.admit("203.0.113.1")
    for number in range(20 * ADDRESSES):
        address = f"2001:db8:{number >> 8:x}:{number & 255:x}::1"
        admission.admit(address)
        admission.release(address)
        if number % 256 == 0:
            await asyncio.sleep(2 * MS)  # a token comes back in a millisecond
    assert len(admission._addresses) <= 2 * ADDRESSES
    assert "203.0.113.1" in admission._addresses
    admission.close()


def test_an_ipv6_customer_is_one_address() -> None:
    assert counted_as("2001:db8:1:2:3:4:5:6") == counted_as("2001:db8:1:2:ffff::") != FAR
    assert counted_as("2001:db8:1:2::1") != counted_as("2001:db8:1:3::1")
    assert counted_as("192.0.2.1") == "192.0.2.1"
    assert counted_as("") == ""

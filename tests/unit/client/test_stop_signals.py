"""SIGTERM and SIGINT as an event, for as long as it is wanted."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from hub.client.stop_signals import stop_signals
from tests.support.times import UNIT


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_sets_the_event(number):
    """Each time; and afterwards the program's own handler is back."""
    earlier = signal.getsignal(number)
    with stop_signals() as received:
        for _ in range(2):
            os.kill(os.getpid(), number)
            await asyncio.wait_for(received.wait(), UNIT)
            received.clear()
    assert signal.getsignal(number) is earlier


async def test_outside_the_main_thread_signals_stay_as_they_are():
    earlier = signal.getsignal(signal.SIGTERM)

    async def wait() -> None:
        with stop_signals() as received:
            assert signal.getsignal(signal.SIGTERM) is earlier
            assert not received.is_set()

    await asyncio.to_thread(asyncio.run, wait())

"""What hangs fails, loudly, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from tests.chaos.deadline import command, deadline, leftovers, marked
from tests.support.times import MS, UNIT, eventually
from tests.support.tools import ROOT

# Its body takes no notice of being cancelled, and it has started another process.
STUBBORN = """
import asyncio, subprocess
from tests.chaos import deadline
from tests.support.times import MS, UNIT

async def stubborn():
    while True:
        try:
            await asyncio.sleep(60 * UNIT)
        except asyncio.CancelledError:
            pass

async def main():
    async with deadline.deadline(100 * MS) as body:
        body.progress = lambda: "none of three"
        await stubborn()

deadline.GRACE = 300 * MS
with deadline.marked():
    child = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    print(child.pid, flush=True)
    asyncio.run(main())
"""


async def hangs_here() -> None:
    await asyncio.Event().wait()


async def test_a_body_past_its_deadline_fails_with_what_hung():
    """Not only that it hung: how far it had come, and where each of its tasks stood."""

    async def two_of_three() -> None:
        async with deadline(50 * MS) as body:
            body.progress = lambda: "two of three"
            await asyncio.gather(hangs_here(), hangs_here())

    with pytest.raises(AssertionError, match=r"(?s)two of three.*hangs_here") as failed:
        await two_of_three()
    assert "2 task(s)" in str(failed.value)


async def test_a_body_in_time_is_left_alone():
    async with deadline(50 * MS):
        await asyncio.sleep(0)
    await asyncio.sleep(100 * MS)


async def test_a_body_that_cannot_be_stopped_takes_the_process_with_it():
    """And what the process had started."""
    run = subprocess.run(
        [sys.executable, "-c", STUBBORN],
        cwd=ROOT,
        capture_output=True,
        timeout=20 * UNIT,
        check=False,
    )
    assert run.returncode == 70
    assert b"stubborn" in run.stderr
    assert b"none of three" in run.stderr
    assert b"Thread" in run.stderr
    await eventually(lambda: not command(int(run.stdout)), what="its child runs on")


def test_a_process_that_is_left_over_is_named_and_ended():
    with pytest.raises(AssertionError, match="still running"), marked():
        child = subprocess.Popen(["sleep", "60"])
    assert child.wait(5 * UNIT) == -9
    assert leftovers() == []

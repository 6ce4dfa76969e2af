"""Background tasks: held until they end, their failures logged, and a vital one's failure reported."""

from __future__ import annotations

import asyncio

import pytest

from hub.tasks import BackgroundTasks


async def fails() -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize("vital", [False, True])
async def test_a_failure_is_logged_and_a_vital_one_reported(vital, caplog):
    tasks = BackgroundTasks()
    waiting = asyncio.create_task(tasks.wait_failed())
    await asyncio.wait([tasks.spawn(fails(), vital=vital)])
    await asyncio.sleep(0)
    assert len(caplog.records) == 1
    assert isinstance(tasks.failure, ZeroDivisionError) is vital
    assert waiting.done() is vital
    assert list(tasks) == []
    waiting.cancel()
    caplog.clear()


async def test_stopping_cancels_and_waits(caplog):
    tasks, ended = BackgroundTasks(), []

    async def lasts() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    for _ in range(2):
        tasks.spawn(lasts(), vital=True)
    await asyncio.sleep(0)
    await tasks.stop()
    assert ended == [True, True]
    assert tasks.failure is None
    assert caplog.records == []

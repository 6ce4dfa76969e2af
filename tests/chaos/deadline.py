"""Lets nothing hang: past its deadline a body fails with its progress and the stack of every task; past that the process ends.

What is started while a run is marked can be found afterwards, whatever became of its parents.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import faulthandler
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from tests.support.times import UNIT

# Seconds that a body past its deadline has to come to its end.
GRACE = 60 * UNIT
# The variable that every process of a run inherits.
MARK = "CHAOS_RUN"


class Deadline:
    """What is known of a body that has a deadline. The body sets `progress`, which says how far it has come."""

    def __init__(self) -> None:
        self.progress: Callable[[], str] = lambda: ""


@contextlib.asynccontextmanager
async def deadline(seconds: float) -> AsyncIterator[Deadline]:
    """Cancel the body after `seconds`, and fail with its progress and with what it was doing.

    A body that does not even end then takes the process with it, and all that was started: a suite that hangs tells
    nobody anything.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    body = Deadline()
    told = ""

    def report() -> str:
        progress = body.progress()
        return f"{progress}\nwhat hung:\n{stacks(loop)}".lstrip()

    def over() -> None:
        nonlocal told
        told = report()
        task.cancel()

    def end() -> None:
        print(f"the storm hangs, and does not end either\n{report()}", file=sys.__stderr__)
        faulthandler.dump_traceback(file=sys.__stderr__ or 2, all_threads=True)
        for pid in leftovers():
            os.kill(pid, signal.SIGKILL)
        os._exit(70)

    alarm = loop.call_later(seconds, over)
    last = threading.Timer(seconds + GRACE, end)
    last.daemon = True
    last.start()
    try:
        yield body
    except asyncio.CancelledError:
        if not told:
            raise
        task.uncancel()
        raise AssertionError(f"not done within {seconds:.0f} s; {told}") from None
    finally:
        alarm.cancel()
        last.cancel()


def stacks(loop: asyncio.AbstractEventLoop) -> str:
    """Return where each task of a loop stands, down to what it awaits; those alike counted."""
    counts = collections.Counter(stack(task.get_coro()) for task in asyncio.all_tasks(loop))
    return "\n".join(f"{count} task(s) in\n{stack}" for stack, count in counts.items())


def stack(at: Any) -> str:
    """A suspended coroutine knows the one that it awaits; `Task.get_stack` shows the outermost alone."""
    lines = []
    while at is not None:
        frame = getattr(at, "cr_frame", None) or getattr(at, "gi_frame", None)
        if frame is not None:
            lines.append(f"  {frame.f_code.co_filename}:{frame.f_lineno} {at.__qualname__}")
        at = getattr(at, "cr_await", None) or getattr(at, "gi_yieldfrom", None)
    return "\n".join(lines)


@contextlib.contextmanager
def marked() -> Iterator[None]:
    """Mark the processes that the body starts; none of them may be left at its end."""
    os.environ[MARK] = f"{os.getpid()}"
    try:
        yield
        left = {pid: command(pid) for pid in leftovers()}
        assert not left, f"still running: {left}"
    finally:
        for pid in leftovers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        del os.environ[MARK]


def leftovers() -> list[int]:
    """Return the marked processes that run, this one aside. Needs /proc; elsewhere there are none to be found."""
    mark = f"{MARK}={os.environ.get(MARK, '')}".encode()
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(directory.name) != os.getpid():
                if mark in (directory / "environ").read_bytes().split(b"\0"):
                    found.append(int(directory.name))
    return found


def command(pid: int) -> str:
    """Return what a process was started as; nothing where it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""

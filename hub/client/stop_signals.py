"""SIGTERM and SIGINT as an event, so that a program can end in order."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def stop_signals() -> Iterator[asyncio.Event]:
    """Set the event at each SIGTERM and SIGINT, instead of what the program does at them otherwise.

    Only the main thread can do this, and not on Windows. Elsewhere the event is never set.
    """
    loop = asyncio.get_running_loop()
    received = asyncio.Event()
    earlier = {}
    for number in SIGNALS:
        handler = signal.getsignal(number)
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, received.set)
            earlier[number] = handler
    try:
        yield received
    finally:
        for number, handler in earlier.items():
            loop.remove_signal_handler(number)
            # None: it was not installed from Python, and cannot be.
            if handler is not None:
                signal.signal(number, handler)

"""Runs a program as somebody in a terminal does: keeps the lines that it prints, and presses Enter."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tests.support.times import SOON, eventually
from tests.support.tools import ROOT


class Program:
    """A process in the project's directory, or in `cwd`. `lines` holds what it printed, errors included."""

    def __init__(
        self,
        *command: str,
        cwd: Path = ROOT,
        env: Mapping[str, str] | None = None,
        group: bool = False,
    ) -> None:
        self._command = command
        # True: it begins a group of processes, as a command in a terminal does.
        self._group = group
        self._cwd = cwd
        self._env = env
        self.lines: list[str] = []

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            cwd=self._cwd,
            env=self._env,
            start_new_session=self._group,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        self._reading = asyncio.create_task(self._read())
        return self

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.lines.append(line.decode().rstrip())

    def press_enter(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")

    def send(self, kind: signal.Signals) -> None:
        """Send a signal to its group, as Ctrl-C does."""
        os.killpg(self._process.pid, kind)

    async def says(self, *lines: str) -> None:
        """Wait until these are the last lines that it printed."""
        await eventually(
            lambda: self.lines[-len(lines) :] == [*lines], 2 * SOON, lambda: self.lines
        )

    async def ends(self, within: float = 2 * SOON) -> int:
        """Wait until it ends by itself; return its exit status."""
        await asyncio.wait([self._reading], timeout=within)
        if not self._reading.done():
            raise AssertionError(f"it does not end; it printed {self.lines}")
        return await self._process.wait()

    async def __aexit__(self, *exc: object) -> None:
        if self._process.returncode is None:
            if self._group:
                self.send(signal.SIGKILL)
            else:
                self._process.kill()
        await self._process.wait()
        await self._reading

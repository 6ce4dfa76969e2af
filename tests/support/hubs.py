"""Runs real hub processes: started by the command line, killed, drained, started again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.times import MS, SOON
from tests.support.tools import ROOT

# What `.venv/bin/hub` does, whether it is installed or not.
MAIN = ("-c", "from hub.cli.main import main; main()")
# Secrets that no log may hold; the drivers add every pid they see.
secrets: set[str] = set()


class Hub:
    """One hub process, with settings given as `HUB_*` variables.

    Without `redis_url` it is left to start its embedded server. `main`: what Python is to run in place of the product.
    """

    def __init__(
        self,
        redis_url: str = "",
        prefix: str = "hub",
        *,
        main: Sequence[str] = MAIN,
        **settings: Any,
    ) -> None:
        self.redis_url = redis_url
        self.prefix = prefix
        self.settings = settings
        self.port = 0
        self._main = main
        self.log = Path(tempfile.mkstemp(prefix="hub-", suffix=".log")[1])
        self.stdout = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._checked = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> Hub:
        """Start the process and return when it says where it listens; again on the same port."""
        self.spawn()
        said = self._read_line()
        found = re.search(r"http://(?:\[[^]]*\]|[^ :]+):(\d+)", said)
        if found is None:
            self._end(signal.SIGKILL)
            raise AssertionError(f"the hub said {said!r}\n{self.log.read_text()}")
        self.port = int(found[1])
        return self

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start the process and do not wait for it."""
        command = [sys.executable, *self._main, "serve", "--port", str(self.port)]
        if self.redis_url:
            command += ["--redis-url", self.redis_url, "--redis-prefix", self.prefix]
        settings = {"drain": 50 * MS} | self.settings
        given = {f"HUB_{name.upper()}": str(value) for name, value in settings.items()}
        rest = {name: value for name, value in os.environ.items() if not name.startswith("HUB_")}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=rest | given, stdout=subprocess.PIPE, stderr=log
            )
        return self._process

    def kill(self) -> None:
        """Kill the process as `kill -9` does."""
        self._end(signal.SIGKILL)

    def terminate(self) -> int:
        """Send SIGTERM and return the exit code."""
        return self._end(signal.SIGTERM)

    def send_signal(self, kind: signal.Signals) -> None:
        """Send the process a signal, and do not wait."""
        assert self._process
        self._process.send_signal(kind)

    def freeze(self) -> None:
        """Stop the process in its tracks (SIGSTOP): its connections stay open and nothing moves."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Undo `freeze`."""
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    async def restart(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End the process and start another on the same port."""
        await asyncio.to_thread(self._end, how)
        await asyncio.to_thread(self.start)

    def close(self) -> None:
        """End the process and forget its log, after `check`."""
        self._end(signal.SIGTERM)
        self.log.unlink(missing_ok=True)

    def check(self) -> None:
        """Fail if the log, since it was last checked, has a traceback or a secret in it."""
        with contextlib.suppress(FileNotFoundError):
            text = self.log.read_text(errors="replace")
            new, self._checked = text[self._checked :], len(text)
            assert "Traceback" not in new, f"a traceback in the hub's log:\n{new[-6000:]}"
            for word in ("never retrieved", "was never awaited", "Task was destroyed"):
                assert word not in new, f"{word!r} in the hub's log:\n{new[-6000:]}"
            leaked = [secret for secret in secrets if secret in new]
            assert not leaked, f"secrets in the hub's log: {leaked}"

    def _read_line(self) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        deadline = time.monotonic() + 3 * SOON
        read = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not read.endswith(b"\n"):
                left = deadline - time.monotonic()
                assert left > 0, "the hub says nothing"
                assert selector.select(left), "the hub says nothing"
                piece = os.read(self._process.stdout.fileno(), 4096)
                if not piece:
                    break
                read += piece
        self.stdout = read.decode()
        return self.stdout

    def _end(self, how: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(how)
            if how == signal.SIGKILL:
                process.send_signal(signal.SIGCONT)
        try:
            process.wait(2 * SOON)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"the hub ignores {how.name}") from None
        finally:
            if process.stdout:
                process.stdout.close()
        return process.returncode

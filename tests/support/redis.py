"""Runs a real Valkey server on a Unix socket in a directory of its own."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import redis

from tests.support.times import SOON, STEP
from tests.support.tools import valkey


class RedisServer:
    """A server that can be killed and started again on the same data and socket."""

    def __init__(self, *options: str) -> None:
        # Not pytest's directory: a socket's path has 107 characters at most.
        self.directory = Path(tempfile.mkdtemp(prefix="hub-redis-"))
        self.socket = self.directory / "socket"
        self.url = f"unix://{self.socket}"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.client = redis.Redis(unix_socket_path=str(self.socket), decode_responses=True)
        self.start()

    def start(self) -> None:
        """Start the server and return when it answers."""
        command = [
            valkey(), "--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.directory),
            "--save", "", "--daemonize", "no", *self._options,
        ]  # fmt: skip
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + SOON
        while True:
            try:
                if self.client.ping():
                    return
            except redis.exceptions.ConnectionError:
                assert self._process.poll() is None, (self.directory / "log").read_text()
                assert time.monotonic() < deadline, "the Redis server does not answer"
            time.sleep(STEP)

    def kill(self) -> None:
        """Kill the server as `kill -9` does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Stop the server and remove what it left."""
        self._end(signal.SIGTERM)
        self.client.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def pause(self) -> None:
        """Let the server answer nobody, as when it is swapped out or its network is gone."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `pause`."""
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(how)
        self._process.wait(SOON)
        self._process = None

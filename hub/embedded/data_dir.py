"""The data directory of a hub with its own server: who holds it, and what lies in it.

It belongs to one hub at a time, and holds:

    hub.lock     locked by the hub while it lives (its process id is inside, for people)
    redis.lock   locked by the server and its children while any of them lives; names their
                 process group
    redis.sock   where the server listens; a link into a directory of its own where this path
                 would be longer than a socket's may be
    redis.log    what the server says of itself; redis.log.1 its older part
    appendonlydir/   the data

Locks end with the processes that hold them, however these end, so nothing here is ever stale.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import IO

from hub.errors import HubError

# sun_path holds 108 bytes on Linux and 104 elsewhere, the closing zero included.
SOCKET_PATH_MAX = 107 if sys.platform == "linux" else 103
LOG_MAX = 4 * 1024 * 1024


class EmbeddedServerError(HubError):
    """The hub's own server cannot run; the message tells the operator why, in a sentence."""


class DataDir:
    """A data directory: `take()` it, use it, `free()` it."""

    def __init__(self, path: str) -> None:
        # Absolute: the server and the next hub may have other working directories.
        self.path = Path(path).absolute()
        # Where the server listens; `take` settles it.
        self.socket = self.path / "redis.sock"
        self.log = self.path / "redis.log"
        # Open, and thereby locked, from take to free.
        self._held: IO[str] | None = None

    @property
    def taken(self) -> bool:
        return self._held is not None

    def take(self) -> None:
        """Make this process the directory's hub.

        Raises EmbeddedServerError where another hub is, OSError where the directory is unusable.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = (self.path / "hub.lock").open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            file.close()
            raise EmbeddedServerError(
                f"Another hub (process {holder}) is using the data directory {self.path}; give "
                "this one its own with --data-dir, or both the same Redis with --redis-url."
            ) from None
        except OSError:
            file.close()
            raise
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        self._held = file
        self._choose_socket()

    def free(self) -> None:
        """Let the next hub have the directory."""
        if self._held is not None:
            try:
                self._remove_socket()
            finally:
                self._held.close()
                self._held = None

    # ----------------------------------------------------------------- the server's lock

    def server_lock(self) -> IO[str]:
        """Open redis.lock: to be locked, and inherited by the server."""
        return (self.path / "redis.lock").open("a+")

    def server_group(self) -> int | None:
        """Return the process group of a server that still runs here, None where none does.

        The answer is safe to signal: whoever holds the lock is in that group, and the system
        gives a group's number to nobody else as long as it has members. 0: the server has not
        yet come so far as to name it.
        """
        with self.server_lock() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                return int(lock.read().strip() or 0)
        return None

    # ------------------------------------------------------------------------ its socket

    def _choose_socket(self) -> None:
        """Settle where the server listens, and clear away what a killed hub left there."""
        self._remove_socket()
        inside = self.path / "redis.sock"
        self.socket = inside
        if len(os.fsencode(inside)) <= SOCKET_PATH_MAX:
            return
        # Made for this user alone, under a name that nobody can have foreseen.
        elsewhere = Path(tempfile.mkdtemp(prefix="hub-"))
        self.socket = elsewhere / "redis.sock"
        inside.symlink_to(self.socket)
        if len(os.fsencode(self.socket)) > SOCKET_PATH_MAX:
            raise EmbeddedServerError(
                f"The paths of the data directory {self.path} and of the temporary directory "
                f"{elsewhere.parent} are both too long for a Unix socket; choose a shorter "
                "--data-dir."
            )

    def _remove_socket(self) -> None:
        inside = self.path / "redis.sock"
        if inside.is_symlink():
            target = inside.readlink()
            if target.name == "redis.sock" and target.parent.name.startswith("hub-"):
                shutil.rmtree(target.parent, ignore_errors=True)
        inside.unlink(missing_ok=True)

    # --------------------------------------------------------------------------- its log

    def rotate_log(self) -> None:
        """Keep the log bounded: two files of LOG_MAX and what one run adds."""
        if self.log.exists() and self.log.stat().st_size > LOG_MAX:
            self.log.replace(self.path / "redis.log.1")

    def last_words(self) -> str:
        """Return the log's last line that says something, without its time and process."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - 4096))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        said = [line for line in lines if line.strip()]
        return re.sub(r"^\d+:\w .{0,40}? [*#.-] ", "", said[-1]) if said else ""

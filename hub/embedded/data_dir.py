"""The data directory of a hub with an embedded server: its lock, its socket and its log.

One hub at a time uses it. It contains:

    hub.lock         locked by the hub while it runs; contains the hub's process id, for people
    redis.lock       locked by the server and its children while any of them runs; contains their process group
    redis.sock       the server's socket; a link to it if this path is too long for a socket
    redis.log        the server's log; redis.log.1 is the older part
    appendonlydir/   the data

The system releases a lock when the processes that hold it end, even by SIGKILL. So no lock is ever stale.
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

# Bytes. The system's field for it (sun_path) has 108 on Linux and 104 elsewhere, one of them for the final zero.
MAX_SOCKET_PATH = 107 if sys.platform == "linux" else 103
MAX_LOG = 4 * 1024 * 1024  # bytes


class EmbeddedServerError(HubError):
    """The embedded server cannot run. The message is a sentence that says why."""


class DataDir:
    """A data directory; to be used between `lock` and `unlock`."""

    def __init__(self, path: str) -> None:
        # Absolute, because the server and the next hub may have other working directories.
        self.path = Path(path).absolute()
        # The path on which the server is to listen; `lock` may choose another one.
        self.socket = self.path / "redis.sock"
        self.log = self.path / "redis.log"
        # hub.lock, open from `lock` to `unlock`.
        self._lock_file: IO[str] | None = None

    @property
    def locked(self) -> bool:
        """Return whether this process has locked the directory."""
        return self._lock_file is not None

    def lock(self) -> None:
        """Lock the directory for this process, and choose the path of the socket.

        Raises EmbeddedServerError if another hub has locked it, OSError if the directory is unusable.
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
        self._lock_file = file
        self._choose_socket()

    def unlock(self) -> None:
        """Unlock the directory for the next hub, and remove the socket."""
        if self._lock_file is not None:
            try:
                self._remove_socket()
            finally:
                self._lock_file.close()
                self._lock_file = None

    # ----------------------------------------------------------------- the server's lock

    def open_server_lock(self) -> IO[str]:
        """Open redis.lock, which is to be locked and inherited by the server."""
        return (self.path / "redis.lock").open("a+")

    def server_group(self) -> int | None:
        """Return the process group of the server that runs here, None if none runs.

        0: a server is starting and has not written its group yet. Any other group is safe to signal. The
        processes that hold the lock are members of it, and the system does not use a group's number again
        while the group has members.
        """
        with self.open_server_lock() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                return int(lock.read().strip() or 0)
        return None

    # ------------------------------------------------------------------------ its socket

    def _choose_socket(self) -> None:
        """Choose the path on which the server listens, and remove a socket that a killed hub left."""
        self._remove_socket()
        inside = self.path / "redis.sock"
        self.socket = inside
        if len(os.fsencode(inside)) <= MAX_SOCKET_PATH:
            return
        # Only this user may use this directory, and nobody can predict its name.
        elsewhere = Path(tempfile.mkdtemp(prefix="hub-"))
        self.socket = elsewhere / "redis.sock"
        inside.symlink_to(self.socket)
        if len(os.fsencode(self.socket)) > MAX_SOCKET_PATH:
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
        """Bound the log to two files of MAX_LOG bytes, and what one run of the server adds."""
        if self.log.exists() and self.log.stat().st_size > MAX_LOG:
            self.log.replace(self.path / "redis.log.1")

    def last_log_line(self) -> str:
        """Return the log's last line that is not blank, without its time and process."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - 4096))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        lines = [line for line in lines if line.strip()]
        return re.sub(r"^\d+:\w .{0,40}? [*#.-] ", "", lines[-1]) if lines else ""

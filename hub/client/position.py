"""Keeps what a client needs to continue its session: its pid and its offset, and a file of them if it has one.

The file is replaced as a whole (written under another name, then renamed), at most once per
`WRITE_INTERVAL` and when the client is closed. So a process that crashes receives again what it handled
since the file was last written.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import msgspec

from hub.model import SessionInfo, is_offset, offset_int

WRITE_INTERVAL = 1.0  # seconds

log = logging.getLogger("hub.client")


class _SavedPosition(msgspec.Struct):
    """The content of the file, as JSON."""

    pid: str
    offset: str
    client_id: str | None = None


class Position:
    """Up to where the messages of one session have been handled."""

    def __init__(self, client_id: str | None = None, path: str | os.PathLike[str] | None = None):
        # The secret that continues the session; None before the first CONNECT reply.
        self.pid: str | None = None
        # Every message up to this offset has been handled (with manual acks: acknowledged).
        self.offset: str = ""
        self._client_id = client_id
        self._path = Path(path) if path is not None else None
        self._write_timer: asyncio.TimerHandle | None = None
        # Pid and offset in the file.
        self._written: tuple[str | None, str] = (None, "")
        self._read_file()

    @property
    def has_file(self) -> bool:
        """Return whether another process can continue from here."""
        return self._path is not None

    def start_from(self, session: SessionInfo, offset: str, *, manual_acks: bool) -> None:
        """Take the offset that the hub continues from, which came with `hub:session`.

        A handler may have advanced the position while the connection was being made. Then the position
        stays, unless it is newer than the hub's newest offset (`reset`) or the session is another one.
        """
        ours = offset_int(self.offset)
        ahead = offset_int(offset) <= ours <= offset_int(session.head)
        if manual_acks or not session.recovered or not ahead:
            self.offset = offset
        self._write_later()

    def advance(self, offset: str) -> None:
        """Move forward to `offset`, never back."""
        if offset_int(offset) > offset_int(self.offset):
            self.offset = offset
            self._write_later()

    def close(self, *, delete_file: bool) -> None:
        """Write the file a last time, or delete it because the session has ended."""
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        if not delete_file:
            self._write_file()
        elif self._path is not None:
            self._path.unlink(missing_ok=True)

    def _write_later(self) -> None:
        if self._path is not None and self._write_timer is None:
            loop = asyncio.get_running_loop()
            self._write_timer = loop.call_later(WRITE_INTERVAL, self._write_file)

    def _read_file(self) -> None:
        if self._path is None or not self._path.exists():
            return
        try:
            saved = msgspec.json.decode(self._path.read_bytes(), type=_SavedPosition)
        except (msgspec.DecodeError, OSError) as error:
            log.warning(
                "position file %s is not usable, starting a new session: %s", self._path, error
            )
            return
        if saved.client_id != self._client_id:
            log.warning(
                "position file %s belongs to another client_id, starting a new session", self._path
            )
            return
        if is_offset(saved.offset):
            self.pid, self.offset = saved.pid, saved.offset

    def _write_file(self) -> None:
        self._write_timer = None
        if self._path is None or self.pid is None or (self.pid, self.offset) == self._written:
            return
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        saved = _SavedPosition(self.pid, self.offset, self._client_id)
        try:
            # Only its owner may read it: the pid is a secret.
            temporary.touch(mode=0o600)
            temporary.write_bytes(msgspec.json.encode(saved))
            temporary.replace(self._path)
        except OSError as error:
            log.warning("cannot write the position file %s: %s", self._path, error)
            return
        self._written = (self.pid, self.offset)

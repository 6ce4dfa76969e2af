"""Keeps what a client needs to resume, its pid and its offset, and a file of them if it is given one.

The file is replaced as a whole (written beside, then renamed), at most once per `INTERVAL` and at
the end. So a process that crashes sees again what it handled since the file was last written.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import msgspec

from hub.model import SessionInfo, is_offset, offset_int

INTERVAL = 1.0  # seconds

log = logging.getLogger("hub.client")


class _Kept(msgspec.Struct):
    """What the file holds."""

    pid: str
    offset: str
    client_id: str | None = None


class Position:
    """Up to where the messages of one session have been handled."""

    def __init__(self, client_id: str | None = None, path: str | os.PathLike[str] | None = None):
        # The secret that continues the session; none before the first CONNECT reply.
        self.pid: str | None = None
        # Up to here everything has been handled (with manual acks: acknowledged).
        self.offset: str = ""
        self._client_id = client_id
        self._path = Path(path) if path is not None else None
        self._write_due: asyncio.TimerHandle | None = None
        self._written: tuple[str | None, str] = (None, "")
        self._load()

    @property
    def kept(self) -> bool:
        """Return whether another process can continue from here."""
        return self._path is not None

    def begin(self, session: SessionInfo, offset: str, *, manual: bool) -> None:
        """Take the position that the hub resumes from (`hub:session`).

        A handler may have moved on while the connection was being made; that stays, unless the
        hub's clock is behind it (`reset`) or the session is another one.
        """
        ours = offset_int(self.offset)
        ahead = offset_int(offset) <= ours <= offset_int(session.head)
        if manual or not session.recovered or not ahead:
            self.offset = offset
        self._changed()

    def move(self, offset: str) -> None:
        """Move forward to `offset`; never back."""
        if offset_int(offset) > offset_int(self.offset):
            self.offset = offset
            self._changed()

    def close(self, *, forget: bool) -> None:
        """Write the file a last time, or remove it where the session has been ended."""
        if self._write_due is not None:
            self._write_due.cancel()
            self._write_due = None
        if not forget:
            self._write()
        elif self._path is not None:
            self._path.unlink(missing_ok=True)

    def _changed(self) -> None:
        if self._path is not None and self._write_due is None:
            self._write_due = asyncio.get_running_loop().call_later(INTERVAL, self._write)

    def _load(self) -> None:
        if self._path is None or not self._path.exists():
            return
        try:
            kept = msgspec.json.decode(self._path.read_bytes(), type=_Kept)
        except (msgspec.DecodeError, OSError) as error:
            log.warning("position file %s is not usable, starting anew: %s", self._path, error)
            return
        if kept.client_id != self._client_id:
            log.warning("position file %s is of another client_id, starting anew", self._path)
            return
        if is_offset(kept.offset):
            self.pid, self.offset = kept.pid, kept.offset

    def _write(self) -> None:
        self._write_due = None
        if self._path is None or self.pid is None or (self.pid, self.offset) == self._written:
            return
        beside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        kept = _Kept(self.pid, self.offset, self._client_id)
        try:
            # Readable by its owner only: the pid is a secret.
            beside.touch(mode=0o600)
            beside.write_bytes(msgspec.json.encode(kept))
            beside.replace(self._path)
        except OSError as error:
            log.warning("cannot write the position file %s: %s", self._path, error)
            return
        self._written = (self.pid, self.offset)

"""Keeps what a client needs to continue its session: its pid and its offset, and a file of them if it has one.

The file is written at each change, without fsync. So it is up to date when the process dies, however it dies. When
the machine crashes, the file may be as old as the operating system's last write to the disk.

The first write of a process replaces the file as a whole: it writes another file and renames it. Each later write
is one `pwrite` of the whole record at the beginning of the file. A kill does not interrupt it, as a record lies in
one page of memory, and it takes 2 µs where a rename takes 300 µs. The record has a checksum, because another process
may read the file while it is written. A process that is still running while its successor has begun writes into the
file that its successor has replaced, so it does no harm.
"""

from __future__ import annotations

import contextlib
import logging
import os
import zlib
from pathlib import Path

import msgspec

from hub.model import SessionInfo, is_offset, offset_int

RECORD_SIZE = 512  # bytes; a longer record is a multiple of it
READ_ATTEMPTS = 10  # of a file that another process may be writing

log = logging.getLogger("hub.client")


class _SavedPosition(msgspec.Struct):
    """The content of the file: JSON, and spaces up to a multiple of RECORD_SIZE."""

    pid: str
    offset: str
    client_id: str | None
    checksum: int


def checksum(pid: str, offset: str, client_id: str | None) -> int:
    """Return the checksum of a record."""
    return zlib.crc32(f"{pid} {offset} {client_id or ''}".encode())


class Position:
    """Up to where the messages of one session have been handled.

    Raises ValueError if `path` cannot be a file that this process may write.
    """

    def __init__(self, client_id: str | None = None, path: str | os.PathLike[str] | None = None):
        # The secret that continues the session; None before the first CONNECT reply.
        self.pid: str | None = None
        # Every message up to this offset has been handled (with manual acks: acknowledged).
        self.offset: str = ""
        self._client_id = client_id
        # None: there is no file, or nothing is to be written any more.
        self._path = Path(path).absolute() if path is not None else None
        self.has_file = self._path is not None
        # The file that this process has made, and the size of its record; None before the first write.
        self._descriptor: int | None = None
        self._record_size = 0
        self._closed = False
        # True: the newest write failed, which was logged.
        self._write_failed = False
        # Pid and offset in the file.
        self._written: tuple[str | None, str] = (None, "")
        if self._path is not None:
            _check_path(self._path)
            self._read_file(self._path)

    def start_from(self, session: SessionInfo, offset: str, *, manual_acks: bool) -> None:
        """Take the offset that the hub continues from, which came with `hub:session`.

        A handler may have advanced the position while the connection was being made. Then the position
        stays, unless it is newer than the hub's newest offset (`reset`) or the session is another one.
        """
        ours = offset_int(self.offset)
        ahead = offset_int(offset) <= ours <= offset_int(session.head)
        if manual_acks or not session.resumed or not ahead:
            self.offset = offset
        self._write()

    def advance(self, offset: str) -> None:
        """Move forward to `offset`, never back."""
        if offset_int(offset) > offset_int(self.offset):
            self.offset = offset
            self._write()

    def close(self, *, delete_file: bool, final: bool) -> None:
        """Close the file, or delete it because the session has ended.

        Unless `final` is true, a handler that is still running may move the position once more.
        """
        self._closed = True
        if delete_file and self._path is not None:
            self._path.unlink(missing_ok=True)
        else:
            self._write()
        self._close_file()
        if delete_file or final:
            self._path = None

    def _read_file(self, path: Path) -> None:
        try:
            saved = _read_record(path)
        except FileNotFoundError:
            return
        except (ValueError, OSError) as error:
            log.warning(
                "the position file %s is not usable, starting a new session: %s", path, error
            )
            return
        if saved.client_id != self._client_id:
            log.warning(
                "the position file %s belongs to another client_id, starting a new session", path
            )
            return
        self.pid, self.offset = saved.pid, saved.offset

    def _write(self) -> None:
        """Write the position into the file, if there is one and it has changed."""
        if self._path is None or self.pid is None or (self.pid, self.offset) == self._written:
            return
        check = checksum(self.pid, self.offset, self._client_id)
        record = msgspec.json.encode(_SavedPosition(self.pid, self.offset, self._client_id, check))
        size = -(-(len(record) + 1) // RECORD_SIZE) * RECORD_SIZE
        record = record.ljust(size - 1) + b"\n"
        try:
            if self._descriptor is not None and size == self._record_size:
                os.pwrite(self._descriptor, record, 0)
            else:
                self._replace_file(self._path, record)
        except OSError as error:
            self._close_file()
            if not self._write_failed:
                log.warning("the position file %s cannot be written: %s", self._path, error)
            self._write_failed = True
            return
        self._write_failed = False
        self._written = (self.pid, self.offset)

    def _replace_file(self, path: Path, record: bytes) -> None:
        """Write the file as a whole, and keep it open for the writes that follow."""
        self._close_file()
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        # Only its owner may read it: the pid is a secret.
        descriptor = os.open(temporary, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
        try:
            os.pwrite(descriptor, record, 0)
            temporary.replace(path)
        except OSError:
            os.close(descriptor)
            temporary.unlink(missing_ok=True)
            raise
        if self._closed:
            os.close(descriptor)
        else:
            self._descriptor, self._record_size = descriptor, len(record)

    def _close_file(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _check_path(path: Path) -> None:
    """Raise ValueError if a file of this path cannot be written."""
    if path.is_dir():
        raise ValueError(f"position_file: {path} is a directory, and a file is needed")
    if not path.parent.is_dir():
        raise ValueError(f"position_file: the directory {path.parent} does not exist")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ValueError(f"position_file: this process may not write into {path.parent}")


def _read_record(path: Path) -> _SavedPosition:
    """Return the content of the file. Raises ValueError if it is not a position, and OSError."""
    for _ in range(READ_ATTEMPTS - 1):
        with contextlib.suppress(ValueError):
            return _decode_record(path.read_bytes())
    return _decode_record(path.read_bytes())


def _decode_record(record: bytes) -> _SavedPosition:
    """Return a record. Raises ValueError if it is none, or the parts of two."""
    saved = msgspec.json.decode(record, type=_SavedPosition)
    if saved.checksum != checksum(saved.pid, saved.offset, saved.client_id):
        raise ValueError("its checksum is wrong")
    if not is_offset(saved.offset):
        raise ValueError("its offset is not an offset")
    return saved

"""The file in which a client keeps its position."""

from __future__ import annotations

import json
import stat
import threading
from pathlib import Path

import pytest

from hub.client import position
from hub.client.position import RECORD_SIZE, Position


def started(path, *, pid="c.1.1.secret", offset="10", client_id="c"):
    """Return a position that has written its file."""
    kept = Position(client_id, path)
    kept.pid = pid
    kept.advance(offset)
    return kept


def open_files():
    return sorted(file.name for file in Path("/proc/self/fd").iterdir() if file.exists())


def saved(path):
    return Position("c", path).offset


def test_each_change_is_in_the_file_at_once(tmp_path):
    """Without a close: a process that is killed here continues there. Only its owner can read it."""
    path = tmp_path / "position"
    kept = started(path)
    for offset in ("11", "9999999999999999"):
        kept.advance(offset)
        assert saved(path) == offset
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_size == RECORD_SIZE
    assert json.loads(path.read_text())["pid"] == "c.1.1.secret"
    assert [*tmp_path.iterdir()] == [path]


def test_the_file_is_overwritten_in_place(tmp_path):
    """A rename for each message would cost a hundred times as much."""
    path = tmp_path / "position"
    kept = started(path)
    inode = path.stat().st_ino
    kept.advance("11")
    assert path.stat().st_ino == inode


def test_a_record_that_no_longer_fits_replaces_the_file(tmp_path):
    path = tmp_path / "position"
    kept = started(path)
    kept.pid = "p" * 2 * RECORD_SIZE
    kept.advance("11")
    assert path.stat().st_size == 3 * RECORD_SIZE
    kept.pid = "c.1.2.secret"
    kept.advance("12")
    assert path.stat().st_size == RECORD_SIZE
    assert saved(path) == "12"


def test_a_reader_beside_the_writer_sees_whole_records(tmp_path):
    """A new process may read while the one before it still writes."""
    path = tmp_path / "position"
    kept = started(path)
    stop = threading.Event()

    def write():
        number = 10
        while not stop.is_set():
            number += 1
            kept.advance(str(number))

    writing = threading.Thread(target=write)
    writing.start()
    try:
        offsets = [int(saved(path) or -1) for _ in range(300)]
    finally:
        stop.set()
        writing.join()
    assert offsets == sorted(offsets)
    assert offsets[0] >= 10


def test_the_parts_of_two_records_are_not_believed(tmp_path, caplog):
    """An offset of mixed digits could skip messages."""
    path = tmp_path / "position"
    started(path, offset="1099")
    path.write_text(path.read_text().replace("1099", "1199"))
    assert Position("c", path).pid is None
    assert "its checksum is wrong" in caplog.text


def test_an_older_process_does_not_write_over_its_successor(tmp_path):
    path = tmp_path / "position"
    older = started(path, offset="20")
    newer = Position("c", path)
    newer.advance("30")
    older.advance("40")
    assert saved(path) == "30"
    older.close(delete_file=False, final=True)
    older.advance("50")
    assert saved(path) == "30"


def test_a_handler_that_outlives_the_close_moves_the_position(tmp_path):
    """It is the one that closed its client, and its message counts as handled."""
    path = tmp_path / "position"
    kept = started(path)
    kept.close(delete_file=False, final=False)
    descriptors = open_files()
    kept.advance("11")
    assert saved(path) == "11"
    assert open_files() == descriptors


def test_a_file_that_is_deleted_stays_deleted(tmp_path):
    path = tmp_path / "position"
    kept = started(path)
    kept.close(delete_file=True, final=False)
    kept.advance("11")
    assert [*tmp_path.iterdir()] == []


def test_a_write_that_fails_is_reported_once(tmp_path, caplog, monkeypatch):
    """And what could not be written is, as soon as it can be."""
    path = tmp_path / "position"
    kept = started(path)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(position.os, "pwrite", full)
        for offset in ("11", "12", "13"):
            kept.advance(offset)
    assert caplog.text.count("No space left on device") == 1
    assert [*tmp_path.iterdir()] == [path]
    kept.advance("14")
    assert saved(path) == "14"


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("", "is a directory"),
        ("missing/position", "does not exist"),
        ("locked/position", "may not"),
    ],
)
def test_a_path_that_cannot_be_written_is_refused_at_once(tmp_path, monkeypatch, place, sentence):
    (tmp_path / "locked").mkdir()
    if place.startswith("locked"):  # root may write everywhere
        monkeypatch.setattr(position.os, "access", lambda *_: False)
    with pytest.raises(ValueError, match=f"^position_file: .*{sentence}"):
        Position("c", tmp_path / place)


def test_a_record_that_is_read_while_it_is_written_is_read_again(tmp_path, monkeypatch):
    """The parts of two records may be no JSON, or have a wrong checksum."""
    path = tmp_path / "position"
    started(path, offset="1099")
    whole = path.read_bytes()
    reads = [whole[:20] + whole[25:], whole.replace(b"1099", b"1199"), whole]
    monkeypatch.setattr(Path, "read_bytes", lambda _: reads.pop(0))
    assert Position("c", path).offset == "1099"
    assert reads == []

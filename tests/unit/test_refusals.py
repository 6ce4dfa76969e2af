"""The log of refusals: the first at once, the others counted, and a bound on all of it."""

from __future__ import annotations

import asyncio
import logging

import pytest

from hub import refusals
from hub.refusals import SUBJECTS, TEXT, RefusalLog
from tests.support.times import MS, eventually

log = logging.getLogger("hub.test")


@pytest.fixture
def lines(caplog):
    """What was logged: (subject, times)."""
    caplog.set_level(logging.INFO, "hub")
    return lambda: [(record.who, getattr(record, "times", None)) for record in caplog.records]


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(refusals, "INTERVAL", 50 * MS)


def note(noted: RefusalLog, subject: str, kind: str = "origin") -> None:
    noted.note(kind, subject, "refused", who=subject)


async def test_the_first_is_logged_at_once_and_the_others_are_counted(lines, quick):
    noted = RefusalLog(log)
    for _ in range(5):
        note(noted, "a")
    note(noted, "b")
    note(noted, "a", kind="protocol")
    assert lines() == [("a", None), ("b", None), ("a", None)]
    await eventually(lambda: ("a", 4) in lines())
    assert len(lines()) == 4


async def test_one_that_has_not_come_again_is_new_the_next_time(lines, quick):
    noted = RefusalLog(log)
    note(noted, "a")
    await eventually(lambda: not noted._known)
    note(noted, "a")
    assert lines() == [("a", None)] * 2


async def test_the_end_tells_what_was_only_counted(lines):
    noted = RefusalLog(log)
    for _ in range(3):
        note(noted, "a")
    note(noted, "b")
    noted.close()
    await asyncio.sleep(0)
    assert lines() == [("a", None), ("b", None), ("a", 2)]


async def test_subjects_and_texts_are_bounded(lines):
    """A client that invents a new subject each time gets a bounded number of lines and of bytes."""
    noted = RefusalLog(log)
    for number in range(10 * SUBJECTS):
        note(noted, f"{number}" + "x" * 10_000)
    assert len(lines()) == SUBJECTS + 1
    assert len(noted._known) == SUBJECTS + 1
    assert all(len(who) <= TEXT for who, _ in lines())
    noted.close()
    assert lines()[-1][1] == 9 * SUBJECTS - 1


async def test_below_the_level_nothing_is_kept(lines):
    noted = RefusalLog(log)
    noted.note("replaced", "a", "x", level=logging.DEBUG, who="a")
    assert lines() == []
    assert noted._known == {}

"""The limit on open files is raised as far as it goes, and connections keep within it."""

from __future__ import annotations

import resource

from hub.runtime import file_limit


def test_connections_keep_within_the_files_that_may_be_open(monkeypatch, caplog):
    limits = [(1024, 4096)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: limits.append(wanted))
    assert file_limit.allowed_connections(0) == 4096 - file_limit.RESERVED_FILES
    assert limits[-1] == (4096, 4096)
    assert file_limit.allowed_connections(1000) == 1000
    assert caplog.text == ""
    assert file_limit.allowed_connections(10_000) == 4096 - file_limit.RESERVED_FILES
    assert "HUB_MAX_CONNECTIONS is 10000" in caplog.text


def test_a_limit_that_cannot_be_raised_is_taken_as_it_is(monkeypatch):
    def refuse(*_):
        raise ValueError("not allowed")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (300, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert file_limit.allowed_connections(0) == 300 - file_limit.RESERVED_FILES

"""The turns in a session's life are announced to every part that registered, in order, each once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from hub.errors import Unavailable
from hub.node.control import Control
from hub.pid import Pid
from hub.pubsub.session import Session
from hub.pubsub.session_observers import SessionObserver, SessionObservers
from hub.pubsub.sessions import Sessions
from hub.settings import Settings
from hub.store.loss_detector import LossDetector
from hub.store.results import NotOwner, SessionClaim
from hub.tasks import BackgroundTasks


class Noting(SessionObserver):
    """Notes what it is told, under its own name."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name = name
        self.notes = notes

    def _note(self, turn: str, session: Session | None = None) -> None:
        client = "" if session is None else f" {session.client_id}@{session.connection_id}"
        self.notes.append(f"{self.name}: {turn}{client}")

    def on_claimed(self, session: Session) -> None:
        self._note("claimed", session)

    def on_replaced(self, session: Session) -> None:
        self._note("replaced", session)

    def on_parked(self, session: Session) -> None:
        self._note("parked", session)

    def on_ended(self, session: Session) -> None:
        self._note("ended", session)

    def on_data_lost(self) -> None:
        self._note("data lost")


class Peer:
    """A connection that keeps its close code."""

    listener: Any = None
    direct: Any = None
    closed = False
    code: Any = None

    def __init__(self, sid: str) -> None:
        self.sid = sid

    def write(self, data: bytes, frames: Any) -> None: ...

    def close(self, code: Any) -> None:
        self.closed, self.code = True, code


class Store:
    """As much of a store as sessions without rooms use."""

    nothing: Any = None
    loss_detector = LossDetector(nothing, nothing, nothing)
    node_id = "n"

    class keys:  # noqa: N801 - an attribute of the store
        all_nodes_channel = "all"

        @staticmethod
        def node_channel(node: str) -> str:
            return f"node:{node}"

    async def claim(self, connection: str, *, client_id: str | None, **_: Any) -> SessionClaim:
        rooms = {} if client_id is None else {f"@{client_id}": 1}
        name = client_id or "anonymous"
        return SessionClaim("new", name, Pid(name, "1", "0", "s" * 24), "sid", 1, 1, 0, 1, rooms)

    async def park(self, *_: Any, **__: Any) -> None:
        raise Unavailable("Redis is away")

    async def end_session(self, *_: Any) -> None:
        raise NotOwner(b"gone")


class Rooms:
    """Rooms that nobody listens to."""

    def acquire_all(self, names: Iterable[str]) -> list[Any]:
        return [
            type("Room", (), {"members": {}, "name": name, "channel": b"c"})() for name in names
        ]

    def release(self, room: Any) -> None: ...

    def remove_member(self, session: Session, name: str) -> None: ...


class Bus:
    def is_subscribed(self, channel: bytes) -> bool:
        return False

    async def wait_subscribed(self, channel: bytes, within: float) -> None: ...


class Replayer:
    async def replay(self, session: Session) -> None: ...


@pytest.fixture
async def made() -> Any:
    notes: list[str] = []
    store: Any = Store()
    store.sessions = store
    store.bus = Bus()
    rooms: Any = Rooms()
    replayer: Any = Replayer()
    observers, tasks = SessionObservers(), BackgroundTasks()
    for name in ("a", "b"):
        observers.register(Noting(name, notes))
    sessions = Sessions(Settings(), store, rooms, replayer, tasks, observers)
    yield sessions, Control(store, rooms, sessions, observers), notes
    await tasks.stop()


async def claim(sessions: Sessions, connection: str, client_id: str | None = None) -> Session:
    session = await sessions.claim(Peer(connection), client_id=client_id, pid=None, offset=None)
    assert session is not None
    return session


async def test_a_connection_becomes_the_owner_and_goes(made):
    """Parked is announced although Redis is away: the node serves the session no more."""
    sessions, _, notes = made
    session = await claim(sessions, "c1", "ada")
    await sessions.detach(session, deliberate=True)
    await sessions.detach(session, deliberate=True)
    assert notes == [
        "a: claimed ada@c1", "b: claimed ada@c1", "a: parked ada@c1", "b: parked ada@c1",
    ]  # fmt: skip


async def test_an_anonymous_session_ends_when_it_is_left_deliberately(made):
    sessions, _, notes = made
    await sessions.detach(await claim(sessions, "c1"), deliberate=True)
    await sessions.detach(await claim(sessions, "c2"), deliberate=False)
    assert [note for note in notes if note.startswith("a")] == [
        "a: claimed anonymous@c1", "a: ended anonymous@c1",
        "a: claimed anonymous@c2", "a: parked anonymous@c2",
    ]  # fmt: skip


async def test_a_newer_connection_replaces_the_older_first(made):
    """The older one is announced as replaced, and then neither parked nor ended, whatever comes of it."""
    sessions, control, notes = made
    older = await claim(sessions, "c1", "ada")
    newer = await claim(sessions, "c2", "ada")
    await sessions.detach(older, deliberate=False)
    control.receive(b"node:n", b"fence c2")
    control.receive(b"node:n", b"fence c1")
    assert [note for note in notes if note.startswith("a")] == [
        "a: claimed ada@c1", "a: replaced ada@c1", "a: claimed ada@c2", "a: replaced ada@c2",
    ]  # fmt: skip
    assert newer.closed
    assert len(sessions) == 0


async def test_a_refused_connection_is_parked_or_replaced(made):
    sessions, _, notes = made
    gone, taken = await claim(sessions, "c1", "ada"), await claim(sessions, "c2", "bob")
    notes.clear()
    sessions.on_not_owner(gone, NotOwner(b"gone"))
    sessions.on_not_owner(taken, NotOwner(b"replaced"))
    assert [note for note in notes if note.startswith("b")] == [
        "b: parked ada@c1",
        "b: replaced bob@c2",
    ]


async def test_lost_data_is_announced(made):
    _, control, notes = made
    control.receive(b"all", b"reset")
    assert notes == ["a: data lost", "b: data lost"]

"""Announces the turns in a session's life to the parts of the hub that depend on them.

A part that keeps something for sessions (tasks handed to a client, permissions, presence) registers a SessionObserver
with the node's SessionObservers. Nothing below calls such a part by its name.
"""

from __future__ import annotations

from hub.pubsub.session import Session


class SessionObserver:
    """What a part of the hub may learn of sessions. Each method returns at once and raises nothing; the default does nothing."""

    def on_claimed(self, session: Session) -> None:
        """A connection of this node has become the session's owner; nothing has been written to it yet."""

    def on_replaced(self, session: Session) -> None:
        """Another connection owns the session, here or on another node: what this one still sends changes nothing."""

    def on_parked(self, session: Session) -> None:
        """The session's connection is gone; the session is kept for its life. Redis may not know of it yet."""

    def on_ended(self, session: Session) -> None:
        """The session has ended for good: its client had no name and disconnected deliberately."""

    def on_data_lost(self) -> None:
        """Redis has lost the end of its past (a restart, a failover): what was stored last may be gone."""


class SessionObservers(SessionObserver):
    """All observers of one node, called in the order in which they registered."""

    def __init__(self) -> None:
        self._observers: list[SessionObserver] = []

    def register(self, observer: SessionObserver) -> None:
        self._observers.append(observer)

    def on_claimed(self, session: Session) -> None:
        for observer in self._observers:
            observer.on_claimed(session)

    def on_replaced(self, session: Session) -> None:
        for observer in self._observers:
            observer.on_replaced(session)

    def on_parked(self, session: Session) -> None:
        for observer in self._observers:
            observer.on_parked(session)

    def on_ended(self, session: Session) -> None:
        for observer in self._observers:
            observer.on_ended(session)

    def on_data_lost(self) -> None:
        for observer in self._observers:
            observer.on_data_lost()

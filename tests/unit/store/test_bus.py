"""The bus tells messages and confirmations in the order in which they were heard."""

from __future__ import annotations

from typing import Any

from hub.store.bus import Bus


def test_what_comes_before_a_confirmation_is_told_before_it():
    """The end of an earlier subscription, in one read with the beginning of the next, is not taken for part of it."""
    told: list[tuple[bytes, bool]] = []

    def hear(messages: list[tuple[bytes, bytes]]) -> None:
        told.extend((payload, bus.hears(b"c")) for _, payload in messages)

    bus = Bus("redis://127.0.0.1:1", hear, print, print, 4.0)
    sent: list[bytes] = []

    class Link:
        def send(self, packed: bytes, _: Any) -> None:
            sent.append(packed)

    bus._link, bus.up = Link(), True  # type: ignore[assignment]
    bus.want(b"c")
    bus._pushed([[b"subscribe", b"c", 1], [b"message", b"c", b"1"]])
    bus.drop(b"c")
    bus.want(b"c")
    assert len(sent) == 3
    bus._pushed(
        [
            [b"message", b"c", b"2"],
            [b"unsubscribe", b"c", 0],
            [b"subscribe", b"c", 1],
            [b"message", b"c", b"4"],
        ]
    )
    assert told == [(b"1", True), (b"2", False), (b"4", True)]

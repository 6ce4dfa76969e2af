"""Judges a history by PROTOCOL §5.

Each rule is a function that yields violations; none knows how the hub works. What a rule takes for granted is only what
clients and producers saw themselves.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from tests.chaos.history import (
    Began,
    Gap,
    Got,
    History,
    Joined,
    Joining,
    Leaving,
    Left,
    Proved,
    Record,
)

# Seconds within which a proven position is written back (PROTOCOL §5), and what a busy machine adds.
WRITE_BACK = 5.0
BUSY = 3.0


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise: which one, to whom, and what shows it."""

    rule: str
    client: str
    what: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.client}: {self.what}"


def check(history: History, reasons: Collection[str] = ("overflow",)) -> list[Violation]:
    """Return every violation; `reasons` are those for which gaps may be told in this story."""
    known = Known(history)
    found = [*_unique(history), *_real_time(history)]
    for record in history.records:
        found += _Walk(known, record, reasons).violations()
        found += _written_back(history, record)
    return found


class Known:
    """What is certain of each room: the offsets of what was acknowledged, and of what anybody received."""

    def __init__(self, history: History) -> None:
        self.publications = history.publications
        self.offsets: dict[str, int] = {}
        acked: dict[str, list[int]] = {}
        seen: dict[str, set[int]] = {}
        for publication in history.publications.values():
            if publication.offset is not None:
                self.offsets[publication.key] = publication.offset
                acked.setdefault(publication.room, []).append(publication.offset)
                seen.setdefault(publication.room, set()).add(publication.offset)
        for record in history.records:
            for event in record.events:
                if isinstance(event, Got):
                    seen.setdefault(event.room, set()).add(event.offset)
        self.acked = {room: sorted(offsets) for room, offsets in acked.items()}
        self.seen = {room: sorted(offsets) for room, offsets in seen.items()}
        # Whether every publication's outcome is known: only then can a count be judged.
        self.complete = all(p.offset is not None for p in history.publications.values())

    def due(self, room: str, after: int, before: int) -> list[int]:
        """Return the acknowledged offsets between two, both excluded."""
        offsets = self.acked.get(room, [])
        return offsets[bisect_right(offsets, after) : bisect_left(offsets, before)]

    def stored(self, room: str, after: int, before: int) -> int:
        """Count what is known to have been stored between two offsets, both excluded."""
        offsets = self.seen.get(room, [])
        return bisect_left(offsets, before) - bisect_right(offsets, after)


# -- rules over everybody


def _unique(history: History) -> Iterator[Violation]:
    """No message has two places, and no place two messages; so no two sessions disagree on an order.

    A key with two offsets was stored, and delivered, twice. Every message was published, into its room.
    """
    places: dict[str, tuple[int, str]] = {}
    keys: dict[int, tuple[str, str]] = {}

    def place(key: str, offset: int, who: str) -> Iterator[Violation]:
        other, by = places.setdefault(key, (offset, who))
        if other != offset:
            yield Violation("twice", who, f"{key} has offset {offset}, and {other} for {by}")
        occupant, by = keys.setdefault(offset, (key, who))
        if occupant != key:
            yield Violation("disagree", who, f"{offset} is {key}, and {occupant} for {by}")

    for publication in history.publications.values():
        if publication.offset is not None:
            yield from place(publication.key, publication.offset, "its producer")
    for record in history.records:
        for event in record.events:
            if not isinstance(event, Got):
                continue
            yield from place(event.key, event.offset, record.name)
            publication_or_none = history.publications.get(event.key)
            if publication_or_none is None or publication_or_none.room != event.room:
                yield Violation(
                    "invented", record.name, f"{event.key} was not published in {event.room}"
                )


def _real_time(history: History) -> Iterator[Violation]:
    """What was sent after something else had been acknowledged has the larger offset."""
    acked = sorted(
        (p for p in history.publications.values() if p.acked_at is not None and p.offset),
        key=lambda p: p.acked_at or 0.0,
    )
    by_sending = sorted(acked, key=lambda p: p.sent_at)
    newest, behind = None, 0
    for publication in by_sending:
        while (acked[behind].acked_at or 0.0) < publication.sent_at:
            if newest is None or (acked[behind].offset or 0) > (newest.offset or 0):
                newest = acked[behind]
            behind += 1
        if newest is not None and (publication.offset or 0) <= (newest.offset or 0):
            yield Violation(
                "real time", "its producer",
                f"{publication.key} was sent after {newest.key} was acknowledged, "
                f"and has {publication.offset} against {newest.offset}",
            )  # fmt: skip


def _written_back(history: History, record: Record) -> Iterator[Violation]:
    """Resuming, a client that returns no offset sees nothing again that was proven long enough before."""
    if record.returns:
        return
    proofs: list[Proved] = []
    last_sign = 0.0
    for event in record.events:
        if isinstance(event, Proved):
            last_sign = event.at
            if event.offset:
                proofs.append(event)
        elif isinstance(event, Began):
            for proof in proofs:
                until = proof.at + WRITE_BACK + BUSY
                hindered = any(a < until and proof.at < b for a, b in history.outages)
                if event.recovered and until < last_sign and not hindered:
                    if event.position < proof.offset:
                        yield Violation(
                            "written back", record.name,
                            f"resumed from {event.position}, had proven {proof.offset} "
                            f"{last_sign - proof.at:.1f} s before its connection ended",
                        )  # fmt: skip
            proofs.clear()


# -- rules along one client's story


class _Walk:
    """One client's story, event by event."""

    def __init__(self, known: Known, record: Record, reasons: Collection[str]) -> None:
        self._known = known
        self._record = record
        self._reasons = reasons
        # What the rooms owe: everything behind these offsets.
        self._joined: dict[str, int] = {}
        # Rooms whose messages may arrive.
        self._open: set[str] = set()
        self._received: set[int] = set()
        self._gaps: list[Gap] = []
        # Up to here everything that was due has been looked for.
        self._looked: dict[str, int] = {}
        # The last offset of this connection, its position at first.
        self._last = 0
        self._highest = 0
        self._connections = 0

    def violations(self) -> Iterator[Violation]:
        for event in self._record.events:
            match event:
                case Began():
                    yield from self._began(event)
                case Got():
                    yield from self._got(event)
                case Gap():
                    yield from self._gap(event)
                case Joining(room):
                    self._open.add(room)
                case Joined(room, offset):
                    if room not in self._joined:
                        self._joined[room] = self._looked[room] = offset
                case Leaving(room):
                    self._joined.pop(room, None)
                case Left(room):
                    self._open.discard(room)
        if self._record.stayed:
            yield from self._missed(10**17)

    def _bad(self, rule: str, what: str) -> Violation:
        return Violation(rule, f"{self._record.name} ({self._record.kind})", what)

    def _began(self, event: Began) -> Iterator[Violation]:
        self._connections += 1
        if event.resumed and not event.recovered:
            yield self._bad("session lost", f"connection {self._connections} began a new session")
        if self._record.returns and event.position < self._highest:
            yield self._bad(
                "no repeats", f"resumed from {event.position}, had received {self._highest}"
            )
        self._last = event.position

    def _got(self, event: Got) -> Iterator[Violation]:
        if event.room not in self._open:
            yield self._bad("not subscribed", f"{event.key} of {event.room}")
        if event.offset in self._received and self._record.returns:
            yield self._bad("no repeats", f"{event.key} ({event.offset}) arrived again")
        if event.offset <= self._last:
            repeat = event.offset in self._received
            yield self._bad(
                "repeat within a connection" if repeat else "order",
                f"{event.key} ({event.offset}) arrived behind {self._last}",
            )
        if any(gap.holds(event.room, event.offset) for gap in self._gaps):
            yield self._bad("false gap", f"{event.key} ({event.offset}) had been told as lost")
        # Whatever came before it is here, or was told as lost, by now.
        yield from self._missed(event.offset)
        self._received.add(event.offset)
        self._last = max(self._last, event.offset)
        self._highest = max(self._highest, event.offset)

    def _gap(self, gap: Gap) -> Iterator[Violation]:
        if gap.reason not in self._reasons:
            yield self._bad("gap without a reason", str(gap))
        if gap in self._gaps:
            return
        if self._known.complete and gap.dropped is not None:
            stored = self._known.stored(gap.room, gap.after, gap.before)
            if stored != gap.dropped:
                yield self._bad("count", f"{gap}: {stored} messages are there")
        if self._record.returns:
            lost = self._known.due(gap.room, gap.after, gap.before)
            if received := self._received.intersection(lost):
                yield self._bad("false gap", f"{gap}: received {sorted(received)[:5]} of it")
        self._gaps.append(gap)

    def _missed(self, before: int) -> Iterator[Violation]:
        """Look for what was due below an offset; each hole is told once."""
        for room in self._joined:
            for offset in self._known.due(room, self._looked[room], before):
                if offset in self._received:
                    continue
                if not any(gap.holds(room, offset) for gap in self._gaps):
                    yield self._bad("lost", f"{offset} of {room}, noticed at {before}")
            self._looked[room] = max(self._looked[room], before - 1)

"""Judges a history by PROTOCOL §5.

Each rule is a function that yields violations; none knows how the hub works. What a rule takes for granted is only what
clients and producers saw themselves.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from tests.chaos.history import (
    Acked,
    Acking,
    Began,
    Gap,
    Got,
    History,
    Joined,
    Joining,
    Leaving,
    Left,
    Proved,
    Publication,
    Record,
)
from tests.chaos.known import Known

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


def check(
    history: History, reasons: Collection[str] = ("overflow",), *, remembered: bool = False
) -> list[Violation]:
    """Return every violation; `reasons` are those for which gaps may be told in this story.

    `remembered`: every hub that acknowledged what a lost primary took with it lives on, and so has to tell of it.
    """
    known = Known(history)
    found = [*_unique(history), *_real_time(history)]
    for record in history.records:
        found += _Walk(known, record, reasons).violations()
        found += _written_back(history, record)
        found += _only_acks_move(history, record)
        found += _not_meant(history, record)
        if remembered:
            found += _untold(history, record)
    return found


# -- rules over everybody


def _unique(history: History) -> Iterator[Violation]:
    """No message has two places, and no place two messages; so no two sessions disagree on an order.

    A key with two offsets was stored, and delivered, twice. Every message was published, into its room, as it came.
    """
    places: dict[str, tuple[int, str]] = {}
    keys: dict[int, tuple[str, str]] = {}

    def place(key: str, offset: int, who: str) -> Iterator[Violation]:
        other, by = places.setdefault(key, (offset, who))
        # What only a lost primary had may be stored once more.
        if other != offset and not history.forgot(other) and not history.forgot(offset):
            yield Violation("twice", who, f"{key} has offset {offset}, and {other} for {by}")
        occupant, by = keys.setdefault(offset, (key, who))
        if occupant != key:
            yield Violation("disagree", who, f"{offset} is {key}, and {occupant} for {by}")

    for publication in history.publications.values():
        if publication.offset is not None:
            yield from place(publication.key, publication.offset, "its producer")
    for record in history.records:
        for index, event in enumerate(record.events):
            if not isinstance(event, Got):
                continue
            yield from place(event.key, event.offset, record.name)
            publication_or_none = history.publications.get(event.key)
            if publication_or_none is None or publication_or_none.room != event.room:
                yield Violation(
                    "invented", record.name, f"{event.key} was not published in {event.room}"
                )
            elif not event.whole and not _mixed_up(record, index):
                yield Violation("corrupt", record.name, f"{event.key} has other data")


def _mixed_up(record: Record, index: int) -> bool:
    """Tell whether python-socketio's client took the next connection's CONNECT reply for a message's attachment.

    The lost connection's last packet was the head of a binary message, and is looked at after the client has forgotten
    everything about that connection. The message comes once more, as nothing of it was proven, or is told as lost by then.
    """
    damaged, after = record.events[index], record.events[index + 1 :]
    return (
        record.kind.startswith("stock python")
        and isinstance(damaged, Got)
        and isinstance(next(iter(after), None), Began)
        and any(
            (isinstance(e, Got) and e.key == damaged.key and e.whole)
            or (isinstance(e, Gap) and e.holds(damaged.room, damaged.offset))
            for e in after
        )
    )


def _real_time(history: History) -> Iterator[Violation]:
    """What was sent after something else had been acknowledged has the larger offset."""
    acked = sorted(
        (
            p
            for p in history.publications.values()
            if p.acked_at is not None and p.offset and not history.forgot(p.offset)
        ),
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
    if record.returns or record.manual:
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


def _only_acks_move(history: History, record: Record) -> Iterator[Violation]:
    """With manual acks, a session resumes from the last offset acknowledged: none that is less, none never asked for."""
    if not record.manual:
        return
    asked = answered = 0
    for event in record.events:
        match event:
            case Acking(offset):
                asked = max(asked, offset)
            case Acked(offset, since, at):
                # Stored somewhere between the two; an answer may be long on its way.
                if not any(lapse.since < at and since < lapse.until for lapse in history.forgotten):
                    answered = max(answered, offset)
            case Began() if not event.recovered:
                asked = answered = event.position
            case Began() if not answered <= event.position <= max(asked, answered):
                yield Violation(
                    "only acks move", record.name,
                    f"resumed from {event.position}, had acknowledged {answered} and asked for {asked}",
                )  # fmt: skip


def _not_meant(history: History, record: Record) -> Iterator[Violation]:
    """No own message where echo is off; after a reconnect nothing volatile, or expired, from before it."""
    asked = 0.0
    for event in record.events:
        if isinstance(event, Began):
            asked = event.asked
        if not isinstance(event, Got) or event.key not in history.publications:
            continue
        publication = history.publications[event.key]
        if publication.skip == record.name:
            yield Violation("echo", record.name, f"{event.key} is its own, with echo off")
        past = _past(publication)
        if past is not None and past < asked:
            yield Violation("expired", record.name, f"{event.key} came {asked - past:.1f} s late")


def _untold(history: History, record: Record) -> Iterator[Violation]:
    """What was acknowledged and is forgotten was received all the same, or is told as a gap."""
    if not record.stayed:
        return
    joined = {e.room: e.offset for e in reversed(record.events) if isinstance(e, Joined)}
    left = {e.room for e in record.events if isinstance(e, Leaving)}
    got = {e.key for e in record.events if isinstance(e, Got)}
    gaps = [e for e in record.events if isinstance(e, Gap)]
    for publication in history.publications.values():
        room, offset = publication.room, publication.offset
        if offset is None or not history.forgot(offset) or publication.key in got:
            continue
        if publication.volatile or publication.ttl or publication.skip == record.name:
            continue
        if room in left or offset <= joined.get(room, offset):
            continue
        if not any(gap.holds(room, offset) for gap in gaps):
            yield Violation("untold", record.name, f"{publication.key} ({offset}) is forgotten")


def _past(publication: Publication) -> float | None:
    """Return when a message was not to be delivered any more to whoever connects; None: never, or unknown."""
    if publication.acked_at is None:
        return None
    if publication.volatile:
        return publication.acked_at
    return None if publication.ttl is None else publication.acked_at + publication.ttl


# -- rules along one client's story


class _Walk:
    """One client's story, event by event."""

    def __init__(self, known: Known, record: Record, reasons: Collection[str]) -> None:
        self._known = known
        self._record = record
        self._reasons = reasons
        # What the rooms owe: everything behind these offsets, its own messages without echo aside.
        self._joined: dict[str, int] = {}
        # Rooms that were answered over a later connection than the first one that asked: they were joined before these offsets.
        self._joined_before: dict[str, int] = {}
        # What arrived of rooms while they were being joined: the client cannot know yet what is due. And the number of the
        # connection over which it asked first.
        self._early: dict[str, list[int]] = {}
        self._asked_over: dict[str, int] = {}
        # Rooms whose messages may arrive.
        self._open: set[str] = set()
        self._received: set[int] = set()
        self._gaps: list[Gap] = []
        # How many of them were told before this connection; how many a failover may have taken back.
        self._told_before = self._taken_back = 0
        # Up to here everything that was due has been looked for.
        self._looked: dict[str, int] = {}
        # The last offset of each connection, its position at first.
        self._last: dict[int, int] = {}
        self._highest = 0
        # When it was first told of a session.
        self._told_at = math.inf
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
                    self._early[room] = []
                    self._asked_over.setdefault(room, self._connections)
                case Joined(room, offset):
                    yield from self._answered(room, offset)
                case Leaving(room):
                    self._joined.pop(room, None)
                    self._joined_before.pop(room, None)
                    self._asked_over.pop(room, None)
                case Left(room):
                    self._open.discard(room)
        if self._record.stayed:
            yield from self._missed(10**17)

    def _bad(self, rule: str, what: str) -> Violation:
        return Violation(rule, f"{self._record.name} ({self._record.kind})", what)

    def _began(self, event: Began) -> Iterator[Violation]:
        self._connections += 1
        for room, offset in self._joined_before.items():
            # What it has received may come again now.
            self._joined[room] = min(self._joined[room], offset - 1)
        self._joined_before.clear()
        self._told_before = len(self._gaps)
        # Of two that ask at the same time one begins the session, and the other may be told of it first.
        together = 0 < event.asked <= self._told_at
        self._told_at = min(self._told_at, event.at)
        if event.resumed and not event.recovered and not together:
            yield self._bad("session lost", f"connection {self._connections} began a new session")
        if self._record.returns and event.position < self._highest:
            if not self._known.forgot(self._highest):
                yield self._bad(
                    "no repeats", f"resumed from {event.position}, had received {self._highest}"
                )
            else:  # its offset is beyond all that a promoted replica has: a reset, and again what was not proven
                self._received = {offset for offset in self._received if offset <= event.position}
                self._highest = event.position
        self._last[event.via] = event.position

    def _got(self, event: Got) -> Iterator[Violation]:
        if event.room not in self._open:
            yield self._bad("not subscribed", f"{event.key} of {event.room}")
        if event.room in self._early:
            self._early[event.room].append(event.offset)
        yield from self._before_join(event.room, event.offset)
        if event.offset in self._received and self._record.returns:
            yield self._bad("no repeats", f"{event.key} ({event.offset}) arrived again")
        last = self._last.get(event.via, 0)
        if event.offset <= last:
            repeat = event.offset in self._received
            yield self._bad(
                "repeat within a connection" if repeat else "order",
                f"{event.key} ({event.offset}) arrived behind {last}",
            )
        told = any(gap.holds(event.room, event.offset) for gap in self._gaps[self._taken_back :])
        if (
            told and not event.via
        ):  # where there are several connections, an older one may have it still
            yield self._bad("false gap", f"{event.key} ({event.offset}) had been told as lost")
        # Whatever came before it is here, or was told as lost, by now.
        yield from self._missed(event.offset)
        self._received.add(event.offset)
        self._last[event.via] = max(last, event.offset)
        self._highest = max(self._highest, event.offset)

    def _answered(self, room: str, offset: int) -> Iterator[Violation]:
        """A subscription's answer: nothing up to its offset comes, or has come since it was asked for."""
        if room not in self._joined:
            self._joined[room] = self._looked[room] = offset
        early = self._early.pop(room, [])
        # Who comes back into a room that it does not know to have joined gets its messages, and is answered how far these
        # have come.
        if self._asked_over.get(room) == self._connections:
            for earlier in early:
                yield from self._before_join(room, earlier)
        elif early:
            self._joined_before[room] = early[0]

    def _before_join(self, room: str, offset: int) -> Iterator[Violation]:
        if offset <= self._joined.get(room, 0):
            yield self._bad(
                "before the join", f"{offset} of {room}, joined at {self._joined[room]}"
            )

    def _gap(self, gap: Gap) -> Iterator[Violation]:
        if gap.reason not in self._reasons:
            yield self._bad("gap without a reason", str(gap))
        if gap in self._gaps:
            return
        if gap.dropped is not None:
            stored = self._known.stored(gap.room, gap.after, gap.before)
            if stored is not None and stored != gap.dropped:
                yield self._bad("count", f"{gap}: {stored} messages are there")
        if self._record.returns:
            lost = self._known.due(gap.room, gap.after, gap.before)
            if received := self._received.intersection(lost):
                yield self._bad("false gap", f"{gap}: received {sorted(received)[:5]} of it")
        if gap.reason == "reset":
            # Redis has forgotten its latest writes, and with them what they had trimmed: where the session's position
            # is older, what earlier connections were told as lost is there again.
            self._taken_back = self._told_before
        self._gaps.append(gap)

    def _missed(self, before: int) -> Iterator[Violation]:
        """Look for what was due below an offset; each hole is told once."""
        for room in self._joined:
            for offset in self._known.due(room, self._looked[room], before):
                if offset in self._received or self._known.owner.get(offset) == self._record.name:
                    continue
                if not any(gap.holds(room, offset) for gap in self._gaps):
                    yield self._bad("lost", f"{offset} of {room}, noticed at {before}")
            self._looked[room] = max(self._looked[room], before - 1)

"""What a history says for certain about each room: what was stored there, and what of it was due."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from tests.chaos.history import Got, History


class Known:
    """What is certain of each room: the offsets of what was acknowledged, and of what anybody received."""

    def __init__(self, history: History) -> None:
        self.publications = history.publications
        self.forgot = history.forgot
        self._forgotten = history.forgotten
        stored = [p for p in history.publications.values() if not p.volatile]
        # When the last of them was heard of: what had expired by then may have been due to nobody any more.
        ended = max((p.acked_at or 0.0 for p in stored), default=0.0)
        for record in history.records:
            ended = max([ended, *(getattr(event, "at", 0.0) for event in record.events)])
        acked: dict[str, list[int]] = {}
        seen: dict[str, set[int]] = {}
        # To whom what was published without echo is not to come.
        self.owner: dict[int, str] = {}
        for publication in stored:
            offset = publication.offset
            if offset is None or history.forgot(offset):
                continue
            seen.setdefault(publication.room, set()).add(offset)
            if publication.skip:
                self.owner[offset] = publication.skip
            expires = (publication.acked_at or 0.0) + (publication.ttl or 0.0)
            if publication.ttl is None or expires > ended:
                acked.setdefault(publication.room, []).append(offset)
        volatile = {p.key for p in history.publications.values() if p.volatile}
        for record in history.records:
            for event in record.events:
                if isinstance(event, Got) and event.key not in volatile:
                    seen.setdefault(event.room, set()).add(event.offset)
        self.acked = {room: sorted(offsets) for room, offsets in acked.items()}
        self.seen = {room: sorted(offsets) for room, offsets in seen.items()}
        # Whether every publication's outcome is known: only then can a count be judged.
        self._complete = all(p.offset is not None for p in stored)

    def due(self, room: str, after: int, before: int) -> list[int]:
        """Return the acknowledged offsets between two, both excluded."""
        offsets = self.acked.get(room, [])
        return offsets[bisect_right(offsets, after) : bisect_left(offsets, before)]

    def stored(self, room: str, after: int, before: int) -> int | None:
        """Count what was stored between two offsets, both excluded; None where that is not known for certain."""
        if not self._complete:
            return None
        if any(lapse.after < before and lapse.upto > after for lapse in self._forgotten):
            return None
        offsets = self.seen.get(room, [])
        return bisect_left(offsets, before) - bisect_right(offsets, after)

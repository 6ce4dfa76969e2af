"""What a node has seen of Redis's past: where Redis comes back without some of it, that is told."""

from __future__ import annotations

# A room and an offset in its log; no room: none is known.
Witness = tuple[str, int]
NOBODY: Witness = ("", 0)


class LossDetector:
    """The newest of what one node has seen."""

    __slots__ = ("_frozen", "newest", "witness")

    def __init__(self) -> None:
        # The newest offset seen anywhere; later ones are larger even if Redis forgets.
        self.newest = 0
        # The newest message that is known to lie in a log.
        self.witness = NOBODY
        # Both as they were when the bus was lost: what it brings after that may be of another past.
        self._frozen: tuple[int, Witness] | None = None

    def answered(self, offset: int, room: str = "") -> None:
        """Note an offset that a script has given; `room`: in whose log it lies.

        It is of the known past even while that is frozen: a server that has changed is asked for nothing before
        `rollback`.
        """
        self.newest, self.witness = _later(self.newest, self.witness, offset, room)
        if self._frozen is not None:
            self._frozen = _later(*self._frozen, offset, room)

    def freeze(self) -> None:
        """Keep what is known now for a rollback to compare with; until `thaw` the bus adds nothing to it."""
        if self._frozen is None:
            self._frozen = self.newest, self.witness

    def thaw(self) -> None:
        self._frozen = None

    @property
    def past(self) -> tuple[int, Witness]:
        """Return what Redis has to know if it has forgotten nothing."""
        return self._frozen or (self.newest, self.witness)


def _later(newest: int, witness: Witness, offset: int, room: str) -> tuple[int, Witness]:
    if room and offset > witness[1]:
        witness = room, offset
    return max(newest, offset), witness

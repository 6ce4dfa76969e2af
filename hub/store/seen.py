"""What a node has seen of Redis's past: where Redis comes back without some of it, that is told."""

from __future__ import annotations

# The newest offset, and the witness, as `Seen` has them.
State = tuple[int, tuple[str, int] | None]


class Seen:
    """The newest of what one node has seen."""

    __slots__ = ("_frozen", "newest", "witness")

    def __init__(self) -> None:
        # The newest offset seen anywhere; later ones are larger even if Redis forgets.
        self.newest = 0
        # Room and offset of the newest one that lies in a log, as far as the bus has told.
        self.witness: tuple[str, int] | None = None
        # Both as they were when the bus was lost: what comes after may be of another past.
        self._frozen: State | None = None

    def freeze(self) -> None:
        """Keep what is known now for a rollback to compare with; until `thaw` it stays so."""
        if self._frozen is None:
            self._frozen = self.newest, self.witness

    def thaw(self) -> None:
        self._frozen = None

    @property
    def past(self) -> State:
        """Return what Redis has to know if it has forgotten nothing."""
        return self._frozen or (self.newest, self.witness)

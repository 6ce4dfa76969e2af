"""Session ids across the batches that they are drawn in."""

from __future__ import annotations

import re

from hub.engine.ids import Ids


def test_ids_are_all_different_and_fit_a_query() -> None:
    ids = Ids()
    drawn = [ids.draw() for _ in range(200)]
    assert len(set(drawn)) == 200
    assert all(re.fullmatch(r"[\w-]{20}", one) for one in drawn)

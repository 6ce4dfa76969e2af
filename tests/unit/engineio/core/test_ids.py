"""Session ids across the batches that they are drawn in."""

from __future__ import annotations

import re

import pytest

from hub.engineio.core.ids import Ids


@pytest.mark.parametrize(("size", "letters"), [(15, 20), (42, 56)])
def test_ids_are_all_different_and_fit_a_query(size: int, letters: int) -> None:
    ids = Ids(size)
    drawn = [ids.draw() for _ in range(200)]
    assert len(set(drawn)) == 200
    assert all(re.fullmatch(rf"[\w-]{{{letters}}}", one) for one in drawn)

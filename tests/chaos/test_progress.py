"""A storm or a drill that cannot finish says what has struck so far."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.chaos.drill import Drill
from tests.chaos.faults import Fault
from tests.chaos.storm import Storm
from tests.support.times import MS, UNIT


class Quick(Fault):
    lasts = (0.0, 0.0)

    async def strike(self) -> None:
        self.count += 1


class Vain(Quick):
    """Meets nobody, and so never counts."""

    lane = "hubs"

    async def strike(self) -> None:
        pass


class Calm:
    """A crowd of nobody."""

    def wander(self) -> list:
        return []

    async def rest(self) -> None:
        pass


async def test_a_storm_that_cannot_finish_says_which_fault_struck_how_often():
    storm = Storm(SimpleNamespace(history=None), Calm(), 1, [Quick, Vain])
    with pytest.raises(AssertionError) as failed:
        await storm.rage(enough=3, limit=1500 * MS)
    said = str(failed.value)
    assert "not done within" in said
    assert f"of 3 times each: Vain 0, Quick {storm.faults[0].count}\n" in said
    assert "clients: " in said
    assert "hubs: " in said


async def test_a_fault_that_fails_is_not_mistaken_for_that():
    class Fails(Quick):
        async def strike(self) -> None:
            raise TimeoutError("its own")

    storm = Storm(SimpleNamespace(history=None), Calm(), 1, [Fails])
    with pytest.raises(TimeoutError, match="its own"):
        await storm.rage(enough=1, limit=30 * UNIT)


async def test_a_drill_says_what_it_did_and_how_its_clients_stand(cluster):
    drill = Drill(cluster)
    await drill.start()
    try:
        await drill.client("A", name="ada")
        await drill.say("A")
        drill.door.cut()
        drill.wire.stall("down")
        said = drill.progress()
        assert "way to Redis 0: stall down 1" in said
        assert "door 0: cut 1" in said
        assert "1 messages published" in said
        assert "ada began 1 times" in said
    finally:
        drill.wire.flow("down")
        await drill.stop()

"""Redis loses the end of its past: told, exactly, and nothing else is. The rules behind it have scenes of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.walk.lab import Bad
from tests.integration.walk.rollbacks import (
    gather,
    lose,
    notice,
    noticed_late,
    restart,
    say,
)
from tests.integration.walk.scene import Scene
from tests.support.redis import RedisServer


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A server of our own."""
    server = RedisServer()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def quiet_logs() -> None:
    """No hub process runs here."""


@pytest.fixture
def scene(server: RedisServer) -> Iterator[Scene]:
    scene = Scene(server, log_length=50, inbox_length=50)
    yield scene
    scene.close()


@pytest.mark.parametrize("first", ["node", "publisher"])
def test_what_was_forgotten_is_told(scene: Scene, first: str) -> None:
    """To those who missed it, whether a node looks first or somebody has published by then; to nobody else."""
    gather(scene, "A", "B")
    scene.hear("A")
    past = scene.lab.remember()
    scene.hear("A", "A", kept=("js2",))
    lost = [message.offset for message in scene.stored[1:]]
    scene.go(scene.js2)
    scene.lab.forget(past)
    if first == "publisher":
        say(scene, "A")
        say(scene, "B")
    notice(scene)
    scene.come(scene.js2, scene.n1)
    assert {(gap[0], gap[3], gap[4]) for gap in scene.js2.gaps} >= {("A", None, "reset")}
    for gap in scene.js2.gaps:
        assert gap[1] < lost[0] < gap[2] <= lost[1] + 1
    assert not [gap for gap in scene.js1.gaps if gap[0] == "A" and gap[2] > lost[1] + 1]
    scene.end()


def test_a_restart_that_forgets_nothing_tells_nothing(scene: Scene) -> None:
    """Everybody is replayed, and nothing comes twice or is told lost."""
    scene.come(scene.js1, scene.n0)
    scene.come(scene.js2, scene.n1)
    scene.join(scene.js1, "A", "B")
    scene.join(scene.js2, "A")
    scene.hear("A", "B", "A")
    scene.lab.forget(scene.lab.remember())
    restart(scene)
    scene.hear("A")
    scene.later()
    scene.flow()
    if scene.js1.gaps or scene.js2.gaps:
        raise Bad(f"gaps where nothing is lost: {scene.js1.gaps} {scene.js2.gaps}")
    scene.end()


def test_what_another_node_knows_is_told_to_those_who_went_on(scene: Scene) -> None:
    """Over the same connection, too."""
    noticed_late(scene, comes_back=False)
    scene.end()


def test_a_reset_counts_from_the_loss_that_was_a_change(scene: Scene) -> None:
    """Not from one before it, behind which everything came: that is not lost, though the logs have cut it away since."""
    scene.come(scene.js1, scene.n0)
    scene.join(scene.js1, "A")
    scene.lose_bus(scene.n0)
    scene.later()
    scene.flow()
    scene.hear("A", "A")
    [session] = scene.n0.node.sessions
    position = session.sent
    assert session.position_at_bus_loss < position == scene.js1.offset
    lose(scene, scene.lab.remember())
    assert session.reset_from == position
    scene.end()

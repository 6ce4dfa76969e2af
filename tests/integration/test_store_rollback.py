"""Redis loses the end of its past, as at a crash with everysec or at a failover: told, and nothing else goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import hiredis
import pytest

from tests.integration.walk.lab import Bad
from tests.integration.walk.scenes import Scene
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


def gather(scene: Scene, *rooms: str) -> None:
    """Let one client come to each node, and both join."""
    scene.come(scene.js1, scene.n0)
    scene.come(scene.js2, scene.n1)
    scene.join(scene.js1, *rooms)
    scene.join(scene.js2, *rooms)


def remember(scene: Scene) -> dict[str, tuple[Any, int]]:
    call = scene.lab.admin.call
    return {
        key: (_dump(scene, key), call("PTTL", key)) for key in scene.lab.all_keys() if key != "now"
    }


def _dump(scene: Scene, key: str) -> bytes:
    return scene.lab.admin.call("DUMP", key)  # type: ignore[no-any-return]


def forget(scene: Scene, past: dict[str, tuple[Any, int]]) -> None:
    """Put Redis back to what it was, as another run of the server."""
    raw = scene.lab.admin
    for wire in list(scene.lab.wires):
        wire.closed = True  # nobody hears of it before the server is back
    for key in list(scene.lab.all_keys()):
        if key != "now":
            raw.call("DEL", key)
    for key, (dump, ttl) in past.items():
        raw.send(hiredis.pack_command(("RESTORE", key, str(max(ttl, 0)), dump)))
        assert raw.receive() == b"OK"
    for host in scene.lab.hosts:
        host.node.store._identity = ("another", "run")
    for wire in list(scene.lab.wires):
        wire.closed = False


def lose(scene: Scene, past: dict[str, tuple[Any, int]]) -> None:
    """Put Redis back to what it was, and let everybody notice."""
    forget(scene, past)
    notice(scene)


def notice(scene: Scene) -> None:
    """Let everybody notice that Redis is another run of the server."""
    restart(scene)
    scene.later()
    scene.flow()


def restart(scene: Scene) -> None:
    for wire in list(scene.lab.wires):
        scene.lab.do(lambda w=wire: w.cut(0))


@pytest.mark.parametrize("first", ["node", "publisher"])
def test_what_was_forgotten_is_told(scene: Scene, first: str) -> None:
    """To those who missed it, whether a node looks first or somebody has published by then; to nobody else."""
    gather(scene, "A", "B")
    scene.hear("A")
    past = remember(scene)
    scene.hear("A", "A", kept=("js2",))
    lost = [message.offset for message in scene.stored[1:]]
    scene.go(scene.js2)
    forget(scene, past)
    if first == "publisher":
        scene.lab.do(lambda: scene.publish("A", volatile=False))
        scene.lab.do(lambda: scene.publish("B", volatile=False))
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
    forget(scene, remember(scene))
    restart(scene)
    scene.hear("A")
    scene.later()
    scene.flow()
    if scene.js1.gaps or scene.js2.gaps:
        raise Bad(f"gaps where nothing is lost: {scene.js1.gaps} {scene.js2.gaps}")
    scene.end()


@pytest.mark.parametrize("late", ["before", "after"])
def test_what_another_node_knows_is_told_to_those_who_went_on(scene: Scene, late: str) -> None:
    """One node has heard what the other has not, and finds out last that Redis has forgotten it.

    By then a client of the other one has got newer messages, over its connection or a new one.
    """
    gather(scene, "A", "B")
    scene.hear("A")
    past = remember(scene)
    scene.hear("A", kept=("n1 bus",))
    lost = scene.stored[-1].offset
    forget(scene, past)
    scene.lab.do(lambda: scene.publish("A", volatile=False))
    newer = scene.stored[-1].offset
    slow = ("n0 commands", "n0 replies")
    if late == "after":
        scene.go(scene.js2, noticed=False)
    restart(scene)
    scene.later(0.2)
    scene.flow(*slow)
    if late == "after":
        scene.come(scene.js2, scene.n1, *slow)
    scene.hear("B", kept=slow)
    assert scene.js2.offset > newer
    assert not scene.js2.gaps
    scene.later(1.0)
    scene.flow()
    assert [
        (gap[0], gap[4], gap[1] < lost < gap[2]) for gap in scene.js2.gaps if gap[0] == "A"
    ] == [("A", "reset", True)]
    scene.end()


def test_a_reset_counts_from_the_loss_that_was_a_change(scene: Scene) -> None:
    """Not from one before it, behind which everything came: that is not lost, though the logs have cut it away since."""
    scene.come(scene.js1, scene.n0)
    scene.join(scene.js1, "A")
    scene.lose_bus(scene.n0)
    scene.later()
    scene.flow()
    scene.hear("A", "A")
    [session] = scene.n0.node.sessions.values()
    position = session.sent
    assert session.at_loss < position == scene.js1.offset
    lose(scene, remember(scene))
    assert session.doubtful == position
    scene.end()


def test_two_losses_are_told_to_who_was_away_for_both(scene: Scene) -> None:
    """What came between them is no part of either."""
    gather(scene, "A")
    scene.hear("A")
    scene.go(scene.js2)
    lost = []
    for _ in range(2):
        past = remember(scene)
        scene.hear("A")
        lost.append(scene.stored[-1].offset)
        lose(scene, past)
        scene.hear("A")
    scene.come(scene.js2, scene.n1)
    for offset in lost:
        assert any(gap[0] == "A" and gap[1] < offset < gap[2] for gap in scene.js2.gaps)
    scene.end()


def test_a_reset_that_was_told_is_not_told_again_at_the_next_change(scene: Scene) -> None:
    """Not even where the bus knew the server already, and the logs have cut away all that came since."""
    gather(scene, "A")
    scene.go(scene.js2)
    scene.hear("A", "A")
    past = remember(scene)
    scene.hear("A")
    forget(scene, past)
    # So that nobody knows where the loss began.
    scene.lab.do(lambda: scene.publish("A", volatile=False))
    notice(scene)
    scene.come(scene.js2, scene.n1)
    told = list(scene.js2.gaps)
    assert [gap[4] for gap in told if gap[0] == "A"] == ["reset"]
    scene.hear(*60 * "A")
    store = scene.n1.node.store
    assert store._identity is not None
    store.bus.server, store._identity = store._identity[0], ("another", "run")
    wire = scene.n1.wire("commands")
    assert wire is not None
    scene.lab.do(lambda: wire.cut(0))
    scene.later()
    scene.flow()
    assert scene.js2.gaps == told
    scene.end()

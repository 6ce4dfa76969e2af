"""Stories of a Redis that loses the end of its past, as at a crash with everysec or at a failover."""

from __future__ import annotations

from typing import Any

from hub.store.server_check import ServerIdentity
from tests.integration.walk.lab import Bad, Past
from tests.integration.walk.scene import Scene, Story
from tests.integration.walk.world import Client


def gather(s: Scene, *rooms: str) -> None:
    """Let one client come to each node, and both join."""
    s.come(s.js1, s.n0)
    s.come(s.js2, s.n1)
    s.join(s.js1, *rooms)
    s.join(s.js2, *rooms)


def restart(s: Scene) -> None:
    """Cut every connection to Redis."""
    for wire in list(s.lab.wires):
        s.lab.do(lambda w=wire: w.cut(0))


def notice(s: Scene) -> None:
    """Let everybody notice that Redis is another run of the server."""
    restart(s)
    s.later()
    s.flow()


def lose(s: Scene, past: Past) -> None:
    """Put Redis back to what it was, and let everybody notice."""
    s.lab.forget(past)
    notice(s)


def say(s: Scene, room: str) -> None:
    """Publish a message that nobody hears of before the next flow."""
    s.lab.do(lambda: s.publish(room, volatile=False))


def miss(s: Scene) -> Past:
    """Let one client hear a message that the other does not get any more; return the past without it."""
    gather(s, "A")
    past = s.lab.remember()
    s.hear("A", kept=("js2",))
    s.go(s.js2)
    return past


def loss_told(s: Scene) -> None:
    """What one node has heard, and Redis has forgotten, is told to who missed it."""
    lose(s, miss(s))


def loss_overtaken(s: Scene) -> None:
    """The same where somebody has published since, so that the clock shows nothing."""
    s.lab.forget(miss(s))
    say(s, "A")
    notice(s)


def publisher_knows(s: Scene) -> None:
    """All are away, so that nobody has heard a message: the node that has acknowledged it knows of it."""
    gather(s, "A")
    s.hear("A")
    s.go(s.js2)
    s.say(s.js1, "unsubscribe", "A")
    past = s.lab.remember()
    s.say(s.js1, "publish", "A", True, False)
    s.lab.forget(past)
    say(s, "A")
    notice(s)


def noticed_late(s: Scene, *, comes_back: bool = True) -> None:
    """One node has heard what the other has not, and finds out last that Redis has forgotten it.

    By then a client of the other one has got newer messages, over its connection or a new one.
    """
    gather(s, "A", "B")
    s.hear("A")
    past = s.lab.remember()
    s.hear("A", kept=("n1 bus",))
    lost = s.stored[-1].offset
    s.lab.forget(past)
    say(s, "A")
    newer = s.stored[-1].offset
    slow = ("n0 commands", "n0 replies")
    if comes_back:
        s.go(s.js2, noticed=False)
    restart(s)
    s.later(0.2)
    s.flow(*slow)
    if comes_back:
        s.come(s.js2, s.n1, *slow)
    s.hear("B", kept=slow)
    assert s.js2.offset is not None
    assert s.js2.offset > newer
    assert not s.js2.gaps
    s.later(1.0)
    s.flow()
    told = [(gap[4], gap[1] < lost < gap[2]) for gap in s.js2.gaps if gap[0] == "A"]
    if told != [("reset", True)]:
        raise Bad(f"{lost} is forgotten, and told was {s.js2.gaps}")


def each_loss(s: Scene) -> None:
    """Redis forgets twice while a client is away; what came between the losses is no part of either."""
    gather(s, "A")
    s.hear("A")
    s.go(s.js2)
    for _ in range(2):
        past = s.lab.remember()
        s.hear("A")
        lose(s, past)
        s.hear("A")
    s.come(s.js2, s.n1)


def told_once(s: Scene) -> None:
    """A reset that was told is not told again at the next change.

    Not even where the bus knew the server already, and the logs have cut away all that came since.
    """
    gather(s, "A")
    s.go(s.js2)
    s.hear("A", "A")
    past = s.lab.remember()
    s.hear("A")
    s.lab.forget(past)
    say(s, "A")  # so that nobody knows where the loss began
    notice(s)
    s.come(s.js2, s.n1)
    told = list(s.js2.gaps)
    assert [gap[4] for gap in told if gap[0] == "A"] == ["reset"]
    s.hear(*60 * "A")
    store = s.n1.node.store
    assert store._identity is not None
    store.bus.server, store._identity = store._identity.run_id, ServerIdentity("another", "run")
    wire = s.wire(s.n1, "commands")
    s.lab.do(lambda: wire.cut(0))
    s.later()
    s.flow()
    if s.js2.gaps != told:
        raise Bad(f"told was {told}, and is {s.js2.gaps}")


def lost_for_good(s: Scene) -> None:
    """What was told as lost does not come after all, where Redis has forgotten that it cut a log.

    The client is amid catching up: it was told of the gap, and by messages of another room it is within it. That it joins
    the room again changes nothing.
    """
    s.come(s.js1, s.n0)
    s.join(s.js1, "A", "B")
    s.go(s.js1)
    s.hear(*"ABBAA")
    slow = ("n0 commands",)
    s.come(s.js1, s.n0, *slow)
    wire = s.wire(s.n0, "commands")
    s.lab.do(wire.execute)  # the taking
    s.flow(*slow)
    past = s.lab.remember()
    s.hear(*"AAA", kept=slow)
    s.lab.do(wire.execute)  # the first batch
    s.flow(*slow)
    assert [gap[0] for gap in s.js1.gaps] == ["A"]
    s.say(s.js1, "subscribe", "A", kept=slow)
    for _ in range(2):
        s.lab.do(wire.execute)  # the second batch, and the subscription
    s.flow(*slow)
    lose(s, past)


def cursor_void(s: Scene) -> None:
    """What was counted amid catching up says nothing of the numbers that Redis gives out a second time."""
    s.come(s.js1, s.n0)
    s.join(s.js1, "A", "B")
    s.hear("A")
    s.go(s.js1)
    slow = ("n0 commands",)
    s.come(s.js1, s.n0, *slow)
    wire = s.wire(s.n0, "commands")
    s.lab.do(wire.execute)  # the claim
    s.flow(*slow)
    past = s.lab.remember()
    s.hear("A", "A", "B", "B", kept=slow)
    for _ in range(2):
        s.lab.do(wire.execute)  # two batches: two messages of A
        s.flow(*slow)
    s.lab.forget(past)
    say(s, "A")  # the second message of A again
    notice(s)
    if any(gap[3] is not None for gap in s.js1.gaps):
        raise Bad(f"nobody can count what Redis has lost: {s.js1.gaps}")


def before_reset(s: Scene) -> None:
    """What came before a loss that is told comes, in this batch or another one."""
    gather(s, "A")
    s.go(s.js2)
    s.hear("A", "A")
    past = s.lab.remember()
    s.hear("A")
    lose(s, past)
    s.come(s.js2, s.n1)


def takes_count(s: Scene) -> None:
    """A taking of a session that Redis has forgotten does not put its connection out."""
    s.come(s.js1, s.n0)
    s.join(s.js1, "A")
    past = s.lab.remember()
    s.go(s.js1, noticed=False)
    s.come(s.js1, s.n1)
    lose(s, past)


def serials_are_times(s: Scene) -> None:
    """A pid that Redis has forgotten is not given out again, with another secret: its client would count as a forger."""
    s.come(s.js2, s.n0)
    s.join(s.js2, "A")
    s.hear("A")
    s.go(s.js2)
    other = Client(s, "js2", "js")
    s.come(other, s.n1)
    s.go(other)
    past = s.lab.remember()
    s.come(s.js2, s.n0)
    s.go(s.js2)
    lose(s, past)
    another = Client(s, "js2", "js")
    s.come(another, s.n1)
    s.go(another)
    s.come(s.js2, s.n0)


_LONG = {"log_length": 50, "inbox_length": 50}

SCENES: dict[str, tuple[Story, dict[str, Any]]] = {
    "loss_told": (loss_told, _LONG),
    "loss_overtaken": (loss_overtaken, _LONG),
    "publisher_knows": (publisher_knows, _LONG),
    "noticed_late": (noticed_late, _LONG),
    "each_loss": (each_loss, _LONG),
    "told_once": (told_once, _LONG),
    "lost_for_good": (lost_for_good, {"log_length": 3, "replay_count": 1}),
    "cursor_void": (cursor_void, {**_LONG, "replay_count": 1}),
    "before_reset": (before_reset, {"replay_count": 1}),
    "takes_count": (takes_count, _LONG),
    "serials_are_times": (serials_are_times, _LONG),
}

"""Short stories, one for each rule: each goes wrong without the rule, and only then."""

from __future__ import annotations

from functools import partial
from typing import Any

from hub.api.registry import VERBS
from hub.api.requests import AckRequest
from tests.integration.walk import rollbacks
from tests.integration.walk.lab import Bad
from tests.integration.walk.scene import Scene, Story
from tests.integration.walk.world import Client


def sub_adds_away(s: Scene, rooms: str = "B") -> None:
    """Rooms joined while away are in the inbox from then on."""
    s.come(s.js1, s.n0)
    s.join(s.js1, "A")
    s.js1.slow = True
    s.hear(*"AAAAAA")
    s.join_together(s.js1, *rooms)
    s.hear(*rooms)
    s.js1.slow = False


def resub_keeps_join(s: Scene, rooms: str = "A") -> None:
    """Joining again does not skip what is on its way."""
    s.come(s.js1, s.n0)
    s.join(s.js1, *rooms)
    s.hear(*rooms, kept=("n0 bus",))
    s.join_together(s.js1, *rooms, kept=("n0 bus",))


def join_filter(s: Scene, rooms: str = "A") -> None:
    """What was published before the join does not come, late though it be heard."""
    s.come(s.js2, s.n0)
    s.join(s.js2, *rooms)
    s.come(s.js1, s.n0)
    s.hear(*rooms, kept=("n0 bus",))
    s.join_together(s.js1, *rooms, kept=("n0 bus",))


def sub_bus_first(s: Scene) -> None:
    """Nothing is lost between the join and the bus's beginning to hear the room."""
    s.come(s.js1, s.n0)
    s.say(s.js1, "subscribe", "A", kept=("n0 subscribe",))
    s.hear("A", kept=("n0 subscribe",))


def sub_holds_all(s: Scene) -> None:
    """A later message of another room does not overtake those of the room that is being joined, while history is read."""
    s.come(s.js1, s.n0)
    s.join(s.js1, "A")
    kept = ("n0 commands",)
    s.say(s.js1, "subscribe", "B", 5, kept=kept)
    s.lab.do(s.wire(s.n0, "commands").execute)  # it has joined, and the history is asked for
    s.flow(*kept)
    s.hear("B", "A", kept=kept)


def overflow(s: Scene) -> None:
    """An inbox that overflows is no gap as long as the log has everything."""
    s.come(s.js1, s.n0)
    s.join(s.js1, "A")
    s.go(s.js1)
    s.hear(*"AAAAAA")
    s.come(s.js1, s.n0)
    if s.js1.gaps:
        raise Bad(f"a gap although the log has everything: {s.js1.gaps}")


def park_from_live(s: Scene) -> None:
    """Each parking of a live session begins a new list: what it got while live may not have arrived."""
    s.come(s.js1, s.n0)
    s.join(s.js1, "A")
    s.go(s.js1)
    s.come(s.js1, s.n0)
    s.hear("A", kept=("js1",))
    s.go(s.js1)
    s.hear("A")


def sent_filter(s: Scene) -> None:
    """What a replay has handed out is not delivered again when the bus brings it."""
    s.come(s.js2, s.n0)
    s.join(s.js2, "A")
    s.come(s.js1, s.n0)
    s.join(s.js1, "A")
    s.go(s.js1)
    s.hear("A", kept=("n0 bus",))
    s.come(s.js1, s.n0, "n0 bus")


def heal_holds(s: Scene) -> None:
    """After a loss of the bus nothing is delivered before what was lost has been read."""
    s.come(s.js1, s.n0)
    s.join(s.js1, "A", "B")
    s.lose_bus(s.n0)
    s.hear("A", kept=("n0 subscribe",))
    wire = s.wire(s.n0, "bus")
    while wire.going:
        s.lab.do(wire.execute)
    s.lab.do(lambda: s.publish("B", volatile=False))
    s.lab.do(lambda: wire.release(100))


def heal_cut(s: Scene) -> None:
    """Live again from a value of the clock at which every channel was heard."""
    s.come(s.js1, s.n0)
    s.join(s.js1, "A")
    s.lose_bus(s.n0)
    s.later()
    s.flow("n0 subscribe")
    s.hear("A", kept=("n0 subscribe",))


def heal_gap(s: Scene) -> None:
    """A live session is told what neither the bus nor the log has any more."""
    s.come(s.js1, s.n0)
    s.join(s.js1, "A")
    s.lose_bus(s.n0)
    s.hear(*"AAAAAAAAA")
    s.later()
    s.flow()
    if [gap[3] for gap in s.js1.gaps] != [3]:
        raise Bad(f"3 are lost, no gap says so: {s.js1.gaps}")


def gap_offset(s: Scene) -> None:
    """Having been told of a gap moves no position: what is older than its end still comes."""
    s.come(s.js1, s.n0)
    s.join(s.js1, "A", "B")
    s.go(s.js1)
    s.hear("B", *"AAAAAAAA")
    first_frames(s, 3)


def gap_early(s: Scene) -> None:
    """A gap is told before the position passes what was lost."""
    s.come(s.js1, s.n0)
    s.join(s.js1, "A")
    s.go(s.js1)
    s.hear(*"AAAAAAAA")
    first_frames(s, 3)


def first_frames(s: Scene, count: int) -> None:
    """Come back, read a few frames, and be cut off again."""
    connection = s.come(s.js1, s.n0, "js1")
    for _ in range(count):
        s.lab.do(lambda: s.read(connection))
    s.go(s.js1)


def final_gap(s: Scene) -> None:
    """A gap is told before going live, even where nothing newer follows."""
    s.come(s.js1, s.n0)
    s.join(s.js1, "A")
    s.go(s.js1)
    s.hear("A")
    s.lab.leap(1500)
    s.come(s.js1, s.n0)
    s.lasting = False


def lapse_replays(s: Scene) -> None:
    """A session parked by the sweeper under a node that was only stopped does not run out there."""
    s.come(s.js1, s.n0)
    s.join(s.js1, "A")
    s.lab.leap(20)
    s.upkeep_of(s.n1, "renew", "sweep")
    s.upkeep_of(s.n0, "renew")
    s.hours(6000)


def fence_all(s: Scene) -> None:
    """A disconnect of a replaced connection ends nothing."""
    old = s.come(s.js1, s.n0)
    s.go(s.js1, noticed=False)
    s.come(s.js1, s.n1, "n0 bus")
    assert old.session is not None
    s.lab.do(lambda: s.n0.task(s.n0.node.sessions.detach(old.session, deliberate=True)))  # type: ignore[arg-type]
    old.over = True
    s.flow("n0 bus")
    s.go(s.js1)


def gen_in_key(s: Scene) -> None:
    """What is left of an earlier session of a client does not reach its next one."""
    s.come(s.py1, s.n0)
    s.join(s.py1, "A")
    s.come(s.js2, s.n0)
    s.join(s.js2, "A")
    s.go(s.py1)
    s.lab.leap(2000)
    s.go(s.js2)
    s.lab.leap(1500)
    s.upkeep_of(s.n0, "renew")
    s.come(s.py1, s.n0)
    s.join(s.py1, "B")
    s.go(s.py1)
    s.hear("A", "B")


def echo_in_log(s: Scene) -> None:
    """Where the publisher wants no echo, a replay brings none either."""
    s.come(s.js1, s.n0)
    s.join(s.js1, "A")
    s.say(s.js1, "publish", "A", False, False)
    s.go(s.js1)


def replay_filters(s: Scene) -> None:
    """What lies in the inbox of a room that was left meanwhile is skipped."""
    s.come(s.js1, s.n0)
    s.join(s.js1, "A", "B")
    s.js1.slow = True
    s.hear(*"BBBBBB")
    s.hear("A")
    s.say(s.js1, "unsubscribe", "A")
    s.hear("B")
    s.js1.slow = False


def n_gap(s: Scene) -> None:
    """A gap says exactly how many messages it is about."""
    s.come(s.js1, s.n0)
    s.join(s.js1, "A")
    s.go(s.js1)
    s.hear(*"AAAAAAAAA")
    s.come(s.js1, s.n0)
    if [gap[3] for gap in s.js1.gaps] != [3]:
        raise Bad(f"the gap does not count 3: {s.js1.gaps}")


def numbers_last(s: Scene) -> None:
    """All nodes die, and a session that nobody parked does not outlive the numbers by which its loss is told."""
    s.come(s.js1, s.n0)
    s.join(s.js1, "A")
    s.hear("A", kept=("js1",))
    for host in s.lab.hosts:
        s.lab.do(lambda h=host: s.crash(h))
    s.lab.leap(5000)
    s.n0 = s.lab.start_host("n2")
    s.come(s.js1, s.n0)
    s.lasting = False


def unsub_state(s: Scene) -> None:
    """A channel left and wanted again is heard only when the last command for it was confirmed."""
    s.come(s.js1, s.n0)
    s.join(s.js1, "A")
    s.say(s.js1, "unsubscribe", "A", kept=("n0 subscribe",))
    s.say(s.js1, "subscribe", "A", kept=("n0 subscribe",))
    wire = s.wire(s.n0, "bus")
    s.lab.do(wire.execute)
    s.flow("n0 subscribe")
    s.hear("A", kept=("n0 subscribe",))


def ttl_connected(s: Scene) -> None:
    """A session does not run out as long as a connection owns it."""
    s.come(s.js1, s.n0)
    s.join(s.js1, "A")
    s.go(s.js1)
    s.come(s.js1, s.n0)
    s.hours(4500)
    s.go(s.js1)


def buffer_replay(s: Scene) -> None:
    """What is heard while the last replay call is answered is kept."""
    s.come(s.js2, s.n0)
    s.join(s.js2, "A")
    s.come(s.js1, s.n0)
    s.join(s.js1, "A")
    s.go(s.js1)
    s.come(s.js1, s.n0, "n0 commands")
    wire = s.wire(s.n0, "commands")
    s.lab.do(wire.execute)
    s.flow("n0 commands")
    s.lab.do(wire.execute)
    s.hear("A", kept=("n0 commands", "n0 replies"))


def lost_answer(s: Scene) -> None:
    """A gap told in an answer that was lost is told again."""
    s.come(s.js1, s.n0)
    s.join(s.js1, "A", "B")
    s.go(s.js1)
    s.hear(*"AAAAAAAAA", "B")
    s.lab.admin.call("DEL", "w:{0}:room:A:log")
    s.hear("B", "B", "B")
    s.come(s.js1, s.n0, "n0 commands")
    wire = s.wire(s.n0, "commands")
    s.lab.do(wire.execute)
    s.flow("n0 commands")
    s.lab.do(lambda: wire.cut(1))


def swept_owner(s: Scene) -> None:
    """A node that was stopped for a while keeps its clients."""
    s.come(s.js1, s.n0)
    s.join(s.js1, "A")
    s.lab.leap(20)
    s.upkeep_of(s.n1, "renew", "sweep")
    s.upkeep_of(s.n0, "renew")
    s.later()
    s.flow()
    if s.js1.connection is None or s.js1.connection.over:
        raise Bad("put out, although nobody has replaced it")


def left_deaf(s: Scene) -> None:
    """A room that is left while the bus is away keeps nobody from going live."""
    s.come(s.js1, s.n0)
    s.join(s.js1, "A", "B")
    s.lose_bus(s.n0)
    s.say(s.js1, "unsubscribe", "A", kept=("n0 subscribe",))
    s.hear("B", kept=("n0 subscribe",))


def _join_unheard(s: Scene, rooms: str, heard: str) -> None:
    """Let a client in room C join rooms, lose the answers, and let a message pass for each room in `heard`."""
    s.come(s.js1, s.n0)
    s.join(s.js1, "C")
    s.join_together(s.js1, *rooms, kept=("n0 commands",))
    wire = s.wire(s.n0, "commands")
    s.lab.do(lambda: wire.cut(1))
    s.hear(*heard)


def lost_join(s: Scene, rooms: str = "A") -> None:
    """Another attempt after a lost answer promises only messages that can come: the node had not subscribed to the room."""
    _join_unheard(s, rooms, rooms)
    s.join_together(s.js1, *rooms)


def passed_join(s: Scene, rooms: str = "A") -> None:
    """A join whose answer was lost counts from the position of the reconnection, where that is newer."""
    _join_unheard(s, rooms, rooms + "C")
    s.go(s.js1)
    s.come(s.js1, s.n0)
    s.join_together(s.js1, *rooms)


def closed_join(s: Scene, rooms: str = "A") -> None:
    """A verb that waited while its connection ended does not move the join that its client counts from."""
    s.come(s.js1, s.n0)
    s.join_together(s.js1, *rooms)
    s.lose_bus(s.n0)
    s.join_together(s.js1, *rooms, kept=("n0 subscribe",))
    s.hear(*rooms, kept=("n0 subscribe",))
    connection = s.js1.connection
    assert connection is not None
    wire = s.wire(s.n0, "commands")
    s.cut(connection)

    def both_end() -> None:
        wire.cut(0)
        s.notice(connection)

    s.lab.do(both_end)  # so that it cannot be parked, and still owns its session
    s.flow("n0 subscribe")
    s.flow()
    for room in rooms:
        join = s.lab.admin.call("HGET", f"w:{{0}}:session:{s.js1.client_id}", f"r:{room}")
        if not join.startswith(b"%d:" % s.js1.rooms[room]):
            raise Bad(f"joined {room} at {s.js1.rooms[room]}, and moved to {join}")


def deaf_again(s: Scene) -> None:
    """A replay that waited for its turn while the bus was lost again does not go live deaf."""
    s.come(s.js1, s.n0)
    s.join(s.js1, "A")
    turn = s.n0.node.sessions._replayer._calls
    for _ in range(64):
        assert turn._value > 0
        turn._value -= 1
    s.go(s.js1)
    s.come(s.js1, s.n0)
    s.lose_bus(s.n0)
    for _ in range(64):
        s.lab.do(turn.release)
    s.flow("n0 subscribe")
    s.hear("A", kept=("n0 subscribe",))


def late_admission(s: Scene) -> None:
    """Of two connections of one session the one that took it last stays, whichever is let in last."""
    s.come(s.js1, s.n0)
    s.go(s.js1)
    bus, waits = s.n0.node.store.bus, s.lab.loop.create_future()
    wait_subscribed = bus.wait_subscribed

    async def slowly(channel: bytes, within: float | None = None) -> None:
        bus.wait_subscribed = wait_subscribed  # type: ignore[method-assign]
        await waits
        await wait_subscribed(channel, within)

    s.come(s.py1, s.n0)
    s.go(s.py1)
    bus.wait_subscribed = slowly  # type: ignore[method-assign]
    first = s.come(s.py1, s.n0)
    s.go(s.py1, noticed=False)
    first.over = True
    s.come(s.py1, s.n0)
    s.lab.do(lambda: waits.set_result(None))
    s.flow()


def served_first(s: Scene) -> None:
    """A CONNECT that is late, and whose client is found gone only while its node waits for the bus, puts nobody out."""
    s.come(s.js2, s.n1)
    s.join(s.js2, "A")
    s.go(s.js2)
    given_up = s.come(s.js2, s.n0, "n0 commands")
    s.cut(given_up)
    s.come(s.js2, s.n1, "n0 commands")
    kept = ("n0 subscribe", "js2")
    s.flow(*kept)
    s.lab.do(lambda: s.notice(given_up))
    s.later(1.1)
    s.flow(*kept)
    assert s.js2.connection is not None
    if ("1",) in [getattr(each, "packets", None) for each in s.js2.connection.peer.out]:
        raise Bad("put out for good by a connection that nobody has")
    s.flow()
    s.later()
    s.flow()
    s.come(s.js2, s.n1)


def learn_whole(s: Scene) -> None:
    """What a gap of an earlier batch named is not remembered to be there."""
    for client in (s.js1, s.js2):
        s.come(client, s.n0)
        s.join(client, "A", "B")
    s.go(s.js1)
    s.hear("B", "B")
    s.go(s.js2)
    s.hear("A", "A", "A")
    s.come(s.js1, s.n0)
    s.come(s.js2, s.n0)


def told_is_lost(s: Scene) -> None:
    """What a gap has counted does not come from the node's memory after all, over the next connection."""
    for client in (s.js1, s.js2):
        s.come(client, s.n0)
        s.join(client, "A", "B")
    s.hear("A")
    s.go(s.js1)
    s.hear("B", "B", "B", "A")
    s.lab.admin.call("DEL", "w:{0}:room:A:log")
    s.come(s.js1, s.n0, "n0 commands")
    wire = s.wire(s.n0, "commands")
    s.lab.do(wire.execute)  # the taking
    s.flow("n0 commands")
    s.lab.do(wire.execute)  # the first batch
    s.flow("n0 commands")
    s.go(s.js1)
    s.come(s.js1, s.n0)


def left_unheard(s: Scene) -> None:
    """A room was left, the node has not heard of it, and it remembers too little of that room: nobody asks for more."""
    s.come(s.js1, s.n0)
    s.join(s.js1, "A", "C")
    slow = ("n0 commands",)
    s.say(s.js1, "unsubscribe", "C", kept=slow)
    s.lose_bus(s.n0)
    s.later(0.2)
    s.flow(*slow)
    wire = s.wire(s.n0, "commands")
    assert len(wire.going) == 2  # and the replay behind it
    s.lab.do(lambda: wire.cut(1))
    s.hear("A", "C", kept=slow)
    s.later()
    s.flow()


def read_ahead(s: Scene) -> None:
    """What a log told of one room is not handed on while the bus still brings older messages of another."""
    s.come(s.py1, s.n0)
    s.join(s.py1, "B")
    s.hear("B")
    s.come(s.js2, s.n0)
    s.join(s.js2, "A")
    s.come(s.js1, s.n0)
    s.join(s.js1, "A", "B")
    s.go(s.js2)
    s.go(s.js1)
    s.come(s.js2, s.n0, "n0 replies")
    s.flow("n0 commands")
    s.hear("B", "A", kept=("n0 bus", "n0 commands"))
    s.flow("n0 bus")
    s.come(s.js1, s.n0, "n0 bus")


def heard_confirmed(s: Scene) -> None:
    """What the bus brings of an earlier subscription is not remembered: there is a hole behind it."""
    for client in (s.js1, s.py1):
        s.come(client, s.n0)
        s.join(client, "A")
        s.go(client)
    s.hear("A")
    s.come(s.js2, s.n0)
    s.join(s.js2, "A")
    s.hear("A", kept=("n0 bus",))
    s.say(s.js2, "unsubscribe", "A", kept=("n0 bus",))
    s.hear("A", kept=("n0 bus",))
    s.come(s.py1, s.n0, "n0 bus")
    s.flow()
    s.come(s.js1, s.n0)
    s.lasting = False


def count_from_join(s: Scene) -> None:
    """What was counted of a room before it was left says nothing of it after the new join."""
    s.come(s.js1, s.n0)
    s.join(s.js1, "A", "B")
    s.go(s.js1)
    s.hear(*"AABBBBBBBB")
    s.js1.slow = True
    s.come(s.js1, s.n0)  # two batches, until its buffer is full
    s.say(s.js1, "unsubscribe", "A")
    s.hear("A")
    s.say(s.js1, "subscribe", "A")
    s.hear("A")
    s.js1.slow = False


def ack_stored(s: Scene) -> None:
    """An acknowledgement that a newer connection has overtaken is not answered."""
    old = s.come(s.js1, s.n0)
    s.join(s.js1, "A")
    s.hear("A")
    s.go(s.js1, noticed=False)
    s.come(s.js1, s.n1, "n0 bus")
    s.lab.do(
        lambda: old.pipeline.submit(
            VERBS["ack"], AckRequest(offset=str(s.js1.offset)), [], "9", 100
        )
    )
    s.flow("n0 bus")
    said = [item.packets[0] for item in old.peer.out if not isinstance(item, tuple)]
    if any(text.startswith("39[") for text in said):
        raise Bad(f"not stored, and answered: {said}")


def _log_in_as_ada(s: Scene) -> Client:
    """Let a message for ada pass while she is away, and let js1, which has got it, log in as her on the same socket."""
    ada = Client(s, "ada", "js")
    s.clients.append(ada)
    s.come(ada, s.n0)
    s.join(ada, "A")
    s.go(ada)
    s.come(s.js1, s.n0)
    s.join(s.js1, "A")
    s.hear("A")
    s.go(s.js1)
    ada.pid, ada.offset = s.js1.pid, s.js1.offset
    return ada


def foreign_offset(s: Scene) -> None:
    """What one client has received, the next one who logs in on its socket has not."""
    s.come(_log_in_as_ada(s), s.n0)


def carried_offset(s: Scene) -> None:
    """The connection breaks after the CONNECT reply: the next CONNECT has the new pid, and the old offset still."""
    ada = _log_in_as_ada(s)
    connection = s.come(ada, s.n0, "ada")
    s.lab.do(lambda: s.read(connection))
    s.go(ada)
    s.come(ada, s.n0)


# -- the rules about subscribing once more, with two rooms in one script


def two_sub_bus_first(s: Scene) -> None:
    """The second of two rooms; the first one is subscribed already."""
    s.come(s.js2, s.n0)
    s.join(s.js2, "A")
    s.come(s.js1, s.n0)
    s.join_together(s.js1, "A", "B", kept=("n0 subscribe",))
    s.hear("B", kept=("n0 subscribe",))


def two_unsub_state(s: Scene) -> None:
    """The second of two rooms was left; the last command for the first one is confirmed before."""
    s.come(s.js1, s.n0)
    s.join_together(s.js1, "A", "B")
    s.say(s.js1, "unsubscribe", "B", kept=("n0 subscribe",))
    s.join_together(s.js1, "A", "B", kept=("n0 subscribe",))
    wire = s.wire(s.n0, "bus")
    s.lab.do(wire.execute)
    s.flow("n0 subscribe")
    s.hear("B", kept=("n0 subscribe",))


# Scenes in which one script joins two rooms, by the rule that is needed for each. `sub_holds_all` has none: it matters while
# history is read, and a subscribe with history goes alone.
TOGETHER: dict[str, Story] = {
    "sub_adds_away": partial(sub_adds_away, rooms="BC"),
    "resub_keeps_join": partial(resub_keeps_join, rooms="AB"),
    "join_filter": partial(join_filter, rooms="AB"),
    "sub_bus_first": two_sub_bus_first,
    "lost_join": partial(lost_join, rooms="AB"),
    "passed_join": partial(passed_join, rooms="AB"),
    "closed_join": partial(closed_join, rooms="AB"),
    "unsub_state": two_unsub_state,
}

# Each rule's scene; settings that it needs are named beside it.
SCENES: dict[str, tuple[Story, dict[str, Any]]] = {
    "sub_adds_away": (sub_adds_away, {}),
    "resub_keeps_join": (resub_keeps_join, {}),
    "join_filter": (join_filter, {}),
    "sub_bus_first": (sub_bus_first, {}),
    "sub_holds_all": (sub_holds_all, {}),
    "log_decides": (overflow, {}),
    "never_empty": (overflow, {}),
    "park_from_live": (park_from_live, {}),
    "sent_filter": (sent_filter, {}),
    "heal_holds": (heal_holds, {}),
    "heal_cut": (heal_cut, {}),
    "heal_gap": (heal_gap, {}),
    "gap_offset": (gap_offset, {}),
    "gap_early": (gap_early, {}),
    "final_gap": (final_gap, {"log_age": 1000.0}),
    "lapse_replays": (lapse_replays, {}),
    "fence_all": (fence_all, {}),
    "gen_in_key": (gen_in_key, {}),
    "echo_in_log": (echo_in_log, {}),
    "replay_filters": (replay_filters, {}),
    "n_gap": (n_gap, {}),
    "floor_expiry": (final_gap, {"log_age": 1000.0}),
    "numbers_last": (numbers_last, {"log_age": 1000.0}),
    "unsub_state": (unsub_state, {}),
    "ttl_connected": (ttl_connected, {}),
    "buffer_replay": (buffer_replay, {}),
    "lost_answer": (lost_answer, {}),
    "swept_owner": (swept_owner, {}),
    "left_deaf": (left_deaf, {}),
    "lost_join": (lost_join, {}),
    "passed_join": (passed_join, {}),
    "closed_join": (closed_join, {}),
    "deaf_again": (deaf_again, {}),
    "late_admission": (late_admission, {}),
    "served_first": (served_first, {}),
    "learn_whole": (learn_whole, {"log_length": 2, "replay_memory": 100_000}),
    "told_is_lost": (told_is_lost, {"log_length": 2, "replay_count": 1, "replay_memory": 100_000}),
    "left_unheard": (left_unheard, {"replay_memory": 100_000}),
    "read_ahead": (read_ahead, {"replay_memory": 100_000}),
    "heard_confirmed": (heard_confirmed, {"replay_memory": 100_000}),
    "count_from_join": (count_from_join, {"log_length": 20}),
    "ack_stored": (ack_stored, {}),
    "foreign_offset": (foreign_offset, {}),
    "carried_offset": (carried_offset, {}),
    **rollbacks.SCENES,
}

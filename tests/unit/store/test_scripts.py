"""Every script against a real server: its answers, and each sentence of the design about its move."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import replace
from typing import Any

import pytest

from hub.errors import BadRequest, Unavailable
from hub.message import StoredMessage
from hub.pid import Pid
from hub.store import store
from hub.store.results import NotOwner
from hub.store.scripts import NAMES, Script, read_all
from tests.support.redis import RedisServer
from tests.support.switches import Mutation
from tests.support.times import MS, UNIT, eventually
from tests.support.tools import ROOT

BASE = "t:{0}:"


def key(name: str) -> str:
    return BASE + name


def owner(server: RedisServer, client: str) -> Any:
    return server.client.hget(key(f"session:{client}"), "owner")


def inbox(server: RedisServer, client: str) -> list[str]:
    generation = server.client.hget(key(f"session:{client}"), "gen")
    return server.client.lrange(key(f"inbox:{client}:{generation}"), 0, -1)  # type: ignore[no-any-return]


# -- publish


async def test_offsets_are_microseconds_and_ascend(node):
    """An offset can be read as a time, and later messages have larger ones, whatever their room."""
    before = time.time_ns() // 1000
    offsets = await node.publish_all([("A", 1), ("B", 2), ("A", 3)] * 50)
    assert offsets == sorted(set(offsets))
    assert before < offsets[0] < offsets[-1] < before + 60_000_000
    assert int(await node.store.clock()) == offsets[-1]


@pytest.mark.parametrize("ttl", [0.3 * UNIT, 3600 * 12])
async def test_a_ttl_counts_by_the_time_where_offsets_are_ahead_of_it(node, server, ttl):
    """The clock was a day ahead and was set back: neither a log nor a cache keeps a message for a day longer."""
    claimed = await node.claim("c")
    await node.join(claimed, "c", "A")
    channel = node.store.keys.room_channel("A").encode()
    node.store.bus.subscribe(channel)
    await node.store.bus.wait_subscribed(channel)
    server.client.set(key("clock"), int(time.time() * 1e6) + 86_400_000_000)
    offset = await node.publish(ttl=ttl)
    lasting = await node.publish(skip_client="somebody")
    offsets, _ = await node.all(claimed.client_id, "c", claimed.position)
    assert offsets == [offset, lasting]
    await eventually(lambda: len(node.heard) == 2)
    message = StoredMessage.from_bus("A", node.heard[0][1].encode())
    now = time.time() * 1e6
    assert not message.expired(int(now))
    assert message.expired(int(now + ttl * 1e6))
    if ttl < 10 * UNIT:
        await asyncio.sleep(ttl)
        offsets, _ = await node.all(claimed.client_id, "c", claimed.position)
        assert offsets == [lasting]
        page = await node.store.history("A", None, None, 10, 10_000)
        assert [each.offset for each in page.messages] == [lasting]


async def test_messages_of_one_turn_are_one_script(node, server):
    """Group commit: up to 64 at a time, in the order published, what follows each other in one room pushed at once."""
    claimed = await node.claim("c")
    await node.join(claimed, "c", "A")
    await node.store.sessions.park(claimed.client_id, "c", 0, gone=True)
    for room in ("A", "B"):
        channel = node.store.keys.room_channel(room).encode()
        node.store.bus.subscribe(channel)
        await node.store.bus.wait_subscribed(channel)
    server.client.config_resetstat()
    name = node.store.keys.dedupe("A", "me", "k")
    plain, volatile, once, again, other = await asyncio.gather(
        node.publish_all([("A", i) for i in range(70)]),
        node.publish_all([("A", "v")], volatile=True),
        node.publish("A", dedupe=name, conditional=True),
        node.publish("A", dedupe=name, conditional=True),
        node.publish("B"),
    )
    stats = server.client.info("commandstats")
    calls = [stats[f"cmdstat_{command}"]["calls"] for command in ("evalsha", "rpushx", "xadd")]
    assert calls == [2, 2, 74], "a log is made in two steps"
    assert again == once
    offsets = [*plain, *volatile, once, other]
    assert offsets == sorted(set(offsets))
    assert int(await node.store.clock()) >= other
    entries = server.client.xrange(key("room:A:log"))
    assert [int(entry[:-2]) for entry, _ in entries] == [*plain, once]
    numbers = [int(fields["n"]) for _, fields in entries]
    assert numbers == list(range(numbers[0], numbers[0] + 71))
    assert [int(fields["p"]) for _, fields in entries[1:]] == [int(e[:-2]) for e, _ in entries[:-1]]
    meta = server.client.hgetall(key("room:A:meta"))
    assert [int(meta[field]) for field in ("n", "last", "odd", "base")] == [
        numbers[-1],
        once,
        once,
        numbers[0] - 1,
    ]
    assert inbox(server, claimed.client_id)[1:] == [f"{offset}:A" for offset in [*plain, once]]
    await eventually(lambda: len(node.heard) == 73)
    assert [int(payload.split()[0]) for _, payload in node.heard] == offsets


async def test_what_comes_between_closes_a_group(node, server):
    """Scripts take effect in the order sent: a join between two publishes lies between them."""
    claimed = await node.claim("c")
    first, (join,), second = await asyncio.gather(
        node.publish("A"),
        node.store.sessions.subscribe(claimed.client_id, "c", [("A", False)]),
        node.publish("A"),
    )
    assert first <= join < second


async def test_a_group_is_bounded_in_bytes(node, server):
    """Large messages do not pile up into one script."""
    server.client.config_resetstat()
    await node.publish_all([("A", "1" * 200_000)] * 6)
    assert server.client.info("commandstats")["cmdstat_evalsha"]["calls"] == 3


async def test_a_clock_that_goes_back_gives_no_offset_twice(node):
    """Time may be set back: offsets go on from the newest given out."""
    first = await node.publish()
    script = node.store.commands.scripts["publish"]
    assert script.text.count("call('TIME')") == 1
    slow = Script("publish", script.text.replace("call('TIME')", "{ '1000000000', '0' }"))
    await node.store.commands.call("SCRIPT", "LOAD", slow.text)
    publisher = node.store.publishing
    publisher._packed_start = publisher._packed_start.replace(
        script.sha.encode(), slow.sha.encode()
    )
    assert await node.publish() == first + 1
    assert await node.publish() == first + 2


async def test_offsets_are_later_than_what_a_node_has_seen(node, server):
    """Where Redis has forgotten, nothing it gives out was given out before."""
    seen = node.store.loss_detector.newest = await node.publish() + 10**9
    server.client.delete(key("clock"))
    assert await node.publish() == seen + 1


async def test_a_message_is_stored_numbered_and_told(node, server):
    """One step: the log, its room's numbers, and the bus."""
    channel = node.store.keys.room_channel("A").encode()
    node.store.bus.subscribe(channel)
    await node.store.bus.wait_subscribed(channel)
    one, two = await node.publish_all([("A", 1), ("A", 2)])
    entries = server.client.xrange(key("room:A:log"))
    assert [entry for entry, _ in entries] == [f"{one}-0", f"{two}-0"]
    numbers = [int(fields["n"]) for _, fields in entries]
    assert numbers == [one, one + 1], "counted from the clock on, where nothing was remembered"
    assert [int(fields["p"]) for _, fields in entries] == [0, one]
    await eventually(lambda: len(node.heard) == 2)
    assert node.heard[0][1].split(" ")[:2] == [str(one), str(numbers[0])]
    assert node.heard[0][1].endswith('\n"m",1,{"room":"A"}')


async def test_a_volatile_message_leaves_nothing_but_the_clock(node, server):
    """Live only: no log, no numbers, no inbox."""
    claimed = await node.claim("c")
    await node.join(claimed, "c", "A")
    await node.store.sessions.park(claimed.client_id, "c", 0, gone=True)
    offset = await node.publish(volatile=True)
    assert int(await node.store.clock()) == offset
    assert not server.client.exists(key("room:A:log"), key("room:A:meta"))
    assert len(inbox(server, claimed.client_id)) == 1


async def test_an_idempotency_key_is_remembered(node, server):
    """The second time only the first one's offset comes back, and the key has an end."""
    name = node.store.keys.dedupe("A", "me", "k")
    first = await node.publish(dedupe=name)
    assert await node.publish(dedupe=name) == first
    assert server.client.xlen(key("room:A:log")) == 1
    assert 0 < server.client.pttl(name) <= 120_000
    assert node.store.keys.dedupe("A", "me", "l") != name != node.store.keys.dedupe("B", "me", "k")
    assert node.store.keys.dedupe("A", "you", "k") != name


async def test_a_log_is_cut_by_count_and_by_age(start, server):
    """Exactly so many messages, and none older than so long."""
    node = await start(log_length=5, log_age=50 * MS)
    offsets = await node.publish_all([("A", i) for i in range(12)])
    entries = server.client.xrange(key("room:A:log"))
    assert [int(entry[:-2]) for entry, _ in entries] == offsets[-5:]
    assert int(entries[0][1]["p"]) == offsets[-6]
    deadline = offsets[-1] / 1e6 + 60 * MS
    await eventually(lambda: time.time() > deadline)
    last = await node.publish()
    assert [int(entry[:-2]) for entry, _ in server.client.xrange(key("room:A:log"))] == [last]


async def test_expiries_are_renewed_now_and_then(start, server):
    """A thousandth of the log's age may pass until the next message renews them; they are longer by so much."""
    # So old that a busy machine does all this before a renewal is due, which is after a second.
    node = await start(log_age=1000.0)
    await node.publish()
    log, meta = key("room:A:log"), key("room:A:meta")
    full = server.client.pttl(log)
    assert 1_000_000 < full <= 1_001_000
    longer = server.client.pttl(meta) - full
    await eventually(lambda: server.client.pttl(log) <= full - 50)
    server.client.hset(meta, "renewed", server.client.hget(meta, "last"))
    await node.publish()
    assert server.client.pttl(log) <= full - 50, "it is not due"
    server.client.hset(meta, "renewed", int(server.client.hget(meta, "last")) - 1_000_000)
    await node.publish()
    assert server.client.pttl(log) > full - 50
    assert abs(server.client.pttl(meta) - server.client.pttl(log) - longer) < 10


async def test_a_log_made_anew_has_an_end(node, server):
    """It expired although by the hub's offsets its expiry was renewed a moment ago: they are not the server's clock."""
    await node.publish()
    server.client.delete(key("room:A:log"))
    await node.publish()
    assert server.client.pttl(key("room:A:log")) > 0


@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 64, 600])
async def test_an_inbox_is_bounded_and_never_empty(start, server, length):
    """At most so many references behind the boundary, always the newest, and never less than a boundary."""
    node = await start(inbox_length=length)
    claimed = await node.claim("c")
    await node.join(claimed, "c", "A")
    await node.store.sessions.park(claimed.client_id, "c", 0, gone=True)
    offsets: list[int] = []
    for _ in range(12):
        offsets += await node.publish_all([("A", 1)] * max(length // 4, 1))
        listed = inbox(server, claimed.client_id)
        assert 1 <= len(listed) <= length + 1
        assert len(listed) >= min(len(offsets), length * 3 // 4)
        newest = [f"{offset}:A" for offset in offsets[-len(listed) :]]
        assert listed[-len(newest) :] == newest


async def test_full_inboxes_are_trimmed_out_of_step(start, server):
    """Not every inbox of a room is trimmed by the same publish."""
    node = await start(inbox_length=100)
    clients = [(await node.claim(f"c{i}")).client_id for i in range(8)]
    for i, client in enumerate(clients):
        await node.store.sessions.subscribe(client, f"c{i}", [("A", False)])
        await node.store.sessions.park(client, f"c{i}", 0, gone=True)
    for _ in range(160):
        await node.publish()
    assert len({len(inbox(server, client)) for client in clients}) > 1


@pytest.mark.parametrize("length", [1000, 20])
async def test_an_inbox_is_pushed_into_once(start, server, length):
    """Whatever rooms a turn of the loop writes into: all that is for an inbox goes there together, in order."""
    node = await start(inbox_length=length)
    sessions = {}
    for i, rooms in enumerate(["A", "B", "AB", "ABC", "AB", "C"]):
        claimed = await node.claim(f"c{i}")
        await node.join(claimed, f"c{i}", *rooms)
        await node.store.sessions.park(claimed.client_id, f"c{i}", 0, gone=True)
        sessions[claimed.client_id] = rooms
    for names in ("AB" * 32, "ABCD" * 16, "BBA" * 21, "D" * 9):
        server.client.config_resetstat()
        offsets = await node.publish_all([(room, 1) for room in names])
        stats = server.client.info("commandstats")
        away = set(names) - {"D"}
        assert stats["cmdstat_evalsha"]["calls"] == 1
        assert stats.get("cmdstat_rpushx", {"calls": 0})["calls"] == sum(
            not away.isdisjoint(rooms) for rooms in sessions.values()
        )
        for client, rooms in sessions.items():
            listed = inbox(server, client)
            assert 1 <= len(listed) <= length + 1
            its = [f"{o}:{room}" for o, room in zip(offsets, names, strict=True) if room in rooms]
            its = its[-min(len(its), length * 3 // 4) :]
            assert not its or listed[-len(its) :] == its


async def test_an_away_set_is_read_once(node, server):
    """However often a turn of the loop comes back to its room; who has ended leaves all of them."""
    claimed = await node.claim("c")
    await node.join(claimed, "c", "A", "B")
    await node.store.sessions.park(claimed.client_id, "c", 0, gone=True)
    server.client.delete(*server.client.keys(key("inbox:*")))
    server.client.config_resetstat()
    await node.publish_all([("A", 1), ("B", 1)] * 10)
    assert server.client.info("commandstats")["cmdstat_smembers"]["calls"] == 2
    assert not server.client.exists(key("room:A:away"), key("room:B:away"))


async def test_a_session_that_has_ended_leaves_the_away_set(node, server):
    """Its list is not there any more: the next publish takes it out."""
    claimed = await node.claim("c")
    await node.join(claimed, "c", "A")
    await node.store.sessions.park(claimed.client_id, "c", 0, gone=True)
    assert server.client.scard(key("room:A:away")) == 1
    server.client.delete(*server.client.keys(key("inbox:*")))
    await node.publish()
    assert server.client.scard(key("room:A:away")) == 0


# -- subscribe, unsubscribe


async def test_the_first_join_counts(node):
    """A room is joined at the clock, once; where the connection knows nothing of it, anew."""
    claimed = await node.claim("c")
    first = await node.publish("B")
    subscribe = node.store.sessions.subscribe
    assert await subscribe(claimed.client_id, "c", [("A", False)]) == [first]
    second = await node.publish("B")
    assert await subscribe(claimed.client_id, "c", [("A", True)]) == [first]
    assert await subscribe(claimed.client_id, "c", [("A", False)]) == [second]


async def test_rooms_are_joined_together(start, server):
    """Each is joined, known, or one too many by itself; one that is named twice is joined once."""
    node = await start(rooms_per_session=3)
    claimed = await node.claim("c")
    first = await node.publish("B")
    await node.join(claimed, "c", "A")
    second = await node.publish("B")
    joins = await node.store.sessions.subscribe(
        claimed.client_id,
        "c",
        [("B", False), ("A", True), ("B", False), ("C", False), ("D", False), ("A", False)],
    )
    assert joins[:4] == [second, first, second, second]
    assert isinstance(joins[4], BadRequest)
    assert joins[5:] == [second]
    fields = server.client.hgetall(key(f"session:{claimed.client_id}"))
    assert {field for field in fields if field.startswith("r:")} == {"r:A", "r:B", "r:C"}


async def test_rooms_are_bounded(start):
    """One more than allowed is refused; one that it is in already is not."""
    node = await start(rooms_per_session=2)
    claimed = await node.claim("c")
    await node.join(claimed, "c", "A", "B")
    with pytest.raises(BadRequest, match="2 rooms"):
        await node.join(claimed, "c", "C")
    await node.join(claimed, "c", "B")
    await node.store.sessions.unsubscribe(claimed.client_id, "c", "A")
    await node.join(claimed, "c", "C")


async def test_a_room_that_was_left_is_skipped(node, server):
    """What lies in the inbox of it does not come, and nothing new gets in."""
    claimed = await node.claim("c")
    await node.join(claimed, "c", "A", "B")
    await node.store.sessions.park(claimed.client_id, "c", 0, gone=False)
    await node.publish("A")
    kept = await node.publish("B")
    await node.store.sessions.unsubscribe(claimed.client_id, "c", "A")
    await node.publish("A")
    assert [entry[-1] for entry in inbox(server, claimed.client_id)[1:]] == ["A", "B"]
    assert (await node.all(claimed.client_id, "c", claimed.position))[0] == [kept]


# -- claim


async def test_a_new_session(node, server):
    """Anonymous without a name; with one, named, and in its personal room."""
    anonymous, named = await node.claim("c"), await node.claim("d", client_id="ada")
    assert anonymous.how == named.how == "new"
    assert anonymous.rooms == {}
    assert named.rooms == {"@ada": named.position}
    assert owner(server, "ada") == f"{node.store.node_id}/d"
    stored = server.client.hgetall(key("session:ada"))
    assert named.pid.secret not in str(stored), "the pid is stored hashed"


async def test_a_pid_continues_a_session(node):
    """With its rooms, its sid and its pid."""
    claimed = await node.claim("c")
    await node.join(claimed, "c", "A")
    again = await node.claim("d", pid=claimed.pid)
    assert (again.how, again.pid, again.sid) == ("pid", claimed.pid, claimed.sid)
    assert set(again.rooms) == {"A"}


@pytest.mark.parametrize(
    "change",
    [
        {"secret": "x" * 24},
        {"generation": "1"},
        {"generation": "9999999999999999"},
        {"version": "1"},
        {"client_id": "somebody"},
    ],
)
async def test_a_pid_that_proves_nothing_gets_a_new_session(node, change):
    """Wrong, forged, expired or of nobody: as if there had been none."""
    claimed = await node.claim("c")
    other = await node.claim("d", pid=replace(claimed.pid, **change))
    assert other.how == "new"
    assert other.client_id not in (claimed.client_id, "somebody")


async def test_a_name_continues_a_session_and_voids_its_pid(node):
    """A new pid each time; the old one counts as none with the name, and gets a new session without."""
    first = await node.claim("c", client_id="ada")
    second = await node.claim("d", client_id="ada")
    assert second.how == "name"
    assert second.pid.generation == first.pid.generation
    assert int(second.pid.version) > int(first.pid.version)
    assert second.sid != first.sid
    assert (await node.claim("e", pid=first.pid)).how == "new"
    third = await node.claim("f", client_id="ada", pid=first.pid)
    assert third.how == "name"
    assert int(third.pid.version) > int(second.pid.version)
    assert (await node.claim("g", client_id="ada", pid=third.pid)).how == "pid"


async def with_a_message(node) -> tuple[Any, int]:
    """Return a named session that is away, and the offset of a message that it has missed."""
    claimed = await node.claim("c", client_id="ada")
    await node.join(claimed, "c", "A")
    offset = await node.publish()
    await node.store.sessions.park("ada", "c", claimed.position, gone=True)
    return claimed, offset


@pytest.mark.parametrize(
    "change",
    [{"secret": "x" * 24}, {"generation": "x", "version": "x"}, {"generation": "1"}],
)
async def test_a_pid_of_another_session_counts_as_none_and_so_does_its_offset(node, change):
    """Forged, of somebody else or of an earlier session of the name: the name alone counts."""
    claimed, offset = await with_a_message(node)
    pid = replace(claimed.pid, **change)
    again = await node.claim("d", client_id="ada", pid=pid, offset=offset)
    assert (again.how, again.position, again.missed) == ("name", claimed.position, 1)
    assert again.pid != claimed.pid


async def test_the_offset_beside_an_earlier_pid_counts(node):
    """The client has the session's messages, though another one has used its name since."""
    claimed, offset = await with_a_message(node)
    await node.claim("d", client_id="ada")
    again = await node.claim("e", client_id="ada", pid=claimed.pid, offset=offset)
    assert (again.how, again.position, again.missed) == ("name", offset, 0)


async def test_an_offset_of_another_session_does_not_count_beside_the_new_pid_either(node):
    """The client got its CONNECT reply, and no event that ends in an offset; then it has one of its own."""
    claimed, offset = await with_a_message(node)
    other = replace(claimed.pid, generation="1")
    new = (await node.claim("d", client_id="ada", pid=other, offset=offset)).pid
    for connection in ("e", "f"):
        again = await node.claim(connection, client_id="ada", pid=new, offset=offset)
        assert (again.how, again.position) == ("pid", claimed.position)
    later = await node.publish()
    assert (await node.claim("g", client_id="ada", pid=new, offset=later)).position == later
    assert (await node.claim("h", client_id="ada", pid=new, offset=offset)).position == offset


async def test_leaving_deliberately_makes_the_pid_void(node):
    """Alone it continues nothing. With the name, the session goes on, and at the client's offset."""
    claimed, offset = await with_a_message(node)
    assert (await node.claim("d", pid=claimed.pid)).how == "pid"
    await node.store.sessions.park("ada", "d", claimed.position, gone=True, logged_out=True)
    assert (await node.claim("e", pid=claimed.pid)).how == "new"
    again = await node.claim("f", client_id="ada", pid=claimed.pid, offset=offset)
    assert (again.how, again.position) == ("name", offset)
    assert (await node.claim("g", pid=again.pid)).how == "pid"


@pytest.mark.parametrize("change", [{"version": "5"}, {"generation": "9999999999999999"}])
async def test_a_pid_that_redis_has_forgotten_counts_as_void(node, change):
    """After a failover a pid may be newer than what is remembered: its client is no impostor, and has its name."""
    claimed = await node.claim("c", client_id="ada")
    later = replace(claimed.pid, **change)
    assert (await node.claim("d", client_id="ada", pid=later)).how == "name"
    assert (await node.claim("e", pid=later)).how == "new"


async def test_two_pids_of_which_a_failover_forgot_one_are_not_taken_for_each_other(node, server):
    """The forgotten one is not forged: its client has its name still."""
    await node.claim("c", client_id="ada")
    remembered = server.client.hgetall(key("session:ada"))
    forgotten = await node.claim("d", client_id="ada")
    server.client.delete(key("session:ada"))
    server.client.hset(key("session:ada"), mapping=remembered)
    await node.claim("e", client_id="ada")
    assert (await node.claim("f", client_id="ada", pid=forgotten.pid)).how == "name"


async def test_who_was_replaced_is_known_by_the_later_taking(node, server):
    """Not by another owner alone: after a failover that may be an older one."""
    first = await node.claim("c", client_id="ada")
    assert not await node.store.sessions.is_replaced(first)
    remembered = server.client.hgetall(key("session:ada"))
    second = await node.claim("d", client_id="ada")
    assert await node.store.sessions.is_replaced(first) is None, "nothing was served yet"
    await node.store.sessions.replay("ada", "d", second.position)
    assert await node.store.sessions.is_replaced(first)
    assert not await node.store.sessions.is_replaced(second)
    server.client.delete(key("session:ada"))
    server.client.hset(key("session:ada"), mapping=remembered)
    assert not await node.store.sessions.is_replaced(second)
    await node.claim("e", client_id="ada")
    await node.store.sessions.park("ada", "e", 0, gone=True)
    assert not await node.store.sessions.is_replaced(first), "nobody owns it"


async def test_an_anonymous_session_cannot_be_named(node):
    """Its client id is nobody's name."""
    claimed = await node.claim("c")
    assert await node.maybe("d", client_id=claimed.client_id) is None


async def test_the_client_knows_best_where_it_is(node):
    """Its offset counts, also where more or less was known to have arrived."""
    claimed = await node.claim("c")
    await node.join(claimed, "c", "A")
    one, two, three = await node.publish_all([("A", i) for i in range(3)])
    await node.store.sessions.park(claimed.client_id, "c", two, gone=True)
    assert (await node.claim("d", pid=claimed.pid)).position == two
    assert (await node.claim("e", pid=claimed.pid, offset=one)).position == one
    assert (await node.claim("f", pid=claimed.pid)).position == one
    assert (await node.claim("g", pid=claimed.pid, offset=three)).position == three


async def test_an_offset_beyond_the_clock_is_a_reset(node):
    """From its known position on nobody knows what is gone: told for every room, until something newer came."""
    claimed = await node.claim("c")
    await node.join(claimed, "c", "A", "B")
    kept = await node.publish("A")
    far = kept + 10**12
    for connection in ("d", "e"):
        again = await node.claim(connection, pid=claimed.pid, offset=far)
        assert again.position == claimed.position
        offsets, batches = await node.all(claimed.client_id, connection, again.position)
        assert offsets == [kept]
        gaps = sorted(
            (gap.room, gap.reason, gap.after, gap.before, gap.dropped) for gap in batches[0].gaps
        )
        assert [gap[:2] for gap in gaps] == [("A", "reset"), ("B", "reset")]
        assert gaps[0][2:] == (kept, kept + 1, None), (
            "of A everything that Redis remembers is there"
        )
        assert gaps[1][3:] == (kept + 1, None)
    newer = await node.publish("B")
    again = await node.claim("f", pid=claimed.pid, offset=newer)
    offsets, batches = await node.all(claimed.client_id, "f", again.position)
    assert (offsets, batches[0].gaps) == ([], [])


async def test_missed_is_exact(node):
    """What follows as replay up to the head: not what the client published without echo, nor what has expired."""
    claimed = await node.claim("c", client_id="ada")
    await node.join(claimed, "c", "A", "B")
    await node.store.sessions.park("ada", "c", 0, gone=True)
    await node.publish_all([("A", 1), ("B", 2), ("C", 3), ("A", 4)])
    assert (await node.claim("d", client_id="ada")).missed == 3
    await node.publish("A", skip_client="ada")
    await node.publish("A", skip_client="somebody")
    await node.publish("B", ttl=1e-6)
    await node.publish("B", ttl=1000)
    await node.publish("A", volatile=True)
    again = await node.claim("e", client_id="ada")
    offsets, _ = await node.all("ada", "e", again.position)
    assert again.missed == len(offsets) == 5


async def test_what_is_not_for_a_client_is_passed_over_in_pieces(node):
    """No script looks at thousands of messages in vain, and none behind them is lost; `missed` counts the rest as well."""
    claimed = await node.claim("c", client_id="ada")
    await node.join(claimed, "c", "A", "B")
    own = [("A", 1)] * 2500
    await node.publish_all(own, skip_client="ada")
    expected = await node.publish_all([("B", 1), ("A", 2)])
    await node.publish_all(own, skip_client="ada")
    expected += await node.publish_all([("A", 3)])
    again = await node.claim("d", client_id="ada")
    assert 3 < again.missed < 5000
    offsets, batches = await node.all("ada", "d", again.position)
    assert offsets == expected
    assert len(batches) >= 5
    assert not any(batch.gaps or batch.complete for batch in batches[:-1])
    assert (await node.claim("e", client_id="ada", offset=offsets[-1] - 1)).missed == 1


async def test_the_older_connection_is_told(start, server):
    """Its node hears of it on a channel of its own; whoever is not the owner is refused."""
    one, two = await start(), await start()
    channel = one.store.keys.node_channel(one.store.node_id).encode()
    one.store.bus.subscribe(channel)
    await one.store.bus.wait_subscribed(channel)
    claimed = await one.claim("c")
    await two.claim("d", pid=claimed.pid)
    await eventually(lambda: one.heard)
    assert one.heard == [(channel.decode(), "fence c")]
    assert server.client.smembers(key(f"node:{one.store.node_id}:sessions")) == set()
    client = claimed.client_id
    for refused in (
        one.store.sessions.park(client, "c", 0, gone=True),
        one.store.sessions.end_session(client, "c"),
        one.store.sessions.subscribe(client, "c", [("A", False)]),
        one.store.sessions.unsubscribe(client, "c", "A"),
        one.store.sessions.replay(client, "c", 0),
    ):
        before = server.client.hgetall(key(f"session:{client}"))
        with pytest.raises(NotOwner) as refusal:
            await refused
        assert refusal.value.replaced
        assert server.client.hgetall(key(f"session:{client}")) == before
    await one.store.sessions.commit([(client, "c", 2**53)])
    assert (await two.claim("e", pid=claimed.pid)).position == claimed.position
    await two.store.sessions.end_session(client, "e")
    with pytest.raises(NotOwner) as refusal:
        await two.store.sessions.replay(client, "e", 0)
    assert not refusal.value.replaced


async def test_taking_reads_only_so_much(node, server):
    """What is long is not read of every room; what was missed is counted all the same."""
    claimed = await node.claim("c", client_id="ada")
    rooms = [f"r{number}" for number in range(20)]
    await node.join(claimed, "c", *rooms)
    await node.publish_all([(room, 1) for room in rooms])
    await node.store.sessions.park("ada", "c", await node.store.clock(), gone=True)
    long = '"' + "x" * 900_000 + '"'
    for room in rooms:
        await node.publish_all([(room, long), (room, 1)])
    server.client.config_resetstat()
    assert (await node.claim("d", client_id="ada")).missed == 2 * len(rooms)
    assert server.client.info("commandstats")["cmdstat_xrange"]["calls"] == 5


# -- park


async def test_parking(node, server):
    """A flag, a list that begins with the clock, the away sets; an owner only as long as there is a connection."""
    claimed = await node.claim("c")
    client = claimed.client_id
    await node.join(claimed, "c", "A")
    mark = await node.publish("B")
    await node.store.sessions.park(client, "c", 0, gone=False)
    assert inbox(server, client) == [str(mark)]
    assert server.client.smembers(key("room:A:away")) == {
        key(f"inbox:{client}:{claimed.pid.generation}")
    }
    reference = await node.publish()
    await node.store.sessions.park(client, "c", 0, gone=False)
    assert inbox(server, client) == [str(mark), f"{reference}:A"], "parking again changes nothing"
    assert owner(server, client) is not None
    assert server.client.pttl(key(f"session:{client}")) > 1_200_000
    await node.store.sessions.park(client, "c", reference, gone=True)
    assert owner(server, client) is None
    assert server.client.pttl(key(f"session:{client}")) <= 600_000
    assert (await node.claim("d", pid=claimed.pid)).position == reference


async def test_positions_only_advance(node):
    """What is proven is not unproven by a late proof."""
    claimed = await node.claim("c")
    await node.store.sessions.commit([(claimed.client_id, "c", claimed.position + 5)])
    await node.store.sessions.commit(
        [(claimed.client_id, "c", claimed.position + 3), ("nobody", "c", 9)]
    )
    await node.store.sessions.park(claimed.client_id, "c", claimed.position + 1, gone=True)
    assert (await node.claim("d", pid=claimed.pid)).position == claimed.position + 5


# -- replay


async def test_batches_are_bounded_and_in_order(start):
    """By count; merged over the rooms; the last one says from when on the session is live."""
    node = await start(replay_count=3)
    claimed = await node.claim("c")
    await node.join(claimed, "c", "A", "B")
    early = await node.publish_all([("B", 1), ("A", 2)])
    await node.store.sessions.park(claimed.client_id, "c", 0, gone=False)
    late = await node.publish_all([("A", 3), ("C", 4), ("B", 5), ("B", 6), ("A", 7), ("A", 8)])
    offsets, batches = await node.all(claimed.client_id, "c", claimed.position)
    assert offsets == early + late[:1] + late[2:]
    assert [len(batch.messages) for batch in batches] == [3, 3, 1]
    assert batches[-1].live_from == late[-1]


async def test_batches_are_bounded_in_bytes(start):
    """A message larger than the bound comes alone."""
    node = await start(replay_bytes=2000)
    claimed = await node.claim("c")
    await node.join(claimed, "c", "A")
    sizes = [100, 900, 1500, 5000, 10, 10]
    await node.publish_all([("A", '"' + "x" * size + '"') for size in sizes])
    _, batches = await node.all(claimed.client_id, "c", claimed.position)
    got = [[len(message.body) // 10 for message in batch.messages] for batch in batches]
    assert [len(batch) for batch in got] == [2, 1, 1, 2]


@pytest.mark.parametrize("parked", [False, True])
async def test_going_live_leaves_nothing_behind(node, server, parked):
    """In the same step: no list, no away set, no flag, no progress."""
    claimed = await node.claim("c")
    await node.join(claimed, "c", "A", "B")
    if parked:
        await node.store.sessions.park(claimed.client_id, "c", 0, gone=False)
    await node.publish_all([("A", 1)] * 300)
    await node.all(claimed.client_id, "c", claimed.position)
    session = server.client.hgetall(key(f"session:{claimed.client_id}"))
    assert session["away"] == "0"
    assert not {"progress", "mark", "parked"} & set(session)
    assert not server.client.keys(key("inbox:*"))
    assert not server.client.exists(key("room:A:away"), key("room:B:away"))


async def test_a_park_says_nothing_of_a_position_before_it(start):
    """A message from between the position and the park was cut: that is a gap, and nobody knows of how many."""
    node = await start(log_length=1)
    claimed = await node.claim("c")
    await node.join(claimed, "c", "A")
    position = await node.publish()
    await node.publish()
    await node.store.sessions.park(claimed.client_id, "c", 0, gone=False)
    last = await node.publish()
    batch = await node.store.sessions.replay(claimed.client_id, "c", position)
    assert [(gap.after, gap.before, gap.dropped) for gap in batch.gaps] == [(position, last, None)]


async def test_what_was_missed_of_rooms_that_are_not_read(start, monkeypatch):
    """It is counted from the park on, and in a room that was joined again since, from that join on."""
    scripts = Mutation(MOST_PEEKED=-1).apply(read_all())
    monkeypatch.setattr(store, "read_all", lambda: scripts)
    node = await start()
    claimed = await node.claim("c")
    rooms = ["A", "1 2 three"]
    await node.join(claimed, "c", *rooms)
    await node.publish_all([(room, 0) for room in rooms])
    await node.store.sessions.park(claimed.client_id, "c", 0, gone=False)
    await node.publish_all([(room, 1) for room in rooms for _ in range(3)])
    await node.store.sessions.unsubscribe(claimed.client_id, "c", "A")
    await node.join(claimed, "c", "A")
    await node.publish_all([("A", 2)] * 2)
    back = await node.claim("d", pid=claimed.pid)
    assert back.missed == 2 + 3


@pytest.mark.parametrize("parked", [False, True])
async def test_a_gap_is_exact(start, parked):
    """So many messages, from the position on, up to the oldest that is there; told once, in front."""
    node = await start(log_length=5, inbox_length=20, replay_count=2)
    claimed = await node.claim("c")
    await node.join(claimed, "c", "A", "B")
    if parked:
        await node.store.sessions.park(claimed.client_id, "c", 0, gone=False)
    other = await node.publish("B")
    offsets = await node.publish_all([("A", i) for i in range(9)])
    got, batches = await node.all(claimed.client_id, "c", claimed.position)
    assert got == [other, *offsets[4:]]
    gaps = [(i, gap) for i, batch in enumerate(batches) for gap in batch.gaps]
    assert len(gaps) == 1
    index, gap = gaps[0]
    assert (index, gap.room, gap.reason, gap.dropped) == (0, "A", "overflow", 4)
    assert (gap.after, gap.before) == (claimed.rooms.get("A", claimed.position), offsets[4])


async def test_what_is_cut_during_a_replay_is_told_on_its_own(start):
    """A log that is cut between two batches: a second gap behind the first, each with its own count."""
    node = await start(log_length=4, replay_count=1)
    claimed = await node.claim("c")
    await node.join(claimed, "c", "A", "B")
    await node.store.sessions.park(claimed.client_id, "c", 0, gone=False)
    await node.publish_all([("B", 1), ("B", 2)])
    first = await node.publish_all([("A", i) for i in range(6)])
    batch = await node.store.sessions.replay(claimed.client_id, "c", claimed.position)
    assert [(gap.before, gap.dropped) for gap in batch.gaps] == [(first[2], 2)]
    more = await node.publish_all([("A", i) for i in range(3)])
    batch = await node.store.sessions.replay(
        claimed.client_id, "c", batch.position, cursor=batch.cursor
    )
    assert [(g.after, g.before, g.dropped) for g in batch.gaps] == [(first[2] - 1, first[5], 3)]
    got, batches = await node.all(claimed.client_id, "c", batch.position, batch.cursor)
    assert got == [first[5], *more]
    assert not any(each.gaps for each in batches)


async def test_an_answer_that_was_lost_is_given_again(start):
    """The node asks from the same position again, with the cursor that it has: gaps and counts are as they were."""
    node = await start(log_length=4, replay_count=1)
    claimed = await node.claim("c")
    await node.join(claimed, "c", "A", "B")
    await node.store.sessions.park(claimed.client_id, "c", 0, gone=False)
    await node.publish_all([("B", 1), ("B", 2), *[("A", i) for i in range(6)]])
    client, replay = claimed.client_id, node.store.sessions.replay
    lost = await replay(client, "c", claimed.position)
    again = await replay(client, "c", claimed.position)
    assert again.gaps == lost.gaps != []
    second = await replay(client, "c", again.position, cursor=again.cursor)
    assert second.gaps == []
    third = await replay(client, "c", again.position, cursor=again.cursor)
    assert third.gaps == [], "what was reported before the lost answer stays reported"
    assert [m.offset for m in third.messages] == [m.offset for m in second.messages]


async def test_a_room_joined_again_counts_anew(start):
    """What was counted before a room was left says nothing about it now."""
    node = await start(replay_count=2)
    claimed = await node.claim("c")
    client = claimed.client_id
    await node.join(claimed, "c", "A", "B")
    await node.store.sessions.park(client, "c", 0, gone=False)
    await node.publish_all([("A", 1), ("A", 2), ("B", 3), ("B", 4)])
    batch = await node.store.sessions.replay(client, "c", claimed.position)
    await node.store.sessions.unsubscribe(client, "c", "A")
    await node.publish_all([("A", 5), ("A", 6)])
    await node.join(claimed, "c", "A")
    last = await node.publish("A")
    got, batches = await node.all(client, "c", batch.position, batch.cursor)
    assert got[-1] == last
    assert len(got) == 3
    assert not any(each.gaps for each in batches)


async def test_counts_that_nobody_knows_are_null(start):
    """Where the log was cut behind the position, or some messages are not for everybody."""
    node = await start(log_length=3)
    claimed = await node.claim("c")
    await node.join(claimed, "c", "A")
    middle = (await node.publish_all([("A", i) for i in range(9)]))[2]
    _, batches = await node.all(claimed.client_id, "c", middle)
    assert [gap.dropped for gap in batches[0].gaps] == [None]
    claimed = await node.claim("d")
    await node.join(claimed, "d", "A")
    await node.publish("A", skip_client="somebody")
    await node.publish_all([("A", i) for i in range(4)])
    _, batches = await node.all(claimed.client_id, "d", claimed.position)
    assert [gap.dropped for gap in batches[0].gaps] == [None]


async def test_a_log_that_has_expired_is_a_gap(start, server):
    """Nothing newer need follow: it is told before going live, up to the head."""
    node = await start(log_age=50 * MS)
    claimed = await node.claim("c")
    await node.join(claimed, "c", "A")
    last = (await node.publish_all([("A", 1), ("A", 2)]))[-1]
    await eventually(lambda: not server.client.exists(key("room:A:log")))
    got, batches = await node.all(claimed.client_id, "c", claimed.position)
    (gap,) = batches[0].gaps
    assert got == []
    assert (gap.reason, gap.before, gap.dropped) == ("expired", last + 1, 2)
    assert batches[0].live_from == last


async def test_a_room_that_was_forgotten_is_no_gap(node, server):
    """Numbers begin anew at the clock: what was counted before says nothing, for the idle and for the parked."""
    claimed = await node.claim("c")
    await node.join(claimed, "c", "A")
    position = await node.publish()
    await node.store.sessions.park(claimed.client_id, "c", position, gone=False)
    server.client.delete(key("room:A:log"), key("room:A:meta"))
    offset = await node.publish()
    got, batches = await node.all(claimed.client_id, "c", position)
    assert (got, batches[0].gaps) == ([offset], [])


async def test_not_every_message_is_for_everybody(node):
    """Neither one's own without echo, nor what has expired; both move the position."""
    claimed = await node.claim("c", client_id="ada")
    await node.join(claimed, "c", "A")
    await node.store.sessions.park("ada", "c", 0, gone=False)
    first = await node.publish("A", skip_client="somebody")
    await node.publish("A", skip_client="ada")
    await node.publish("A", ttl=1e-6)
    last = await node.publish("A", skip_client="ada")
    got, batches = await node.all("ada", "c", claimed.position)
    assert got == [first]
    assert batches[-1].position == last
    assert not any(batch.gaps for batch in batches)


async def test_a_session_without_a_list_reads_the_logs(node, server):
    """Nobody parked it, or its list is gone: that costs nothing."""
    claimed = await node.claim("c")
    await node.join(claimed, "c", "A")
    offsets = await node.publish_all([("A", 1), ("A", 2)])
    await node.store.sessions.park(claimed.client_id, "c", 0, gone=True)
    offsets += await node.publish_all([("A", 3)])
    server.client.delete(*server.client.keys(key("inbox:*")))
    again = await node.claim("d", pid=claimed.pid)
    assert (await node.all(claimed.client_id, "d", again.position))[0] == offsets


async def test_many_rooms_with_long_logs(start):
    """Merging hundreds of messages of dozens of rooms, busy ones and quiet ones, keeps the one order."""
    node = await start(replay_count=97)
    rooms = [f"r{i}" for i in range(30)]
    claimed = await node.claim("c")
    await node.join(claimed, "c", *rooms)
    busier = random.Random(1).choices(
        rooms, weights=[2**-i for i in range(20)] + [0.01] * 10, k=900
    )
    offsets = await node.publish_all([(room, 0) for room in busier])
    got, batches = await node.all(claimed.client_id, "c", claimed.position)
    assert got == offsets
    assert len(batches) == 10


@pytest.mark.parametrize("gap", [False, True])
async def test_long_messages_of_many_rooms_are_not_read_in_every_batch(start, server, gap):
    """A batch sees what waits in so many rooms as a few MB allow, and no room again before its turn."""
    node = await start(log_length=2)
    rooms = [f"r{number}" for number in range(20)]
    claimed = await node.claim("c")
    await node.join(claimed, "c", *rooms)
    long, offsets = '"' + "x" * 400_000 + '"', []
    for room in rooms:
        offsets += (await node.publish_all([(room, long)] * (3 if gap else 1)))[-2:]

    def calls() -> int:
        return int(server.client.info("commandstats")["cmdstat_xrange"]["calls"])

    server.client.config_resetstat()
    first = await node.store.sessions.replay(claimed.client_id, "c", claimed.position)
    assert calls() == 10
    assert (first.live_from, first.position, first.messages) == (None, claimed.position, [])
    assert len(first.gaps) == (10 if gap else 0)
    got, batches = await node.all(claimed.client_id, "c", claimed.position, first.cursor)
    assert got == offsets
    gaps = [gap.room for batch in (first, *batches) for gap in batch.gaps]
    assert sorted(gaps) == (sorted(rooms) if gap else [])
    # Each room is seen once, and read on its turn: its messages, and that there are no more.
    assert calls() <= len(rooms) * (6 if gap else 4)


async def test_a_cursor_is_bounded(start, server):
    """It has 64 bytes for each room of the session, however long its name is, and none for one that was left."""
    node = await start(log_length=1, replay_count=2)
    # In characters that take four bytes.
    rooms = [chr(0x1F600 + number) * 200 for number in range(20)]
    claimed = await node.claim("c")
    await node.join(claimed, "c", *rooms)
    long = '"' + "x" * 1500 + '"'
    await node.publish_all([(room, long) for room in rooms for _ in range(2)])
    batch = await node.store.sessions.replay(claimed.client_id, "c", claimed.position)
    assert len(batch.gaps) == len(rooms)
    assert 40 * len(rooms) < len(batch.cursor.data) < 64 * len(rooms) + 8
    for room in rooms[:8]:
        await node.store.sessions.unsubscribe(claimed.client_id, "c", room)
    batch = await node.store.sessions.replay(
        claimed.client_id, "c", batch.position, cursor=batch.cursor
    )
    assert batch.gaps == []
    assert 40 * 12 < len(batch.cursor.data) < 64 * 12 + 8
    assert "progress" not in server.client.hgetall(key(f"session:{claimed.client_id}"))


async def test_a_cursor_is_of_one_redis(node):
    """After a change of Redis it is not sent: the numbers in it may have been rolled back."""
    claimed = await node.claim("c")
    await node.join(claimed, "c", "A")
    await node.publish_all([("A", i) for i in range(300)])
    replay, detect = node.store.sessions.replay, node.store.loss_detector.detect
    batch = await replay(claimed.client_id, "c", claimed.position)
    assert batch.cursor.data
    broken = batch.cursor._replace(data=b"no cursor at all")
    await detect()
    rest = await replay(claimed.client_id, "c", batch.position, cursor=broken)
    assert len(rest.messages) == 100


@pytest.mark.parametrize("parked", [False, True])
async def test_what_is_cut_before_its_turn_is_a_gap(start, parked):
    """A batch has seen a long message, which is cut before the next one; whether logs are read or the inbox."""
    node = await start(log_length=2, replay_bytes=2000)
    claimed = await node.claim("c")
    await node.join(claimed, "c", "A", "B")
    if parked:
        await node.store.sessions.park(claimed.client_id, "c", 0, gone=False)
    long = '"' + "x" * 1500 + '"'
    first, second, lost = await node.publish_all([("A", long), ("A", long), ("B", long)])
    batch = await node.store.sessions.replay(claimed.client_id, "c", claimed.position)
    assert [message.offset for message in batch.messages] == [first]
    more = await node.publish_all([("B", 1), ("B", 2)])
    got, batches = await node.all(claimed.client_id, "c", batch.position, batch.cursor)
    assert got == [second, *more]
    assert len(batches) == 1
    gaps = [gap for each in batches for gap in each.gaps]
    assert [(gap.room, gap.after < lost < gap.before) for gap in gaps] == [("B", True)]
    assert gaps[0].before == more[0]


# -- end_session, history


async def test_an_ended_session_leaves_nothing(node, server):
    """An ended session is gone with all that belongs to it."""
    claimed = await node.claim("c")
    await node.join(claimed, "c", "A")
    await node.store.sessions.park(claimed.client_id, "c", 0, gone=False)
    await node.store.sessions.end_session(claimed.client_id, "c")
    assert {k.removeprefix(BASE) for k in server.client.scan_iter("t:*")} == {"clock"}
    assert (await node.claim("d", pid=claimed.pid)).how == "new"


async def test_history_pages(node):
    """From the end backwards, from an offset forwards, between two; ascending always."""
    offsets = await node.publish_all([("A", i) for i in range(130)])

    async def page(
        after: int | None, before: int | None, limit: int
    ) -> tuple[list[int], bool, bool]:
        found = await node.store.history("A", after, before, limit, 10**6)
        return [message.offset for message in found.messages], found.more, found.gap

    assert await page(None, None, 3) == (offsets[-3:], True, False)
    assert await page(None, None, 130) == (offsets, False, False)
    assert await page(None, offsets[60], 60) == (offsets[:60], False, False)
    assert await page(offsets[2], None, 5) == (offsets[3:8], True, False)
    assert await page(offsets[2], None, 127) == (offsets[3:], False, False)
    assert await page(offsets[2], offsets[7], 100) == (offsets[3:7], False, False)
    assert await page(offsets[-1], None, 5) == ([], False, False)
    assert await page(None, offsets[0], 5) == ([], False, False)
    assert await page(None, 0, 5) == ([], False, False)
    assert await page(None, 1, 5) == ([], False, False)
    assert (await node.store.history("nothing", None, None, 5, 10**6)).messages == []


async def test_history_is_bounded_and_says_where_it_ends(start):
    """In bytes as well; what a log no longer has is said; what has expired is not there."""
    node = await start(log_length=5)
    offsets = await node.publish_all([("A", '"' + "x" * 900 + '"')] * 5)
    found = await node.store.history("A", None, None, 10, 2000)
    assert ([m.offset for m in found.messages], found.more) == (offsets[-2:], True)
    assert not (await node.store.history("A", offsets[0] - 1, None, 10, 2000)).gap
    await node.publish("A", ttl=1e-6)
    assert (await node.store.history("A", offsets[0] - 1, None, 10, 2000)).gap
    found = await node.store.history("A", offsets[3], None, 10, 2000)
    assert ([m.offset for m in found.messages], found.more, found.gap) == (
        offsets[4:],
        False,
        False,
    )


async def test_what_has_expired_is_passed_over_in_pieces(node):
    """It says where it has come to."""
    [first] = await node.publish_all([("A", 1)])
    await node.publish_all([("A", 1)] * 2500, ttl=1e-6)
    [last] = await node.publish_all([("A", 1)])
    for after, before, limit in ((0, None, 2), (None, None, 2), (None, last, 1), (first, None, 1)):
        found = await node.store.history("A", after, before, limit, 10**6)
        assert found.more
        assert len(found.messages) < 2
        assert found.examined <= 1001
        assert first < found.reached < last


async def test_what_is_passed_over_is_bounded_in_bytes(node):
    """Whether it has expired, or is the reader's own: a run looks at a MB of it, not at a thousand of any length."""
    claimed = await node.claim("c", client_id="ada")
    await node.join(claimed, "c", "A")
    long = '"' + "x" * 20_000 + '"'
    await node.publish_all([("A", long)] * 200, ttl=1e-6)
    [last] = await node.publish_all([("A", 1)])
    found = await node.store.history("A", None, last, 100, 10**6)
    assert (found.messages, found.more) == ([], True)
    assert found.examined < 60
    got, batches = await node.all("ada", "c", claimed.position)
    assert got == [last]
    assert len(batches) > 3
    await node.publish_all([("A", '"' + "x" * 2_000_000 + '"')] * 3, ttl=1e-6)
    assert (await node.all("ada", "c", last))[0] == [], (
        "one that is longer than all of that is passed, too"
    )


# -- nodes


async def test_a_lease(node, server):
    """Renewing says whether it was still held."""
    assert await node.store.leases.renew(first=True)
    assert await node.store.leases.renew()
    server.client.delete(key(f"node:{node.store.node_id}"))
    assert not await node.store.leases.renew()
    assert await node.store.leases.renew()
    assert server.client.get(key("schema")) == "3"


async def test_the_sweeper_parks_what_the_dead_served(start, server):
    """A batch a call; their owners stay, so that a node which was only stopped goes on."""
    dead, alive = await start(), await start()
    await dead.store.leases.renew(first=True)
    await alive.store.leases.renew(first=True)
    claimed = [await dead.claim(f"c{i}") for i in range(5)]
    kept = await alive.claim("d")
    for i, each in enumerate(claimed):
        await dead.join(each, f"c{i}", "A")
    await dead.store.sessions.park(claimed[4].client_id, "c4", 0, gone=True)
    await alive.join(kept, "d", "A")
    assert await alive.store.leases.sweep() == 0
    server.client.delete(key(f"node:{dead.store.node_id}"))
    assert await alive.store.leases.sweep(3) == 3
    assert await alive.store.leases.sweep(3) == 1
    assert await alive.store.leases.sweep(3) == 0
    assert server.client.smembers(key("nodes")) == {alive.store.node_id}
    assert server.client.scard(key("room:A:away")) == 5
    for each in claimed[:4]:
        assert server.client.pttl(key(f"session:{each.client_id}")) <= 600_000
    offset = await alive.publish()
    assert (await dead.all(claimed[0].client_id, "c0", claimed[0].position))[0] == [offset]
    assert server.client.pttl(key(f"session:{claimed[0].client_id}")) > 1_200_000


async def test_the_sweeper_goes_by_rooms(start, server):
    """Whoever is in many is more work: a call ends behind so many rooms, and the next one goes on."""
    dead, alive = await start(), await start()
    await dead.store.leases.renew(first=True)
    for i in range(5):
        await dead.join(await dead.claim(f"c{i}"), f"c{i}", *(f"r{number}" for number in range(10)))
    server.client.delete(key(f"node:{dead.store.node_id}"))
    assert [await alive.store.leases.sweep(100, 11) for _ in range(4)] == [2, 2, 1, 0]
    assert server.client.scard(key("room:r0:away")) == 5


async def test_touching_keeps_alive_what_is_owned(start, server):
    """And nothing else: who left is not brought back, nor counted."""
    one, two = await start(), await start()
    mine, claimed_away, gone = await one.claim("a"), await one.claim("b"), await one.claim("c")
    await one.join(mine, "a", "A")
    await one.store.sessions.park(mine.client_id, "a", 0, gone=False)
    await two.claim("d", pid=claimed_away.pid)
    await one.store.sessions.end_session(gone.client_id, "c")
    for name in server.client.scan_iter("t:*"):
        server.client.pexpire(name, 5000)
    server.client.hset(key(f"session:{mine.client_id}"), "sets", int(time.time() * 1000) + 5000)
    everybody = [(mine.client_id, "a"), (claimed_away.client_id, "b"), (gone.client_id, "c")]
    assert await one.store.sessions.touch(everybody) == 1
    assert server.client.pttl(key(f"session:{mine.client_id}")) > 5000
    assert server.client.pttl(key(f"inbox:{mine.client_id}:{mine.pid.generation}")) > 5000
    assert server.client.pttl(key("room:A:away")) > 5000
    assert server.client.pttl(key(f"session:{claimed_away.client_id}")) <= 5000
    assert not server.client.exists(key(f"session:{gone.client_id}"))
    assert server.client.smembers(key(f"node:{one.store.node_id}:sessions")) == {mine.client_id}


async def test_a_claim_keeps_the_away_sets_as_long_as_the_session(start, server):
    """It comes back at the end of its life, and every hub dies before its first batch. One that starts later publishes.

    And once more: the set is renewed by a claim that it would not outlive.
    """
    node, later = await start(anonymous_life=600), await start(anonymous_life=600)
    mine = await node.claim("a")
    await node.join(mine, "a", "A")
    await node.store.sessions.park(mine.client_id, "a", 0, gone=True)
    inbox = f"inbox:{mine.client_id}:{mine.pid.generation}"
    names = [key(name) for name in ("room:A:away", inbox, f"session:{mine.client_id}")]

    def pass_time(seconds: int) -> None:
        for name in names:
            server.client.pexpire(name, server.client.pttl(name) - seconds * 1000)
        server.client.hincrby(key(f"session:{mine.client_id}"), "sets", -seconds * 1000)

    pass_time(590)
    await node.claim("b", pid=mine.pid)
    pass_time(1500)
    offsets = [await later.publish()]
    await node.claim("c", pid=mine.pid)
    pass_time(1790)
    offsets.append(await later.publish())
    assert server.client.llen(key(inbox)) == 3
    back = await later.claim("d", pid=mine.pid)
    assert (await later.all(back.client_id, "d", back.position))[0] == offsets


async def test_a_longer_life_renews_the_away_sets(start, server):
    """The hub is started anew with a longer life of sessions: the sets that a claim finds are too short-lived."""
    node, later = await start(anonymous_life=600), await start(anonymous_life=6000)
    mine = await node.claim("a")
    await node.join(mine, "a", "A")
    await node.store.sessions.park(mine.client_id, "a", 0, gone=True)
    await later.claim("b", pid=mine.pid)
    session_life = server.client.pttl(key(f"session:{mine.client_id}"))
    assert session_life > 17_000_000
    assert server.client.pttl(key("room:A:away")) >= session_life


async def test_a_claim_asks_no_away_set(start, server):
    """A session may be in a thousand rooms: what a park has written lasts for its next claim."""
    node = await start()
    mine = await node.claim("a")
    await node.join(mine, "a", *(f"r{number}" for number in range(20)))
    await node.store.sessions.park(mine.client_id, "a", 0, gone=True)
    server.client.config_resetstat()
    await node.claim("b", pid=mine.pid)
    assert server.client.info("commandstats")["cmdstat_pttl"]["calls"] < 5


async def test_a_rollback_is_told_to_everybody(start):
    """Where the clock is behind what a node has seen: a reset for all rooms joined before."""
    node = await start()
    channel = node.store.keys.all_nodes_channel.encode()
    node.store.bus.subscribe(channel)
    await node.store.bus.wait_subscribed(channel)
    claimed = await node.claim("c")
    await node.join(claimed, "c", "A", "B")
    kept = await node.publish("A")
    assert not await node.store.loss_detector.detect()
    node.store.loss_detector.newest = seen = kept + 1000
    assert await node.store.loss_detector.detect()
    assert int(await node.store.clock()) == seen
    await eventually(lambda: node.heard)
    assert node.heard == [(channel.decode(), "reset")]
    got, batches = await node.all(claimed.client_id, "c", claimed.position)
    assert got == [kept]
    assert {(g.room, g.reason, g.after, g.before, g.dropped) for g in batches[0].gaps} == {
        ("A", "reset", kept, seen + 1, None), ("B", "reset", kept, seen + 1, None),
    }  # fmt: skip
    _, batches = await node.all(claimed.client_id, "c", batches[-1].live_from)
    assert batches[0].gaps == [], "told once"


async def test_a_rollback_is_noticed_behind_newer_messages(start, server):
    """Somebody has published since, so that the clock tells nothing: the newest known message is looked for.

    It is known to whoever published it, though nobody on that node hears the room.
    """
    node, other = await start(), await start()
    claimed = await node.claim("c")
    await node.join(claimed, "c", "A")
    one, two = await node.publish_all([("A", 1), ("A", 2)])
    await node.publish("A", volatile=True)  # lies in no log, and is not looked for
    assert not await node.store.loss_detector.detect(), "it is where it was"
    node.store.loss_detector.on_bus_lost([])
    server.client.xdel(key("room:A:log"), f"{two}-0")
    server.client.hset(key("room:A:meta"), mapping={"last": str(one)})
    server.client.hincrby(key("room:A:meta"), "n", -1)
    newer = await other.publish("A")
    assert await node.store.loss_detector.detect()
    got, batches = await node.all(claimed.client_id, "c", claimed.position)
    assert got == [one, newer]
    assert [(g.reason, g.after, g.before) for g in batches[0].gaps] == [("reset", one, two + 1)]


async def test_each_loss_is_remembered_by_itself(start, server):
    """What two nodes notice of one is one; the oldest of too many count as one, and those of long ago are forgotten."""
    node = await start()
    losses: list[list[int]] = []

    async def lose(*, beyond: int) -> None:
        node.store.loss_detector.newest = await node.store.clock() + beyond
        assert await node.store.loss_detector.detect()
        said = server.client.get(key("reset"))
        losses[:] = [[int(edge) for edge in pair.split(":")] for pair in said.split()]

    server.client.set(key("reset"), "5:10")
    one = await node.publish("A")
    await lose(beyond=1000)
    assert losses == [[one, one + 1001]]
    await lose(beyond=500)
    assert losses == [[one, one + 1501]], "nothing was published since"
    two = await node.publish("A")
    await lose(beyond=1000)
    assert losses == [[two, two + 1001], [one, one + 1501]]
    for offset in (two + 700, one + 700):
        node.store.loss_detector.newest_logged = ("A", offset)
        await lose(beyond=0)
        assert losses == [[two, two + 1001], [one, one + 1501]], "known already"
    server.client.set(key("clock"), str(two + 3000))
    node.store.loss_detector.newest_logged = ("A", three := two + 2000)
    await lose(beyond=0)
    assert losses == [[0, three + 1], [two, two + 1001], [one, one + 1501]]
    for _ in range(7):
        last = await node.publish("A")
        await lose(beyond=1000)
    assert losses[0] == [last, last + 1001]
    assert (len(losses), losses[-1]) == (8, [one, three + 1])


@pytest.mark.parametrize("how", ["cut", "expired"])
async def test_what_a_log_may_lose_is_no_rollback(start, server, how):
    """The newest known message was cut or has expired, as it may."""
    node = await start(log_length=2)
    two = (await node.publish_all([("A", 1), ("A", 2)]))[-1]
    node.store.loss_detector.newest_logged = ("A", two)
    if how == "cut":
        await node.publish_all([("A", 3), ("A", 4)])
    else:
        server.client.delete(key("room:A:log"))
    assert not await node.store.loss_detector.detect()


# -- all of them


async def test_every_key_has_an_end(start, server):
    """Whatever happened, every key but the clock expires."""
    node = await start(log_length=3, inbox_length=2, replay_count=1)
    await node.store.leases.renew(first=True)
    for i in range(6):
        name = f"c{i}"
        claimed = await node.claim(name, client_id=f"client{i}" if i % 2 else None)
        await node.join(claimed, name, "A", "B")
        if i > 1:
            await node.store.sessions.park(claimed.client_id, name, 0, gone=i > 2)
        await node.publish_all([("A", 1), ("B", 2)] * 3, dedupe=None)
        await node.publish("A", dedupe=node.store.keys.dedupe("A", "me", str(i)), ttl=5)
        if i > 2:
            await node.claim(name + "x", pid=claimed.pid)
            await node.store.sessions.replay(claimed.client_id, name + "x", claimed.position)
    node.store.loss_detector.newest += 5000
    await node.store.loss_detector.detect()
    endless = {k for k in server.client.scan_iter("t:*") if server.client.pttl(k) == -1}
    assert endless == {key("clock")}


def test_every_script_is_read_and_says_what_it_answers():
    """Each opens with its keys, its arguments and its answer."""
    for script in read_all().values():
        assert "-- KEYS  1 clock" in script.text
        assert "-- Answer: " in script.text
    files = {file.stem for file in (ROOT / "hub/store/lua").iterdir()}
    assert sorted(NAMES) == sorted(files - {"common", "session"})


async def test_an_unusable_redis_is_refused(start, server):
    """Another schema, or one that throws keys away."""
    server.client.set(key("schema"), "1")
    with pytest.raises(BadRequest, match="schema version 1"):
        await start()
    server.client.delete(key("schema"))
    server.client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(BadRequest, match="noeviction"):
            await start()
    finally:
        server.client.config_set("maxmemory-policy", "noeviction")
    with pytest.raises(Unavailable):
        await start(url="unix:///nowhere")


def test_a_pid_has_no_representation():
    """It cannot get into a log by accident."""
    assert "secret" not in repr(Pid("a", "1", "0", "secret" * 4))

"""A node's own affairs when Redis comes, goes and refuses: nothing is tried once and then forgotten."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from hub.errors import Unavailable
from hub.node.node import Node
from hub.settings import Settings
from hub.store.server_check import ServerIdentity
from hub.store.store import Store
from tests.support.hubs import Hub
from tests.support.raw import Raw
from tests.support.times import UNIT, eventually


@pytest.fixture
async def node():
    """A node that has never connected."""
    node = Node(Settings(), "redis://127.0.0.1:1")
    yield node
    await node.tasks.stop()


async def test_what_redis_forgot_is_told_before_anything_else(redis_server, monkeypatch):
    """A Redis that has changed is asked until it answers; nobody is let in before, as what is published hides it."""
    changed = []
    listener = SimpleNamespace(
        on_messages=print, on_bus_lost=print, on_bus_back=print,
        on_redis_changed=lambda: changed.append(len(tries)),
    )  # fmt: skip
    store = Store(Settings(redis_prefix="changed"), redis_server.url, listener)
    tries = []
    detect = store.loss_detector.detect

    async def refused():
        tries.append(store.commands.up)
        if len(tries) < 3:
            raise Unavailable("Redis went away again")
        return await detect()

    monkeypatch.setattr(store.loss_detector, "detect", refused)
    await store.start()
    store._identity = ServerIdentity("another", "run")
    store.loss_detector.note_answer(7)
    store.loss_detector.on_bus_lost([])
    store.commands.cut()
    await eventually(lambda: store.commands.up)
    assert tries == [False] * 3
    assert changed == [3]
    # Told: the clock is past what was seen.
    assert await store.clock() >= 7
    # Made anew on the same server there is nothing to ask.
    store.commands.cut()
    await eventually(lambda: not store.commands.up)
    await eventually(lambda: store.commands.up)
    assert len(tries) == 3
    await store.stop()


async def test_a_proof_that_could_not_be_written_back_is_written_back_later(node, monkeypatch):
    """Also if the client proves nothing new: within 5 s of Redis being back (PROTOCOL §5)."""
    session = SimpleNamespace(client_id="c", connection_id="x", acked=7, dirty=True, joins={})
    node.sessions._by_client["c"] = session
    written = []

    async def commit(proofs):
        if not written:
            written.append("refused")
            raise Unavailable("Redis is away")
        written.extend(proofs)

    monkeypatch.setattr(node.store.sessions, "commit", commit)
    with pytest.raises(Unavailable):
        await node.maintenance.commit()
    await node.maintenance.commit()
    assert written == ["refused", ("c", "x", 7)]
    assert not session.dirty
    node.sessions._by_client.clear()


async def test_a_connection_task_that_dies_is_noticed(node):
    """A connection that nobody keeps would leave the node deaf: the upkeep fails, and with it the node, loudly."""
    await node.store.raise_failure()

    async def dies():
        raise ZeroDivisionError

    node.store.bus._reconnecting = asyncio.create_task(dies())
    await asyncio.wait([node.store.bus._reconnecting])
    with pytest.raises(ZeroDivisionError):
        await node.store.raise_failure()
    node.store.bus._reconnecting = None


BROKEN = """
from hub.cli.main import main
from hub.node.maintenance import Maintenance

async def commit(self):
    raise ZeroDivisionError

Maintenance.commit = commit
main()
"""

# The same where what breaks is begun by a change of Redis.
BROKEN_CHANGE = """
from hub.cli.main import main
from hub.store.loss_detector import LossDetector

async def detect(self):
    raise ZeroDivisionError

LossDetector.detect = detect
main()
"""


async def test_a_background_task_that_dies_takes_the_node_down(redis_server):
    """Loudly, and in order: its clients are parked and told to come back, and the process says that it failed."""
    hub = await asyncio.to_thread(
        Hub(redis_server.url, "upkeep", main=("-c", BROKEN), lease=4 * UNIT).start
    )
    client = await Raw(hub.url).open()
    await client.connect({"client_id": "ada"})
    await eventually(lambda: client.closed)
    assert client.close_code in (1001, 1012, 1013)
    await eventually(lambda: not hub.running)
    assert hub.terminate() == 1
    said = hub.log.read_text()
    assert "a background task failed; the hub ends" in said
    assert "ZeroDivisionError" in said
    assert redis_server.client.hget("upkeep:{0}:session:ada", "away") == "1"
    await client.drop()
    hub.close()


async def test_a_change_of_redis_that_cannot_be_dealt_with_takes_the_node_down(own_redis):
    """Who does not find out what Redis has forgotten must not go on as if it were nothing."""
    hub = await asyncio.to_thread(
        Hub(own_redis.url, "upkeep", main=("-c", BROKEN_CHANGE), lease=4 * UNIT).start
    )
    own_redis.kill()
    await asyncio.to_thread(own_redis.start)
    await eventually(lambda: not hub.running)
    assert hub.terminate() == 1
    assert "a background task failed; the hub ends" in hub.log.read_text()
    hub.close()

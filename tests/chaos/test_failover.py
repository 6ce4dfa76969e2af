"""A replica is promoted that lacks the last writes: what that costs, who is told, and what it must not cost."""

from __future__ import annotations

import pytest

from tests.support.expect import exactly
from tests.support.times import eventually, eventually_true


async def test_what_only_the_lost_primary_had_is_told(cluster, raw):
    """Who was there has it; who was away is told `reset` for exactly that, and gets everything else."""
    present = await raw(cluster.hubs[0].url)
    absent = await raw(cluster.hubs[1].url, client_id="absent")
    producer = await raw(cluster.hubs[1].url)
    await present.join("r")
    await absent.join("r")
    await absent.drop()
    kept = await producer.publish("r", "kept")
    async with cluster.failover():
        lost = [await producer.publish("r", f"lost {number}") for number in range(3)]
        await exactly(present, ["kept", "lost 0", "lost 1", "lost 2"])
    await cluster.ready()
    assert int(await producer.publish("r", "later")) > int(lost[-1])
    await exactly(present, ["kept", "lost 0", "lost 1", "lost 2", "later"])
    back = await raw(cluster.hubs[0].url, client_id="absent")
    await exactly(back, ["kept", "later"])
    told = [args[0] for args in back.named("hub:gap")]
    assert [(gap["room"], gap["reason"], gap["dropped"]) for gap in told if gap["room"] == "r"] == [
        ("r", "reset", None)
    ]
    assert told[0]["after"] == kept
    assert int(told[0]["before"]) > int(lost[-1])
    assert not present.closed
    assert not producer.closed


async def test_it_is_told_where_nobody_heard_it_and_somebody_has_published_since(cluster, raw):
    """All who are in the room are away, and only the hub that took the message knows of it: it finds out last."""
    absent = await raw(cluster.hubs[1].url, client_id="absent")
    other = await raw(cluster.hubs[1].url)
    producer = await raw(cluster.hubs[0].url)
    await absent.join("r")
    await absent.drop()
    kept = await producer.publish("r", "kept")
    async with cluster.failover():
        lost = await producer.publish("r", "lost")
        cluster.wires[0].refuse = True
    await eventually_true(lambda: _published(other, "later"))
    cluster.wires[0].refuse = False
    await cluster.ready()
    back = await raw(cluster.hubs[1].url, client_id="absent")
    await exactly(back, ["kept", "later"])
    told = [args[0] for args in back.named("hub:gap") if args[0]["room"] == "r"]
    assert [gap["reason"] for gap in told] == ["reset"]
    assert int(kept) <= int(told[0]["after"]) < int(lost) < int(told[0]["before"])


async def _published(producer, data) -> bool:
    fields = {"room": "r", "event": "m", "data": data, "id": data}
    return (await producer.ask("publish", fields))["ok"]


@pytest.mark.parametrize("keeps", [True, False], ids=["by pid", "by name"])
async def test_a_connection_that_is_forgotten_is_not_put_out(cluster, raw, keeps):
    """The owner that the replica remembers is an older connection; the client has no newer one, and may come back."""
    first = await raw(cluster.hubs[0].url, client_id="ada")
    await first.join("r")
    pid = first.reply["pid"]
    async with cluster.failover():
        await first.drop()
        second = await raw(cluster.hubs[1].url, client_id="ada", **({"pid": pid} if keeps else {}))
    await cluster.ready()
    await eventually(lambda: second.closed or second.named("41"))
    assert not second.named("41")
    assert second.close_code in (1001, 1012, 1013)
    # Its pid may be newer than any that is remembered.
    third = await raw(cluster.hubs[1].url, client_id="ada", pid=second.reply["pid"])
    assert "sid" in third.reply
    info, _ = await third.session()
    assert info["resumed"]
    await third.publish("r", "hello")
    await exactly(third, ["hello"])

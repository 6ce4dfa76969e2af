"""A storm: steady load from clients of every kind, and faults of every kind at random, until it has done enough."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import random
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from tests.chaos.checker import Violation, check
from tests.chaos.cluster import Cluster
from tests.chaos.crowd import ROOMS, Crowd
from tests.chaos.faults import ALL, FailedOver, Fault
from tests.chaos.history import Gap, Proved
from tests.chaos.member import Member
from tests.support.times import MS, SOON

# What a gap may be told for: a flood, and a primary lost with its last writes. What expires is never due.
REASONS = ("overflow", "reset")


class Storm:
    """One run. `seed` decides who is struck by what, and when; the machine's pace decides the rest.

    `long`: there is time for faults that last.
    """

    def __init__(
        self, cluster: Cluster, crowd: Crowd, seed: int, faults: Sequence[type[Fault]] = ALL,
        *, long: bool = False,
    ) -> None:  # fmt: skip
        self.cluster = cluster
        self.crowd = crowd
        self.seed = seed
        self.history = cluster.history
        self._long = long
        self.faults = [
            fault(cluster, random.Random(f"{seed} {fault.__name__}")) for fault in faults
        ]
        # What struck when, for whoever has to understand a violation.
        self.log: list[str] = []
        # The last line of the log about each lane.
        self._latest: dict[str, str] = {}
        # How often every fault is to strike.
        self._enough = 0
        self._began = time.monotonic()

    # -- what befalls them

    async def rage(self, *, enough: int, limit: float) -> None:
        """Let every fault strike `enough` times at least, within `limit` seconds.

        Raises AssertionError with the progress where the time is not enough.
        """
        self._began = time.monotonic()
        self._enough = enough
        wandering = self.crowd.wander()
        lanes = collections.defaultdict(list)
        for fault in self.faults:
            lanes[fault.lane].append(fault)
        work = [
            asyncio.create_task(self._lane(name, faults, enough)) for name, faults in lanes.items()
        ]
        everything = asyncio.gather(*work)
        try:
            async with asyncio.timeout(limit) as timer:
                done, _ = await asyncio.wait(
                    [everything, *wandering], return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    task.result()
        except TimeoutError:
            if not timer.expired():
                raise
            raise AssertionError(f"not done within {limit:.0f} s; {self.progress()}") from None
        finally:
            everything.cancel()
            await asyncio.gather(everything, return_exceptions=True)
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            await self.crowd.rest()
            for fault in self.faults:
                await fault.heal()

    async def _lane(self, name: str, faults: list[Fault], enough: int) -> None:
        dice = random.Random(f"{self.seed} lane {name}")
        while True:
            bag = [f for f in faults if f.count < enough]
            if not bag:
                if all(f.count >= enough for f in self.faults):
                    return
                bag = list(faults)
            dice.shuffle(bag)
            for fault in bag:
                async with (
                    self.cluster.way.passing() if name == "way" else contextlib.nullcontext()
                ):
                    await self._strike(fault, dice)
                if dice.random() < 0.5 and name == "redis":
                    # Half of them strike hubs that have hardly recovered.
                    with contextlib.suppress(AssertionError):
                        await self.cluster.ready()
                await asyncio.sleep(dice.uniform(100 * MS, 600 * MS))

    async def _strike(self, fault: Fault, dice: random.Random) -> None:
        self._note(fault.lane, f"{fault.name} strikes")
        await fault.strike()
        lasts = fault.lasts
        if self._long and fault.lasts_long is not None and fault.count == 1:
            lasts = fault.lasts_long
        await asyncio.sleep(dice.uniform(*lasts))
        await fault.heal()
        self._note(fault.lane, f"{fault.name} healed")

    def _note(self, lane: str, what: str) -> None:
        line = f"{time.monotonic() - self._began:7.2f} {what}"
        self.log.append(line)
        self._latest[lane] = line.strip()

    def progress(self) -> str:
        """Say how often each fault has struck so far, the rarest first, and what happened last in each lane."""
        counts = sorted((fault.count, fault.name) for fault in self.faults)
        struck = ", ".join(f"{name} {count}" for count, name in counts)
        latest = "; ".join(f"{lane}: {line}" for lane, line in self._latest.items())
        return (
            f"struck so far, of {self._enough} times each: {struck}\n"
            f"last in each lane, after {time.monotonic() - self._began:.2f} s: {latest}"
        )

    # -- the end

    async def settle(self, within: float = 4 * SOON) -> list[Violation]:
        """Let everything heal and arrive, and return what is wrong with the story."""
        await self.cluster.ready()
        producers = self.crowd.producers
        async with asyncio.timeout(within):
            await asyncio.gather(*(producer.stop() for producer in producers))
        last = {room: (await producers[0].publish(room)).offset or 0 for room in ROOMS}
        found: list[Violation] = []
        deadline = time.monotonic() + within
        for record, members in self._by_record().items():
            rooms = [room for room in last if members[0].last(room)]

            def behind(member: Member = members[0], rooms: list[str] = rooms) -> dict[str, int]:
                return {r: member.last(r) - last[r] for r in rooms if member.last(r) < last[r]}

            while behind() and time.monotonic() < deadline:
                await asyncio.sleep(50 * MS)
            if has := behind():
                why = f"{has} {members[0].standing()}".rstrip()
                found.append(Violation("deaf", f"{members[0].name} ({members[0].kind})", why))
            self.history.records[record].stayed = True
        await self.crowd.part()
        found += [
            Violation("put out", f"{who.name} ({who.record.kind})", who.fault)
            for who in self.crowd.present()
            if who.fault is not None
        ]
        # Where nothing else strikes, every hub that has acknowledged something lives to tell.
        alone = [type(fault) for fault in self.faults] == [FailedOver]
        return [*found, *check(self.history, REASONS, remembered=alone)]

    def _by_record(self) -> dict[int, list[Member]]:
        """Return the members of each record, by the record's place in the history."""
        places = {id(record): place for place, record in enumerate(self.history.records)}
        members = collections.defaultdict(list)
        for member in self.crowd.members:
            members[places[id(member.record)]].append(member)
        return members

    def numbers(self) -> dict[str, Any]:
        """Say how much of a storm it was."""
        published = self.history.publications.values()
        events = [event for record in self.history.records for event in record.events]
        return {
            "seed": self.seed,
            "seconds": round(time.monotonic() - self._began),
            "faults": {fault.name: fault.count for fault in self.faults},
            "clients": len(self.history.records),
            "published": len(published),
            "tried again": sum(p.tries > 1 for p in published),
            "arrived": len(events) - sum(isinstance(event, Proved) for event in events),
            "replays": self.history.replays(),
            "gaps": self.history.gaps(),
            "resets": len({e for e in events if isinstance(e, Gap) and e.reason == "reset"}),
            "forgotten": sum(self.history.forgot(p.offset) for p in published if p.offset),
        }

    def evidence(self, found: list[Violation]) -> str:
        """Keep what happened in a directory, and return a report that names it."""
        folder = Path(tempfile.mkdtemp(prefix="hub-chaos-"))
        (folder / "faults").write_text("\n".join(self.log))
        (folder / "numbers").write_text(json.dumps(self.numbers(), indent=1))
        (folder / "violations").write_text("\n".join(map(str, found)))
        for record in self.history.records:
            (folder / record.name).write_text("\n".join(map(repr, record.events)))
        published = self.history.publications.values()
        (folder / "publications").write_text("\n".join(map(repr, published)))
        (folder / "forgotten").write_text("\n".join(map(repr, self.history.forgotten)))
        for number, hub in enumerate(self.cluster.hubs):
            (folder / f"hub{number}.log").write_text(hub.log.read_text(errors="replace"))
        rules = collections.Counter(violation.rule for violation in found)
        few = "\n".join(map(str, found[:20]))
        return f"seed {self.seed}, evidence in {folder}: {dict(rules)}\n{self.progress()}\n{few}"


@contextlib.asynccontextmanager
async def raging(
    seed: int, scale: int = 4, faults: Sequence[type[Fault]] = ALL, *, long: bool = False
) -> AsyncIterator[Storm]:
    """Yield a storm that is about to begin, with everybody there."""
    async with Cluster() as cluster:
        crowd = Crowd(cluster, seed, scale)
        try:
            await crowd.gather()
            await crowd.load()
            yield Storm(cluster, crowd, seed, faults, long=long)
        finally:
            await crowd.part()

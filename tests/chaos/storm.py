"""A storm: steady load from clients of every kind, and faults of every kind at random, until it has done enough."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import random
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from tests.chaos.checker import Violation, check
from tests.chaos.clients import JS, Bare, Member, Python, StockPython
from tests.chaos.cluster import Cluster
from tests.chaos.faults import ALL, Fault, SlowReaders
from tests.chaos.history import Proved
from tests.chaos.producers import Producer
from tests.support.times import SOON

# Calm rooms keep more than anybody misses; the flood passes a log's length within seconds.
CALM = ["calm-1", "calm-2", "calm-3"]
FLOOD = "flood"


class Storm:
    """One run. `seed` decides who is struck by what, and when; the machine's pace decides the rest.

    `scale`: members of each kind.
    """

    def __init__(self, cluster: Cluster, seed: int, scale: int = 4) -> None:
        self.cluster = cluster
        self.seed = seed
        self.history = cluster.history
        self._scale = scale
        self._names = 0
        self.members: list[Member] = []
        self.producers: list[Producer] = []
        self.faults = [fault(cluster, random.Random(f"{seed} {fault.__name__}")) for fault in ALL]
        # What struck when, for whoever has to understand a violation.
        self.log: list[str] = []
        self._began = time.monotonic()
        self._wandering: list[asyncio.Task[None]] = []

    # -- who is there

    def _name(self, kind: str) -> str:
        self._names += 1
        return f"{kind}{self._names}"

    def _door(self) -> str:
        return self.cluster.doors[self._names % len(self.cluster.doors)].url

    def bare(self, transport: str, *, returns: bool, named: bool = False) -> Bare:
        name = self._name("bare")
        record = self.history.record(name, f"bare {transport}", returns=returns)
        return Bare(self._door(), record, transport, name if named else None)

    async def gather(self) -> None:
        """Start everybody, and let all join."""
        rooms_of: list[tuple[Member, list[str]]] = []
        for number in range(self._scale):
            record = self.history.record
            name = self._name("hubclient")
            client = Python(
                self._door(), record(name, "HubClient", returns=True), name if number % 2 else None
            )
            rooms_of.append((client, [*CALM, FLOOD] if number % 2 else CALM))
            name = self._name("stock")
            transport = ("websocket", "polling")[number % 2]
            stock = StockPython(
                self._door(), record(name, f"stock python {transport}", returns=False), transport, name
            )  # fmt: skip
            rooms_of.append((stock, CALM))
            rooms_of.append((self.bare("websocket", returns=True), [*CALM, FLOOD]))
            rooms_of.append((self.bare("polling", returns=True), [*CALM, FLOOD]))
            rooms_of.append((self.bare("websocket", returns=False, named=number % 2 == 0), CALM))
            rooms_of.append((self.bare("polling", returns=False), CALM))
        for _ in range(min(4, max(2, self._scale // 2))):  # a process each
            name = self._name("js")
            js = JS(self._door(), self.history.record(name, "js", returns=True))
            rooms_of.append((js, [*CALM, FLOOD]))
        for member, rooms in rooms_of:
            self.members.append(member)
            await member.start()
            for room in rooms:
                await member.join(room)
        SlowReaders.members = [
            m for m in self.members if isinstance(m, Bare) and m.returns and "polling" in m.kind
        ] + [m for m in self.members if isinstance(m, Bare) and m.returns][:2]

    async def load(self) -> None:
        """Start the producers: one of each kind, each into all calm rooms, and one into the flood."""
        for kind in ("hubclient", "bare", "js"):
            name = self._name(f"{kind}-producer")
            record = self.history.record(name, kind, returns=True)
            member: Member
            if kind == "hubclient":
                member = Python(self._door(), record, name)
            elif kind == "bare":
                member = Bare(self._door(), record, "websocket", name)
            else:
                member = JS(self._door(), record)
            window = 4 if kind == "bare" else 1
            self.producers.append(
                Producer(member, self.history, CALM, pause=0.4 * window, window=window)
            )
        name = self._name("flooder")
        flooder = Bare(
            self._door(), self.history.record(name, "bare", returns=True), "websocket", name
        )
        self.producers.append(
            Producer(flooder, self.history, [FLOOD], pause=0.06, window=10, pad=1000)
        )
        for producer in self.producers:
            await producer.start()

    async def _wander(self, dice: random.Random) -> None:
        """Join, idle, leave a room, be away, come back, say goodbye; then another client does the same."""
        while True:
            transport = dice.choice(["websocket", "polling"])
            member = self.bare(transport, returns=dice.random() < 0.5)
            await member.start()
            try:
                rooms = [room for room in CALM if dice.random() < 0.7]
                for room in rooms:
                    await member.join(room)
                for _ in range(dice.randint(1, 4)):
                    await asyncio.sleep(dice.uniform(0.2, 2))
                    if rooms and dice.random() < 0.5:
                        room = dice.choice(rooms)
                        await member.leave(room)
                        await asyncio.sleep(dice.uniform(0, 1))
                        await member.join(room)
                    else:
                        member.cut(dice.uniform(0, 3))
            finally:
                if dice.random() < 0.5:
                    await member.quit()
                else:
                    await member.stop()
            if member.fault:
                raise AssertionError(f"{member.name} ({member.kind}) {member.fault}")

    # -- what befalls them

    async def rage(self, *, enough: int, limit: float) -> None:
        """Let every fault strike `enough` times at least, within `limit` seconds."""
        self._began = time.monotonic()
        self._wandering = [
            asyncio.create_task(self._wander(random.Random(f"{self.seed} wander {number}")))
            for number in range(self._scale)
        ]
        lanes = collections.defaultdict(list)
        for fault in self.faults:
            lanes[fault.lane].append(fault)
        work = [
            asyncio.create_task(self._lane(name, faults, enough)) for name, faults in lanes.items()
        ]
        everything = asyncio.gather(*work)
        try:
            async with asyncio.timeout(limit):
                done, _ = await asyncio.wait(
                    [everything, *self._wandering], return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    task.result()
        finally:
            everything.cancel()
            await asyncio.gather(everything, return_exceptions=True)
            for task in [*work, *self._wandering]:
                task.cancel()
            await asyncio.gather(*work, *self._wandering, return_exceptions=True)
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
                self._note(f"{fault.name} strikes")
                await fault.strike()
                await asyncio.sleep(dice.uniform(*fault.lasts))
                await fault.heal()
                self._note(f"{fault.name} healed")
                if dice.random() < 0.5 and name == "redis":
                    # Half of them strike hubs that have hardly recovered.
                    with contextlib.suppress(AssertionError):
                        await self.cluster.ready()
                await asyncio.sleep(dice.uniform(0.1, 1.0))

    def _note(self, what: str) -> None:
        self.log.append(f"{time.monotonic() - self._began:7.2f} {what}")

    # -- the end

    async def settle(self, within: float = 4 * SOON) -> list[Violation]:
        """Let everything heal and arrive, and return what is wrong with the story."""
        await self.cluster.ready()
        async with asyncio.timeout(within):
            await asyncio.gather(*(producer.stop() for producer in self.producers))
        last = {room: await self.producers[1].publish(room) for room in [*CALM, FLOOD]}
        found: list[Violation] = []
        deadline = time.monotonic() + within
        rooms = {
            member: [room for room in last if member.last(room)] for member in self.members
        }  # fmt: skip

        def arrived(member: Member) -> bool:
            return all(member.last(room) >= (last[room].offset or 0) for room in rooms[member])

        for member in self.members:
            while not arrived(member) and time.monotonic() < deadline:
                await asyncio.sleep(0.05)
            if not arrived(member):
                has = {room: member.last(room) - (last[room].offset or 0) for room in rooms[member]}
                found.append(Violation("deaf", f"{member.name} ({member.record.kind})", f"{has}"))
            member.record.stayed = True
        for who in [*self.members, *(producer.member for producer in self.producers)]:
            # A stock client whose connection broke in the middle of something may never stop by itself.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SOON):
                    await who.stop()
            if who.fault is not None:
                found.append(Violation("put out", f"{who.name} ({who.record.kind})", who.fault))
        return [*found, *check(self.history)]

    def numbers(self) -> dict[str, object]:
        """Say how much of a storm it was."""
        published = self.history.publications.values()
        return {
            "seed": self.seed,
            "seconds": round(time.monotonic() - self._began),
            "faults": {fault.name: fault.count for fault in self.faults},
            "clients": len(self.history.records),
            "published": len(published),
            "tried again": sum(p.tries > 1 for p in published),
            "arrived": sum(
                len(r.events) - sum(isinstance(e, Proved) for e in r.events)
                for r in self.history.records
            ),
            "replays": self.history.replays(),
            "gaps": self.history.gaps(),
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
        for number, hub in enumerate(self.cluster.hubs):
            (folder / f"hub{number}.log").write_text(hub.log.read_text(errors="replace"))
        rules = collections.Counter(violation.rule for violation in found)
        few = "\n".join(map(str, found[:20]))
        return f"seed {self.seed}, evidence in {folder}: {dict(rules)}\n{few}"


@contextlib.asynccontextmanager
async def raging(seed: int, scale: int = 4) -> AsyncIterator[Storm]:
    """Yield a storm that is about to begin, with everybody there."""
    async with Cluster() as cluster:
        storm = Storm(cluster, seed, scale)
        try:
            await storm.gather()
            await storm.load()
            yield storm
        finally:
            for producer in storm.producers:
                await producer.cancel()
            for member in [*storm.members, *(producer.member for producer in storm.producers)]:
                with contextlib.suppress(Exception):
                    await member.stop()

"""Who is there in a storm: clients of every kind, those that come and go, and producers that keep a steady load."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Iterator

from tests.chaos.bare import Bare, Twin
from tests.chaos.clients import JS, Python, StockPython
from tests.chaos.cluster import Cluster
from tests.chaos.member import Member
from tests.chaos.producers import Producer
from tests.support.times import MS, SOON, UNIT

# Calm rooms keep more than anybody misses; the flood passes a log's length within seconds.
CALM = ["calm-1", "calm-2", "calm-3"]
FLOOD = "flood"
# Where messages are volatile, expire, or carry binary data.
MIXED = "mixed"
# Where many listen and little is said.
QUIET = "quiet"
ROOMS = [*CALM, FLOOD, MIXED, QUIET]
# Of those who mostly idle, for each member of another kind.
IDLE = 40


class Crowd:
    """Everybody. `scale`: members of each kind; `seed` decides what those do who come and go."""

    def __init__(self, cluster: Cluster, seed: int, scale: int) -> None:
        self.cluster = cluster
        self.history = cluster.history
        self._seed = seed
        self._scale = scale
        self._names = 0
        self._wandering: list[asyncio.Task[None]] = []
        self._acknowledging: list[asyncio.Task[None]] = []
        self.members: list[Member] = []
        self.producers: list[Producer] = []

    # -- who comes

    def _name(self, kind: str) -> str:
        self._names += 1
        return f"{kind}{self._names}"

    def _door(self) -> str:
        return self.cluster.doors[self._names % len(self.cluster.doors)].url

    def bare(
        self, transport: str, *, returns: bool, named: bool = False, manual: bool = False
    ) -> Bare:
        name = self._name("bare")
        record = self.history.record(name, f"bare {transport}", returns=returns, manual=manual)
        return Bare(self._door(), record, transport, name if named else None)

    def hub_client(self, *, named: bool, manual: bool = False) -> Python:
        name = self._name("hubclient")
        record = self.history.record(name, "HubClient", returns=not manual, manual=manual)
        return Python(self._door(), record, name if named else None)

    def stock_python(self, *transports: str) -> StockPython:
        name = self._name("stock")
        kind = f"stock python {'+'.join(transports)}"
        record = self.history.record(name, kind, returns=False)
        return StockPython(self._door(), record, transports, name)

    def js(self) -> JS:
        """With its defaults: polling first, then the upgrade."""
        name = self._name("js")
        return JS(self._door(), self.history.record(name, "js", returns=True))

    def rivals(self) -> Iterator[Member]:
        """Four clients of two names, two each, that take over from each other.

        Of one name each keeps its offset, and so has a story of its own; of the other nobody keeps anything, and the
        story is the session's.
        """
        name = self._name("rival")
        for transport in ("websocket", "polling"):
            record = self.history.record(self._name("rival"), "rival", returns=True)
            yield Bare(self._door(), record, transport, name, rival=True)
        name = self._name("twins")
        shared = self.history.record(name, "twins", returns=False)
        for transport in ("websocket", "polling"):
            yield Twin(self._door(), shared, transport, name)
            self._names += 1

    def _everybody(self) -> Iterator[tuple[Member, list[str]]]:
        most, all_of_them = [*CALM, MIXED], [*CALM, MIXED, FLOOD]
        transports = (["websocket"], ["polling"], ["polling", "websocket"])
        for number in range(self._scale):
            yield self.hub_client(named=number % 2 > 0), all_of_them if number % 2 else most
            yield self.stock_python(*transports[number % 3]), most
            yield self.bare("websocket", returns=True), all_of_them
            yield self.bare("polling", returns=True), all_of_them
            yield self.bare("websocket", returns=False, named=number % 2 == 0), most
            yield self.bare("polling", returns=False), most
            if number % 2:
                yield self.hub_client(named=True, manual=True), CALM
                yield self.bare("websocket", returns=False, named=True, manual=True), CALM
        for _ in range(min(4, max(2, self._scale // 2))):  # a process each
            yield self.js(), all_of_them
        for rival in self.rivals():
            yield rival, CALM
        for number in range(self._scale * IDLE):
            yield self.bare("websocket", returns=True, named=number % 4 == 0), [QUIET]

    async def gather(self) -> None:
        """Start everybody, and let all join."""
        arriving = []
        for member, rooms in self._everybody():
            self.members.append(member)
            arriving.append(self._arrive(member, rooms))
            if len(arriving) == 20:
                await asyncio.gather(*arriving)
                arriving.clear()
        await asyncio.gather(*arriving)
        self._acknowledging = [
            asyncio.create_task(member.acknowledge())
            for member in self.members
            if member.record.manual
        ]
        readers = [m for m in self.members if isinstance(m, Bare) and m.returns]
        polling = [m for m in readers if "polling" in m.kind]
        self.cluster.readers = polling + readers[: self._scale]

    async def _arrive(self, member: Member, rooms: list[str]) -> None:
        await member.start()
        for room in rooms:
            await member.join(room)

    async def load(self) -> None:
        """Start the producers: one of each kind, each into all calm rooms, and one into each of the others."""
        slow: list[Member] = [self.hub_client(named=True), self.js()]
        quick = self.bare("websocket", returns=True, named=True)
        flooder = self.bare("websocket", returns=True, named=True)
        varied = self.bare("polling", returns=True, named=True)
        history = self.history
        self.producers = [
            Producer(quick, history, CALM, pause=1600 * MS, window=4),
            *(Producer(member, history, CALM, pause=400 * MS) for member in slow),
            Producer(flooder, history, [FLOOD], pause=60 * MS, window=10, pad=1000),
            Producer(varied, history, [MIXED], pause=500 * MS, window=3, traits=True),
            Producer(self.hub_client(named=True), history, [MIXED], pause=300 * MS, traits=True),
            Producer(self.js(), history, [MIXED], pause=300 * MS, traits=True),
            Producer(self.bare("websocket", returns=True), history, [QUIET], pause=500 * MS),
        ]
        for producer in self.producers:
            await producer.start()

    # -- those who come and go

    def wander(self) -> list[asyncio.Task[None]]:
        """Let others come and go, until `rest`; return who does so, none of whom may end."""
        self._wandering = [
            asyncio.create_task(self._wander(random.Random(f"{self._seed} wander {number}")))
            for number in range(self._scale)
        ]
        return self._wandering

    async def rest(self) -> None:
        for task in self._wandering:
            task.cancel()
        await asyncio.gather(*self._wandering, return_exceptions=True)

    async def _wander(self, dice: random.Random) -> None:
        """Join, idle, leave a room, be away, come back, say goodbye; then another client does the same."""
        gate = self.cluster.gate
        while True:
            transport = dice.choice(["websocket", "polling"])
            member = self.bare(transport, returns=dice.random() < 0.5)
            rooms = [room for room in [*CALM, MIXED] if dice.random() < 0.6]
            try:
                async with gate.passing():
                    await member.start()
                    await member.began()
                    for room in rooms:
                        await member.join(room)
                for _ in range(dice.randint(1, 4)):
                    await asyncio.sleep(dice.uniform(200 * MS, 2 * UNIT))
                    if rooms and dice.random() < 0.5:
                        room = dice.choice(rooms)
                        async with gate.passing():
                            await member.leave(room)
                            await asyncio.sleep(dice.uniform(0, UNIT))
                            await member.join(room)
                    else:
                        member.cut(dice.uniform(0, 3 * UNIT))
            finally:
                if dice.random() < 0.5:
                    await member.quit()
                else:
                    await member.stop()
            if member.fault:
                raise AssertionError(f"{member.name} ({member.kind}) {member.fault}")

    # -- the end

    async def part(self) -> None:
        """Stop everybody, those too that do not stop by themselves."""
        await self.rest()
        for task in self._acknowledging:
            task.cancel()
        await asyncio.gather(*self._acknowledging, return_exceptions=True)
        for producer in self.producers:
            await producer.cancel()
        await asyncio.gather(*(self._stop(member) for member in self.present()))

    def present(self) -> list[Member]:
        return [*self.members, *(producer.member for producer in self.producers)]

    async def _stop(self, member: Member) -> None:
        """Stop a member, and say so where that fails: what it did was judged, now it only has to go.

        A stock client whose reconnection hangs does not stop, and one whose reconnection was cancelled for that is
        cancelled too: a task of its own keeps both from those who wait for it.
        """
        stopping = asyncio.create_task(member.stop())
        await asyncio.wait([stopping], timeout=SOON)
        why = ""
        if not stopping.done():
            stopping.cancel()
            await asyncio.wait([stopping], timeout=SOON)
            why = "does not stop"
        elif stopping.cancelled():
            why = "has been cancelled"
        elif error := stopping.exception():
            why = repr(error)
        if why:
            print(f"{member.name} ({member.kind}): {why}", file=sys.stderr)

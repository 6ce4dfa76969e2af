"""A deploy as clients see it: a hub is told to end, and all of its clients go over to another one."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field

from tests.support.hubs import Hub
from tests.support.light import Light, Refused
from tests.support.times import MS, SOON

ROOM = "deploy"
# As stock JavaScript clients have it: seconds before the first attempt, give or take a half, doubled up to the last.
DELAY, LAST_DELAY = 1.0, 5.0
# Connections that are being made at a time while all are brought in.
AT_A_TIME = 100


class Client:
    """Somebody who stays, whatever it takes: connects to `old`, and to `new` from then on."""

    def __init__(self, old: Hub, new: Hub, chance: random.Random) -> None:
        self._new, self._chance = new, chance
        self._old = old
        self._light: Light
        # Of the connection that was ended: when, and its close code.
        self.let_go = 0.0
        self.code = 0
        # Seconds from there to the next CONNECT reply, and how many of them were its own to wait.
        self.away = 0.0
        self.waited = 0.0
        self.refused = 0
        self.recovered = False
        self._heard: list[int] = []

    @property
    def heard(self) -> list[int]:
        return self._heard + self._light.heard

    @property
    def gaps(self) -> int:
        return len(self._light.gaps)

    async def arrive(self) -> None:
        self._light = await (await Light.open("127.0.0.1", self._old.port)).connect()
        answer = await self._light.ask("subscribe", room=ROOM)
        assert answer["ok"], answer

    async def move(self) -> None:
        """Wait for the end of the connection, and come back."""
        clock = asyncio.get_running_loop().time
        old = self._light
        self.code = await old.closed
        self.let_go = clock()
        self._heard = old.heard
        delay = DELAY
        while True:
            pause = delay * self._chance.uniform(0.5, 1.5)
            self.waited += pause
            await asyncio.sleep(pause)
            try:
                back = await Light.open("127.0.0.1", self._new.port)
                self._light = await back.connect(pid=old.pid, offset=old.offset)
                break
            except (Refused, ConnectionError):
                self.refused += 1
                delay = min(2 * delay, LAST_DELAY)
        self.away = clock() - self.let_go
        self.recovered = self._light.pid == old.pid

    def leave(self) -> None:
        self._light.cut()


@dataclass
class Deploy:
    """What came of it. Times are seconds; `let_go` is when each was, since the signal."""

    clients: list[Client]
    published: list[int]
    # From the signal to the process's end, and to the last client's return.
    ended: float
    back: float
    let_go: list[float] = field(default_factory=list)

    @property
    def longest(self) -> float:
        """The longest that anybody was away, its own delays aside."""
        return max(client.away - client.waited for client in self.clients)

    @property
    def codes(self) -> Counter[int]:
        return Counter(client.code for client in self.clients)

    def most_within(self, seconds: float) -> int:
        """Return how many were let go within the busiest spell of so many seconds."""
        times, first, most = sorted(self.let_go), 0, 0
        for last, time in enumerate(times):
            while times[first] < time - seconds:
                first += 1
            most = max(most, last - first + 1)
        return most

    def wrong(self) -> list[Client]:
        """Return who did not hear everything, once and in order, by the same session and without a gap."""
        return [
            client
            for client in self.clients
            if client.heard != self.published or client.gaps or not client.recovered
        ]


async def deploy(
    old: Hub, new: Hub, count: int, *, seed: int = 1, pause: float = 100 * MS
) -> Deploy:
    """Let `count` clients of `old` hear a message each `pause` seconds, end `old`, and wait until all are on `new`."""
    loop = asyncio.get_running_loop()
    chance = random.Random(seed)
    clients = [Client(old, new, chance) for _ in range(count)]
    for start in range(0, count, AT_A_TIME):
        await asyncio.gather(*(client.arrive() for client in clients[start : start + AT_A_TIME]))
    producer = await (await Light.open("127.0.0.1", new.port)).connect()
    published: list[int] = []
    enough = asyncio.Event()

    async def publish() -> None:
        while not enough.is_set():
            number = len(published)
            answer = await producer.ask("publish", room=ROOM, event="m", data=number)
            assert answer["ok"], answer
            published.append(number)
            await asyncio.sleep(pause)

    publishing = asyncio.create_task(publish())
    moving = [asyncio.create_task(client.move()) for client in clients]
    await asyncio.sleep(10 * pause)
    began = loop.time()
    assert await asyncio.to_thread(old.terminate) == 0
    ended = loop.time() - began
    await asyncio.gather(*moving)
    back = loop.time() - began
    enough.set()
    await publishing
    deadline = loop.time() + SOON
    result = Deploy(clients, published, ended, back, [c.let_go - began for c in clients])
    while result.wrong() and loop.time() < deadline:
        await asyncio.sleep(50 * MS)
    for client in clients:
        client.leave()
    producer.cut()
    return result

"""A drill: two hubs, a few raw clients, and one story of what breaks, told so that a certain rule is needed.

What happened is judged by the same checker as the storm.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.bare import Bare
from tests.chaos.checker import Violation, check
from tests.chaos.cluster import PREFIX, Cluster
from tests.chaos.deadline import deadline
from tests.chaos.history import Began, Gap, Got, Publication
from tests.support.hubs import MAIN
from tests.support.raw import Raw
from tests.support.times import MS, SOON, UNIT, eventually, eventually_true

# Seconds by which a drill makes something late that others are to overtake.
LATE = 400 * MS
# Seconds within which a client that is live hears a message.
HEARD = 4 * UNIT
# Seconds within which a story has ended: fewer than pytest gives a test, as that could not say how it stands.
PLAY = 4 * SOON
# Seconds within which one is told of a gap.
TOLD = 2 * UNIT


class Brittle(Bare):
    """A client whose connection breaks right behind a gap, once."""

    brittle = False

    def said(self, session: Any, said: tuple[str, list[Any], Any]) -> None:
        if session is self.session and self.brittle and said[0] == "hub:gap":
            super().said(session, said)
            self.brittle = False
            self.session = None
            session.closed = True
            return
        super().said(session, said)


class Drill:
    """What a story is told with. Clients are at hub 0 unless told otherwise; what is published comes by hub 1."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.history = cluster.history
        self.wire, self.door = cluster.wires[0], cluster.doors[0]
        self.members: list[Bare] = []
        # What the story expects beyond PROTOCOL §5, and found otherwise.
        self.unexpected: list[str] = []
        # One at each hub.
        self._producers: list[Raw] = []
        self._numbers = itertools.count(1)

    @property
    def redis(self) -> Any:
        return self.cluster.redis.client

    def key(self, name: str) -> str:
        return f"{PREFIX}:{{0}}:{name}"

    def session(self, member: Bare) -> str:
        assert member._pid is not None
        return self.key(f"session:{member._pid.split('.')[0]}")

    # -- who is there

    async def start(self) -> None:
        for hub in self.cluster.hubs:
            self._producers.append(await Raw(hub.url).open())
            await self._producers[-1].connect()

    async def kill_all(self) -> None:
        """Kill both hubs, of which neither parks anybody then."""
        await self._part()
        for hub in self.cluster.hubs:
            await asyncio.to_thread(hub.kill)

    async def start_all(self) -> None:
        """Start them again."""
        for hub in self.cluster.hubs:
            await asyncio.to_thread(hub.start)
        await self.start()

    async def _part(self) -> None:
        for producer in self._producers:
            await producer.drop()
        self._producers.clear()

    async def client(
        self, *rooms: str, name: str | None = None, hub: int = 0, manual: bool = False
    ) -> Brittle:
        """Connect a client that keeps its offset, or acknowledges by hand, and join rooms."""
        label = name or f"client{next(self._numbers)}"
        record = self.history.record(label, "drill", returns=not manual, manual=manual)
        member = Brittle(self.cluster.doors[hub].url, record, "websocket", name)
        self.members.append(member)
        await member.start()
        await member.began()
        await eventually(lambda: member._pid)
        for room in rooms:
            await member.join(room)
        return member

    async def go(self, member: Bare) -> None:
        """Cut a client's connection, and wait until the hub has noticed."""
        await member.stop()
        await self.away(member)

    async def away(self, member: Bare) -> None:
        session = self.session(member)
        await eventually(lambda: self.redis.hget(session, "away") == "1", what="not parked")

    async def back(self, member: Bare) -> None:
        """Let a client come back, and wait until its connection has begun."""
        before = self.began(member)
        await member.start()
        await eventually(lambda: self.began(member) > before, what="does not come back")

    async def return_(self, member: Bare) -> None:
        """Go and come back."""
        await self.go(member)
        await self.back(member)

    def began(self, member: Bare) -> int:
        return sum(isinstance(event, Began) for event in member.record.events)

    # -- what is said

    async def say(self, *rooms: str, pad: int = 0, hub: int = 1) -> None:
        """Publish one message into each room, in that order."""
        for room in rooms:
            key = f"{room}{next(self._numbers)}"
            publication = Publication(room, key, time.monotonic())
            self.history.publications[key] = publication
            data = {"k": key, "x": "x" * pad}
            offset = await self._producers[hub].publish(room, data, id=key)
            publication.offset, publication.acked_at = int(offset), time.monotonic()

    async def until(self, condition: Callable[[], object]) -> None:
        await eventually(condition)

    async def heard(self, member: Bare) -> None:
        """Wait until a client has got the last message of its rooms."""
        last = max(
            publication.offset or 0
            for publication in self.history.publications.values()
            if publication.room in member.rooms
        )
        await eventually(lambda: member.offset >= last, what="has not heard the last message")

    def listeners(self, room: str) -> int:
        """Return how many hubs' buses listen to a room."""
        [(_, count)] = self.redis.pubsub_numsub(self.key(f"bus:room:{room}"))
        return int(count)

    async def ready(self, hub: int = 0) -> None:
        """Wait until a hub says that it is ready."""

        async def is_ready() -> bool:
            return await self.cluster.readiness(hub) == 200

        await eventually_true(is_ready)

    async def told(self, member: Bare) -> None:
        """Give a client time to be told of a gap; the checker says whether it was."""
        with contextlib.suppress(AssertionError):
            await eventually(lambda: self.gaps(member), TOLD)

    async def fill(self, member: Bare, room: str) -> None:
        """Let nothing reach hub 0's clients, and publish until one of them is parked for being slow."""
        self.door.stall("down")
        session = self.session(member)
        while self.redis.hget(session, "away") != "1":
            await self.say(room, pad=200_000)

    def expect(self, condition: object, what: str) -> None:
        if not condition:
            self.unexpected.append(what)

    def gaps(self, member: Bare) -> list[Gap]:
        return [event for event in member.record.events if isinstance(event, Gap)]

    # -- the end

    def progress(self) -> str:
        """Say what has been done to the ways, how often, and how the clients stand."""
        ways = {"way to Redis": self.cluster.wires, "door": self.cluster.doors}
        struck = [
            f"{what} {number}: {kind} {count}"
            for what, proxies in ways.items()
            for number, proxy in enumerate(proxies)
            for kind, count in proxy.strikes.items()
        ]
        clients = [
            f"{member.name} began {self.began(member)} times, is at {member.offset}, {member.fault=}"
            for member in self.members
        ]
        published = f"{len(self.history.publications)} messages published"
        return f"struck so far: {', '.join(struck) or 'nothing'}\n" + "\n".join(
            [published, *clients]
        )

    async def settle(self, reasons: tuple[str, ...], *, remembered: bool) -> list[Violation]:
        """Let everybody hear a last message of each room, and judge."""
        found = []
        rooms = sorted({publication.room for publication in self.history.publications.values()})
        await self.say(*rooms)
        last = {p.room: p.offset or 0 for p in self.history.publications.values()}
        for member in self.members:
            joined = [room for room in rooms if room in member.rooms]

            def arrived(member: Bare = member, joined: list[str] = joined) -> bool:
                got = {e.offset for e in member.record.events if isinstance(e, Got)}
                return all(last[room] in got for room in joined)

            try:
                await eventually(arrived, HEARD)
            except AssertionError:
                found.append(Violation("deaf", member.name, f"has not heard the last of {joined}"))
            member.record.stayed = True
            if member.fault is not None:
                found.append(Violation("put out", member.name, member.fault))
        found += [Violation("unexpected", "the story", what) for what in self.unexpected]
        return [*found, *check(self.history, reasons, remembered=remembered)]

    async def stop(self) -> None:
        for member in self.members:
            with contextlib.suppress(Exception):
                await member.stop()
        await self._part()


Story = Callable[[Drill], Awaitable[None]]


@dataclass
class Scene:
    """A story, and what the hubs are told for it; `reasons`: of gaps that may be told.

    `remembered`: the hubs live on, and have to tell what a lost primary took with it.
    `hold`: what the hubs themselves are slow at (see `tests.chaos.build`).
    """

    story: Story
    settings: dict[str, Any] = field(default_factory=dict)
    reasons: tuple[str, ...] = ("overflow",)
    hold: str = ""
    remembered: bool = False


async def play(scene: Scene, rule: str | None) -> list[Violation]:
    """Tell a story, with a rule switched off or none; return what went wrong."""
    build = ("-m", "tests.chaos.build", rule or "", scene.hold)
    main = build if rule or scene.hold else MAIN
    async with Cluster(hubs=2, doors=2, main=main, **scene.settings) as cluster:
        drill = Drill(cluster)
        await drill.start()
        try:
            async with deadline(PLAY) as limit:
                limit.progress = drill.progress
                await scene.story(drill)
                return await drill.settle(scene.reasons, remembered=scene.remembered)
        finally:
            await drill.stop()

"""A random walk over everything that can happen to nodes, clients and Redis, and the promises checked at its end.

The record of what Redis did (`Truth`) is kept apart from the product; a client knows what arrived. PROTOCOL §5 is what
must follow from the one for the other: no loss without a gap, order, no repeats, exact gaps, nothing uncalled for.
"""

from __future__ import annotations

import asyncio
import collections
import functools
import json
import random
from collections import deque
from typing import Any

import hiredis

from hub.api.registry import VERBS
from hub.api.requests import PublishRequest, SubscribeRequest, UnsubscribeRequest
from hub.errors import Unavailable
from hub.message import encode, meta
from hub.pid import Pid
from hub.pubsub.session import Session
from tests.integration.walk.lab import Bad, Host, Lab, Past, Peer
from tests.support.redis import RedisServer
from tests.support.socketio_wire import ACK, DISCONNECT, decode
from tests.support.switches import Mutation


class Message:
    """What was published, as Redis took it."""

    def __init__(
        self, number: int, room: str, sender: str | None, echo: bool, volatile: bool
    ) -> None:
        self.number = number
        self.room = room
        self.sender = sender
        self.echo = echo
        self.volatile = volatile
        self.offset = 0

    def __repr__(self) -> str:
        return f"{self.number}@{self.offset % 10**9}:{self.room}"


class Truth:
    """A session as Redis has it: when it was in which room."""

    def __init__(self, client: str, generation: str) -> None:
        self.client = client
        self.generation = generation
        self.rooms: dict[str, list[list[int | None]]] = collections.defaultdict(list)


class Connection:
    """A client's connection to a node: what the client has sent, and whether each side knows that it is over."""

    def __init__(self, client: Client, host: Host, number: int) -> None:
        self.client = client
        self.host = host
        self.id = f"c{number}"
        self.peer = Peer(self.id)
        self.peer.on_closed = self.closed  # type: ignore[method-assign]
        self.sent: deque[tuple[Any, ...]] = deque()
        # By room: the newest message that came over it, and how far a subscription was answered to reach.
        self.newest: dict[str, int] = {}
        self.answered: dict[str, int] = {}
        # True: it was told that it is ended for good.
        self.closing = False
        # Verbs that await their answer, by the id of their packet.
        self.asked: dict[str, tuple[str, str]] = {}
        self.session: Session | None = None
        self.pipeline: Any = None
        self.connecting = False
        # The client's side is gone and the node has not noticed.
        self.cut = False
        # The node has noticed, or has ended it.
        self.over = False

    def closed(self) -> None:
        """The node has closed it."""
        self.over = True


class Client:
    """A stock client: `js` sends pid and offset back, with or without a name, `py` its name alone."""

    def __init__(self, world: World, name: str, kind: str) -> None:
        self.world = world
        self.name = name
        self.kind = kind
        self.named = name != "js1"
        self.connection: Connection | None = None
        self.slow = False
        self.pid: str | None = None
        self.offset: int | None = None
        self.deliberate = False
        self.away_since: float | None = None
        self.begin("", "")

    def begin(self, client_id: str, generation: str) -> None:
        """Forget what an earlier session was about."""
        self.client_id = client_id
        self.generation = generation
        self.received: list[Message] = []
        self.seen: set[int] = set()
        self.gaps: list[tuple[str, int, int, int | None, str]] = []
        # What will never come, by what it was told; and what of that earlier connections were told.
        self.lost: list[tuple[str, int, int]] = []
        self.lost_before: list[tuple[str, int, int]] = []
        self.newest = 0
        # Rooms it knows to be in, and from what offset on it may expect their messages.
        self.rooms: dict[str, int] = {}
        # Rooms whose answer never came, and what had arrived when `hub:session` told of them.
        self.late: dict[str, int] = {}
        self.ready = False

    def left(self) -> None:
        self.connection = None
        self.ready = False
        if self.away_since is None:
            self.away_since = self.world.lab.elapsed

    def auth(self) -> tuple[str | None, Pid | None, int | None]:
        if self.kind == "py":
            return self.name, None, None
        pid = Pid.parse(self.pid) if self.pid else None
        return self.name if self.named else None, pid, self.offset if pid else None

    def got(self, item: Any) -> None:
        """Take what the node wrote, as the client would."""
        if isinstance(item, tuple):
            getattr(self, "got_" + item[0])(*item[1:])
            return
        packet = decode(f"4{item.packets[0]}")
        if packet.type == ACK:
            self.got_answer(*self.connection.asked.pop(str(packet.number)), packet.data[0])
        elif packet.type == DISCONNECT:
            self.got_41()
        elif packet.data[0] == "hub:session":
            self.got_session(packet.data[1], int(packet.data[2]))
        elif packet.data[0] == "hub:closing":
            self.connection.closing = packet.data[1]["reason"] == "replaced"
        elif packet.data[0] == "hub:gap":
            self.got_gap(packet.data[1], int(packet.data[2]))
        else:
            self.got_message(packet.data)

    def got_connect(self, how: str, pid: str) -> None:
        client_id, generation = pid.rsplit(".", 3)[:2]
        if (client_id, generation) != (self.client_id, self.generation):
            since = self.away_since
            away = 0.0 if since is None else self.world.lab.elapsed - since
            if self.client_id and not self.deliberate and away < self.world.life:
                raise Bad(f"{self.name}: session lost although away for only {away} s")
            if how == "pid":
                raise Bad(f"{self.name}: recovered, and yet another session")
            self.begin(client_id, generation)
        self.pid = pid
        self.away_since = None
        self.deliberate = False

    def got_session(self, data: dict[str, Any], offset: int) -> None:
        for room in data["rooms"]:
            if room not in self.rooms:
                self.rooms[room] = offset
                self.late[room] = self.newest
        for room in set(self.rooms) - set(data["rooms"]):
            del self.rooms[room]
        self.lost_before = list(self.lost)
        if self.newest in self.world.forgotten and offset < self.newest:
            # It has seen more than Redis remembers: a reset, and again what was not proven.
            self.seen = {each for each in self.seen if each <= offset}
            self.received = [each for each in self.received if each.offset <= offset]
            self.newest = offset
        self.ready = True
        self.offset = offset

    def got_answer(self, verb: str, room: str, answer: dict[str, Any]) -> None:
        if not answer["ok"]:
            return
        if verb == "subscribe":
            offset = int(answer["offset"])
            if offset < self.connection.newest.get(room, 0):
                raise Bad(
                    f"{self.name}: answered {room} from {offset} on, after {self.connection.newest}"
                )
            self.connection.answered[room] = offset
            if self.kind == "js" and offset < self.rooms.get(room, 0):
                raise Bad(
                    f"{self.name}: promised {room} from {offset} on, and is behind {self.rooms}"
                )
            self.rooms.setdefault(room, offset)
        elif verb == "unsubscribe":
            self.rooms.pop(room, None)

    def got_message(self, packet: list[Any]) -> None:
        message = self.world.messages[packet[1]["i"]]
        offset = int(packet[3])
        world = self.world
        world.stat["events"] += 1
        if offset != message.offset or packet[2]["room"] != message.room:
            raise Bad(f"{self.name}: {message} came as {packet}")
        if message.room not in self.rooms:
            raise Bad(f"{self.name}: {message} of a room that it is not in: {self.rooms}")
        history = world.truth[self.client_id, self.generation].rooms[message.room]
        if not any(join < offset for join, _ in history):
            raise Bad(f"{self.name}: {message} from before it joined: {history}")
        connection = self.connection
        if offset <= connection.answered.get(message.room, 0):
            raise Bad(f"{self.name}: {message} after an answer from {connection.answered} on")
        connection.newest[message.room] = offset
        if self.kind == "js" and offset <= self.rooms[message.room]:
            raise Bad(f"{self.name}: {message} after an answer that put it before {self.rooms}")
        if message.offset in self.seen:
            if self.kind == "js":
                raise Bad(f"{self.name}: {message} twice")
        elif (
            offset < self.newest
            and offset > self.late.get(message.room, 0)
            and not self.taken_back(message)
        ):
            raise Bad(f"{self.name}: {message} after {self.newest}")
        if not message.echo and message.sender == self.client_id:
            raise Bad(f"{self.name}: own {message} with echo off")
        for room, after, before in self.lost:
            if self.kind == "js" and room == message.room and after < offset < before:
                raise Bad(f"{self.name}: {message} lies in a gap told before: {after}-{before}")
        self.seen.add(offset)
        self.newest = max(self.newest, offset)
        self.received.append(message)
        self.offset = offset

    def taken_back(self, message: Message) -> bool:
        """Tell whether a message was told as lost to an earlier connection, and Redis has forgotten that it cut it off."""
        return bool(self.world.forgotten) and any(
            room == message.room and after < message.offset < before
            for room, after, before, _, _ in self.gaps
        )

    def got_gap(self, gap: dict[str, Any], offset: int) -> None:
        room, after, before = gap["room"], int(gap["after"]), int(gap["before"])
        self.world.stat["gaps"] += 1
        if room not in self.rooms:
            raise Bad(f"{self.name}: gap in a room that it is not in: {gap}")
        forgotten = self.world.forgotten
        for message in self.received if self.kind == "js" else ():
            if message.room != room or message.volatile or message.offset in forgotten:
                continue
            if after < message.offset < before:
                raise Bad(f"{self.name}: the gap {gap} names {message}, which was received")
        if gap["reason"] == "reset":
            # What Redis had cut off is there again, and its sessions do not know what they were told.
            self.lost = [each for each in self.lost if each not in self.lost_before]
        self.lost.append((room, after, before))
        self.gaps = [
            each for each in self.gaps
            if not (each[0] == room and after <= each[1] and each[2] <= before)
        ]  # fmt: skip
        self.gaps.append((room, after, before, gap["dropped"], gap["reason"]))
        self.offset = offset

    def got_ping(self) -> None:
        if self.connection is not None:
            self.connection.sent.append(("pong",))

    def got_polled(self) -> None:
        if self.connection is not None:
            self.connection.sent.append(("poll",))

    def got_41(self) -> None:
        if self.connection is not None and self.connection.session is not None:
            owner = self.world.owners.get(self.client_id)
            if owner == f"{self.connection.host.name}/{self.connection.id}":
                raise Bad(f"{self.name}: put out for good, although nobody has replaced it")
            if not self.connection.closing:
                raise Bad(f"{self.name}: put out for good without a word")
        self.left()


class Ledger(Lab):
    """A lab that keeps a record of what the scripts answered."""

    world: World

    def script_ran(self, node: str, name: str, args: list[str], reply: Any) -> None:
        record = getattr(self, f"{name}_ran", None)
        if record is not None:
            record(node, args, reply)

    def publish_ran(self, _: str, args: list[str], reply: Any) -> None:
        world = self.world
        for body, offset in zip(args[11::5], reply, strict=True):
            message = world.messages[json.loads(f"[{body}]")[1]["i"]]
            message.offset = int(offset)
            if not message.volatile:
                world.stored.append(message)

    def claim_ran(self, _: str, args: list[str], reply: Any) -> None:
        world = self.world
        if reply[0] == b"refused":
            return
        key = client, generation = reply[1].decode(), reply[2].decode()
        if key not in world.truth:
            world.past = None
            world.truth[key] = Truth(client, generation)
            for room, join in zip(reply[9::2], reply[10::2], strict=True):
                world.truth[key].rooms[room.decode()].append([int(join), None])
        world.generations[client] = generation
        world.owners[client] = args[8]

    def subscribe_ran(self, node: str, args: list[str], reply: Any) -> None:
        if not isinstance(reply, list):
            return
        self.world.stat["joined together"] += len(reply) > 2
        for room, join, now in zip(args[3::2], reply[::2], reply[1::2], strict=True):
            if now == b"1":
                self.joined(node, args[0], room, int(join))

    def joined(self, node: str, client: str, room: str, join: int) -> None:
        rooms = self.rooms([client, "", room])
        if rooms and rooms[-1][1] is None:
            if self.knows(node, client, room):
                return  # the first join counts
            rooms[-1][1] = join
        rooms.append([join, None])
        self.world.past = None

    def unsubscribe_ran(self, _: str, args: list[str], reply: Any) -> None:
        rooms = self.rooms(args) if reply == b"ok" else []
        if rooms and rooms[-1][1] is None:
            rooms[-1][1] = int(self.admin.call("GET", "w:{0}:clock"))
        self.world.past = None

    def end_session_ran(self, _: str, args: list[str], reply: Any) -> None:
        self.world.past = None
        if reply == b"ok":
            self.world.owners.pop(args[0], None)

    def rooms(self, args: list[str]) -> list[list[int | None]]:
        return self.world.truth[args[0], self.world.generations[args[0]]].rooms[args[2]]

    def knows(self, node: str, client: str, room: str) -> bool:
        session = next(
            (
                session
                for host in self.hosts
                if host.name == node
                for session in host.node.sessions
                if session.client_id == client
            ),
            None,
        )
        return session is not None and room in session.joins


_pack = hiredis.pack_command

WEIGHTS = {
    "cut": 0.5, "bus": 0.12, "commands": 0.06, "crash": 0.05, "pause": 0.04, "leap": 0.12, "slow": 0.15,
    "leave": 0.03, "publish": 3.0, "failover": 0.0,
}  # fmt: skip


class World:
    """Two nodes, three clients, three rooms, and what may happen next."""

    ROOMS = ("A", "B", "C")

    def __init__(
        self,
        server: RedisServer,
        seed: int,
        mutation: Mutation | None = None,
        weights: dict[str, float] | None = None,
        **settings: Any,
    ) -> None:
        self.random = random.Random(seed)
        self.weights = {**WEIGHTS, **(weights or {})}
        self.lab = Ledger(server, mutation, **settings)
        self.lab.world = self
        self.life = self.lab.settings.named_life
        self.messages: list[Message] = []
        self.stored: list[Message] = []
        # What a replica has that has not heard of anything since, and the newest offset in it: nobody has begun or left
        # a session since then, nor a room. Offsets of messages that a lost primary alone had.
        self.past: tuple[Past, int] | None = None
        self.forgotten: set[int] = set()
        self.truth: dict[tuple[str, str], Truth] = {}
        self.generations: dict[str, str] = {}
        self.owners: dict[str, str] = {}
        self.stat: collections.Counter[str] = collections.Counter()
        self.connections: list[Connection] = []
        self.count = 0
        self.asked = 0
        self.faults = True
        self.trace: list[str] = []
        try:
            for number in range(2):
                self.lab.start_host(f"n{number}")
        except BaseException:
            self.lab.close()
            raise
        self.clients = [
            Client(self, "js1", "js"),
            Client(self, "js2", "js"),
            Client(self, "py1", "py"),
        ]

    # -- what may happen

    def choices(self) -> list[tuple[float, Any]]:
        found: list[tuple[float, Any]] = []

        def may(weight: float, action: Any, *args: Any) -> None:
            if weight:
                found.append((weight, functools.partial(action, *args)))

        weights, faults = self.weights, self.faults
        for host in self.lab.hosts:
            if host.alive:
                self.host_choices(host, may)
        if not any(host.paused for host in self.lab.hosts):
            may(0.5, self.tick)
        for connection in self.connections:
            self.connection_choices(connection, may)
        for client in self.clients:
            self.client_choices(client, may)
        if faults:
            may(weights["publish"], self.publish)
            may(weights["leap"], self.leap)
            may(3 * weights["failover"], self.fall_behind)
            if self.past is not None and not any(host.paused for host in self.lab.hosts):
                may(weights["failover"], self.fail_over)
        running = [host for host in self.lab.hosts if host.alive]
        if len(running) < 2:
            may(0.6 if faults or running else 9, self.boot)
        return found

    def host_choices(self, host: Host, may: Any) -> None:
        weights, faults = self.weights, self.faults
        for kind in ("commands", "bus"):
            wire = host.wire(kind)
            if wire is None:
                continue
            if wire.going:
                may(8, wire.execute)
            if wire.coming and host.runs:
                may(8, self.release, wire)
            if faults and not host.paused:
                may(weights[kind], self.break_off, wire)
        if faults:
            may(weights["pause"] if not host.paused else 0.3, self.pause, host)
            may(weights["crash"], self.crash, host)
        elif host.paused:
            may(9, self.pause, host)
        if host.runs:
            rate = 0.4 if faults else 0.06
            for kind, weight in (
                ("renew", 0.5),
                ("sweep", 0.2),
                ("commit", 0.3),
                ("touch", 0.1),
            ):
                if kind not in host.busy:
                    may(weight * rate, self.upkeep, host, kind)

    def connection_choices(self, connection: Connection, may: Any) -> None:
        client, host = connection.client, connection.host
        if not host.runs:
            return
        if client.connection is connection:
            if connection.peer.out and not client.slow:
                may(6, self.read, connection)
            elif connection.over and not connection.peer.out:
                may(4, client.left)
        if (
            connection.sent
            and not connection.over
            and not connection.cut
            and not connection.connecting
        ):
            may(6, self.receive, connection)
            if len(connection.sent) > 1:
                may(3, self.receive_all, connection)
        if connection.cut and not connection.over and not connection.connecting:
            may(1 if self.faults else 9, self.notice, connection)
        if connection.session is not None and not connection.over and not connection.session.closed:
            may(0.3 if self.faults else 0.02, self.ping, connection)
            if client.kind == "py" and self.faults:
                may(3, self.answer_poll, connection)

    def client_choices(self, client: Client, may: Any) -> None:
        connection = client.connection
        if connection is None:
            may(1.5 if self.faults else 9, self.dial, client)
            return
        if client.slow:
            may(0.6 if self.faults else 9, setattr, client, "slow", False)
        if not self.faults:
            return
        if not client.slow:
            may(self.weights["slow"], setattr, client, "slow", True)
        may(self.weights["cut"], self.cut, connection)
        if client.ready and not connection.over:
            room = self.random.choice(self.ROOMS)
            may(0.5 if len(client.rooms) > 1 else 3, connection.sent.append, ("subscribe", room))
            may(0.12, connection.sent.append, ("unsubscribe", room))
            may(0.2, connection.sent.extend, [("subscribe", each) for each in self.ROOMS])
            may(0.3, self.client_publish, connection, room)
            may(self.weights["leave"], self.leave, connection)

    def step(self) -> None:
        found = self.choices()
        number = self.random.choices(range(len(found)), [weight for weight, _ in found])[0]
        action = found[number][1]
        if len(self.trace) < 20000:
            self.trace.append(_words(action))
        self.lab.do(action)
        self.stat["steps"] += 1
        if self.stat["steps"] % 20 == 0:
            self.connections = [
                each for each in self.connections
                if not (each.over or not each.host.alive) or each.client.connection is each
            ]  # fmt: skip

    # -- nodes

    def tick(self) -> None:
        self.lab.loop.now += 0.1

    def release(self, wire: Any) -> None:
        wire.release(self.random.randrange(1, 4))

    def break_off(self, wire: Any) -> None:
        self.stat["cuts"] += not wire.is_bus
        wire.cut(self.random.randrange(len(wire.going) + 1) if not wire.is_bus else 0)

    def pause(self, host: Host) -> None:
        host.paused = not host.paused
        if host.paused and self.random.random() < 0.5:
            self.lab.leap(2 * self.lab.settings.lease)

    def crash(self, host: Host) -> None:
        wire = host.wire("commands")
        host.crash(self.random.randrange(len(wire.going) + 1) if wire is not None else 0)
        for connection in self.connections:
            if connection.host is host:
                connection.over = True
                if connection.client.connection is connection:
                    connection.client.left()
        if self.random.random() < 0.3:
            self.lab.leap(2 * self.lab.settings.lease)

    def boot(self) -> None:
        self.lab.hosts = [host for host in self.lab.hosts if host.alive]
        self.count += 1
        host = Host(self.lab, f"m{self.count}")
        self.lab.hosts.append(host)
        self.lab.loop.create_task(self.start(host))

    async def start(self, host: Host) -> None:
        host.paused = True
        wires = self.lab.wires
        task = self.lab.loop.create_task(host.node.start())
        while not task.done():
            for wire in [wire for wire in wires if wire.node == host.name]:
                if wire.going:
                    wire.execute()
                if wire.coming:
                    wire.release()
            await asyncio.sleep(0)
        await task
        host.paused = False

    def upkeep(self, host: Host, kind: str) -> None:
        sweep, maintenance = host.node.store.leases.sweep, host.node.maintenance
        work = sweep() if kind == "sweep" else getattr(maintenance, kind)()
        host.task(work, kind)

    def fall_behind(self) -> None:
        """From here on a replica hears nothing."""
        clock = self.lab.admin.call("GET", "w:{0}:clock")
        self.past = (self.lab.remember(), int(clock)) if clock else None

    def fail_over(self) -> None:
        """Promote that replica. What is under way may be carried out, for nothing; then every connection is lost."""
        for wire in self.lab.wires:
            if not wire.is_bus:
                for _ in range(self.random.randrange(len(wire.going) + 1)):
                    wire.execute()
        if self.past is None:
            return
        (past, clock), self.past = self.past, None
        self.lab.forget(past)
        self.forgotten.update(each.offset for each in self.messages if each.offset > clock)
        self.stored = [each for each in self.stored if each.offset <= clock]
        self.stat["failovers"] += 1
        self.stat["cuts"] += 1
        for wire in list(self.lab.wires):
            wire.cut(0)

    def leap(self) -> None:
        """Let hours pass, if everything is quiet: nodes keep their leases and sessions meanwhile."""
        lab = self.lab
        if any(wire.going or wire.coming for wire in lab.wires) or any(
            host.paused for host in lab.hosts
        ):
            return
        if any(each.cut and not each.over for each in self.connections):
            return
        alive = [host for host in lab.hosts if host.alive]
        for host in alive:
            if not host.node.store.ready or not lab.admin.call(
                "EXISTS", f"w:{{0}}:node:{host.name}"
            ):
                return
        self.past = None
        keep = int(3 * self.life * 1000)
        served = [session.client_id for host in alive for session in host.node.sessions]
        lab.leap(self.random.choice([self.life / 3, self.life / 2, self.life]))
        for host in alive:
            lab.admin.call(
                "SET", f"w:{{0}}:node:{host.name}", "1", "PX", int(lab.settings.lease * 1000)
            )
            lab.admin.call("SADD", "w:{0}:nodes", host.name)
        for client in served:
            lab.admin.call("PEXPIRE", f"w:{{0}}:session:{client}", keep)

    # -- connections

    def dial(self, client: Client) -> None:
        hosts = [host for host in self.lab.hosts if host.runs]
        if not hosts:
            return
        self.count += 1
        connection = Connection(client, self.random.choice(hosts), self.count)
        connection.host.connections[connection.id] = connection
        client.connection = connection
        client.ready = False
        self.connections.append(connection)
        connection.sent.append(("CONNECT", *client.auth()))

    def read(self, connection: Connection) -> None:
        connection.client.got(connection.peer.read())

    def cut(self, connection: Connection) -> None:
        connection.cut = True
        connection.sent.clear()
        connection.peer.out.clear()
        connection.client.left()

    def leave(self, connection: Connection) -> None:
        connection.sent.append(("41",))
        client = connection.client
        client.left()
        client.deliberate = True

    def notice(self, connection: Connection) -> None:
        connection.over = True
        connection.peer.closed = True
        if connection.session is not None:
            connection.host.task(
                connection.host.node.sessions.detach(connection.session, deliberate=False)
            )

    def ping(self, connection: Connection) -> None:
        connection.peer.ping_now()

    def answer_poll(self, connection: Connection) -> None:
        connection.peer.answer_poll()

    def receive(self, connection: Connection) -> None:
        what, *rest = connection.sent.popleft()
        host, session, pipeline = connection.host, connection.session, connection.pipeline
        if what == "CONNECT":
            connection.connecting = True
            host.node.tasks.spawn(self.connect(connection, *rest))
        elif session is None:
            return
        elif what == "41":
            connection.over = True
            host.task(host.node.sessions.detach(session, deliberate=True))
        elif what == "pong":
            connection.peer.pong()
        elif what == "poll":
            connection.peer.poll()
        else:
            request: Any
            if what == "publish":
                room, echo, volatile = rest
                message = self.message(room, session.client_id, echo, volatile)
                data = b'{"i":%d}' % message.number
                request = PublishRequest(
                    room=room, event="m", data=data, echo=echo, volatile=volatile
                )  # type: ignore[arg-type]
            elif what == "subscribe":
                # A scene may ask for history, too.
                room, *history = rest
                request = SubscribeRequest(room=room, history=history[0] if history else None)
            else:
                request = UnsubscribeRequest(room=rest[0])

            ack = ""
            if what != "publish":
                self.asked += 1
                ack = str(self.asked)
                connection.asked[ack] = (what, rest[0])
            pipeline.submit(VERBS[what], request, [], ack, 100)

    def receive_all(self, connection: Connection) -> None:
        """Let what a client has sent arrive at once."""
        while connection.sent and not connection.over and not connection.connecting:
            self.receive(connection)

    async def connect(
        self, connection: Connection, client_id: str | None, pid: Pid | None, offset: int | None
    ) -> None:
        host = connection.host
        try:
            session = await host.node.sessions.claim(
                connection.peer, client_id=client_id, pid=pid, offset=offset
            )
        except Unavailable:
            connection.over = connection.peer.closed = True
            return
        finally:
            connection.connecting = False
        if session is None:
            raise Bad(f"{connection.client.name}: refused")
        connection.session = session
        connection.pipeline = host.pipeline(connection.peer, session)
        connection.peer.out.append(("connect", session.claim.how, str(session.claim.pid)))
        host.node.sessions.start_session(session)

    def message(self, room: str, sender: str | None, echo: bool, volatile: bool) -> Message:
        self.messages.append(Message(len(self.messages), room, sender, echo, volatile))
        return self.messages[-1]

    def client_publish(self, connection: Connection, room: str) -> None:
        connection.sent.append(
            ("publish", room, self.random.random() < 0.5, self.random.random() < 0.2)
        )

    def publish(self, room: str | None = None, *, volatile: bool | None = None) -> None:
        """Publish from somewhere else: straight into Redis."""
        hosts = [host for host in self.lab.hosts if host.alive]
        if not hosts:
            return
        room = room or self.random.choice(self.ROOMS)
        if volatile is None:
            volatile = self.random.random() < 0.12
        message = self.message(room, None, True, volatile)
        header, body = encode("m", b'{"i":%d}' % message.number, meta(room, None))
        store = hosts[0].node.store
        keys = store.keys
        packed = _pack((
            "EVALSHA", self.lab.scripts["publish"].sha, 1, keys.clock, "0", *store.publishing.fixed_args,
            "v" if volatile else "", room, header, body, "",
        ))  # fmt: skip
        self.lab.admin.send(packed)
        reply = self.lab.admin.receive()
        if isinstance(reply, Exception):
            raise Bad(f"publish: {reply}")
        self.lab.ran("", packed, reply)

    # -- the end

    def settled(self) -> bool:
        lab = self.lab
        return (
            all(
                client.connection is not None and client.ready and not client.slow
                and not client.connection.over
                and client.connection.session is not None and not client.connection.session.closed
                and all(each == ("ping",) for each in client.connection.peer.out)
                and all(each == ("pong",) for each in client.connection.sent)
                for client in self.clients
            )
            and not any(wire.going or wire.coming for wire in lab.wires)
            and all(
                session.state.value == "live" and not session.pauses
                for host in lab.hosts if host.alive for session in host.node.sessions
            )
            and all(host.node.store.ready for host in lab.hosts if host.alive)
            and not any(each.cut and not each.over for each in self.connections if each.host.alive)
        )  # fmt: skip

    def settle(self) -> None:
        """No more faults: everybody comes back, and gets one last message in every room."""
        self.faults = False
        self.trace.append("-- settle")
        self.until_settled(8)
        for room in self.ROOMS:
            self.lab.do(functools.partial(self.publish, room, volatile=False))
        self.until_settled(8)

    def until_settled(self, calm: int) -> None:
        quiet = 0
        for _ in range(4000):
            self.step()
            quiet = quiet + 1 if self.settled() else 0
            if quiet > calm:
                return
        states = [
            (host.name, [(s.client_id, s.state.value) for s in host.node.sessions])
            for host in self.lab.hosts
        ]
        raise Bad(f"does not settle: {states}")

    def check_host(self, host: Host) -> None:
        """A node remembers those whom it serves, and nobody else."""
        node = host.node
        served = set(node.sessions)
        if set(node.sessions._by_connection.values()) != served or any(
            each.closed for each in served
        ):
            raise Bad(f"{host.name}: remembers connections that are gone")
        for room in node.rooms._rooms.values():
            if room.references != len(room.members) or not set(room.members) <= served:
                raise Bad(
                    f"{host.name}: {room.name} is wanted {room.references} times by {len(room.members)}"
                )
        if len(node.store.bus._channels) != len(node.rooms._rooms) + 2:
            raise Bad(f"{host.name}: listens to channels that nobody wants")

    def check(self) -> None:
        """What PROTOCOL §5 promises."""
        for host in self.lab.hosts:
            if host.alive:
                self.check_host(host)
        for client in self.clients:
            truth = self.truth[client.client_id, client.generation]
            self.stat["checked"] += 1
            if not self.lab.admin.call("EXISTS", f"w:{{0}}:session:{client.client_id}"):
                raise Bad(f"{client.name}: its session has ended under a live connection")
            for room, history in truth.rooms.items():
                join, left = history[-1] if history else (None, 0)
                if left is not None:
                    continue
                if room not in client.rooms:
                    # The answer was lost with the connection to Redis: "unavailable" said that nobody knows.
                    if not self.stat["cuts"]:
                        raise Bad(f"{client.name}: is in {room} and does not know it")
                    continue
                assert join is not None
                due = [
                    message for message in self.stored
                    if message.room == room and message.offset > max(join, client.rooms[room])
                ]  # fmt: skip
                self.check_room(client, room, max(join, client.rooms[room]), due)

    def check_room(self, client: Client, room: str, since: int, due: list[Message]) -> None:
        gaps = [gap for gap in client.gaps if gap[0] == room]
        own = [m for m in due if not m.echo and m.sender == client.client_id]
        missing = [m for m in due if m not in own and m.offset not in client.seen]
        for message in missing:
            if not any(after < message.offset < before for _, after, before, _, _ in gaps):
                raise Bad(f"{client.name}: lost {message}, and no gap says so: {gaps}")
        for _, after, before, dropped, _ in gaps:
            if client.kind != "js" or dropped is None or after < since:
                continue
            if any(after < offset < before for offset in self.forgotten):
                continue
            # A failover has taken back the trimming of the log, and a later connection got some of the gap after all.
            back = any(after < m.offset < before and m.offset in client.seen for m in due)
            if back and self.stat["failovers"]:
                continue
            lost = [m for m in missing if after < m.offset < before]
            kept = [m for m in own if after < m.offset < before]
            if not len(lost) <= dropped <= len(lost) + len(kept):
                raise Bad(
                    f"{client.name}: the gap {after}-{before} counts {dropped}, lost are {lost}"
                )
            self.stat["exact"] += 1

    def close(self) -> None:
        self.lab.close()


def episode(
    server: RedisServer,
    seed: int,
    mutation: Mutation | None = None,
    weights: dict[str, float] | None = None,
    steps: int | None = None,
    **settings: Any,
) -> tuple[collections.Counter[str], str | None, list[str]]:
    """Walk once; return counts, the promise that was broken if one was, and what was done."""
    random.seed(seed)
    world = World(server, seed, mutation, weights, **settings)
    broken = None
    try:
        for _ in range(steps or world.random.choice([60, 150, 300])):
            world.step()
        world.settle()
        world.check()
    except Bad as bad:
        broken = str(bad)
    finally:
        world.close()
    return world.stat, broken, world.trace


def _words(action: Any) -> str:
    name = action.func.__name__
    parts = []
    for each in action.args:
        if hasattr(each, "id"):
            parts.append(f"{each.id}({each.client.name})")
        elif hasattr(each, "node"):
            parts.append(each.node if isinstance(each.node, str) else each.name)
        else:
            parts.append(getattr(each, "name", str(each)))
    owner = getattr(action.func, "__self__", None)
    if owner is not None and hasattr(owner, "is_bus"):
        parts.append(f"{owner.node} {'bus' if owner.is_bus else 'commands'}")
    return " ".join([name, *parts])

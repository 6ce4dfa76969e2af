"""A world in which nothing happens but what a story says, and how a story is told.

`flow` lets everything through except what is named: `n0 subscribe` (commands of n0's bus), `n0 bus` (what it hears),
`n0 commands`, `n0 replies`, or a client that does not read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.integration.walk.lab import Bad, Host, Wire
from tests.integration.walk.world import Client, Connection, World
from tests.support.redis import RedisServer
from tests.support.switches import Mutation


class Scene(World):
    """A world under full control."""

    def __init__(
        self, server: RedisServer, mutation: Mutation | None = None, **settings: Any
    ) -> None:
        super().__init__(server, 1, mutation, None, **settings)
        self.n0, self.n1 = self.lab.hosts
        self.js1, self.js2, self.py1 = self.clients
        self.lasting = True

    def flow(self, *kept: str) -> None:
        """Let everything through but what is kept back, until nothing moves."""
        for _ in range(2000):
            if not self.flow_once(kept):
                return
        raise Bad("never comes to rest")

    def flow_once(self, kept: tuple[str, ...]) -> bool:
        moved = False
        for wire in list(self.lab.wires):
            bus = wire.is_bus
            if wire.going and f"{wire.node} {'subscribe' if bus else 'commands'}" not in kept:
                self.lab.do(wire.execute)
                moved = True
            if wire.coming and f"{wire.node} {'bus' if bus else 'replies'}" not in kept:
                self.lab.do(wire.release)
                moved = True
        for connection in list(self.connections):
            client = connection.client
            if connection.sent and not (connection.over or connection.cut or connection.connecting):
                self.lab.do(lambda c=connection: self.receive(c))
                moved = True
            if client.connection is connection and client.name not in kept:
                if connection.peer.out and not client.slow:
                    self.lab.do(lambda c=connection: self.read(c))
                    moved = True
                elif connection.over and not connection.peer.out:
                    client.left()
        return moved

    def come(self, client: Client, host: Host, *kept: str) -> Connection:
        """Connect a client to a node."""
        self.count += 1
        connection = Connection(client, host, self.count)
        host.connections[connection.id] = connection
        client.connection = connection
        self.connections.append(connection)
        connection.sent.append(("CONNECT", *client.auth()))
        self.flow(*kept)
        return connection

    def say(self, client: Client, *verb: Any, kept: tuple[str, ...] = ()) -> None:
        assert client.connection is not None
        client.connection.sent.append(verb)
        self.flow(*kept)

    def join(self, client: Client, *rooms: str) -> None:
        for room in rooms:
            self.say(client, "subscribe", room)

    def join_together(self, client: Client, *rooms: str, kept: tuple[str, ...] = ()) -> None:
        """Subscribe by verbs that arrive at once: one script joins all the rooms."""
        connection = client.connection
        assert connection is not None
        connection.sent.extend(("subscribe", room) for room in rooms)
        self.lab.do(lambda: self.receive_all(connection))
        self.flow(*kept)

    def hear(self, *rooms: str, kept: tuple[str, ...] = ()) -> None:
        """Publish into rooms, one message each."""
        for room in rooms:
            self.lab.do(lambda r=room: self.publish(r, volatile=False))
        self.flow(*kept)

    def go(self, client: Client, *, noticed: bool = True) -> Connection:
        """Cut a client's connection."""
        connection = client.connection
        if connection is None:
            raise Bad(f"{client.name} was let go")
        self.cut(connection)
        if noticed:
            self.lab.do(lambda: self.notice(connection))
            self.flow()
        return connection

    def wire(self, host: Host, kind: str) -> Wire:
        """Return a node's present connection, `commands` or `bus`."""
        wire = host.wire(kind)
        assert wire is not None
        return wire

    def lose_bus(self, host: Host) -> None:
        self.lab.do(lambda: self.wire(host, "bus").cut(0))

    def later(self, seconds: float = 3.0) -> None:
        """Let the nodes' timers come due."""
        self.lab.advance(seconds)

    def upkeep_of(self, host: Host, *kinds: str) -> None:
        for kind in kinds:
            self.lab.do(lambda k=kind: self.upkeep(host, k))
            self.flow()

    def hours(self, seconds: float) -> None:
        """Let time pass for a node that renews its lease and touches its sessions."""
        for _ in range(10):
            self.lab.leap(seconds / 10)
            for host in self.lab.hosts:
                self.upkeep_of(host, "renew", "touch")

    def end(self) -> None:
        """Everybody who is gone comes back; then what was promised must be so."""
        self.later()
        self.flow()
        for client in self.clients:
            if client.connection is None and client.client_id:
                self.come(client, self.n0)
        self.flow()
        for room in self.ROOMS if self.lasting else ():
            self.hear(room)
        self.clients = [client for client in self.clients if client.client_id]
        if not self.settled():
            raise Bad("is not live in the end")
        self.check()


Story = Callable[[Scene], None]


def play(
    server: RedisServer,
    story: Story,
    mutation: Mutation | None = None,
    **settings: Any,
) -> str | None:
    """Tell a scene; return the promise that was broken, if one was."""
    scene = Scene(server, mutation, **settings)
    try:
        story(scene)
        scene.end()
    except Bad as bad:
        return str(bad)
    finally:
        scene.close()
    return None

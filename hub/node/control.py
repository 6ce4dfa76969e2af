"""Control messages: what nodes tell each other over the bus, beside the messages of rooms.

- To one node: `fence <connection>`: another connection has claimed the session of this one.
- To itself: `probe <offset>`: the node's bus works, and has come to this offset.
- To all nodes: `reset`: Redis was found to have lost the end of its past.
"""

from __future__ import annotations

from hub.pubsub.rooms import Rooms
from hub.pubsub.session_observers import SessionObservers
from hub.pubsub.sessions import Sessions
from hub.store.store import Store


class Control:
    """Subscribes the two control channels of a node and acts on what they bring."""

    def __init__(
        self, store: Store, rooms: Rooms, sessions: Sessions, observers: SessionObservers
    ) -> None:
        self._store = store
        self._rooms = rooms
        self._sessions = sessions
        self._observers = observers
        self._node_channel = store.keys.node_channel(store.node_id).encode()
        self._all_nodes_channel = store.keys.all_nodes_channel.encode()

    async def start(self, within: float) -> None:
        """Subscribe the channels. Raises Unavailable after `within` seconds."""
        for channel in (self._node_channel, self._all_nodes_channel):
            self._store.bus.subscribe(channel)
            await self._store.bus.wait_subscribed(channel, within)

    def receive(self, channel: bytes, payload: bytes) -> None:
        """Act on a message of a control channel; what came on any other is left over from a room, and ignored."""
        if channel == self._all_nodes_channel:
            self._observers.on_data_lost()
            self._sessions.catch_up_all(self._sessions)
        elif channel == self._node_channel:
            what, _, rest = payload.decode().partition(" ")
            if what == "probe":
                self._rooms.bus_reached(int(rest))
            elif what == "fence":
                session = self._sessions.of_connection(rest)
                if session is not None:
                    self._sessions.on_replaced(session)

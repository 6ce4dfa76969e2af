"""python-socketio's server on the hub's Engine.IO server, with its faults corrected.

The methods that are replaced, and why (see docs/engine.md):

    _handle_eio_message   strict packets; a broken binary packet cannot block a session; the fast path of events;
                          data that stock clients send and nobody takes is answered
    _connect              the handler may add to the reply; it is not called again after a TypeError
    _trigger_event        events of clients never call `connect` and `disconnect`; a handler is called once,
                          and only with as many arguments as it takes
    _ack                  `430[1]` cannot break the counter of acknowledgements
    disconnect, _handle_eio_disconnect   the handler is called once, with the reason; one place cleans up
    manager               a packet is encoded once and written without a task for each recipient;
                          the cost of a disconnect does not grow with the number of other clients
"""

from __future__ import annotations

import inspect
import logging
from collections import Counter
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Protocol

import socketio
from socketio import packet as sio
from socketio.exceptions import ConnectionRefusedError as Refused

from hub.engineio.core.connection import Connection
from hub.engineio.core.packet import ProtocolError
from hub.engineio.core.prepared import PreparedMessage
from hub.engineio.core.state import CloseCode, DisconnectReason
from hub.engineio.server import EngineServer
from hub.errors import HubError, RateLimited, Unavailable
from hub.socketio.manager import Manager
from hub.socketio.packet import Packet, UndecodedEvent, binary_event, plain_event, prepare

logger = logging.getLogger("hub.socketio")

# The library's own logger: at info it logs each event, with names that clients have chosen.
_chatter = logging.getLogger("hub.socketio.library")
_chatter.setLevel(logging.WARNING)

# With a gateway, a packet that the gateway does not take counts as so many messages more (of events_per_second).
SLOW_PATH_COST = 9
# After so many refused CONNECTs a connection is ended.
REFUSED_CONNECTS = 5


class Gateway(Protocol):
    """Serves the clients of "/", in place of python-socketio's handlers: `hub.api.socketio.SocketIOGateway`."""

    async def on_connect(
        self, connection: Connection, auth: Any, /
    ) -> dict[str, Any] | bool | None:
        """Accept a CONNECT and return what its reply holds; a `sid` in it replaces the server's. False: refused.

        Raises ConnectionRefusedError for what a retry cannot mend, RateLimited or Unavailable otherwise.
        """

    def write_connect_reply(self, connection: Connection, reply: PreparedMessage, /) -> None:
        """Write the CONNECT reply, and what else is to go with it."""

    async def on_disconnect(self, connection: Connection, reason: str, /) -> None:
        """Note that a client has left "/", or that its connection has ended; called once for each CONNECT."""

    def on_event(
        self, connection: Connection, ack: str, text: str, attachments: Sequence[bytes] = (), /
    ) -> bool:
        """Handle an event, given the id of its packet (empty: none), its JSON and its attachments.

        False: it is not handled here, and python-socketio's handlers are called.
        """

    def on_refused(self, connection: Connection, ack: str, error: HubError, /) -> None:
        """Answer an event whose attachments are too many or too long, given the id of its packet (empty: none)."""


class _Client:
    """The Socket.IO state of one Engine.IO session."""

    __slots__ = ("connection", "joined", "left", "pending", "ready", "refused")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        # The namespaces that it is connected to, with its Socket.IO sid in each.
        self.joined: dict[str, str] = {}
        # The namespaces that the server has disconnected it from: packets that it still sends there are dropped.
        self.left: frozenset[str] = frozenset()
        # A binary packet whose attachments are still coming.
        self.pending: Packet | UndecodedEvent | None = None
        # True: "/" is connected.
        self.ready = False
        # How many CONNECTs were not accepted, the one in progress included.
        self.refused = 0


class _Environs:
    """python-socketio's `environ` by Engine.IO sid. Each is made at access; none is kept."""

    def __init__(self, connections: dict[str, Connection]) -> None:
        self._connections = connections

    def __getitem__(self, eio_sid: str) -> Mapping[str, Any]:
        return self._connections[eio_sid].environ

    def get(self, eio_sid: str | None, default: Any = None) -> Any:
        connection = self._connections.get(eio_sid or "")
        return default if connection is None else connection.environ

    def __contains__(self, eio_sid: str) -> bool:
        return eio_sid in self._connections


class SocketIOServer(socketio.AsyncServer):  # type: ignore[misc]
    """A Socket.IO v5 server; see the module's docstring for what differs from its base class."""

    # None: all events are handled by python-socketio's handlers.
    gateway: Gateway | None = None

    eio: EngineServer
    manager: Manager
    packet_class: type[Packet]
    manager_initialized: bool

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("client_manager", Manager())
        kwargs.setdefault("serializer", Packet)
        kwargs.setdefault("async_handlers", False)
        kwargs.setdefault("logger", _chatter)
        super().__init__(**kwargs)
        self.counters: Counter[str] = self.eio.counters
        self.environ = _Environs(self.eio.connections)
        self._clients: dict[str, _Client] = {}
        self._arity: dict[Any, tuple[int, float]] = {}
        options = self.eio.options
        if self.packet_class is Packet:
            limits = {"max_attachments": options.max_attachments, "max_depth": options.max_depth}
            self.packet_class = type("Packet", (Packet,), limits)

    def _engineio_server_class(self) -> type[EngineServer]:
        return EngineServer

    async def disconnect(
        self, sid: str, namespace: str | None = None, ignore_queue: bool = False
    ) -> None:
        """Disconnect a client from one namespace. If that was its last one, close its connection."""
        namespace = namespace or "/"
        eio_sid = self.manager.eio_sid_from_sid(sid, namespace)
        client = self._clients.get(eio_sid or "")
        if client is None or client.joined.get(namespace) != sid:
            return
        client.left |= {namespace}
        self._send(client, sio.DISCONNECT, namespace)
        if len(client.joined) == 1:
            client.connection.close(CloseCode.DONE)
        await self._disconnect_from(client, namespace, DisconnectReason.SERVER_DISCONNECT)

    # ---------------------------------------------------------------- engine events
    # python-socketio's constructor registers these three with the engine: `EngineServer.on`.

    def _handle_eio_connect(self, eio_sid: str, environ: Mapping[str, Any]) -> None:
        if not self.manager_initialized:
            self.manager_initialized = True
            self.manager.initialize()
        self._clients[eio_sid] = _Client(self.eio.connections[eio_sid])

    def _handle_eio_message(self, eio_sid: str, data: str | bytes) -> Awaitable[None] | None:
        client = self._clients[eio_sid]
        if client.pending is not None or not isinstance(data, str):
            return self._add_attachment(client, data)
        gateway = self.gateway
        if gateway is not None and client.ready and (found := plain_event(data)):
            if gateway.on_event(client.connection, found[1], data[found.end() - 1 :]):
                return None
        if gateway is not None and client.ready and (found := binary_event(data)):
            options = self.eio.options
            undecoded = UndecodedEvent(found, options.max_attachments, options.max_message)
            if undecoded.complete:
                return self._handle_undecoded(client, undecoded)
            client.pending = undecoded
            return None
        if gateway is not None:
            client.connection.charge(SLOW_PATH_COST)
        packet = self.packet_class(encoded_packet=data or "?")
        return self._dispatch(client, packet)

    def _handle_undecoded(self, client: _Client, packet: UndecodedEvent) -> Awaitable[None] | None:
        """Offer a binary event to the gateway; if that does not handle it, python-socketio does."""
        assert self.gateway is not None
        if packet.refusal is not None:
            self.gateway.on_refused(client.connection, packet.ack, packet.refusal)
            return None
        if self.gateway.on_event(client.connection, packet.ack, packet.text, packet.attachments):
            return None
        decoded = self.packet_class(encoded_packet=packet.packet)
        for attachment in packet.attachments:
            decoded.add_attachment(attachment)
        return self._dispatch(client, decoded)

    async def _handle_eio_disconnect(self, eio_sid: str, reason: str) -> None:
        client = self._clients.get(eio_sid)
        if client is None:
            return
        client.pending = None
        try:
            for namespace in list(client.joined):
                try:
                    await self._disconnect_from(client, namespace, reason)
                except Exception:
                    # The handlers of the other namespaces must still be called.
                    logger.exception("a disconnect handler failed")
        finally:
            del self._clients[eio_sid]
            # The objects in it refer to the connection: without that reference circle all of it is freed at once.
            client.connection.data.clear()

    # ---------------------------------------------------------------- packets

    def _add_attachment(self, client: _Client, data: str | bytes) -> Awaitable[None] | None:
        packet = client.pending
        if packet is None:
            raise ProtocolError("attachment without a packet")
        if isinstance(data, str):
            raise ProtocolError("text where an attachment was due")
        if not packet.add_attachment(data):
            return None
        client.pending = None
        if isinstance(packet, UndecodedEvent):
            return self._handle_undecoded(client, packet)
        return self._dispatch(client, packet)

    def _dispatch(self, client: _Client, packet: Packet) -> Awaitable[None] | None:
        kind = packet.packet_type
        namespace = packet.namespace or "/"
        data: Any = packet.data
        if kind == sio.CONNECT:
            return self._connect(client, namespace, data, packet.fault)
        sid = client.joined.get(namespace)
        if sid is None:
            if namespace in client.left:
                return None
            raise ProtocolError("not connected to the namespace")
        if packet.fault and kind not in (sio.ACK, sio.BINARY_ACK):
            raise ProtocolError(packet.fault)
        if packet.attachment_count > len(packet.attachments):
            client.pending = packet
            return None
        if packet.fault:
            self.counters["refused acknowledgement"] += 1
            return None
        if kind in (sio.BINARY_EVENT, sio.BINARY_ACK) and not packet.attachment_count:
            data = packet.reconstruct_binary(data, [])
        if kind == sio.DISCONNECT:
            return self._handle_disconnect_packet(client, namespace)
        if kind in (sio.ACK, sio.BINARY_ACK):
            return self._ack(sid, packet.id, data)
        return self._event(client, namespace, sid, packet.id, data)

    async def _connect(self, client: _Client, namespace: str, auth: Any, fault: str) -> None:
        """Answer a CONNECT: the `connect` handler accepts or refuses it, and may add to the reply.

        `fault`: why `auth` cannot be read; empty: it can.
        """
        if namespace in client.joined:
            raise ProtocolError("connected already")
        # Counted before anything is looked up for it: each refusal may cost a script in Redis.
        client.refused += 1
        connection = client.connection
        unreadable = f"auth: {fault}" if fault else ""
        if reason := unreadable if self._is_known(namespace) else "Invalid namespace":
            self._refuse(client, namespace, {"message": reason}, namespace=namespace)
            return
        sid = await self.manager.pre_connect(connection.sid, namespace)
        accepted = False
        try:
            if namespace == "/" and self.gateway is not None:
                answer = await self.gateway.on_connect(connection, auth)
            else:
                answer = await self._trigger_event(
                    "connect", namespace, sid, connection.environ, auth
                )
            accepted = answer is not False
            if not accepted:
                raise Refused
        except Refused as refused:
            self._refuse(client, namespace, refused.error_args)
        except (RateLimited, Unavailable) as error:
            if not connection.closed:
                self.eio.refusals.note(
                    "connect",
                    error.code,
                    "put off a CONNECT; its client tries again",
                    reason=error.message,
                )
            connection.close(CloseCode.TRY_AGAIN)
        except Exception:
            # A fault of the server: the client should try again.
            logger.exception("the connect handler failed")
            connection.close(CloseCode.TRY_AGAIN)
        finally:
            if not accepted:
                await self.manager.disconnect(sid, namespace, ignore_queue=True)
        if not accepted:
            return
        client.refused -= 1
        client.joined[namespace] = sid
        client.left -= {namespace}
        # The gateway's sid replaces the manager's: it stays the same when a session is continued.
        reply = {"sid": sid, **answer} if isinstance(answer, dict) else {"sid": sid}
        await self.manager.connect(sid, namespace)
        connection.establish()
        client.ready |= namespace == "/"
        if namespace == "/" and self.gateway is not None:
            self.gateway.write_connect_reply(
                connection, self._prepare(sio.CONNECT, namespace, reply)
            )
        else:
            self._send(client, sio.CONNECT, namespace, reply)

    def _refuse(self, client: _Client, to: str, error: dict[str, Any], **fields: Any) -> None:
        """Answer a CONNECT to the namespace `to` with CONNECT_ERROR, and log it; one too many ends the connection."""
        reason, connection = str(error.get("message", "")), client.connection
        self.eio.refusals.note(
            "connect",
            reason,
            "refused a CONNECT; its client has to change what the reason says",
            reason=reason,
            address=connection.environ.get("REMOTE_ADDR", ""),
            **fields,
        )
        self._send(client, sio.CONNECT_ERROR, to, error)
        if client.refused >= REFUSED_CONNECTS:
            self.counters["refused too often"] += 1
            connection.close()

    async def _handle_disconnect_packet(self, client: _Client, namespace: str) -> None:
        await self._disconnect_from(client, namespace, DisconnectReason.CLIENT_DISCONNECT)
        if not client.joined:
            client.connection.unestablish()

    async def _disconnect_from(self, client: _Client, namespace: str, reason: str) -> None:
        """Take a client out of a namespace, and call its `disconnect` handler, which is called once."""
        sid = client.joined.pop(namespace, None)
        if sid is None:
            return
        if namespace == "/":
            client.ready = False
        self.manager.pre_disconnect(sid, namespace=namespace)
        try:
            if namespace == "/" and self.gateway is not None:
                await self.gateway.on_disconnect(client.connection, reason)
            else:
                await self._trigger_event("disconnect", namespace, sid, reason)
        finally:
            await self.manager.disconnect(sid, namespace, ignore_queue=True)

    async def _event(
        self, client: _Client, namespace: str, sid: str, id: int | None, data: list[Any]
    ) -> None:
        eio_sid = client.connection.sid
        if self.async_handlers:
            self.start_background_task(
                self._handle_event_internal, self, sid, eio_sid, data, namespace, id
            )
        else:
            await self._handle_event_internal(self, sid, eio_sid, data, namespace, id)

    async def _ack(self, sid: str, id: int | None, data: list[Any]) -> None:
        callback = self.manager.callbacks.get(sid, {}).get(id) if id else None
        if callback is None or not _takes(_arity(callback), len(data)):
            self.counters["stray acknowledgement"] += 1
            return
        await self.manager.trigger_callback(sid, id, data)

    # ---------------------------------------------------------------- calling the application

    async def _trigger_event(self, event: str, namespace: str, *args: Any) -> Any:
        """Call a handler once; return `not_handled` if there is none that takes so many arguments."""
        handler, arguments = self._get_event_handler(event, namespace, args)
        if handler is None:
            owner, arguments = self._get_namespace_handler(namespace, args)
            if owner is None:
                return self.not_handled
            handler = getattr(owner, f"on_{event}", None)
            if handler is None:
                return self.not_handled
        if not self._fits(handler, len(arguments)):
            if event not in self.reserved_events or not self._fits(handler, len(arguments) - 1):
                self.counters["wrong number of arguments"] += 1
                logger.debug("an event with a wrong number of arguments")
                return self.not_handled
            # Older handlers: `connect` without auth, `disconnect` without a reason.
            arguments = arguments[:-1]
        result = handler(*arguments)
        return await result if inspect.isawaitable(result) else result

    def _fits(self, handler: Any, count: int) -> bool:
        """Return whether a registered handler can be called with so many arguments. Its bounds are kept."""
        bounds = self._arity.get(handler)
        if bounds is None:
            self._arity[handler] = bounds = _arity(handler)
        return _takes(bounds, count)

    def _is_known(self, namespace: str) -> bool:
        return (
            namespace in self.handlers
            or namespace in self.namespace_handlers
            or self.namespaces == "*"
            or namespace in self.namespaces
        )

    # ---------------------------------------------------------------- output

    async def _send_packet(self, eio_sid: str, pkt: sio.Packet) -> None:
        """Send a packet and its attachments; nothing is sent between them."""
        connection = self.eio.connections.get(eio_sid)
        if connection is not None:
            connection.send(prepare(pkt))

    def _send(self, client: _Client, kind: int, namespace: str, data: Any = None) -> None:
        client.connection.send(self._prepare(kind, namespace, data))

    def _prepare(self, kind: int, namespace: str, data: Any) -> PreparedMessage:
        return prepare(self.packet_class(kind, data=data, namespace=namespace))


def _takes(bounds: tuple[int, float], count: int) -> bool:
    """Return whether so many arguments are within an arity."""
    return bounds[0] <= count <= bounds[1]


def _arity(handler: Any) -> tuple[int, float]:
    """Return how many positional arguments a callable takes at least and at most."""
    least, most = 0, 0.0
    try:
        parameters = inspect.signature(handler).parameters.values()
    except (TypeError, ValueError):
        return 0, float("inf")
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL:
            most = float("inf")
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            most += 1
            least += parameter.default is parameter.empty
    return least, most

"""python-socketio's server on the hub's engine, with its faults mended: this is the one place for that.

What is replaced, and why (each was found by running it, see docs/engine.md):

    _handle_eio_message   strict packets; binary packets that cannot wedge a session; the fast lane
    _handle_connect       one CONNECT flow; replies the application can add to; no second call on TypeError
    _trigger_event        client events never reach `connect` and `disconnect`; arity checked, called once
    _handle_ack           `430[1]` cannot break the counter of acknowledgements
    _handle_eio_disconnect / disconnect   told apart by cause, once each, cleaned up in one place
    manager               one frame per packet, written directly: no task per recipient; a client that
                          leaves costs what it entered, not what all others did
"""

from __future__ import annotations

import inspect
import json
import logging
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec
import socketio
from socketio import packet as sio
from socketio.exceptions import ConnectionRefusedError as Refused

from hub.engine import Connection, EngineServer, Frame, Goodbye, ProtocolError, Reason
from hub.errors import Unavailable

logger = logging.getLogger("hub.server")

# python-socketio's own: at info it writes a line an event, names that clients chose included.
_chatter = logging.getLogger("hub.server.socketio")
_chatter.setLevel(logging.WARNING)

# Names that stock clients and servers use themselves; a client that sends one is refused (PROTOCOL §3).
RESERVED = frozenset(
    {
        "connect",
        "connect_error",
        "disconnect",
        "disconnecting",
        "newListener",
        "removeListener",
        "__disconnect_final",
    }
)

# The longest acknowledgement id: stock clients count from 0, JavaScript numbers end at 16 digits.
_ID_DIGITS = 15
_BINARY_EVENT = re.compile(rf"5([0-9]{{1,9}})-[0-9]{{0,{_ID_DIGITS}}}\[")


class Packet(sio.Packet):  # type: ignore[misc]
    """A Socket.IO packet, decoded strictly. Raises ProtocolError for anything malformed."""

    max_attachments = 10
    max_depth = 100

    def decode(self, encoded_packet: str) -> int:
        """Decode a text packet; return how many attachments follow."""
        text = encoded_packet
        kind = text[:1]
        if not kind or kind not in "0123456":
            raise ProtocolError("unknown Socket.IO packet type")
        self.packet_type = int(kind)
        at = 1
        count = 0
        if self.packet_type in (sio.BINARY_EVENT, sio.BINARY_ACK):
            dash = text.find("-", 1, 12)
            if dash < 0 or not _is_number(text[1:dash]):
                raise ProtocolError("illegal attachment count")
            count = int(text[1:dash])
            if count > self.max_attachments:
                raise ProtocolError("too many attachments")
            at = dash + 1
        self.namespace = None
        if text[at : at + 1] == "/":
            comma = text.find(",", at)
            end = comma if comma >= 0 else len(text)
            self.namespace = text[at:end].partition("?")[0]
            at = end + 1
        digits = at
        while text[digits : digits + 1] in _DIGITS and digits < len(text):
            digits += 1
            if digits - at > _ID_DIGITS:
                raise ProtocolError("acknowledgement id too long")
        self.id = int(text[at:digits]) if digits > at else None
        self.data = parse_json(text[digits:], self.max_depth) if digits < len(text) else None
        self._check()
        return count

    def _check(self) -> None:
        """Refuse a payload that is not of its packet type."""
        kind = self.packet_type
        data: Any = self.data
        if kind == sio.CONNECT:
            good = data is None or isinstance(data, dict)
        elif kind == sio.DISCONNECT:
            good = data is None
        elif kind in (sio.EVENT, sio.BINARY_EVENT):
            good = isinstance(data, list) and bool(data) and isinstance(data[0], str)
            if good and data[0] in RESERVED:
                raise ProtocolError("reserved event name")
        elif kind in (sio.ACK, sio.BINARY_ACK):
            good = isinstance(data, list) and self.id is not None
        else:
            good = False
        if not good:
            raise ProtocolError("illegal Socket.IO payload")

    @classmethod
    def reconstruct_binary(cls, data: Any, attachments: list[bytes]) -> Any:
        """Put the attachments in their places; raises ProtocolError for a place that is none."""
        if isinstance(data, list):
            return [cls.reconstruct_binary(item, attachments) for item in data]
        if isinstance(data, dict):
            if data.get("_placeholder") is True:
                number = data.get("num")
                if type(number) is not int or not 0 <= number < len(attachments):
                    raise ProtocolError("illegal placeholder")
                return attachments[number]
            return {key: cls.reconstruct_binary(item, attachments) for key, item in data.items()}
        return data


_DIGITS = frozenset("0123456789")


def _is_number(text: str) -> bool:
    """Tell whether a text is ASCII digits (str.isdigit takes full-width ones too)."""
    return text.isascii() and text.isdigit()


def parse_json(text: str, max_depth: int) -> Any:
    """Parse JSON strictly: no NaN or infinities, by name or by size, no more than `max_depth` levels.

    Raises ProtocolError.
    """
    try:
        data = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        data = _parse_lenient(text)
    except UnicodeEncodeError:
        raise ProtocolError("invalid JSON") from None
    if text.count("[") + text.count("{") > max_depth and _depth(data) > max_depth:
        raise ProtocolError("JSON nested too deep")
    return data


def _parse_lenient(text: str) -> Any:
    """Parse what JavaScript makes of a lone surrogate and msgspec refuses; else raise."""
    if "\\u" not in text:
        raise ProtocolError("invalid JSON")
    try:
        return json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError):
        raise ProtocolError("invalid JSON") from None


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(text)
    return value


def _depth(data: Any) -> int:
    """Return how deep arrays and objects are nested, level by level (no recursion)."""
    depth = 0
    level = [data] if type(data) in (list, dict) else []
    while level:
        depth += 1
        level = [
            item
            for parent in level
            for item in (parent.values() if type(parent) is dict else parent)
            if type(item) is list or type(item) is dict
        ]
    return depth


def frame_of(packet: sio.Packet) -> Frame:
    """Return a packet and its attachments as one frame."""
    encoded = packet.encode()
    return Frame(*encoded) if isinstance(encoded, list) else Frame(encoded)


class Manager(socketio.AsyncManager):  # type: ignore[misc]
    """python-socketio's client manager, with nothing that grows with the number of clients.

    The base class keeps a room for each client and looks through all rooms when one leaves: a mass
    disconnect of 9,000 clients held the event loop for ten seconds.
    """

    def __init__(self) -> None:
        super().__init__()
        # Namespace and sid of those in the middle of connecting or disconnecting.
        self._pending: set[tuple[str, str]] = set()
        # The rooms that a client entered, its own aside.
        self._entered: dict[tuple[str, str], set[Any]] = {}

    async def pre_connect(self, eio_sid: str, namespace: str) -> str:
        """Register a client that its connect handler has not accepted yet; return its sid."""
        sid = self.server.eio.generate_id()
        self.basic_enter_room(sid, namespace, None, eio_sid=eio_sid)
        self._pending.add((namespace, sid))
        return str(sid)

    async def connect(self, sid: str, namespace: str) -> str:
        """Note that a client was accepted."""
        self._pending.discard((namespace, sid))
        return sid

    def is_pre_connected(self, sid: str, namespace: str) -> bool:
        return (namespace, sid) in self._pending

    def is_connected(self, sid: str | None, namespace: str) -> bool:
        return (namespace, sid) not in self._pending and self.is_sid_room(namespace, sid)

    def pre_disconnect(self, sid: str, namespace: str) -> str | None:
        """Note that a client is on its way out; return its Engine.IO sid."""
        self._pending.add((namespace, sid))
        eio_sid: str | None = self.eio_sid_from_sid(sid, namespace)
        return eio_sid

    def basic_disconnect(self, sid: str, namespace: str, **kwargs: Any) -> None:
        """Forget a client."""
        for room in self._entered.pop((namespace, sid), ()):
            super().basic_leave_room(sid, namespace, room)
        super().basic_leave_room(sid, namespace, None)
        self.callbacks.pop(sid, None)
        self._pending.discard((namespace, sid))

    def basic_enter_room(
        self, sid: str, namespace: str, room: Any, eio_sid: str | None = None
    ) -> None:
        if room == sid:
            return
        super().basic_enter_room(sid, namespace, room, eio_sid=eio_sid)
        if room is not None:
            self._entered.setdefault((namespace, sid), set()).add(room)

    def basic_leave_room(self, sid: str, namespace: str, room: Any) -> None:
        super().basic_leave_room(sid, namespace, room)
        entered = self._entered.get((namespace, sid))
        if entered is not None:
            entered.discard(room)
            if not entered:
                del self._entered[namespace, sid]

    def get_rooms(self, sid: str, namespace: str) -> list[Any]:
        """Return the rooms that a client is in, its own first."""
        if not self.is_sid_room(namespace, sid):
            return []
        return [sid, *self._entered.get((namespace, sid), ())]

    def get_participants(self, namespace: str, room: Any) -> Iterator[tuple[str, str]]:
        """Return sid and Engine.IO sid of all in a room, or in any of a list of rooms."""
        rooms = self.rooms.get(namespace, {})
        everybody = rooms.get(None, {})
        found: dict[str, str] = {}
        for name in room if isinstance(room, list | tuple) else (room,):
            if name is not None and name in everybody:
                found[name] = everybody[name]
            elif name in rooms:
                found.update(rooms[name])
        return iter(found.items())

    async def emit(
        self,
        event: str,
        data: Any,
        namespace: str,
        room: Any = None,
        skip_sid: Any = None,
        callback: Callable[..., Any] | None = None,
        to: Any = None,
        **kwargs: Any,
    ) -> None:
        """Emit an event to one client, a room, or all."""
        arguments = list(data) if isinstance(data, tuple) else [] if data is None else [data]
        skipped = skip_sid if isinstance(skip_sid, list) else [skip_sid]
        connections = self.server.eio.connections
        frame: Frame | None = None
        for sid, eio_sid in self.get_participants(namespace, to or room):
            connection = connections.get(eio_sid)
            if connection is None or sid in skipped:
                continue
            if frame is None or callback is not None:
                number = self._generate_ack_id(sid, callback) if callback is not None else None
                frame = frame_of(
                    self.server.packet_class(
                        sio.EVENT, namespace=namespace, data=[event, *arguments], id=number
                    )
                )
            connection.send(frame)


class _Client:
    """What this module knows of one Engine.IO session."""

    __slots__ = ("connection", "joined", "left", "pending", "ready")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        # Namespaces it is connected to, and its Socket.IO sid in each.
        self.joined: dict[str, str] = {}
        # Namespaces that we put it out of: what it still sends there is dropped.
        self.left: frozenset[str] = frozenset()
        # A binary packet whose attachments are still coming.
        self.pending: Packet | _Undecoded | None = None
        # Whether "/" is connected.
        self.ready = False


class _Environs:
    """python-socketio's `environ` by Engine.IO sid, built on access: nothing is kept per client."""

    def __init__(self, connections: dict[str, Connection]) -> None:
        self._connections = connections

    def __getitem__(self, eio_sid: str) -> dict[str, Any]:
        return self._connections[eio_sid].environ

    def get(self, eio_sid: str | None, default: Any = None) -> Any:
        connection = self._connections.get(eio_sid or "")
        return default if connection is None else connection.environ

    def __contains__(self, eio_sid: str) -> bool:
        return eio_sid in self._connections


FastLane = Callable[[Connection, str], Awaitable[None] | bool]
BinaryLane = Callable[[Connection, str, list[bytes]], bool]


class _Undecoded:
    """A binary event of "/" for the binary lane, as it came; its attachments are still coming."""

    def __init__(self, text: str, attachment_count: int) -> None:
        self.text = text
        self.attachment_count = attachment_count
        self.attachments: list[bytes] = []

    def add_attachment(self, data: bytes) -> bool:
        self.attachments.append(data)
        return len(self.attachments) == self.attachment_count


class Server(socketio.AsyncServer):  # type: ignore[misc]
    """A Socket.IO v5 server; see the module's docstring for what differs from its base class."""

    # Takes plain text events of "/" before python-socketio does: True or an awaitable where it did.
    fast_lane: FastLane | None = None
    # Takes binary events of "/" with their attachments: the text behind `5<count>-`; True where it did.
    binary_lane: BinaryLane | None = None
    # Called with the sid right after the CONNECT reply of "/" was queued.
    after_connect: Callable[[str], None] | None = None

    eio: EngineServer
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

    def connection(self, sid: str) -> Connection | None:
        """Return the connection of a Socket.IO sid of "/", None where there is none.

        A connection that is lost is still returned until its disconnect handler has run.
        """
        client = self._clients.get(self.manager.eio_sid_from_sid(sid, "/") or "")
        return None if client is None else client.connection

    async def expel(self, sid: str) -> None:
        """Put a client of "/" out for good: Socket.IO `41`, then the connection is closed."""
        connection = self.connection(sid)
        if connection is not None:
            self.put_out(connection)

    def put_out(self, connection: Connection) -> None:
        """Tell a connection of "/" that it is not wanted any more, and close it."""
        connection.send(Frame("1"))
        connection.close(Goodbye.DONE)

    async def disconnect(
        self, sid: str, namespace: str | None = None, ignore_queue: bool = False
    ) -> None:
        """Put a client out of one namespace; out of its last one, close its connection."""
        namespace = namespace or "/"
        eio_sid = self.manager.eio_sid_from_sid(sid, namespace)
        client = self._clients.get(eio_sid or "")
        if client is None or client.joined.get(namespace) != sid:
            return
        client.left |= {namespace}
        self._send(client, sio.DISCONNECT, namespace)
        if len(client.joined) == 1:
            client.connection.close(Goodbye.DONE)
        await self._leave(client, namespace, Reason.SERVER_DISCONNECT)

    # ---------------------------------------------------------------- engine events

    def _handle_eio_connect(self, eio_sid: str, environ: dict[str, Any]) -> None:
        if not self.manager_initialized:
            self.manager_initialized = True
            self.manager.initialize()
        self._clients[eio_sid] = _Client(self.eio.connections[eio_sid])

    def _handle_eio_message(self, eio_sid: str, data: str | bytes) -> Awaitable[None] | None:
        client = self._clients[eio_sid]
        if client.pending is not None or not isinstance(data, str):
            return self._attach(client, data)
        fast_lane = self.fast_lane
        if fast_lane is not None and client.ready and _is_plain_event(data):
            handled = fast_lane(client.connection, data)
            if handled is True:
                return None
            if handled is not False:
                return handled
        if self.binary_lane is not None and client.ready and (count := _attachments(data)):
            if count > self.eio.options.max_attachments:
                raise ProtocolError("too many attachments")
            client.pending = _Undecoded(data, count)
            return None
        packet = self.packet_class(encoded_packet=data or "?")
        return self._dispatch(client, packet)

    def _undecoded(self, client: _Client, packet: _Undecoded) -> Awaitable[None] | None:
        """Offer a binary event to the binary lane, then take python-socketio's way."""
        assert self.binary_lane is not None
        _, _, text = packet.text.partition("-")
        if self.binary_lane(client.connection, text, packet.attachments):
            return None
        decoded = self.packet_class(encoded_packet=packet.text)
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
                    await self._leave(client, namespace, reason)
                except Exception:
                    # The other namespaces must still hear of it.
                    logger.exception("a disconnect handler failed")
        finally:
            del self._clients[eio_sid]

    # ---------------------------------------------------------------- packets

    def _attach(self, client: _Client, data: str | bytes) -> Awaitable[None] | None:
        packet = client.pending
        if packet is None:
            raise ProtocolError("attachment without a packet")
        if isinstance(data, str):
            raise ProtocolError("text where an attachment was due")
        if not packet.add_attachment(data):
            return None
        client.pending = None
        if isinstance(packet, _Undecoded):
            return self._undecoded(client, packet)
        return self._dispatch(client, packet)

    def _dispatch(self, client: _Client, packet: Packet) -> Awaitable[None] | None:
        kind = packet.packet_type
        namespace = packet.namespace or "/"
        data: Any = packet.data
        if kind == sio.CONNECT:
            return self._connect(client, namespace, data)
        sid = client.joined.get(namespace)
        if sid is None:
            if namespace in client.left:
                return None
            raise ProtocolError("not connected to the namespace")
        if packet.attachment_count > len(packet.attachments):
            client.pending = packet
            return None
        if kind in (sio.BINARY_EVENT, sio.BINARY_ACK) and not packet.attachment_count:
            data = packet.reconstruct_binary(data, [])
        if kind == sio.DISCONNECT:
            return self._client_left(client, namespace)
        if kind in (sio.ACK, sio.BINARY_ACK):
            return self._ack(sid, packet.id, data)
        return self._event(client, namespace, sid, packet.id, data)

    async def _connect(self, client: _Client, namespace: str, auth: Any) -> None:
        """Answer a CONNECT: the application's handler decides, and may add to the reply."""
        if namespace in client.joined:
            raise ProtocolError("connected already")
        if not self._is_known(namespace):
            self._send(client, sio.CONNECT_ERROR, namespace, {"message": "Invalid namespace"})
            return
        connection = client.connection
        sid = await self.manager.pre_connect(connection.sid, namespace)
        accepted = False
        try:
            answer = await self._trigger_event("connect", namespace, sid, connection.environ, auth)
            accepted = answer is not False
            if not accepted:
                self._send(client, sio.CONNECT_ERROR, namespace, Refused().error_args)
        except Refused as refused:
            self._send(client, sio.CONNECT_ERROR, namespace, refused.error_args)
        except Unavailable:
            connection.close(Goodbye.TRY_AGAIN)
        except Exception:
            # Our fault and not the client's: it should come back.
            logger.exception("the connect handler failed")
            connection.close(Goodbye.TRY_AGAIN)
        finally:
            if not accepted:
                await self.manager.disconnect(sid, namespace, ignore_queue=True)
        if not accepted:
            return
        client.joined[namespace] = sid
        client.left -= {namespace}
        reply = {"sid": sid, **answer} if isinstance(answer, dict) else {"sid": sid}
        self._send(client, sio.CONNECT, namespace, reply)
        await self.manager.connect(sid, namespace)
        connection.establish()
        if namespace == "/":
            client.ready = True
            if self.after_connect is not None:
                self.after_connect(sid)

    async def _client_left(self, client: _Client, namespace: str) -> None:
        await self._leave(client, namespace, Reason.CLIENT_DISCONNECT)
        if not client.joined:
            client.connection.unestablish()

    async def _leave(self, client: _Client, namespace: str, reason: str) -> None:
        """Take a client out of a namespace: its handler is called once, whatever the cause."""
        sid = client.joined.pop(namespace, None)
        if sid is None:
            return
        if namespace == "/":
            client.ready = False
        self.manager.pre_disconnect(sid, namespace=namespace)
        try:
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
        if callback is None or not self._fits(callback, len(data)):
            self.counters["stray acknowledgement"] += 1
            return
        await self.manager.trigger_callback(sid, id, data)

    # ---------------------------------------------------------------- calling the application

    async def _trigger_event(self, event: str, namespace: str, *args: Any) -> Any:
        """Call a handler once, with as many arguments as it takes; `not_handled` where none fits."""
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
            # The older signatures: connect without auth, disconnect without a reason.
            arguments = arguments[:-1]
        result = handler(*arguments)
        return await result if inspect.isawaitable(result) else result

    def _fits(self, handler: Any, count: int) -> bool:
        """Tell whether a handler can be called with so many arguments."""
        bounds = self._arity.get(handler)
        if bounds is None:
            self._arity[handler] = bounds = _arity(handler)
        return bounds[0] <= count <= bounds[1]

    def _is_known(self, namespace: str) -> bool:
        return (
            namespace in self.handlers
            or namespace in self.namespace_handlers
            or self.namespaces == "*"
            or namespace in self.namespaces
        )

    # ---------------------------------------------------------------- output

    async def _send_packet(self, eio_sid: str, pkt: sio.Packet) -> None:
        """Send a packet and its attachments with nothing between them."""
        connection = self.eio.connections.get(eio_sid)
        if connection is not None:
            connection.send(frame_of(pkt))

    def _send(self, client: _Client, kind: int, namespace: str, data: Any = None) -> None:
        client.connection.send(frame_of(self.packet_class(kind, data=data, namespace=namespace)))


def _is_plain_event(text: str) -> bool:
    """Tell whether a message is `2[…]` or `2<digits>[…]`: a text event of "/"."""
    if text[:2] == "2[":
        return True
    bracket = text.find("[", 1, _ID_DIGITS + 2)
    return bracket > 1 and text[0] == "2" and _is_number(text[1:bracket])


def _attachments(text: str) -> int:
    """Return how many attachments `5<count>-[…]` or `5<count>-<digits>[…]` announces; else 0."""
    found = _BINARY_EVENT.match(text)
    return int(found[1]) if found else 0


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

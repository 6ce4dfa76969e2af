"""One connection to the hub: the stock python-socketio client with what it lacks put in.

Named here, each with its reason, is all that replaces the behaviour of python-socketio 5 and
python-engineio 4:

- `_receive_packet`: a task for each message loses their order and has no bound. Here one message
  is dealt with before the next is read.
- `_handle_connect`: keeps the whole CONNECT reply, of which the stock client keeps the sid alone.
- `_handle_error`, `_handle_disconnect`: a refusal and a `41` end the link with a reason.
- `_handle_event`: events go to one place, whichever they are, and before the CONNECT reply too.
- `_handle_eio_disconnect`: answers that can no longer come are not waited for.
- `_connect_websocket`, `_send_request`: the handshake's `maxPayload`, which the stock client drops,
  is read from the handshake once more.
- `_Packet`: JSON without NaN and infinities, which the hub does not take.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from typing import Any

import aiohttp
import engineio
import engineio.base_client
import msgspec
import socketio
import socketio.exceptions
import socketio.packet

from hub.client.connect_auth import ConnectAuth
from hub.client.delivery import Delivery
from hub.errors import ERRORS, BadRequest, Forbidden, TooLarge, Unavailable
from hub.model import ATTACHMENTS, SessionInfo

FLUSH = 2.0  # seconds that a closing connection is given to send what waits
GOODBYE = 0.1  # seconds that the other side is given to answer a closing handshake

log = logging.getLogger("hub.client")
# The libraries write packets into their logs at lower levels: pids, tokens and all.
_quiet = logging.getLogger("hub.client.stock")
_quiet.setLevel(logging.CRITICAL)


class Replaced(Forbidden):
    """A newer connection has taken the session over, or the hub has expelled this client."""


class _StrictJson:
    loads = staticmethod(socketio.packet.Packet.json.loads)

    @staticmethod
    def dumps(value: Any, **options: Any) -> str:
        return json.dumps(value, allow_nan=False, **options)


class _Packet(socketio.packet.Packet):  # type: ignore[misc]
    json = _StrictJson


class _WebSocket(aiohttp.ClientWebSocketResponse):
    # The first message: the handshake, where the connection has not begun with polling.
    first: str | None = None

    async def receive(self, timeout: float | None = None) -> aiohttp.WSMessage:
        if self.first is not None:
            return await super().receive(timeout)
        try:
            message = await super().receive(timeout)
        except BaseException:  # given up; the stock client lets go of it without closing it
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0):
                    await self.close()
            raise
        self.first = str(message.data)
        return message


class _Engine(engineio.AsyncClient):  # type: ignore[misc]
    # Bytes of one WebSocket message or polling body that the hub takes, where it has said so.
    max_payload: int | None = None

    async def _connect_websocket(self, *args: Any) -> Any:
        upgrade = self.sid is not None
        connected = await super()._connect_websocket(*args)
        if not upgrade:
            self._shaken(self.ws.first)
        return connected

    async def _send_request(self, *args: Any, **options: Any) -> Any:
        handshake = self.sid is None
        response = await super()._send_request(*args, **options)
        if handshake and isinstance(response, aiohttp.ClientResponse) and response.ok:
            self._shaken(await response.text())
        return response

    def _shaken(self, handshake: str) -> None:
        [opening, *_] = engineio.payload.Payload(encoded_payload=handshake).packets
        self.max_payload = opening.data.get("maxPayload")

    def check_size(self, parts: list[str | bytes]) -> None:
        """Raise TooLarge where the hub would close the connection over a packet's parts."""
        if self.current_transport == "websocket":
            size = max(_length(part) for part in parts)
        else:  # one body, binary parts as base64
            size = sum(_length(part, base64=True) for part in parts) + len(parts) - 1
        if self.max_payload is not None and size > self.max_payload:
            raise TooLarge(f"{size} bytes: the hub takes {self.max_payload} at once")

    async def _receive_packet(self, pkt: Any) -> None:
        if pkt.packet_type != engineio.packet.MESSAGE:
            await super()._receive_packet(pkt)
            return
        try:
            await self.handlers["message"](pkt.data)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            log.warning("leaving the connection: %s", error)
            await self.disconnect(abort=True)


class HubConnection(socketio.AsyncClient):  # type: ignore[misc]
    """A connection that is opened once, and not again once it has ended."""

    def __init__(self, delivery: Delivery) -> None:
        super().__init__(
            reconnection=False,
            handle_sigint=False,
            logger=_quiet,
            engineio_logger=_quiet,
            # How large a message may be is the hub's to say; aiohttp's own limit is 4 MiB.
            websocket_extra_options={"max_msg_size": 0},
            http_session=lambda: aiohttp.ClientSession(ws_response_class=_WebSocket),
            serializer=_Packet,
        )
        loop = asyncio.get_running_loop()
        # The CONNECT reply, or why there is none.
        self._reply: asyncio.Future[dict[str, Any]] = loop.create_future()
        self._session: asyncio.Future[SessionInfo] = loop.create_future()
        # None: lost; otherwise a reason to stay away.
        self.closed: asyncio.Future[Replaced | None] = loop.create_future()
        # Takes the events that arrive, and returns when the next one may be read.
        self._delivery = delivery
        self._answers: set[asyncio.Future[Any]] = set()

    def _engineio_client_class(self) -> type[_Engine]:
        return _Engine

    async def open(
        self, url: str, auth: ConnectAuth, transports: list[str] | None
    ) -> tuple[dict[str, Any], SessionInfo]:
        """Connect and return the CONNECT reply and what `hub:session` said.

        Raises Unavailable where trying again may help, and another HubError where the hub refuses.
        """
        try:
            # python-socketio asks for the fields when it sends CONNECT: for the newest position.
            await self.connect(
                url, auth=auth.fields, transports=transports, namespaces=["/"], wait=False
            )
        except Exception as error:  # the libraries let out whatever their parsers raise
            raise Unavailable(f"cannot connect: {error!r}") from error
        self.eio.read_loop_task.add_done_callback(self._unread)
        return await self._reply, await self._session

    async def ask(self, verb: str, fields: dict[str, Any]) -> dict[str, Any]:
        """Send a verb and return its answer; raise the HubError that the hub answered.

        Raises Unavailable, the outcome being unknown, where the connection ends before; BadRequest
        and TooLarge, nothing being sent, for what the hub would close the connection over.
        """
        if self.closed.done():
            raise Unavailable(f"{verb}: not connected")
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def answered(*args: Any) -> None:
            if not answer.done():
                answer.set_result(args[0] if args else None)

        number = self._generate_ack_id("/", answered)
        self._answers.add(answer)
        try:
            parts = self._encode(verb, fields, number)
            with self._delivery.reading_beyond_bound():
                for part in parts:
                    await self.eio.send(part)
                said = await answer
        finally:
            self._answers.discard(answer)
            self.callbacks["/"].pop(number, None)
        if isinstance(said, dict) and said.get("ok") is True:
            return said
        raise _error_of(said.get("error") if isinstance(said, dict) else None, verb)

    def _encode(self, verb: str, fields: dict[str, Any], number: int) -> list[str | bytes]:
        """Return a verb as the messages to send."""
        try:
            encoded = _Packet(data=[verb, fields], namespace="/", id=number).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise BadRequest(f"{verb}: {_unsayable(fields)}: {error}") from None
        parts: list[str | bytes] = [encoded] if isinstance(encoded, str) else encoded
        if len(parts) > 1 + ATTACHMENTS:
            raise BadRequest(f"{verb}: data: more than {ATTACHMENTS} binary values")
        self.eio.check_size(parts)
        return parts

    async def shut(self, *, end: bool) -> None:
        """Close the connection and wait for all that belongs to it; `end` ends its session too.

        One that has ended already is not waited for: nobody may be there to answer.
        """
        eio = self.eio
        tasks = [task for task in (eio.read_loop_task, eio.write_loop_task) if task]
        try:
            if eio.state == "connected" and not self.closed.done():
                async with asyncio.timeout(FLUSH):
                    if end:
                        await self._send_packet(
                            self.packet_class(socketio.packet.DISCONNECT, namespace="/")
                        )
                    # The stock client closes its socket before its queue has been written.
                    await eio._send_packet(engineio.packet.Packet(engineio.packet.CLOSE))
                    await self._flushed()
                    await eio.disconnect(abort=True)
        except TimeoutError:
            pass
        finally:
            # For loops that go on: Python 3.11 loses a cancellation that comes with a message.
            eio.state = "disconnected"
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._hang_up()
            with contextlib.suppress(ValueError):
                engineio.base_client.connected_clients.remove(eio)
            self.end(None)

    def _unread(self, reading: asyncio.Task[None]) -> None:
        """Note that nothing is read any more; a poll cut off in its body ends the loop by an error."""
        if not reading.cancelled() and reading.exception() is not None:
            log.info("the connection was lost: %r", reading.exception())
        self.end(None)

    async def _hang_up(self) -> None:
        """Let go of the sockets, without waiting for the other side."""
        eio = self.eio
        if eio.ws is not None and not eio.ws.closed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GOODBYE):
                    await eio.ws.close()
        if eio.http is not None:
            await eio.http.close()

    async def _flushed(self) -> None:
        """Wait until what is queued has been written, or cannot be any more."""
        written = asyncio.ensure_future(self.eio.queue.join())
        await asyncio.wait([written, self.closed], return_when=asyncio.FIRST_COMPLETED)
        written.cancel()

    def end(self, reason: Replaced | None) -> None:
        """Note that the connection is over, once."""
        if self.closed.done():
            return
        self.closed.set_result(reason)
        awaited: list[asyncio.Future[Any]] = [self._reply, self._session, *self._answers]
        for waiting in awaited:
            if not waiting.done():
                waiting.set_exception(reason or Unavailable("the connection was lost"))
                waiting.exception()  # nobody may be there to ask for it

    async def _handle_connect(self, _namespace: str | None, data: Any) -> None:
        self.namespaces["/"] = data["sid"]
        if not self._reply.done():
            self._reply.set_result(data)

    async def _handle_error(self, _namespace: str | None, data: Any) -> None:
        if not self._reply.done():
            self._reply.set_exception(_refusal(data))
            self._reply.exception()

    async def _handle_disconnect(self, _namespace: str | None) -> None:
        self.end(Replaced("a newer connection took this session over, or the hub expelled it"))

    async def _handle_event(self, _namespace: str | None, _id: int | None, data: Any) -> None:
        if self.closed.done():
            return
        if data[0] == "hub:session" and not self._session.done():
            self._session.set_result(msgspec.convert(data[1], SessionInfo))
        await self._delivery.put(data)

    async def _handle_eio_disconnect(self, _reason: str) -> None:
        self.connected = False
        self.namespaces.clear()
        self.end(None)


def _length(part: str | bytes, *, base64: bool = False) -> int:
    """Return the bytes of a message on the wire; text is ASCII, and has a letter in front."""
    if isinstance(part, str):
        return 1 + len(part)
    return 1 + 4 * -(-len(part) // 3) if base64 else len(part)


def _unsayable(fields: dict[str, Any]) -> str:
    """Return the field that cannot be sent."""
    for name, value in fields.items():
        try:
            _Packet(data=[value]).encode()
        except (TypeError, ValueError, RecursionError):
            return name
    return "fields"


def _error_of(error: Any, verb: str) -> Exception:
    if not isinstance(error, dict):
        return Unavailable(f"{verb}: an answer that is none")
    return ERRORS.get(str(error.get("code")), ERRORS["internal"])(str(error.get("message")))


def _refusal(data: Any) -> Exception:
    """Return the error that a CONNECT_ERROR tells; it has a message, and may have a code."""
    if not isinstance(data, dict):
        return Forbidden(f"refused: {data}")
    more = data.get("data")
    code = str(more.get("code")) if isinstance(more, dict) else ""
    return ERRORS.get(code, Forbidden)(str(data.get("message")))

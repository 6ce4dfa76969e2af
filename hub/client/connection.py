"""One connection to the hub: the stock python-socketio client, corrected where the hub's client needs more.

The list names every method of python-socketio 5 and python-engineio 4 that is replaced, with the reason:

- `_receive_packet`: the stock client starts a task for each message. So messages lose their order, and the
  tasks have no bound. Here a message is processed before the next one is read.
- `_handle_connect`: the stock client keeps only the sid of the CONNECT reply. Here the whole reply is kept.
- `_handle_error`, `_handle_disconnect`: a refused CONNECT and a `41` end the connection with a reason.
- `_handle_event`: every event goes to the delivery, also one that arrives before the CONNECT reply.
  `hub:closing` ends the connection.
- `_handle_eio_disconnect`: verbs whose answer cannot arrive any more fail at once.
- `_connect_websocket`, `_send_request`: the stock client drops `maxPayload` of the handshake. Here it is
  read from the handshake once more. Of a handshake that fails, the stock client keeps neither the HTTP status
  nor `Retry-After`.
- `_ClientPacket`: JSON without NaN and infinities, which the hub does not take.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
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

from hub.client.address import HubAddress
from hub.client.connect_auth import ConnectAuth
from hub.client.delivery import Delivery
from hub.errors import ERRORS, BadRequest, Forbidden, HubError, TooLarge, Unavailable
from hub.model import ATTACHMENTS, SessionInfo

FLUSH_TIMEOUT = 2.0  # seconds for a connection that is closed to send what is queued
CLOSE_HANDSHAKE_TIMEOUT = 0.1  # seconds for the hub to answer the close frame of a WebSocket
RETRY_AFTER_MAX = 60.0  # seconds; a longer `Retry-After` counts as this
NO_ANSWER = "the server does not answer"
NO_HUB = "the answer is not that of a Socket.IO server"

log = logging.getLogger("hub.client")
# At lower levels the libraries write whole packets into their logs, pids and tokens included.
_library_log = logging.getLogger("hub.client.library")
_library_log.setLevel(logging.CRITICAL)


class Replaced(Forbidden):
    """A newer connection has the session now."""


class NotConnected(Unavailable):
    """The hub did not open a connection. `retry_after`: the seconds that it asks to wait, 0 if it does not."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class _StrictJson:
    loads = staticmethod(socketio.packet.Packet.json.loads)

    @staticmethod
    def dumps(value: Any, **options: Any) -> str:
        return json.dumps(value, allow_nan=False, **options)


class _ClientPacket(socketio.packet.Packet):  # type: ignore[misc]
    json = _StrictJson


class _ClientWebSocket(aiohttp.ClientWebSocketResponse):
    """Keeps its first message: the handshake, unless the connection began with polling."""

    first_message: str | None = None

    async def receive(self, timeout: float | None = None) -> aiohttp.WSMessage:
        if self.first_message is not None:
            return await super().receive(timeout)
        try:
            message = await super().receive(timeout)
            if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                raise aiohttp.ClientConnectionError("the server closed the WebSocket")
        except BaseException:  # the stock client forgets this WebSocket and does not close it
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0):
                    await self.close()
            raise
        self.first_message = str(message.data)
        return message


class _EngineClient(engineio.AsyncClient):  # type: ignore[misc]
    # Bytes that one message may have, as the hub counts them; None: the handshake has no bound.
    max_payload: int | None = None
    # Why the handshake failed, as far as the server or the network said it.
    failure: NotConnected | None = None

    async def _connect_websocket(self, *args: Any) -> Any:
        is_handshake = self.sid is None  # otherwise it is an upgrade
        try:
            connected = await super()._connect_websocket(*args)
        except engineio.exceptions.ConnectionError as error:
            cause = error.__context__
            if isinstance(cause, aiohttp.WSServerHandshakeError):
                self.failure = _http_failure(cause.status, cause.headers)
            elif cause is not None:
                self.failure = NotConnected(str(cause) or NO_ANSWER)
            raise
        if is_handshake:
            self._read_handshake(self.ws.first_message)
        return connected

    async def _send_request(self, *args: Any, **options: Any) -> Any:
        is_handshake = self.sid is None
        response = await super()._send_request(*args, **options)
        if is_handshake and isinstance(response, aiohttp.ClientResponse):
            if response.ok:
                self._read_handshake(await response.text())
            else:
                self.failure = _http_failure(
                    response.status, response.headers, await _said(response)
                )
        elif is_handshake:  # the text of an error; aiohttp's parser begins its own with a status
            is_http = not str(response).startswith("400, message=")
            self.failure = NotConnected((response or NO_ANSWER) if is_http else NO_HUB)
        return response

    def _read_handshake(self, handshake: str) -> None:
        try:
            [opening, *_] = engineio.payload.Payload(encoded_payload=handshake).packets
            self.max_payload = opening.data.get("maxPayload")
        except (ValueError, AttributeError):
            self.failure = NotConnected(NO_HUB)

    def check_size(self, parts: list[str | bytes]) -> None:
        """Raise TooLarge if the hub would refuse a packet of these parts: its JSON, which is ASCII, and its attachments."""
        [text, *attachments] = parts
        assert isinstance(text, str)
        size = len(text) - text.index("[") + sum(map(len, attachments))
        if self.max_payload is not None and size > self.max_payload:
            raise TooLarge(f"{size} bytes: the hub takes {self.max_payload} at once")

    async def _receive_packet(self, pkt: Any) -> None:
        if pkt.packet_type != engineio.packet.MESSAGE:
            await super()._receive_packet(pkt)
            return
        try:
            await self.handlers["message"](pkt.data)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            log.warning("closing the connection: %s", error)
            await self.disconnect(abort=True)


class HubConnection(socketio.AsyncClient):  # type: ignore[misc]
    """One connection: opened once, closed once."""

    def __init__(self, delivery: Delivery) -> None:
        super().__init__(
            reconnection=False,
            handle_sigint=False,
            logger=_library_log,
            engineio_logger=_library_log,
            # The hub bounds its messages itself; aiohttp's limit would be 4 MiB.
            websocket_extra_options={"max_msg_size": 0},
            http_session=lambda: aiohttp.ClientSession(ws_response_class=_ClientWebSocket),
            serializer=_ClientPacket,
        )
        loop = asyncio.get_running_loop()
        # The CONNECT reply, or the error why there is none.
        self._reply: asyncio.Future[dict[str, Any]] = loop.create_future()
        self._session: asyncio.Future[SessionInfo] = loop.create_future()
        # Done when the connection has ended. Its result is None if it was lost, and an error if the client
        # must not reconnect.
        self.closed: asyncio.Future[HubError | None] = loop.create_future()
        # Takes the events that arrive, and returns when the next one may be read.
        self._delivery = delivery
        # Answers of verbs that have not arrived.
        self._pending_answers: set[asyncio.Future[Any]] = set()

    def _engineio_client_class(self) -> type[_EngineClient]:
        return _EngineClient

    async def open(
        self, address: HubAddress, auth: ConnectAuth, transports: list[str] | None
    ) -> tuple[dict[str, Any], SessionInfo]:
        """Connect, and return the CONNECT reply and the content of `hub:session`.

        Raises Unavailable where another attempt may succeed, and another HubError where the hub refuses.
        """
        try:
            # python-socketio asks for the fields when it sends CONNECT: for the newest position.
            await self.connect(
                address.url,
                auth=auth.fields,
                transports=transports,
                namespaces=["/"],
                socketio_path=address.path,
                wait=False,
            )
        except Exception as error:  # the libraries' parsers may raise anything
            said = str(error) if isinstance(error, socketio.exceptions.ConnectionError) else ""
            failure = self.eio.failure or NotConnected(said or NO_HUB)
            raise NotConnected(
                f"cannot connect to {address.shown}: {failure}", failure.retry_after
            ) from error
        self.eio.read_loop_task.add_done_callback(self._on_read_loop_end)
        return await self._reply, await self._session

    async def call_verb(self, verb: str, fields: dict[str, Any]) -> dict[str, Any]:
        """Send a verb and return its answer; raise the HubError that the hub answered.

        Raises Unavailable where the connection ends before the answer: the outcome is unknown. Raises
        BadRequest or TooLarge, and sends nothing, where the hub would close the connection.
        """
        if self.closed.done():
            raise Unavailable(f"{verb}: not connected")
        pending: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def on_answer(*args: Any) -> None:
            if not pending.done():
                pending.set_result(args[0] if args else None)

        ack_id = self._generate_ack_id("/", on_answer)
        self._pending_answers.add(pending)
        try:
            parts = self._encode(verb, fields, ack_id)
            with self._delivery.reading_beyond_bound():
                for part in parts:
                    await self.eio.send(part)
                answer = await pending
        finally:
            self._pending_answers.discard(pending)
            self.callbacks["/"].pop(ack_id, None)
        if isinstance(answer, dict) and answer.get("ok") is True:
            return answer
        raise _answered_error(answer, verb)

    async def send_verb(self, verb: str, fields: dict[str, Any]) -> None:
        """Send a verb whose answer nobody needs. Nothing is sent where the connection has ended."""
        for part in self._encode(verb, fields, None):
            await self.eio.send(part)

    def _encode(self, verb: str, fields: dict[str, Any], ack_id: int | None) -> list[str | bytes]:
        """Return a verb as Engine.IO messages: the packet, then its attachments."""
        try:
            encoded = _ClientPacket(data=[verb, fields], namespace="/", id=ack_id).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise BadRequest(f"{verb}: {_unencodable_field(fields)}: {error}") from None
        parts: list[str | bytes] = [encoded] if isinstance(encoded, str) else encoded
        if len(parts) > 1 + ATTACHMENTS:
            raise BadRequest(f"{verb}: data: more than {ATTACHMENTS} binary values")
        self.eio.check_size(parts)
        return parts

    async def close(self, *, end_session: bool) -> None:
        """Close the connection, its tasks and its sockets; with `end_session` the hub ends the session too.

        On a connection that has ended already it does not wait for the hub.
        """
        eio = self.eio
        tasks = [task for task in (eio.read_loop_task, eio.write_loop_task) if task]
        try:
            if eio.state == "connected" and not self.closed.done():
                async with asyncio.timeout(FLUSH_TIMEOUT):
                    if end_session:
                        await self._send_packet(
                            self.packet_class(socketio.packet.DISCONNECT, namespace="/")
                        )
                    # The stock client would close its socket before its queue has been written.
                    await eio._send_packet(engineio.packet.Packet(engineio.packet.CLOSE))
                    await self._wait_flushed()
                    await eio.disconnect(abort=True)
        except TimeoutError:
            pass
        finally:
            # Stops the loops also where Python 3.11 loses the cancellation, which it does if a message
            # arrives at the same time.
            eio.state = "disconnected"
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._close_sockets()
            with contextlib.suppress(ValueError):
                engineio.base_client.connected_clients.remove(eio)
            self.mark_closed(None)

    def _on_read_loop_end(self, read_loop: asyncio.Task[None]) -> None:
        """Mark the connection closed. A poll that is cut off in its body ends the loop with an error."""
        if not read_loop.cancelled() and read_loop.exception() is not None:
            log.info("the connection was lost: %r", read_loop.exception())
        self.mark_closed(None)

    async def _close_sockets(self) -> None:
        """Close the sockets; wait for the hub no longer than CLOSE_HANDSHAKE_TIMEOUT."""
        eio = self.eio
        if eio.ws is not None and not eio.ws.closed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_HANDSHAKE_TIMEOUT):
                    await eio.ws.close()
        if eio.http is not None:
            await eio.http.close()

    async def _wait_flushed(self) -> None:
        """Wait until the queue has been written, or the connection has ended."""
        written = asyncio.ensure_future(self.eio.queue.join())
        await asyncio.wait([written, self.closed], return_when=asyncio.FIRST_COMPLETED)
        written.cancel()

    def mark_closed(self, reason: HubError | None) -> None:
        """Set `closed`, once. Whatever waits for the hub raises `reason`, or Unavailable if it is None."""
        if self.closed.done():
            return
        self.closed.set_result(reason)
        awaited: list[asyncio.Future[Any]] = [self._reply, self._session, *self._pending_answers]
        for future in awaited:
            if not future.done():
                future.set_exception(reason or Unavailable("the connection was lost"))
                future.exception()  # asyncio logs an error that is never retrieved

    async def _handle_connect(self, _namespace: str | None, data: Any) -> None:
        self.namespaces["/"] = data["sid"]
        if not self._reply.done():
            self._reply.set_result(data)

    async def _handle_error(self, _namespace: str | None, data: Any) -> None:
        if not self._reply.done():
            self._reply.set_exception(_connect_error(data))
            self._reply.exception()  # asyncio logs an error that is never retrieved

    async def _handle_disconnect(self, _namespace: str | None) -> None:
        self.mark_closed(
            Replaced("a newer connection has this session now, or the hub expelled this client")
        )

    async def _handle_event(self, _namespace: str | None, _id: int | None, data: Any) -> None:
        if self.closed.done():
            return
        if data[0] == "hub:closing":
            self.mark_closed(_closing_error(data[1]))
            return
        if data[0] == "hub:session" and not self._session.done():
            self._session.set_result(msgspec.convert(data[1], SessionInfo))
        await self._delivery.enqueue(data)

    async def _handle_eio_disconnect(self, _reason: str) -> None:
        self.connected = False
        self.namespaces.clear()
        self.mark_closed(None)


def _unencodable_field(fields: dict[str, Any]) -> str:
    """Return the name of the first field that cannot be encoded."""
    for name, value in fields.items():
        try:
            _ClientPacket(data=[value]).encode()
        except (TypeError, ValueError, RecursionError):
            return name
    return "fields"


def _answered_error(answer: Any, verb: str) -> HubError:
    """Return the error in the answer of a verb."""
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict):
        return Unavailable(f"{verb}: the answer has neither `ok` nor an error")
    return ERRORS.get(str(error.get("code")), ERRORS["internal"])(str(error.get("message")))


def _connect_error(data: Any) -> HubError:
    """Return the error of a CONNECT_ERROR, which has a message and may have a code."""
    if not isinstance(data, dict):
        return Forbidden(f"the hub refused the connection: {data}")
    details = data.get("data")
    code = str(details.get("code")) if isinstance(details, dict) else ""
    return ERRORS.get(code, Forbidden)(f"the hub refused the connection: {data.get('message')}")


def _closing_error(closing: dict[str, Any]) -> HubError:
    """Return the error of `hub:closing`, with which the hub ends this client."""
    kind = Replaced if closing.get("reason") == "replaced" else Forbidden
    return kind(str(closing.get("message")))


async def _said(response: aiohttp.ClientResponse) -> str:
    """Return the message in the JSON of an HTTP error; empty if there is none."""
    try:
        body = json.loads(await response.text())
    except (ValueError, aiohttp.ClientError, TimeoutError):
        return ""
    message = body.get("message") if isinstance(body, dict) else None
    return message if isinstance(message, str) else ""


def _http_failure(status: int, headers: Any, said: str = "") -> NotConnected:
    """Return the failure of a handshake that was answered with an HTTP status other than that of success."""
    try:
        phrase = f" {http.HTTPStatus(status).phrase}"
    except ValueError:
        phrase = ""
    asked = str((headers or {}).get("Retry-After", "")).strip()
    # It may also be a date, which neither the hub nor the usual proxies send.
    seconds = min(float(asked), RETRY_AFTER_MAX) if asked.isascii() and asked.isdigit() else 0.0
    return NotConnected(f"HTTP {status}{phrase}{f': {said}' if said else ''}", seconds)

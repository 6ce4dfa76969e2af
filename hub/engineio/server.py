"""The Engine.IO server: it answers HTTP requests and holds the sessions; python-socketio uses it as `self.eio`."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Any

from aiohttp import web

from hub.engineio import client_address, cors
from hub.engineio.admission import AdmissionControl
from hub.engineio.core.connection import Connection
from hub.engineio.core.ids import Ids
from hub.engineio.core.interfaces import Host
from hub.engineio.core.prepared import PreparedMessage
from hub.engineio.core.state import CloseCode, DisconnectReason
from hub.engineio.core.timer_wheel import TimerWheel
from hub.engineio.environ import Environ
from hub.engineio.http_errors import MalformedRequests
from hub.engineio.options import EngineOptions, from_kwargs
from hub.engineio.refusals import RequestRefusals
from hub.engineio.transports import polling, websocket_handshake
from hub.engineio.transports.http_responses import Detached
from hub.engineio.transports.polling import bad_request
from hub.refusals import RefusalLog
from hub.tasks import BackgroundTasks

logger = logging.getLogger("hub.engineio")

Handler = Callable[..., Any]


class EngineServer(Host):
    """Serves Engine.IO v4 under one path of an aiohttp application."""

    reason = DisconnectReason
    async_mode = "aiohttp"

    def __init__(self, options: EngineOptions | None = None, **given: Any) -> None:
        self.options = from_kwargs(given) if options is None else options
        self.connections: dict[str, Connection] = {}
        self.counters: Counter[str] = Counter()
        self.admission = AdmissionControl(self.options, self.counters)
        # Shared with the layer above, which notes the CONNECTs that it refuses.
        self.refusals = RefusalLog(logger)
        self._refused_requests = RequestRefusals(self.refusals, self.options)
        self.tick = min(0.05, self.options.ping_interval / 300)
        self._handlers: dict[str, Handler] = {}
        self._sessions: dict[str, dict[str, Any]] = {}
        # Tasks of disconnect handlers, and of `start_background_task`; None: there was none yet.
        self._tasks: BackgroundTasks | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        # Bound once: each connection keeps it.
        self.clock: Callable[[], float] = self._time
        self._timers: TimerWheel | None = None
        # The handler that was registered for `message`.
        self.handle_message: Handler = _ignore
        # Set by `shutdown`: done once no session is left.
        self._emptied: asyncio.Future[None] | None = None
        # Calls that answer waiting polls, made at the end of this turn of the event loop.
        self._due_answers: list[Callable[[], None]] = []
        self._ids = Ids()

    # ---------------------------------------------------------------- what connections call (Host)

    @property
    def timers(self) -> TimerWheel:
        if self._timers is None:
            self._timers = TimerWheel(asyncio.get_running_loop(), self.tick)
        return self._timers

    def _time(self) -> float:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop.time()

    def answer_poll_soon(self, answer: Callable[[], None]) -> None:
        """Have a waiting poll answered at the end of this turn of the loop: later messages of the turn may join."""
        if not self._due_answers:
            assert self._loop is not None  # a connection has asked the clock
            self._loop.call_soon(self._answer_due_polls)
        self._due_answers.append(answer)

    def _answer_due_polls(self) -> None:
        due, self._due_answers = self._due_answers, []
        for answer in due:
            answer()

    def report_disconnect(self, sid: str, reason: str) -> None:
        """Call the `disconnect` handler: once for each session, after its last message."""
        handler = self._handlers.get("disconnect")
        if handler is not None:
            result = handler(sid, reason)
            if inspect.isawaitable(result):
                self._spawn(_await(result))
        self._sessions.pop(sid, None)

    def remove_connection(self, sid: str, remote: str) -> None:
        """Remove a closed session that came from the address `remote`."""
        self.connections.pop(sid, None)
        self.admission.release(remote)
        if self._emptied is not None and not self.connections and not self._emptied.done():
            self._emptied.set_result(None)

    # ---------------------------------------------------------------- what python-socketio calls

    def on(self, event: str, handler: Handler | None = None) -> Handler:
        """Register the handler of `connect`, `message` or `disconnect`; also a decorator."""
        if event not in ("connect", "message", "disconnect"):
            raise ValueError("Invalid event")

        def register(handler: Handler) -> Handler:
            self._handlers[event] = handler
            if event == "message":
                self.handle_message = handler
            return handler

        return register if handler is None else register(handler)

    def attach(self, app: web.Application, engineio_path: str = "engine.io") -> None:
        """Serve under `/<engineio_path>/` of an aiohttp application: what follows in a path means nothing."""
        app.router.add_route("*", f"/{engineio_path.strip('/')}/{{_:.*}}", self.handle_request)
        MalformedRequests(self.counters).install(app)

    def generate_id(self) -> str:
        """Return a new session id."""
        return self._ids.draw()

    def transport(self, sid: str) -> str:
        """Return "polling" or "websocket"."""
        return self._connection(sid).transport

    async def send(self, sid: str, data: str | bytes) -> None:
        """Send a message; a session that is over drops it."""
        connection = self.connections.get(sid)
        if connection is not None:
            connection.send(PreparedMessage(data))

    async def send_packet(self, sid: str, pkt: Any) -> None:
        """Send one of python-engineio's packet objects, which must be a message."""
        if pkt.packet_type != 4:
            raise ValueError("only messages can be sent")
        await self.send(sid, pkt.data)

    async def disconnect(self, sid: str | None = None) -> None:
        """Close one session, or all."""
        for connection in [self.connections.get(sid)] if sid else list(self.connections.values()):
            if connection is not None:
                connection.close(CloseCode.GOING_AWAY)

    async def get_session(self, sid: str) -> dict[str, Any]:
        """Return the dictionary that the layer above keeps for a session."""
        self._connection(sid)
        return self._sessions.setdefault(sid, {})

    async def save_session(self, sid: str, session: dict[str, Any]) -> None:
        """Replace the dictionary that the layer above keeps for a session."""
        self._connection(sid)
        self._sessions[sid] = session

    def start_background_task(
        self, target: Callable[..., Coroutine[Any, Any, Any]], *args: Any, **kwargs: Any
    ) -> asyncio.Task[Any]:
        """Run a coroutine function in a task that this server holds."""
        return self._spawn(target(*args, **kwargs))

    async def sleep(self, seconds: float = 0) -> None:
        await asyncio.sleep(seconds)

    def create_queue(self, *args: Any, **kwargs: Any) -> asyncio.Queue[Any]:
        return asyncio.Queue(*args, **kwargs)

    def get_queue_empty_exception(self) -> type[Exception]:
        return asyncio.QueueEmpty

    def create_event(self, *args: Any, **kwargs: Any) -> asyncio.Event:
        return asyncio.Event(*args, **kwargs)

    async def shutdown(self, within: float | None = None) -> None:
        """Close all sessions, wait until they have ended and their ends were handled, and stop the timers.

        Sessions that take longer than `within` seconds (default: close_timeout) are cut.
        """
        if within is None:
            within = self.options.close_timeout
        self.admission.close()
        for connection in list(self.connections.values()):
            connection.close(CloseCode.GOING_AWAY)
        deadline = self.clock() + within
        if self.connections:
            self._emptied = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._emptied,), timeout=within)
        for connection in list(self.connections.values()):
            connection.abort(DisconnectReason.SERVER_DISCONNECT)
        if self._tasks is not None:
            if running := list(self._tasks):
                await asyncio.wait(running, timeout=max(0.1, deadline - self.clock()))
            await self._tasks.stop()
        if self._timers is not None:
            self._timers.stop()
        self.refusals.close()

    # ---------------------------------------------------------------- requests

    async def handle_request(self, request: web.Request) -> web.StreamResponse:
        """Answer one HTTP request."""
        headers = cors.cors_headers(request, self.options)
        if headers is None:
            self.counters["origin refused"] += 1
            self._refused_requests.note_origin(request)
            return web.json_response({"code": 4, "message": "Forbidden"}, status=403)
        if request.method == "OPTIONS":
            return web.Response(status=204, headers=headers | cors.preflight_headers(request))
        response = await self._route(request, headers)
        response.headers.update(headers)
        if request.body_exists and not request.content.is_eof():
            await polling.send_early_response(request, response)
        return response

    async def _route(self, request: web.Request, headers: Mapping[str, str]) -> web.StreamResponse:
        # A parameter that stands in the URL of the application, too: the client's own comes last.
        query = dict(request.query.items())
        transport = query.get("transport")
        if query.get("EIO") != "4":
            self._refused_requests.note_protocol(request)
            return self._bad_request("Unsupported protocol version", 5)
        # `j` asks a poll for JSONP, whose answers are scripts.
        if transport != "websocket" and (transport != "polling" or "j" in query):
            return self._bad_request("Transport unknown", 0)
        sid = query.get("sid")
        if not sid:
            return await self._handshake(request, transport, headers)
        return await self._serve(request, transport, sid, headers)

    async def _serve(
        self, request: web.Request, transport: str, sid: str, headers: Mapping[str, str]
    ) -> web.StreamResponse:
        """Answer a request of a session."""
        connection = self.connections.get(sid)
        if connection is None:
            return self._bad_request("Session ID unknown", 1)
        if transport == "websocket":
            return self._upgrade(request, connection)
        if connection.transport != "polling" or request.method not in ("GET", "POST"):
            return self._bad_request("Bad request", 3)
        if request.method == "GET":
            return await polling.poll(request, connection, self, headers)
        return await polling.post(request, connection, self, headers)

    async def _handshake(
        self, request: web.Request, transport: str, headers: Mapping[str, str]
    ) -> web.StreamResponse:
        if request.method != "GET":
            return self._bad_request("Bad handshake method", 2)
        key = websocket_handshake.check_handshake(request) if transport == "websocket" else None
        if transport == "websocket" and key is None:
            return self._bad_request("Bad request", 3)
        remote = client_address.remote_address(request, self.options)
        if (refusal := self.admission.admit(remote)) is not None:
            self._refused_requests.note_admission(refusal, remote)
            retry = {"Retry-After": str(refusal.retry_after)}
            return web.json_response({"message": refusal.why}, status=503, headers=retry)
        sid = self.generate_id()
        connection = Connection(self, sid, remote, partial(Environ, request, remote))
        self.connections[sid] = connection
        if not await self._is_accepted(connection):
            connection.refuse()
            return web.json_response({"code": 4, "message": "Forbidden"}, status=401)
        if key is None:
            connection.open(None)
            return await polling.poll(request, connection, self, headers)
        accepted = websocket_handshake.accept(request, key, self, connection)
        if accepted is None:
            connection.abort(DisconnectReason.TRANSPORT_CLOSE)
            return bad_request("Bad request", 3)
        socket, response, tail = accepted
        connection.open(socket, response)
        socket.start_reading(tail)
        return Detached()

    async def _is_accepted(self, connection: Connection) -> bool:
        """Call the `connect` handler, which accepts a session with None or True; an exception refuses it."""
        handler = self._handlers.get("connect")
        if handler is None:
            return True
        try:
            result = handler(connection.sid, connection.environ)
            if inspect.isawaitable(result):
                result = await result
        except Exception:
            logger.exception("the connect handler failed")
            return False
        return result is None or result is True

    def _upgrade(self, request: web.Request, connection: Connection) -> web.StreamResponse:
        key = websocket_handshake.check_handshake(request)
        if key is None or request.method != "GET":
            return self._bad_request("Bad request", 3)
        accepted = websocket_handshake.accept(request, key, self, connection)
        if accepted is None:
            return bad_request("Bad request", 3)
        socket, response, tail = accepted
        socket.write(response)
        if socket.begin_upgrade():
            socket.start_reading(tail)
        else:
            self.counters["upgrade refused"] += 1
        return Detached()

    def _bad_request(self, message: str, code: int) -> web.Response:
        self.counters["bad request"] += 1
        logger.debug("bad request: %s", message)
        return bad_request(message, code)

    # ---------------------------------------------------------------- helpers

    def _connection(self, sid: str) -> Connection:
        try:
            return self.connections[sid]
        except KeyError:
            raise KeyError("Session not found") from None

    def _spawn(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        if self._tasks is None:
            self._tasks = BackgroundTasks()
        return self._tasks.spawn(coroutine)


def _ignore(sid: str, data: str | bytes) -> None:
    """Take the place of a message handler while none is registered."""


async def _await(pending: Awaitable[Any]) -> None:
    try:
        await pending
    except Exception:
        logger.exception("the disconnect handler failed")

"""The Socket.IO side of the hub: CONNECT, the verbs and their answers, the end of a connection."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from socketio.exceptions import ConnectionRefusedError

from hub.api.limits import ConnectionLimits, SharedLoad
from hub.api.pipeline import PublishCallback, Reply, VerbPipeline
from hub.api.requests import (
    VERBS,
    AckRequest,
    HistoryRequest,
    PublishRequest,
    Request,
    SubscribeRequest,
    UnsubscribeRequest,
    decode,
    parse,
    quick_publish,
)
from hub.engineio.core.connection import Connection
from hub.engineio.core.prepared import PreparedMessage
from hub.errors import BadRequest, Forbidden, HubError, NotFound, RateLimited, Unavailable
from hub.message import encode, meta
from hub.model import check_client_id, is_offset
from hub.node.node import Node
from hub.pid import Pid
from hub.pubsub import history
from hub.pubsub.session import Session
from hub.socketio.server import SocketIOServer


class SocketIOGateway:
    """The handlers of namespace `/`."""

    def __init__(self, node: Node, server: SocketIOServer) -> None:
        self.node = node
        self.server = server
        self.settings = node.settings
        self.load = SharedLoad(self.settings.pending_together)
        self.reader = history.HistoryReader(self.settings, node.store)
        self.lost = node.lost
        self.spawn = node.spawn
        # Kept: up to Python 3.11 asking for the running loop asks the kernel for the process id each time.
        self._loop = asyncio.get_running_loop()
        self.call_soon = self._loop.call_soon
        # By Socket.IO sid: when a connection ends there is nothing else left of it.
        self._lanes: dict[str, VerbPipeline] = {}
        server.fast_lane = self._verb
        server.binary_lane = self._verb
        server.welcome = self._welcome
        server.on("connect", self._connect)
        server.on("disconnect", self._disconnect)

    # -- CONNECT

    async def _connect(self, sid: str, environ: Mapping[str, Any], auth: Any) -> dict[str, Any]:
        connection = self.server.connection(sid)
        if connection is None:
            raise Unavailable("the connection is gone")
        client_id, pid, offset, bare, manual = _identify(auth)
        lane: VerbPipeline | None = connection.data.get("lane")
        if lane is not None:
            lane.limits.take("connect")  # it left "/", and comes back over the same connection
        session = await self.node.connect(
            connection,
            connection.sid,
            client_id=client_id,
            pid=pid,
            offset=offset,
            bare=bare,
            manual=manual,
        )
        if session is None:
            raise ConnectionRefusedError("refused")
        # One for all of a connection's sessions: leaving and coming back renews no limit.
        limits = (
            lane.limits
            if lane
            else ConnectionLimits(self.settings, connection, self._loop, self.load)
        )
        connection.data["lane"] = self._lanes[sid] = VerbPipeline(self, connection, session, limits)
        reply = {"sid": session.taken.sid}
        if not bare:
            reply["pid"] = str(session.taken.pid)
        return reply

    def _welcome(self, sid: str, reply: PreparedMessage) -> None:
        self.node.begin(self._lanes[sid].session, reply)

    async def _disconnect(self, sid: str, reason: str) -> None:
        if (lane := self._lanes.pop(sid, None)) is not None:
            await self.node.leave(
                lane.session, deliberate=reason == self.server.reason.CLIENT_DISCONNECT
            )

    # -- verbs

    def _verb(
        self, connection: Connection, ack: str, text: str, attachments: Sequence[bytes] = ()
    ) -> bool:
        """Take an event, the id of its packet and its JSON; False: it is no verb, and goes python-socketio's way."""
        lane: VerbPipeline | None = connection.data.get("lane")
        if lane is None:
            return False  # python-socketio ends the connection, as the protocol asks
        depth = self.settings.max_depth
        try:
            request: Request | None = quick_publish(text, len(attachments), depth)
            if request is not None:
                lane.limits.take("publish")
            else:
                packet = parse(text)
                if packet is None:
                    return False  # likewise
                event, arguments = packet
                if event not in VERBS:
                    error = lane.limits.failed(NotFound(f"there is no verb {event[:64]!r}"))
                    if not ack or event in self.server.handlers.get("/", {}):
                        return isinstance(error, RateLimited)
                    raise error
                lane.limits.take(event)
                request = decode(event, arguments, len(attachments), depth)
        except BadRequest as error:
            lane.answer(ack, lane.limits.failed(error).answer(), [])
        except HubError as error:
            lane.answer(ack, error.answer(), [])
        else:
            size = len(text) + sum(map(len, attachments)) if attachments else len(text)
            lane.submit(request, attachments, ack, size)
        return True

    # -- carrying out

    def publish(
        self,
        session: Session,
        request: PublishRequest,
        attachments: Sequence[bytes],
        done: PublishCallback,
    ) -> None:
        store = self.node.store
        header, body = encode(
            request.event,
            bytes(request.data),
            meta(request.room, session.client_id),
            attachments=attachments,
            skip=None if request.echo else session.client_id,
            ttl=request.ttl or 0,
        )
        dedupe = None
        if request.id is not None:
            dedupe = store.keys.dedupe(request.room, session.client_id, request.id)
        store.publisher.publish(
            request.room,
            header,
            body,
            done,
            volatile=request.volatile,
            odd=not request.echo or request.ttl is not None,
            dedupe=dedupe,
        )

    async def carry_out(self, lane: VerbPipeline, request: Request, reply: Reply) -> None:
        """Carry out a verb that waits for something. Raises HubError, NotOwner."""
        session = lane.session
        match request:
            case SubscribeRequest():
                await self._subscribe(lane, request, reply)
            case UnsubscribeRequest():
                if request.room == f"@{session.client_id}":
                    raise Forbidden("room: a personal room is always subscribed")
                await self.node.unsubscribe(session, request.room)
                reply({"ok": True, "room": request.room}, [])
            case HistoryRequest():
                _private(session, request.room)
                await session.drained()  # whoever asks for much and reads nothing waits for itself
                answer, attachments = await self._read(
                    lane, request.room, request.after, _int(request.before), request.limit
                )
                del answer["gap"]
                reply({"ok": True, **answer}, attachments)
            case AckRequest():
                session.prove(int(request.offset))
                await self.node.upkeep.prove_now(session)
                reply({"ok": True, "offset": str(session.proven)}, [])

    async def _read(
        self,
        lane: VerbPipeline,
        room: str,
        after: str | None,
        before: int | None,
        limit: int | None,
    ) -> tuple[dict[str, Any], list[bytes]]:
        """Return what a room's log holds, as it is answered."""
        page = await self.reader.read(room, after=_int(after), before=before, limit=limit)
        lane.limits.answered(page.size, page.looked)
        return history.answer(page, newest=after is None)

    async def _subscribe(self, lane: VerbPipeline, request: SubscribeRequest, reply: Reply) -> None:
        _private(lane.session, request.room)
        if request.history or request.since is not None:
            await lane.session.drained()

        async def answer(join: int) -> None:
            found: dict[str, Any] = {}
            attachments: list[bytes] = []
            if request.history or request.since is not None:
                found, attachments = await self._read(
                    lane, request.room, request.since, join + 1, request.history
                )
            elif request.history == 0:
                found = {"messages": [], "more": False, "gap": False}
            reply({"ok": True, "room": request.room, "offset": str(join), **found}, attachments)

        await self.node.subscribe(lane.session, request.room, answer)


def _identify(auth: Any) -> tuple[str | None, Pid | None, int | None, bool, bool]:
    """Return client id, pid, offset, `args` and `acks` of a CONNECT. Raises ConnectionRefusedError."""
    if auth is None:
        auth = {}
    try:
        if not isinstance(auth, dict):
            raise BadRequest("auth: an object")
        client_id = auth.get("client_id")
        if client_id is not None:
            check_client_id(client_id)
        if auth.get("args", "full") not in ("full", "data"):
            raise BadRequest('args: "data", or absent')
        if auth.get("acks", "auto") not in ("auto", "manual"):
            raise BadRequest('acks: "manual", or absent')
        offset = auth.get("offset")
        # A client that has had no event yet, or one that ended in no offset, has nothing to send.
        known = int(str(offset)) if is_offset(offset) else None
        text = auth.get("pid")
        pid = Pid.parse(text) if isinstance(text, str) else None
        if client_id is not None and text is not None:
            if pid is None:
                pid = Pid(client_id, "x", "x", "x")  # no pid of ours: wrong for every session
            elif pid.client_id != client_id:
                raise ConnectionRefusedError("refused")
    except BadRequest as error:
        raise ConnectionRefusedError(error.message) from None
    return client_id, pid, known, auth.get("args") == "data", auth.get("acks") == "manual"


def _private(session: Session, room: str) -> None:
    """A personal room is its client's alone."""
    if room.startswith("@") and not (session.named and room == f"@{session.client_id}"):
        raise Forbidden("room: a personal room is its client's alone")


def _int(offset: str | None) -> int | None:
    return None if offset is None else int(offset)

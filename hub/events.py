"""The Socket.IO side of the hub: CONNECT, the verbs and their answers, the end of a connection.

Verbs of one connection take effect in the order sent. A publish leaves for Redis at once, and its answer is written
when the script has run; verbs that wait for something go through a queue, and so does all that comes behind them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec
from socketio.exceptions import ConnectionRefusedError

from hub.engine.connection import Connection
from hub.engine.frame import Frame
from hub.errors import BadRequest, Forbidden, HubError, Internal, NotFound, Unavailable
from hub.limits import Limits
from hub.message import encode, meta
from hub.model import ATTACHMENTS, check_client_id, is_offset
from hub.node import Node
from hub.pid import Pid
from hub.server import Server
from hub.session import Session
from hub.store.store import NotOwner, Page
from hub.verbs import (
    VERBS,
    Ack,
    History,
    Publish,
    Request,
    Subscribe,
    Unsubscribe,
    decode,
    parse,
    renumber,
)  # fmt: skip

log = logging.getLogger("hub.events")

# Takes an answer, its attachments already numbered in it.
Reply = Callable[[dict[str, Any], list[bytes]], None]

_encode = msgspec.json.encode


class Lane:
    """The verbs of one connection, in order."""

    __slots__ = ("_hub", "_queue", "_worker", "connection", "limits", "session")

    def __init__(self, hub: Events, connection: Connection, session: Session) -> None:
        self._hub = hub
        self.connection = connection
        self.session = session
        self.limits = Limits(hub.settings, connection)
        # Verbs that wait for one before them, with the bytes of each; while there are any, a worker takes them one by
        # one. Bounded by the limits of what is under way.
        self._queue: deque[tuple[Request, list[bytes], Reply, int]] = deque()
        self._worker: asyncio.Task[None] | None = None

    def submit(self, request: Request, attachments: list[bytes], reply: Reply, size: int) -> None:
        """Carry a verb of `size` bytes out once those before it have taken effect."""
        self.limits.enter(size)
        if self._worker is None and isinstance(request, Publish):
            self._publish(request, attachments, reply, size)
            return
        self._queue.append((request, attachments, reply, size))
        if self._worker is None:
            self._worker = self._hub.node.spawn(self._work())

    async def _work(self) -> None:
        try:
            while self._queue:
                request, attachments, reply, size = self._queue.popleft()
                if isinstance(request, Publish):
                    self._publish(request, attachments, reply, size)
                    continue
                try:
                    # Whoever asks for much and reads nothing waits for itself.
                    await self.session.drained()
                    await self._hub.carry_out(self, request, reply)
                except HubError as error:
                    reply(error.answer(), [])
                except NotOwner as refusal:
                    self._hub.node.lost(self.session, refusal)
                except Exception:
                    log.exception("a verb failed")
                    reply(Internal("the hub failed; this was logged").answer(), [])
                finally:
                    self.limits.leave(size)
        finally:
            self._worker = None

    def _publish(self, request: Publish, attachments: list[bytes], reply: Reply, size: int) -> None:
        def done(result: int | HubError, duplicate: bool) -> None:
            self.limits.leave(size)
            if isinstance(result, HubError):
                reply(result.answer(), [])
            elif duplicate:
                reply({"ok": True, "offset": str(result), "duplicate": True}, [])
            else:
                reply({"ok": True, "offset": str(result)}, [])

        self._hub.publish(self.session, request, attachments, done)


class Events:
    """The handlers of namespace `/`."""

    def __init__(self, node: Node, server: Server) -> None:
        self.node = node
        self.server = server
        self.settings = node.settings
        # By Socket.IO sid: when a connection ends there is nothing else left of it.
        self._lanes: dict[str, Lane] = {}
        server.fast_lane = self._text
        server.binary_lane = self._verb
        server.after_connect = self._after_connect
        server.on("connect", self._connect)
        server.on("disconnect", self._disconnect)

    # -- CONNECT

    async def _connect(self, sid: str, environ: dict[str, Any], auth: Any) -> dict[str, Any]:
        connection = self.server.connection(sid)
        if connection is None:
            raise Unavailable("the connection is gone")
        client_id, pid, offset, bare, manual = _identify(auth)
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
        connection.data["lane"] = self._lanes[sid] = Lane(self, connection, session)
        reply = {"sid": session.taken.sid}
        if not bare:
            reply["pid"] = str(session.taken.pid)
        return reply

    def _after_connect(self, sid: str) -> None:
        self.node.begin(self._lanes[sid].session)

    async def _disconnect(self, sid: str, reason: str) -> None:
        if (lane := self._lanes.pop(sid, None)) is not None:
            await self.node.leave(
                lane.session, deliberate=reason == self.server.reason.CLIENT_DISCONNECT
            )

    # -- verbs

    def _text(self, connection: Connection, text: str) -> bool:
        """Take a text event, `2[...]` or `2<id>[...]`."""
        return self._verb(connection, text[1:], [])

    def _verb(self, connection: Connection, text: str, attachments: list[bytes]) -> bool:
        """Take an event, `[...]` or `<id>[...]`; False: it is no verb, and goes python-socketio's way."""
        bracket = text.index("[")
        ack = text[:bracket]
        lane: Lane | None = connection.data.get("lane")
        packet = parse(text[bracket:])
        if lane is None or packet is None:
            return False  # python-socketio ends the connection, as the protocol asks
        event, arguments = packet
        reply = _answer(connection, ack)
        try:
            if event not in VERBS:
                lane.limits.failed()
                if not ack or event in self.server.handlers.get("/", {}):
                    return False
                raise NotFound(f"there is no verb {event[:64]!r}")
            lane.limits.take(event)
            request = self._decode(lane, event, arguments, len(attachments))
        except HubError as error:
            reply(error.answer(), [])
        else:
            size = len(text) + sum(map(len, attachments)) if attachments else len(text)
            lane.submit(request, attachments, reply, size)
        return True

    def _decode(self, lane: Lane, verb: str, arguments: list[Any], attachments: int) -> Request:
        """Return the request. Raises BadRequest; RateLimited where too many were bad."""
        try:
            return decode(verb, arguments, attachments, self.settings.max_depth)
        except BadRequest:
            lane.limits.failed()
            raise

    # -- carrying out

    def publish(
        self,
        session: Session,
        request: Publish,
        attachments: list[bytes],
        done: Callable[[int | HubError, bool], None],
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
        store.publish(
            request.room,
            header,
            body,
            done,
            volatile=request.volatile,
            odd=not request.echo or request.ttl is not None,
            dedupe=dedupe,
        )

    async def carry_out(self, lane: Lane, request: Request, reply: Reply) -> None:
        """Carry out a verb that waits for something. Raises HubError, NotOwner."""
        session = lane.session
        match request:
            case Subscribe():
                await self._subscribe(lane, request, reply)
            case Unsubscribe():
                if request.room == f"@{session.client_id}":
                    raise Forbidden("room: a personal room is always subscribed")
                await self.node.unsubscribe(session, request.room)
                reply({"ok": True, "room": request.room}, [])
            case History():
                _private(session, request.room)
                page = await self._read(
                    lane, request.room, request.after, _int(request.before), request.limit
                )
                answer, attachments = _page(page, newest=request.after is None)
                del answer["gap"]
                reply({"ok": True, **answer}, attachments)
            case Ack():
                session.prove(int(request.offset))
                await self.node.prove_now(session)
                reply({"ok": True, "offset": str(session.proven)}, [])

    async def _read(
        self, lane: Lane, room: str, after: str | None, before: int | None, limit: int | None
    ) -> Page:
        """Read from a room's log what one answer may hold; `more` tells of the rest."""
        most = self.settings.history_limit
        limit = most if limit is None else min(limit, most)
        page = await self.node.store.history(room, _int(after), before, limit)
        lane.limits.answered(sum(len(message.body) for message in page.messages))
        return page

    async def _subscribe(self, lane: Lane, request: Subscribe, reply: Reply) -> None:
        _private(lane.session, request.room)

        async def answer(join: int) -> None:
            found: dict[str, Any] = {}
            attachments: list[bytes] = []
            if request.history or request.since is not None:
                page = await self._read(
                    lane, request.room, request.since, join + 1, request.history
                )
                found, attachments = _page(page, newest=request.since is None)
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


def _answer(connection: Connection, ack: str) -> Reply:
    """Return what writes an acknowledgement; without an id there is nobody to answer."""

    def reply(answer: dict[str, Any], attachments: list[bytes]) -> None:
        if not ack:
            return
        body = _encode([answer])
        if attachments:
            text = f"6{len(attachments)}-{ack}{body.decode()}"
            connection.send(Frame(text, *attachments))
        else:
            connection.send(Frame.text(b"3%b%b" % (ack.encode(), body)))

    return reply


def _page(page: Page, *, newest: bool) -> tuple[dict[str, Any], list[bytes]]:
    """Return a page as an answer holds it, with at most 10 attachments; where they are more, the rest stays behind.

    `newest`: what is asked for is the end of the log, so it is the beginning of the page that goes.
    """
    chosen: list[dict[str, Any]] = []
    attachments: list[bytes] = []
    more = page.more
    for message in reversed(page.messages) if newest else page.messages:
        entry, binary = message.history()
        if len(attachments) + len(binary) > ATTACHMENTS:
            more = True
            break
        if binary:
            entry["data"] = msgspec.Raw(renumber(entry["data"], len(attachments)))
            attachments += binary
        chosen.append(entry)
    if newest:
        chosen.reverse()
    return {"messages": chosen, "more": more, "gap": page.gap}, attachments


def _private(session: Session, room: str) -> None:
    """A personal room is its client's alone."""
    if room.startswith("@") and not (session.named and room == f"@{session.client_id}"):
        raise Forbidden("room: a personal room is its client's alone")


def _int(offset: str | None) -> int | None:
    return None if offset is None else int(offset)

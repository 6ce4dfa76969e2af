"""Socket.IO's way into the hub: CONNECT, the verbs, the end of a connection."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from socketio.exceptions import ConnectionRefusedError

from hub.api.limits import ConnectionLimits, SharedLoad
from hub.api.pipeline import VerbPipeline
from hub.api.registry import PUBLISH, VERBS
from hub.api.requests import VerbRequest, decode, parse, quick_publish
from hub.engineio.core.connection import Connection
from hub.engineio.core.prepared import PreparedMessage
from hub.engineio.core.state import DisconnectReason
from hub.errors import BadRequest, HubError, NotFound, RateLimited, TooLarge
from hub.model import check_client_id, is_offset
from hub.node.node import Node
from hub.pid import Pid
from hub.socketio.server import Gateway, SocketIOServer


class SocketIOGateway(Gateway):
    """Serves a node's clients of namespace `/`."""

    def __init__(self, node: Node, server: SocketIOServer) -> None:
        self._node = node
        self._server = server
        self._settings = node.settings
        # A message of so many characters is short enough, whichever they are: UTF-8 has up to 4 bytes for one.
        self._surely_short = node.settings.max_message // 4
        self._load = SharedLoad(node.settings.pending_together)
        self._loop = asyncio.get_running_loop()
        server.gateway = self

    # -- CONNECT

    async def on_connect(self, connection: Connection, auth: Any) -> dict[str, Any]:
        """Claim a session for a connection and return what its CONNECT reply holds."""
        client_id, pid, offset, data_only, manual_acks = _identify(auth)
        former: VerbPipeline | None = connection.data.get("pipeline")
        if former is not None:
            # It left "/", and comes again over the same connection.
            former.limits.charge("connect", streamed=False)
        session = await self._node.sessions.claim(
            connection,
            client_id=client_id,
            pid=pid,
            offset=offset,
            data_only=data_only,
            manual_acks=manual_acks,
            again=former is not None,
        )
        if session is None:
            raise ConnectionRefusedError("refused")
        # One for all of a connection's sessions: leaving and coming again renews no limit.
        limits = (
            former.limits
            if former is not None
            else ConnectionLimits(self._settings, connection, self._loop, self._load)
        )
        connection.data["pipeline"] = VerbPipeline(self._node, connection, session, limits)
        reply = {"sid": session.claim.sid}
        if not data_only:
            reply["pid"] = str(session.claim.pid)
        return reply

    def write_connect_reply(self, connection: Connection, reply: PreparedMessage) -> None:
        """Write the CONNECT reply and start the session."""
        pipeline: VerbPipeline = connection.data["pipeline"]
        self._node.sessions.start_session(pipeline.session, reply)

    async def on_disconnect(self, connection: Connection, reason: str) -> None:
        """Detach the session of a connection that has ended or left the namespace."""
        pipeline: VerbPipeline = connection.data["pipeline"]
        deliberate = reason == DisconnectReason.CLIENT_DISCONNECT
        await self._node.sessions.detach(pipeline.session, deliberate=deliberate)

    # -- verbs

    def on_event(
        self, connection: Connection, ack: str, text: str, attachments: Sequence[bytes] = ()
    ) -> bool:
        """Take an event, the id of its packet and its JSON; False: it is no event at all, and goes python-socketio's way."""
        pipeline: VerbPipeline | None = connection.data.get("pipeline")
        if pipeline is None:
            return False  # python-socketio ends the connection, as the protocol asks
        depth = self._settings.max_depth
        limits = pipeline.limits
        verb, event = PUBLISH, "publish"
        size = len(text)
        if attachments:
            size += sum(map(len, attachments))
        try:
            if size > self._surely_short:
                self._check_size(size, text)
            request: VerbRequest | None = quick_publish(text, len(attachments), depth)
            if request is not None:
                limits.charge("publish", streamed=True)
            else:
                event = ""
                packet = parse(text, depth)
                if packet is None:
                    return False  # likewise
                event, arguments = packet
                if event not in VERBS:
                    raise NotFound(f"there is no verb {event[:64]!r}")
                verb = VERBS[event]
                limits.charge(event, streamed=verb.streamed)
                request = decode(event, verb.request, arguments, len(attachments), depth)
        except RateLimited as error:
            self._refuse(pipeline, ack, event, error)
        except HubError as error:
            self._refuse(pipeline, ack, event, limits.charge_failed(error))
        else:
            pipeline.submit(verb, request, attachments, ack, size)
        return True

    def on_refused(self, connection: Connection, ack: str, error: HubError) -> None:
        """Refuse an event that could not be read, the id of whose packet is known."""
        pipeline: VerbPipeline = connection.data["pipeline"]
        self._refuse(pipeline, ack, "", pipeline.limits.charge_failed(error))

    def _refuse(self, pipeline: VerbPipeline, ack: str, event: str, error: HubError) -> None:
        """Answer an event with an error, or count it where nobody waits for the answer. `event`: its name, if known."""
        pipeline.write_error(ack, event, error)
        if not ack:
            self._server.counters[f"{error.code} without an acknowledgement"] += 1

    def _check_size(self, size: int, text: str) -> None:
        """Raise TooLarge if a message is too long. `size`: its bytes, each character of `text` counted as one."""
        if not text.isascii():
            size += len(text.encode()) - len(text)
        if size > self._settings.max_message:
            raise TooLarge(f"{size} bytes: a message may have {self._settings.max_message}")


def _identify(auth: Any) -> tuple[str | None, Pid | None, int | None, bool, bool]:
    """Return client id, pid, offset, whether `args` is "data" and `acks` "manual", of a CONNECT. Raises ConnectionRefusedError."""
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
        if client_id is not None and text is not None and (not pid or pid.client_id != client_id):
            # Stock clients go on sending the pid and the offset of their last session after somebody else has logged in.
            pid = Pid.of_another(client_id)
    except BadRequest as error:
        raise ConnectionRefusedError(error.message) from None
    return client_id, pid, known, auth.get("args") == "data", auth.get("acks") == "manual"

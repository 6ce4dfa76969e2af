"""Rooms: subscribe, unsubscribe, publish, history, ack (PROTOCOL §4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hub.api.pipeline import Call
from hub.api.requests import (
    AckRequest,
    HistoryRequest,
    PublishRequest,
    SubscribeRequest,
    UnsubscribeRequest,
)
from hub.errors import Forbidden, HubError
from hub.message import encode, meta
from hub.pubsub import history as room_history
from hub.pubsub.session import Session


def publish(call: Call, request: PublishRequest) -> None:
    """Send a message on its way; it is answered when its script has run."""
    pipeline = call.pipeline
    store, client_id = pipeline.node.store, pipeline.session.client_id
    header, body = encode(
        request.event,
        bytes(request.data),
        meta(request.room, client_id),
        attachments=call.attachments,
        skip_client=None if request.echo else client_id,
        ttl=request.ttl or 0,
    )
    dedupe = None
    if request.id is not None:
        dedupe = store.keys.dedupe(request.room, client_id, request.id)
    store.publishing.publish(
        request.room,
        header,
        body,
        call,
        volatile=request.volatile,
        conditional=not request.echo or request.ttl is not None,
        dedupe=dedupe,
    )


async def subscribe(calls: Sequence[Call], requests: Sequence[SubscribeRequest]) -> None:
    """Join rooms; what a room's log holds up to the answer's offset goes with it where that was asked for.

    Requests that come together are plain. One with history, or for a personal room, comes alone.
    """
    pipeline, session = calls[0].pipeline, calls[0].session
    for request in requests:
        _check_personal(session, request.room)
    if requests[0].with_history:
        await session.wait_drained()
    rooms = [request.room for request in requests]
    async with pipeline.node.sessions.joining(session, rooms) as offsets:
        for call, request, offset in zip(calls, requests, offsets, strict=True):
            if isinstance(offset, HubError):
                call.fail("subscribe", offset)
                continue
            answer = {"ok": True, "room": request.room, "offset": str(offset)}
            if request.with_history:
                found, attachments = await _found(call, request, offset)
                call.reply(answer | found, attachments)
            else:
                call.reply_soon(answer)
        pipeline.flush()


async def _found(
    call: Call, request: SubscribeRequest, offset: int
) -> tuple[dict[str, Any], list[bytes]]:
    """Return what a room's log holds up to the offset of an answer, as it is answered."""
    if request.history == 0:
        return {"messages": [], "more": False, "gap": False}, []
    return await _read(call, request.room, request.since, offset + 1, request.history)


async def unsubscribe(call: Call, request: UnsubscribeRequest) -> None:
    if request.room == f"@{call.session.client_id}":
        raise Forbidden("room: a personal room is always subscribed")
    await call.node.sessions.unsubscribe(call.session, request.room)
    call.reply({"ok": True, "room": request.room})


async def history(call: Call, request: HistoryRequest) -> None:
    """Read a room's log."""
    _check_personal(call.session, request.room)
    # A client that asks for much and reads nothing waits for itself.
    await call.session.wait_drained()
    answer, attachments = await _read(
        call, request.room, request.after, _int(request.before), request.limit
    )
    call.reply({"ok": True, **answer}, attachments)


async def ack(call: Call, request: AckRequest) -> None:
    """Note that everything up to an offset is processed; answered once that is stored."""
    call.session.commit(int(request.offset))
    await call.node.maintenance.commit_now(call.session)
    call.reply({"ok": True, "offset": str(call.session.acked)})


async def _read(
    call: Call, room: str, after: str | None, before: int | None, limit: int | None
) -> tuple[dict[str, Any], list[bytes]]:
    """Return what a room's log holds, as it is answered."""
    page = await call.node.history.read(room, after=_int(after), before=before, limit=limit)
    call.limits.charge_answer(page.size, page.examined)
    return room_history.answer(page, newest=after is None)


def _check_personal(session: Session, room: str) -> None:
    """Refuse a personal room to everybody but its client."""
    if room.startswith("@") and not (session.named and room == f"@{session.client_id}"):
        raise Forbidden("room: a personal room is its client's alone")


def _int(offset: str | None) -> int | None:
    return None if offset is None else int(offset)

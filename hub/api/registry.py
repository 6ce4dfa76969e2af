"""The table of verbs. Socket.IO dispatch, the limits and the reference in docs/protocol.md are made from it.

A new verb is a type in `requests.py`, a handler in `handlers/`, and a row here.
"""

from __future__ import annotations

from hub.api.handlers import pubsub
from hub.api.limits import Cost
from hub.api.pipeline import Verb
from hub.api.requests import (
    AckRequest,
    HistoryRequest,
    PublishRequest,
    SubscribeRequest,
    UnsubscribeRequest,
)

PUBLISH = Verb("publish", PublishRequest, pubsub.publish, Cost.STREAMED)

VERBS = {
    verb.name: verb
    for verb in (
        Verb("subscribe", SubscribeRequest, pubsub.subscribe, together=lambda each: each.is_plain),
        Verb("unsubscribe", UnsubscribeRequest, pubsub.unsubscribe),
        PUBLISH,
        Verb("history", HistoryRequest, pubsub.history),
        Verb("ack", AckRequest, pubsub.ack, Cost.STREAMED),
    )
}

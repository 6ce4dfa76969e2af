"""Malformed input of every kind for every verb: an error that says what and where, and no harm."""

from __future__ import annotations

import json

import pytest

from hub.model import RESERVED_EVENTS
from tests.support.times import eventually

both = pytest.mark.parametrize("transport", ["websocket", "polling"])
VERBS = ("subscribe", "unsubscribe", "publish", "history", "ack")

GOOD = {
    "subscribe": {"room": "r"},
    "unsubscribe": {"room": "r"},
    "publish": {"room": "r", "event": "m", "data": 1},
    "history": {"room": "r"},
    "ack": {"offset": "1"},
}

ROOMS = ['""', "null", "5", "[]", "{}", "true", json.dumps("x" * 256), r'"a\u0000"', r'"a\nb"',
         r'"\u007f"', r'"\u0085"', r'"a\n"', r'"\ud800"']  # fmt: skip
OFFSETS = ["5", "-1", '""', '"x"', '"-1"', '"1.5"', '" 1"', '"1 "', '"1\\n"', '"١"', "[]", "true",
           '"12345678901234567"']  # fmt: skip
FLAGS = ["1", '"true"', "[]", "0"]

# For each verb: the field, and the JSON of values that it must refuse.
BAD = {
    "subscribe": {"room": ROOMS, "history": ['"5"', "-1", "1001", "1.5", "1e999", "[]", "true"],
                  "since": OFFSETS},
    "unsubscribe": {"room": ROOMS},
    "publish": {
        "room": ROOMS,
        "event": ['""', "null", "5", "[]", json.dumps("e" * 129), '"hub:x"', '"hub:"', '"connect"',
                  '"connect_error"', '"disconnect"', '"disconnecting"', '"newListener"',
                  '"removeListener"', '"__disconnect_final"', r'"\ud800"', '"*"', r'"a\nb"', r'"\u0000"',
                  r'"\u007f"', r'"\u0085"'],
        "id": ['""', "5", "[]", "true", json.dumps("i" * 256), r'"\ud83d"', r'"a\udc00"'],
        "volatile": FLAGS,
        "echo": FLAGS,
        "ttl": ["0", "-1", '"5"', "[]", "true", "1e999", "-1e999", "1e300"],
        "data": ["1e999", "-1e999", "[[1e400]]", '{"a":-1e400}', "9" * 400, "-" + "9" * 5000,
                 "1" + "0" * 99, "9" * 250 + "e99", '{"hasOwnProperty":1}', r'{"hasOwn\u0050roperty":1}',
                 '{"_placeholder":[]}', '{"_placeholder":1}', '{"a":{"_placeholder":"x"}}',
                 '{"_placeholder":true,"num":0}', '[{"_placeholder":true,"num":0}]',
                 r'{"\u005fplaceholder":true,"num":0}', "[" * 600 + "]" * 600],
    },
    "history": {"room": ROOMS, "limit": ['"5"', "0", "-1", "1001", "1.5", "[]", "true", "1e999"],
                "before": OFFSETS, "after": OFFSETS},
    "ack": {"offset": [*OFFSETS, "null"]},
}  # fmt: skip

# What is no JSON, though stock Python clients write it or any stock client nests it.
STOCK_JSON = ["NaN", "Infinity", "-Infinity", "[NaN]", '{"a":Infinity}', "[" * 50_000 + "]" * 50_000,
              '{"a":' * 20_000 + "1" + "}" * 20_000]  # fmt: skip
# What no stock client writes.
NO_JSON = ["undefined", "'x'", "01", "[1,]", "+1", '"\t"', ".5", "0x10", "nan"]


def with_field(verb, field, text):
    """Return the JSON of a verb whose one field has this JSON."""
    fields = {name: json.dumps(value) for name, value in GOOD[verb].items()} | {field: text}
    inside = ",".join(f"{json.dumps(name)}:{value}" for name, value in fields.items())
    return f'["{verb}",{{{inside}}}]'


class Asker:
    """Sends malformed verbs and notes what was answered wrongly, so that a test sees it all."""

    def __init__(self, connect):
        self.connect = connect
        self.client = None
        self.faults = []

    async def refuses(self, text, *words, attachments=(), codes=("bad_request",)):
        kind = "5" if attachments else "2"
        shown = text if len(text) < 100 else text[:80] + "…"
        if self.client is None or self.client.closed:
            self.client = await self.connect()
        try:
            answer = await self.client.ask_text(text, *attachments, kind=kind)
        except AssertionError as error:
            self.faults.append((shown, str(error)))
            return
        error = answer.get("error", {}) if isinstance(answer, dict) else {}
        if answer == {"ok": False, "error": error} and error["code"] in codes:
            missing = [word for word in words if word not in error["message"]]
            if missing or error["retryable"] is not False or len(error["message"]) > 400:
                self.faults.append((shown, error, missing))
        else:
            self.faults.append((shown, str(answer)[:200]))

    async def unharmed(self):
        """Fail if anything was answered wrongly, or if the connection does not do its work."""
        if self.faults:
            pytest.fail("\n".join(str(fault)[:300] for fault in self.faults))
        assert (await self.client.ask("history", {"room": "r"}))["ok"] is True
        assert not self.client.closed


@pytest.fixture
async def asker(hub, raw, transport):
    return Asker(lambda: raw(hub.url, transport))


@both
@pytest.mark.parametrize("verb", VERBS)
async def test_fields_out_of_bounds(asker, verb, transport):
    """Each bad value is refused by an error that names its field."""
    for field, texts in BAD[verb].items():
        for text in texts:
            await asker.refuses(with_field(verb, field, text), field)
    await asker.unharmed()


@both
@pytest.mark.parametrize("verb", VERBS)
async def test_arguments_that_are_no_object(asker, verb, transport):
    """A verb takes exactly one object."""
    await asker.refuses(f'["{verb}"]', verb)
    for text in ("5", '"x"', "null", "true", "[]", "[{}]"):
        await asker.refuses(f'["{verb}",{text}]', verb)
    good = json.dumps(GOOD[verb])
    await asker.refuses(f'["{verb}",{good},1]', verb)
    await asker.refuses(f'["{verb}",{good},{good}]', verb)
    await asker.refuses(f'["{verb}"' + ",0" * 1000 + "]", verb)
    await asker.unharmed()


@both
@pytest.mark.parametrize("verb", VERBS)
async def test_missing_and_unknown_fields(asker, verb, transport):
    """A missing field is named, and so is one that the verb does not have."""
    for field in GOOD[verb]:
        fields = {name: value for name, value in GOOD[verb].items() if name != field}
        await asker.refuses(json.dumps([verb, fields]), field)
    await asker.refuses(json.dumps([verb, {}]))
    await asker.refuses(json.dumps([verb, GOOD[verb] | {"extra": 1}]), "extra")
    await asker.refuses(json.dumps([verb, GOOD[verb] | {"Room": 1}]), "Room")
    await asker.unharmed()


@both
async def test_two_ways_to_say_where(asker, transport):
    """Fields that contradict each other are refused together."""
    for verb, pair in (("subscribe", ("history", "since")), ("history", ("before", "after"))):
        values = {"history": 5, "since": "1", "before": "1", "after": "1"}
        fields = GOOD[verb] | {name: values[name] for name in pair}
        await asker.refuses(json.dumps([verb, fields]), *pair)
    await asker.unharmed()


@both
async def test_binary_where_it_does_not_belong(asker, transport):
    """Only the data of a publish may be binary; placeholders and attachments must match."""
    hole = '{"_placeholder":true,"num":%s}'
    for verb in VERBS:
        for field in GOOD[verb]:
            if field != "data":
                text = with_field(verb, field, hole % 0)
                await asker.refuses(text, verb, attachments=[b"x"])
        await asker.refuses(f'["{verb}",{hole % 0}]', verb, attachments=[b"x"])
    for number in ("1", "-1", '"0"', "0.5", "null", "true", "1e3"):
        text = with_field("publish", "data", f"[{hole % 0},{hole % number}]")
        await asker.refuses(text, "data", attachments=[b"x"])
    # Stock Python clients take any true value for a placeholder.
    odd = '[{"_placeholder":true,"num":0},{"_placeholder":1,"num":9}]'
    await asker.refuses(with_field("publish", "data", odd), "data", attachments=[b"x"])
    for bad in ("1e999", '{"a":[-1e999]}'):
        text = with_field("publish", "data", f"[{hole % 0},{bad}]")
        await asker.refuses(text, "data", attachments=[b"x"])
    await asker.unharmed()


@both
async def test_too_many_attachments(hub, raw, transport):
    """Ten attachments pass. Up to a hundred are read and refused. More close the connection."""
    client = await raw(hub.url, transport)
    await client.join("attachments-" + transport)
    holes = [{"_placeholder": True, "num": number} for number in range(100)]
    for count, ok in ((10, True), (11, False), (100, False)):
        sender = await raw(hub.url, transport)
        fields = {"room": "attachments-" + transport, "event": "m", "data": holes[:count]}
        text = json.dumps(["publish", fields])
        await sender.send(f"45{count}-7{text}", *[b"x"] * count)
        await eventually(lambda sender=sender: 7 in sender.answers)
        assert sender.answers[7]["ok"] is ok
        if not ok:
            assert f"at most 10 binary values, not {count}" in sender.answers[7]["error"]["message"]
        assert (await sender.ask("history", {"room": "r"}))["ok"] is True
    await sender.send('45101-8["publish",{}]')
    await eventually(lambda: sender.closed)
    await client.publish("attachments-" + transport, "end")
    await eventually(lambda: client.data()[-1:] == ["end"])
    assert client.data() == [[b"x"] * 10, "end"]


@both
@pytest.mark.parametrize("text", NO_JSON, ids=lambda text: text[:10])
async def test_what_is_no_json_reaches_nobody(hub, raw, transport, text):
    """It ends the connection, as the protocol asks of an unreadable packet."""
    witness = await raw(hub.url)
    room = f"no-json-{transport}"
    await witness.join(room)
    for kind, start in (("2", ""), ("5", "1-")):
        fields = f'{{"room":"{room}","event":"m","data":[{text}]}}'
        if kind == "5":
            fields = fields.replace("[", '[{"_placeholder":true,"num":0},')
        sender = await raw(hub.url, transport)
        await sender.send(f'4{kind}{start}9["publish",{fields}]', *([b"x"] if start else []))
        await eventually(lambda sender=sender: sender.closed)
        assert not sender.answers
    await witness.publish(room, "end")
    await eventually(lambda: witness.data()[-1:] == ["end"])
    assert witness.data() == ["end"]


@both
async def test_what_only_stock_clients_take_for_json(asker, transport):
    """It is refused by an error that names the field, with and without attachments."""
    for text in STOCK_JSON:
        await asker.refuses(with_field("publish", "data", text), "publish: data: ")
        holed = f'[{{"_placeholder":true,"num":0}},{text}]'
        await asker.refuses(with_field("publish", "data", holed), "data", attachments=[b"x"])
        await asker.refuses(with_field("subscribe", "room", text), "subscribe: room: ")
        await asker.refuses(f'["history",{text}]')
        await asker.refuses(f'["no verb",{text}]')
    await asker.unharmed()


@both
async def test_without_an_acknowledgement(hub, raw, room, transport):
    """Malformed verbs that nobody wants answered are dropped without a sound."""
    client = await raw(hub.url, transport)
    for verb in VERBS:
        for text in ("", ",5", ",null", ",{}", ",[]", ',{"room":5}', ",{},{}", ',"x"'):
            await client.send(f'42["{verb}"{text}]')
    before = len(client.packets)
    assert (await client.ask("history", {"room": room}))["ok"] is True
    assert len(client.packets) <= before + 1
    assert not client.closed


@both
@pytest.mark.parametrize(
    "event", ["hub:session", "hub:gap", "message", "", "*", "x" * 100_000, "request", "enqueue"],
)  # fmt: skip
async def test_events_that_are_no_verbs(hub, raw, transport, event):
    """Reserved and unknown names from a client do nothing at all, but are answered."""
    client = await raw(hub.url, transport)
    await client.join("quiet")
    for args in ((), ({},), ("x", {"pid": "x"})):
        await client.emit(event, *args)
        answer = await client.ask(event, *args)
        assert answer["ok"] is False
        assert answer["error"]["code"] in ("not_found", "bad_request")
        assert len(answer["error"]["message"]) < 400
    await client.publish("quiet", 1)
    await eventually(lambda: client.data() == [1])


@both
@pytest.mark.parametrize("event", sorted(RESERVED_EVENTS))
async def test_reserved_events(hub, raw, transport, event):
    """They are names as any other that is no verb."""
    witness = await raw(hub.url, auth={"client_id": f"reserved-{event}-{transport}"})
    client = await raw(hub.url, transport)
    await client.join("reserved")
    await client.emit(event, {"client_id": f"reserved-{event}-{transport}"})
    await client.send("427" + json.dumps([event, {}]))
    await eventually(lambda: 7 in client.answers)
    assert client.answers[7]["error"]["code"] == "not_found"
    await client.drop()
    again = await raw(hub.url, transport, {"pid": client.reply["pid"]})
    session, _ = await again.session()
    assert (session["resumed"], session["rooms"]) == ("pid", ["reserved"])
    await again.publish("reserved", 1)
    await eventually(lambda: again.data() == [1])
    assert witness.named("41") == []


@both
async def test_an_oversized_message(hub, raw, transport):
    """Above the stated length it is refused, above twice the length the connection ends; the hub lives on."""
    client = await raw(hub.url, transport)
    limit = client.handshake["maxPayload"]
    assert limit == 1_000_000
    empty = len('["publish",{"room":"big","event":"m","data":""}]')
    for size, code in ((limit, None), (limit + 1, "too_large"), (2 * limit - 10, "too_large")):
        text = f'["publish",{{"room":"big","event":"m","data":"{"x" * (size - empty)}"}}]'
        answer = await client.ask_text(text)
        assert answer.get("error", {}).get("code") == code
    text = json.dumps(["publish", {"room": "r", "event": "m", "data": "x" * (2 * limit)}])
    try:
        await client.send("421" + text)
    except ConnectionError:
        pass
    await eventually(lambda: client.closed or client.status == 413)
    if transport == "websocket":
        assert client.close_code == 1009
    other = await raw(hub.url, transport)
    await other.join("big")
    await other.publish("big", "x" * (limit - 1000))
    await eventually(other.data)


@both
async def test_a_flood_of_malformed_verbs_is_no_flood_of_log_lines(hub, raw, transport):
    """A client cannot fill the log: malformed verbs are its own affair."""
    client = await raw(hub.url, transport)
    before = hub.log.stat().st_size
    for _ in range(20):
        await client.send(*['42["publish",{"room":5}]'] * 20)
    assert (await client.ask("history", {"room": "r"}))["ok"] is True
    assert hub.log.stat().st_size - before < 2000

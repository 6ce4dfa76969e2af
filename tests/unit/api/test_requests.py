"""Verbs: what is one, what is refused, and that nothing else can happen."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hub.api.registry import VERBS
from hub.api.requests import PublishRequest, SubscribeRequest, check_raw, parse
from hub.api.requests import decode as decode_as
from hub.errors import BadRequest, HubError
from hub.strict_json import MAX_DEPTH, renumber

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
FIELDS = [
    "room",
    "event",
    "data",
    "id",
    "volatile",
    "ttl",
    "echo",
    "history",
    "since",
    "limit",
    "before",
    "after",
    "offset",
]


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(value if isinstance(value, bytes) else json.dumps(value).encode())


def decode(verb: str, arguments: list[msgspec.Raw], attachments: int) -> Any:
    return decode_as(verb, VERBS[verb].request, arguments, attachments)


def publish(data: bytes) -> Any:
    return decode("publish", [raw(b'{"room":"r","event":"e","data":' + data + b"}")], 0)


@given(
    st.sampled_from(sorted(VERBS)),
    st.lists(json_values, max_size=2)
    | st.lists(st.dictionaries(st.sampled_from(FIELDS), json_values), min_size=1, max_size=1),
)
def test_any_json_is_a_request_or_refused(verb: str, arguments: list[Any]) -> None:
    """Whatever comes, the answer is a request or a sentence."""
    outcome: Any
    try:
        outcome = type(decode(verb, [raw(value) for value in arguments], 0))
    except HubError as error:
        outcome = error.message
    assert outcome is VERBS[verb].request or (isinstance(outcome, str) and outcome)


@given(st.binary(max_size=60))
def test_any_bytes(data: bytes) -> None:
    """What is not JSON is refused as well."""
    with pytest.raises(HubError):
        decode("publish", [msgspec.Raw(b'{"room":' + data)], 0)


@given(st.text(max_size=40) | st.lists(json_values).map(json.dumps))
def test_any_text_is_an_event_or_none(text: str) -> None:
    """What is a list that begins with a name is an event with its arguments, and nothing else is."""
    try:
        value = json.loads(text, parse_constant=lambda _: None)
    except ValueError:
        value = None
    try:
        packet = parse(text)
    except HubError:
        assert "NaN" in text or "Infinity" in text or not isinstance(value[0], str)
        return
    if packet is None:
        assert not (isinstance(value, list) and value)
    else:
        event, arguments = packet
        assert [event, *(json.loads(bytes(argument)) for argument in arguments)] == value


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ('["publish",{"room":"r","event":"m","data":NaN}]', "bad_request", "publish: data: NaN is no finite number"),
        ('["publish", {"data": {"a": [1, -Infinity]}, "room": "r"}]', "bad_request", "publish: data: -Infinity is no finite number"),
        ('["publish",{"room":"r","event":"m","ttl":Infinity,"data":NaN}]', "bad_request", "publish: ttl: Infinity is no finite number"),
        ('["publish",{"room":"r","event":"\\ud83d","data":NaN}]', "bad_request", "publish: data: NaN is no finite number"),
        ('["publish",{"data":%s}]' % ("[" * 3000 + "]" * 3000), "bad_request", "publish: data: nested deeper than 100"),
        ('["publish",{"room":"r","data":%s}]' % ('{"a":' * 3000 + "1" + "}" * 3000), "bad_request", "publish: data: nested deeper than 100"),
        ('["publish",{"room":"r"},NaN]', "bad_request", "publish: NaN is no finite number"),
        ('["publish",NaN]', "bad_request", "NaN is no finite number"),
        ("[NaN]", "bad_request", "NaN is no finite number"),
        ("[%s]" % ("[" * 3000 + "]" * 3000), "bad_request", "nested deeper than 100"),
        ("[5,{}]", "not_found", "there is no verb 5"),
        ("[null]", "not_found", "there is no verb null"),
        ('[{"a":"%s"}]' % ("x" * 1000), "not_found", 'there is no verb {"a": "%s' % ("x" * 57)),
    ],
    ids=lambda value: value[:40],
)  # fmt: skip
def test_what_stock_clients_send_and_nobody_takes(text: str, code: str, message: str) -> None:
    """The refusal says what is wrong, and where."""
    with pytest.raises(HubError) as refusal:
        parse(text)
    assert (refusal.value.code, refusal.value.message) == (code, message)


@pytest.mark.parametrize(
    "text",
    ["[", "[]", "[,]", '["publish",{]', '["publish",{"data":nan}]', '["publish",{"data":NaN}', "['publish']", '["publish",{"a":"\t"}]'],
)  # fmt: skip
def test_what_no_stock_client_sends_is_no_event(text: str) -> None:
    assert parse(text) is None


def test_half_a_surrogate_pair_is_data_and_no_name() -> None:
    """JavaScript may send one; it goes through as data, as it came, and is refused in a name."""
    packet = parse('["publish",{"room":"r","event":"e","data":["\\ud800"]}]')
    assert packet is not None
    request = decode(packet[0], packet[1], 0)
    assert isinstance(request, PublishRequest)
    assert json.loads(bytes(request.data)) == ["\ud800"]
    packet = parse('["publish",{"room":"\\ud800","event":"e","data":1}]')
    assert packet is not None
    with pytest.raises(BadRequest, match="room"):
        decode(packet[0], packet[1], 0)


@given(json_values)
def test_data_stays_as_it_came(value: Any) -> None:
    """Byte for byte: nothing is encoded again."""
    text = json.dumps(value, indent=1, ensure_ascii=True).encode()
    if "_placeholder" in str(value):
        return
    request = publish(text)
    assert isinstance(request, PublishRequest)
    assert bytes(request.data) == text


@pytest.mark.parametrize(
    "data",
    [
        b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"[1E+400]", b"1E400", b"1e+309", b'{"a":[1e309]}', b"1" + b"0" * 400,
        b"1" + b"0" * 99, b"[-1" + b"0" * 99 + b"]", b"9" * 250 + b"e99",
        b'{"hasOwnProperty":1}', b'[{"a":{"hasOwnPropert\\u0079":1}}]', b'{"has\\u004fwnProperty":null}',
        b'{"_placeholder":1}', b'{"_placeholder":[]}', b'{"_placeholder":{}}', b'{"_placeholder":"x"}',
        b'{"_placeholder":true,"num":0}', b'[[{"num":0,"_placeholder":true}]]', b'{"_placeholder":true}',
        b'{"\\u005fplaceholder":true,"num":0}', b'{"_pl\\u0061ceholder":true,"num":0}',
        b"", b"{", b'"', b"'a'", b"[1,]", b"undefined",
    ],
)  # fmt: skip
def test_data_that_breaks_clients_is_refused(data: bytes) -> None:
    """No number that is none, no placeholder without its attachment, nothing but JSON."""
    with pytest.raises(BadRequest):
        publish(data)


@pytest.mark.parametrize(
    "data",
    [
        b'"_placeholder"', b'{"_placeholder":false}', b'{"_placeholder":0,"num":0}', b'{"_placeholder":""}', b'{"_placeholder":null}',
        b"1e308", b"-1.5E+307", b"1e-999", b"9" * 99, b"-" + b"9" * 99, b"0." + b"1" * 400, b'"' + b"9" * 400 + b'"',
        b'"hasOwnProperty"', b'{"hasOwn":1}', b'{"toString":1,"__proto__":2,"constructor":3}', b'{"\\u004a":1}',
        b'"1e999"', b'"NaN"', b'{"a":"\\u0041"}', b"[]", b"null", b'" \\ud83d\\ude00 "',
    ],
)  # fmt: skip
def test_data_that_only_looks_like_it(data: bytes) -> None:
    """It is taken."""
    assert bytes(publish(data).data) == data


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_depth(opening: bytes, closing: bytes) -> None:
    """As deep as stock clients can take, and no deeper; brackets in strings do not count."""
    publish(opening * MAX_DEPTH + b"1" + closing * MAX_DEPTH)
    for depth in (MAX_DEPTH + 1, 500, 100_000):
        with pytest.raises(BadRequest):
            publish(opening * depth + b"1" + closing * depth)
    publish(b'"' + b"[" * 1000 + b'\\"' + b"{" * 1000 + b'"')
    publish(b"[" + b",".join([b"[]"] * 1000) + b"]")
    # Where msgspec does not read it.
    for odd in (b'"\\ud800"', b"1" + b"0" * 90):
        publish(opening * MAX_DEPTH + odd + closing * MAX_DEPTH)
        with pytest.raises(BadRequest, match="nested deeper"):
            publish(opening * (MAX_DEPTH + 1) + odd + closing * (MAX_DEPTH + 1))


def test_placeholders_have_their_attachments() -> None:
    """What names one that did not come is refused, and so is what only stock Python takes for one."""
    check_raw("data", raw({"_placeholder": True, "num": 1}), 2, MAX_DEPTH)
    for number in (2, -1, 0.0, True, "0", None):
        with pytest.raises(BadRequest):
            check_raw("data", raw({"_placeholder": True, "num": number}), 2, MAX_DEPTH)
    with pytest.raises(BadRequest):
        check_raw("data", raw({"_placeholder": 1, "num": 0}), 2, MAX_DEPTH)
    with pytest.raises(BadRequest, match="binary"):
        decode("history", [raw({"room": "r"})], 1)


@given(st.integers(0, 5))
def test_renumbering(first: int) -> None:
    """Placeholders count on; what only resembles one stays."""
    data = raw(
        [
            {"_placeholder": True, "num": 0},
            {"_placeholder": False, "num": 0},
            {"b": {"_placeholder": True, "num": 1}},
        ]
    )
    assert json.loads(renumber(bytes(data), first)) == [
        {"_placeholder": True, "num": first}, {"_placeholder": False, "num": 0},
        {"b": {"_placeholder": True, "num": first + 1}},
    ]  # fmt: skip


def test_renumbering_what_is_as_deep_as_may_be_allowed() -> None:
    data = b"[" * 500 + b'{"_placeholder":true,"num":0}' + b"]" * 500
    assert json.loads(renumber(data, 1)) == json.loads(data.replace(b"0", b"1"))


@pytest.mark.parametrize(
    ("verb", "fields", "named"),
    [
        ("subscribe", {}, "room"),
        ("subscribe", {"room": ""}, "room"),
        ("subscribe", {"room": "a\nb"}, "room"),
        ("subscribe", {"room": "x" * 256}, "room"),
        ("subscribe", {"room": 5}, "room"),
        ("subscribe", {"room": "r", "history": -1}, "history"),
        ("subscribe", {"room": "r", "history": 1001}, "history"),
        ("subscribe", {"room": "r", "since": 5}, "since"),
        ("subscribe", {"room": "r", "since": "1" * 17}, "since"),
        ("subscribe", {"room": "r", "since": "-5"}, "since"),
        ("subscribe", {"room": "r", "since": "5\n"}, "since"),
        ("subscribe", {"room": "r", "since": "5", "history": 1}, "history and since"),
        ("subscribe", {"room": "r", "rom": 1}, "rom"),
        ("history", {"room": "r", "limit": 0}, "limit"),
        ("history", {"room": "r", "before": "1", "after": "1"}, "before and after"),
        ("publish", {"room": "r", "event": "e"}, "data"),
        ("publish", {"room": "r", "event": "hub:x", "data": 1}, "event"),
        ("publish", {"room": "r", "event": "connect", "data": 1}, "event"),
        ("publish", {"room": "r", "event": "", "data": 1}, "event"),
        ("publish", {"room": "r", "event": "e", "data": 1, "ttl": 0}, "ttl"),
        ("publish", {"room": "r", "event": "e", "data": 1, "ttl": "1"}, "ttl"),
        ("publish", {"room": "r", "event": "e", "data": 1, "id": ""}, "id"),
        ("publish", {"room": "r", "event": "e", "data": 1, "echo": 1}, "echo"),
        ("ack", {"offset": 5}, "offset"),
        ("ack", {}, "offset"),
    ],
)  # fmt: skip
def test_what_was_wrong_and_where(verb: str, fields: dict[str, Any], named: str) -> None:
    """A refusal names the field."""
    with pytest.raises(BadRequest, match=named):
        decode(verb, [raw(fields)], 0)


@example(0)
@given(st.integers(0, 4))
def test_one_object_it_is(count: int) -> None:
    """Not none, and not several."""
    arguments = [raw({"room": "r"})] * count
    if count == 1:
        assert decode("subscribe", arguments, 0) == SubscribeRequest(room="r")
    else:
        with pytest.raises(BadRequest, match="one object"):
            decode("subscribe", arguments, 0)

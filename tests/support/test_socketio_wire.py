"""The base of the hand-written clients reads and writes packets as the protocol has them."""

from __future__ import annotations

import pytest

from tests.support.socketio_wire import (
    ACK,
    CONNECT,
    CONNECT_ERROR,
    DISCONNECT,
    EVENT,
    OPEN,
    PING,
    PONG,
    Packet,
    Wire,
    decode,
    encode,
    join_payload,
    split_payload,
)

# Packets of the protocol's documentation, and what they say.
PACKETS = [
    (["40"], Packet(CONNECT)),
    (['40{"token":"123"}'], Packet(CONNECT, {"token": "123"})),
    (['40/admin,{"sid":"x"}'], Packet(CONNECT, {"sid": "x"}, namespace="/admin")),
    (['44{"message":"Not authorized"}'], Packet(CONNECT_ERROR, {"message": "Not authorized"})),
    (['42["foo"]'], Packet(EVENT, ["foo"])),
    (['42/admin,["bar"]'], Packet(EVENT, ["bar"], namespace="/admin")),
    (['4212["foo",1]'], Packet(EVENT, ["foo", 1], 12)),
    (['43/admin,13["bar"]'], Packet(ACK, ["bar"], 13, "/admin")),
    (["41/admin,"], Packet(DISCONNECT, namespace="/admin")),
    (
        ['451-["baz",{"_placeholder":true,"num":0}]', b"\x01\x02"],
        Packet(EVENT, ["baz", b"\x01\x02"]),
    ),
    (
        [
            '462-/admin,15[{"a":{"_placeholder":true,"num":0}},[{"_placeholder":true,"num":1}]]',
            b"a",
            b"",
        ],
        Packet(ACK, [{"a": b"a"}, [b""]], 15, "/admin"),
    ),
]


@pytest.mark.parametrize(("wire", "packet"), PACKETS)
def test_a_packet_is_written_and_read(wire, packet):
    end = Wire()
    assert encode(*packet) == wire
    assert [end.receive(part) for part in wire] == [None] * (len(wire) - 1) + [packet]


def test_engineios_own_packets():
    """The handshake is JSON, a probe keeps its text."""
    assert decode('0{"sid":"x"}') == Packet(OPEN, {"sid": "x"})
    assert decode("2") == Packet(PING, "")
    assert decode("3probe") == Packet(PONG, "probe")


def test_a_payload_is_written_and_read():
    packets = ['42["é"]', b"\x01\x02", "3"]
    assert join_payload(packets) == '42["é"]\x1ebAQI=\x1e3'
    assert split_payload(join_payload(packets)) == packets


def test_a_ping_is_due_an_answer():
    """Once, and not where pings are to be left unanswered; it may come between attachments."""
    end = Wire()
    end.receive('451-["a",{"_placeholder":true,"num":0}]')
    assert end.receive("2") == Packet(PING, "")
    assert end.due() == ["3"]
    assert end.due() == []
    assert end.receive(b"x") == Packet(EVENT, ["a", b"x"])
    deaf = Wire(pong=False)
    deaf.receive("2")
    assert deaf.due() == []


def test_attachments_and_what_announces_them_go_together():
    end = Wire()
    with pytest.raises(AssertionError, match="nothing announced"):
        end.receive(b"x")
    end.receive('452-["a",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]')
    end.receive(b"x")
    with pytest.raises(AssertionError, match="between a packet and its attachments"):
        end.receive('42["b"]')


def test_every_question_has_a_number_of_its_own():
    end = Wire()
    assert end.ask("history", {"room": "r"}) == (1, ['421["history",{"room":"r"}]'])
    assert end.number() == 2
    assert end.ask("publish", b"x") == (
        3,
        ['451-3["publish",{"_placeholder":true,"num":0}]', b"x"],
    )

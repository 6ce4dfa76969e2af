"""Socket.IO v5: what its protocol document asks of a server, and what servers get wrong."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from typing import Any

import aiohttp
import pytest
from socketio.exceptions import ConnectionRefusedError as Refused

from hub.engineio.core.connection import Connection
from hub.engineio.core.prepared import PreparedMessage
from hub.engineio.core.state import CloseCode
from hub.errors import Unavailable
from tests.conformance.conftest import (
    SOON,
    Peer,
    Serve,
    closed,
    connect,
    disconnect_replaced,
    text,
    until,
)
from tests.conformance.gateway import PlainGateway, connection_of
from tests.support.times import MS

EVENT_BINARY = (
    '452-["message",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]',
    b"\x01\x02\x03",
    b"\x04\x05\x06",
)


async def send(socket: aiohttp.ClientWebSocketResponse, *packets: str | bytes) -> None:
    for packet in packets:
        if isinstance(packet, str):
            await socket.send_str(packet)
        else:
            await socket.send_bytes(packet)


class TestConnect:
    @pytest.mark.parametrize("namespace", ["", "/custom"])
    @pytest.mark.parametrize("auth", [{}, {"token": "123"}])
    async def test_a_namespace_answers_with_a_sid(
        self, sio_peer: Peer, namespace: str, auth: dict[str, str]
    ) -> None:
        comma = f"{namespace}," if namespace else ""
        async with sio_peer.websocket() as socket:
            await socket.send_str(f"40{comma}{json.dumps(auth) if auth else ''}")
            reply = await text(socket)
            assert reply.startswith(f"40{comma}{{")
            assert list(json.loads(reply[2 + len(comma) :])) == ["sid"]
            assert (
                await text(socket) == f'42{comma}["auth",{json.dumps(auth, separators=(",", ":"))}]'
            )

    async def test_an_unknown_namespace_is_told_so(self, sio_peer: Peer) -> None:
        async with sio_peer.websocket() as socket:
            await socket.send_str("40/random")
            assert await text(socket) == '44/random,{"message":"Invalid namespace"}'

    @pytest.mark.parametrize("transport", ["websocket", "polling"])
    async def test_without_a_connect_the_connection_is_closed(
        self, server_of: Serve, transport: str
    ) -> None:
        peer, server = await server_of(connect_timeout=200 * MS)
        if transport == "polling":
            sid = await peer.open()
            assert (await peer.poll(sid))[0] == 400
        else:
            async with peer.websocket() as socket:
                assert await closed(socket) == 1002
        assert not server._clients

    async def test_a_query_in_a_namespace_is_dropped(self, sio_peer: Peer) -> None:
        async with sio_peer.websocket() as socket:
            await socket.send_str("40/custom?token=1,")
            assert (await text(socket)).startswith("40/custom,")

    @pytest.mark.parametrize(
        "packet", ["4abc", "40{", "40[1,]", '42["message","early"]', "41", "43[1]"]
    )
    async def test_anything_else_closes(self, sio_peer: Peer, packet: str) -> None:
        async with sio_peer.websocket() as socket:
            await socket.send_str(packet)
            assert await closed(socket) == 1002

    @pytest.mark.parametrize(
        ("auth", "why"),
        [
            ('"token"', "an object"),
            ("[]", "an object"),
            ("5", "an object"),
            ("true", "an object"),
            ('{"client_id":NaN}', "NaN is no finite number"),
            ('{"x":[-Infinity]}', "-Infinity is no finite number"),
            ('{"x":1e999}', "a number out of range"),
            ('{"x":' + "[" * 100 + "]" * 100 + "}", "nested deeper than 100"),
            ('{"x":' + "[" * 50_000 + "]" * 50_000 + "}", "nested deeper than 100"),
        ],
    )
    async def test_what_stock_clients_send_as_auth_and_nobody_takes_is_answered(
        self, sio_peer: Peer, auth: str, why: str
    ) -> None:
        """The next CONNECT of the same connection is taken."""
        async with sio_peer.websocket() as socket:
            await socket.send_str(f"40{auth}")
            assert await text(socket) == f'44{{"message":"auth: {why}"}}'
            await connect(socket)

    async def test_a_second_connect_closes(self, sio_peer: Peer) -> None:
        async with sio_peer.connected() as socket:
            await socket.send_str("40")
            assert await closed(socket) == 1002

    async def test_events_sent_while_the_handler_runs_are_kept_in_order(
        self, server_of: Serve
    ) -> None:
        peer, server = await server_of()
        gate = asyncio.Event()

        @server.on("connect")
        async def slow(sid: str, environ: dict[str, Any], auth: Any) -> None:
            await gate.wait()

        async with peer.websocket() as socket:
            await send(socket, "40", *(f'42["message",{number}]' for number in range(100)))
            await asyncio.sleep(50 * MS)
            gate.set()
            assert (await text(socket)).startswith("40{")
            for number in range(100):
                assert await text(socket) == f'42["message-back",{number}]'

    async def test_the_handler_may_add_to_the_reply(self, server_of: Serve) -> None:
        peer, server = await server_of()
        welcomed: list[str] = []

        class Noting(PlainGateway):
            def write_connect_reply(self, connection: Connection, reply: PreparedMessage) -> None:
                welcomed.append(self.server.manager.sid_from_eio_sid(connection.sid, "/"))
                super().write_connect_reply(connection, reply)

        Noting(server)

        @server.on("connect")
        async def announce(sid: str, environ: dict[str, Any], auth: Any) -> dict[str, Any]:
            assert (auth, environ["REMOTE_ADDR"]) == (None, "127.0.0.1")
            assert environ["aiohttp.request"].query["EIO"] == "4"
            return {"sid": "mine", "pid": "secret"}

        async with peer.websocket() as socket:
            await socket.send_str("40")
            assert await text(socket) == '40{"sid":"mine","pid":"secret"}'
            connection = connection_of(server, welcomed[0])
            assert connection is not None
            assert connection.transport == "websocket"
        assert connection_of(server, "nobody") is None

    async def test_a_refusal_is_told_with_its_data(self, server_of: Serve) -> None:
        peer, server = await server_of()

        @server.on("connect")
        async def refuse(sid: str, environ: dict[str, Any], auth: Any) -> None:
            raise Refused("no", {"why": 1})

        async with peer.websocket() as socket:
            await socket.send_str("40")
            assert json.loads((await text(socket))[2:]) == {"message": "no", "data": {"why": 1}}
        await until(lambda: not server._clients)
        assert not server.manager.rooms

    @pytest.mark.parametrize("transport", ["websocket", "polling"])
    async def test_the_fifth_refusal_ends_the_connection(
        self, server_of: Serve, transport: str
    ) -> None:
        """Five are answered, whatever they are refused for; accepted ones between them change nothing."""
        peer, server = await server_of()
        asked: list[Any] = []

        @server.on("connect")
        async def decide(sid: str, environ: dict[str, Any], auth: Any) -> None:
            asked.append(auth)
            if not auth:
                raise Refused("no")

        packets = ["40", "40/random", "40", '40{"a":1}', "41", *["40"] * 10]
        if transport == "websocket":
            async with peer.websocket() as socket:
                await send(socket, *packets)
                answers = [await text(socket) for _ in range(6)]
                assert await closed(socket) == 1001
        else:
            sid = await peer.open()
            await peer.post(sid, "\x1e".join(packets))
            status, body = await peer.poll(sid)
            answers = body.split("\x1e")
            assert status == 200
            assert (await peer.poll(sid))[0] == 400
        assert [answer[:2] for answer in answers] == ["44", "44", "44", "40", "44", "44"]
        assert len(asked) == 5
        await until(lambda: not server._clients and not server.manager.rooms)

    async def test_who_should_come_back_gets_no_connect_error(self, server_of: Serve) -> None:
        peer, server = await server_of()
        ends: list[str] = []
        server.on("disconnect", lambda sid, reason: ends.append(reason))

        @server.on("connect")
        async def away(sid: str, environ: dict[str, Any], auth: Any) -> None:
            raise Unavailable("Redis is away")

        async with peer.websocket() as socket:
            await socket.send_str("40")
            assert (await socket.receive()).data == 1013
        sid = await peer.open()
        poll = asyncio.create_task(peer.poll(sid))
        await peer.post(sid, "40")
        assert (await poll)[0] == 400
        assert not ends
        await until(lambda: not server._clients)

    async def test_a_connection_lost_during_the_handler_is_let_go_once(
        self, server_of: Serve
    ) -> None:
        peer, server = await server_of()
        gate = asyncio.Event()
        calls: list[str] = []

        @server.on("connect")
        async def slow(sid: str, environ: dict[str, Any], auth: Any) -> None:
            calls.append("connect")
            await gate.wait()

        @server.on("disconnect")
        async def gone(sid: str, reason: str) -> None:
            assert connection_of(server, sid) is not None
            calls.append(reason)

        _, writer = await peer.raw_websocket()
        writer.write(b"\x81\x82\x00\x00\x00\x0040")
        await until(lambda: bool(calls))
        writer.close()
        await asyncio.sleep(20 * MS)  # so that the end arrives while the handler runs
        gate.set()
        await until(lambda: not server._clients)
        assert calls == ["connect", "transport close"]
        assert not server.manager.rooms
        assert not server.eio.connections


class TestDisconnect:
    async def test_the_client_leaves_the_main_namespace(self, server_of: Serve) -> None:
        peer, _server = await server_of(ping_interval=300 * MS, ping_timeout=200 * MS)
        async with peer.connected() as socket:
            await socket.send_str("41")
            assert await text(socket) == "2"

    async def test_leaving_one_namespace_leaves_the_other(self, sio_peer: Peer) -> None:
        async with sio_peer.connected() as socket:
            await connect(socket, "/custom")
            await send(socket, "41/custom", '42["message","to main"]')
            assert await text(socket) == '42["message-back","to main"]'

    async def test_causes_are_told_apart(self, server_of: Serve) -> None:
        peer, server = await server_of(ping_interval=300 * MS, ping_timeout=200 * MS)
        ends: list[str] = []

        @server.on("disconnect")
        async def gone(sid: str, reason: str) -> None:
            ends.append(reason)

        async def end(n: int, *packets: str) -> None:
            async with peer.connected() as socket:
                await send(socket, *packets)
                await until(lambda: len(ends) == n)

        await end(1, "41")
        await end(2, "1")
        await end(3, "41", "1")
        await end(4)  # no pong
        assert ends == ["client disconnect", "transport close", "client disconnect", "ping timeout"]

        sid = await peer.open()
        await peer.post(sid, "40")
        await peer.post(sid, "1")
        await until(lambda: len(ends) == 5)
        assert ends[4] == "transport close"

    async def test_a_replaced_client_is_disconnected_for_good(self, server_of: Serve) -> None:
        peer, server = await server_of()
        ends: list[str] = []
        server.on("disconnect", lambda sid, reason: ends.append(reason))
        async with peer.websocket() as socket:
            sid = await connect(socket)
            connection = connection_of(server, sid)
            assert connection is not None
            for _ in range(2):
                disconnect_replaced(connection)
            assert await text(socket) == "41"
            assert await closed(socket) == 1000
        await until(lambda: not server._clients)
        assert ends == ["server disconnect"]
        eio_sid = await peer.open()
        await peer.post(eio_sid, "40")
        await peer.poll(eio_sid)
        poll = await peer.waiting_poll(eio_sid)
        disconnect_replaced(server.eio.connections[eio_sid])
        assert await poll == (200, "41")
        assert (await peer.poll(eio_sid))[0] == 400

    async def test_after_a_disconnect_by_the_server_nothing_more_is_taken(
        self, server_of: Serve
    ) -> None:
        peer, server = await server_of()
        async with peer.websocket() as socket:
            main, custom = await connect(socket), await connect(socket, "/custom")
            await server.disconnect(custom, "/custom")
            assert await text(socket) == "41/custom,"
            # What was on its way is dropped, the other namespace goes on.
            await send(socket, '42/custom,["message",1]', '42["message",2]')
            assert await text(socket) == '42["message-back",2]'
            await server.disconnect(main)
            assert await text(socket) == "41"
            assert await closed(socket) == 1000

    async def test_a_client_that_left_everything_must_connect_again(self, server_of: Serve) -> None:
        peer, _ = await server_of(connect_timeout=200 * MS)
        async with peer.connected() as socket:
            await asyncio.sleep(300 * MS)
            await socket.send_str("41")
            assert await closed(socket) == 1002


class TestMessages:
    async def test_an_event(self, sio_peer: Peer) -> None:
        async with sio_peer.connected() as socket:
            await socket.send_str('42["message",1,"2",{"3":[true]}]')
            assert await text(socket) == '42["message-back",1,"2",{"3":[true]}]'

    async def test_a_binary_event(self, sio_peer: Peer) -> None:
        async with sio_peer.connected() as socket:
            await send(socket, *EVENT_BINARY)
            assert (await text(socket)) == EVENT_BINARY[0].replace("message", "message-back")
            assert await socket.receive_bytes(timeout=SOON) == EVENT_BINARY[1]
            assert await socket.receive_bytes(timeout=SOON) == EVENT_BINARY[2]

    async def test_an_acknowledgement(self, sio_peer: Peer) -> None:
        async with sio_peer.connected() as socket:
            await socket.send_str('42456["message-with-ack",1,"2",{"3":[false]}]')
            assert await text(socket) == '43456[1,"2",{"3":[false]}]'

    async def test_a_binary_acknowledgement(self, sio_peer: Peer) -> None:
        async with sio_peer.connected() as socket:
            head = EVENT_BINARY[0].replace('-["message"', '-789["message-with-ack"')
            await send(socket, head, *EVENT_BINARY[1:])
            assert (await text(socket)) == (
                '462-789[{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]'
            )
            assert await socket.receive_bytes(timeout=SOON) == EVENT_BINARY[1]
            assert await socket.receive_bytes(timeout=SOON) == EVENT_BINARY[2]

    async def test_binary_over_polling(self, sio_peer: Peer) -> None:
        sid = await sio_peer.open()
        await sio_peer.post(sid, "40")
        await sio_peer.poll(sid)
        await sio_peer.post(sid, EVENT_BINARY[0] + "\x1ebAQID\x1ebBAUG")
        body = (await sio_peer.poll(sid))[1]
        assert body == EVENT_BINARY[0].replace("message", "message-back") + "\x1ebAQID\x1ebBAUG"

    async def test_a_room_on_both_transports_gets_binary(self, server_of: Serve) -> None:
        peer, server = await server_of()
        sid = await peer.open()
        await peer.post(sid, "40")
        await peer.poll(sid)
        async with peer.connected() as socket:
            await server.emit("news", b"\x01\x02\x03")
            assert await text(socket) == '451-["news",{"_placeholder":true,"num":0}]'
            assert await socket.receive_bytes(timeout=SOON) == b"\x01\x02\x03"
            assert (await peer.poll(sid))[
                1
            ] == '451-["news",{"_placeholder":true,"num":0}]\x1ebAQID'

    async def test_nothing_comes_between_a_packet_and_its_attachments(
        self, server_of: Serve
    ) -> None:
        peer, server = await server_of()
        sid = await peer.open()
        await peer.post(sid, "40")
        await peer.poll(sid)
        connection = server.eio.connections[sid]
        for _ in range(5):
            connection.send(PreparedMessage('52-["b",0,1]', *[b"x"] * 10))
            connection.send(PreparedMessage('2["t"]'))
        packets: list[str] = []
        for _ in range(5):
            answer = (await peer.poll(sid))[1].split("\x1e")
            assert len(answer) <= 16
            assert answer[0] == '452-["b",0,1]'
            packets += answer
        assert packets == (['452-["b",0,1]'] + ["beA=="] * 10 + ['42["t"]']) * 5

    @pytest.mark.parametrize(
        "packets",
        [
            ["4abc"],
            ["4"],
            ["47"],
            ["4２[]"],
            ["42"],
            ["42{}"],
            ["42[]"],
            ["42[1]"],
            ["42[null]"],
            ['42abc["message"]'],
            ['42１["message"]'],
            ['421234567890123456["message"]'],
            ['42["message",NaN]'],
            ['42["message",Infinity]'],
            ['42["message",1e999]'],
            ['42["message",-1e999,"\\ud800"]'],
            ['42["message",'],
            ['42["message"]x'],
            ['42["message",' + "[" * 101 + "]" * 101 + "]"],
            ['42["message",' + "[" * 50_000 + "]" * 50_000 + "]"],
            ['42["connect"]'],
            ['42["disconnect","x"]'],
            ['42["connect_error"]'],
            ['42/custom,["message"]'],
            ["43[1]"],
            ["431{}"],
            ['44{"message":"x"}'],
            ['41["x"]'],
            ["45[]"],
            ['45-["message"]'],
            ['4511-["message"]' + "x"],
            ['4511-["message",1]'],
            ['45999999999999999999-["message"]'],
            ['451-["message",{"_placeholder":true,"num":1}]', b"x"],
            ['451-["message",{"_placeholder":true,"num":-1}]', b"x"],
            ['451-["message",{"_placeholder":true,"num":"0"}]', b"x"],
            ['451-["message",{"_placeholder":true,"num":true}]', b"x"],
            ['451-["message",{"_placeholder":true}]', b"x"],
            ['450-["message",{"_placeholder":true,"num":0}]'],
            ['451-["message",{"_placeholder":true,"num":0}]', '42["message"]'],
            [b"x"],
            ['451-["message",{"_placeholder":true,"num":0}]', b"x", b"y"],
        ],
    )
    async def test_a_malformed_packet_closes(
        self, server_of: Serve, packets: list[str | bytes]
    ) -> None:
        peer, server = await server_of()
        calls: list[Any] = []
        for name in ("disconnect", "connect_error"):
            server.on(name, lambda *arguments: calls.append(arguments))
        async with peer.connected() as socket:
            await send(socket, *packets)
            assert await closed(socket) == 1002
        await until(lambda: not server._clients)
        assert [reason for _, reason in calls] == ["transport error"]

    @pytest.mark.parametrize(
        "packets",
        [
            ['42["message",' + "[" * 99 + "]" * 99 + "]"],
            ['42["message","\\ud800"]'],
            ['42["message","NaN"]'],
            ['450-["message",1]'],
            ['42["message",{"_placeholder":false,"num":7}]'],
            ['42["message",12345678901234567890123]'],
        ],
    )
    async def test_an_odd_packet_is_taken(self, sio_peer: Peer, packets: list[str]) -> None:
        async with sio_peer.connected() as socket:
            await send(socket, *packets)
            assert "message-back" in await text(socket)

    async def test_events_nobody_handles_and_wrong_arguments_change_nothing(
        self, server_of: Serve
    ) -> None:
        peer, server = await server_of()

        @server.on("exact")
        async def exact(sid: str, one: Any) -> str:
            return "taken"

        async with peer.connected() as socket:
            await send(socket, '42["nobody"]', '421["exact"]', '422["exact",1,2]', '423["exact",1]')
            assert await text(socket) == '433["taken"]'
            await send(socket, "430[1]", "437[]", '42["message"]')
            assert await text(socket) == '42["message-back"]'

    async def test_an_acknowledgement_of_nothing_breaks_none(self, server_of: Serve) -> None:
        peer, server = await server_of()
        async with peer.websocket() as socket:
            sid = await connect(socket)
            answers: list[Any] = []
            for number, answer in ((1, "5"), (2, '"b"')):
                await server.emit("ask", to=sid, callback=answers.append)
                assert await text(socket) == f'42{number}["ask"]'
                await send(socket, "430[1]", f"43{number}[]", f"43{number}[{answer}]")
                await until(lambda: len(answers) == number)  # noqa: B023
            assert answers == [5, "b"]

    async def test_a_callback_is_kept_no_longer_than_its_acknowledgement(
        self, server_of: Serve
    ) -> None:
        peer, server = await server_of()
        async with peer.websocket() as socket:
            sid = await connect(socket)
            answers: list[Any] = []

            def callback(value: Any) -> None:
                answers.append(value)

            kept = weakref.ref(callback)
            await server.emit("ask", to=sid, callback=callback)
            del callback
            assert await text(socket) == '421["ask"]'
            await send(socket, "431[5]")
            await until(lambda: answers == [5])
            gc.collect()
            assert kept() is None

    async def test_a_typeerror_in_a_handler_does_not_call_it_twice(
        self, server_of: Serve, caplog: pytest.LogCaptureFixture
    ) -> None:
        peer, server = await server_of()
        calls: list[str] = []

        @server.on("connect")
        async def connected(sid: str, environ: dict[str, Any], auth: Any) -> None:
            calls.append("connect")
            raise TypeError

        async with peer.websocket() as socket:
            await socket.send_str("40")
            assert await closed(socket) == 1013

        server.handlers["/"].pop("connect")

        @server.on("disconnect")
        async def gone(sid: str, reason: str) -> None:
            calls.append("disconnect")
            raise TypeError

        async with peer.websocket() as socket:
            await socket.send_str("40")
            await text(socket)
        await until(lambda: not server._clients)
        assert calls == ["connect", "disconnect"]
        # Faults of our own are told, once each.
        assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
            "the connect handler failed",
            "a disconnect handler failed",
        ]
        caplog.clear()


class TestGateway:
    async def test_it_sees_plain_events_of_the_main_namespace_only(self, server_of: Serve) -> None:
        peer, server = await server_of()
        seen: list[str] = []

        class Taking(PlainGateway):
            def on_event(self, connection: Connection, ack: str, text: str, *rest: Any) -> bool:
                if rest:
                    return False
                seen.append(ack + text)
                if "take" in text:
                    connection.send(PreparedMessage.text(b'2["taken"]'))
                    return True
                return False

        Taking(server)
        async with peer.connected() as socket:
            await connect(socket, "/custom")
            seen.clear()
            await send(
                socket,
                '42["take"]',
                '42["message",1]',
                '42/custom,["message",2]',
                *EVENT_BINARY,
            )
            assert await text(socket) == '42["taken"]'
            assert await text(socket) == '42["message-back",1]'
            assert await text(socket) == '42/custom,["message-back",2]'
            assert (await text(socket)).startswith("452-")
            assert seen == ['["take"]', '["message",1]']


class TestAcknowledgements:
    """Nobody asked for one: whatever a stock client answers with, it is counted, and nothing else."""

    @pytest.mark.parametrize(
        "packets",
        [
            ["431[NaN]"],
            ["431[" + "[" * 2000 + "]" * 2001],
            ["4611-1[0]", *[b"x"] * 11],
            ["46100-1[0]", *[b"x"] * 100],
            ['461-1[{"_placeholder":true,"num":7}]', b"x"],
        ],
        ids=["NaN", "deep", "eleven", "hundred", "placeholder"],
    )
    async def test_one_with_data_that_nobody_takes_is_counted(
        self, server_of: Serve, packets: list[str | bytes]
    ) -> None:
        peer, server = await server_of()
        async with peer.connected() as socket:
            await send(socket, *packets, '42["message",1]')
            assert await text(socket) == '42["message-back",1]'
        assert server.counters["refused acknowledgement"] == 1

    async def test_one_with_more_attachments_than_are_read_closes(self, sio_peer: Peer) -> None:
        async with sio_peer.connected() as socket:
            await socket.send_str("46101-1[0]")
            assert await closed(socket) == 1002


class TestUnder25And20Seconds:
    """The cases that the official suites only pass because they never answer a ping."""

    async def test_a_drain_tells_everybody_to_come_back(self, server_of: Serve) -> None:
        peer, server = await server_of()
        async with peer.connected() as socket:
            server.eio.admission.refusing = True
            for connection in list(server.eio.connections.values()):
                connection.close(CloseCode.RESTART)
            assert await closed(socket) == 1012
        await until(lambda: not server._clients)

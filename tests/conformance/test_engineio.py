"""Engine.IO v4: what its protocol document asks of a server, and what servers get wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import aiohttp
import pytest

from hub.engineio.core.prepared import PreparedMessage
from hub.engineio.core.state import CloseCode
from tests.conformance.conftest import SOON, Peer, Serve, closed, text, until, upgrade_request
from tests.support.times import MS, UNIT


class TestHandshake:
    async def test_polling_opens_a_session(self, quick: Peer) -> None:
        status, body = await quick.poll("")
        assert status == 200
        hello = json.loads(body[1:])
        assert isinstance(hello.pop("sid"), str)
        assert hello == {
            "upgrades": ["websocket"],
            "pingInterval": round(300_000 * MS),
            "pingTimeout": round(200_000 * MS),
            "maxPayload": 1_000_000,
        }

    async def test_websocket_opens_a_session(self, quick: Peer) -> None:
        async with quick.websocket(hello=False) as socket:
            hello = json.loads((await text(socket))[1:])
            assert hello["upgrades"] == []
            assert hello["pingInterval"] == round(300_000 * MS)
            assert hello["pingTimeout"] == round(200_000 * MS)

    async def test_intervals_are_told_in_exact_milliseconds(self, engine_of: Serve) -> None:
        peer, _ = await engine_of(ping_interval=2.5, ping_timeout=0.125)
        hello = json.loads((await peer.poll(""))[1][1:])
        assert (hello["pingInterval"], hello["pingTimeout"]) == (2500, 125)

    @pytest.mark.parametrize(
        "query",
        [
            "transport=polling",
            "EIO=abc&transport=polling",
            "EIO=3&transport=polling",
            "EIO=4",
            "EIO=4&transport=abc",
            "EIO=4&transport=polling&j=0",
            "EIO=4&transport=polling&sid=unknown",
            "EIO=4&transport=websocket",
        ],
    )
    async def test_a_bad_query_gets_400(self, peer: Peer, query: str) -> None:
        url = f"http://127.0.0.1:{peer.port}/engine.io/?{query}"
        async with peer.http.get(url) as answer:
            assert answer.status == 400

    @pytest.mark.parametrize(
        "query", ["transport=websocket", "EIO=abc&transport=websocket", "EIO=4"]
    )
    async def test_a_bad_query_refuses_a_websocket(self, peer: Peer, query: str) -> None:
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await peer.http.ws_connect(f"http://127.0.0.1:{peer.port}/engine.io/?{query}")

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
    async def test_another_method_gets_400(self, peer: Peer, method: str) -> None:
        async with peer.http.request(method, peer.url()) as answer:
            assert answer.status == 400
        sid = await peer.open()
        if method != "POST":
            async with peer.http.request(method, peer.url("polling", sid)) as answer:
                assert answer.status == 400

    async def test_a_draining_server_says_when_to_come_back(self, engine_of: Serve) -> None:
        peer, engine = await engine_of()
        engine.admission.refusing = True
        async with peer.http.get(peer.url()) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await peer.http.ws_connect(peer.url("websocket"))
        assert refused.value.status == 503

    async def test_one_address_holds_only_so_many(
        self, engine_of: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        peer, engine = await engine_of(connections_per_address=2)
        # Loopback is not bound by it.
        for _ in range(3):
            await peer.open()
        monkeypatch.setattr("hub.engineio.client_address.is_loopback", lambda remote: False)
        sids = [await peer.open() for _ in range(2)]
        assert (await peer.poll(""))[0] == 503
        for sid in sids:
            await peer.post(sid, "1")
            await peer.poll(sid)
        await until(lambda: len(engine.connections) == 3)
        await peer.open()

    async def test_a_full_server_says_so(self, engine_of: Serve) -> None:
        peer, engine = await engine_of(max_connections=2)
        sids = [await peer.open() for _ in range(2)]
        handshake = {
            "Connection": "Upgrade", "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        }  # fmt: skip
        for transport in ("polling", "websocket"):
            async with peer.http.get(peer.url(transport), headers=handshake) as answer:
                assert answer.status == 503
                assert int(answer.headers["Retry-After"]) > 0
                assert await answer.json() == {"message": "this server is full"}
        # Those who are inside do not notice.
        assert await peer.post(sids[0], "4hello") == (200, "ok")
        assert await peer.poll(sids[0]) == (200, "4hello")
        await peer.post(sids[1], "1")
        await peer.poll(sids[1])
        await until(lambda: len(engine.connections) == 1)
        await peer.open()


class TestPolling:
    @pytest.mark.parametrize(
        "body",
        ["4hello", "4test1\x1e4test2\x1e4test3", "4hello\x1ebAQIDBA==", "4€", "4", "b", "4\x00"],
    )
    async def test_packets_come_back(self, peer: Peer, body: str) -> None:
        sid = await peer.open()
        assert await peer.post(sid, body.encode()) == (200, "ok")
        assert await peer.poll(sid) == (200, body)

    async def test_a_poll_waits_for_a_packet(self, peer: Peer) -> None:
        sid = await peer.open()
        poll = await peer.waiting_poll(sid)
        assert not poll.done()
        await peer.post(sid, "4late")
        assert await poll == (200, "4late")

    @pytest.mark.parametrize(
        "body",
        [
            "abc",
            "",
            "\x1e",
            "4a\x1e",
            "7",
            "４a",
            "b!!!",
            "b€",
            "2",
            "2probe",
            "5",
            "0{}",
            "3x",
            "1x",
        ],
    )
    async def test_an_invalid_body_closes_the_session(self, peer: Peer, body: str) -> None:
        sid = await peer.open()
        assert (await peer.post(sid, body.encode()))[0] == 400
        assert (await peer.poll(sid))[0] == 400

    async def test_invalid_utf8_closes_the_session(self, peer: Peer) -> None:
        sid = await peer.open()
        assert (await peer.post(sid, b"4\xff"))[0] == 400
        assert (await peer.poll(sid))[0] == 400

    async def test_an_invalid_body_ends_the_waiting_poll(self, peer: Peer) -> None:
        sid = await peer.open()
        poll = await peer.waiting_poll(sid)
        await peer.post(sid, "abc")
        assert (await poll)[0] == 400

    async def test_two_polls_at_once_close_the_session(self, peer: Peer) -> None:
        sid = await peer.open()
        first = await peer.waiting_poll(sid)
        assert (await peer.poll(sid))[0] == 400
        assert await first == (200, "1")
        assert (await peer.poll(sid))[0] == 400

    async def test_a_body_that_is_not_compressed_as_it_says(self, peer: Peer) -> None:
        """It is answered, and the session ends."""
        sid = await peer.open()
        garbage, headers = b"4" + bytes(100), {"Content-Encoding": "gzip"}
        async with peer.http.post(peer.url("polling", sid), data=garbage, headers=headers) as said:
            assert said.status == 400
        assert (await peer.poll(sid))[0] == 400

    async def test_two_posts_at_once_close_the_session(self, peer: Peer) -> None:
        sid = await peer.open()

        async def slow() -> Any:
            yield b"4a"
            await asyncio.sleep(30 * UNIT)

        first = asyncio.create_task(peer.post(sid, slow()))
        await until(lambda: peer.engine.connections[sid]._abort_post is not None)
        assert (await peer.post(sid, "4b"))[0] == 400
        assert (await peer.poll(sid))[0] == 400
        # The body that is still coming is cut off, not waited for.
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            await asyncio.wait_for(first, SOON)

    async def test_an_aborted_poll_closes_the_session_at_once(self, engine_of: Serve) -> None:
        peer, engine = await engine_of()
        ends: list[str] = []
        engine.on("disconnect", lambda sid, reason: ends.append(reason))
        sid = await peer.open()
        poll = await peer.waiting_poll(sid)
        poll.cancel()
        await until(lambda: ends == ["transport error"])
        assert (await peer.poll(sid))[0] == 400
        assert not engine.connections

    async def test_a_body_in_two_segments_arrives_whole(self, peer: Peer) -> None:
        sid = await peer.open()
        body = "4" + "x" * 500_000
        reader, writer = await peer.raw()
        writer.write(
            f"POST /engine.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: x\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
        )
        writer.write(body[:1000].encode())
        await writer.drain()
        await asyncio.sleep(50 * MS)  # so that it arrives by itself
        writer.write(body[1000:].encode())
        assert b" 200 OK" in await reader.readline()
        writer.close()
        assert await peer.poll(sid) == (200, body)

    async def test_a_chunked_body_arrives(self, peer: Peer) -> None:
        sid = await peer.open()

        async def chunks() -> Any:
            yield b"4in "
            yield b"chunks"

        assert await peer.post(sid, chunks()) == (200, "ok")
        assert await peer.poll(sid) == (200, "4in chunks")

    async def test_a_burst_arrives_whole_and_leaves_in_answers_of_16(self, peer: Peer) -> None:
        sid = await peer.open()
        sent = [f"4{number}" for number in range(2000)]
        assert await peer.post(sid, "\x1e".join(sent)) == (200, "ok")
        got: list[str] = []
        while len(got) < len(sent):
            packets = (await peer.poll(sid))[1].split("\x1e")
            assert len(packets) <= 16
            got += packets
        assert got == sent

    async def test_max_payload_is_exact(self, engine_of: Serve) -> None:
        peer, _ = await engine_of(max_payload=1000)
        sid = await peer.open()
        assert (await peer.post(sid, "4" + "x" * 999))[0] == 200
        await peer.poll(sid)
        assert (await peer.post(sid, "4" + "x" * 1000))[0] == 413
        assert (await peer.poll(sid))[0] == 400

    async def test_an_oversized_chunked_body_is_refused(self, engine_of: Serve) -> None:
        peer, engine = await engine_of(max_payload=1000)
        sid = await peer.open()

        async def chunks() -> Any:
            for _ in range(20):
                yield b"4" * 100

        with_answer = await asyncio.gather(peer.post(sid, chunks()), return_exceptions=True)
        assert isinstance(with_answer[0], Exception) or with_answer[0][0] == 413
        await until(lambda: not engine.connections)

    async def test_too_many_packets_are_refused(self, engine_of: Serve) -> None:
        peer, _ = await engine_of(max_packets=100)
        sid = await peer.open()
        assert (await peer.post(sid, "\x1e".join(["4"] * 100)))[0] == 200
        assert (await peer.post(sid, "\x1e".join(["4"] * 101)))[0] == 400

    async def test_large_answers_are_compressed_and_small_ones_are_not(self, peer: Peer) -> None:
        sid = await peer.open()
        for size, encoding in ((10, None), (5000, "gzip"), (300_000, "gzip")):
            await peer.post(sid, "4" + "x" * size)
            async with peer.http.get(peer.url("polling", sid)) as answer:
                assert answer.headers.get("Content-Encoding") == encoding
                assert await answer.text() == "4" + "x" * size


class TestWebSocket:
    async def test_messages_come_back(self, peer: Peer) -> None:
        async with peer.websocket() as socket:
            for message in ("4hello", "4", "4" + "é" * 70_000):
                await socket.send_str(message)
                assert await text(socket) == message
            for data in (b"\x01\x02\x03\x04", b"", bytes(200), bytes(70_000)):
                await socket.send_bytes(data)
                assert await socket.receive_bytes(timeout=SOON) == data
            await socket.send_str("bAQID")
            assert await socket.receive_bytes(timeout=SOON) == b"\x01\x02\x03"

    @pytest.mark.parametrize("packet", ["abc", "", "2", "2probe", "5", "0", "3x", "7", "b!", "1x"])
    async def test_an_illegal_packet_closes(self, peer: Peer, packet: str) -> None:
        async with peer.websocket() as socket:
            await socket.send_str(packet)
            assert await closed(socket) == 1002

    async def test_a_noop_and_a_stray_pong_change_nothing(self, peer: Peer) -> None:
        async with peer.websocket() as socket:
            await socket.send_str("6")
            await socket.send_str("3")
            await socket.send_str("4on")
            assert await text(socket) == "4on"

    async def test_max_payload_is_exact(self, engine_of: Serve) -> None:
        peer, _ = await engine_of(max_payload=1000)
        async with peer.websocket() as socket:
            await socket.send_str("4" + "x" * 999)
            assert len(await text(socket)) == 1000
            await socket.send_str("4" + "x" * 1000)
            assert await closed(socket) == 1009

    async def test_a_malformed_frame_closes_at_once(self, engine_of: Serve) -> None:
        peer, engine = await engine_of()
        ends: list[str] = []
        engine.on("disconnect", lambda sid, reason: ends.append(reason))
        reader, writer = await peer.raw_websocket()
        writer.write(b"\x83\x80\x00\x00\x00\x00")
        assert (await asyncio.wait_for(reader.read(), SOON))[:4] == b"\x88\x02\x03\xea"
        await until(lambda: ends == ["transport error"])
        writer.close()

    async def test_frames_in_the_same_segment_as_the_handshake_count(self, peer: Peer) -> None:
        reader, writer = await peer.raw()
        writer.write(upgrade_request("engine.io") + b"\x81\x83\x00\x00\x00\x004hi")
        assert b"\x81\x034hi" in await asyncio.wait_for(reader.readuntil(b"4hi"), SOON)
        writer.close()

    async def test_what_was_sent_before_the_end_is_handled(self, engine_of: Serve) -> None:
        peer, engine = await engine_of()
        got: list[str] = []
        ends: list[int] = []

        async def slow(sid: str, data: str) -> None:
            await asyncio.sleep(10 * MS)
            got.append(data)

        engine.on("message", slow)
        engine.on("disconnect", lambda sid, reason: ends.append(len(got)))
        _, writer = await peer.raw_websocket()
        writer.write(b"".join(b"\x81\x82\x00\x00\x00\x004%d" % number for number in range(9)))
        writer.close()
        await until(lambda: bool(ends))
        assert got == [str(number) for number in range(9)]
        assert ends == [9]

    async def test_writing_to_a_lost_connection_is_dropped(self, engine_of: Serve) -> None:
        peer, engine = await engine_of()
        gate = asyncio.Event()
        ends: list[str] = []

        async def slow(sid: str, data: str) -> None:
            await gate.wait()

        engine.on("message", slow)
        engine.on("disconnect", lambda sid, reason: ends.append(reason))
        _, writer = await peer.raw_websocket()
        connection = next(iter(engine.connections.values()))
        writer.write(b"\x81\x82\x00\x00\x00\x004x")
        await until(lambda: connection._handling)
        writer.transport.abort()
        await until(lambda: connection.write_direct is None)
        for _ in range(20):
            connection.send(PreparedMessage("dropped"))
        assert not ends
        gate.set()
        await until(lambda: len(ends) == 1)

    async def test_compression_is_off_unless_set(self, engine_of: Serve) -> None:
        for on in (False, True):
            peer, _ = await engine_of(websocket_compression=on)
            async with peer.http.ws_connect(peer.url("websocket"), compress=15) as socket:
                await socket.receive()
                assert bool(socket.compress) is on
                for message in ("4small", "4" + "large " * 10_000, "4small again"):
                    await socket.send_str(message)
                    assert await text(socket) == message

    async def test_a_compression_bomb_closes(self, engine_of: Serve) -> None:
        peer, _ = await engine_of(websocket_compression=True, max_payload=10_000)
        async with peer.http.ws_connect(peer.url("websocket"), compress=15) as socket:
            await socket.receive()
            await socket.send_str("4" + "x" * 1_000_000)
            assert await closed(socket) == 1009


class TestHeartbeat:
    async def test_polling_pings_and_pongs(self, quick: Peer) -> None:
        sid = await quick.open()
        for _ in range(3):
            assert await quick.poll(sid) == (200, "2")
            assert (await quick.post(sid, "3"))[0] == 200

    async def test_polling_times_out_exactly(self, quick: Peer) -> None:
        sid = await quick.open()
        await asyncio.sleep(500 * MS)
        assert (await quick.poll(sid))[0] == 400

    async def test_a_waiting_poll_ends_with_400_at_a_timeout(self, quick: Peer) -> None:
        sid = await quick.open()
        assert await quick.poll(sid) == (200, "2")
        assert (await quick.poll(sid))[0] == 400

    async def test_websocket_pings_at_exact_intervals(self, quick: Peer) -> None:
        loop = asyncio.get_running_loop()
        async with quick.websocket() as socket:
            begin = loop.time()
            for number in range(1, 4):
                assert await text(socket) == "2"
                assert abs(loop.time() - begin - number * 300 * MS) < 0.05
                await socket.send_str("3")

    async def test_websocket_times_out(self, engine_of: Serve) -> None:
        peer, engine = await engine_of(ping_interval=300 * MS, ping_timeout=200 * MS)
        ends: list[str] = []
        engine.on("disconnect", lambda sid, reason: ends.append(reason))
        async with peer.websocket() as socket:
            assert await closed(socket) == 1001
        assert ends == ["ping timeout"]

    async def test_a_paused_client_is_not_lost(self, engine_of: Serve) -> None:
        peer, engine = await engine_of(ping_interval=100 * MS, ping_timeout=100 * MS)
        async with peer.websocket() as socket:
            connection = next(iter(engine.connections.values()))
            connection.pause()
            for _ in range(5):
                assert await text(socket) == "2"
                await socket.send_str("3")
            await socket.send_str("4held")
            connection.resume()
            while (answer := await text(socket)) == "2":
                await socket.send_str("3")
            assert answer == "4held"


class TestClose:
    async def test_a_polling_close_ends_the_poll_with_a_noop(self, engine_of: Serve) -> None:
        peer, engine = await engine_of()
        ends: list[str] = []
        engine.on("disconnect", lambda sid, reason: ends.append(reason))
        sid = await peer.open()
        poll = await peer.waiting_poll(sid)
        assert await peer.post(sid, "4last\x1e1") == (200, "ok")
        assert (await poll)[1] in ("6", "4last")
        assert ends == ["transport close"]
        await until(lambda: not engine.connections)
        assert (await peer.poll(sid))[0] == 400

    async def test_a_websocket_close_packet_closes(self, peer: Peer) -> None:
        async with peer.websocket() as socket:
            await socket.send_str("1")
            assert await closed(socket) == 1000

    @pytest.mark.parametrize("goodbye", list(CloseCode))
    async def test_the_server_says_goodbye_after_what_it_wrote(
        self, engine_of: Serve, goodbye: CloseCode
    ) -> None:
        peer, engine = await engine_of()
        async with peer.websocket() as socket:
            await socket.send_str("4last")
            await until(lambda: bool(engine.connections))
            connection = next(iter(engine.connections.values()))
            assert await text(socket) == "4last"
            connection.close(goodbye)
            connection.close()
            assert await closed(socket) == goodbye.value
        sid = await peer.open()
        await peer.post(sid, "4last")
        engine.connections[sid].close(goodbye)
        assert await peer.poll(sid) == (200, "4last")
        assert (await peer.poll(sid))[0] == 400
        sid = await peer.open()
        poll = await peer.waiting_poll(sid)
        engine.connections[sid].close(goodbye)
        assert (await poll)[0] == 400
        assert not engine.connections

    async def test_a_cut_connection_is_noticed(self, engine_of: Serve) -> None:
        peer, engine = await engine_of()
        ends: list[str] = []
        engine.on("disconnect", lambda sid, reason: ends.append(reason))
        _, writer = await peer.raw_websocket()
        writer.transport.abort()
        await until(lambda: len(ends) == 1)
        assert ends[0] in ("transport close", "transport error")
        assert not engine.connections


class TestUpgrade:
    async def test_an_upgrade_loses_nothing(self, peer: Peer) -> None:
        sid = await peer.open()
        await peer.post(sid, "4before")
        async with peer.websocket(sid) as socket:
            await socket.send_str("2probe")
            assert await text(socket) == "3probe"
            assert await peer.poll(sid) == (200, "4before")
            assert await peer.poll(sid) == (200, "6")
            await peer.post(sid, "4between")
            await socket.send_str("5")
            await socket.send_str("4after")
            assert [await text(socket), await text(socket)] == ["4between", "4after"]

    async def test_a_waiting_poll_ends_with_a_noop(self, peer: Peer) -> None:
        sid = await peer.open()
        poll = await peer.waiting_poll(sid)
        async with peer.upgraded(sid):
            assert await poll == (200, "6")

    async def test_polls_and_websockets_after_it_are_refused(self, peer: Peer) -> None:
        sid = await peer.open()
        async with peer.upgraded(sid) as socket:
            assert (await peer.poll(sid))[0] == 400
            assert (await peer.post(sid, "4x"))[0] == 400
            async with peer.websocket(sid) as second:
                assert await closed(second) == 1002
            await socket.send_str("4hello")
            assert await text(socket) == "4hello"

    @pytest.mark.parametrize(
        "packets", [["4x"], ["5"], ["2"], ["2probe", "2probe"], ["2probe", "4x"]]
    )
    async def test_an_illegal_probe_leaves_the_session_on_polling(
        self, peer: Peer, packets: list[str]
    ) -> None:
        sid = await peer.open()
        async with peer.websocket(sid) as socket:
            for packet in packets:
                await socket.send_str(packet)
            assert await closed(socket) == 1002
        await peer.post(sid, "4still here")
        assert (await peer.poll(sid))[1] in ("4still here", "6")

    async def test_a_second_websocket_takes_the_place_of_the_one_that_is_probed(
        self, peer: Peer
    ) -> None:
        """aiohttp asks again by itself where it heard no answer; the first one is nobody's."""
        sid = await peer.open()
        async with peer.websocket(sid) as first:
            await first.send_str("2probe")
            assert await text(first) == "3probe"
            async with peer.upgraded(sid) as second:
                assert await closed(first) == 1006
                await second.send_str("4hello")
                assert await text(second) == "4hello"

    async def test_a_swallowed_probe_is_given_up_and_polls_do_not_spin(
        self, engine_of: Serve
    ) -> None:
        peer, engine = await engine_of(upgrade_timeout=300 * MS)
        sid = await peer.open()
        async with peer.websocket(sid) as socket:
            await socket.send_str("2probe")
            polls = 0
            poll = asyncio.create_task(peer.poll(sid))
            while engine.connections[sid].state.value == "upgrading":
                if poll.done():
                    assert poll.result() == (200, "6")
                    polls += 1
                    poll = asyncio.create_task(peer.poll(sid))
                await asyncio.sleep(2 * MS)
            assert polls <= 5
            # Cut: a close code in the place of an answer is the end of a stock Python client.
            assert await closed(socket) == 1006
        await peer.post(sid, "4on polling")
        assert await poll == (200, "4on polling")

    async def test_a_lost_probe_leaves_the_session_on_polling(self, peer: Peer) -> None:
        sid = await peer.open()
        async with peer.websocket(sid) as socket:
            await socket.send_str("2probe")
            await text(socket)
        await peer.post(sid, "4x")
        assert (await peer.poll(sid))[1] in ("4x", "6")


class TestOrigins:
    async def test_any_origin_gets_no_credentials(self, peer: Peer) -> None:
        async with peer.http.get(peer.url(), headers={"Origin": "http://a.example"}) as answer:
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
            assert "Access-Control-Allow-Credentials" not in answer.headers

    async def test_only_listed_origins_may_connect(self, engine_of: Serve) -> None:
        peer, _ = await engine_of(cors=("http://a.example",))
        async with peer.http.get(peer.url(), headers={"Origin": "http://a.example"}) as answer:
            assert answer.headers["Access-Control-Allow-Origin"] == "http://a.example"
            assert answer.headers["Access-Control-Allow-Credentials"] == "true"
        for transport in ("polling", "websocket"):
            async with peer.http.get(
                peer.url(transport), headers={"Origin": "http://b.example"}
            ) as answer:
                assert answer.status == 403
                assert "Access-Control-Allow-Origin" not in answer.headers

    async def test_without_a_list_only_the_same_origin_may(self, engine_of: Serve) -> None:
        peer, _ = await engine_of(cors=())
        for origin, status in ((f"http://127.0.0.1:{peer.port}", 200), ("http://x", 403)):
            async with peer.http.get(peer.url(), headers={"Origin": origin}) as answer:
                assert answer.status == status

    async def test_a_preflight_is_answered(self, peer: Peer) -> None:
        headers = {"Origin": "http://a.example", "Access-Control-Request-Headers": "x-a"}
        async with peer.http.options(peer.url(), headers=headers) as answer:
            assert answer.status == 204
            assert answer.headers["Access-Control-Allow-Headers"] == "x-a"


class TestShutdown:
    async def test_everybody_is_told_and_nothing_stays(self, engine_of: Serve) -> None:
        peer, engine = await engine_of()
        sid = await peer.open()
        poll = asyncio.create_task(peer.poll(sid))
        async with peer.websocket() as socket:
            await until(lambda: len(engine.connections) == 2)
            await peer.holds_poll(sid)
            stop = asyncio.create_task(engine.shutdown())
            assert await closed(socket) == 1001
            assert (await poll)[0] == 400
            await asyncio.wait_for(stop, SOON)
        assert not engine.connections
        assert not any(engine._tasks or ())
        assert len(engine.timers) == 0

    async def test_peers_that_do_not_answer_are_cut(self, engine_of: Serve) -> None:
        peer, engine = await engine_of(close_timeout=200 * MS)
        ends: list[str] = []
        engine.on("disconnect", lambda sid, reason: ends.append(reason))
        reader, writer = await peer.raw_websocket()
        sid = await peer.open()
        engine.connections[sid].send(PreparedMessage("nobody takes this"))
        await asyncio.wait_for(engine.shutdown(), SOON)
        assert ends == ["server disconnect"] * 2
        assert not engine.connections
        with contextlib.suppress(ConnectionError):
            assert (await asyncio.wait_for(reader.read(), SOON))[:4] == b"\x88\x02\x03\xe9"
        writer.close()

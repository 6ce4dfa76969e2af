"""Answers repeated polls without aiohttp: it is placed between a TCP connection that polls and aiohttp's handler.

A polling client sends the same request again and again. Only the value of `t` differs, which clients add so that nobody
caches the response. Once aiohttp has parsed such a request and the engine has answered it, the next one needs no
parsing, no task and no request object. All other input is passed on to aiohttp.
"""

from __future__ import annotations

import asyncio
import re

from aiohttp import web

from hub.engineio.core.connection import Connection
from hub.engineio.options import EngineOptions
from hub.engineio.transports.http_responses import poll_response, refusal_response
from hub.engineio.transports.tcp_output import TcpCarrier

# Longer request heads are left to aiohttp.
_LONGEST = 8 * 1024
# Payloads of more characters are compressed outside the event loop.
ZIP_INLINE = 64 * 1024

_STAMPED = re.compile(rb"[?&]t=([\w.~-]{1,64})[& ]")
_STAMP = re.compile(rb"[\w.~-]{1,64}")


class ParsedPoll:
    """A poll that aiohttp has parsed: all of it that the responses depend on, and its bytes."""

    __slots__ = ("_after", "_before", "connection", "headers", "mark", "options", "zip_from")

    def __init__(
        self,
        request: web.BaseRequest,
        connection: Connection,
        options: EngineOptions,
        headers: bytes,
    ) -> None:
        self.connection = connection
        self.options = options
        # Header lines that every response to it has, in addition to the usual ones.
        self.headers = headers
        zips = options.http_compression and "gzip" in request.headers.get("Accept-Encoding", "")
        self.zip_from = options.compression_threshold if zips else None
        # Tells it from the next poll.
        self.mark = mark_of(request.query.get("t", ""))
        # Its bytes before and after the value of `t`; without `t` all bytes are in the first.
        self._before = self._after = b""

    def learn(self, chunk: bytes, request: web.BaseRequest) -> bool:
        """Keep the request's bytes if `chunk` is exactly this request; return whether it is.

        `chunk` is the input that aiohttp got last, and `request` is the last request in it. If aiohttp had got the
        beginning of the head before, the chunk begins with another line, or has fewer lines than there are headers.
        """
        if not (
            chunk.startswith(
                b"GET %b HTTP/1.1\r\n" % request.raw_path.encode(errors="surrogateescape")
            )
            and chunk.endswith(b"\r\n\r\n")
            and chunk.count(b"\r\n") == len(request.raw_headers) + 2
            and not request.body_exists
            and request.query.get("sid") == self.connection.sid
            and "Expect" not in request.headers
        ):
            return False
        self._before = chunk
        stamped = _STAMPED.search(chunk, 0, chunk.index(b"\r"))
        if stamped and stamped[1].decode() == request.query.get("t"):
            self._before, self._after = chunk[: stamped.start(1)], chunk[stamped.end(1) :]
        return True

    def mark_of_repeat(self, chunk: bytes) -> str | None:
        """Return the mark of a poll that differs at most in `t`; None: `chunk` is another request."""
        before, after = self._before, self._after
        if not after:
            return self.mark if chunk == before else None
        if not chunk.startswith(before) or not chunk.endswith(after):
            return None
        stamp = chunk[len(before) : -len(after)]
        if len(chunk) <= len(before) + len(after) or not _STAMP.fullmatch(stamp):
            return None
        return mark_of(stamp.decode())

    def response(self, text: str) -> bytes:
        return poll_response(text, self.headers, self.zip_from)

    def is_slow(self, text: str) -> bool:
        """Return whether the response is made outside the event loop."""
        return self.zip_from is not None and len(text) > ZIP_INLINE


class PollFastPath(asyncio.Protocol, TcpCarrier):
    """One TCP connection. It uses private parts of aiohttp's handler.

    So do `websocket_handshake.take_over` and `http_errors.RequestHandler`, and nothing else.
    """

    __slots__ = (
        "_answering",
        "_chunk",
        "_handler",
        "_held",
        "_known",
        "_loop",
        "_poll_future",
        "_response_written",
        "_transport",
        "_writing_paused",
        "lost",
    )

    def __init__(self, request: web.BaseRequest, transport: asyncio.Transport) -> None:
        self._handler = request.protocol
        self._transport = transport
        assert request.task is not None
        # Not get_running_loop: up to Python 3.11 that is a system call each time.
        self._loop = request.task.get_loop()
        # The poll that may be repeated; None: aiohttp has got another request since.
        self._known: ParsedPoll | None = None
        # True: aiohttp has written its response to that poll, and so has nothing more to do.
        self._response_written = False
        # The input that aiohttp got last; at most _LONGEST bytes.
        self._chunk = b""
        # True: a repeated poll is not answered yet. Input that comes meanwhile waits in `_held`, at most one read of it.
        self._answering = False
        self._held = b""
        # True: the client does not read its responses.
        self._writing_paused = self._handler.writing_paused
        # Of the poll that waits in a task of aiohttp: its result is None if the connection is lost.
        self._poll_future: asyncio.Future[str | None] | None = None
        # True: the connection is lost.
        self.lost = False

    @classmethod
    def for_request(cls, request: web.BaseRequest) -> PollFastPath | None:
        """Return the fast path of a request's connection, placed there now if it is new; None: it is lost."""
        transport = request.transport
        if transport is None or transport.is_closing():
            return None
        fast_path = transport.get_protocol()
        if not isinstance(fast_path, PollFastPath):
            fast_path = cls(request, transport)
            transport.set_protocol(fast_path)
        return fast_path

    def learn(self, poll: ParsedPoll, request: web.BaseRequest) -> None:
        """Recognize the poll that aiohttp is handling when it is repeated."""
        chunk, self._chunk = self._chunk, b""
        # aiohttp closes a connection that brought it no request for keepalive_timeout: no poll may wait that long.
        longest = poll.options.ping_interval + poll.options.ping_timeout
        if (
            longest < self._handler.keepalive_timeout
            and not self._handler._messages
            and poll.learn(chunk, request)
        ):
            self._known = poll
            self._response_written = False

    def on_response_written(self) -> None:
        """Note that aiohttp has written its response."""
        self._response_written = True

    def poll_future(self) -> asyncio.Future[str | None]:
        """Return a future for the poll's payload; its result is None if the connection is lost.

        With an exception instead, its traceback would hold the task's frame, which holds the future: a reference circle
        for each poll that was cut off.
        """
        self._poll_future = self._loop.create_future()
        return self._poll_future

    # ---------------------------------------------------------------- what asyncio calls

    def data_received(self, data: bytes) -> None:
        known = self._known
        if known is not None:
            if self._answering or self._writing_paused:
                self._held += data
                self._transport.pause_reading()
                return
            if self._response_written and known.connection.transport == "polling":
                stamp = known.mark_of_repeat(data)
                if stamp is not None:
                    self._handle_repeat(known, stamp)
                    return
            self._known = None
        self._chunk = data if len(data) <= _LONGEST else b""
        self._handler.data_received(data)

    def eof_received(self) -> bool | None:
        self._handler.eof_received()
        return None

    def pause_writing(self) -> None:
        self._writing_paused = True
        self._handler.pause_writing()

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._handler.resume_writing()
        self._schedule_held()

    def connection_lost(self, exc: Exception | None) -> None:
        known, self._known = self._known, None
        self._held = b""
        if self._answering and known is not None:
            self._answering = False
            known.connection.on_poll_lost()
        self.lost = True
        if self._poll_future is not None and not self._poll_future.done():
            self._poll_future.set_result(None)
        self._handler.connection_lost(exc)

    # ---------------------------------------------------------------- a repeated poll

    def _handle_repeat(self, known: ParsedPoll, stamp: str) -> None:
        handler = self._handler
        # Else aiohttp's timer would close the connection as idle.
        handler._next_keepalive_close_time = self._loop.time() + handler.keepalive_timeout
        self._answering = True
        known.connection.poll(self._write_response, stamp, self)

    def _write_response(self, text: str | None) -> None:
        known = self._known
        if known is None:
            return
        if text is None:
            self._known = None
            self._write(refusal_response("Session ID unknown", 1, known.headers))
        elif not known.is_slow(text):
            self._write(known.response(text))
        else:
            making = self._loop.run_in_executor(None, known.response, text)
            making.add_done_callback(lambda made: self._write(made.result()))

    def _write(self, data: bytes) -> None:
        if self._answering:
            self._answering = False
            self._transport.write(data)
            self._schedule_held()

    def _schedule_held(self) -> None:
        """Handle input that came meanwhile, in the next turn of the loop."""
        if self._held:
            self._loop.call_soon(self._handle_held)

    def _handle_held(self) -> None:
        held = self._held
        if (
            held
            and not self._answering
            and not self._writing_paused
            and not self._transport.is_closing()
        ):
            self._held = b""
            self._transport.resume_reading()
            self.data_received(held)


def mark_of(t: str) -> str:
    """Return what is unique to a poll: its `t`, if that is not just a time in seconds, as some clients send."""
    return "" if t.isdigit() and len(t) <= 10 else t

"""Stands between TCP and aiohttp on a connection that polls, and answers a poll that is asked again by itself.

A polling client sends the same request again and again: the same bytes but for `t`, which clients put in against
caches. What aiohttp has parsed once, and the engine has answered, needs no parsing, no task and no request object.
Everything else goes to aiohttp as it came.
"""

from __future__ import annotations

import asyncio
import re

from aiohttp import web

from hub.engineio.core.connection import Connection
from hub.engineio.options import EngineOptions
from hub.engineio.transports.http_responses import finished, refusal

# Longer heads are left to aiohttp.
_LONGEST = 8 * 1024
# Payloads of more characters are compressed outside the event loop.
ZIP_INLINE = 64 * 1024

_STAMPED = re.compile(rb"[?&]t=([\w.~-]{1,64})[& ]")
_STAMP = re.compile(rb"[\w.~-]{1,64}")


class Poll:
    """A poll that aiohttp has parsed: what of it the answers depend on, and its bytes."""

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
        # The lines that every answer to it has beyond the usual ones.
        self.headers = headers
        zips = options.http_compression and "gzip" in request.headers.get("Accept-Encoding", "")
        self.zip_from = options.compression_threshold if zips else None
        # What tells it apart from the next one.
        self.mark = mark(request.query.get("t", ""))
        # Its bytes around the value of `t`; all of them in the first where it has none.
        self._before = self._after = b""

    def learn(self, chunk: bytes, request: web.BaseRequest) -> bool:
        """Keep the request's bytes if `chunk` is the whole of it and nothing else.

        `chunk` is what aiohttp got last, and `request` the last that came of it. Where aiohttp held the beginning of
        a head before, the request has another first line, or more headers than the chunk has lines for.
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

    def again(self, chunk: bytes) -> str | None:
        """Return the mark of a poll that is the same but for `t`; None: this is another request."""
        before, after = self._before, self._after
        if not after:
            return self.mark if chunk == before else None
        if not chunk.startswith(before) or not chunk.endswith(after):
            return None
        stamp = chunk[len(before) : -len(after)]
        if len(chunk) <= len(before) + len(after) or not _STAMP.fullmatch(stamp):
            return None
        return mark(stamp.decode())

    def answer(self, text: str) -> bytes:
        return finished(text, self.headers, self.zip_from)

    def takes_long(self, text: str) -> bool:
        """Tell whether the answer is to be made outside the event loop."""
        return self.zip_from is not None and len(text) > ZIP_INLINE


class PollFastPath(asyncio.Protocol):
    """One TCP connection. It looks into aiohttp's handler, as `handshake.take_over` and `http_errors.Handler` do."""

    __slots__ = (
        "_answered",
        "_busy",
        "_chunk",
        "_full",
        "_handler",
        "_held",
        "_known",
        "_loop",
        "_transport",
        "_waiting",
        "lost",
    )

    def __init__(self, request: web.BaseRequest, transport: asyncio.Transport) -> None:
        self._handler = request.protocol
        self._transport = transport
        assert request.task is not None
        # Not get_running_loop: up to Python 3.11 that is a system call each time.
        self._loop = request.task.get_loop()
        # The poll that may come again. None where aiohttp has got anything else since.
        self._known: Poll | None = None
        # Whether aiohttp has written its answer to it, and so has nothing more to do.
        self._answered = False
        # What aiohttp got last; at most _LONGEST.
        self._chunk = b""
        # Whether a poll that came again is not answered yet; what comes behind it waits, at most one read's worth.
        self._busy = False
        self._held = b""
        # Whether the client does not read its answers.
        self._full = self._handler.writing_paused
        # The poll that waits in a task of aiohttp's hears here that it was cut off.
        self._waiting: asyncio.Future[str | None] | None = None
        # Whether the connection is lost.
        self.lost = False

    @classmethod
    def of(cls, request: web.BaseRequest) -> PollFastPath | None:
        """Return the front of a request's connection, put there if need be; None: it is lost."""
        transport = request.transport
        if transport is None or transport.is_closing():
            return None
        front = transport.get_protocol()
        if not isinstance(front, PollFastPath):
            front = cls(request, transport)
            transport.set_protocol(front)
        return front

    def learn(self, poll: Poll, request: web.BaseRequest) -> None:
        """Know the poll that aiohttp is handling when it comes again."""
        chunk, self._chunk = self._chunk, b""
        # aiohttp closes a connection on which it sees no request for so long; a waiting poll must not meet that.
        longest = poll.options.ping_interval + poll.options.ping_timeout
        if (
            longest < self._handler.keepalive_timeout
            and not self._handler._messages
            and poll.learn(chunk, request)
        ):
            self._known = poll
            self._answered = False

    def answered(self) -> None:
        """Note that aiohttp's answer is written."""
        self._answered = True

    def future(self) -> asyncio.Future[str | None]:
        """Return a future whose result is None when the connection is lost.

        An exception would hold, in its traceback, the task's frame, and that the future: a circle for each poll cut off.
        """
        self._waiting = self._loop.create_future()
        return self._waiting

    # ---------------------------------------------------------------- what asyncio calls

    def data_received(self, data: bytes) -> None:
        known = self._known
        if known is not None:
            if self._busy or self._full:
                self._held += data
                self._transport.pause_reading()
                return
            if self._answered and known.connection.transport == "polling":
                stamp = known.again(data)
                if stamp is not None:
                    self._poll(known, stamp)
                    return
            self._known = None
        self._chunk = data if len(data) <= _LONGEST else b""
        self._handler.data_received(data)

    def eof_received(self) -> bool | None:
        self._handler.eof_received()
        return None

    def pause_writing(self) -> None:
        self._full = True
        self._handler.pause_writing()

    def resume_writing(self) -> None:
        self._full = False
        self._handler.resume_writing()
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        known, self._known = self._known, None
        self._held = b""
        if self._busy and known is not None:
            self._busy = False
            known.connection.on_poll_lost()
        self.lost = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
        self._handler.connection_lost(exc)

    # ---------------------------------------------------------------- a poll that came again

    def _poll(self, known: Poll, stamp: str) -> None:
        handler = self._handler
        # aiohttp's timer looks here before it closes an idle connection.
        handler._next_keepalive_close_time = self._loop.time() + handler.keepalive_timeout
        self._busy = True
        known.connection.poll(self._answer, stamp)

    def _answer(self, text: str | None) -> None:
        known = self._known
        if known is None:
            return
        if text is None:
            self._known = None
            self._write(refusal("Session ID unknown", 1, known.headers))
        elif not known.takes_long(text):
            self._write(known.answer(text))
        else:
            making = self._loop.run_in_executor(None, known.answer, text)
            making.add_done_callback(lambda made: self._write(made.result()))

    def _write(self, data: bytes) -> None:
        if self._busy:
            self._busy = False
            self._transport.write(data)
            self._go_on()

    def _go_on(self) -> None:
        """Take what came meanwhile, in the next turn of the loop."""
        if self._held:
            self._loop.call_soon(self._release)

    def _release(self) -> None:
        held = self._held
        if held and not self._busy and not self._full and not self._transport.is_closing():
            self._held = b""
            self._transport.resume_reading()
            self.data_received(held)


def mark(t: str) -> str:
    """Return what is unique to a request: clients put it into `t` against caches; some only the second."""
    return "" if t.isdigit() and len(t) <= 10 else t

"""A connection as HTTP and WebSockets speak it: uvicorn's, but with an end to its patience.

Not with whom it serves, only with who holds a socket and does not get on: sends the head of a request in drops or
without an end, or does not read what it has asked for.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from antiphon.budget import Budget, Hold
from antiphon.errors import ApiError, BadRequest, RateLimited
from antiphon.server.call import encode

HEAD_BYTES_MAX = 64 << 10  # other servers take 8 to 64 KiB; whole texts come in the body
UNCOUNTED_BYTES = 64 << 10  # of a message: for so few there is room, and no connection ends for want of it
UNREAD_SECONDS = 600.0  # the network may be slow: what the system still holds back has to leave it first


def patient(
    head_seconds: float, *, head_bytes_max: int = HEAD_BYTES_MAX, unread_seconds: float = UNREAD_SECONDS
) -> type[asyncio.Protocol]:
    """The protocol of connections that are closed when a request's head takes longer, or more bytes, than that.

    The time counts from the connection, and from each request's first bytes: who sends a byte now and then holds a
    socket no longer than who sends none. Between requests uvicorn's own limit holds. unread_seconds: how long a caller
    may read nothing of an answer that waits for him.
    """
    limits = {"head_seconds": head_seconds, "head_bytes_max": head_bytes_max, "unread_seconds": unread_seconds}
    return type("PatientAsSet", (Patient,), limits)


class Patient(HttpToolsProtocol):
    """The connections of one server. Its limits are attributes of the class, since uvicorn makes the instances."""

    head_seconds: float
    head_bytes_max: int
    unread_seconds: float

    _patience: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _in_head = False
    _idle_bytes = 0  # read since the last piece of a body: of heads, trailers, and what stands between chunks

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._begin()

    def data_received(self, data: bytes) -> None:
        self._idle_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._patience is None:  # nearly always a head comes in one piece
            self._begin()
        if self._idle_bytes > self.head_bytes_max and not self.transport.is_closing():
            self._refuse(ApiError(f"The head of the request is larger than {self.head_bytes_max} bytes.", status=431))

    def send_400_response(self, msg: str) -> None:
        self._refuse(BadRequest(msg))

    def on_message_begin(self) -> None:
        self._in_head = True
        self._idle_bytes = 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # a trailer is no header: the call was let in by those that came before its body
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._end()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._idle_bytes = 0
        super().on_body(body)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(self.unread_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        self._take_up()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        self._take_up()
        super().connection_lost(exc)

    def _begin(self) -> None:
        self._patience = self.loop.call_later(self.head_seconds, self._lose)

    def _lose(self) -> None:
        if self.cycle is None or self.cycle.response_complete:  # else it still gets what it asked for before
            self.transport.close()

    def _end(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _take_up(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _should_upgrade(self) -> bool:
        # Of any other method, the WebSocket protocol would neither take the handshake nor refuse it.
        return self.parser.get_method() == b"GET" and super()._should_upgrade()

    def _refuse(self, error: ApiError) -> None:
        """Answer what is no request, unless its caller would take that for the answer to an earlier one."""
        cycle = self.cycle
        is_coming = cycle is not None and cycle.more_body and not cycle.response_started
        if cycle is None or cycle.response_complete or (is_coming and not self.pipeline):
            body = encode(error.wire())
            head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
            self.transport.write(STATUS_LINE[error.status] + head + body)
        if is_coming:
            cycle.disconnected = True  # nobody waits for what is made of its first half
            cycle.message_event.set()
        self.transport.close()


def patient_socket(budget: Budget) -> type[asyncio.Protocol]:
    """The protocol of WebSockets that hold what comes of their messages within a budget."""
    return type("PatientSocketAsSet", (PatientSocket,), {"budget": budget})


class PatientSocket(WebSocketsSansIOProtocol):
    """A WebSocket that holds no more in memory than what is allowed of it, whatever its frames are."""

    budget: Budget

    _message = bytearray()  # what has come of one in several frames
    _hold: Hold | None = None  # of what has come of a message, until it is whole

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._count()
        if not self.writable.is_set():
            self.transport.pause_reading()  # pings are answered at once: who reads no answers is asked for no more

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.read_paused:
            self.transport.resume_reading()

    def handle_cont(self, event: Frame) -> None:
        """Put a message together as it comes: kept apart, pieces of a byte would weigh fifty times as much."""
        if self.frames:
            self._message = bytearray(self.frames.pop())
        self._message += event.data
        if event.fin:
            self.frames, self._message = [bytes(self._message)], bytearray()
            self.send_receive_event_to_app()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._hold is not None:
            self._hold.close()

    def _count(self) -> None:
        """Hold what has come of a message, and close the connection if there is no room for that."""
        size = len(self.conn.reader.buffer) + len(self._message) + sum(map(len, self.frames))
        hold = self._hold = self._hold or self.budget.hold()
        hold.close()
        try:
            hold.add(size) if size > UNCOUNTED_BYTES else hold.count(size)
        except RateLimited as full:
            self.frames, self._message = [], bytearray()
            self.conn.fail(1013, full.message)
            self.handle_parser_exception()

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text" and not _is_text(b"".join(self.frames)):
            self.frames = []
            self.conn.fail(1007, "invalid UTF-8")
            self.handle_parser_exception()
            return
        super().send_receive_event_to_app()


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True

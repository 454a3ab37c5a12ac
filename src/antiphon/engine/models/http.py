"""HTTP/1.1 to one model server: kept connections, each with one request and its answer at a time.

As much of it as model servers need. A client for everything costs as much as all the rest of a relay: this one knows no
redirects, no cookies and no proxies. All that can go wrong is an OSError: Unreachable, Broken or TimeoutError.
"""

from __future__ import annotations

import asyncio
import ssl
import zlib
from collections.abc import Mapping
from contextlib import suppress
from posixpath import normpath
from typing import cast
from urllib.parse import quote, urlsplit

import httptools

KEPT_SECONDS = 15.0  # a connection that nobody has used for so long is closed
STALE_MAX = 4  # kept connections in a row that the server may have closed without our knowing it
UNREAD_BYTES_MAX = 256 << 10  # then the socket is not read: a slow store slows the model
IDLE_BYTES_MAX = 64 << 10  # of a head, of trailers, and of what stands between the pieces of a body
_WRITE_BYTES_MAX = 256 << 10  # at once: everything else waits for a write
_UNPACK_BYTES_MAX = 1 << 20  # at once: a few bytes can stand for gigabytes
_ZLIB_OR_GZIP = 32 + zlib.MAX_WBITS


class Unreachable(OSError):
    """No connection could be opened."""


class Broken(OSError):
    """The connection ended before the answer did, or what came is none."""


class _Stale(Broken):
    """It ended before anything came."""


class Server:
    """The server at a base URL, e.g. https://models.example/v1.

    headers: sent with every request; connect_seconds: until a connection is open; idle_seconds: the longest silence
    while somebody waits for it: for the whole head of an answer, or for the next piece of its body.
    unpacks: a body that comes as gzip or deflate is unpacked, no further than it is read.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str],
        connect_seconds: float,
        idle_seconds: float,
        unpacks: bool = False,
    ) -> None:
        url = urlsplit(base_url)
        self._secure = url.scheme == "https"
        usual_port = 443 if self._secure else 80
        host = url.hostname or ""
        self._host = host if host.isascii() else host.encode("idna").decode()
        self._port = url.port or usual_port
        self._path = url.path
        named = f"[{self._host}]" if ":" in self._host else self._host
        if self._port != usual_port:
            named += f":{self._port}"
        headers = {"host": named, "accept": "*/*", "user-agent": "antiphon", **headers}
        self._head = _lines(headers)
        self._connect_seconds = connect_seconds
        self._idle_seconds = idle_seconds
        self._unpacks = unpacks
        self._tls: ssl.SSLContext | None = None
        self._open: set[Exchange] = set()
        self._kept: list[Exchange] = []  # of the open ones: those that are free for a request

    async def ask(
        self, method: str, path: str, body: bytes | None = None, *, headers: Mapping[str, str] | None = None
    ) -> Exchange:
        """The answer to a request, when its head is here; whoever asked has to `leave` it.

        path: behind the base URL; headers: of this request, beside those of all. Raises OSError.
        """
        target = quote(normpath(self._path + path), safe="/%:@!$&'()*+,;=~")
        more = dict(headers or {}) if body is None else {"content-length": len(body), **(headers or {})}
        head = f"{method} {target} HTTP/1.1\r\n{self._head}{_lines(more)}\r\n".encode()
        for tried in range(STALE_MAX + 1):
            kept = self._kept.pop() if self._kept else None
            exchange = kept or await self._connected()
            try:
                await exchange.ask(head, body or b"")
                return exchange
            except _Stale:
                # The server has just closed this idle connection; nothing was answered, so another may be tried. One
                # that hangs up on a new connection has perhaps died of the request, and is not to do so again.
                if kept is None or tried == STALE_MAX:
                    raise
            except BaseException:
                exchange.end()
                raise
        raise AssertionError("unreachable")

    async def close(self) -> None:
        for exchange in tuple(self._open):
            exchange.end()
        await asyncio.sleep(0)  # in which the event loop closes their sockets

    async def _connected(self) -> Exchange:
        loop = asyncio.get_running_loop()
        if self._secure and self._tls is None:
            self._tls = ssl.create_default_context()
        exchange = Exchange(self._open, self._kept, idle_seconds=self._idle_seconds, unpacks=self._unpacks)
        try:
            async with asyncio.timeout(self._connect_seconds):
                await loop.create_connection(lambda: exchange, self._host, self._port, ssl=self._tls)
        except (OSError, UnicodeError) as error:  # too: names unknown or impossible, bad certificates, a timeout
            raise Unreachable(f"{self._host}:{self._port}: {error!r}") from error
        return exchange


def _lines(headers: Mapping[str, object]) -> str:
    for name, value in headers.items():
        if not f"{name}{value}".isprintable():  # the end of a line would begin another header, or another request
            raise ValueError(f"The header {name!r} holds a character that no header may hold.")
    return "".join([f"{name}: {value}\r\n" for name, value in headers.items()])


class Exchange(asyncio.Protocol):
    """A connection, and the answer that comes on it now.

    opened: the connections that it is one of; kept: those of them that are free.
    """

    def __init__(self, opened: set[Exchange], kept: list[Exchange], *, idle_seconds: float, unpacks: bool) -> None:
        self.status = 0  # until the head is here
        self.headers: dict[str, str] = {}  # by their names in lower case
        self._opened = opened
        self._kept = kept
        self._idle_seconds = idle_seconds
        self._unpacks = unpacks
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True)
        self._asked = False  # somebody holds it
        self._heard = False  # something has come since then
        self._whole = False  # the whole answer has come
        self._ends_by_closing = False
        self._reusable = True
        self._failure: tuple[type[OSError], str] | None = None  # no error: its traceback would hold all that wait
        self._pieces: list[bytes] = []  # of the body, not read yet
        self._packed: zlib._Decompress | None = None
        self._unread_bytes = 0
        self._idle_bytes = 0
        self._is_full = False  # the server does not read what is sent
        self._waiter: asyncio.Future[None] | None = None
        self._waits_since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def at_end(self) -> bool:
        """Whether everything has come and was read."""
        return self._whole and not self._pieces

    async def ask(self, head: bytes, body: bytes) -> None:
        """Send a request, and return when the head of the answer is here."""
        self._stop_timer()
        self._asked, self._heard, self._whole = True, False, False
        self.status, self.headers, self._packed = 0, {}, None
        if len(body) <= _WRITE_BYTES_MAX:
            self._transport.write(head + body)
        else:
            await self._send(head, body)
        while not self.status:
            await self._news()

    async def read(self) -> bytes:
        """What has come of the body by now; nothing at its end."""
        if self._packed is None:
            return await self._read()
        try:
            while data := self._packed.unconsumed_tail or await self._read():
                if self._packed.eof:
                    raise Broken("The body goes on behind what was packed.")
                if unpacked := self._packed.decompress(data, _UNPACK_BYTES_MAX):
                    return unpacked
            return self._packed.flush()
        except zlib.error as error:
            raise Broken(f"The body cannot be unpacked: {error}") from error

    def leave(self) -> None:
        """Let go of the answer. At its end the connection is free for the next request; before, it is closed."""
        if not (self.at_end and self._reusable) or self._transport.is_closing():
            self.end()
            return
        self._asked = False
        self._stop_timer()
        self._timer = self._loop.call_later(KEPT_SECONDS, self.end)
        self._kept.append(self)

    def end(self) -> None:
        """Close the connection now, whatever is on its way."""
        self._stop_timer()
        with suppress(ValueError):
            self._kept.remove(self)
        self._transport.abort()

    async def _read(self) -> bytes:
        while not self._pieces:
            if self._whole:
                return b""
            await self._news()
        data = b"".join(self._pieces)
        self._pieces.clear()
        if self._unread_bytes > UNREAD_BYTES_MAX:
            self._transport.resume_reading()
        self._unread_bytes = 0
        return data

    async def _send(self, head: bytes, body: bytes) -> None:
        """Send as much of a large request as the server wants to hear."""
        self._transport.write(head)
        rest = memoryview(body)
        while rest and not self.status:
            self._transport.write(rest[:_WRITE_BYTES_MAX])
            rest = rest[_WRITE_BYTES_MAX:]
            while self._is_full and not self.status:
                await self._news()
        self._reusable = self._reusable and not rest

    async def _news(self) -> None:
        """Return when something has come, or when more can be sent. Raises OSError if nothing will."""
        if self._failure is not None:
            kind, why = self._failure
            raise kind(why)
        self._waiter = self._loop.create_future()
        self._waits_since = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._idle_seconds, self._look)
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _look(self) -> None:
        """Give the server up if it was silent for too long. One timer serves all waiting for an answer."""
        self._timer = None
        if self._waiter is not None:
            left = self._waits_since + self._idle_seconds - self._loop.time()
            if left > 0:
                self._timer = self._loop.call_later(left, self._look)
            else:
                self._fail(TimeoutError, f"nothing came for {self._idle_seconds:g} seconds")

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, kind: type[OSError], why: str) -> None:
        """Nothing can come any more. What has come can still be read."""
        self._failure = self._failure or (kind, why)
        self.end()
        self._wake()

    def _break_off(self, why: str) -> None:
        if not self._whole:
            self._fail(Broken if self._heard else _Stale, why)

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by their class
        self._opened.add(self)

    def data_received(self, data: bytes) -> None:
        if not self._asked:
            self.end()  # an answer to nothing: often that it has waited for too long
            return
        self._heard = True
        self._idle_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(Broken, f"what came is no answer: {error!r}")
            return
        if self._idle_bytes > IDLE_BYTES_MAX:
            self._fail(Broken, f"no piece of the answer within {IDLE_BYTES_MAX} bytes")
        elif self._unread_bytes > UNREAD_BYTES_MAX:
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        self._wake()

    def eof_received(self) -> None:
        """The server says no more: only that can be the end of an answer. The event loop closes the connection."""
        if self._ends_by_closing and self._failure is None:
            self._whole = True
            self._wake()
        else:
            self._break_off("the server closed the connection")

    def connection_lost(self, error: Exception | None) -> None:
        self._opened.discard(self)
        self._break_off(f"the connection was closed: {error!r}")
        self.end()
        del self._parser  # which holds this object

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self._whole:
            self._reusable = False  # it says more than it was asked

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.status:  # else it is a trailer
            self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200 or self._whole:
            return
        headers = self.headers
        self.status = status
        self._ends_by_closing = "content-length" not in headers and "transfer-encoding" not in headers
        if self._unpacks and headers.get("content-encoding", "").lower() in ("gzip", "deflate"):
            self._packed = zlib.decompressobj(_ZLIB_OR_GZIP)
        self._wake()

    def on_body(self, piece: bytes) -> None:
        if self._whole:
            return
        self._idle_bytes = 0
        self._unread_bytes += len(piece)
        self._pieces.append(piece)
        self._wake()

    def on_message_complete(self) -> None:
        if not self.status:  # an interim answer: the real one follows
            self.headers.clear()
            return
        self._whole, self._ends_by_closing = True, False
        self._idle_bytes = 0
        self._reusable = self._reusable and self._parser.should_keep_alive()
        self._wake()

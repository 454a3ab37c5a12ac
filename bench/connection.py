"""An HTTP client that costs little and shows how an answer was cut: each chunk of it is one send of the server.

Enough of HTTP/1.1 for the servers measured here, which answer with a length or in chunks. Not for use elsewhere.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass
class Answer:
    """An answer: its status, and its body in the pieces that were sent; its first bytes came after so many seconds."""

    status: int
    first_seconds: float = 0.0
    pieces: list[bytes] = field(default_factory=list)

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)


class Connection(asyncio.Protocol):
    """One connection to a server; one request after the other."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport
        self._received = bytearray()
        self._answer: Answer | None = None
        self._length: int | None = None
        self._asked = 0.0
        self._on_piece: Callable[[bytes], None] = _nothing
        self._ended: asyncio.Future[Answer] | None = None

    @classmethod
    async def to(cls, url: str) -> Connection:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        return (await asyncio.get_running_loop().create_connection(cls, parts.hostname, parts.port))[1]

    async def ask(
        self, method: str, url: str, body: bytes = b"", *, on_piece: Callable[[bytes], None] | None = None
    ) -> Answer:
        """The whole answer. on_piece: told each piece of a body in chunks, as it comes."""
        parts = urlsplit(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        head = f"{method} {target} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\n"
        self._ended = asyncio.get_running_loop().create_future()
        self._on_piece = on_piece or _nothing
        self._asked = time.monotonic()
        self._transport.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        return await self._ended

    def close(self) -> None:
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's is none by its type

    def connection_lost(self, exc: Exception | None) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_exception(exc or ConnectionError("The server closed the connection in its answer."))

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._answer is None and not self._read_head():
            return
        if self._answer is not None and self._received and not self._answer.first_seconds:
            self._answer.first_seconds = time.monotonic() - self._asked
        if self._length is None:
            self._read_chunks()
        elif len(self._received) >= self._length:
            self._take(self._length)
            self._end()

    def _read_head(self) -> bool:
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self._received[: end + 2])
        del self._received[: end + 4]
        length = _LENGTH.search(head)
        self._length = int(length[1]) if length else None
        self._answer = Answer(int(head[9:12]))
        return True

    def _read_chunks(self) -> None:
        while (line := self._received.find(b"\r\n")) >= 0:
            size = int(self._received[:line], 16)
            if len(self._received) < line + 4 + size:
                return
            del self._received[: line + 2]
            if size:
                self._on_piece(self._take(size))
            del self._received[:2]
            if not size:
                self._end()
                return

    def _take(self, size: int) -> bytes:
        assert self._answer is not None
        piece = bytes(self._received[:size])
        del self._received[:size]
        self._answer.pieces.append(piece)
        return piece

    def _end(self) -> None:
        assert self._ended is not None
        assert self._answer is not None
        answer, self._answer = self._answer, None
        self._ended.set_result(answer)


def _nothing(piece: bytes) -> None:
    pass

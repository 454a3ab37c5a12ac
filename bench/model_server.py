"""A model server that costs next to nothing: Chat Completions streams of words that mean nothing, at a chosen pace.

The name of the model says what to stream, see `Plan`. Raw protocol, one write for each batch of tokens.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import uvloop

from bench.processes import ROOT, announce

_CHUNK = (
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,"model":"bench",'
    b'"system_fingerprint":"fp_bench","choices":[{"index":0,"delta":%b,"logprobs":null,"finish_reason":%b}]}\n\n'
)
_FIRST = _CHUNK % (b'{"role":"assistant","content":""}', b"null")
_TOKEN = _CHUNK % (b'{"content":" token"}', b"null")
# What is said where the words matter: the letters of a page of ours, four in a token, as in English.
_TEXT = (ROOT / "docs" / "performance.md").read_text("utf-8")
_LAST = (
    _CHUNK % (b"{}", b'"stop"') + b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,'
    b'"model":"bench","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":9,"total_tokens":18}}\n\n'
    b"data: [DONE]\n\n"
)
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_PLAN = re.compile(rb'"model": ?"bench-(\d+)-([\d.]+)-(\d+)(-stamped)?(-words)?"')


@dataclass(frozen=True)
class Plan:
    """What one answer is: how many tokens, how many of them in one write, and how many writes a second.

    stamped: each token is the moment of its writing, by the clock that all processes of the machine share.
    words: tokens are pieces of English, other ones in each answer.
    """

    tokens: int
    writes_per_second: float
    batch: int = 1
    stamped: bool = False
    words: bool = False

    @property
    def model(self) -> str:
        """The model's name that asks for it."""
        return (
            f"bench-{self.tokens}-{self.writes_per_second:g}-{self.batch}"
            + "-stamped" * self.stamped
            + "-words" * self.words
        )

    @classmethod
    def of(cls, request: bytes) -> Plan:
        found = _PLAN.search(request)
        if found is None:
            raise ValueError(f"no model of the form bench-TOKENS-RATE-BATCH in {request[:500]!r}")
        return cls(int(found[1]), float(found[2]), int(found[3]), found[4] is not None, found[5] is not None)


class Answering(asyncio.Protocol):
    """One connection: answers one request after the other."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport
        self._received = bytearray()
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's is none by its type

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(self._received, 0, end)
        if len(self._received) < end + 4 + (int(length[1]) if length else 0):
            return
        request, self._received = bytes(self._received), bytearray()
        self._transport.write(_HEAD + _chunked(_FIRST))
        self._begin(Plan.of(request))

    def _begin(self, plan: Plan) -> None:
        self._plan = plan
        self._left = plan.tokens
        self._batch = _chunked(_TOKEN * plan.batch)
        if plan.words:
            self._batch = _chunked(b"".join(_words(plan.batch)))
        loop = asyncio.get_running_loop()
        self._due = loop.time() + random.random() / plan.writes_per_second  # streams keep out of step
        self._timer = loop.call_at(self._due, self._write)

    def _write(self) -> None:
        self._timer = None
        if self._left <= 0:
            self._transport.write(_chunked(_LAST) + b"0\r\n\r\n")
            return
        if self._plan.stamped:
            self._transport.write(_chunked(_TOKEN.replace(b" token", b"@%d" % time.monotonic_ns())))
        else:
            self._transport.write(self._batch)
        self._left -= self._plan.batch
        self._due += 1 / self._plan.writes_per_second
        self._timer = asyncio.get_running_loop().call_at(self._due, self._write)


def _words(count: int) -> Iterator[bytes]:
    start = random.randrange(len(_TEXT))
    for at in range(start, start + 4 * count, 4):
        token = "".join(_TEXT[place % len(_TEXT)] for place in range(at, at + 4))
        yield _TOKEN.replace(b'" token"', json.dumps(token).encode())


def _chunked(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(body), body)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0, backlog=2048)
    announce(server.sockets[0])
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())

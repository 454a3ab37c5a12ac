"""The floors: what any server must do that relays a stream, or sends bytes that it holds. Raw ASGI under uvicorn.

POST /v1/responses   ask the model server, send on each read as it is: no log, no JSON
any  /v1/held/NAME   the pieces kept in the file NAME, one send each; for clients also what lies below NAME
GET  /v1/waiting     one piece, then silence until the caller goes
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import aiohttp
import uvicorn
import uvloop

from bench.processes import announce

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_JSON = [(b"content-type", b"application/json")]
_STREAM = [(b"content-type", b"text/event-stream; charset=utf-8")]


class Floors:
    """The ASGI application. upstream: the model server's URL; held: the directory of what can be sent."""

    def __init__(self, upstream: str, held: Path) -> None:
        self._upstream = upstream
        self._held = held
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path == "/v1/responses":
            await self._relay(await _body(receive), send)
        elif path.startswith("/v1/held/"):
            await _send_pieces(_pieces(self._held / path.split("/")[3]), send)
        elif path == "/v1/waiting":
            await send({"type": "http.response.start", "status": 200, "headers": _STREAM})
            await send({"type": "http.response.body", "body": b": waiting\n\n", "more_body": True})
            while (await receive())["type"] != "http.disconnect":
                pass
        else:
            await _send_pieces([b"{}"], send)

    async def _relay(self, body: bytes, send: Send) -> None:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), read_bufsize=256 << 10)
        async with self._session.post(self._upstream + "/chat/completions", data=body) as answer:
            await send({"type": "http.response.start", "status": 200, "headers": _STREAM})
            async for data in answer.content.iter_any():
                await send({"type": "http.response.body", "body": data, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def hold(path: Path, pieces: Sequence[bytes]) -> None:
    """Keep pieces for `/v1/held/`."""
    path.write_bytes(json.dumps([len(piece) for piece in pieces]).encode() + b"\n" + b"".join(pieces))


@cache
def _pieces(path: Path) -> list[bytes]:
    lengths, _, data = path.read_bytes().partition(b"\n")
    pieces, start = [], 0
    for length in json.loads(lengths):
        pieces.append(data[start : start + length])
        start += length
    return pieces


async def _body(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message["body"]
        more = message.get("more_body", False)
    return body


async def _send_pieces(pieces: list[bytes], send: Send) -> None:
    headers = _STREAM if len(pieces) > 1 else [*_JSON, (b"content-length", b"%d" % len(pieces[0]))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def main(upstream: str, held: Path) -> None:
    listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
    announce(listening)
    await serve(Floors(upstream, held), listening)


async def serve(app: Any, listening: socket.socket) -> None:
    """Serve as Antiphon is served, without what it adds."""
    config = uvicorn.Config(
        app,
        loop="none",
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
    )
    await uvicorn.Server(config).serve(sockets=[listening])


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], Path(sys.argv[2])))

"""The second floor: what most people would write, Starlette in front of aiohttp; no log, no JSON.

POST /v1/responses   ask the model server, send on each read as it is
"""

from __future__ import annotations

import socket
import sys
from collections.abc import AsyncIterator

import aiohttp
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from bench.floors import serve
from bench.processes import announce


def relay(upstream: str) -> Starlette:
    """The application. upstream: the model server's URL."""
    sessions: list[aiohttp.ClientSession] = []

    async def create(request: Request) -> StreamingResponse:
        if not sessions:  # made in the loop
            sessions.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), read_bufsize=256 << 10))
        return StreamingResponse(relayed(await request.body()), media_type="text/event-stream")

    async def relayed(body: bytes) -> AsyncIterator[bytes]:
        async with sessions[0].post(upstream + "/chat/completions", data=body) as answer:
            async for data in answer.content.iter_any():
                yield data

    return Starlette(routes=[Route("/v1/responses", create, methods=["POST"])])


async def main(upstream: str) -> None:
    listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
    announce(listening)
    await serve(relay(upstream), listening)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))

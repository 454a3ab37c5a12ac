"""ApiServer: a server of the API that does what the test tells it, request by request, as a real ASGI app.

Every request takes the next script of `server.plan`; without one, a Responses request gets the log below (as a stream
from where it asks, or as its fold), and anything else is echoed. The server remembers what it was asked
(`server.requests`). Run it by `with serve(server) as url`, or hand it to a client as its `app`.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any
from urllib.parse import parse_qsl

from antiphon.protocol.sse import encode
from antiphon.protocol.transcript import Transcript

SECONDS_MAX = 20.0  # no test waits longer for something that should happen at once
RESPONSE_ID = "resp_0123456789abcdef0123456789abcdef0123456789abcdef"


def _log() -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A whole response: its events 0 to 11, and their fold."""
    said = Transcript({"id": RESPONSE_ID, "object": "response", "created_at": 1700000000, "model": "m", "usage": None})
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
    at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    events = [
        said.write("response.created"),
        said.write("response.in_progress"),
        said.write("response.output_item.added", output_index=0, item=item),
        said.write("response.content_part.added", **at, part=part),
        *(
            said.write("response.output_text.delta", **at, delta=each, logprobs=[])
            for each in ("The ", "tide ", "über", " all")
        ),
        said.write("response.output_text.done", **at, text="The tide über all", logprobs=[]),
        said.write("response.content_part.done", **at, part={**part, "text": "The tide über all"}),
    ]
    done = {**item, "status": "completed", "content": [{**part, "text": "The tide über all"}]}
    events.append(said.write("response.output_item.done", output_index=0, item=done))
    events.append(said.write("response.completed", usage={"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}))
    return events, said.response


LOG, RESPONSE = _log()


def parts(content_type: str, body: bytes) -> list[dict[str, Any]]:
    """The parts of a multipart form: name, filename, type, and data as a text that each byte is a letter of."""
    message = BytesParser(policy=HTTP).parsebytes(b"content-type: " + content_type.encode() + b"\r\n\r\n" + body)
    return [
        {
            "name": part.get_param("name", header="content-disposition"),
            "filename": part.get_filename(),
            "type": part.get("content-type"),
            "data": bytes(part.get_payload(decode=True)).decode("latin-1"),
        }
        for part in message.iter_parts()
    ]


class Dropped(Exception):
    """Raised by a script in the middle of an answer; the server then closes the socket."""


class Exchange:
    """One request, and the means to answer it."""

    def __init__(self, scope: Any, receive: Any, send: Any, body: bytes) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["raw_path"].decode()
        self.query = parse_qsl(scope["query_string"].decode(), keep_blank_values=True)
        self.headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.raw = body
        self.body = self._decoded(body)
        self.client = scope["client"]
        self.state: dict[str, Any] = scope.get("state", {})
        self._receive = receive
        self._send = send
        self._left = threading.Event()

    def _decoded(self, body: bytes) -> Any:
        """JSON as its value, a form as its parts, anything else as the text that each byte is a letter of."""
        kind = self.headers.get("content-type", "").partition(";")[0]
        if kind == "multipart/form-data":
            return parts(self.headers["content-type"], body)
        elif kind == "application/x-www-form-urlencoded":
            return parse_qsl(body.decode(), keep_blank_values=True)
        elif kind == "application/json":
            return json.loads(body)
        return body.decode("latin-1") if body else None

    @property
    def after(self) -> int:
        return int(dict(self.query).get("starting_after", -1))

    @property
    def streams(self) -> bool:
        asked = self.body.get("stream") if isinstance(self.body, dict) else None
        return dict(self.query).get("stream") == "true" or bool(asked)

    async def start(self, status: int, headers: dict[str, str]) -> None:
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def say(self, data: bytes, *, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def until_left(self) -> None:
        """Wait until the client has closed the connection."""
        message = await self._receive()
        assert message["type"] == "http.disconnect"
        self._left.set()

    def wait_left(self) -> None:
        """Return when `until_left` has. May be called from any thread."""
        assert self._left.wait(SECONDS_MAX), "the client kept its connection open"


Script = Callable[[Exchange], Awaitable[None]]


class ApiServer:
    """The app."""

    def __init__(self, *plan: Script) -> None:
        self.plan = deque(plan)
        self.requests: list[Exchange] = []
        self.lifespan: list[str] = []
        self.usual: Script = usual

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
            return
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        exchange = Exchange(scope, receive, send, body)
        self.requests.append(exchange)
        await (self.plan.popleft() if self.plan else self.usual)(exchange)

    async def _live(self, scope: Any, receive: Any, send: Any) -> None:
        for event in ("startup", "shutdown"):
            await receive()
            self.lifespan.append(event)
            if "state" in scope:
                scope["state"]["born"] = "at startup"
            await send({"type": f"lifespan.{event}.complete"})


class Door:
    """A server that stays, for servers that change with the tests: starting a real one takes a tenth of a second."""

    def __init__(self) -> None:
        self.server = ApiServer()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.server(scope, receive, send)


async def usual(exchange: Exchange) -> None:
    if not exchange.path.startswith("/v1/responses"):
        await echo(exchange)
    elif exchange.streams:
        await play()(exchange)
    else:
        await reply(body=RESPONSE)(exchange)


async def echo(exchange: Exchange) -> None:
    """Answers with the request."""
    seen = {name: getattr(exchange, name) for name in ("method", "path", "query", "headers", "body", "state")}
    await reply(body=seen)(exchange)


def reply(status: int = 200, *, body: Any = None, headers: dict[str, str] | None = None) -> Script:
    """A whole answer; `body` is JSON unless it is bytes."""

    async def answer(exchange: Exchange) -> None:
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        kind = {} if isinstance(body, bytes) or body is None else {"content-type": "application/json"}
        await exchange.start(status, kind | (headers or {}))
        await exchange.say(data, more=False)

    return answer


def error(status: int, message: str = "No.", *, headers: dict[str, str] | None = None, **fields: Any) -> Script:
    wire = {"message": message, "type": "invalid_request_error", "param": None, "code": None} | fields
    return reply(status, body={"error": wire}, headers=headers)


def play(
    most: int | None = None, *, then: str = "end", log: list[dict[str, Any]] = LOG, pieces: int | None = None
) -> Script:
    """Stream the log from where the request asks; up to `most` events, each sent alone.

    then: "end" ends the answer in good order, "drop" closes the socket, "hang" says no more until the client leaves.
    pieces: send the bytes in pieces of so many instead.
    """

    async def answer(exchange: Exchange) -> None:
        await exchange.start(200, {"content-type": "text/event-stream; charset=utf-8"})
        frames = [encode(event) for event in log if event["sequence_number"] > exchange.after][:most]
        if pieces is not None:
            whole = b"".join(frames)
            frames = [whole[at : at + pieces] for at in range(0, len(whole), pieces)]
        for frame in frames:
            await exchange.say(frame)
        if then == "drop":
            raise Dropped
        if then == "hang":
            await exchange.until_left()
            return
        await exchange.say(b"", more=False)

    return answer


def say(data: bytes, *, then: str = "end") -> Script:
    """An event stream of exactly these bytes."""

    async def answer(exchange: Exchange) -> None:
        await exchange.start(200, {"content-type": "text/event-stream"})
        await exchange.say(data)
        if then == "drop":
            raise Dropped
        await exchange.say(b"", more=False)

    return answer


def once_left(server: ApiServer, script: Script, *, request: int) -> Script:
    """The script, but only after the client has closed an earlier request's connection."""

    async def answer(exchange: Exchange) -> None:
        await asyncio.to_thread(server.requests[request].wait_left)
        await script(exchange)

    return answer


async def hang(exchange: Exchange) -> None:
    """No answer at all until the client leaves."""
    await exchange.until_left()


@contextmanager
def slamming() -> Iterator[tuple[str, list[bytes]]]:
    """A server that reads each request and closes the socket without a word; yields its URL and what it read."""
    read: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def run() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    read.append(connection.recv(65536))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}", read
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()

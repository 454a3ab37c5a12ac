"""Antiphon itself, as the tests run it: a node in a thread of this process, or a server as a process of its own.

Either asks the scripted model server of chat.py. A node in this process keeps every answer that it gave, byte for byte,
and `antiphon()` holds all of them against the API description when the test is over: no test has to ask for that.
"""

from __future__ import annotations

import logging
import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import openai

from antiphon.node import node
from antiphon.protocol import sse
from antiphon.server.app import OPERATIONS
from antiphon.settings import Settings
from antiphon.spec.document import Document, Operation
from tests.servers.chat import SECONDS_MAX, ChatServer, Stream, script
from tests.servers.running import serve

# Small, so that what happens by itself happens soon; a test that needs other values names them.
QUICK: dict[str, Any] = {
    "port": 0,
    "durability": "process",
    "poll_seconds": 0.05,
    "lease_renew_seconds": 0.05,
    "orphan_grace_seconds": 20.0,
}
# There is no TLS here, and to load its certificates takes longer than most tests.
PLAIN: dict[str, Any] = {"verify": False, "timeout": SECONDS_MAX}

_FRAME = re.compile(rb"event: ([^\n]+)\ndata: (\{[^\n]*\})\n\n")

Json = dict[str, Any]


@dataclass(frozen=True)
class Antiphon:
    """A node at work, and the model server that it asks."""

    url: str  # with /v1
    upstream: ChatServer

    def http(self, **options: Any) -> httpx2.AsyncClient:
        """A plain HTTP client; it waits no longer than any test does."""
        return httpx2.AsyncClient(**{"base_url": self.url, **PLAIN, **options})

    def sdk(self) -> openai.OpenAI:
        client = openai.DefaultHttpxClient(**PLAIN)
        return openai.OpenAI(base_url=self.url, api_key="sk-tests", max_retries=0, http_client=client)

    def async_sdk(self) -> openai.AsyncOpenAI:
        client = openai.DefaultAsyncHttpxClient(**PLAIN)
        return openai.AsyncOpenAI(base_url=self.url, api_key="sk-tests", max_retries=0, http_client=client)


@contextmanager
def antiphon(database: Path | str | None = None, **settings: Any) -> Iterator[Antiphon]:
    """A node in a thread, none of whose answers may be wrong.

    database: its URL, or the directory of its file; without one, it is in memory. The rest are settings of the server.
    """
    upstream = ChatServer()
    if isinstance(database, Path):
        database = f"sqlite:///{database / 'antiphon.db'}"
    with ExitStack() as stack:
        complaints = stack.enter_context(complaining())
        base = stack.enter_context(serve(upstream))
        app = App(Settings(**{**QUICK, "upstream": f"{base}/v1", "database": database or "sqlite://", **settings}))
        yield Antiphon(stack.enter_context(serve(app, lifespan="on")) + "/v1", upstream)
    found = [*complaints, *(fault for answer in app.answers for fault in faults(answer))]
    assert not found, "\n".join(found)


@contextmanager
def complaining() -> Iterator[list[str]]:
    """Collects what is logged as an error, by whomever: an exception that nobody caught ends there."""
    complaints: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: complaints.append(logging.Formatter().format(record))  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    try:
        yield complaints
    finally:
        logging.getLogger().removeHandler(handler)


@dataclass
class Answer:
    """One answer as its bytes went out."""

    method: str
    path: str
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    sends: list[bytes] = field(default_factory=list)
    raised: Exception | None = None

    @property
    def body(self) -> bytes:
        return b"".join(self.sends)


class App:
    """A node as an ASGI app that lives as long as the server that runs it, and keeps what it answers."""

    def __init__(self, settings: Settings) -> None:
        self.answers: list[Answer] = []
        self._settings = settings
        self._app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if scope["type"] == "websocket":
            await self._converse(scope, receive, send)
            return
        answer = Answer(scope["method"], scope["path"])
        self.answers.append(answer)

        async def keep(message: Any) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            elif message.get("body"):
                answer.sends.append(message["body"])
            await send(message)

        try:
            await self._app(scope, receive, keep)
        except Exception as error:  # uvicorn would only log it
            answer.raised = error
            raise

    async def _converse(self, scope: Any, receive: Any, send: Any) -> None:
        """A WebSocket: what it says is kept as one answer, each message as a frame of its own."""
        answer = Answer("WS", scope["path"])
        self.answers.append(answer)

        async def keep(message: Any) -> None:
            if message["type"] == "websocket.send":
                answer.sends.append(message["text"].encode())
            await send(message)

        await self._app(scope, receive, keep)

    async def _live(self, receive: Any, send: Any) -> None:
        await receive()
        async with node(self._settings) as running:
            self._app = running.app
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await running.worker.stop(seconds=0)
        await send({"type": "lifespan.shutdown.complete"})


def faults(answer: Answer) -> Iterator[str]:
    """What the API description has against an answer; nothing, if all is well."""
    for fault in _faults(answer):
        yield f"{answer.method} {answer.path} {answer.status}: {fault}"


def _faults(answer: Answer) -> Iterator[str]:
    if answer.raised is not None:
        yield f"raised {answer.raised!r}"
    if answer.method == "WS":
        yield from _faults_of_messages([msgspec.json.decode(sent) for sent in answer.sends])
    kind = answer.headers.get("content-type", "")
    if not answer.status:
        return
    if not answer.headers.get("x-request-id"):
        yield "no x-request-id"
    operation = operation_of(answer)
    if answer.status >= 400:
        yield from _faults_of_error(answer)
    elif kind == "text/event-stream; charset=utf-8":
        for sent in answer.sends:  # each event in one piece, and no piece without one
            yield from _faults_of_frames(sent)
        yield from _faults_of_order(events(answer.body))
    elif answer.path == "/metrics" or answer.method == "OPTIONS":
        return  # for Prometheus, and for browsers that ask before they call
    elif kind != "application/json":
        yield f"content-type {kind!r}"
    elif len(answer.body) < int(answer.headers.get("content-length", 0)):
        return  # its caller was gone before it was out
    elif operation is not None and answer.body:
        schema = operation.answers["200"].media["application/json"].strict()
        yield from map(str, schema.problems(msgspec.json.decode(answer.body)))


def _faults_of_error(answer: Answer) -> Iterator[str]:
    if answer.headers.get("content-type") != "application/json":
        yield "an error that is not JSON"
    elif answer.method != "HEAD":
        error = msgspec.json.decode(answer.body)
        yield from map(str, document().schema("ErrorResponse").strict().problems(error))


def _faults_of_frames(sent: bytes) -> Iterator[str]:
    if sent in (sse.KEEP_ALIVE, sse.DONE):
        return
    if _FRAME.sub(b"", sent):
        yield f"not whole frames: {sent[:200]!r}"
    for type, data in _FRAME.findall(sent):
        event = msgspec.json.decode(data)
        if event["type"] != type.decode():
            yield f"event {event['type']} in a frame of {type!r}"
        for problem in document().event_schema(event["type"]).strict().problems(event):
            yield f"{event['type']}: {problem}"


def _faults_of_messages(messages: list[Json]) -> Iterator[str]:
    """What is wrong with the messages of a WebSocket: events, or errors of the connection, which have a status."""
    for message in messages:
        message.pop("stream_id", None)
        if "status" in message:
            message["error"].pop("headers", None)  # what HTTP would have in its own, such as `retry-after`
            yield from map(str, document().schema("ErrorResponse").strict().problems({"error": message["error"]}))
        else:
            for problem in document().event_schema(message["type"]).strict().problems(message):
                yield f"{message['type']}: {problem}"


def _faults_of_order(said: list[Json]) -> Iterator[str]:
    numbers = [event["sequence_number"] for event in said]
    if numbers and numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        yield f"numbers {numbers}"


def operation_of(answer: Answer) -> Operation | None:
    for operation_id in OPERATIONS:
        operation = document().operation(operation_id)
        path = re.sub(r"\{\w+\}", "[^/]+", "/v1" + operation.path)
        if operation.method == answer.method and re.fullmatch(path, answer.path):
            return operation
    return None


@cache
def document() -> Document:
    return Document.load()


def events(raw: bytes) -> list[Json]:
    """The events of a stream's bytes, as far as they are whole."""
    return [msgspec.json.decode(each.data) for each in sse.Decoder().feed(raw) if each.data != b"[DONE]"]


class RawStream:
    """A stream that is read as far as a test wants, and kept."""

    def __init__(self, answer: httpx2.Response) -> None:
        self.answer = answer
        self.raw = b""
        self._chunks = answer.aiter_raw()

    @property
    def events(self) -> list[Json]:
        return events(self.raw)

    @property
    def response_id(self) -> str:
        """The id that event 0 tells."""
        response_id: str = self.events[0]["response"]["id"]
        return response_id

    async def until(self, seen: Callable[[bytes], bool]) -> None:
        """Read on until what was read so far is enough."""
        while not seen(self.raw):
            chunk = await anext(self._chunks, None)
            assert chunk is not None, f"the stream ended with {self.raw[-500:]!r}"
            self.raw += chunk

    async def deltas(self, count: int) -> None:
        """Read on until so many deltas are there, each of them whole."""
        await self.until(lambda raw: raw.count(b".delta\n") >= count and raw.endswith(b"\n\n"))

    async def rest(self) -> bytes:
        """Read to the end; gives the bytes of the whole stream."""
        async for chunk in self._chunks:
            self.raw += chunk
        return self.raw


@asynccontextmanager
async def streaming(http: httpx2.AsyncClient, method: str, path: str, **options: Any) -> AsyncIterator[RawStream]:
    """A stream; to leave the block is to hang up."""
    async with http.stream(method, path, **options) as answer:
        assert answer.status_code == 200, await answer.aread()
        yield RawStream(answer)


def creating(http: httpx2.AsyncClient, model: str, **body: Any) -> Any:
    """The stream of a new response."""
    return streaming(http, "POST", "/responses", json={"model": model, "input": "Hi", "stream": True, **body})


def following(http: httpx2.AsyncClient, response_id: str, **query: Any) -> Any:
    """The stream of a response that is there."""
    return streaming(http, "GET", f"/responses/{response_id}", params={"stream": "true", **query})


async def created(http: httpx2.AsyncClient, model: str, **body: Any) -> Json:
    """A new response, as the answer to its create has it."""
    answer = await http.post("/responses", json={"model": model, "input": "Hi", **body})
    assert answer.status_code == 200, answer.text
    response: Json = answer.json()
    return response


async def replayed(http: httpx2.AsyncClient, response_id: str, **query: Any) -> bytes:
    """The whole stream of a response, to its end."""
    async with following(http, response_id, **query) as stream:
        raw: bytes = await stream.rest()
        return raw


def _flags(upstream: str | None, database: Path) -> list[str]:
    url = f"sqlite:///{database / 'antiphon.db'}"
    model = [] if upstream is None else ["--upstream", f"{upstream}/v1"]
    return ["--port", "0", *model, "--database", url, "--log-level", "warning"]


class Process:
    """`antiphon serve` as a process of its own, on a database in a file.

    upstream: None for what an antiphon.toml beside the file says, or else for the embedded model.
    """

    def __init__(self, upstream: str | None, database: Path, *flags: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "antiphon", "serve", *_flags(upstream, database), *flags],
            cwd=database,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._said: list[str] = []
        self._serving = threading.Event()
        self._listening = threading.Thread(target=self._listen, daemon=True)
        self._listening.start()
        assert self._serving.wait(SECONDS_MAX), self._said
        found = re.search(r"Antiphon serves (\S+)", "".join(self._said))
        assert found, self._said
        self.url = found[1]

    def _listen(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._said.append(line)
            if "database" in line:  # the last line of its greeting
                self._serving.set()
        self._serving.set()

    def http(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(base_url=self.url, **PLAIN)

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """As a power cut does it: nothing is said, nothing is finished."""
        self._process.kill()
        self._gone()

    def stop(self) -> None:
        """Ask it to stop."""
        self._process.send_signal(signal.SIGTERM)

    def stopped(self, *, seconds: float) -> int:
        """Its exit code, when it has stopped."""
        self._process.wait(seconds)
        return self._gone()

    def close(self) -> None:
        if self._process.poll() is None:
            self.kill()

    def _gone(self) -> int:
        code = self._process.wait(SECONDS_MAX)
        self._listening.join()
        assert self._process.stderr is not None
        self._process.stderr.close()
        return code


@script("steps")
async def _steps(stream: Stream, count: str) -> None:
    """One word, and one more each time that the test releases it."""
    await stream.chunk({"content": " 0"})
    for number in range(int(count)):
        await stream.released()
        stream.seen._released.clear()
        await stream.chunk({"content": f" {number + 1}"})
    await stream.end()


@script("call-then-hang")
async def _call_then_hang(stream: Stream) -> None:
    """One call that is whole, the beginning of a second one, and nothing more."""
    name = stream.body["tools"][0]["function"]["name"]
    for index, arguments in enumerate(('{"city":"Paris"}', '{"city":')):
        function = {"name": name, "arguments": arguments}
        call = {"index": index, "id": f"call_{index}", "type": "function", "function": function}
        await stream.chunk({"tool_calls": [call]})
    await stream.released()

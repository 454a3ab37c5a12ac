"""The model's server of the suite: it speaks Chat Completions, stops where it is told to, and knows who asks it.

Each response brings a mark in what is said to the model, which names the response and the point to stop at; so any
server can be set in front of it, whatever it makes of model names. Each node gets a URL of its own, so that it is known
which one runs a response.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

MODEL = "conformance"
STORY = " Once upon a time there was a log and nothing of it was lost"
PARIS = '{"city":"Paris"}'
ROME = '{"city":"Rome"}'
TOOL = {
    "type": "function",
    "name": "weather",
    "description": "The weather in a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}

_MARK = re.compile(r"conformance:([\w-]+):(\w+)")
_PATH = re.compile(r"(?:/node(\d+))?/v1/(.*)")
_CHUNK_SECONDS = 0.004  # so that a fault finds it in the middle
_STOP = None  # in a script: wait here until the suite says to go on

Chunk = dict[str, Any]


def mark(key: str, point: str) -> str:
    """What must be in the newest message to the model."""
    return f"conformance:{key}:{point}"


class Ask:
    """One request of a server to the model."""

    def __init__(self, key: str, point: str, node: int) -> None:
        self.key, self.point, self.node = key, point, node
        self.stopped = False  # it is where its script stops, or was
        self.over = False  # the answer is whole, or whoever asked has closed the connection
        self.go_on = asyncio.Event()


class Upstream:
    """Listens on a port of 127.0.0.1 while it is entered."""

    def __init__(self, port: int = 0) -> None:
        self.asks: list[Ask] = []
        self._port = port
        self._free: set[str] = set()
        self._news = asyncio.Condition()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Upstream:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    def url(self, node: int) -> str:
        """Where this node finds the model."""
        return f"http://127.0.0.1:{self._port}/node{node}/v1"

    def of(self, key: str) -> list[Ask]:
        return [ask for ask in self.asks if ask.key == key]

    def running(self, key: str) -> list[Ask]:
        return [ask for ask in self.of(key) if not ask.over]

    def release(self, key: str) -> None:
        """Let the newest request for this response go on, and all that are still to come.

        An older one stays where it is: another has taken its place, and who made it has to close it.
        """
        self._free.add(key)
        for ask in self.of(key)[-1:]:
            ask.go_on.set()

    async def until(self, seen: Callable[[], bool]) -> None:
        """Wait for something that asks or their ends bring about."""
        async with self._news:
            await self._news.wait_for(seen)

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            path, body = await _request(reader)
            found = _PATH.fullmatch(path)
            if found and found[2] == "chat/completions":
                await self._complete(int(found[1] or 0), body, reader, writer)
            elif found and found[2] == "models":
                model = {"id": MODEL, "object": "model", "created": 1, "owned_by": "conformance"}
                await _write(writer, 200, "application/json", {"object": "list", "data": [model]})
            else:
                await _write(writer, 404, "application/json", {"error": {"message": "Not found.", "code": None}})
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever asked is gone
        finally:
            writer.close()

    async def _complete(
        self, node: int, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        request = json.loads(body)
        marks = _MARK.findall(json.dumps(request["messages"]))
        key, point = marks[-1] if marks else ("", "")
        ask = Ask(key, point, node)
        self.asks.append(ask)
        if ask.key in self._free:
            ask.go_on.set()
        await self._tell()
        speaking = asyncio.create_task(self._speak(ask, writer, stream=bool(request.get("stream"))))
        leaving = asyncio.create_task(_left(reader))
        try:
            await asyncio.wait({speaking, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            speaking.cancel()
            leaving.cancel()
            await asyncio.gather(speaking, leaving, return_exceptions=True)
            ask.over = True
            await self._tell()

    async def _speak(self, ask: Ask, writer: asyncio.StreamWriter, *, stream: bool) -> None:
        said: list[Chunk] = []
        for chunk in _script(ask.point):
            if chunk is _STOP:
                ask.stopped = True
                await self._tell()
                await ask.go_on.wait()
                continue
            if ask.stopped:
                await asyncio.sleep(_CHUNK_SECONDS)
            if stream and not said:
                _begin(writer, 200, "text/event-stream")
            said.append(chunk)
            if stream:
                writer.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
                await writer.drain()
        if stream:
            writer.write(b"data: [DONE]\n\n")
            await writer.drain()
        else:
            await _write(writer, 200, "application/json", _joined(said))


def _script(point: str) -> list[Chunk | None]:
    """What is said to somebody who is at this point."""
    words = [_chunk({"content": word}) for word in re.findall(r"\s*\S+", STORY)]
    if point == "call":
        return [*_call(0, PARIS), *_end("tool_calls")]
    if point == "arguments":
        begun, rest = _call(0, PARIS)
        return [begun, _STOP, rest, *_end("tool_calls")]
    if point == "called":
        begun, rest = _call(1, ROME)
        return [*_call(0, PARIS), begun, _STOP, rest, *_end("tool_calls")]
    if point == "text":
        return [*words[:3], _STOP, *words[3:], *_end("stop")]
    if point == "terminal":
        return [*words, _STOP, *_end("stop")]
    return [_STOP, *words, *_end("stop")]


def _call(index: int, arguments: str) -> tuple[Chunk, Chunk]:
    """A call in two pieces; the first ends in the middle of its arguments."""
    head = {"index": index, "id": f"call_{index}", "type": "function"}
    begun = {**head, "function": {"name": TOOL["name"], "arguments": arguments[:8]}}
    rest = {"index": index, "function": {"arguments": arguments[8:]}}
    return _chunk({"tool_calls": [begun]}), _chunk({"tool_calls": [rest]})


def _chunk(delta: dict[str, Any], finish: str | None = None) -> Chunk:
    return _framed(choices=[{"index": 0, "delta": delta, "finish_reason": finish}])


def _end(finish: str) -> list[Chunk | None]:
    usage = {"prompt_tokens": 7, "completion_tokens": 14, "total_tokens": 21}
    return [_chunk({}, finish), _framed(choices=[], usage=usage)]


def _framed(**members: Any) -> Chunk:
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL, **members}


def _joined(said: list[Chunk]) -> Chunk:
    """The same as one object, for a server that asks without `stream`."""
    choices = [choice for chunk in said for choice in chunk["choices"]]
    deltas = [choice["delta"] for choice in choices]
    message: Chunk = {"role": "assistant", "content": "".join(delta.get("content", "") for delta in deltas) or None}
    calls: dict[int, Chunk] = {}
    for piece in (piece for delta in deltas for piece in delta.get("tool_calls", ())):
        known = calls.setdefault(piece["index"], {**piece, "function": {"name": TOOL["name"], "arguments": ""}})
        known["function"]["arguments"] += piece["function"]["arguments"]
    if calls:
        message["tool_calls"] = list(calls.values())
    finish = choices[-1]["finish_reason"]
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return _framed(choices=[choice], usage=said[-1]["usage"], object="chat.completion")


async def _request(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    length = re.search(r"(?im)^content-length:\s*(\d+)", head)
    body = await reader.readexactly(int(length[1])) if length else b""
    return head.split(" ", 2)[1].partition("?")[0], body


async def _left(reader: asyncio.StreamReader) -> None:
    try:
        while await reader.read(1 << 12):
            pass
    except OSError:
        pass


async def _write(writer: asyncio.StreamWriter, status: int, content_type: str, value: Any) -> None:
    _begin(writer, status, content_type)
    writer.write(json.dumps(value).encode())
    await writer.drain()


def _begin(writer: asyncio.StreamWriter, status: int, content_type: str) -> None:
    """The body ends with the connection: that is the simplest way to say so, and every client knows it."""
    writer.write(f"HTTP/1.1 {status} OK\r\ncontent-type: {content_type}\r\nconnection: close\r\n\r\n".encode())

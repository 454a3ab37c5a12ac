"""ChatServer: a Chat Completions server that follows a script, with every sin that model servers commit.

The script is named by the request's model: `text:Hello world`, `break:3`, `error:429`. A script is one function below,
registered under its name; it gets a Stream to speak through and what followed the name, cut at colons. To add one,
write another function. Run it by `with serve(ChatServer()) as url`; its base URL for clients is `url + "/v1"`.

The server remembers every request (`server.requests`), and whether its client closed the socket before the answer was
whole (`seen.wait_closed()`). The scripts `gate` and `hang` wait for the test (`seen.release()`) or for that.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from tests.servers.call_forms import CALL_FORMS, piece

SECONDS_MAX = 20.0  # no test waits longer for something that should happen at once

Script = Callable[..., Awaitable[None]]
SCRIPTS: dict[str, Script] = {}


def script(name: str) -> Callable[[Script], Script]:
    def register(function: Script) -> Script:
        SCRIPTS[name] = function
        return function

    return register


class Seen:
    """One request that the server got. Its waits may be called from any thread."""

    def __init__(self, scope: Any, body: Any) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.client: tuple[str, int] = scope["client"]
        self.headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.body = body
        self.chunks = 0  # sent so far
        self._loop = asyncio.get_running_loop()
        self._released = asyncio.Event()
        self._closed = threading.Event()  # by the client, before the answer was whole
        self._ended = threading.Event()  # the answer is whole

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    def release(self) -> None:
        """Let a script that waits for it go on."""
        self._loop.call_soon_threadsafe(self._released.set)

    def wait_closed(self) -> None:
        """Return when the client has closed the socket before the answer was whole."""
        assert self._closed.wait(SECONDS_MAX), "the client kept its socket open"

    async def closing(self) -> None:
        await asyncio.to_thread(self.wait_closed)


class ChatServer:
    def __init__(self) -> None:
        self.requests: list[Seen] = []
        self._arrived = threading.Condition()

    def wait_request(self, count: int = 1) -> Seen:
        """The request with this number, as soon as it is there."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.requests) >= count, SECONDS_MAX), "no request came"
            return self.requests[count - 1]

    async def request(self, count: int = 1) -> Seen:
        return await asyncio.to_thread(self.wait_request, count)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        body = await _body(receive)
        seen = Seen(scope, json.loads(body) if body else None)
        with self._arrived:
            self.requests.append(seen)
            self._arrived.notify_all()
        stream = Stream(seen, send)
        speaking = asyncio.create_task(_answer(seen, stream))
        watching = asyncio.create_task(_watch(seen, receive, speaking))
        await asyncio.wait([speaking])
        watching.cancel()
        if not speaking.cancelled():
            speaking.result()


class Stream:
    """What a script speaks through: chunks in the form of OpenAI, or anything else as bytes."""

    def __init__(self, seen: Seen, send: Any) -> None:
        self.seen = seen
        self.body = seen.body
        self._send = send
        self._begun = False

    async def chunk(self, delta: Any = None, *, finish: str | None = None, **fields: Any) -> None:
        """One chunk of one choice; `fields` are members of the choice."""
        choice = {"index": 0, "delta": delta or {}, "finish_reason": finish, **fields}
        await self.event({"choices": [choice]})

    async def event(self, members: dict[str, Any]) -> None:
        await self.raw(self.framed(members))

    def framed(self, members: dict[str, Any]) -> bytes:
        self.seen.chunks += 1
        whole = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "scripted", **members}
        return b"data: " + json.dumps(whole).encode() + b"\n\n"

    async def say(self, text: str) -> None:
        """A text, word by word."""
        for word in words(text):
            await self.chunk({"content": word})

    async def end(self, finish: str | None = "stop", **usage: Any) -> None:
        """The ending of a stream as it should be: finish_reason, usage, [DONE]."""
        await self.chunk(finish=finish)
        await self.event({"choices": [], "usage": self.usage(**usage)})
        await self.raw(b"data: [DONE]\n\n")
        await self.close()

    def usage(self, **members: Any) -> dict[str, Any]:
        said = self.seen.chunks
        return {"prompt_tokens": 7, "completion_tokens": said, "total_tokens": 7 + said, **members}

    async def begin(
        self, status: int = 200, content_type: str = "text/event-stream", headers: dict[str, str] | None = None
    ) -> None:
        self._begun = True
        named = {"content-type": content_type, **(headers or {})}
        raw = [(name.encode(), value.encode()) for name, value in named.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def raw(self, data: bytes) -> None:
        if not self._begun:
            await self.begin()
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def close(self) -> None:
        """End the body properly. A script that returns without it breaks the connection."""
        self.seen._ended.set()
        await self._send({"type": "http.response.body", "body": b""})

    async def whole(
        self, body: bytes, *, status: int = 200, content_type: str = "application/json", **headers: str
    ) -> None:
        """An answer that is not a stream."""
        await self.begin(status, content_type, headers)
        await self.raw(body)
        await self.close()

    async def json(self, value: Any, *, status: int = 200, **headers: str) -> None:
        await self.whole(json.dumps(value).encode(), status=status, **headers)

    async def released(self) -> None:
        await self.seen._released.wait()


def words(text: str) -> list[str]:
    return re.findall(r"\s*\S+", text)


@script("text")
async def _text(stream: Stream, *text: str) -> None:
    await stream.chunk({"role": "assistant", "content": ""})
    await stream.say(":".join(text) or "Hello there, how are you?")
    await stream.end()


@script("echo")
async def _echo(stream: Stream) -> None:
    """Says the body that it got, as JSON."""
    await stream.chunk({"content": json.dumps(stream.body)})
    await stream.end()


@script("empty")
async def _empty(stream: Stream) -> None:
    await stream.end()


@script("length")
async def _length(stream: Stream) -> None:
    await stream.say("This is cut")
    await stream.end("length")


@script("endless")
async def _endless(stream: Stream, thoughts: str = "0", field: str = "reasoning_content") -> None:
    """Thinks so many words, then says words until it may say no more."""
    most = stream.body["max_tokens"]
    for number in range(most):
        await stream.chunk({field if number < int(thoughts) else "content": " on"})
    await stream.end("length")


@script("filter")
async def _filter(stream: Stream) -> None:
    await stream.say("This is not")
    await stream.end("content_filter")


@script("refusal")
async def _refusal(stream: Stream) -> None:
    for word in words("I will not say that."):
        await stream.chunk({"refusal": word})
    await stream.end()


@script("reasoning")
async def _reasoning(stream: Stream, field: str = "reasoning_content") -> None:
    for word in words("Two and two."):
        await stream.chunk({field: word})
    await stream.say("It is four.")
    await stream.end(completion_tokens_details={"reasoning_tokens": 3}, prompt_tokens_details={"cached_tokens": 5})


@script("logprobs")
async def _logprobs(stream: Stream) -> None:
    for word in ("Yes", "!"):
        top = [{"token": word, "logprob": -0.1, "bytes": list(word.encode())}]
        entry = {"token": word, "logprob": -0.1, "bytes": list(word.encode()), "top_logprobs": top}
        await stream.chunk({"content": word}, logprobs={"content": [entry], "refusal": None})
    await stream.end()


@script("no-usage")
async def _no_usage(stream: Stream) -> None:
    await stream.say("Free of charge")
    await stream.chunk(finish="stop")
    await stream.raw(b"data: [DONE]\n\n")
    await stream.close()


@script("no-done")
async def _no_done(stream: Stream) -> None:
    """Ends the body behind the finish_reason."""
    await stream.say("That was it")
    await stream.chunk(finish="stop")
    await stream.close()


@script("no-finish")
async def _no_finish(stream: Stream) -> None:
    """Says [DONE] and never why."""
    await stream.say("That was it")
    await stream.raw(b"data: [DONE]\n\n")
    await stream.close()


@script("lingering")
async def _lingering(stream: Stream) -> None:
    """Keeps the body open behind [DONE]."""
    await stream.say("That was it")
    await stream.chunk(finish="stop")
    await stream.raw(b"data: [DONE]\n\n")
    await stream.released()


@script("plain")
async def _plain(stream: Stream) -> None:
    """One JSON object, although a stream was asked for."""
    message = {"role": "assistant", "content": "All at once"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    await stream.json({"object": "chat.completion", "choices": [choice], "usage": stream.usage()})


@script("tools")
async def _tools(stream: Stream, form: str = "pieces") -> None:
    """Calls the first function offered twice, in Paris and in Rome, in one of the forms that servers have; with the
    results, says them."""
    results = [message["content"] for message in stream.body["messages"] if message["role"] == "tool"]
    if results:
        await stream.say("The results: " + ", ".join(results))
        await stream.end()
        return
    name = stream.body["tools"][0]["function"]["name"]
    for part in CALL_FORMS[form](name):
        await stream.chunk({"tool_calls": [part]})
    await stream.end("stop" if form == "whole" else "tool_calls")


@script("calls")
async def _calls(stream: Stream, size: str = "7", finish: str = "tool_calls") -> None:
    """Makes the calls that the last message has as JSON, [[name, arguments], ...], in pieces of so many characters."""
    for index, (name, arguments) in enumerate(json.loads(stream.body["messages"][-1]["content"])):
        await stream.chunk({"tool_calls": [piece("", index=index, id=f"call_{index}", name=name)]})
        for at in range(0, len(arguments), int(size)):
            await stream.chunk({"tool_calls": [piece(arguments[at : at + int(size)], index=index)]})
    await stream.end(finish)


@script("call-once")
async def _call_once(stream: Stream, name: str, *arguments: str) -> None:
    """Calls that function, with what follows its name as arguments; with the result, says it."""
    results = [message["content"] for message in stream.body["messages"] if message["role"] == "tool"]
    if results:
        await stream.say(f"The result: {results[-1]}")
        await stream.end()
        return
    await stream.chunk({"tool_calls": [piece(":".join(arguments) or "{}", index=0, id="call_once", name=name)]})
    await stream.end("tool_calls")


@script("nameless")
async def _nameless(stream: Stream) -> None:
    await stream.chunk({"tool_calls": [piece('{"city":"Paris"}', index=0, id="call_a")]})
    await stream.end("tool_calls")


@script("break")
async def _break(stream: Stream, count: str = "3") -> None:
    """The connection breaks after so many words."""
    await stream.raw(b"")
    for number in range(int(count)):
        await stream.chunk({"content": f" {number}"})


@script("eof")
async def _eof(stream: Stream, count: str = "3") -> None:
    """The body ends properly after so many words, with no finish_reason and no [DONE]."""
    await _break(stream, count)
    await stream.close()


@script("half-character")
async def _half_character(stream: Stream) -> None:
    """A chunk that was cut inside of a character."""
    await stream.chunk({"content": "So"})
    await stream.raw(stream.framed({"choices": [{"delta": {"content": "?"}}]}).replace(b"?", b"\xe2\x98"))


@script("malformed")
async def _malformed(stream: Stream, data: str = '{"choices": [{') -> None:
    await stream.say("So far")
    await stream.raw(b"data: " + data.encode() + b"\n\n")
    await stream.end()


@script("oversized")
async def _oversized(stream: Stream, count: str = "9000000") -> None:
    """One line without an end."""
    await stream.say("So far")
    await stream.raw(b"data: ")
    for _ in range(int(count) // 50_000):
        await stream.raw(b"x" * 50_000)
    await stream.released()


@script("stream-error")
async def _stream_error(stream: Stream, code: str = "server_error") -> None:
    await stream.say("So far")
    error = {"message": "The engine has died.", "type": "server_error", "param": None, "code": code}
    await stream.raw(b"data: " + json.dumps({"error": error}).encode() + b"\n\n")
    await stream.close()


@script("error")
async def _error(stream: Stream, status: str, form: str = "openai") -> None:
    number = int(status)
    forms: dict[str, Any] = {
        "openai": {"error": {"message": "It said no.", "type": "upstream_type", "param": None, "code": "some_code"}},
        "llama.cpp": {"error": {"message": "It said no.", "type": "exceed_context_size_error", "code": number}},
        "vllm": {"object": "error", "message": "It said no.", "type": "BadRequestError", "param": None, "code": number},
        "ollama": {"error": "It said no."},
        "fastapi": {"detail": "It said no."},
        "not-found": {"detail": "Not Found"},
        "key": {"error": {"message": f"Wrong: {stream.seen.headers.get('authorization')}", "type": "t", "code": None}},
    }
    if form == "html":
        await stream.whole(b"<h1>It said no.</h1>", status=number, content_type="text/html")
    elif form == "empty":
        await stream.whole(b"", status=number, content_type="text/plain")
    else:
        await stream.json(forms[form], status=number)


@script("short")
async def _short(stream: Stream, most: str) -> None:
    """Takes no more than so many messages; says those that it took, as JSON."""
    messages = stream.body["messages"]
    if len(messages) > int(most):
        error = {"message": "The prompt is too long.", "type": "invalid_request_error", "param": "messages"}
        await stream.json({"error": {**error, "code": "context_length_exceeded"}}, status=400)
    else:
        await stream.say(json.dumps([message["content"] for message in messages]))
        await stream.end()


@script("narrow")
async def _narrow(stream: Stream, room: str) -> None:
    """Has room for no more than so many words, and refuses who asks for more, as vLLM does."""
    if stream.body.get("max_tokens", 0) > int(room):
        message = f"This model's maximum context length is {room} tokens. Please reduce the length of the completion."
        await stream.json({"error": {"message": message, "type": "BadRequestError", "code": 400}}, status=400)
    else:
        await stream.say("In short")
        await stream.end()


@script("busy")
async def _busy(stream: Stream, seconds: str) -> None:
    """Too many requests: come again after so many seconds."""
    error = {"message": "Too busy.", "type": "requests", "param": None, "code": "rate_limit_exceeded"}
    await stream.json({"error": error}, status=429, **{"retry-after": seconds})


@script("html")
async def _html(stream: Stream) -> None:
    await stream.whole(b"<h1>Welcome</h1>", content_type="text/html")


@script("hang")
async def _hang(stream: Stream, count: str = "2") -> None:
    """Says so many words and nothing more."""
    await _break(stream, count)
    await stream.released()


@script("silent")
async def _silent(stream: Stream) -> None:
    """Does not even send the head of an answer."""
    await stream.released()


@script("gate")
async def _gate(stream: Stream, before: str = "2", after: str = "2") -> None:
    """Says so many words, waits for the test, says the rest."""
    await _break(stream, before)
    await stream.released()
    await stream.say(" and" * int(after))
    await stream.end()


@script("paced")
async def _paced(stream: Stream, count: str = "50", pause: str = "20ms") -> None:
    for number in range(int(count)):
        await stream.chunk({"content": f" {number}"})
        await asyncio.sleep(float(pause.removesuffix("ms")) / 1000)
    await stream.end()


@script("burst")
async def _burst(stream: Stream, count: str = "256") -> None:
    """So many words in one write."""
    await stream.raw(b"".join(stream.framed({"choices": [_word(number)]}) for number in range(int(count))))
    await stream.end()


def _word(number: int) -> dict[str, Any]:
    return {"index": 0, "delta": {"content": f" {number}"}, "finish_reason": None}


@script("drip")
async def _drip(stream: Stream, *text: str) -> None:
    """A whole stream byte by byte, with the line ends of another age."""
    chunks = [
        stream.framed({"choices": [{"delta": {"content": word}}]}) for word in words(":".join(text) or "Ünder way")
    ]
    chunks.append(stream.framed({"choices": [{"delta": {}, "finish_reason": "stop"}]}))
    for byte in b": hello\r\n\r\n" + b"".join(chunks).replace(b"\n", b"\r\n") + b"data: [DONE]\r\n\r\n":
        await stream.raw(bytes([byte]))
    await stream.close()


async def _answer(seen: Seen, stream: Stream) -> None:
    if seen.path.endswith("/models"):
        names = sorted(SCRIPTS, key=lambda name: (name != "text", name))  # the first is what no name asks for
        models = [{"id": name, "object": "model", "created": 1, "owned_by": "tests"} for name in names]
        await stream.json({"object": "list", "data": models})
        return
    name, *arguments = seen.body["model"].split(":")
    if name in SCRIPTS:
        await SCRIPTS[name](stream, *arguments)
    else:
        error = {"message": f"The model '{name}' does not exist.", "type": "invalid_request_error", "param": None}
        await stream.json({"error": {**error, "code": "model_not_found"}}, status=404)


async def _watch(seen: Seen, receive: Any, speaking: asyncio.Task[None]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    if not seen._ended.is_set():
        seen._closed.set()
        speaking.cancel()


async def _body(receive: Any) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def _lifespan(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return

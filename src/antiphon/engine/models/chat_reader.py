"""ChatReader: the bytes of a Chat Completions stream, as the pieces of a turn. No I/O.

Servers differ: reasoning has two field names, calls come whole or in pieces, with an index, an id, both or neither, and
some answer with one JSON object although a stream was asked for. All of that ends here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from antiphon.engine.model import Call, Delta, Finish, FinishReason, Reasoning, Refusal, Text, Usage
from antiphon.engine.models.failures import failure_in
from antiphon.errors import ModelError, ProtocolError
from antiphon.protocol.sse import Decoder


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None  # a few servers send the object itself


class _ToolCall(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Said(msgspec.Struct, gc=False):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_ToolCall] | None = None
    function_call: _Function | None = None


class _TopLogprob(msgspec.Struct, gc=False):
    token: str
    logprob: float


class _Logprob(msgspec.Struct, gc=False):
    token: str
    logprob: float
    top_logprobs: list[_TopLogprob] | None = None


class _Logprobs(msgspec.Struct, gc=False):
    content: list[_Logprob] | None = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Said | None = None
    message: _Said | None = None  # in place of delta, where the answer is one object
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Details(msgspec.Struct, gc=False):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    timings: Any = None  # what llama.cpp tells with each chunk, if it is asked to
    error: Any = None
    object: str = ""  # "error" where the chunk itself is the error


_decode = msgspec.json.Decoder(_Chunk).decode

_FINISH: dict[str, FinishReason] = {
    "length": "length",
    "max_tokens": "length",
    "content_filter": "content_filter",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
}


class ChatReader:
    """Takes what the server sends, in pieces of any size.

    What makes no sense is a `failure`, and nothing is taken after it; what came before it was said, and is given.

    event_bytes_max: no event may be longer; secrets: left out of the server's error messages.
    """

    def __init__(self, *, event_bytes_max: int = 8 << 20, secrets: Sequence[str] = ()) -> None:
        self.done = False  # [DONE] was read: nothing can follow
        self.failure: ModelError | None = None
        self._decoder = Decoder(limit_bytes=event_bytes_max)
        self._secrets = secrets
        self._finished = False
        self._calls = _Calls()

    def feed(self, data: bytes) -> list[Delta]:
        """The pieces that `data` completes."""
        deltas: list[Delta] = []
        try:
            for message in self._decoder.feed(data):
                self._take(message.data, deltas)
        except ProtocolError as error:
            self.failure = ModelError(f"The model's server sent too much at once. {error.message}")
        except ModelError as failure:
            self.failure = failure
        return deltas

    def close(self) -> list[Delta]:
        """The last pieces, when the server has sent everything. Raises ModelError if they do not make an end."""
        deltas: list[Delta] = []
        for message in self._decoder.close():
            if not self.done:
                self._take(message.data, deltas)
        if not (self._finished or self.done):
            raise ModelError("The model's server broke off in the middle of its answer.")
        self._calls.check()
        if not self._finished:
            deltas.append(Finish("tool_calls" if self._calls.any else "stop"))
        return deltas

    def whole(self, body: bytes) -> list[Delta]:
        """The pieces of an answer that came as one JSON object. Raises ModelError if they do not make an answer."""
        deltas: list[Delta] = []
        self._take(body, deltas)
        return deltas + self.close()

    def _take(self, data: bytes, deltas: list[Delta]) -> None:
        if data == b"[DONE]":
            self.done = True
        if self.done or not data:
            return
        try:
            chunk = _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ModelError(f"The model's server sent a malformed chunk: {error}.") from error
        if chunk.error or chunk.object == "error":
            raise failure_in(chunk.error or msgspec.json.decode(data), secrets=self._secrets)
        for choice in chunk.choices or ():
            self._choose(choice, deltas)
        if chunk.usage is not None:
            deltas.append(_usage(chunk.usage))
        elif isinstance(chunk.timings, dict):
            cached, read, said = (chunk.timings.get(name) for name in ("cache_n", "prompt_n", "predicted_n"))
            if isinstance(cached, int) and isinstance(read, int) and isinstance(said, int):
                deltas.append(Usage(cached + read, said, cached))

    def _choose(self, choice: _Choice, deltas: list[Delta]) -> None:
        said = choice.delta or choice.message
        if said is not None and not self._finished:
            reasoning = said.reasoning_content or said.reasoning  # both at once say the same
            if reasoning:
                deltas.append(Reasoning(reasoning))
            if said.refusal:
                deltas.append(Refusal(said.refusal))
            if said.content:
                deltas.append(Text(said.content, _logprobs(choice.logprobs)))
            if said.tool_calls:
                deltas.extend(self._calls.take(said.tool_calls))
            elif said.function_call is not None:
                deltas.extend(self._calls.take([_ToolCall(index=0, function=said.function_call)]))
        if choice.finish_reason and not self._finished:
            self._finished = True
            self._calls.check()
            reason = _FINISH.get(choice.finish_reason, "stop")
            deltas.append(Finish("tool_calls" if reason == "stop" and self._calls.any else reason))


class _Calls:
    """Tells parallel calls apart, and holds back pieces of a call until its name is known."""

    def __init__(self) -> None:
        self.any = False
        self._indexes: dict[int | str, int] = {}  # by the server's index, and by the id
        self._ids: list[str] = []  # by our index
        self._named: list[bool] = []
        self._early: dict[int, str] = {}  # arguments that came before the name

    def take(self, pieces: list[_ToolCall]) -> list[Call]:
        self.any = True
        calls = []
        for piece in pieces:
            function = piece.function or _Function()
            index = self._index(piece, function.name or "")
            arguments = function.arguments or ""
            if isinstance(arguments, dict):
                arguments = msgspec.json.encode(arguments).decode()
            if self._named[index]:
                calls.append(Call(index, arguments))  # some servers repeat name and id in every piece
            elif function.name:
                self._named[index] = True
                calls.append(Call(index, self._early.pop(index, "") + arguments, function.name, self._ids[index]))
            else:
                self._early[index] = self._early.get(index, "") + arguments
        return calls

    def check(self) -> None:
        if not all(self._named):
            raise ModelError("The model's server sent a function call without a name.")

    def _index(self, piece: _ToolCall, name: str) -> int:
        """Our index of the call that a piece belongs to."""
        if piece.index is not None:
            known = self._indexes.get(piece.index)
            # A server that gives every parallel call the index 0 shows it by another id, with a name.
            another = known is not None and name and piece.id and self._ids[known] not in ("", piece.id)
            return self._new(piece, piece.index) if known is None or another else self._identify(known, piece)
        if piece.id:
            known = self._indexes.get(piece.id)
            return self._new(piece, piece.id) if known is None else known
        if name or not self._ids:
            return self._new(piece, "")
        return len(self._ids) - 1

    def _new(self, piece: _ToolCall, key: int | str) -> int:
        index = len(self._ids)
        self._indexes[key] = index
        self._ids.append(piece.id or "")
        self._named.append(False)
        return index

    def _identify(self, index: int, piece: _ToolCall) -> int:
        self._ids[index] = self._ids[index] or piece.id or ""
        return index


def _logprobs(logprobs: _Logprobs | None) -> list[dict[str, Any]] | None:
    if logprobs is None or not logprobs.content:
        return None
    return [
        {
            "token": entry.token,
            "logprob": entry.logprob,
            "top_logprobs": [{"token": top.token, "logprob": top.logprob} for top in entry.top_logprobs or ()],
        }
        for entry in logprobs.content
    ]


def _usage(usage: _Usage) -> Usage:
    cached = usage.prompt_tokens_details and usage.prompt_tokens_details.cached_tokens
    reasoning = usage.completion_tokens_details and usage.completion_tokens_details.reasoning_tokens
    return Usage(usage.prompt_tokens or 0, usage.completion_tokens or 0, cached or 0, reasoning or 0)

"""ResponsesServer: a Responses server that follows a script, with the ways that such servers have of their own.

The script is named by the request's model, as in chat.py: `text:Hello world`, `tools`, `error:429`. A script is one
function below; it gets a Reply to speak through and what followed the name, cut at colons. Its events have ids and
numbers of their own, and all that the API sends besides: keepalives, obfuscation, items of tools that it runs itself.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from tests.servers.chat import Seen, Stream, _body, _lifespan, words

Json = dict[str, Any]
Script = Callable[..., Awaitable[None]]
SCRIPTS: dict[str, Script] = {}


def script(name: str) -> Callable[[Script], Script]:
    def register(function: Script) -> Script:
        SCRIPTS[name] = function
        return function

    return register


class ResponsesServer:
    """counts: what /responses/input_tokens answers; None for a server without it."""

    def __init__(self, *, counts: int | None = None) -> None:
        self.requests: list[Seen] = []
        self.counts = counts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        body = await _body(receive)
        seen = Seen(scope, json.loads(body) if body else None)
        self.requests.append(seen)
        reply = Reply(seen, send)
        speaking = asyncio.create_task(self._answer(seen, reply))
        watching = asyncio.create_task(_watch(seen, receive, speaking))
        await asyncio.wait([speaking])
        watching.cancel()
        if not speaking.cancelled():
            speaking.result()

    async def _answer(self, seen: Seen, reply: Reply) -> None:
        if seen.path.endswith("/models"):
            models = [{"id": name, "object": "model", "created": 1, "owned_by": "tests"} for name in sorted(SCRIPTS)]
            await reply.json({"object": "list", "data": models})
        elif seen.path.endswith("/responses/input_tokens") and self.counts is not None:
            await reply.json({"object": "response.input_tokens", "input_tokens": self.counts})
        elif seen.path.endswith("/responses"):
            await self._respond(seen.body, reply)
        else:
            await reply.json({"detail": "Not Found"}, status=404)

    async def _respond(self, body: Json, reply: Reply) -> None:
        if "input" not in body:
            await reply.fail(400, "Missing required parameter: 'input'.", code="missing_required_parameter")
            return
        name, *arguments = body["model"].split(":")
        if name in SCRIPTS:
            await SCRIPTS[name](reply, *arguments)
        else:
            await reply.fail(400, f"The requested model '{name}' does not exist.", code="model_not_found")


class Reply(Stream):
    """What a script speaks through: events in the form of the API, or anything else as bytes."""

    def __init__(self, seen: Seen, send: Any) -> None:
        super().__init__(seen, send)
        self.output: list[Json] = []
        self._number = 0

    async def say_event(self, type: str, **fields: Any) -> None:
        event = {"type": type, "sequence_number": self._number, **fields}
        self._number += 1
        self.seen.chunks += 1
        await self.raw(f"event: {type}\ndata: {json.dumps(event)}\n\n".encode())

    async def lifecycle(self, type: str, **changes: Any) -> None:
        response = {"id": "resp_theirs", "object": "response", "status": type.rpartition(".")[2], **changes}
        await self.say_event(type, response={"output": self.output, "usage": None, **response})

    async def open(self) -> None:
        await self.lifecycle("response.created", status="in_progress")
        await self.lifecycle("response.in_progress")
        await self.say_event("keepalive")

    async def add(self, item: Json) -> Json:
        """Say that an item begins; gives its place, for the events below it."""
        place = {"item_id": item["id"], "output_index": len(self.output)}
        await self.say_event("response.output_item.added", output_index=len(self.output), item=item)
        return place

    async def finish(self, item: Json) -> None:
        await self.say_event("response.output_item.done", output_index=len(self.output), item=item)
        self.output.append(item)

    async def message(self, text: str, *, id: str = "msg_theirs", annotations: Any = ()) -> None:
        item: Json = {"id": id, "type": "message", "role": "assistant", "status": "in_progress", "content": []}
        place = {**await self.add(item), "content_index": 0}
        part = {"type": "output_text", "annotations": [], "logprobs": [], "text": ""}
        await self.say_event("response.content_part.added", **place, part=part)
        for word in words(text):
            await self.say_event("response.output_text.delta", **place, delta=word, logprobs=[], obfuscation="xyz")
        for index, annotation in enumerate(annotations):
            await self.say_event(
                "response.output_text.annotation.added", **place, annotation_index=index, annotation=annotation
            )
        part = {**part, "text": text, "annotations": list(annotations)}
        await self.say_event("response.output_text.done", **place, text=text, logprobs=[])
        await self.say_event("response.content_part.done", **place, part=part)
        await self.finish({**item, "status": "completed", "content": [part]})

    async def call(self, name: str, arguments: str, *, call_id: str, id: str) -> None:
        item = {"id": id, "type": "function_call", "status": "in_progress", "arguments": "", "call_id": call_id}
        place = await self.add({**item, "name": name})
        for half in (arguments[:5], arguments[5:]):
            await self.say_event("response.function_call_arguments.delta", **place, delta=half, obfuscation="x")
        await self.say_event("response.function_call_arguments.done", **place, arguments=arguments)  # without the name
        await self.finish({**item, "name": name, "status": "completed", "arguments": arguments})

    async def complete(self, type: str = "response.completed", **changes: Any) -> None:
        usage = {
            "input_tokens": 7,
            "input_tokens_details": {"cached_tokens": 5},
            "output_tokens": 9,
            "output_tokens_details": {"reasoning_tokens": 3},
            "total_tokens": 16,
        }
        await self.lifecycle(type, **{"usage": usage, **changes})
        await self.close()

    async def fail(self, status: int, message: str, *, code: str | None = None, **more: Any) -> None:
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": code, **more}
        await self.json({"error": error}, status=status)


@script("text")
async def _text(reply: Reply, *text: str) -> None:
    await reply.open()
    await reply.message(":".join(text) or "Hello there, how are you?")
    await reply.complete()


@script("echo")
async def _echo(reply: Reply) -> None:
    """Says the body that it got, as JSON."""
    await reply.open()
    await reply.message(json.dumps(reply.body))
    await reply.complete()


@script("tools")
async def _tools(reply: Reply) -> None:
    results = [item["output"] for item in reply.body["input"] if item["type"] == "function_call_output"]
    await reply.open()
    if results:
        await reply.message("The results: " + ", ".join(results))
    else:
        name = reply.body["tools"][0]["name"]
        await reply.call(name, '{"city":"Paris"}', call_id="call_a", id="fc_theirs_a")
        await reply.call(name, '{"city":"Rome"}', call_id="call_b", id="fc_theirs_b")
    await reply.complete()


@script("reasoning")
async def _reasoning(reply: Reply) -> None:
    """Reasons in a summary, with the whole of it encrypted where that was asked for."""
    await reply.open()
    item: Json = {"id": "rs_theirs", "type": "reasoning", "summary": []}
    if "reasoning.encrypted_content" in reply.body.get("include", ()):
        item["encrypted_content"] = "gAAAAA"
    place = {**await reply.add(item), "summary_index": 0}
    part = {"type": "summary_text", "text": ""}
    await reply.say_event("response.reasoning_summary_part.added", **place, part=part)
    await reply.say_event("response.reasoning_summary_text.delta", **place, delta="Two and two.", obfuscation="x")
    await reply.say_event("response.reasoning_summary_text.done", **place, text="Two and two.")
    part = {**part, "text": "Two and two."}
    await reply.say_event("response.reasoning_summary_part.done", **place, part=part)
    await reply.finish({**item, "summary": [part]})
    await reply.message("It is four.")
    await reply.complete()


@script("raw-reasoning")
async def _raw_reasoning(reply: Reply) -> None:
    """In the words of Open Responses, and with its [DONE]."""
    await reply.open()
    item: Json = {"id": "rs_theirs", "type": "reasoning", "summary": [], "content": []}
    place = {**await reply.add(item), "content_index": 0}
    part = {"type": "reasoning_text", "text": ""}
    await reply.say_event("response.content_part.added", **place, part=part)
    await reply.say_event("response.reasoning.delta", **place, delta="Two and two.")
    await reply.say_event("response.reasoning.done", **place, text="Two and two.")
    part = {**part, "text": "Two and two."}
    await reply.say_event("response.content_part.done", **place, part=part)
    await reply.finish({**item, "content": [part], "status": None})
    await reply.message("It is four.")
    await reply.lifecycle("response.completed")
    await reply.raw(b"data: [DONE]\n\n")
    await reply.close()


@script("search")
async def _search(reply: Reply) -> None:
    """Runs a tool of its own, and cites what it found."""
    await reply.open()
    item = {"id": "ws_theirs", "type": "web_search_call", "status": "in_progress"}
    place = await reply.add({**item, "action": {"type": "search", "query": "weather"}})
    for state in ("in_progress", "searching", "completed"):
        await reply.say_event(f"response.web_search_call.{state}", **place)
    await reply.say_event("response.web_search_call.thinking_aloud", **place)  # of a later version of the API
    action = {"type": "search", "query": "weather", "queries": ["weather"]}
    await reply.finish({**item, "status": "completed", "action": action})
    cited = {"type": "url_citation", "start_index": 0, "end_index": 5, "url": "https://example.org", "title": "W"}
    await reply.message("Sunny in Rome.", annotations=[cited])
    await reply.complete()


@script("future")
async def _future(reply: Reply) -> None:
    """An item of a type that nobody knows yet."""
    await reply.open()
    item = {"id": "new_1", "type": "telepathy_call", "status": "completed"}
    place = await reply.add(item)
    await reply.say_event("response.telepathy_call.listening", **place)
    await reply.finish(item)
    await reply.message("I knew that you would ask.")
    await reply.complete()


@script("sparse")
async def _sparse(reply: Reply) -> None:
    """Only deltas and the end: no parts, no ends of texts, one index for all, null where there is nothing."""
    await reply.open()
    for word in words("Not much is said."):
        await reply.say_event(
            "response.output_text.delta", item_id="msg_1", output_index=0, content_index=0, delta=word
        )
    part: Json = {"type": "output_text", "text": "Not much is said.", "annotations": [], "logprobs": None}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    await reply.say_event("response.output_item.done", output_index=0, item={**message, "phase": None})
    call = {"id": "fc_1", "type": "function_call", "call_id": "call_a", "name": "f", "arguments": "{}", "status": None}
    await reply.say_event("response.output_item.done", output_index=0, item={**call, "namespace": None})
    await reply.complete(output=[message, call])


@script("end-only")
async def _end_only(reply: Reply) -> None:
    """Says everything in its last event."""
    part = {"type": "output_text", "text": "All at once.", "annotations": []}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    await reply.complete(output=[message])


@script("plain")
async def _plain(reply: Reply) -> None:
    """One JSON object, although a stream was asked for."""
    part = {"type": "output_text", "text": "All at once.", "annotations": []}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    usage = {"input_tokens": 7, "output_tokens": 3}
    await reply.json({"id": "resp_1", "status": "completed", "output": [message], "usage": usage})


@script("nonsense")
async def _nonsense(reply: Reply) -> None:
    """Events that do not fit together, around an answer that does."""
    await reply.open()
    await reply.say_event("response.output_text.annotation.added", output_index=7)
    await reply.say_event("response.function_call_arguments.delta", item_id="fc_1", output_index=9, delta="{")
    await reply.say_event("response.output_item.added", output_index=0)
    await reply.message("Still here.")
    await reply.say_event(
        "response.output_text.delta", item_id="msg_theirs", output_index=0, content_index=0, delta="!"
    )
    await reply.complete()


@script("length")
async def _length(reply: Reply) -> None:
    await reply.open()
    item: Json = {"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
    place = {**await reply.add(item), "content_index": 0}
    await reply.say_event("response.output_text.delta", **place, delta="This is cut")
    await reply.complete("response.incomplete", incomplete_details={"reason": "max_output_tokens"})


@script("failed")
async def _failed(reply: Reply, code: str = "server_error") -> None:
    await reply.open()
    await reply.message("So far")
    await reply.complete("response.failed", error={"code": code, "message": "The engine has died."})


@script("stream-error")
async def _stream_error(reply: Reply, form: str = "nested", code: str = "rate_limit_exceeded") -> None:
    await reply.open()
    error = {"code": code, "message": "Too fast.", "param": None}
    await reply.say_event("error", **({"error": {"type": "tokens", **error}} if form == "nested" else error))
    await reply.close()


@script("eof")
async def _eof(reply: Reply) -> None:
    """The stream ends properly, and the response does not."""
    await reply.open()
    await reply.message("So far")
    await reply.close()


@script("malformed")
async def _malformed(reply: Reply) -> None:
    await reply.open()
    await reply.raw(b'data: {"type": "response.outp\n\n')
    await reply.close()


@script("hang")
async def _hang(reply: Reply) -> None:
    await reply.open()
    await reply.add({"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress", "content": []})
    await reply.released()


@script("unencrypted")
async def _unencrypted(reply: Reply) -> None:
    """A model that does not reason."""
    if "reasoning.encrypted_content" in reply.body.get("include", ()):
        await reply.fail(400, "Encrypted content is not supported with this model.", param="include")
    else:
        await _text(reply, "Plainly")


@script("foreign-reasoning")
async def _foreign_reasoning(reply: Reply) -> None:
    """Cannot open what another server has sealed."""
    if any(item.get("encrypted_content") for item in reply.body["input"]):
        await reply.fail(400, "The content could not be verified.", code="invalid_encrypted_content")
    else:
        await _text(reply, "Forgotten")


@script("error")
async def _error(reply: Reply, status: str, code: str = "some_code") -> None:
    await reply.fail(int(status), "It said no.", code=code)


def _done(item: Any, **place: Any) -> list[tuple[str, Json]]:
    return [("response.output_item.done", {"output_index": 1, "item": item, **place})]


def _said(item: Json, type: str, **fields: Any) -> list[tuple[str, Json]]:
    """An item that begins well, an event below it, and its end as it began."""
    begun: list[tuple[str, Json]] = [("response.output_item.added", {"output_index": 1, "item": item})]
    place = {"item_id": item["id"], "output_index": 1}
    return [*begun, (f"response.{type}", {**place, **fields}), *_done({**item, "status": "completed"})]


_MESSAGE: Json = {"id": "msg_2", "type": "message", "role": "assistant", "status": "completed", "content": []}
_TEXT: Json = {"type": "output_text", "text": "Hi", "annotations": [], "logprobs": []}
_CALL = {"id": "fc_1", "type": "function_call", "call_id": "c_1", "name": "f", "arguments": "{}"}
_WEB = {"id": "ws_1", "type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "q"}}
_CODE = {"id": "ci_1", "type": "code_interpreter_call", "status": "completed", "container_id": "c"}
_SHELL_LIMITS = {"timeout_ms": 1, "max_output_length": 1}
_IN_PART = {"content_index": 0}
_NOTED = {**_IN_PART, "annotation_index": 0}

# What a server says behind a message that is right, for `lie:<name>`: items that are not what their type says ...
FALSE_ITEMS: dict[str, list[tuple[str, Json]]] = {
    "no item": _done(None),
    "a list": _done([_WEB]),
    "no type": _done({"id": "x"}),
    "a type of no text": _done({**_WEB, "type": ["web_search_call"]}),
    "status of a number": _done({**_WEB, "status": 7}),
    "status that nobody knows": _done({**_WEB, "status": "thinking"}),
    "action of a text": _done({**_WEB, "action": "search"}),
    "action of an unknown kind": _done({**_WEB, "action": {"type": 7}}),
    "a call without a name": _done({**_CALL, "name": None}),
    "a name of a number": _done({**_CALL, "name": 7}),
    "no container": _done({name: value for name, value in _CODE.items() if name != "container_id"}),
    "outputs of a text": _done({**_CODE, "code": "1", "outputs": "1"}),
    "outputs of numbers": _done({**_CODE, "code": "1", "outputs": [1]}),
    "results of numbers": _done({"id": "fs_1", "type": "file_search_call", "status": "completed", "queries": [1]}),
    "an image of a number": _done({"id": "ig_1", "type": "image_generation_call", "status": "completed", "result": 1}),
    "no tools": _done({"id": "mcpl_1", "type": "mcp_list_tools", "server_label": "s", "tools": "none"}),
    "content of a text": _done({**_MESSAGE, "content": "Hi"}),
    "content of numbers": _done({**_MESSAGE, "content": [1]}),
    "a text of a number": _done({**_MESSAGE, "content": [{**_TEXT, "text": 1}]}),
    "annotations of numbers": _done({**_MESSAGE, "content": [{**_TEXT, "annotations": [1]}]}),
    "an unplaced note": _done({**_MESSAGE, "content": [{**_TEXT, "annotations": [{"type": "file_path"}]}]}),
    "logprobs of texts": _done({**_MESSAGE, "content": [{**_TEXT, "logprobs": ["a"]}]}),
    "a summary of numbers": _done({"id": "rs_1", "type": "reasoning", "summary": [1]}),
    "commands of numbers": _done(
        {"id": "sh_1", "type": "shell_call", "call_id": "c", "action": {"commands": [1], **_SHELL_LIMITS}}
    ),
    "an id of a list": _done({**_WEB, "id": ["ws_1"], "status": 7}),
}  # fmt: skip

# ... and what can be left out or put right, the answer being whole without it.
ODD_EVENTS: dict[str, list[tuple[str, Json]]] = {
    "a huge index": _done(_WEB, output_index=10**30),
    "an index of a text": _done(_WEB, output_index="1"),
    "an index of a float": _done(_WEB, output_index=1.5),
    "the id of another": _done({**_WEB, "id": "msg_theirs"}),
    "an unknown type": _done({"id": "new", "type": "telepathy_call", "status": 7}),
    "a status of another item": _said(_WEB, "image_generation_call.generating"),
    "arguments in a search": _said(_WEB, "function_call_arguments.delta", delta="{"),
    "an output in a search": _said(_WEB, "shell_call_output_content.done", output=[], command_index=0),
    "an annotation of a number": _said(_MESSAGE, "output_text.annotation.added", **_NOTED, annotation=1),
    "an annotation of nothing": _said(_MESSAGE, "output_text.annotation.added", **_NOTED, annotation={}),
    "a picture of a number": _said(_WEB, "image_generation_call.partial_image", partial_image_index="a"),
    "a delta of a number": _said(_MESSAGE, "output_text.delta", **_IN_PART, delta=1),
    "logprobs of numbers": _said(_MESSAGE, "output_text.delta", **_IN_PART, delta="Hi", logprobs=[1]),
    "logprobs of a text": _said(
        _MESSAGE, "output_text.delta", **_IN_PART, delta="Hi", logprobs=[{"token": "Hi", "logprob": "-1"}]
    ),
    "bytes of a text": _said(
        _MESSAGE, "output_text.delta", **_IN_PART, delta="Hi", logprobs=[{"token": "Hi", "logprob": -1, "bytes": "Hi"}]
    ),
    "a part of a list": _said(_MESSAGE, "content_part.added", **_IN_PART, part=[1]),
    "a part at a huge place": _said(_MESSAGE, "content_part.added", content_index=10**30, part=_TEXT),
    "a sound of a number": [("response.audio.delta", {"delta": 1})],
    "an event of no item": [("response.web_search_call.searching", {"output_index": 9, "item_id": 7})],
    "an item that begins wrong": [
        ("response.output_item.added", {"output_index": 1, "item": {**_WEB, "status": 7}}),
        ("response.web_search_call.searching", {"output_index": 1, "item_id": "ws_1"}),
        *_done(_WEB),
    ],
}  # fmt: skip


@script("lie")
async def _lie(reply: Reply, name: str) -> None:
    await reply.open()
    await reply.message("So far")
    for type, fields in {**FALSE_ITEMS, **ODD_EVENTS}[name]:
        await reply.say_event(type, **fields)
    await reply.complete()


async def _watch(seen: Seen, receive: Any, speaking: asyncio.Task[None]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    if not seen._ended.is_set():
        seen._closed.set()
        speaking.cancel()

"""Random logs, each of them legal, for the tests that must hold for every log; random JSON; what is right, spoiled."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from antiphon.protocol.transcript import Transcript

SKELETON: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "status": "in_progress",
    "output": [],
    "usage": None,
    "metadata": {},
}

Json = Any

scalars: st.SearchStrategy[Json] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**53, 2**64, -(2**64), 10**40]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(["in_progress", "completed", "function", "message", "\0", "\u2028", "x" * 3000]),
)
values = st.recursive(
    scalars,
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=6), each, max_size=3),
    max_leaves=6,
)


@st.composite
def spoiled(draw: Callable[[Any], Any], whole: Json) -> Json:
    """A value with up to three places in it changed, left out or doubled."""
    value = json.loads(json.dumps(whole))
    for _ in range(draw(st.integers(0, 3))):
        holder: Json = value
        while True:
            keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(holder[key], dict | list) and draw(st.booleans()):
                holder = holder[key]
                continue
            how = draw(st.sampled_from(["change", "remove", "double"]))
            if how == "change":
                holder[key] = draw(values)
            elif how == "remove":
                del holder[key]
            elif isinstance(holder, list):
                holder.append(holder[key])
            break
    return value


texts = st.lists(st.text(max_size=6), max_size=4)


class Author:
    """Writes random items into a transcript and keeps the events."""

    def __init__(self, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
        self.draw = draw
        self.transcript = Transcript(SKELETON)
        self.events: list[dict[str, Any]] = []

    def say(self, type: str, **fields: Any) -> None:
        self.events.append(self.transcript.write(type, **fields))

    def item(self, item: dict[str, Any], body: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """An item from its added to its done event. body: says what is between, gives what the done item has anew."""
        index = self.transcript.next_output_index
        item = {"id": f"item_{index}", "status": "in_progress", **item}
        self.say("response.output_item.added", output_index=index, item=item)
        changed = body({"item_id": item["id"], "output_index": index})
        status = self.draw(st.sampled_from(["completed", "incomplete"]))
        self.say("response.output_item.done", output_index=index, item={**item, **changed, "status": status})

    def text(self, type: str, place: dict[str, Any], field: str, **more: Any) -> str:
        """Deltas and the done event of one text."""
        pieces = self.draw(texts)
        for piece in pieces:
            self.say(f"{type}.delta", **place, delta=piece, **more)
        self.say(f"{type}.done", **place, **{field: "".join(pieces)}, **more)
        return "".join(pieces)

    def message(self) -> None:
        def body(place: dict[str, Any]) -> dict[str, Any]:
            content = []
            for index in range(self.draw(st.integers(0, 2))):
                here = {**place, "content_index": index}
                kind, field = self.draw(st.sampled_from([("output_text", "text"), ("refusal", "refusal")]))
                part: dict[str, Any] = {"type": kind, field: ""}
                more: dict[str, Any] = {}
                if kind == "output_text":
                    part |= {"annotations": [], "logprobs": []}
                    more = {"logprobs": []}
                self.say("response.content_part.added", **here, part=part)
                part = {**part, field: self.text(f"response.{kind}", here, field, **more)}
                self.say("response.content_part.done", **here, part=part)
                content.append(part)
            return {"content": content}

        self.item({"type": "message", "role": "assistant", "content": []}, body)

    def reasoning(self) -> None:
        def body(place: dict[str, Any]) -> dict[str, Any]:
            summary = []
            for index in range(self.draw(st.integers(0, 2))):
                here = {**place, "summary_index": index}
                self.say("response.reasoning_summary_part.added", **here, part={"type": "summary_text", "text": ""})
                part = {"type": "summary_text", "text": self.text("response.reasoning_summary_text", here, "text")}
                self.say("response.reasoning_summary_part.done", **here, part=part)
                summary.append(part)
            return {"summary": summary}

        self.item({"type": "reasoning", "summary": []}, body)

    def function_call(self) -> None:
        def body(place: dict[str, Any]) -> dict[str, Any]:
            pieces = self.draw(texts)
            for piece in pieces:
                self.say("response.function_call_arguments.delta", **place, delta=piece)
            arguments = "".join(pieces)
            self.say("response.function_call_arguments.done", **place, name="f", arguments=arguments)
            return {"arguments": arguments}

        self.item({"type": "function_call", "name": "f", "call_id": "call_1", "arguments": ""}, body)

    def web_search(self) -> None:
        def body(place: dict[str, Any]) -> dict[str, Any]:
            for status in ("in_progress", "searching", "completed"):
                self.say(f"response.web_search_call.{status}", **place)
            return {"action": {"type": "search", "query": "q"}}

        self.item({"type": "web_search_call"}, body)

    def end(self) -> None:
        type = self.draw(st.sampled_from(["response.completed", "response.incomplete", "response.failed"]))
        if type == "response.failed":
            self.say("error", code="server_error", message="m", param=None)
        self.say(type, usage={"total_tokens": 1})


@st.composite
def logs(draw: Callable[[st.SearchStrategy[Any]], Any]) -> list[dict[str, Any]]:
    """The events of a whole log, from response.created to a terminal event."""
    author = Author(draw)
    if draw(st.booleans()):
        author.say("response.created", status="queued")
        author.say("response.queued")
    else:
        author.say("response.created")
    author.say("response.in_progress")
    for kind in draw(st.lists(st.sampled_from(["message", "reasoning", "function_call", "web_search"]), max_size=4)):
        getattr(author, kind)()
    author.end()
    return author.events

"""The input of a create as context items: each complete, with an id, in the form in which it is stored and listed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from antiphon.errors import BadRequest
from antiphon.protocol.ids import PREFIXES

Item = dict[str, Any]


def input_items(input: str | list[Item], *, new_id: Callable[[str], str]) -> list[Item]:
    """The items of an `input`; a string is one message of the user. new_id: makes an id with the prefix given."""
    if isinstance(input, str):
        input = [{"role": "user", "content": input}]
    return [_complete(item, new_id) for item in input]


def _complete(item: Item, new_id: Callable[[str], str]) -> Item:
    type = item.get("type") or "message"
    complete = {"id": item.get("id") or new_id(PREFIXES[type]), "type": type, **_given(item)}
    if type == "message":
        complete["content"] = _parts(item["role"], item["content"])
    if type != "reasoning":
        complete["status"] = item.get("status") or "completed"
    return complete


def _given(item: Item) -> Item:
    return {name: value for name, value in item.items() if name not in ("id", "type", "status") and value is not None}


def _parts(role: str, content: str | list[Item]) -> list[Item]:
    if isinstance(content, str):
        content = [{"type": "output_text" if role == "assistant" else "input_text", "text": content}]
    return [_part(part) for part in content]


def _part(part: Item) -> Item:
    if part["type"] == "output_text":
        return {"annotations": [], "logprobs": [], **part}
    if part["type"] == "input_image":
        return {"detail": "auto", **{name: value for name, value in part.items() if value is not None}}
    return part


def without_known(items: Iterable[Item], before: Iterable[Item]) -> list[Item]:
    """The items without those that the model has seen already: some clients send the history along all the same."""
    known = {item["id"]: item for item in before}
    return [item for item in items if known.get(item["id"]) != item]


def check_calls(before: Sequence[Item], items: Sequence[Item]) -> None:
    """Raise BadRequest if a call that waits has no output, or a new output no call.

    before: what the model has seen and said already; items: the new input. Earlier halves of calls are what a deletion
    has left: nobody can mend them. Source: the API asks for each call's output before the next turn.
    """
    calls = {item["call_id"] for item in before if item["type"] == "function_call"}
    waiting = {item["call_id"] for item in _said_last(before) if _waits(item)}
    for item in items:
        if item["type"] == "function_call":
            calls.add(item["call_id"])
            if _waits(item):
                waiting.add(item["call_id"])
        elif item["type"] == "function_call_output":
            if item["call_id"] not in calls:
                raise BadRequest(
                    f"No tool call found for function call output with call_id {item['call_id']}.", param="input"
                )
            waiting.discard(item["call_id"])
    for call_id in sorted(waiting):
        raise BadRequest(f"No tool output found for function call {call_id}.", param="input")


def _said_last(before: Sequence[Item]) -> Iterator[Item]:
    """What the model said last: the items behind the last one that it cannot have said."""
    for item in reversed(before):
        if item["type"] == "function_call_output" or item.get("role", "assistant") != "assistant":
            return
        yield item


def _waits(item: Item) -> bool:
    """Whether it is a call that must be answered; one that was cut off need not be."""
    return item["type"] == "function_call" and item.get("status") != "incomplete"

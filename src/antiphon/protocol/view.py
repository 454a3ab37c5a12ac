"""What a given caller sees of a log: fields that only an `include` unlocks, and the padding of deltas.

A frame is encoded once, when its event is born, with everything in it that anybody may see, the padding too. Its mask
says what it holds that some callers may not see: frames that hide nothing from a caller pass as bytes.
The padding is a slice of a fixed table, chosen by the sequence number: every replay is byte for byte the same.
Source: the API's `include` values, and the length rule of its `obfuscation` field: delta and padding together are a
multiple of 16 characters, with the least padding.
"""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from antiphon.protocol.sse import encode, encode_alike

Item = dict[str, Any]


def _hide_logprobs(item: Item) -> Item:
    return {**item, "content": [{**part, "logprobs": []} if part.get("logprobs") else part for part in item["content"]]}


def _without(field: str) -> Callable[[Item], Item]:
    return lambda item: {name: value for name, value in item.items() if name != field}


def _nulled(field: str) -> Callable[[Item], Item]:
    return lambda item: {**item, field: None}


def _hide_sources(item: Item) -> Item:
    return {**item, "action": _without("sources")(item["action"])}


def _hide_screenshot(item: Item) -> Item:
    return {**item, "output": _without("image_url")(item["output"])}


def _hide_images(item: Item) -> Item:
    content = [
        _without("image_url")(part) if isinstance(part, dict) and part.get("type") == "input_image" else part
        for part in item["content"]
    ]
    return {**item, "content": content}


def _parts(item: Item) -> list[Item]:
    content = item.get("content")
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


# include value -> (item type, whether such an item holds it, the item without it); the order gives the bits
_RULES: dict[str, tuple[str, Callable[[Item], bool], Callable[[Item], Item]]] = {
    "message.output_text.logprobs": (
        "message",
        lambda item: any(part.get("logprobs") for part in _parts(item)),
        _hide_logprobs,
    ),
    "reasoning.encrypted_content": (
        "reasoning",
        lambda item: "encrypted_content" in item,
        _without("encrypted_content"),
    ),
    "file_search_call.results": (
        "file_search_call",
        lambda item: item.get("results") is not None,
        _nulled("results"),
    ),
    "web_search_call.results": ("web_search_call", lambda item: "results" in item, _without("results")),
    "web_search_call.action.sources": (
        "web_search_call",
        lambda item: "sources" in (item.get("action") or ()),
        _hide_sources,
    ),
    "code_interpreter_call.outputs": (
        "code_interpreter_call",
        lambda item: item.get("outputs") is not None,
        _nulled("outputs"),
    ),
    "computer_call_output.output.image_url": (
        "computer_call_output",
        lambda item: "image_url" in (item.get("output") or ()),
        _hide_screenshot,
    ),
    "message.input_image.image_url": (
        "message",
        lambda item: any(part.get("type") == "input_image" and "image_url" in part for part in _parts(item)),
        _hide_images,
    ),
}

INCLUDES = tuple(_RULES)
"""Every value of `include`."""

_BITS = {value: 1 << place for place, value in enumerate(_RULES)}
_LOGPROBS = _BITS["message.output_text.logprobs"]


def allowed(include: Iterable[str]) -> int:
    """The bits of what these `include` values unlock."""
    bits = 0
    for value in include:
        bits |= _BITS.get(value, 0)
    return bits


def mask(event: Mapping[str, Any]) -> int:
    """The bits of what an event holds that some callers may not see."""
    if "delta" in event:
        return _LOGPROBS if event.get("logprobs") else 0
    if "item" in event:
        return _item_mask(event["item"])
    if event.get("logprobs"):
        return _LOGPROBS
    if "part" in event:
        return _LOGPROBS if event["part"].get("logprobs") else 0
    bits = 0
    for item in event["response"]["output"] if "response" in event else ():
        bits |= _item_mask(item)
    return bits


def frames(events: Sequence[dict[str, Any]]) -> bytes:
    """The frames of events as the log keeps them: everything in them and, in deltas of text, the padding.

    The events get the padding, too: copying each of them would be the dearest part of this.
    """
    type = events[0]["type"]
    alike = True
    for event in events:
        delta = event.get("delta")
        if isinstance(delta, str):
            event["obfuscation"] = PADDINGS[-len(delta) & 15][event["sequence_number"] & 63]
        alike = alike and event["type"] == type
    return encode_alike(type, events) if alike else b"".join(map(encode, events))


def show_item(item: Item, see: int) -> Item:
    """The item as a caller with these bits sees it."""
    for value, (type, holds, hide) in _RULES.items():
        if item.get("type", "message") == type and not _BITS[value] & see and holds(item):
            item = hide(item)
    return item


def show_response(response: dict[str, Any], see: int) -> dict[str, Any]:
    """The Response as a caller with these bits sees it."""
    return {**response, "output": [show_item(item, see) for item in response["output"]]}


def show_event(event: dict[str, Any], see: int) -> dict[str, Any]:
    """The event as a caller with these bits sees it; the order of its keys stays."""
    if "item" in event:
        return {**event, "item": show_item(event["item"], see)}
    if "response" in event:
        return {**event, "response": show_response(event["response"], see)}
    if not _LOGPROBS & see:
        if event.get("logprobs"):
            return {**event, "logprobs": []}
        if "part" in event and event["part"].get("logprobs"):
            return {**event, "part": {**event["part"], "logprobs": []}}
    return event


def show_frames(kept: bytes, *, mask: int, see: int, padded: bool) -> bytes:
    """Frames of the log as a caller sees them; `mask`: the union of their masks, `see`: the caller's bits."""
    if mask & ~see:
        kept = b"".join(_show_frame(frame, see) for frame in kept.split(b"\n\n")[:-1])
    return kept if padded else _PADDING.sub(b"", kept)


def drop_frames(kept: bytes, count: int) -> bytes:
    """Frames without the first `count`."""
    return kept.split(b"\n\n", count)[count] if count > 0 else kept


def _show_frame(frame: bytes, see: int) -> bytes:
    event = msgspec.json.decode(frame[frame.index(b"\ndata: ") + 7 :])
    return encode(show_event(event, see)) if mask(event) & ~see else frame + b"\n\n"


def _item_mask(item: Item) -> int:
    bits = 0
    type = item.get("type", "message")
    for value, (of_type, holds, _) in _RULES.items():
        if type == of_type and holds(item):
            bits |= _BITS[value]
    return bits


# Only at the very end of a frame: what a user wrote into an object of his own never stands there.
_PADDING = re.compile(rb',"obfuscation":"[A-Za-z0-9]*"(?=\}\n\n)')


def _padding_table() -> list[list[str]]:
    """For each length from 0 to 15, 64 paddings of that length."""
    letters = string.ascii_letters + string.digits
    text = "".join(letters[byte % 62] for byte in hashlib.shake_128(b"antiphon").digest(64 * 16))
    return [[text[16 * row : 16 * row + length] for row in range(64)] for length in range(16)]


PADDINGS = _padding_table()
"""By length and, modulo 64, by sequence number. Never to be changed: logs are kept without what it tells."""

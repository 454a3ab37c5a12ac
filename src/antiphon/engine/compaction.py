"""Compaction: a context replaced by the model's own summary of it, and the context as a model is shown it afterwards.

The summary travels sealed, as the `encrypted_content` of a compaction item: callers send it back, and cannot change it.
Source: the API's compaction items; everything before the latest one need not be shown any more.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from antiphon.engine.model import Carried, Delta, Finish, FinishReason, Model, Reasoning, Usage, text_of
from antiphon.errors import BrokenSeal, ModelError
from antiphon.protocol.context import without_unpaired_calls
from antiphon.protocol.transcript import Transcript

logger = logging.getLogger(__name__)

Item = Mapping[str, Any]
Event = dict[str, Any]


class Seals(Protocol):
    """Makes what only its tenant can send back."""

    def seal(self, kind: str, content: bytes) -> str:
        """The content as a text that callers get."""

    def open(self, kind: str, sealed: str) -> bytes:
        """The content of such a text. Raises BrokenSeal."""


_INSTRUCTIONS = (
    "You write the memory of an assistant. Summarize the conversation above for the assistant that will carry it on "
    "and will see nothing of it but your summary. Keep every fact, name, number, decision, promise and open question, "
    "what the user wants, what was done and found out with tools, and what is to be done next. Write plainly, without "
    "a greeting, and do not answer the user."
)
_REQUEST = "Summarize our conversation up to here, as you were told."
_SHOWN_AS = "A summary of the conversation before this point, written by the assistant:\n\n"
_PASSED_ON = ("model", "reasoning", "service_tier", "prompt_cache_key", "safety_identifier", "user")

# A small model may repeat itself without end. A summary longer than what it stands for is worth nothing, but of a few
# words one may well be; and the longest context is told in some pages, or it was not summarized.
_TOKENS_MIN, _TOKENS_MAX = 256, 4096
_CHARACTERS_PER_TOKEN = 4
_THINKING_TOKENS = 8192  # besides, once a model has shown that it thinks before it writes: it is counted as output

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Summary:
    text: str
    usage: Usage | None


@dataclass(frozen=True)
class _Said:
    text: str
    finish: FinishReason
    usage: Usage | None
    thought: bool


async def summarize(model: Model, request: Mapping[str, Any], context: Sequence[Item]) -> Summary:
    """The model's summary of a context, cut where it has no end. Raises ModelError, too if there is nothing of it."""
    asking = {name: request[name] for name in _PASSED_ON if request.get(name) is not None}
    instructions = [_INSTRUCTIONS, request.get("instructions")]
    asking["instructions"] = "\n\n".join(text for text in instructions if isinstance(text, str) and text)
    question = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": _REQUEST}]}
    asked = [*context, question]
    most = _tokens_max(context)
    said = await _said(model, asking, asked, most)
    usage = said.usage
    if said.finish == "length" and (said.thought or not said.text):
        said = await _said(model, asking, asked, most + _THINKING_TOKENS)
        usage = _sum(usage, said.usage)
    if not said.text:
        reason = " within the tokens it had for it" if said.finish == "length" else ""
        raise ModelError(f"The model did not give a summary of the conversation{reason}.")
    return Summary(said.text, usage)


def _tokens_max(context: Sequence[Item]) -> int:
    worth = sum(len(_encode(item)) for item in context) // _CHARACTERS_PER_TOKEN
    return min(max(worth, _TOKENS_MIN), _TOKENS_MAX)


async def _said(model: Model, asking: Mapping[str, Any], context: Sequence[Item], tokens_max: int) -> _Said:
    """What the model says with so many tokens; with as many as there are, if its context has no room for these."""
    try:
        return await _heard(model.turn({**asking, "max_output_tokens": tokens_max}, context))
    except ModelError as failure:
        if failure.code != "context_length_exceeded":
            raise
        return await _heard(model.turn(asking, context))


async def _heard(turn: AsyncGenerator[list[Delta]]) -> _Said:
    pieces: list[str] = []
    whole: list[str] = []  # of a server that says its messages at their end alone
    usage = finish = None
    thought = False
    async with aclosing(turn) as said:
        async for deltas in said:
            for delta in deltas:
                pieces.append(text_of(delta))
                if isinstance(delta, Carried):
                    whole.append(_text_of_item(delta.event))
                    thought = thought or delta.event["type"].startswith("response.reasoning")
                elif isinstance(delta, Reasoning):
                    thought = True
                elif isinstance(delta, Usage):
                    usage = delta
                elif isinstance(delta, Finish):
                    finish = delta
    if finish is None:
        raise ModelError("The model did not give a summary of the conversation.")
    text = "".join(pieces).strip() or "".join(whole).strip()
    return _Said(text, finish.reason, usage, thought or (usage is not None and usage.reasoning_tokens > 0))


def _text_of_item(event: Mapping[str, Any]) -> str:
    """The text of a message that ends with this event; nothing for any other."""
    item = event.get("item")
    if event["type"] != "response.output_item.done" or not isinstance(item, Mapping) or item.get("type") != "message":
        return ""
    return "".join(str(part.get("text") or "") for part in item.get("content") or ())


def say_compaction(transcript: Transcript, summary: Summary, *, id: str, seals: Seals) -> list[Event]:
    """The events of a compaction item."""
    index = transcript.next_output_index
    item = {"id": id, "type": "compaction", "encrypted_content": seals.seal("compaction", summary.text.encode())}
    return [
        transcript.write("response.output_item.added", output_index=index, item=item),
        transcript.write("response.output_item.done", output_index=index, item=item),
    ]


def is_due(request: Mapping[str, Any], usage: Usage | None) -> bool:
    """Whether the context, this answer in it, has outgrown what the request wants it to be."""
    thresholds = [
        each["compact_threshold"]
        for each in request.get("context_management") or ()
        if each["type"] == "compaction" and each.get("compact_threshold")
    ]
    return usage is not None and any(usage.input_tokens + usage.output_tokens >= each for each in thresholds)


async def compact(
    transcript: Transcript,
    request: Mapping[str, Any],
    context: Sequence[Item],
    model: Model,
    usage: Usage | None,
    *,
    new_id: Callable[[str], str],
    seals: Seals,
) -> tuple[list[Event], Usage | None]:
    """The events of a summary of everything so far, and the usage with it.

    An answer is worth more than its summary: if that fails, the next turn is the one to try it again.
    """
    try:
        summary = await summarize(model, request, without_unpaired_calls([*context, *transcript.output]))
    except ModelError as failure:
        logger.warning("a context could not be compacted", extra={"error": failure.message})
        return [], usage
    return say_compaction(transcript, summary, id=new_id("cmp"), seals=seals), _sum(usage, summary.usage)


def _sum(one: Usage | None, other: Usage | None) -> Usage | None:
    if one is None or other is None:
        return one or other
    return Usage(
        one.input_tokens + other.input_tokens,
        one.output_tokens + other.output_tokens,
        one.cached_tokens + other.cached_tokens,
        one.reasoning_tokens + other.reasoning_tokens,
    )


def seal_reasoning(item: Item, seals: Seals) -> str:
    """The `encrypted_content` of a reasoning item: all that the model needs to be shown it again."""
    content = {name: item[name] for name in ("summary", "content", "encrypted_content") if item.get(name)}
    return seals.seal("reasoning", msgspec.json.encode(content))


def shown(items: Iterable[Item], seals: Seals) -> list[Item]:
    """The context as the model is shown it: from the latest summary on, and with what was sealed in the open.

    Messages of the system and the developer stay, wherever they stand. Raises ModelError for a summary that cannot be
    opened any more; reasoning that cannot is shown as far as it can be read.
    """
    result: list[Item] = []
    for item in items:
        if item["type"] == "compaction":
            result = [each for each in result if each.get("role") in ("system", "developer")]
            result.append(_summary_message(item, seals))
        elif item["type"] == "reasoning" and item.get("encrypted_content"):
            result.append(_opened_reasoning(item, seals))
        else:
            result.append(item)
    return result


def _summary_message(item: Item, seals: Seals) -> Item:
    try:
        text = seals.open("compaction", item["encrypted_content"]).decode()
    except BrokenSeal as broken:
        raise ModelError(
            f"The summary '{item['id']}' of this conversation cannot be opened any more.",
            status=400,
            type="invalid_request_error",
            code="invalid_encrypted_content",
            param="input",
        ) from broken
    content = [{"type": "input_text", "text": _SHOWN_AS + text}]
    return {"id": item["id"], "type": "message", "role": "user", "content": content, "status": "completed"}


def _opened_reasoning(item: Item, seals: Seals) -> Item:
    opened = {name: value for name, value in item.items() if name != "encrypted_content"}
    try:
        return {**opened, **msgspec.json.decode(seals.open("reasoning", item["encrypted_content"]))}
    except BrokenSeal:
        return opened

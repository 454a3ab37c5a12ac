"""How a log ends before its time: what is open gets its done events, then exactly one terminal event is said.

Whoever holds the claim may end a log: the worker whose model failed, the caller who cancels, the worker that finds too
many attempts behind it. Each function writes into the Transcript and gives the events that it wrote, to be appended.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from antiphon.errors import IllegalEvent
from antiphon.protocol.transcript import Note, Transcript

Event = dict[str, Any]

ERROR_CODES = frozenset(
    {
        "server_error", "rate_limit_exceeded", "invalid_prompt", "data_residency_mismatch", "bio_policy",
        "vector_store_timeout", "invalid_image", "invalid_image_format", "invalid_base64_image", "invalid_image_url",
        "image_too_large", "image_too_small", "image_parse_error", "image_content_policy_violation",
        "invalid_image_mode", "image_file_too_large", "unsupported_image_media_type", "empty_image_file",
        "failed_to_download_image", "image_file_not_found",
    }
)  # fmt: skip
"""The codes that `Response.error` may have. Source: ResponseErrorCode of the document."""

# a text part's type -> the event that ends its text, and the field that holds it
_TEXTS = {
    "output_text": ("response.output_text.done", "text"),
    "refusal": ("response.refusal.done", "refusal"),
    "reasoning_text": ("response.reasoning_text.done", "text"),
}

# an item's type -> the event that ends its text, and the field that holds it
_FIELDS = {
    "function_call": ("response.function_call_arguments.done", "arguments"),
    "custom_tool_call": ("response.custom_tool_call_input.done", "input"),
    "mcp_call": ("response.mcp_call_arguments.done", "arguments"),
    "code_interpreter_call": ("response.code_interpreter_call_code.done", "code"),
}

# What a Response must have, where nobody knows what it was.
_LOST: Event = {
    "object": "response", "error": None, "incomplete_details": None, "instructions": None, "metadata": {},
    "parallel_tool_calls": True, "temperature": 1.0, "top_p": 1.0, "tool_choice": "auto", "tools": [],
}  # fmt: skip

# These item types have no status "incomplete".
_CUT_STATUS = {"web_search_call": "failed", "image_generation_call": "failed", "apply_patch_call": "in_progress"}


def close_item(transcript: Transcript, output_index: int, *, completed: bool, **fields: Any) -> list[Event]:
    """Say all the done events that an open item still lacks. fields: those that only the done item has."""
    item = transcript.item(output_index)
    where = {"item_id": item["id"], "output_index": output_index}
    events: list[Event] = []
    for index, part in enumerate(item.get("summary") or ()):
        if transcript.is_open(output_index, index, list="summary"):
            place = {**where, "summary_index": index}
            _say(events, transcript, "response.reasoning_summary_text.done", **place, text=part["text"])
            events.append(transcript.write("response.reasoning_summary_part.done", **place, part=part))
    for index, part in enumerate(item.get("content") or ()):
        if transcript.is_open(output_index, index):
            place = {**where, "content_index": index}
            events += close_part(transcript, place, part)
    if item["type"] in _FIELDS:
        type, field = _FIELDS[item["type"]]
        extra = {"name": item["name"]} if item["type"] == "function_call" else {}
        if item.get(field) is not None:  # code may be null until there is some
            _say(events, transcript, type, **where, **extra, **{field: item[field]})
    if item["type"] == "apply_patch_call" and "diff" in item["operation"]:
        type, diff = "response.apply_patch_call_operation_diff.done", item["operation"]["diff"]
        _say(events, transcript, type, **where, diff=diff)
    if item["type"] == "shell_call":
        for index, command in enumerate(item["action"]["commands"]):
            if transcript.is_open(output_index, index, list="commands"):
                place = {"output_index": output_index, "command_index": index}
                events.append(transcript.write("response.shell_call_command.done", **place, command=command))
    item.update(fields)
    _end_status(item, completed=completed)
    events.append(transcript.write("response.output_item.done", output_index=output_index, item=item))
    return events


def close_part(transcript: Transcript, place: Mapping[str, Any], part: dict[str, Any]) -> list[Event]:
    """End a content part. place: its item_id, output_index and content_index; part: all that it says."""
    events: list[Event] = []
    type, field = _TEXTS[part["type"]]
    logprobs = {"logprobs": _event_logprobs(part)} if part["type"] == "output_text" else {}
    _say(events, transcript, type, **place, **{field: part[field]}, **logprobs)
    events.append(transcript.write("response.content_part.done", **place, part=part))
    return events


def close_open_items(transcript: Transcript) -> list[Event]:
    """End every open item as incomplete."""
    return [event for index in transcript.open_items for event in close_item(transcript, index, completed=False)]


def close_cancelled(transcript: Transcript, *, usage: Mapping[str, Any] | None = None) -> list[Event]:
    """End the log because its caller does not want the rest; what was said so far is kept.

    The API has no event for it: the last one is `response.incomplete`, whose snapshot has the status `cancelled`. Its
    usage is what the model's server has told so far, or null: a guess would be taken for a bill.
    """
    events = close_open_items(transcript)
    events.append(transcript.write("response.incomplete", status="cancelled", usage=usage or transcript.usage))
    return events


def close_failed(
    transcript: Transcript,
    *,
    message: str,
    code: str | None = "server_error",
    type: str = "server_error",
    param: str | None = None,
    usage: Mapping[str, Any] | None = None,
) -> list[Event]:
    """End the log because it cannot go on; what was said so far is kept.

    Says `error` with the fault both nested and flat, since clients look for it in either place, then `response.failed`.
    """
    events = close_open_items(transcript)
    flat = {"code": code or type, "message": message, "param": param}
    events.append(transcript.write("error", **flat, error={"type": type, **flat}))
    error = {"code": code if code in ERROR_CODES else "server_error", "message": message}
    events.append(transcript.write("response.failed", error=error, usage=usage or transcript.usage))
    return events


def close_incomplete(transcript: Transcript, *, reason: str) -> list[Event]:
    """End the log because there must not be more of it; what was said so far is kept."""
    events = close_open_items(transcript)
    events.append(
        transcript.write("response.incomplete", incomplete_details={"reason": reason}, usage=transcript.usage)
    )
    return events


def heed(transcript: Transcript, notes: Iterable[Note]) -> None:
    """Take over what the notes of earlier workers say, and their public events cannot: what is superseded, what it has
    cost so far.

    The terminal event can, so a closed log needs no notes.
    """
    for note in () if transcript.closed else notes:
        if note.kind == "superseded":
            for index in note.fields["output_indexes"]:
                transcript.supersede(index)
        elif note.kind == "usage":
            transcript.usage = dict(note.fields)
        elif note.kind == "turn":  # that was begun anew: what the last one cost is not the caller's affair
            transcript.usage = None


def note_usage(transcript: Transcript, usage: Mapping[str, Any]) -> Note:
    """What the turn has cost so far, as `usage` of a Response, for whoever ends the log in the middle of it."""
    transcript.usage = dict(usage)
    return transcript.note("usage", **usage)


def salvage(known: Mapping[str, Any], events: Sequence[Event], notes: Iterable[Note], *, last: int) -> Transcript:
    """What can be read of a damaged log, to be ended behind its last event.

    known: what the Response is besides, if its first event is lost; events: those that can be read, in order; last: the
    number of the log's last event. The output is the finished items among them.
    """
    created = (event["response"] for event in events if event.get("type") == "response.created")
    response = next(created, {**_LOST, **known})
    superseded = {index for note in notes if note.kind == "superseded" for index in note.fields["output_indexes"]}
    transcript = Transcript()
    transcript.read({"type": "response.created", "response": {**response, "output": []}, "sequence_number": 0})
    for event in events:
        if event.get("type") == "response.output_item.done" and event["output_index"] not in superseded:
            place = {"output_index": transcript.next_output_index, "item": event["item"]}
            for type in ("response.output_item.added", "response.output_item.done"):
                transcript.read({"type": type, **place, "sequence_number": transcript.sequence_number + 1})
    transcript.sequence_number = last
    return transcript


def _say(events: list[Event], transcript: Transcript, type: str, **fields: Any) -> None:
    with suppress(IllegalEvent):  # a worker may have died between the end of a text and the end of its part
        events.append(transcript.write(type, **fields))


def _end_status(item: dict[str, Any], *, completed: bool) -> None:
    """Reasoning that ended well carries no status, as on the API's own wire."""
    if not completed:
        item["status"] = _CUT_STATUS.get(item["type"], "incomplete")
    elif item["type"] != "reasoning":
        item["status"] = "completed"


def _event_logprobs(part: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A part's logprobs as events have them, without the tokens' bytes."""
    return [
        {
            "token": entry["token"],
            "logprob": entry["logprob"],
            "top_logprobs": [
                {"token": top["token"], "logprob": top["logprob"]} for top in entry.get("top_logprobs") or ()
            ],
        }
        for entry in part.get("logprobs") or ()
    ]

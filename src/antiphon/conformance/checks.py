"""What must hold of a response, whatever has happened to the server: from its log and what its clients saw, no I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from antiphon.conformance.upstream import PARIS, ROME, STORY
from antiphon.errors import ProtocolError
from antiphon.protocol.transcript import TERMINAL, Transcript

# A response may end with the calls that were whole: that is better than to make one of them again.
_CALLS = {"arguments": ([PARIS],), "called": ([PARIS], [PARIS, ROME])}

Json = dict[str, Any]


def of_log(log: Sequence[bytes]) -> Iterator[str]:
    """What is wrong with a log, by itself. log: the data of its events, from the beginning to the end."""
    events: list[Json] = [msgspec.json.decode(data) for data in log]
    numbers = [event.get("sequence_number") for event in events]
    if numbers != list(range(len(events))):
        yield f"the log's numbers are {numbers}"
    ends = [event["type"] for event in events if event["type"] in TERMINAL]
    if len(ends) != 1:
        yield f"the log has {len(ends)} terminal events: {ends}"
    elif events[-1]["type"] not in TERMINAL:
        yield f"{events[-1]['type']} comes after {ends[0]}"
    transcript = Transcript()
    try:
        for event in events:
            transcript.read(event)
    except ProtocolError as error:
        yield f"the log cannot be folded: {error!r}"
    yield from _of_items(events)


def _of_items(events: Sequence[Json]) -> Iterator[str]:
    """An item of the end is one that was said; one that was said may be left out, if a later one says it anew."""
    said = {event["item"]["id"]: event["item"] for event in events if event["type"] == "response.output_item.done"}
    if events and events[-1]["type"] in TERMINAL:
        for item in events[-1]["response"]["output"]:
            if said.get(item["id"]) != item:
                yield f"the end has item {item['id']} otherwise than it was said: {item}"
    calls = Counter(
        (item.get("name"), item.get("arguments"))
        for item in said.values()
        if item["type"] == "function_call" and item["status"] == "completed"
    )
    for (name, arguments), count in calls.items():
        if count > 1:
            yield f"{name}({arguments}) was called {count} times"


def of_client(seen: Sequence[bytes], log: Sequence[bytes]) -> Iterator[str]:
    """What a client saw that is not in the log."""
    for number, data in enumerate(seen):
        kept = log[number] if number < len(log) else None
        if kept != data:
            yield f"a client saw as event {number} {data!r}, and kept is {kept!r}"
            return


def of_answer(answer: Json, log: Sequence[bytes]) -> Iterator[str]:
    """How the response, as GET or its create gives it, differs from the end of its log."""
    end = msgspec.json.decode(log[-1]).get("response", {}) if log else {}
    different = sorted(name for name in answer.keys() | end.keys() if answer.get(name) != end.get(name))
    if different:
        yield f"the response and the end of its log differ in {', '.join(different)}"


def of_ending(answer: Json, point: str) -> Iterator[str]:
    """What is missing of what the model has said: a fault may cost time, and nothing else."""
    if answer.get("status") != "completed":
        yield f"the response is {answer.get('status')}: {answer.get('error') or answer.get('incomplete_details')}"
        return
    output = answer["output"]
    if point in _CALLS:
        calls = [item["arguments"] for item in output if item["type"] == "function_call"]
        if calls not in _CALLS[point]:
            yield f"the calls are {calls}"
        return
    parts = [part for item in output if item["type"] == "message" for part in item["content"]]
    text = "".join(part["text"] for part in parts)
    if text.strip() != STORY.strip():
        yield f"the text is {text!r}"

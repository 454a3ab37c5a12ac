"""Carrier: the events of a server that speaks the Responses API itself, said again as ours.

Every item gets an id and a place of our own, every event a number of our own, since the log is ours: the turn before
or after may be another server's. What a server leaves out of the order that the API keeps (a part that was never added,
a text without its end) is said for it; what makes no sense is left out and logged.

Nothing is said that is not as the API description has it: items of a type that it lacks are left out; fields that it
lacks go through. A finished item that is not what its type has to be is a `failure`: it is a part of the answer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from antiphon.engine.described import check, readable_logprobs
from antiphon.errors import IllegalEvent, ModelError
from antiphon.protocol.context import CLIENT_CALLS
from antiphon.protocol.endings import close_item, close_part
from antiphon.protocol.fold import CHANGES_NOTHING, FOLD
from antiphon.protocol.ids import PREFIXES
from antiphon.protocol.transcript import Transcript

log = logging.getLogger(__name__)

Event = dict[str, Any]

# As Open Responses has it. Source: its specification of 2026-04-24.
_RENAMED = {
    "response.reasoning.delta": "response.reasoning_text.delta",
    "response.reasoning.done": "response.reasoning_text.done",
}
_NOT_SENT_ON = frozenset({"type", "sequence_number", "obfuscation", "item_id", "output_index"})


class _Parts(NamedTuple):
    """A list of parts in an item: its name, the name of an index in it, the events of a part, its types and places."""

    list: str
    number: str
    event: str
    holders: Mapping[str, str]  # the type of the item, by the part's


_CONTENT = _Parts(
    "content",
    "content_index",
    "response.content_part",
    {"output_text": "message", "refusal": "message", "reasoning_text": "reasoning"},
)
_SUMMARY = _Parts("summary", "summary_index", "response.reasoning_summary_part", {"summary_text": "reasoning"})
_PARTS_OF_EVENT = {f"{parts.event}.{end}": parts for parts in (_CONTENT, _SUMMARY) for end in ("added", "done")}

# a part's type -> the part as it begins
BEGUN_PARTS: dict[str, dict[str, Any]] = {
    "output_text": {"type": "output_text", "annotations": [], "logprobs": [], "text": ""},
    "refusal": {"type": "refusal", "refusal": ""},
    "reasoning_text": {"type": "reasoning_text", "text": ""},
    "summary_text": {"type": "summary_text", "text": ""},
}

# what speaks of a text -> the type of its part
_TEXTS = {
    "response.output_text.delta": "output_text",
    "response.output_text.done": "output_text",
    "response.output_text.annotation.added": "output_text",
    "response.refusal.delta": "refusal",
    "response.refusal.done": "refusal",
    "response.reasoning_text.delta": "reasoning_text",
    "response.reasoning_text.done": "reasoning_text",
    "response.reasoning_summary_text.delta": "summary_text",
    "response.reasoning_summary_text.done": "summary_text",
}
_DELTAS = {part: type for type, part in _TEXTS.items() if type.endswith(".delta")}

# an item's type -> the events of its text, and the field that holds it
_FIELDS = {
    "function_call": ("response.function_call_arguments", "arguments"),
    "custom_tool_call": ("response.custom_tool_call_input", "input"),
    "mcp_call": ("response.mcp_call_arguments", "arguments"),
}

# what an item has when it is added, whatever the server sent: deltas say the rest
_BEGUN: dict[str, dict[str, Any]] = {
    "message": {"role": "assistant", "status": "in_progress", "content": []},
    "reasoning": {"summary": []},
    "function_call": {"status": "in_progress", "arguments": ""},
    "custom_tool_call": {"input": ""},
    "mcp_call": {"arguments": ""},
}
# the event of an item -> the only type that the item can have; "" for those of parts, whose `holders` tell
_OF_TYPE = {
    event: max((type for type in PREFIXES if event.startswith(f"response.{type}")), key=len, default="")
    for event in FOLD
}
# Pieces of a text, of which there is one for every token: the fold knows all that can be wrong with them.
_PIECES = frozenset({*_DELTAS.values(), *(f"{event}.delta" for event, _ in _FIELDS.values())})
_FAULT_CHARACTERS_MAX = 300

_NAMED = frozenset({"function_call", "custom_tool_call"})  # nobody can run them without
# Others need no status, or have one that their schema does not know.
_WITH_STATUS = frozenset(
    {
        "message", "function_call", "web_search_call", "file_search_call", "code_interpreter_call",
        "image_generation_call", "computer_call", "local_shell_call", "shell_call", "shell_call_output",
        "apply_patch_call", "apply_patch_call_output", "tool_search_call", "tool_search_output",
    }
)  # fmt: skip
# what an item must have, and servers leave out where it says nothing
_EMPTY: dict[str, dict[str, Any]] = {
    "code_interpreter_call": {"code": None, "outputs": None},
    "computer_call": {"pending_safety_checks": []},
    "file_search_call": {"queries": []},
    "image_generation_call": {"result": None},
    "shell_call": {"environment": None},
    "shell_call_output": {"max_output_length": None},
}


class Carrier:
    """Says the events of one turn into our log.

    new_id: makes an id with the prefix given; call_ids: those that may not be used again, kept up to date; seal: makes
    the encrypted content of a reasoning item, that of the server in it.
    """

    def __init__(
        self,
        transcript: Transcript,
        *,
        new_id: Callable[[str], str],
        call_ids: set[str],
        seal: Callable[[Mapping[str, Any]], str] | None = None,
    ) -> None:
        self.begun = False  # an item was added
        self.failure: ModelError | None = None  # nothing is taken after it
        self._transcript = transcript
        self._new_id = new_id
        self._taken = call_ids
        self._seal = seal
        self._calls: dict[str, str] = {}  # our call_id, by theirs
        self._ids: dict[int, str] = {}  # our id of an item, by our index
        self._types: dict[int, str] = {}  # its type
        self._indexes: dict[int | str, int] = {}  # our index of an item, by their index and by their id
        self._left_out: set[int | str] = set()  # their indexes and ids of items that are not said
        self._told: set[tuple[str, str]] = set()  # what was logged: there may be an event for each token

    def take(self, event: Mapping[str, Any]) -> list[Event]:
        """Our events for one of theirs: usually one."""
        events: list[Event] = []
        if self.failure is not None:
            return events
        try:
            self._take(event, events)
        # What was said before the fault has its numbers, and so must be given.
        except (IllegalEvent, KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as fault:
            self._tell("an event of the model's server is left out", event["type"], repr(fault))
            if event["type"] == "response.output_item.done":
                why = fault.message[:_FAULT_CHARACTERS_MAX] if isinstance(fault, IllegalEvent) else "it makes no sense."
                self.failure = ModelError(f"The model's server sent an item that is not valid: {why}")
        return events

    def end(self, *, completed: bool) -> list[Event]:
        """Close what the server has left open."""
        left_open = [index for index in self._transcript.open_items if index in self._ids]
        return [event for index in left_open for event in close_item(self._transcript, index, completed=completed)]

    def _take(self, event: Mapping[str, Any], events: list[Event]) -> None:
        type = _RENAMED.get(event["type"], event["type"])
        if type == "response.output_item.added":
            self._add(event["item"], event.get("output_index"), events)
        elif type == "response.output_item.done":
            self._finish(event["item"], event.get("output_index"), events)
        elif type in FOLD:
            self._say(type, event, events)
        elif type in CHANGES_NOTHING:
            events.append(self._write(type, **_own(event)))
        else:
            self._tell("an event of an unknown type is left out", type)

    def _write(self, type: str, **fields: Any) -> Event:
        self._check(type, fields)
        return self._transcript.write(type, **fields)

    def _check(self, type: str, fields: Mapping[str, Any]) -> None:
        """Raise IllegalEvent for an event that is not as the API description has it."""
        if type not in _PIECES:
            check({"type": type, **fields, "sequence_number": self._transcript.sequence_number + 1})

    def _tell(self, what: str, type: str, why: str = "") -> None:
        if (what, type) not in self._told:
            self._told.add((what, type))
            log.warning(what, extra={"type": type, "why": why or "unknown"})

    def _say(self, type: str, event: Mapping[str, Any], events: list[Event]) -> None:
        """An event of an item that was added."""
        index = self._index(event.get("output_index"), event.get("item_id"))
        if index is None:
            index = self._unannounced(type, event, events)
        if index is None:
            return
        if _OF_TYPE[type] not in ("", self._types[index]):
            raise IllegalEvent(f"{type} in a {self._types[index]}.")
        fields = {**_own(event), "output_index": index}
        if not type.startswith("response.shell_call_command."):  # the only ones without
            fields["item_id"] = self._ids[index]
        if type in _PARTS_OF_EVENT:
            self._say_part(type, fields, events)
            return
        if type in _TEXTS:
            self._open_part(_TEXTS[type], fields, events)
        if type in ("response.output_text.delta", "response.output_text.done"):
            fields["logprobs"] = readable_logprobs(fields.get("logprobs"))
        elif type == "response.function_call_arguments.done":
            fields["name"] = self._transcript.item(index)["name"]
        elif type == "response.output_text.annotation.added":
            place = {name: fields[name] for name in ("item_id", "output_index", "content_index")}
            part = {**BEGUN_PARTS["output_text"], "annotations": [fields["annotation"]]}
            self._check("response.content_part.done", {**place, "part": part})
        events.append(self._write(type, **fields))

    def _index(self, place: Any, id: Any) -> int | None:
        """Our index of the item that they speak of. Some servers give every item the index 0, some change its id."""
        known = self._indexes.get(id) if id else None
        return self._indexes.get(place) if known is None else known

    def _unannounced(self, type: str, event: Mapping[str, Any], events: list[Event]) -> int | None:
        """The item of a text that came without one; None for what is left out."""
        place, id = event.get("output_index"), event.get("item_id")
        if place in self._left_out or id in self._left_out:
            return None
        part = _TEXTS.get(type) or event["part"]["type"]
        item = "message" if part in ("output_text", "refusal") else "reasoning"
        return self._add({"type": item, "id": id}, place, events)

    def _add(self, item: Mapping[str, Any], place: Any, events: list[Event]) -> int | None:
        """Say that an item begins; gives its index, or None if it is left out."""
        type, id = item["type"], item.get("id")
        keys = [key for key in (place, id) if key is not None and key != ""]
        if type not in PREFIXES:
            self._left_out.update(keys)
            self._tell("an item of an unknown type is left out", type)
            return None
        if type in _NAMED and not (isinstance(item.get("name"), str) and item["name"]):
            raise IllegalEvent(f"A {type} without a name.")
        begun = {**_clean(item), **_BEGUN.get(type, {}), "id": self._new_id(PREFIXES[type])}
        if type in _WITH_STATUS:
            begun.setdefault("status", "completed" if type.endswith("_output") else "in_progress")
        if type == "reasoning":
            begun.pop("encrypted_content", None)  # only that server can open it: it goes into ours
            if begun.get("content"):
                begun["content"] = []
        theirs = item.get("call_id")
        if theirs is not None or (type in CLIENT_CALLS and type != "tool_search_call"):  # that is the server's without
            begun["call_id"] = self._call_id(type, theirs if isinstance(theirs, str) else "")
        index = self._transcript.next_output_index
        events.append(self._write("response.output_item.added", output_index=index, item=begun))
        self.begun = True
        self._ids[index], self._types[index] = begun["id"], type
        self._indexes.update(dict.fromkeys(keys, index))
        return index

    def _call_id(self, type: str, theirs: str) -> str:
        if type.endswith("_output"):
            return self._calls.get(theirs, theirs)
        ours = self._new_id("call") if not theirs or theirs in self._taken else theirs
        self._taken.add(ours)
        self._calls[theirs] = ours
        return ours

    def _open_part(self, type: str, fields: Event, events: list[Event]) -> None:
        """Add the part that a text belongs to, if the server has not."""
        parts = _SUMMARY if type == "summary_text" else _CONTENT
        number = fields.setdefault(parts.number, 0)
        index = fields["output_index"]
        if self._transcript.is_open(index, number, list=parts.list):
            return
        if number == len(self._transcript.item(index).get(parts.list) or ()):
            self._add_part(parts, index, number, BEGUN_PARTS[type], events)

    def _say_part(self, type: str, fields: Event, events: list[Event]) -> None:
        parts, index = _PARTS_OF_EVENT[type], fields["output_index"]
        part, number = _whole(fields["part"]), fields.get(parts.number, 0)
        is_open = self._transcript.is_open(index, number, list=parts.list)
        if type.endswith(".added") and not is_open:
            self._add_part(parts, index, number, BEGUN_PARTS.get(part["type"], part), events)
        elif type.endswith(".done") and is_open:
            self._close_part(parts, index, number, part, events)

    def _add_part(self, parts: _Parts, index: int, number: int, part: Mapping[str, Any], events: list[Event]) -> None:
        holder = self._transcript.item(index)["type"]
        if parts.holders.get(part["type"]) != holder:
            raise IllegalEvent(f"A part of type '{part['type']}' in the {parts.list} of a {holder}.")
        place = {"item_id": self._ids[index], "output_index": index, parts.number: number}
        events.append(self._write(f"{parts.event}.added", **place, part=part))

    def _close_part(self, parts: _Parts, index: int, number: int, part: dict[str, Any], events: list[Event]) -> None:
        """The end of a part, after that of its text if it was not said."""
        place = {"item_id": self._ids[index], "output_index": index, parts.number: number}
        self._check(f"{parts.event}.done", {**place, "part": part})
        if parts is _CONTENT:
            events += close_part(self._transcript, place, part)
            return
        with suppress(IllegalEvent):
            events.append(self._transcript.write("response.reasoning_summary_text.done", **place, text=part["text"]))
        events.append(self._transcript.write("response.reasoning_summary_part.done", **place, part=part))

    def _finish(self, item: Mapping[str, Any], place: Any, events: list[Event]) -> None:
        """Say the end of an item, and first all of it that was not said."""
        id = item.get("id")
        index = self._index(place, id)
        if index is None or index not in self._transcript.open_items:
            if id in self._left_out or (index is None and place in self._left_out):
                return
            index = self._add(item, place, events)
            if index is None:
                return
        for parts in (_SUMMARY, _CONTENT):
            known = [part for part in item.get(parts.list) or () if parts.holders.get(part["type"]) == item["type"]]
            self._say_parts(parts, index, known, events)
        begun = self._transcript.item(index)
        final = {**begun, **_clean(item), "id": begun["id"], "type": begun["type"]}
        for name in ("content", "summary"):
            if isinstance(begun.get(name), list):
                final[name] = begun[name]
        if begun.get("call_id") is not None and item["type"] != "tool_search_call":  # its id may change to the end
            final["call_id"] = begun["call_id"]
        if begun["type"] == "reasoning" and self._seal is not None:
            final["encrypted_content"] = self._seal(final)
        self._say_field(index, begun, final, events)
        if begun["type"] in _WITH_STATUS and final.get("status") in (None, "in_progress"):
            final["status"] = "completed"
        events.append(self._write("response.output_item.done", output_index=index, item=final))

    def _say_parts(self, parts: _Parts, index: int, whole: Any, events: list[Event]) -> None:
        """Close the parts that are open, and say those that were not said."""
        said = self._transcript.item(index).get(parts.list) or []
        for number, part in enumerate(said):
            if self._transcript.is_open(index, number, list=parts.list):
                self._close_part(parts, index, number, _whole(whole[number]) if number < len(whole) else part, events)
        for number in range(len(said), len(whole)):
            part = _whole(whole[number])
            self._add_part(parts, index, number, BEGUN_PARTS.get(part["type"], part), events)
            if part["type"] in _DELTAS:
                self._say_text(parts, index, number, part, events)
            self._close_part(parts, index, number, part, events)

    def _say_text(self, parts: _Parts, index: int, number: int, part: Mapping[str, Any], events: list[Event]) -> None:
        place = {"item_id": self._ids[index], "output_index": index, parts.number: number}
        more: Event = {"logprobs": []} if part["type"] == "output_text" else {}
        text = part["refusal" if part["type"] == "refusal" else "text"]
        if text:
            events.append(self._transcript.write(_DELTAS[part["type"]], **place, delta=text, **more))

    def _say_field(self, index: int, begun: Mapping[str, Any], final: Event, events: list[Event]) -> None:
        """The arguments of a call that came with its end alone, and the end of those that came before."""
        if begun["type"] not in _FIELDS:
            return
        type, field = _FIELDS[begun["type"]]
        if not isinstance(final[field], str):  # a few servers send the object itself
            final[field] = msgspec.json.encode(final[field]).decode()
        place = {"item_id": begun["id"], "output_index": index}
        extra = {"name": begun["name"]} if begun["type"] == "function_call" else {}
        if begun["type"] == "function_call" and not final[field]:  # callers parse them, so "" will not do
            final[field] = "{}"
        with suppress(IllegalEvent):  # it is finished, as it should be
            if not begun[field] and final[field]:
                events.append(self._transcript.write(f"{type}.delta", **place, delta=final[field]))
            events.append(self._transcript.write(f"{type}.done", **place, **extra, **{field: final[field]}))


def _own(event: Mapping[str, Any]) -> Event:
    """What an event says, without what is another server's."""
    return {name: value for name, value in event.items() if name not in _NOT_SENT_ON}


def _whole(part: Mapping[str, Any]) -> dict[str, Any]:
    """A part with every field that the API gives it. Raises IllegalEvent for a text that is none."""
    whole = {**BEGUN_PARTS.get(part["type"], {}), **_without_none(part)}
    if not isinstance(whole["refusal" if part["type"] == "refusal" else "text"], str):
        raise IllegalEvent("A part whose text is none.")
    return whole


def _clean(item: Mapping[str, Any]) -> Event:
    """An item without the nulls that some servers put where the API has no field, and reasoning without its status."""
    clean = {**_EMPTY.get(item["type"], {}), **_without_none(item)}
    if item["type"] == "reasoning" and item.get("status") != "incomplete":
        clean.pop("status", None)
    return clean


def _without_none(value: Mapping[str, Any]) -> dict[str, Any]:
    return {name: each for name, each in value.items() if each is not None}

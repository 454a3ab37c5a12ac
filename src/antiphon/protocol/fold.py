"""What each event does to the item it speaks of: one table, FOLD, with a row for every event type below an item.

A newcomer adds an event type by adding a row, which reads what it needs of the event before it changes the item. Text
that comes in pieces is kept in lists and joined when it is read, since adding to a string each time costs the square of
its length.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from antiphon.errors import IllegalEvent

Event = Mapping[str, Any]
Key = tuple[str, int]  # a list of the item and an index in it, or a field of the item itself and -1


class ItemState:
    """One output item as said so far."""

    __slots__ = ("done", "finished", "open_parts", "superseded", "texts", "value")

    def __init__(self, item: Mapping[str, Any]) -> None:
        self.value = _copy(item)
        self.done = False
        self.superseded = False
        self.texts: dict[Key, tuple[Text, list[str]]] = {}  # what has come in pieces and is not finished
        self.finished: set[Key] = set()
        self.open_parts: set[Key] = set()

    def snapshot(self) -> dict[str, Any]:
        """The item as JSON, texts joined; the caller may keep and change it."""
        value: dict[str, Any] = _copy(self.value)
        for key, (text, pieces) in self.texts.items():
            text.put(value, key[1], "".join(pieces))
        return value


class Text:
    """Where a text that comes in deltas belongs: `holder.list[index].field`, each of them optional.

    part: the type that the list's entry must have.
    """

    def __init__(self, field: str, *, list: str = "", index: str = "", holder: str = "", part: str = "") -> None:
        self.field, self.list, self.index, self.holder, self.part = field, list, index, holder, part

    def put(self, value: dict[str, Any], index: int, text: str) -> None:
        holder = value.setdefault(self.holder, {}) if self.holder else value
        if not self.list:
            holder[self.field] = text
        elif self.field:
            holder[self.list][index][self.field] = text
        else:
            holder[self.list][index] = text

    def delta(self, item: ItemState, event: Event) -> None:
        text = _text(event, "delta")
        logprobs = part_logprobs(event["logprobs"]) if event.get("logprobs") else None
        key = (self.list, event[self.index]) if self.list else (self.field, -1)
        known = item.texts.get(key)
        if known is None:
            self._begin(item, key, event)
            known = item.texts[key] = (self, [])
        known[1].append(text)
        if logprobs and self.part:
            part = item.value[self.list][key[1]]
            if not isinstance(part.get("logprobs"), list):
                part["logprobs"] = []
            part["logprobs"].extend(logprobs)

    def extend(self, item: ItemState, event: Event, deltas: Sequence[str]) -> None:
        """Add more deltas behind that of an event which was folded just now."""
        key = (self.list, event[self.index]) if self.list else (self.field, -1)
        item.texts[key][1].extend(deltas)

    def finish(self, item: ItemState, event: Event) -> None:
        """The done event repeats the whole text, and has the last word."""
        text = _text(event, _DONE_FIELDS.get(event["type"], self.field))  # before anything is changed
        key = (self.list, event[self.index]) if self.list else (self.field, -1)
        if key not in item.texts:
            self._begin(item, key, event)
        item.texts.pop(key, None)
        item.finished.add(key)
        self.put(item.value, key[1], text)

    def _begin(self, item: ItemState, key: Key, event: Event) -> None:
        if key in item.finished:
            raise IllegalEvent(f"{event['type']}: the text at {_place(key)} is finished.")
        if self.part:
            if key not in item.open_parts:
                raise IllegalEvent(f"{event['type']}: no open part at {_place(key)}.")
            found = item.value[self.list][key[1]].get("type")
            if found != self.part:
                raise IllegalEvent(f"{event['type']}: the part at {_place(key)} is {found}, not {self.part}.")
        elif self.list and key not in item.open_parts:
            raise IllegalEvent(f"{event['type']}: nothing was added at {_place(key)}.")
        elif self.holder and not isinstance(item.value.get(self.holder, {}), dict):
            raise IllegalEvent(f"{event['type']}: the item's {self.holder} is no object.")


class Parts:
    """A list of parts in an item, each opened by an `.added` event and closed by a `.done` event."""

    def __init__(self, list: str, index: str) -> None:
        self.list, self.index = list, index

    def add(self, item: ItemState, event: Event) -> None:
        parts, index, part = _list(item.value, self.list, event), event[self.index], _copy(event["part"])
        if index != len(parts):
            raise IllegalEvent(f"{event['type']}: part {index} where part {len(parts)} comes next.")
        item.value[self.list] = parts
        parts.append(part)
        item.open_parts.add((self.list, index))

    def close(self, item: ItemState, event: Event) -> None:
        key, part = (self.list, event[self.index]), _copy(event["part"])
        if key not in item.open_parts:
            raise IllegalEvent(f"{event['type']}: no open part at {_place(key)}.")
        item.open_parts.remove(key)
        item.texts.pop(key, None)
        item.finished.add(key)
        item.value[self.list][key[1]] = part


def part_logprobs(logprobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The logprobs of a text event in the fuller form that a text part wants, with the tokens' bytes.

    Raises IllegalEvent for what is none. Source: ResponseLogProb (events) and LogProb (parts) of the document.
    """
    try:
        return [
            {
                "token": entry["token"],
                "logprob": entry["logprob"],
                "bytes": entry.get("bytes") or list(entry["token"].encode()),
                "top_logprobs": [
                    {**top, "bytes": top.get("bytes") or list(top.get("token", "").encode())}
                    for top in entry.get("top_logprobs") or ()
                ],
            }
            for entry in logprobs
        ]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise IllegalEvent("The logprobs of a text cannot be read.") from error


def _annotation(item: ItemState, event: Event) -> None:
    key = ("content", event["content_index"])
    if key not in item.open_parts:
        raise IllegalEvent(f"{event['type']}: no open part at {_place(key)}.")
    part, annotation = item.value["content"][key[1]], event["annotation"]
    annotations = _list(part, "annotations", event)
    if event["annotation_index"] != len(annotations):
        raise IllegalEvent(f"{event['type']}: annotation {event['annotation_index']} after {len(annotations)}.")
    part["annotations"] = annotations
    annotations.append(annotation)


def _command_added(item: ItemState, event: Event) -> None:
    action, command = item.value.get("action", {}), _text(event, "command")
    if not isinstance(action, dict):
        raise IllegalEvent(f"{event['type']}: the item's action is no object.")
    commands = _list(action, "commands", event)
    if event["command_index"] != len(commands):
        raise IllegalEvent(f"{event['type']}: command {event['command_index']} after {len(commands)}.")
    item.value["action"] = action
    action["commands"] = commands
    commands.append(command)
    item.open_parts.add(("commands", event["command_index"]))


def _command_done(item: ItemState, event: Event) -> None:
    _COMMAND.finish(item, event)
    item.open_parts.discard(("commands", event["command_index"]))


def _list(holder: Mapping[str, Any], field: str, event: Event) -> list[Any]:
    """What the event adds to; it may not be there yet."""
    found = holder.get(field, [])
    if not isinstance(found, list):
        raise IllegalEvent(f"{event['type']}: there is a {field} that is no list.")
    return found


def _text(event: Event, field: str) -> str:
    """What the event says. A value that is no text would make the whole item unreadable."""
    text = event[field]
    if not isinstance(text, str):
        raise IllegalEvent(f"{event['type']}: its {field} is no text.")
    return text


def _shell_output(item: ItemState, event: Event) -> None:
    item.value["output"] = _copy(event["output"])


def _status(status: str) -> Callable[[ItemState, Event], None]:
    def fold(item: ItemState, event: Event) -> None:
        item.value["status"] = status

    return fold


def _nothing(item: ItemState, event: Event) -> None:
    """The event is for those who watch; the item's done event says what is to be kept."""


def _copy(value: Any) -> Any:
    """A copy of a JSON value that shares no list and no object with it."""
    if isinstance(value, dict):
        return {key: _copy(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_copy(member) for member in value]
    return value


def _place(key: Key) -> str:
    return f"{key[0]}[{key[1]}]" if key[1] >= 0 else key[0]


_OUTPUT_TEXT = Text("text", list="content", index="content_index", part="output_text")
_REFUSAL = Text("refusal", list="content", index="content_index", part="refusal")
_REASONING_TEXT = Text("text", list="content", index="content_index", part="reasoning_text")
_SUMMARY_TEXT = Text("text", list="summary", index="summary_index", part="summary_text")
_ARGUMENTS = Text("arguments")
_INPUT = Text("input")
_CODE = Text("code")
_DIFF = Text("diff", holder="operation")
_COMMAND = Text("", holder="action", list="commands", index="command_index")
_CONTENT_PARTS = Parts("content", "content_index")
_SUMMARY_PARTS = Parts("summary", "summary_index")

_DONE_FIELDS = {"response.shell_call_command.done": "command"}

FOLD: dict[str, Callable[[ItemState, Event], None]] = {
    "response.content_part.added": _CONTENT_PARTS.add,
    "response.content_part.done": _CONTENT_PARTS.close,
    "response.output_text.delta": _OUTPUT_TEXT.delta,
    "response.output_text.done": _OUTPUT_TEXT.finish,
    "response.output_text.annotation.added": _annotation,
    "response.refusal.delta": _REFUSAL.delta,
    "response.refusal.done": _REFUSAL.finish,
    "response.reasoning_text.delta": _REASONING_TEXT.delta,
    "response.reasoning_text.done": _REASONING_TEXT.finish,
    "response.reasoning_summary_part.added": _SUMMARY_PARTS.add,
    "response.reasoning_summary_part.done": _SUMMARY_PARTS.close,
    "response.reasoning_summary_text.delta": _SUMMARY_TEXT.delta,
    "response.reasoning_summary_text.done": _SUMMARY_TEXT.finish,
    "response.function_call_arguments.delta": _ARGUMENTS.delta,
    "response.function_call_arguments.done": _ARGUMENTS.finish,
    "response.mcp_call_arguments.delta": _ARGUMENTS.delta,
    "response.mcp_call_arguments.done": _ARGUMENTS.finish,
    "response.custom_tool_call_input.delta": _INPUT.delta,
    "response.custom_tool_call_input.done": _INPUT.finish,
    "response.code_interpreter_call_code.delta": _CODE.delta,
    "response.code_interpreter_call_code.done": _CODE.finish,
    "response.apply_patch_call_operation_diff.delta": _DIFF.delta,
    "response.apply_patch_call_operation_diff.done": _DIFF.finish,
    "response.shell_call_command.added": _command_added,
    "response.shell_call_command.delta": _COMMAND.delta,
    "response.shell_call_command.done": _command_done,
    "response.shell_call_output_content.delta": _nothing,
    "response.shell_call_output_content.done": _shell_output,
    "response.file_search_call.in_progress": _status("in_progress"),
    "response.file_search_call.searching": _status("searching"),
    "response.file_search_call.completed": _status("completed"),
    "response.web_search_call.in_progress": _status("in_progress"),
    "response.web_search_call.searching": _status("searching"),
    "response.web_search_call.completed": _status("completed"),
    "response.code_interpreter_call.in_progress": _status("in_progress"),
    "response.code_interpreter_call.interpreting": _status("interpreting"),
    "response.code_interpreter_call.completed": _status("completed"),
    "response.image_generation_call.in_progress": _status("in_progress"),
    "response.image_generation_call.generating": _status("generating"),
    "response.image_generation_call.partial_image": _nothing,
    "response.image_generation_call.completed": _status("completed"),
    "response.mcp_call.in_progress": _status("in_progress"),
    "response.mcp_call.completed": _status("completed"),
    "response.mcp_call.failed": _status("failed"),
    "response.mcp_list_tools.in_progress": _nothing,
    "response.mcp_list_tools.completed": _nothing,
    "response.mcp_list_tools.failed": _nothing,
}
"""What an event does to its item, by the event's type."""

CHANGES_NOTHING = frozenset(
    {
        "error",
        "keepalive",
        "response.audio.delta",
        "response.audio.done",
        "response.audio.transcript.delta",
        "response.audio.transcript.done",
    }
)
"""Events that take a number and leave the response as it is."""

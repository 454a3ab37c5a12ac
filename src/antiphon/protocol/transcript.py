"""Transcript: the one place where events are numbered and folded into the Response.

`write` makes an event, `read` folds one that was made elsewhere; both hold the same rules, so what one accepts the
other does. The terminal event carries the fold: it cannot differ from what the deltas said.

The rule of the output: items that are not superseded. An incomplete item that another item follows is superseded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from antiphon.errors import Gap, IllegalEvent
from antiphon.protocol.fold import CHANGES_NOTHING, FOLD, ItemState, Text
from antiphon.protocol.kinds import check, number_of

STATUS_OF = {
    "response.created": "in_progress",
    "response.queued": "queued",
    "response.in_progress": "in_progress",
    "response.completed": "completed",
    "response.incomplete": "incomplete",
    "response.failed": "failed",
}
"""The status that a lifecycle event gives the response, unless it names another."""

TERMINAL = frozenset({"response.completed", "response.incomplete", "response.failed"})

_KNOWN = frozenset({*STATUS_OF, *FOLD, "response.output_item.added", "response.output_item.done"})


@dataclass(frozen=True)
class Note:
    """A private entry of the log: for the next worker, not for callers, and outside the numbering."""

    after: int  # the sequence_number of the last event before it
    kind: str
    fields: Mapping[str, Any] = field(default_factory=dict)


class Transcript:
    """What has been said of one response.

    response: for a writer, the Response to begin with (every echo field); a reader takes it from event 0.
    """

    def __init__(self, response: Mapping[str, Any] | None = None) -> None:
        self._head: dict[str, Any] = dict(response or {})
        self._items: list[ItemState] = []
        self._last = ""  # the lifecycle event that was said last
        self._running = False  # created and not closed
        self.sequence_number = -1
        self.usage: dict[str, Any] | None = None  # what it has cost so far, where the model's server has told

    @property
    def closed(self) -> bool:
        """Whether a terminal event was said."""
        return self._last in TERMINAL

    @property
    def status(self) -> str:
        """The Response's status as said so far."""
        return str(self._head.get("status", ""))

    @property
    def begun(self) -> bool:
        """Whether the response has been said to be in progress."""
        return self._last not in ("", "response.created", "response.queued")

    @property
    def next_output_index(self) -> int:
        return len(self._items)

    @property
    def open_items(self) -> tuple[int, ...]:
        """The output_index of each item that was added and is not done."""
        return tuple(index for index, item in enumerate(self._items) if not item.done)

    @property
    def response(self) -> dict[str, Any]:
        """The Response as said so far; the caller may keep and change it."""
        return {**self._head, "output": self.output}

    @property
    def output(self) -> list[dict[str, Any]]:
        """The items as said so far, without those that are superseded."""
        return [item.snapshot() for item in self._items if not item.superseded]

    def item(self, output_index: int) -> dict[str, Any]:
        """One item as said so far."""
        return self._items[output_index].snapshot()

    def is_open(self, output_index: int, content_index: int, *, list: str = "content") -> bool:
        """Whether a part of an item was added and is not done."""
        return (list, content_index) in self._items[output_index].open_parts

    def is_finished(self, output_index: int, content_index: int) -> bool:
        """Whether the text of a part of an item was said to its end."""
        return ("content", content_index) in self._items[output_index].finished

    def supersede(self, output_index: int) -> None:
        """Leave an item out of the output: a later one says it anew."""
        self._items[output_index].superseded = True

    def note(self, kind: str, **fields: Any) -> Note:
        """A private note at this point of the log."""
        return Note(self.sequence_number, kind, fields)

    def write(self, type: str, **fields: Any) -> dict[str, Any]:
        """Make the next event, number it, fold it, and give it back.

        For a lifecycle event the fields are changes to the Response, and the event carries the whole of it; for any
        other they are the event's own. Raises IllegalEvent, with nothing changed, for an event that may not come now.
        """
        number = self.sequence_number + 1
        if type in STATUS_OF:
            self._check_lifecycle(type)
            self._head.update({"status": STATUS_OF[type], **fields})
            event = {"type": type, "response": self.response, "sequence_number": number}
            self._now(type)
        else:
            event = {"type": type, **fields, "sequence_number": number}
            self._fold(type, event)
        self.sequence_number = number
        return event

    def write_run(self, type: str, deltas: Sequence[str], **fields: Any) -> list[dict[str, Any]]:
        """Make one event for each of these deltas of one text, the same as if `write` had made them one by one.

        type: of a text's delta event; fields: what all of them have. The rules are checked once, since one delta leaves
        everything as it was for the next: many tokens that come at once cost little more than a few.
        """
        first = self.write(type, **fields, delta=deltas[0])
        text: Text = FOLD[type].__self__  # type: ignore[attr-defined]  # a delta's row is the method of its text
        text.extend(self._items[first["output_index"]], first, deltas[1:])
        events = [first]
        for number, delta in enumerate(deltas[1:], self.sequence_number + 1):
            events.append({"type": type, **fields, "delta": delta, "sequence_number": number})
        self.sequence_number += len(deltas) - 1
        return events

    def read(self, event: Mapping[str, Any]) -> None:
        """Fold an event that was made elsewhere.

        Raises Gap if it does not have the number that comes next, IllegalEvent if it may not come now or is not made as
        it has to be, and nothing else, whatever the JSON; nothing is changed then. An event of an unknown type only
        counts.
        """
        number = number_of(event)
        if number != self.sequence_number + 1:
            raise Gap(f"Event {number} where event {self.sequence_number + 1} comes next.")
        type = event["type"]
        if type in _KNOWN:
            check(event)
        try:
            if type in STATUS_OF:
                self._read_lifecycle(type, event["response"])
            else:
                self._fold(type, event, known=False)
        except KeyError as missing:
            raise IllegalEvent(f"{type} has no {missing}.") from missing
        except RecursionError as error:
            raise IllegalEvent(f"{type} is too deep.") from error
        self.sequence_number = number

    def _read_lifecycle(self, type: str, response: Mapping[str, Any]) -> None:
        self._check_lifecycle(type)
        if self._head.get("id", response.get("id")) != response.get("id"):
            raise IllegalEvent(f"{type}: the response's id changed from {self._head['id']} to {response.get('id')}.")
        if type in TERMINAL:  # its snapshot is final: it may leave out what was superseded
            self._items = [_said(item) for item in response.get("output") or ()]
        self._head = {**response, "output": ()}  # its place among the keys stays
        self._now(type)

    def _now(self, type: str) -> None:
        self._last = type
        self._running = type not in TERMINAL

    def _check_lifecycle(self, type: str) -> None:
        if type == "response.created":
            legal = not self._last
        elif type == "response.queued":
            legal = self._last == "response.created"
        elif type == "response.in_progress":
            legal = self._last in ("response.created", "response.queued")
        else:
            legal = bool(self._last) and not self.closed
        if not legal:
            raise IllegalEvent(f"{type} after {self._last or 'nothing'}.")
        if type in TERMINAL and self.open_items:
            raise IllegalEvent(f"{type} while item {self.open_items[0]} is open.")

    def _fold(self, type: str, event: Mapping[str, Any], *, known: bool = True) -> None:
        if not self._running:
            raise IllegalEvent(f"{type} after {self._last or 'nothing'}.")
        fold = FOLD.get(type)
        if fold is not None:
            fold(self._open_item(type, event), event)
        elif type == "response.output_item.added":
            self._add(event)
        elif type == "response.output_item.done":
            self._finish(event)
        elif known and type not in CHANGES_NOTHING:
            raise IllegalEvent(f"{type} is not an event of the API.")

    def _open_item(self, type: str, event: Mapping[str, Any]) -> ItemState:
        index: int = event["output_index"]
        if not 0 <= index < len(self._items):
            raise IllegalEvent(f"{type}: there is no item {index} yet.")
        item = self._items[index]
        if item.done:
            raise IllegalEvent(f"{type}: item {index} is done.")
        item_id = event.get("item_id")
        if item_id is not None and item_id != item.value.get("id", item_id):
            raise IllegalEvent(f"{type}: item {index} is {item.value['id']}, not {item_id}.")
        return item

    def _add(self, event: Mapping[str, Any]) -> None:
        index = event["output_index"]
        if index != len(self._items):
            raise IllegalEvent(f"{event['type']}: item {index} where item {len(self._items)} comes next.")
        item = ItemState(event["item"])
        if self._items and self._items[-1].done and self._items[-1].value.get("status") == "incomplete":
            self._items[-1].superseded = True
        self._items.append(item)

    def _finish(self, event: Mapping[str, Any]) -> None:
        item, final = self._open_item(event["type"], event), event["item"]
        for name in ("type", "id"):
            if final.get(name) != item.value.get(name):
                raise IllegalEvent(f"{event['type']}: {name} was {item.value.get(name)}, is {final.get(name)}.")
        if item.open_parts:
            raise IllegalEvent(f"{event['type']}: a part of item {event['output_index']} is open.")
        self._items[event["output_index"]] = said = _said(final)
        said.superseded = item.superseded


def _said(item: Mapping[str, Any]) -> ItemState:
    state = ItemState(item)
    state.done = True
    return state

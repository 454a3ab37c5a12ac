"""What an event has to be made of, that the fold can rely on it: checked where events of others come in.

The fold needs few of an event's fields, and needs them to be of the right kind. What we write ourselves is right by
construction and pays nothing for this. Whether a field is there at all, the fold finds out by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from antiphon.errors import Gap, IllegalEvent


def number_of(event: Any) -> int:
    """The number of an event. Raises Gap if it has none, and IllegalEvent for what is no event at all."""
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise IllegalEvent("This is no event: it has no type.")
    number = event.get("sequence_number")
    if type(number) is not int:  # True would pass for 1, and 1.0 be followed by 2.0
        raise Gap(f"{event['type']} has no number.")
    return number


def check(event: Mapping[str, Any]) -> None:
    """Raise IllegalEvent for a field of the wrong kind, in an event of a type that is known."""
    for name, value in event.items():
        is_right = _KINDS.get(name)
        if is_right is not None and not is_right(value):
            raise IllegalEvent(f"{event['type']}: its {name} is not what it has to be.")


def _is_index(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_item(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("type"), str) and isinstance(value.get("id"), str | None)


def _is_response(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("id"), str | None):
        return False
    output = value.get("output")
    return output is None or (isinstance(output, list) and all(map(_is_item, output)))


# By the name of the field: it means the same in every event that the fold knows.
_KINDS: Mapping[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("output_index", "content_index", "summary_index", "annotation_index", "command_index"), _is_index),
    "part": _is_object,
    "item": _is_item,
    "response": _is_response,
}

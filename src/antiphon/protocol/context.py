"""What came before a turn, as far as the model can still be shown it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Item = dict[str, Any]


def paired(items: Sequence[Item]) -> list[Item]:
    """The items without the calls and the outputs that have lost their other half: no model server takes those.

    A deletion takes halves away, and a call that was cut short never gets its output. The calls at the end still wait
    for theirs and stay.
    """
    calls = {item["call_id"] for item in items if item["type"] == "function_call"}
    answered = {item["call_id"] for item in items if item["type"] == "function_call_output"}
    if not calls and not answered:
        return list(items)
    end = _end_of_input(items)
    return [
        item
        for place, item in enumerate(items)
        if (item["type"] != "function_call_output" or item["call_id"] in calls)
        and (item["type"] != "function_call" or item["call_id"] in answered or _waits(item, place >= end))
    ]


def _end_of_input(items: Sequence[Item]) -> int:
    """The place behind the last item that the model cannot have said."""
    for place in range(len(items), 0, -1):
        item = items[place - 1]
        if item["type"] == "function_call_output" or item.get("role", "assistant") != "assistant":
            return place
    return 0


def _waits(call: Mapping[str, Any], at_end: bool) -> bool:
    return at_end and call.get("status") != "incomplete"

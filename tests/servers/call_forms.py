"""The forms in which model servers send two parallel calls, of a function in Paris and in Rome."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def piece(arguments: str, **fields: Any) -> dict[str, Any]:
    """One member of `tool_calls`; `name` goes to where the API has it."""
    function = {"arguments": arguments}
    if "name" in fields:
        function["name"] = fields.pop("name")
    return {**fields, "function": function}


CALL_FORMS: dict[str, Callable[[str], list[dict[str, Any]]]] = {
    "pieces": lambda name: [
        piece("", index=0, id="call_a", type="function", name=name),
        piece('{"city":', index=0),
        piece('"Paris"}', index=0),
        piece("", index=1, id="call_b", type="function", name=name),
        piece('{"city":', index=1),
        piece('"Rome"}', index=1),
    ],
    "mixed": lambda name: [
        piece("", index=0, id="call_a", name=name),
        piece("", index=1, id="call_b", name=name),
        piece('{"city":', index=1),
        piece('{"city":', index=0),
        piece('"Paris"}', index=0),
        piece('"Rome"}', index=1),
    ],
    "whole": lambda name: [
        piece('{"city":"Paris"}', id="call_a", name=name),
        piece('{"city":"Rome"}', id="call_b", name=name),
    ],
    "same-index": lambda name: [
        piece('{"city":"Paris"}', index=0, id="call_a", name=name),
        piece('{"city":"Rome"}', index=0, id="call_b", name=name),
    ],
    "repeating": lambda name: [
        piece('{"city":', index=0, id="call_a", name=name),
        piece('"Paris"}', index=0, id="call_a", name=name),
        piece('{"city":', index=1, id="call_b", name=name),
        piece('"Rome"}', index=1, id="call_b", name=name),
    ],
    "no-id": lambda name: [
        piece('{"city":', index=0, name=name),
        piece('"Paris"}', index=0),
        piece('{"city":"Rome"}', index=1, name=name),
    ],
    "nothing": lambda name: [
        piece('{"city":', name=name),
        piece('"Paris"}'),
        piece('{"city":"Rome"}', name=name),
    ],
    "late-name": lambda name: [
        piece('{"city":', index=0, id="call_a"),
        piece('"Paris"}', index=0, name=name),
        piece('{"city":"Rome"}', index=1, id="call_b", name=name),
    ],
    "objects": lambda name: [
        {"index": 0, "id": "call_a", "function": {"name": name, "arguments": {"city": "Paris"}}},
        {"index": 1, "id": "call_b", "function": {"name": name, "arguments": {"city": "Rome"}}},
    ],
}

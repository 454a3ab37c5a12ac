"""What a model is shown has no half of a call."""

from __future__ import annotations

from typing import Any

from antiphon.protocol.context import without_unpaired_calls

MESSAGE: dict[str, Any] = {"type": "message", "role": "user", "content": []}
CALL = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "1"}
OTHER = {"type": "custom_tool_call", "call_id": "call_2", "name": "g", "input": "x"}
OTHER_OUTPUT = {"type": "custom_tool_call_output", "call_id": "call_2", "output": "2"}


def test_whole_pairs_and_everything_else_stay_in_their_order():
    items = [MESSAGE, CALL, OTHER, OUTPUT, MESSAGE, OTHER_OUTPUT]

    assert without_unpaired_calls(items) == items


def test_a_call_without_its_output_is_left_out():
    assert without_unpaired_calls([MESSAGE, CALL, OTHER, OTHER_OUTPUT]) == [MESSAGE, OTHER, OTHER_OUTPUT]


def test_an_output_without_its_call_is_left_out():
    assert without_unpaired_calls([OUTPUT, MESSAGE]) == [MESSAGE]

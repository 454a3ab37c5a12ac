"""What a model is shown has no half of a call."""

from __future__ import annotations

from typing import Any

import pytest

from antiphon.protocol.context import is_client_call, without_unpaired_calls

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


@pytest.mark.parametrize(
    ("call", "output"),
    [
        ({"type": "shell_call", "call_id": "call_1"}, {"type": "shell_call_output", "call_id": "call_1"}),
        ({"type": "apply_patch_call", "call_id": "call_1"}, {"type": "apply_patch_call_output", "call_id": "call_1"}),
        ({"type": "computer_call", "call_id": "call_1"}, {"type": "computer_call_output", "call_id": "call_1"}),
        ({"type": "tool_search_call", "call_id": "call_1"}, {"type": "tool_search_output", "call_id": "call_1"}),
        ({"type": "program", "id": "cm_1", "call_id": "call_1"}, {"type": "program_output", "call_id": "call_1"}),
        (
            {"type": "local_shell_call", "id": "lsh_1", "call_id": "call_1"},
            {"type": "local_shell_call_output", "id": "lsho_1", "call_id": "call_1"},
        ),
        (
            {"type": "local_shell_call", "id": "lsh_1", "call_id": "call_1"},
            {"type": "local_shell_call_output", "id": "call_1"},
        ),
        (
            {"type": "local_shell_call", "id": "lsh_1", "call_id": "call_1"},
            {"type": "local_shell_call_output", "call_id": "lsh_1"},
        ),
        (
            {"type": "local_shell_call", "id": "lsh_1", "call_id": "call_1"},
            {"type": "function_call_output", "call_id": "call_1"},  # as Codex answers it
        ),
        (
            {"type": "mcp_approval_request", "id": "mcpr_1"},
            {"type": "mcp_approval_response", "id": "mcpa_1", "approval_request_id": "mcpr_1"},
        ),
    ],
)
def test_every_kind_of_pair_stays_whole_or_goes(call, output):
    assert without_unpaired_calls([call, MESSAGE, output]) == [call, MESSAGE, output]
    assert without_unpaired_calls([call, MESSAGE]) == [MESSAGE]
    assert without_unpaired_calls([MESSAGE, output]) == [MESSAGE]


def test_what_asks_for_nothing_stays():
    items: list[dict[str, Any]] = [
        {"role": "user", "content": "Hi"},
        {"type": "tool_search_call", "call_id": None, "execution": "server"},
        {"type": "tool_search_output", "call_id": None, "execution": "server", "tools": []},
        {"type": "web_search_call", "id": "ws_1"},
        {"type": "additional_tools", "id": "at_1", "tools": []},
    ]

    assert without_unpaired_calls(items) == items


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ({"type": "function_call", "call_id": "call_1", "status": "completed"}, True),
        ({"type": "custom_tool_call", "call_id": "call_1"}, True),
        ({"type": "shell_call", "call_id": "call_1", "status": "incomplete"}, False),
        ({"type": "apply_patch_call", "call_id": "call_1", "status": "completed"}, True),
        ({"type": "apply_patch_call", "call_id": "call_1", "status": "in_progress"}, False),
        ({"type": "tool_search_call", "call_id": None, "status": "completed"}, False),
        ({"type": "function_call_output", "call_id": "call_1", "status": "completed"}, False),
        ({"type": "mcp_call", "id": "mcp_1", "status": "completed"}, False),
        ({"role": "user", "content": "Hi"}, False),
    ],
)
def test_a_whole_call_of_the_clients_is_for_the_client_to_answer(item, expected):
    assert is_client_call(item) is expected

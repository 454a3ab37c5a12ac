"""The items that a model is shown: which of them belong together, and a rule that no list of them may break.

An item may ask for another one: a call for its output, a request for an approval. The answer names what it answers,
by the call_id mostly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Item = Mapping[str, Any]

CLIENT_CALLS = frozenset(
    {
        "function_call",
        "custom_tool_call",
        "local_shell_call",
        "shell_call",
        "apply_patch_call",
        "computer_call",
        "tool_search_call",
    }
)
"""The types of calls that the client carries out, and answers."""


def asked_names(item: Item) -> tuple[str, ...]:
    """The names under which another item may answer this one; none if it asks for nothing.

    A tool search that the server has made has no call_id, and is complete.
    """
    type = item.get("type")
    if type == "mcp_approval_request":
        return (item["id"],)
    call_id = item.get("call_id")
    if not call_id or answered_name(item) is not None:
        return ()
    # The output of a local shell names its call by `id`, and which of the two ids is meant the document leaves open.
    return (call_id, item["id"]) if type == "local_shell_call" and item.get("id") else (call_id,)


def answered_name(item: Item) -> str | None:
    """The name of the item that this one answers; None if it answers none."""
    type = item.get("type", "message")
    if type == "mcp_approval_response":
        return str(item["approval_request_id"])
    if not type.endswith("_output"):
        return None
    return item.get("call_id") or (item.get("id") if type == "local_shell_call_output" else None)


def is_client_call(item: Item) -> bool:
    """Whether it is a whole call that the client must carry out; one that was cut short need not be."""
    if item.get("type") not in CLIENT_CALLS or not item.get("call_id"):
        return False
    if item["type"] == "apply_patch_call":  # has no status "incomplete"; one that was cut short stays in progress
        return item.get("status") != "in_progress"
    return item.get("status") != "incomplete"


def without_unpaired_calls(items: Iterable[Item]) -> list[Item]:
    """The items without calls that have no output, and without outputs that have no call.

    A deletion in the chain leaves such halves, and so does a call that was cut off; models refuse both.
    """
    items = list(items)
    others = [item for item in items if item.get("type", "message") != "message"]  # no message asks or answers
    asked = {name for item in others for name in asked_names(item)}
    answered = {answered_name(item) for item in others}
    return [item for item in items if item.get("type", "message") == "message" or _is_paired(item, asked, answered)]


def _is_paired(item: Item, asked: set[str], answered: set[str | None]) -> bool:
    names, answer = asked_names(item), answered_name(item)
    return (not names or not answered.isdisjoint(names)) and (answer is None or answer in asked)

"""The items that a model is shown: a rule that no list of them may break, wherever it came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def without_unpaired_calls(items: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The items without calls that have no output, and without outputs that have no call.

    A deletion in the chain leaves such halves, and so does a call that was cut off; models refuse both.
    """
    items = list(items)
    outputs = {item["call_id"] for item in items if item.get("call_id") and _is_output(item)}
    calls = {item["call_id"] for item in items if item.get("call_id") and not _is_output(item)}
    whole = calls & outputs
    return [item for item in items if not item.get("call_id") or item["call_id"] in whole]


def _is_output(item: Mapping[str, Any]) -> bool:
    return str(item["type"]).endswith("_output")

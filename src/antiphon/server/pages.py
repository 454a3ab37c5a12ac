"""Pages of a list: which part of it a call asks for, and the object that a page is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from antiphon.errors import NotFound

Item = dict[str, Any]

LIMIT = 20  # where a call names none


def page_of(items: Sequence[Item], parameters: Mapping[str, Any]) -> tuple[list[Item], bool]:
    """The part of the items, oldest first, that the call asks for; and whether there are more behind it."""
    ordered = list(items) if parameters.get("order") == "asc" else list(reversed(items))
    after = parameters.get("after")
    if after is not None:
        ids = [item["id"] for item in ordered]
        if after not in ids:
            raise NotFound(f"Item with id '{after}' not found.", param="after")
        ordered = ordered[ids.index(after) + 1 :]
    limit = parameters.get("limit", LIMIT)
    return ordered[:limit], len(ordered) > limit


def page_object(data: Sequence[Item], more: bool) -> dict[str, Any]:
    """The list as the API gives it."""
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": more,
    }

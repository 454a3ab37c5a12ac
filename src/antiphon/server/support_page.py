"""getSupport: the table of support as an answer, and as the page of the documentation that shows it.

The operations are added here: what is served is known where the routes are made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp

from antiphon.server.call import Api, Call, json_answer
from antiphon.server.support import TABLE, Row
from antiphon.spec.document import Document

_TITLES = {
    "operations": ("Operations", "Of Responses and Conversations, by operationId."),
    "fields": ("Fields of a create", "The body of `POST /v1/responses`. Any other key is a 400."),
    "input_items": ("Input items", "By `type`."),
    "parts": ("Parts of input items", "By `type`, and the field by which a part names a file."),
    "tools": ("Tools", "By `type`."),
    "include": ("Values of `include`", "On creates and on everything that gives responses or items."),
    "output_items": ("Output items", "By `type`."),
    "events": ("Events of a stream", "By `type`."),
}


async def get_support(api: Api, call: Call) -> ASGIApp:
    groups = {group: {name: _wire(row) for name, row in rows.items()} for group, rows in support(api.document).items()}
    return json_answer({"object": "support", **groups})


def support(document: Document) -> dict[str, dict[str, Row]]:
    """Every name of the API, by group, with what becomes of it here."""
    return {"operations": _operations(document), **TABLE}


def _operations(document: Document) -> dict[str, Row]:
    from antiphon.server.app import OPERATIONS  # which is made of this module's, too

    missing = Row("refused", "Not served yet: 404.")
    return {
        id: Row("supported") if id in OPERATIONS else missing
        for id, operation in document.operations.items()
        if operation.path.startswith(("/responses", "/conversations"))
    }


def _wire(row: Row) -> dict[str, str]:
    return {"status": row.status, "note": row.note} if row.note else {"status": row.status}


def page() -> str:
    """The table as Markdown."""
    return "\n\n".join(_markdown(group, rows) for group, rows in support(Document.load()).items())


def _markdown(group: str, rows: Mapping[str, Row]) -> str:
    title, what = _TITLES[group]
    lines = [f"## {title}", "", what, "", "| Name | Status | Note |", "|---|---|---|"]
    lines += [f"| `{name}` | {row.status} | {row.note} |" for name, row in rows.items()]
    return "\n".join(lines)


OPERATIONS: Mapping[str, Any] = {"getSupport": get_support}

"""What can be read from a SQLite store: one function per question, each a single statement, so a single snapshot.

No function leaves a statement open: a forgotten snapshot would keep deleted text in the write-ahead log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import apsw
import msgspec

from antiphon.store.base import Item, Note, Page, Segment, Stored
from antiphon.store.sqlite_file import SQL
from antiphon.store.sqlite_rows import page_of, rows_of
from antiphon.store.sqlite_writes import not_found


def get(cursor: apsw.Cursor, tenant: str, response_id: str) -> Stored:
    rows = rows_of(cursor, "get", {"tenant": tenant, "id": response_id})
    if not rows:
        raise not_found(response_id)
    return _stored(tenant, rows[0])


def list_responses(
    cursor: apsw.Cursor,
    tenant: str,
    limit: int,
    after: str | None,
    descending: bool,
    status: str | None,
    model: str | None,
    metadata: Mapping[str, str] | None,
) -> tuple[list[Stored], bool]:
    place = None if after is None else _find(cursor, tenant, after)[0]
    pairs = msgspec.json.encode(metadata).decode() if metadata else None
    filters = {"tenant": tenant, "status": status, "model": model, "metadata": pairs}
    rows, more = page_of(cursor, "list_responses", filters, limit, place, descending)
    return [_stored(tenant, row) for row in rows], more


def _stored(tenant: str, row: Sequence[Any]) -> Stored:
    id, status, model, created_at, background, closed, attempt, request, response, previous, *rest = row
    followed_until, metadata, mask, conversation = rest
    return Stored(
        id=id,
        tenant=tenant,
        status=status,
        model=model,
        created_at=created_at,
        background=bool(background),
        closed=bool(closed),
        attempt=attempt,
        request=request,
        response=response,
        previous=previous,
        followed_until=followed_until,
        metadata=metadata,
        mask=mask,
        conversation=conversation,
    )


def read(cursor: apsw.Cursor, tenant: str, response_id: str, after: int, limit_bytes: int) -> Page:
    segments: list[Segment] = []
    closed: Any = None
    more = False
    cursor.execute(SQL["read"], {"tenant": tenant, "id": response_id, "after": after})
    try:
        for row in cursor:
            closed, first, last, mask, frames = row
            if first is None:  # the response is there, and nothing above `after`
                break
            if segments and len(frames) > limit_bytes:
                more = True
                break
            limit_bytes -= len(frames)
            segments.append(Segment(first, last - first + 1, frames, mask))
    finally:
        cursor.close()
    if closed is None:
        raise not_found(response_id)
    return Page(tuple(segments), bool(closed) and not more)


def notes(cursor: apsw.Cursor, tenant: str, response_id: str) -> list[Note]:
    rows = rows_of(cursor, "notes", {"tenant": tenant, "id": response_id})
    if not rows:
        raise not_found(response_id)
    return [Note(after, kind, body) for after, kind, body in rows if kind is not None]


def extent(cursor: apsw.Cursor, tenant: str, response_id: str) -> tuple[int, bool]:
    """How many ancestors the response has at most, and whether it begins with the items of a conversation."""
    rows = rows_of(cursor, "extent", {"tenant": tenant, "id": response_id})
    if not rows:
        raise not_found(response_id)
    return rows[0][0], bool(rows[0][1])


def context(cursor: apsw.Cursor, tenant: str, response_id: str, output: bool) -> list[Item]:
    rows = rows_of(cursor, "context", {"tenant": tenant, "id": response_id, "output": output})
    if not rows:
        raise not_found(response_id)
    # An item stands where it was said first; dicts keep the place of a key's first coming.
    return [Item(id, body) for id, body in dict.fromkeys(rows) if id is not None]


def find_items(cursor: apsw.Cursor, tenant: str, ids: Sequence[str]) -> dict[str, Item]:
    wanted = msgspec.json.encode(list(ids)).decode()
    return {id: Item(id, body) for id, body in rows_of(cursor, "find_items", {"tenant": tenant, "ids": wanted})}


def _find(cursor: apsw.Cursor, tenant: str, response_id: str) -> Any:
    rows = rows_of(cursor, "find", {"tenant": tenant, "id": response_id})
    if not rows:
        raise not_found(response_id)
    return rows[0]

"""What can be read from a SQLite store: one function per question, each a single statement, so a single snapshot.

No function leaves a statement open: a forgotten snapshot would keep deleted text in the write-ahead log.
"""

from __future__ import annotations

from typing import Any

import apsw

from antiphon.store.base import Item, Note, Page, Segment, Stored
from antiphon.store.sqlite_file import SQL
from antiphon.store.sqlite_writes import not_found, rows_of


def get(cursor: apsw.Cursor, tenant: str, response_id: str) -> Stored:
    rows = rows_of(cursor, "get", {"tenant": tenant, "id": response_id})
    if not rows:
        raise not_found(response_id)
    (status, model, created_at, background, closed, attempt, request, response, previous, followed_until, *rest) = rows[
        0
    ]
    metadata, mask = rest
    return Stored(
        id=response_id,
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


def depth(cursor: apsw.Cursor, tenant: str, response_id: str) -> int:
    """How many ancestors the response has at most."""
    rows = rows_of(cursor, "find", {"tenant": tenant, "id": response_id})
    if not rows:
        raise not_found(response_id)
    return int(rows[0][1])


def context(cursor: apsw.Cursor, tenant: str, response_id: str, output: bool) -> list[Item]:
    rows = rows_of(cursor, "context", {"tenant": tenant, "id": response_id, "output": output})
    if not rows:
        raise not_found(response_id)
    # An item stands where it was said first; dicts keep the place of a key's first coming.
    items = {row: (id, body) for row, id, body in rows if row is not None}
    return [Item(id, body) for id, body in items.values()]

"""What can be read from a SQLite store: one function per question, each a single statement, so a single snapshot.

No function leaves a statement open: a forgotten snapshot would keep deleted text in the write-ahead log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import apsw
import msgspec

from antiphon.store.base import Item, Note, Page, Segment, Stored
from antiphon.store.packing import is_packed, plain_response, size_of, stored_of, unpack_segment
from antiphon.store.refusals import response_not_found
from antiphon.store.sqlite_file import SQL
from antiphon.store.sqlite_rows import page_of, rows_of


def get(cursor: apsw.Cursor, tenant: str, response_id: str) -> Stored:
    rows = rows_of(cursor, "get", {"tenant": tenant, "id": response_id})
    if not rows:
        raise response_not_found(response_id)
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
    *facts, said = row
    return stored_of(tenant, facts, [said or b""])


def _response(cursor: apsw.Cursor, tenant: str, response_id: str) -> bytes:
    """The final object, which its log is packed against."""
    rows = rows_of(cursor, "packed", {"tenant": tenant, "id": response_id})
    if not rows:  # erased meanwhile
        raise response_not_found(response_id)
    request, response, said = rows[0]
    return plain_response(request, response, [said or b""]) or b""  # an open log has none, and nothing that is packed


class Kept(NamedTuple):
    """A page of a log as it is kept."""

    page: Page
    size: int  # the bytes that it has when it is unpacked, about
    response: bytes | None  # what it is packed against; None if it is not

    def plain(self) -> Page:
        if self.response is None:
            return self.page
        segments = tuple(unpack_segment(segment, self.response) for segment in self.page.segments)
        return Page(segments, self.page.closed, self.page.more)


def read(cursor: apsw.Cursor, tenant: str, response_id: str, after: int, limit_bytes: int) -> Kept:
    segments: list[Segment] = []
    closed: Any = None
    more = packed = False
    size = 0
    connection = cursor.connection
    cursor.execute(SQL["read"], {"tenant": tenant, "id": response_id, "after": after})
    try:
        for row in cursor:
            closed, first, last, mask, frames = row
            if first is None:  # the response is there, and nothing above `after`
                break
            packed = packed or is_packed(frames)
            size_here = size_of(frames) if packed else len(frames)
            if segments and size + size_here > limit_bytes:
                more = True
                break
            size += size_here
            segments.append(Segment(first, last - first + 1, frames, mask))
    finally:
        cursor.close()
    if closed is None:
        raise response_not_found(response_id)
    page = Page(tuple(segments), bool(closed) and not more, more)
    return Kept(page, size, _response(connection.cursor(), tenant, response_id) if packed else None)


def notes(cursor: apsw.Cursor, tenant: str, response_id: str) -> list[Note]:
    rows = rows_of(cursor, "notes", {"tenant": tenant, "id": response_id})
    if not rows:
        raise response_not_found(response_id)
    return [Note(after, kind, body) for after, kind, body in rows if kind is not None]


def extent(cursor: apsw.Cursor, tenant: str, response_id: str) -> tuple[int, bool]:
    """How many ancestors the response has at most, and whether it begins with the items of a conversation."""
    rows = rows_of(cursor, "extent", {"tenant": tenant, "id": response_id})
    if not rows:
        raise response_not_found(response_id)
    return rows[0][0], bool(rows[0][1])


def context(cursor: apsw.Cursor, tenant: str, response_id: str, output: bool) -> list[Item]:
    rows = rows_of(cursor, "context", {"tenant": tenant, "id": response_id, "output": output})
    if not rows:
        raise response_not_found(response_id)
    # An item stands where it was said first; dicts keep the place of a key's first coming.
    return [Item(id, body) for id, body in dict.fromkeys(rows) if id is not None]


def find_items(cursor: apsw.Cursor, tenant: str, ids: Sequence[str]) -> dict[str, Item]:
    wanted = msgspec.json.encode(list(ids)).decode()
    return {id: Item(id, body) for id, body in rows_of(cursor, "find_items", {"tenant": tenant, "ids": wanted})}


def _find(cursor: apsw.Cursor, tenant: str, response_id: str) -> Any:
    rows = rows_of(cursor, "find", {"tenant": tenant, "id": response_id})
    if not rows:
        raise response_not_found(response_id)
    return rows[0]


def count_background(cursor: apsw.Cursor, tenant: str | None) -> int:
    ((count,),) = rows_of(cursor, "count_background", {"tenant": tenant})
    return int(count)

"""What can be read from PostgreSQL: one function per question.

Each is a single statement, but for the start of a page of a list, and for what a packed log is unpacked with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from antiphon.errors import StoreError
from antiphon.store.base import Item, Note, Page, Segment, Stored
from antiphon.store.packing import is_packed, plain_response, stored_of, unpack_segment
from antiphon.store.postgres_database import SQL
from antiphon.store.postgres_rows import page_of
from antiphon.store.postgres_writes import labels_of
from antiphon.store.refusals import response_not_found

_NUMBER_MAX = (1 << 62) - 1
_SEGMENT_BYTES_MIN = 64  # hardly a frame is shorter: so many segments may fit into a page


async def check(connection: Any) -> None:
    if await connection.fetchval("SELECT current_setting('transaction_read_only')") == "on":
        raise StoreError("The database is read-only: another server may be the primary now.")


async def get(connection: Any, tenant: str, response_id: str) -> Stored:
    row = await connection.fetchrow(SQL["get"], tenant, response_id)
    if row is None:
        raise response_not_found(response_id)
    return _stored(tenant, row)


async def list_responses(
    connection: Any,
    tenant: str,
    limit: int,
    after: str | None,
    descending: bool,
    status: str | None,
    model: str | None,
    metadata: Mapping[str, str] | None,
) -> tuple[list[Stored], bool]:
    place = None
    if after is not None:
        place = await connection.fetchval(SQL["find"], tenant, after)
        if place is None:
            raise response_not_found(after)
    filters = (status, model, labels_of(metadata or {}))
    rows, more = await page_of(
        connection, "list_responses", tenant, *filters, limit=limit, after=place, descending=descending
    )
    return [_stored(tenant, row) for row in rows], more


def _stored(tenant: str, row: Sequence[Any]) -> Stored:
    *facts, said = row
    return stored_of(tenant, facts, said or ())


async def read(connection: Any, tenant: str, response_id: str, after: int, limit_bytes: int) -> Page:
    segments_max = limit_bytes // _SEGMENT_BYTES_MIN + 1
    rows = await connection.fetch(SQL["read"], tenant, response_id, min(after, _NUMBER_MAX), limit_bytes, segments_max)
    if not rows:
        raise response_not_found(response_id)
    closed, ends = rows[0][:2]
    segments = tuple(
        Segment(first, last - first + 1, frames, mask) for _, _, first, last, mask, frames in rows if first is not None
    )
    more = bool(segments) and segments[-1].last != ends
    if any(is_packed(segment.frames) for segment in segments):
        packed = await connection.fetchrow(SQL["packed"], tenant, response_id)
        if packed is None:  # erased meanwhile
            raise response_not_found(response_id)
        request, response, said = packed
        segments = await asyncio.to_thread(_unpacked, segments, plain_response(request, response, said or ()) or b"")
    return Page(segments, closed and not more, more)


def _unpacked(segments: Sequence[Segment], response: bytes) -> tuple[Segment, ...]:
    return tuple([unpack_segment(segment, response) for segment in segments])


async def notes(connection: Any, tenant: str, response_id: str) -> list[Note]:
    rows = await connection.fetch(SQL["notes"], tenant, response_id)
    if not rows:
        raise response_not_found(response_id)
    return [Note(after, kind, body) for after, kind, body in rows if kind is not None]


async def context(connection: Any, tenant: str, response_id: str, output: bool) -> list[Item]:
    rows = await connection.fetch(SQL["context"], tenant, response_id, int(output))
    if not rows:
        raise response_not_found(response_id)
    # An item stands where it was said first; dicts keep the place of a key's first coming.
    return [Item(id, body) for id, body in dict.fromkeys(map(tuple, rows)) if id is not None]


async def find_items(connection: Any, tenant: str, ids: Sequence[str]) -> dict[str, Item]:
    return {id: Item(id, body) for id, body in await connection.fetch(SQL["find_items"], tenant, list(ids))}


async def secret(connection: Any, name: str, fresh: str) -> str:
    """The secret of that name; the fresh one, if there is none."""
    await connection.execute(SQL["keep_secret"], name, fresh)
    value: str = await connection.fetchval(SQL["find_secret"], name)
    return value


async def count_background(connection: Any, tenant: str | None) -> int:
    return int(await connection.fetchval(SQL["count_background"], tenant))

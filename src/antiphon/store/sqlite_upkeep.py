"""The upkeep of a SQLite store. Compacting reads and packs aside; the writer only puts the result in its place.

A log is compacted by stretches, each in a transaction of its own, so that nobody's append waits for a long one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal, NamedTuple

import apsw

from antiphon.store.base import Segment, Tokens
from antiphon.store.packing import PIECE_BYTES, dictionary_of, pack, pack_segments
from antiphon.store.sql import queries
from antiphon.store.sqlite_rows import rows_of
from antiphon.store.sqlite_writes import create_segment, erase
from antiphon.store.upkeep import Used

SQL = queries("sqlite_upkeep")

_ALWAYS = 1 << 62  # seconds


class SqliteUpkeep:
    """The `Upkeep` of a database.

    read: gives what a function makes of a cursor, by a thread; write: the same in a transaction, once it is committed.
    """

    def __init__(
        self, read: Callable[..., Awaitable[Any]], write: Callable[..., Awaitable[Any]], now: Callable[[], float]
    ) -> None:
        self._read = read
        self._write = write
        self._now = now

    async def expire(self, *, limit: int) -> list[tuple[str, str]]:
        if not await self._read(_expired, limit):
            return []  # a commit for nothing would be one, too
        expired: list[tuple[str, str]] = await self._write(expire, limit, erases=True)
        return expired

    async def compact(self, *, settled_seconds: float) -> bool:
        stretch = await self._read(_next_stretch, self._now() - settled_seconds)
        if stretch is None:
            return False
        await self._write(replace, stretch, size=len(stretch.segment.frames) if stretch.segment else 0)
        return True

    async def usage(
        self,
        *,
        tenant: str | None = None,
        since: float | None = None,
        until: float | None = None,
        by: Literal["model", "day"] | None = None,
    ) -> list[Used]:
        used: list[Used] = await self._read(_usage, tenant, since or 0, _ALWAYS if until is None else until, by)
        return used


class _Stretch(NamedTuple):
    """Consecutive segments of a log as one, packed, and what was there when they were read."""

    row: int
    tenant: str
    id: str
    request: bytes
    response: bytes
    segment: Segment | None  # None: all are packed already
    packed_response: bytes | None  # with the last stretch of a log


def expire(cursor: apsw.Cursor, limit: int) -> list[tuple[str, str]]:
    expired = _expired(cursor, limit)
    for row, _tenant, _id in expired:
        erase(cursor, row)
    return [(tenant, id) for _row, tenant, id in expired]


def _expired(cursor: apsw.Cursor, limit: int) -> list[tuple[int, str, str]]:
    rows: list[tuple[int, str, str]] = _rows(cursor, "expired", {"limit": limit})
    return rows


def _next_stretch(cursor: apsw.Cursor, before: float) -> _Stretch | None:
    """What is to be packed next. It reads by several statements, so `replace` looks whether it is all still there."""
    rows = _rows(cursor, "loose", {"before": before})
    if not rows:
        return None
    row, tenant, id, request, response = rows[0]
    segments, all = _loose_segments(cursor, row)
    packed = None
    if all:
        said = [body for (body,) in rows_of(cursor, "said", {"row": row})]
        packed = pack(response, dictionary_of(request, said))
    segment = pack_segments(segments, response) if segments else None
    return _Stretch(row, tenant, id, request, response, segment, packed)


def _loose_segments(cursor: apsw.Cursor, row: int) -> tuple[list[Segment], bool]:
    """The first segments that are not packed yet, as many as one is to hold, and whether these are all."""
    segments: list[Segment] = []
    size = 0
    for columns in cursor.execute(SQL["loose_segments"], {"row": row}):
        segment = Segment(*columns)
        if segments and size + len(segment.frames) > PIECE_BYTES:
            cursor.close()
            return segments, False
        segments.append(segment)
        size += len(segment.frames)
    return segments, True


def replace(cursor: apsw.Cursor, stretch: _Stretch) -> None:
    """Put what is packed in the place of what it was made from, if that is still there."""
    same = {name: getattr(stretch, name) for name in ("row", "tenant", "id", "request", "response")}
    if not _rows(cursor, "is_loose", same):
        return  # deleted; the row's number may be another response's by now
    if stretch.segment is not None:
        first, last = stretch.segment.first, stretch.segment.last
        cursor.execute(SQL["delete_stretch"], {"row": stretch.row, "first": first, "last": last})
        create_segment(cursor, stretch.row, stretch.segment)
    if stretch.packed_response is not None:
        # Not updated in its place: SQLite joins pages that have become nearly empty when rows go, and only then.
        (columns,) = _rows(cursor, "take", {"row": stretch.row})
        cursor.execute(SQL["put"], (*columns, stretch.packed_response))


def _usage(
    cursor: apsw.Cursor, tenant: str | None, since: float, until: float, by: Literal["model", "day"] | None
) -> list[Used]:
    asked = {"tenant": tenant, "since": since, "until": until, "by_model": by == "model", "by_day": by == "day"}
    rows = _rows(cursor, "usage", asked)
    return [Used(tenant, model, day, count, Tokens(*sums)) for tenant, model, day, count, *sums in rows]


def _rows(cursor: apsw.Cursor, name: str, bindings: apsw.Bindings) -> list[Any]:
    return cursor.execute(SQL[name], bindings).fetchall()

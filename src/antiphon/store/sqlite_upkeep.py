"""The upkeep of a SQLite store. Compacting reads and packs aside; the writer only puts the result in its place.

A log is compacted by stretches, each in a transaction of its own, so that nobody's append waits for a long one.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, NamedTuple

import apsw

from antiphon.errors import StoreError
from antiphon.store.base import Segment, Tokens
from antiphon.store.packing import PIECE_BYTES, dictionary_of, pack, pack_segments
from antiphon.store.sql import queries
from antiphon.store.sqlite_rows import rows_of
from antiphon.store.sqlite_writes import create_segment, erase
from antiphon.store.upkeep import Used

logger = logging.getLogger(__name__)

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
        self._damaged: set[int] = set()  # rows that fail again and again: the others must not wait behind them

    async def expire(self, *, limit: int) -> list[tuple[str, str]]:
        due = await self._read(_expired, limit, tuple(self._damaged))
        if not due:
            return []  # a commit for nothing would be one, too
        try:
            expired: list[tuple[str, str]] = await self._write(expire, limit, tuple(self._damaged), erases=True)
        except StoreError as error:
            if error.passing:
                raise
            expired = await self._expire_each([row for row, _tenant, _id in due])
        return expired

    async def _expire_each(self, rows: Sequence[int]) -> list[tuple[str, str]]:
        """Erase what can be, of rows that cannot be erased together; what is damaged is left."""
        expired: list[tuple[str, str]] = []
        for row in rows:
            others = {*self._damaged, *rows} - {row}
            try:
                expired += await self._write(expire, 1, tuple(others), erases=True)
            except StoreError as error:
                if error.passing:
                    raise
                logger.error("an expired response cannot be erased: %s", error)
                self._damaged.add(row)
        return expired

    async def compact(self, *, settled_seconds: float) -> bool:
        found = await self._read(_next_loose, self._now() - settled_seconds, tuple(self._damaged))
        if found is None:
            return False
        try:
            stretch = await self._read(_next_stretch, found)
            if stretch is not None:  # else it has just been deleted
                await self._write(replace, stretch, size=len(stretch.segment.frames) if stretch.segment else 0)
        except StoreError as error:
            if not error.passing:
                self._damaged.add(found)
            raise
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


def expire(cursor: apsw.Cursor, limit: int, damaged: tuple[int, ...] = ()) -> list[tuple[str, str]]:
    expired = _expired(cursor, limit, damaged)
    for row, _tenant, _id in expired:
        erase(cursor, row)
    return [(tenant, id) for _row, tenant, id in expired]


def _expired(cursor: apsw.Cursor, limit: int, damaged: tuple[int, ...]) -> list[tuple[int, str, str]]:
    rows: list[tuple[int, str, str]] = _rows(cursor, "expired", {"limit": limit + len(damaged)})
    return [row for row in rows if row[0] not in damaged][:limit]


def _next_loose(cursor: apsw.Cursor, before: float, damaged: tuple[int, ...]) -> int | None:
    rows = _rows(cursor, "loose", {"before": before, "limit": 1 + len(damaged)})
    return next((row for (row,) in rows if row not in damaged), None)


def _next_stretch(cursor: apsw.Cursor, row: int) -> _Stretch | None:
    """What is to be packed next. It reads by several statements, so `replace` looks whether it is all still there."""
    rows = _rows(cursor, "loose_response", {"row": row})
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

"""The upkeep of a PostgreSQL store. Every node does it, beside the others: each takes what no other one has locked.

A log is compacted by stretches, each in a transaction of its own; only who deletes that response waits for one.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any, Literal

from antiphon.store.base import Segment, Tokens
from antiphon.store.packing import PIECE_BYTES, dictionary_of, pack, pack_segments
from antiphon.store.postgres_database import Database
from antiphon.store.postgres_writes import erase
from antiphon.store.sql import queries
from antiphon.store.upkeep import Used

SQL = queries("postgres_upkeep")

_ALWAYS = 1 << 62  # seconds
_FETCH_ROWS = 256


class PostgresUpkeep:
    """The `Upkeep` of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def expire(self, *, limit: int) -> list[tuple[str, str]]:
        return await self._database.change(expire, limit)

    async def compact(self, *, settled_seconds: float) -> bool:
        return await self._database.change(compact, settled_seconds)

    async def usage(
        self,
        *,
        tenant: str | None = None,
        since: float | None = None,
        until: float | None = None,
        by: Literal["model", "day"] | None = None,
    ) -> list[Used]:
        begin, end = math.ceil(since or 0), _ALWAYS if until is None else math.ceil(until)
        return await self._database.run(usage, tenant, begin, end, by == "model", by == "day")


async def expire(connection: Any, limit: int) -> list[tuple[str, str]]:
    expired = await connection.fetch(SQL["lock_expired"], limit)
    if not expired:
        return []
    kept = {row for (row,) in await connection.fetch(SQL["lock_previous"], [each["previous"] for each in expired])}
    # One whose previous response is just being deleted is left for the next time.
    free = [each for each in expired if each["previous"] is None or each["previous"] in kept]
    await erase(connection, [each["row"] for each in free])
    return [(each["tenant"], each["id"]) for each in free]


async def compact(connection: Any, settled_seconds: float) -> bool:
    loose = await connection.fetchrow(SQL["lock_loose"], settled_seconds)
    if loose is None:
        return False
    row, request, response, said = loose
    segments, all = await _loose_segments(connection, row)
    if segments:
        await _replace(connection, row, segments, response)
    if all:
        packed = await asyncio.to_thread(pack, response, dictionary_of(request, said))
        await connection.execute(SQL["pack_response"], row, packed)
    return True


async def _loose_segments(connection: Any, row: int) -> tuple[list[Segment], bool]:
    """The first segments that are not packed yet, as many as one is to hold, and whether these are all."""
    segments: list[Segment] = []
    size = 0
    async for columns in connection.cursor(SQL["loose_segments"], row, prefetch=_FETCH_ROWS):
        segment = Segment(*columns)
        if segments and size + len(segment.frames) > PIECE_BYTES:
            return segments, False
        segments.append(segment)
        size += len(segment.frames)
    return segments, True


async def _replace(connection: Any, row: int, segments: Sequence[Segment], response: bytes) -> None:
    """Put one packed segment in the place of these."""
    packed = await asyncio.to_thread(pack_segments, segments, response)
    plain_bytes = sum(len(segment.frames) for segment in segments)
    await connection.execute(SQL["delete_stretch"], row, packed.first, packed.last)
    await connection.execute(
        SQL["put_stretch"], row, packed.first, packed.last, packed.mask, packed.frames, plain_bytes
    )


async def usage(connection: Any, tenant: str | None, begin: int, end: int, by_model: bool, by_day: bool) -> list[Used]:
    rows = await connection.fetch(SQL["usage"], tenant, begin, end, by_model, by_day)
    return [Used(tenant, model, day, count, Tokens(*sums)) for tenant, model, day, count, *sums in rows]

"""Whether a text is in any row of a PostgreSQL database. A text that is found is never told, only where it is.

What is packed is unpacked to be searched. What is no row any more cannot be seen from here: UNSEEN.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from antiphon.store.base import Segment
from antiphon.store.packing import plain_response, unpack_segment
from antiphon.store.postgres_database import Database, translating
from antiphon.store.sql import queries
from antiphon.store.upkeep import Found, forms_of

SQL = queries("postgres_search")
UNSEEN = (
    "Only rows were searched. PostgreSQL keeps what was deleted in its tables' files until VACUUM has run and their "
    "pages are written anew, in its write-ahead log until that is recycled, and in replicas, archives and backups."
)

FETCH_ROWS = 64
FETCH_SECONDS = 3600.0


async def search(url: str, text: str) -> list[Found]:
    """Everywhere that the text is in the rows of one moment, beside servers that use them or not. Raises StoreError."""
    database = Database(url, connections_max=1, call_seconds=5.0, durability="full")
    await database.open()
    try:
        with translating():
            async with database.aside() as connection:
                await connection.transaction(isolation="repeatable_read", readonly=True).start()
                return [found async for found in _in_tables(connection, forms_of(text))]
    finally:
        await database.close()


async def _in_tables(connection: Any, forms: Sequence[bytes]) -> AsyncIterator[Found]:
    async for found in _in_responses(connection, forms):
        yield found
    for (table,) in await connection.fetch(SQL["tables"]):
        if table in ("responses", "segments"):
            continue
        async for row in _rows(connection, f'SELECT * FROM "{table}"'):
            for found in _in_row(table, row, forms):
                yield found


async def _in_responses(connection: Any, forms: Sequence[bytes]) -> AsyncIterator[Found]:
    """In the rows of responses and in their logs, unpacked."""
    async for kept in _rows(connection, SQL["responses"]):
        row = dict(kept)
        row["response"] = plain_response(row["request"], row["response"], row.pop("said") or ())
        for found in _in_row("responses", row, forms):
            yield found
        async for columns in _rows(connection, SQL["segments"], row["row"]):
            segment = unpack_segment(Segment(*columns), row["response"] or b"")
            if _holds(segment.frames, forms):
                yield Found("segments.frames", f"{row['id']}, from event {segment.first} on")
    async for response, first in _rows(connection, SQL["orphans"]):
        yield Found("segments.frames", f"response {response}, which is not there, from event {first} on")


def _rows(connection: Any, statement: str, *arguments: Any) -> AsyncIterator[Any]:
    cursor = connection.cursor(statement, *arguments, prefetch=FETCH_ROWS, timeout=FETCH_SECONDS)
    rows: AsyncIterator[Any] = aiter(cursor)
    return rows


def _in_row(table: str, row: Mapping[str, Any], forms: Sequence[bytes]) -> list[Found]:
    owner = str(row["id"]) if "id" in row else f"row {row['row']}" if "row" in row else "a row"
    return [Found(f"{table}.{name}", owner) for name, value in row.items() if _holds(value, forms)]


def _holds(value: Any, forms: Sequence[bytes]) -> bool:
    if isinstance(value, list):
        return any(_holds(each, forms) for each in value)
    content = value.encode() if isinstance(value, str) else value
    return isinstance(content, bytes) and any(form in content for form in forms)

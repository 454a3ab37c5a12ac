"""A PostgreSQL store's content as portable records, and back, each on a connection of its own.

To read is one transaction that sees one moment; nobody waits for it, but VACUUM cannot take away meanwhile what was
deleted since it began.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Sequence
from hashlib import sha256
from itertools import groupby
from typing import Any

import msgspec

from antiphon.errors import StoreError
from antiphon.store import portable
from antiphon.store.portable import Record
from antiphon.store.portable_rows import GIVEN, SAID, columns_of, made, response_of, segment_of, turn_of
from antiphon.store.postgres_database import Database, translating
from antiphon.store.postgres_writes import labels_of
from antiphon.store.sql import queries

COMMIT_BYTES = 8 << 20  # a transaction of a load is as large, or one response if that is larger
FETCH_ROWS = 64
FETCH_SECONDS = 3600.0  # the first rows of a large table may have to be sorted

_SQL = queries("postgres_portable")
_DUMPED: dict[str, type[Record]] = {
    "dump_secrets": portable.Secret,
    "dump_keys": portable.ApiKey,
    "dump_usage": portable.Usage,
    "dump_conversations": portable.Conversation,
    "dump_conversation_items": portable.Kept,
    "dump_prompts": portable.Prompt,
    "dump_items": portable.Item,
}
_LOADED: dict[type[Record], str] = {
    portable.Secret: "load_secrets",
    portable.ApiKey: "load_keys",
    portable.Usage: "load_usage",
    portable.Conversation: "load_conversations",
    portable.Kept: "load_conversation_items",
    portable.Prompt: "load_prompts",
    portable.Segment: "load_segments",
    portable.Note: "load_notes",
}


async def dump(database: Database) -> AsyncGenerator[Sequence[Record], None]:
    """Everything in the database, by batches."""
    with translating():
        async with database.aside() as connection:
            transaction = connection.transaction(isolation="repeatable_read", readonly=True)
            await transaction.start()
            async with contextlib.aclosing(portable.batches_of(_records(connection))) as batches:
                async for batch in batches:
                    yield batch


async def load(database: Database, source: AsyncIterable[Sequence[Record]]) -> Counter[type[Record]]:
    """Take in everything; gives how many records of each kind were not there before."""
    async with contextlib.AsyncExitStack() as stack:
        with translating():
            loading = _Load(await stack.enter_async_context(database.aside()))
        async for batch in source:  # what goes wrong there is no matter of the database
            with translating():
                await loading.add(batch)
        with translating():
            await loading.commit()
    return loading.added


async def _records(connection: Any) -> AsyncGenerator[Record, None]:
    for name, kind in _DUMPED.items():
        async for columns in _rows(connection, name):
            yield made(kind, columns)
    async for row, *columns in _rows(connection, "dump_responses"):
        links = [tuple(found) async for found in _rows(connection, "dump_links", row)]
        turn = await connection.fetchrow(_SQL["dump_turn"], row)
        key = await connection.fetchrow(_SQL["dump_idempotency"], row)
        response = response_of(
            columns, links, turn and turn_of(tuple(turn)), key and made(portable.Idempotency, tuple(key))
        )
        yield response
        async for found in _rows(connection, "dump_segments", row):
            yield segment_of(tuple(found), response)
        async for found in _rows(connection, "dump_notes", row):
            yield made(portable.Note, found)


def _rows(connection: Any, name: str, *arguments: Any) -> AsyncIterator[Any]:
    cursor = connection.cursor(_SQL[name], *arguments, prefetch=FETCH_ROWS, timeout=FETCH_SECONDS)
    rows: AsyncIterator[Any] = aiter(cursor)
    return rows


class _Load:
    """Takes in records. What was there before stays as it is, so that what was interrupted can begin anew."""

    def __init__(self, connection: Any) -> None:
        self.added: Counter[type[Record]] = Counter()
        self._connection = connection
        self._transaction: Any = None
        self._uncommitted = 0  # bytes
        self._response: int | None = None  # the row that parts belong to; None if they are there already

    async def add(self, records: Sequence[Record]) -> None:
        """Take in these, which go on where the last ones ended; neighbours of one kind together."""
        for kind, group in groupby(records, key=type):
            neighbours = list(group)
            if self._uncommitted >= COMMIT_BYTES and not portable.is_part(neighbours[0]):
                await self.commit()
            if self._transaction is None:
                self._transaction = self._connection.transaction()
                await self._transaction.start()
            self.added[kind] += await self._added(kind, neighbours)
            self._uncommitted += sum(map(portable.size_of, neighbours))

    async def commit(self) -> None:
        """Commit, so that this much need not be taken in again."""
        if self._transaction is not None:
            await self._transaction.commit()
        self._transaction = None
        self._uncommitted = 0

    async def _added(self, kind: type[Record], records: Sequence[Any]) -> int:
        """How many of these were not there."""
        if kind is portable.Response:
            return sum([await self._add_response(response) for response in records])
        if kind is portable.Item:
            items = [(each.tenant, each.id, sha256(each.body).digest(), each.body) for each in records]
            return len(await self._insert("load_items", items))
        rows = [tuple(columns_of(record).values()) for record in records]
        if portable.is_part(records[0]):
            return 0 if self._response is None else len(await self._insert(_LOADED[kind], rows, self._response))
        added = len(await self._insert(_LOADED[kind], rows))
        if kind is portable.Secret:
            await self._check_secrets(records)
        return added

    async def _insert(self, name: str, rows: Sequence[Sequence[Any]], *before: Any) -> list[Any]:
        columns = [list(column) for column in zip(*rows, strict=True)]
        found: list[Any] = await self._connection.fetch(_SQL[name], *before, *columns)
        return found

    async def _check_secrets(self, secrets: Sequence[portable.Secret]) -> None:
        for secret in secrets:
            if await self._connection.fetchval(_SQL["find_secret"], secret.name) != secret.value:
                raise StoreError(
                    f"The database has another key ({secret.name}) than what is to be loaded: a server has made it. "
                    "Load into a new database before a server runs on it; or, if nothing in this one is encrypted, "
                    f"DELETE FROM antiphon.secrets WHERE name = '{secret.name}'."
                )

    async def _add_response(self, response: portable.Response) -> int:
        tenant, id = response.tenant, response.id
        self._response = await self._connection.fetchval(
            _SQL["load_response"],
            *(tenant, id, response.model, response.background, response.closed, response.attempt, response.tries),
            *(response.followed_until, response.created_at, response.expires_at, response.status, response.metadata),
            *(labels_of(msgspec.json.decode(response.metadata)), response.request, response.mask, response.response),
            response.previous,
        )
        if self._response is None:
            if await self._connection.fetchval(_SQL["is_there"], tenant, id) is None:
                raise StoreError(f"Response '{id}' continues '{response.previous}', which does not come before it.")
            return 0
        await self._add_links(self._response, response)
        for name, part in (("load_turn", response.turn), ("load_idempotency", response.idempotency)):
            if part is not None:
                await self._connection.execute(_SQL[name], self._response, tenant, *columns_of(part).values())
        return 1

    async def _add_links(self, row: int, response: portable.Response) -> None:
        links = {
            (output, position): link
            for output, given in ((GIVEN, response.given), (SAID, response.said))
            for position, link in enumerate(given)
        }
        if not links:
            return
        rows = [(*place, link.id, bytes.fromhex(link.sha256)) for place, link in links.items()]
        for found in await self._insert("load_links", rows, row, response.tenant):
            del links[tuple(found)]
        for link in links.values():
            raise StoreError(f"Response '{response.id}' refers to item '{link.id}', which does not come before it.")

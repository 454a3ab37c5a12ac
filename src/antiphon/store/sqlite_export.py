"""A SQLite store's content as portable records, and back, each on a connection and by a thread of its own.

To read is one transaction, which is one snapshot. Beside a running server it stops nothing and nobody, but the
write-ahead log cannot be emptied meanwhile: what is deleted in this time is erased when the reading is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

import apsw

from antiphon.errors import StoreError
from antiphon.store import portable
from antiphon.store.portable import Link, Record
from antiphon.store.portable_rows import GIVEN, SAID, columns_of, made, response_of, segment_of, turn_of
from antiphon.store.sql import queries
from antiphon.store.sqlite_checkpoint import Checkpointer
from antiphon.store.sqlite_file import SQL
from antiphon.store.writer import failed

T = TypeVar("T")

COMMIT_BYTES = 8 << 20  # a transaction of a load is as large, or one response if that is larger

_PORTABLE = queries("sqlite_portable")
_SECRET = "seals"  # kept in a file beside the database
_CREATED_AT = 2  # the column of usage
_SIMPLE: dict[str, type[Record]] = {
    "dump_conversations": portable.Conversation,
    "dump_conversation_items": portable.Kept,
    "dump_prompts": portable.Prompt,
    "dump_items": portable.Item,
}


async def dump(connect: Callable[[], apsw.Connection], path: str | None) -> AsyncGenerator[Sequence[Record], None]:
    """Everything in the database, by batches.

    path: of its file, beside which its secret is.
    """
    reading = _batches(connect, path)
    with ThreadPoolExecutor(1, thread_name_prefix="antiphon-dump") as thread:
        try:
            while (batch := await _run(thread, next, reading, None)) is not None:
                yield batch
        finally:
            thread.submit(reading.close)


async def load(
    connect: Callable[[], apsw.Connection], path: str, source: AsyncIterable[Sequence[Record]]
) -> Counter[type[Record]]:
    """Take in everything; gives how many records of each kind were not there before."""
    with ThreadPoolExecutor(1, thread_name_prefix="antiphon-load") as thread:
        loading = await _run(thread, lambda: Load(connect(), path))
        try:
            async for batch in source:
                await _run(thread, loading.add, batch)
            await _run(thread, loading.commit)
        finally:
            thread.submit(loading.close)
    return loading.added


async def load_inline(connection: apsw.Connection, source: AsyncIterable[Sequence[Record]]) -> Counter[type[Record]]:
    """The same for a database in memory, whose connection others use while we wait for records."""
    batches = [batch async for batch in source]
    loading = Load(connection, None)
    try:
        for batch in batches:
            loading.add(batch)
        loading.commit()
    except BaseException:
        loading.rollback()
        raise
    return loading.added


def copied(connection: apsw.Connection) -> apsw.Connection:
    """A copy of a database in memory."""
    copy = apsw.Connection(":memory:")
    with copy.backup("main", connection, "main") as backup:
        backup.step(-1)
    return copy


async def _run(thread: ThreadPoolExecutor, function: Callable[..., T], *arguments: Any) -> T:
    try:
        return await asyncio.get_running_loop().run_in_executor(thread, function, *arguments)
    except apsw.Error as error:
        raise failed(error) from error


def _batches(connect: Callable[[], apsw.Connection], path: str | None) -> Generator[list[Record], None, None]:
    with contextlib.closing(connect()) as connection:
        connection.execute("BEGIN")
        yield from portable.batches(_records(connection, path))


def _records(connection: apsw.Connection, path: str | None) -> Iterator[Record]:
    if path is not None and (secret := _read_secret(path)) is not None:
        yield portable.Secret(name=_SECRET, value=secret)
    for columns in _rows(connection, "dump_keys"):
        yield made(portable.ApiKey, columns)
    for _, rows in groupby(_rows(connection, "dump_usage"), key=itemgetter(_CREATED_AT)):
        for columns, times in sorted(Counter(rows).items()):
            yield made(portable.Usage, (*columns, times))
    for name, kind in _SIMPLE.items():
        for columns in _rows(connection, name):
            yield made(kind, columns)
    for row, *columns in _rows(connection, "dump_responses"):
        yield from _response(connection, row, columns)


def _response(connection: apsw.Connection, row: int, columns: Sequence[Any]) -> Iterator[Record]:
    """A response and its parts."""
    turn = next(map(turn_of, _rows(connection, "dump_turn", row)), None)
    key = next((made(portable.Idempotency, found) for found in _rows(connection, "dump_idempotency", row)), None)
    response = response_of(columns, _rows(connection, "dump_links", row), turn, key)
    yield response
    for found in _rows(connection, "dump_segments", row):
        yield segment_of(found, response)
    for found in _rows(connection, "dump_notes", row):
        yield made(portable.Note, found)


def _rows(connection: apsw.Connection, name: str, row: int | None = None) -> Iterator[Any]:
    return connection.execute(_PORTABLE[name], None if row is None else {"row": row})


class Load:
    """Takes in records. What was there before stays as it is, so that what was interrupted can begin anew.

    `added` counts, by kind, what was not there before.
    """

    def __init__(self, connection: apsw.Connection, path: str | None) -> None:
        self.added: Counter[type[Record]] = Counter()
        self._connection = connection
        self._cursor = connection.cursor()
        self._path = path
        self._checkpointer = None if path is None else Checkpointer(path)
        self._uncommitted = 0  # bytes
        self._response: int | None = None  # the row that parts belong to; None if they are there already
        self._adding: dict[type[Record], Any] = {
            portable.Secret: self._add_secret,
            portable.Response: self._add_response,
            portable.Segment: self._add_segment,
            portable.Note: self._add_note,
            portable.ApiKey: self._inserting("load_key"),
            portable.Usage: self._add_usage,
            portable.Conversation: self._inserting("load_conversation"),
            portable.Kept: self._inserting("load_conversation_item"),
            portable.Prompt: self._inserting("load_prompt"),
            portable.Item: self._inserting("load_item"),
        }

    def add(self, records: Sequence[Record]) -> None:
        """Take in these, which go on where the last ones ended."""
        for record in records:
            if self._uncommitted >= COMMIT_BYTES and not portable.is_part(record):
                self.commit()
            if self._connection.get_autocommit():
                self._cursor.execute("BEGIN IMMEDIATE")
            kind = type(record)
            self.added[kind] += self._adding[kind](record)
            self._uncommitted += portable.size_of(record)

    def commit(self) -> None:
        """Commit, so that this much need not be taken in again."""
        if not self._connection.get_autocommit():
            self._cursor.execute("COMMIT")
        if self._checkpointer is not None:
            self._checkpointer.move()
        self._uncommitted = 0

    def rollback(self) -> None:
        """Forget what was not committed."""
        if not self._connection.get_autocommit():
            self._cursor.execute("ROLLBACK")

    def close(self) -> None:
        """Let go of the connection; what was not committed is forgotten."""
        self._connection.close()
        if self._checkpointer is not None:
            self._checkpointer.close()

    def _inserting(self, name: str) -> Any:
        def insert(record: Record) -> int:
            self._cursor.execute(_PORTABLE[name], columns_of(record))
            return self._connection.changes()

        return insert

    def _add_secret(self, secret: portable.Secret) -> int:
        return 0 if self._path is None or secret.name != _SECRET else _keep_secret(self._path, secret.value)

    def _add_usage(self, usage: portable.Usage) -> int:
        values = columns_of(usage)
        rows: list[Any] = self._cursor.execute(_PORTABLE["count_usage"], values).fetchall()
        missing = usage.times - rows[0][0]
        for _ in range(missing):
            self._cursor.execute(_PORTABLE["load_usage"], values)
        return int(missing > 0)

    def _add_response(self, response: portable.Response) -> int:
        rows: list[Any] = self._cursor.execute(_PORTABLE["load_response"], columns_of(response)).fetchall()
        self._response = rows[0][0] if rows else None
        if self._response is None:
            self._check_is_there(response)
            return 0
        for output, links in ((GIVEN, response.given), (SAID, response.said)):
            for position, link in enumerate(links):
                item = self._item(response, link)
                self._cursor.execute(SQL["create_link"], (self._response, output, position, item))
        for name, value in (("load_turn", response.turn), ("load_idempotency", response.idempotency)):
            if value is not None:
                values = {"row": self._response, "tenant": response.tenant, **columns_of(value)}
                self._cursor.execute(_PORTABLE[name], values)
        return 1

    def _check_is_there(self, response: portable.Response) -> None:
        """Not added, since it is there; or since that is not there which it continues."""
        where = {"tenant": response.tenant, "id": response.id}
        if not self._cursor.execute(_PORTABLE["is_there"], where).fetchall():
            raise StoreError(
                f"Response '{response.id}' continues '{response.previous}', which does not come before it."
            )

    def _item(self, response: portable.Response, link: Link) -> int:
        where = {"tenant": response.tenant, "id": link.id}
        rows: list[Any] = self._cursor.execute(_PORTABLE["find_same_ids"], where).fetchall()
        for row, body in rows:
            if Link.of(link.id, body) == link:
                return int(row)
        raise StoreError(f"Response '{response.id}' refers to item '{link.id}', which does not come before it.")

    def _add_segment(self, segment: portable.Segment) -> int:
        if self._response is None:
            return 0
        last = segment.first + segment.count - 1
        self._cursor.execute(SQL["create_segment"], (self._response, segment.first, last, segment.mask, segment.frames))
        return 1

    def _add_note(self, note: portable.Note) -> int:
        if self._response is None:
            return 0
        self._cursor.execute(_PORTABLE["load_note"], {"response": self._response, **columns_of(note)})
        return 1


def _read_secret(path: str) -> str | None:
    with contextlib.suppress(FileNotFoundError):
        return Path(f"{path}.key").read_text("utf-8").strip()
    return None


def _keep_secret(path: str, secret: str) -> int:
    """Keep it where a server looks for it, unless it is there."""
    kept = _read_secret(path)
    if kept is None:
        file = os.open(f"{path}.key", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "w", encoding="utf-8") as opened:
            opened.write(secret)
        return 1
    if kept != secret:
        raise StoreError(
            f"{path}.key holds another key than what is to be loaded. Load into a new database; "
            "or, if nothing in this one is encrypted, move that file away."
        )
    return 0

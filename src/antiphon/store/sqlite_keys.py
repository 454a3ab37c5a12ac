"""API keys in a SQLite store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

import apsw
import msgspec

from antiphon.errors import NotFound
from antiphon.store.keys import Key, key_of
from antiphon.store.sql import queries

SQL = queries("sqlite_keys")


class SqliteKeys:
    """The `Keys` of a database.

    read: gives what a function makes of a cursor at once; write: the same in a transaction, once it is committed.
    """

    def __init__(self, read: Callable[..., Any], write: Callable[..., Awaitable[Any]]) -> None:
        self._read = read
        self._write = write

    async def add(self, key: Key) -> None:
        await self._write(_rows, "add_key", {**asdict(key), "limits": msgspec.json.encode(key.limits).decode()})

    async def find(self, digest: bytes) -> Key | None:
        return next(iter(self._read(_keys, "find_key", {"digest": digest})), None)

    async def every(self) -> list[Key]:
        return list(self._read(_keys, "list_keys", {}))

    async def exist(self) -> bool:
        return bool(self._read(_rows, "any_key", {})[0][0])

    async def revoke(self, key_id: str, *, at: float) -> Key:
        revoked: list[Key] = await self._write(_keys, "revoke_key", {"id": key_id, "at": at})
        if not revoked:
            raise NotFound(f"Key with id '{key_id}' not found.")
        return revoked[0]

    async def mark_used(self, key_id: str, *, at: float) -> None:
        await self._write(_rows, "mark_key", {"id": key_id, "at": at})


def _rows(cursor: apsw.Cursor, query: str, values: dict[str, Any]) -> list[Any]:
    return cursor.execute(SQL[query], values).fetchall()


def _keys(cursor: apsw.Cursor, query: str, values: dict[str, Any]) -> list[Key]:
    return [key_of(row) for row in _rows(cursor, query, values)]

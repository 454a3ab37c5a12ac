"""API keys in PostgreSQL."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import msgspec

from antiphon.errors import NotFound
from antiphon.store.keys import Key, key_of
from antiphon.store.postgres_database import Database
from antiphon.store.sql import queries

SQL = queries("postgres_keys")


class PostgresKeys:
    """The `Keys` of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, key: Key) -> None:
        *facts, limits = astuple(key)
        await self._database.change(_keys, "add_key", *facts, msgspec.json.encode(limits).decode())

    async def find(self, digest: bytes) -> Key | None:
        return next(iter(await self._database.run(_keys, "find_key", digest)), None)

    async def every(self) -> list[Key]:
        return await self._database.run(_keys, "list_keys")

    async def exist(self) -> bool:
        return await self._database.run(_exist)

    async def revoke(self, key_id: str, *, at: float) -> Key:
        revoked = await self._database.change(_keys, "revoke_key", key_id, at)
        if not revoked:
            raise NotFound(f"Key with id '{key_id}' not found.")
        return revoked[0]

    async def mark_used(self, key_id: str, *, at: float) -> None:
        await self._database.change(_keys, "mark_key", key_id, at)


async def _keys(connection: Any, query: str, *values: Any) -> list[Key]:
    rows = await connection.fetch(SQL[query], *values)
    return [key_of(row) for row in rows]


async def _exist(connection: Any) -> bool:
    return bool(await connection.fetchval(SQL["any_key"]))

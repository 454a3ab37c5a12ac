"""Prompt templates in PostgreSQL. Versions are only ever added; a template is erased as a whole."""

from __future__ import annotations

from typing import Any

from antiphon.store.base import PromptVersion
from antiphon.store.postgres_database import SQL, Collided
from antiphon.store.postgres_rows import page_of
from antiphon.store.refusals import prompt_not_found


async def put(connection: Any, tenant: str, prompt_id: str, body: bytes) -> PromptVersion:
    row = await connection.fetchrow(SQL["put_prompt"], tenant, prompt_id, body)
    if row is None:
        raise Collided
    return PromptVersion(prompt_id, row[0], row[1], body)


async def was_put(connection: Any, tenant: str, prompt_id: str, body: bytes) -> tuple[PromptVersion] | None:
    """The newest version, if that is it."""
    row = await connection.fetchrow(SQL["get_prompt"], tenant, prompt_id, None)
    return (PromptVersion(*row),) if row is not None and row[3] == body else None


async def get(connection: Any, tenant: str, prompt_id: str, version: int | None) -> PromptVersion:
    row = await connection.fetchrow(SQL["get_prompt"], tenant, prompt_id, version)
    if row is not None:
        return PromptVersion(*row)
    if version is not None and await connection.fetchrow(SQL["find_prompt"], tenant, prompt_id):
        raise prompt_not_found(prompt_id, version)
    raise prompt_not_found(prompt_id)


async def list_page(
    connection: Any, tenant: str, limit: int, after: str | None, descending: bool
) -> tuple[list[PromptVersion], bool]:
    place = None
    if after is not None:
        place = await connection.fetchval(SQL["find_prompt"], tenant, after)
        if place is None:
            raise prompt_not_found(after)
    rows, more = await page_of(connection, "list_prompts", tenant, limit=limit, after=place, descending=descending)
    return [PromptVersion(*row) for row in rows], more


async def delete(connection: Any, tenant: str, prompt_id: str) -> None:
    if await connection.fetchval(SQL["delete_prompt"], tenant, prompt_id) is None:
        raise prompt_not_found(prompt_id)


async def deleted(connection: Any, tenant: str, prompt_id: str) -> tuple[None] | None:
    return None if await connection.fetchrow(SQL["find_prompt"], tenant, prompt_id) else (None,)

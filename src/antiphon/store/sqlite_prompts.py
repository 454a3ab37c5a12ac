"""Prompt templates in a SQLite store. Versions are only ever added; a template is erased as a whole."""

from __future__ import annotations

import apsw

from antiphon.store.base import PromptVersion
from antiphon.store.refusals import prompt_not_found
from antiphon.store.sqlite_file import SQL
from antiphon.store.sqlite_rows import page_of, rows_of


def put(cursor: apsw.Cursor, tenant: str, prompt_id: str, body: bytes, now: float) -> PromptVersion:
    values = {"tenant": tenant, "id": prompt_id, "created_at": int(now), "body": body}
    ((version,),) = rows_of(cursor, "put_prompt", values)
    return PromptVersion(prompt_id, version, int(now), body)


def get(cursor: apsw.Cursor, tenant: str, prompt_id: str, version: int | None) -> PromptVersion:
    rows = rows_of(cursor, "get_prompt", {"tenant": tenant, "id": prompt_id, "version": version})
    if rows:
        return PromptVersion(*rows[0])
    if version is not None and rows_of(cursor, "find_prompt", {"tenant": tenant, "id": prompt_id}):
        raise prompt_not_found(prompt_id, version)
    raise prompt_not_found(prompt_id)


def list_page(
    cursor: apsw.Cursor, tenant: str, limit: int, after: str | None, descending: bool
) -> tuple[list[PromptVersion], bool]:
    place = None
    if after is not None:
        found = rows_of(cursor, "find_prompt", {"tenant": tenant, "id": after})
        if not found:
            raise prompt_not_found(after)
        place = found[0][0]
    rows, more = page_of(cursor, "list_prompts", {"tenant": tenant}, limit, place, descending)
    return [PromptVersion(*row) for row in rows], more


def delete(cursor: apsw.Cursor, tenant: str, prompt_id: str) -> None:
    cursor.execute(SQL["delete_prompt"], {"tenant": tenant, "id": prompt_id})
    if not cursor.connection.changes():
        raise prompt_not_found(prompt_id)

"""Rows of named queries: all at once, or by page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import apsw

from antiphon.store.sqlite_file import SQL

_BEHIND_ALL = (1 << 63) - 1


def rows_of(cursor: apsw.Cursor, name: str, bindings: apsw.Bindings) -> list[Any]:
    """All rows of a named query, read to the end so that no snapshot stays open."""
    return cursor.execute(SQL[name], bindings).fetchall()


def page_of(
    cursor: apsw.Cursor, name: str, bindings: Mapping[str, Any], limit: int, after: int | None, descending: bool
) -> tuple[list[Any], bool]:
    """A page of a query that exists for both orders, and whether there is more.

    after: the place of the last one already seen.
    """
    if after is None:
        after = _BEHIND_ALL if descending else -1
    order = "descending" if descending else "ascending"
    rows = rows_of(cursor, f"{name}_{order}", {**bindings, "after": after, "limit": limit + 1})
    return rows[:limit], len(rows) > limit

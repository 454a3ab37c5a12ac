"""Pages of named queries, and the items of responses."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any, NamedTuple

from antiphon.store.base import Item
from antiphon.store.postgres_database import SQL, Collided

_BEHIND_ALL = (1 << 63) - 1
_TRIES = 5


async def page_of(
    connection: Any, name: str, owner: str | int, *rest: Any, limit: int, after: int | None, descending: bool
) -> tuple[list[Any], bool]:
    """A page of a query that exists for both orders, and whether there is more.

    owner: whose rows; after: the place of the last one already seen; rest: what the query takes behind the limit.
    """
    if after is None:
        after = _BEHIND_ALL if descending else -1
    order = "descending" if descending else "ascending"
    rows = await connection.fetch(SQL[f"{name}_{order}"], owner, after, limit + 1, *rest)
    return rows[:limit], len(rows) > limit


class Link(NamedTuple):
    """That a response was given an item (output 0) or said it (1)."""

    response: int
    output: int
    position: int
    tenant: str
    item: Item


async def link(connection: Any, links: Sequence[Link]) -> None:
    """Link items to responses; those that are not there are made, which is tried first, as most are new."""
    missing = {(each.response, each.output, each.position): each for each in links}
    for attempt in range(2 * _TRIES):
        if not missing:
            return
        rest = list(missing.values())
        columns: list[list[Any]] = [list(column) for column in zip(*(each[:4] for each in rest), strict=True)]
        bodies = [each.item.body for each in rest]
        columns += [[each.item.id for each in rest], [sha256(body).digest() for body in bodies]]
        if attempt % 2 == 0:
            linked = await connection.fetch(SQL["create_items"], *columns, bodies)
        else:
            linked = await connection.fetch(SQL["link_items"], *columns)
        for row in linked:
            del missing[tuple(row)]
    if missing:  # somebody makes and erases them as fast as we look
        raise Collided

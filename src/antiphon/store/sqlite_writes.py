"""What can be written to a SQLite store: one function per operation, each run inside a transaction of the writer's.

An operation either does all of its work, or refuses with one of our errors (NotFound, LeaseLost, ...), and that before
its first change wherever it can: others share the transaction, and a refusal in the middle makes them begin anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import apsw

from antiphon.errors import BadRequest, Conflict, LeaseLost, NotFound
from antiphon.store.base import Claim, Ending, Item, NewResponse, Note, Renewal, Segment
from antiphon.store.sqlite_file import SQL

_APPEND_SEGMENT = SQL["append_segment"]
_ROW = "(?, ?, ?, ?, ?, ?, ?)"
_APPEND_SEGMENTS = [
    *((size, SQL["append_segments"].replace(_ROW, ", ".join([_ROW] * size))) for size in (32, 8)),
    (1, _APPEND_SEGMENT),
]
_INPUT, _OUTPUT = 0, 1


def not_found(response_id: str) -> NotFound:
    return NotFound(f"Response with id '{response_id}' not found.")


def rows_of(cursor: apsw.Cursor, name: str, bindings: apsw.Bindings) -> list[Any]:
    """All rows of a named query, read to the end so that no snapshot stays open."""
    return cursor.execute(SQL[name], bindings).fetchall()


def append(
    cursor: apsw.Cursor, claim: Claim, segments: Sequence[Segment], notes: Sequence[Note], ending: Ending | None
) -> None:
    """Every statement is fenced for itself: none looks first and writes then."""
    for segment in segments:
        append_segment(cursor, *bindings_of(claim, segment))
    for note in notes:
        cursor.execute(SQL["append_note"], {"after": note.after, "kind": note.kind, "body": note.body, **_fence(claim)})
        if not cursor.connection.changes():
            raise LeaseLost
    if ending is not None:
        _end(cursor, claim, ending)


def bindings_of(claim: Claim, segment: Segment) -> tuple[Any, ...]:
    """What the statements that append a segment are given."""
    return (
        segment.first,
        segment.first + segment.count - 1,
        segment.mask,
        segment.frames,
        claim.tenant,
        claim.response_id,
        claim.attempt,
    )


def append_segment(cursor: apsw.Cursor, *bindings: Any) -> None:
    cursor.execute(_APPEND_SEGMENT, bindings)
    if not cursor.connection.changes():
        raise LeaseLost


def append_segments(cursor: apsw.Cursor, rows: Sequence[tuple[Any, ...]]) -> None:
    """Append one segment to each of many logs, by as few statements as can be; raises LeaseLost if one refuses."""
    start = 0
    for size, statement in _APPEND_SEGMENTS:
        while len(rows) - start >= size:
            cursor.execute(statement, tuple(chain.from_iterable(rows[start : start + size])))
            if cursor.connection.changes() != size:
                raise LeaseLost
            start += size


def _end(cursor: apsw.Cursor, claim: Claim, ending: Ending) -> None:
    rows = rows_of(
        cursor, "end", {"status": ending.status, "response": ending.response, "mask": ending.mask, **_fence(claim)}
    )
    if not rows:
        raise LeaseLost
    _link(cursor, claim.tenant, rows[0][0], _OUTPUT, ending.items)


def create(cursor: apsw.Cursor, tenant: str, new: NewResponse, now: float, lease_seconds: float | None) -> Claim | None:
    previous, depth = None, 0
    if new.previous is not None:
        rows = rows_of(cursor, "find", {"tenant": tenant, "id": new.previous})
        if not rows:
            raise BadRequest(
                f"Previous response with id '{new.previous}' not found.",
                code="previous_response_not_found",
                param="previous_response_id",
            )
        previous, depth = rows[0][0], rows[0][1] + 1
    lease_ends = 0.0 if lease_seconds is None else now + lease_seconds
    cursor.execute(
        SQL["create_response"],
        {
            "tenant": tenant,
            "id": new.id,
            "attempt": 0 if lease_seconds is None else 1,
            "lease_ends": lease_ends,
            "background": new.background,
            "now": now,
            "previous": previous,
            "depth": depth,
            "created_at": new.created_at,
            "expires_at": new.expires_at,
            "model": new.model,
            "metadata": new.metadata,
            "request": new.request,
        },
    )
    if not cursor.connection.changes():
        raise Conflict(f"Response with id '{new.id}' exists already.")
    row = cursor.connection.last_insert_rowid()
    first = new.segment
    cursor.execute(SQL["create_segment"], (row, first.first, first.last, first.mask, first.frames))
    _link(cursor, tenant, row, _INPUT, new.items)
    return None if lease_seconds is None else Claim(tenant, new.id, 1, lease_ends, new.background)


def _link(cursor: apsw.Cursor, tenant: str, response: int, output: int, items: Sequence[Item]) -> None:
    for position, item in enumerate(items):
        rows = rows_of(cursor, "find_item", (tenant, item.id, item.body))
        if rows:
            row = rows[0][0]
        else:
            cursor.execute(SQL["create_item"], (tenant, item.id, item.body))
            row = cursor.connection.last_insert_rowid()
        cursor.execute(SQL["create_link"], (response, output, position, row))


def claim(cursor: apsw.Cursor, limit: int, now: float, lease_seconds: float, background: bool) -> list[Claim]:
    lease_ends = now + lease_seconds
    rows = rows_of(cursor, "claim", {"limit": limit, "now": now, "lease_ends": lease_ends, "background": background})
    return [
        Claim(tenant, id, attempt, lease_ends, bool(background), tries)
        for _created_at, _row, tenant, id, attempt, background, tries in sorted(rows)  # RETURNING has no order
    ]


def seize(cursor: apsw.Cursor, tenant: str, response_id: str, now: float, lease_seconds: float) -> Claim | None:
    lease_ends = now + lease_seconds
    where = {"tenant": tenant, "id": response_id}
    rows = rows_of(cursor, "seize", {"lease_ends": lease_ends, **where})
    if rows:
        attempt, background, tries = rows[0]
        return Claim(tenant, response_id, attempt, lease_ends, bool(background), tries)
    if not rows_of(cursor, "find", where):
        raise not_found(response_id)
    return None


def renew(
    cursor: apsw.Cursor, claims: Sequence[Claim], now: float, lease_seconds: float, grace_seconds: float
) -> Renewal:
    lost, unfollowed = set(), set()
    until = {"lease_ends": now + lease_seconds, "followed_after": now - grace_seconds}
    for held in claims:
        rows = rows_of(cursor, "renew", {**until, **_fence(held)})
        if not rows:
            lost.add(held.response_id)
        elif not rows[0][0]:
            unfollowed.add(held.response_id)
    return Renewal(frozenset(lost), frozenset(unfollowed))


def release(cursor: apsw.Cursor, claim: Claim) -> None:
    cursor.execute(SQL["release"], _fence(claim))


def mark_followed(cursor: apsw.Cursor, tenant: str, response_id: str, until: float) -> None:
    cursor.execute(SQL["mark_followed"], {"tenant": tenant, "id": response_id, "until": until})


def delete(cursor: apsw.Cursor, tenant: str, response_id: str) -> None:
    rows = rows_of(cursor, "find", {"tenant": tenant, "id": response_id})
    if not rows:
        raise not_found(response_id)
    row, _depth, previous = rows[0]
    cursor.execute(SQL["adopt"], {"row": row, "previous": previous})
    # The items before the links: these say which items nothing else refers to.
    for name in ("delete_items", "delete_links", "delete_segments", "delete_notes", "delete_response"):
        cursor.execute(SQL[name], {"row": row})


def _fence(claim: Claim) -> dict[str, str | int]:
    return {"tenant": claim.tenant, "id": claim.response_id, "attempt": claim.attempt}

"""What can be written to a SQLite store: one function per operation, each run inside a transaction of the writer's.

An operation either does all of its work, or refuses with one of our errors (NotFound, LeaseLost, ...), and that before
its first change wherever it can: others share the transaction, and a refusal in the middle makes them begin anew.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any

import apsw

from antiphon.errors import LeaseLost, Repeated
from antiphon.store import sqlite_conversations as conversations
from antiphon.store.base import Claim, Ending, Idempotency, Item, NewResponse, Note, Renewal, Segment
from antiphon.store.refusals import exists_already, key_in_use, previous_not_found, response_not_found
from antiphon.store.sqlite_file import SQL
from antiphon.store.sqlite_rows import rows_of

logger = logging.getLogger(__name__)

_APPEND_SEGMENT = SQL["append_segment"]
_ROW = "(?, ?, ?, ?, ?, ?, ?)"
_APPEND_SEGMENTS = [
    *((size, SQL["append_segments"].replace(_ROW, ", ".join([_ROW] * size))) for size in (32, 8)),
    (1, _APPEND_SEGMENT),
]
_DELETIONS = (
    "inherit_turn", "adopt",
    "delete_items", "delete_links", "delete_segments", "delete_notes", "delete_turn", "delete_key", "delete_response"
)  # fmt: skip
_INPUT, _OUTPUT = 0, 1
_TO_BE_CONTINUED = ("completed", "incomplete")  # such a turn becomes a part of its conversation


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
    row, is_turn = rows[0]
    _link(cursor, claim.tenant, row, _OUTPUT, ending.items)
    cursor.execute(SQL["book"], {"row": row, "status": ending.status, **asdict(ending.tokens)})
    if is_turn:
        conversations.end_turn(cursor, row, ending.items if ending.status in _TO_BE_CONTINUED else None)
    if ending.status == "failed" and not ending.items:
        cursor.execute(SQL["delete_key"], {"row": row})


def create(cursor: apsw.Cursor, tenant: str, new: NewResponse, now: float, lease_seconds: float | None) -> Claim | None:
    if new.idempotency is not None:
        check_key(cursor, tenant, new.idempotency, now)
    previous, depth = (None, 0) if new.previous is None else _previous(cursor, tenant, new.previous)
    place = None
    if new.conversation is not None:
        place = conversations.place_of(cursor, tenant, new.conversation, new.items)
        if place.open:
            lease_seconds = None
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
        raise exists_already("Response", new.id)
    row = cursor.connection.last_insert_rowid()
    create_segment(cursor, row, new.segment)
    _link(cursor, tenant, row, _INPUT, new.items)
    if place is not None:
        conversations.create_turn(cursor, row, place, claimed=lease_seconds is not None)
    if new.idempotency is not None:
        _create_key(cursor, tenant, new.idempotency, row, now)
    return None if lease_seconds is None else Claim(tenant, new.id, 1, lease_ends, new.background)


def create_segment(cursor: apsw.Cursor, response: int, segment: Segment) -> None:
    cursor.execute(SQL["create_segment"], (response, segment.first, segment.last, segment.mask, segment.frames))


def _previous(cursor: apsw.Cursor, tenant: str, response_id: str) -> tuple[int, int]:
    """The row that a response is to continue, and the depth of one that does."""
    rows = rows_of(cursor, "find", {"tenant": tenant, "id": response_id})
    if not rows:
        raise previous_not_found(response_id)
    return rows[0][0], rows[0][1] + 1


def check_key(cursor: apsw.Cursor, tenant: str, idempotency: Idempotency, now: float) -> None:
    rows = rows_of(cursor, "find_key", {"tenant": tenant, "key": idempotency.key, "now": now})
    for fingerprint, response_id in rows:
        if fingerprint == idempotency.fingerprint:
            raise Repeated(response_id)
        raise key_in_use(idempotency.key)


def _create_key(cursor: apsw.Cursor, tenant: str, idempotency: Idempotency, row: int, now: float) -> None:
    cursor.execute(SQL["delete_expired_keys"], {"now": now})
    values = {"key": idempotency.key, "fingerprint": idempotency.fingerprint, "expires_at": now + idempotency.seconds}
    cursor.execute(SQL["create_key"], {"tenant": tenant, "row": row, **values})


def _link(cursor: apsw.Cursor, tenant: str, response: int, output: int, items: Sequence[Item]) -> None:
    for position, item in enumerate(items):
        same = (tenant, item.id, item.body)
        cursor.execute(SQL["create_item"], same)
        if cursor.connection.changes():
            row = cursor.connection.last_insert_rowid()
        else:
            row = rows_of(cursor, "find_item", same)[0][0]
        cursor.execute(SQL["create_link"], (response, output, position, row))


def claim(
    cursor: apsw.Cursor,
    limit: int,
    now: float,
    lease_seconds: float,
    background: bool,
    served: dict[str, int],
    damaged: set[int],
) -> list[Claim]:
    """served: when each tenant had its last turn, as a number that grows; damaged: the rows that cannot be taken, which
    the others must not wait behind. Both are kept by whoever calls, between the claims.
    """
    lease_ends = now + lease_seconds
    rows: list[Any] = []
    for kind in (0, 1) if background else (0,):  # somebody may be waiting for the foreground's
        where = {"background": kind, "now": now, "lease_ends": lease_ends}
        waiting = [tenant for (tenant,) in rows_of(cursor, "open_tenants", {"background": kind})]
        while waiting and len(rows) < limit:
            tenant = min(waiting, key=lambda tenant: served.get(tenant, 0))
            taken = json.dumps([*damaged, *(row for _created_at, row, *_ in rows)])
            try:
                found = rows_of(cursor, "claim", {"tenant": tenant, "taken": taken, **where})
            except apsw.CorruptError:
                if not _find_damaged(cursor, tenant, kind, damaged):
                    raise
                continue
            if found:
                rows += found
                served[tenant] = max(served.values(), default=0) + 1
            else:
                waiting.remove(tenant)
    if rows:
        conversations.begin_turns(cursor, [row for _created_at, row, *_ in rows])
    return [
        Claim(tenant, id, attempt, lease_ends, bool(background), tries)
        for _created_at, _row, tenant, id, attempt, background, tries in sorted(rows)  # RETURNING has no order
    ]


def _find_damaged(cursor: apsw.Cursor, tenant: str, background: int, damaged: set[int]) -> bool:
    """Add the open responses whose rows cannot be read; False if there is none that was not known."""
    known = len(damaged)
    for (row,) in rows_of(cursor, "open_rows", {"tenant": tenant, "background": background}):
        try:
            rows_of(cursor, "whole_row", {"row": row})
        except apsw.CorruptError as error:
            if row not in damaged:
                logger.error("an open response is damaged and cannot be claimed: %s", error)
            damaged.add(row)
    return len(damaged) > known


def seize(cursor: apsw.Cursor, tenant: str, response_id: str, now: float, lease_seconds: float) -> Claim | None:
    lease_ends = now + lease_seconds
    where = {"tenant": tenant, "id": response_id}
    rows = rows_of(cursor, "seize", {"lease_ends": lease_ends, **where})
    if rows:
        attempt, background, tries = rows[0]
        return Claim(tenant, response_id, attempt, lease_ends, bool(background), tries)
    if not rows_of(cursor, "find", where):
        raise response_not_found(response_id)
    return None


def renew(
    cursor: apsw.Cursor, claims: Sequence[Claim], now: float, lease_seconds: float, grace_seconds: float
) -> Renewal:
    lost, unfollowed = set(), set()
    until = {"lease_ends": now + lease_seconds, "followed_after": now - grace_seconds}
    for held in claims:
        try:
            rows = rows_of(cursor, "renew", {**until, **_fence(held)})
        except apsw.CorruptError:  # the others are not to be lost with it
            rows = []
        if not rows:
            lost.add(held.response_id)
        elif not rows[0][0]:
            unfollowed.add(held.response_id)
    return Renewal(frozenset(lost), frozenset(unfollowed))


def release(cursor: apsw.Cursor, claim: Claim) -> None:
    cursor.execute(SQL["release"], _fence(claim))


def mark_followed(cursor: apsw.Cursor, tenant: str, response_id: str, until: float) -> None:
    cursor.execute(SQL["mark_followed"], {"tenant": tenant, "id": response_id, "until": until})


def delete(cursor: apsw.Cursor, tenant: str, response_id: str) -> bool:
    rows = rows_of(cursor, "find", {"tenant": tenant, "id": response_id})
    if not rows:
        raise response_not_found(response_id)
    row, _depth, _previous, was_open = rows[0]
    erase(cursor, row)
    return bool(was_open)


def erase(cursor: apsw.Cursor, row: int) -> None:
    """Erase a response's row and all that belongs to it."""
    # The turn is inherited before the row is gone from the chain, and the items go before the links: these say which
    # items nothing else refers to.
    for name in _DELETIONS:
        cursor.execute(SQL[name], {"row": row})


def _fence(claim: Claim) -> dict[str, str | int]:
    return {"tenant": claim.tenant, "id": claim.response_id, "attempt": claim.attempt}

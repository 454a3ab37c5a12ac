"""What can be written to PostgreSQL, but for appends: one function per operation.

One that takes several statements is run inside a transaction, and beside it stands another function that says whether
it was done: for when the connection was lost while it was committed. The others may be run twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from antiphon.errors import Repeated
from antiphon.store import postgres_conversations as conversations
from antiphon.store.base import Claim, Idempotency, NewResponse, Renewal
from antiphon.store.postgres_database import SQL, Collided
from antiphon.store.postgres_rows import Link, link
from antiphon.store.refusals import exists_already, key_in_use, previous_not_found, response_not_found

_INPUT = 0
_CANDIDATES = 8  # times as many as wanted are looked at, of each tenant: other nodes are taking some of them


def labels_of(metadata: Mapping[str, Any]) -> list[bytes]:
    """Metadata as values that can be searched for."""
    return [msgspec.json.encode(pair) for pair in metadata.items()]


async def create(connection: Any, tenant: str, new: NewResponse, lease_seconds: float | None) -> Claim | None:
    if new.idempotency is not None:
        await check_key(connection, tenant, new.idempotency)
    previous, depth = (None, 0) if new.previous is None else await _previous(connection, tenant, new.previous)
    place = None
    if new.conversation is not None:
        place = await conversations.place_of(connection, tenant, new.conversation, new.items)
        if place.open:
            lease_seconds = None
    first = new.segment
    made = await connection.fetchrow(
        SQL["create_response"],
        *(tenant, new.id, lease_seconds, new.background, previous, depth, new.created_at, new.expires_at, new.model),
        *(new.metadata, labels_of(msgspec.json.decode(new.metadata)), new.request),
        *(first.first, first.last, first.mask, first.frames),
    )
    if made is None:
        raise exists_already("Response", new.id)
    row, lease_ends = made
    links = [Link(row, _INPUT, position, tenant, item) for position, item in enumerate(new.items)]
    await link(connection, links)
    if place is not None:
        await conversations.create_turn(connection, row, place, claimed=lease_seconds is not None)
    if new.idempotency is not None:
        await _create_key(connection, tenant, new.idempotency, row)
    return None if lease_seconds is None else Claim(tenant, new.id, 1, lease_ends, new.background)


async def created(
    connection: Any, tenant: str, new: NewResponse, _lease_seconds: float | None
) -> tuple[Claim | None] | None:
    """What a create has given that was committed. It is ours: nobody else makes this id."""
    row = await connection.fetchrow(SQL["created"], tenant, new.id)
    if row is None:
        return None
    claimed, lease_ends, background = row
    return (Claim(tenant, new.id, 1, lease_ends, background) if claimed else None,)


async def _previous(connection: Any, tenant: str, response_id: str) -> tuple[int, int]:
    """The row that a response is to continue, and the depth of one that does."""
    row = await connection.fetchrow(SQL["find_previous"], tenant, response_id)
    if row is None:
        raise previous_not_found(response_id)
    return row[0], row[1] + 1


async def check_key(connection: Any, tenant: str, idempotency: Idempotency) -> None:
    row = await connection.fetchrow(SQL["find_key"], tenant, idempotency.key)
    if row is None:
        return
    fingerprint, response_id = row
    if fingerprint == idempotency.fingerprint:
        raise Repeated(response_id)
    raise key_in_use(idempotency.key)


async def _create_key(connection: Any, tenant: str, idempotency: Idempotency, row: int) -> None:
    await connection.execute(SQL["delete_expired_keys"])
    values = (idempotency.key, idempotency.fingerprint, row, idempotency.seconds)
    if await connection.fetchval(SQL["create_key"], tenant, *values) is None:
        raise Collided  # another node has just taken it


async def claim(connection: Any, limit: int, lease_seconds: float, background: bool) -> list[Claim]:
    rows = await connection.fetch(SQL["claim"], limit, lease_seconds, background, limit * _CANDIDATES)
    return [Claim(*row) for row in rows]


async def seize(connection: Any, tenant: str, response_id: str, lease_seconds: float) -> Claim | None:
    row = await connection.fetchrow(SQL["seize"], tenant, response_id, lease_seconds)
    if row is not None:
        return Claim(tenant, response_id, *row)
    if await connection.fetchrow(SQL["find"], tenant, response_id) is None:
        raise response_not_found(response_id)
    return None


async def renew(connection: Any, claims: Sequence[Claim], lease_seconds: float, grace_seconds: float) -> Renewal:
    columns = [
        [claim.tenant for claim in claims],
        [claim.response_id for claim in claims],
        [claim.attempt for claim in claims],
    ]
    rows = await connection.fetch(SQL["renew"], *columns, lease_seconds, grace_seconds)
    held = {place - 1: awaited for place, awaited in rows}
    return Renewal(
        lost=frozenset(claim.response_id for place, claim in enumerate(claims) if place not in held),
        unfollowed=frozenset(claims[place].response_id for place, awaited in held.items() if not awaited),
    )


async def release(connection: Any, claim: Claim) -> None:
    await connection.execute(SQL["release"], claim.tenant, claim.response_id, claim.attempt)


async def delete(connection: Any, tenant: str, response_id: str) -> bool:
    locked = await connection.fetchval(SQL["lock_previous"], tenant, response_id)
    found = await connection.fetchrow(SQL["lock_response"], tenant, response_id)
    if found is None:
        raise response_not_found(response_id)
    row, previous, was_open = found
    if previous != locked:
        raise Collided  # it continued a response that has just been deleted
    await erase(connection, [row])
    return bool(was_open)


async def erase(connection: Any, rows: Sequence[int]) -> None:
    """Erase responses and all that belongs to them.

    Their rows are locked, and those that they continue are kept from being deleted: else what continues them would
    come to continue a response that is no more, and lose all that was before it.
    """
    await connection.execute(SQL["lock_items"], rows)
    for row in rows:
        await connection.execute(SQL["delete_response"], row)


async def deleted(connection: Any, tenant: str, response_id: str) -> tuple[bool] | None:
    """It may have been open: nothing is left that could tell."""
    return None if await connection.fetchrow(SQL["find"], tenant, response_id) else (True,)

"""Conversations in PostgreSQL: their rows, their items, and the responses that are their turns.

Whoever adds items or turns to a conversation locks its row first. So one comes after the other, and what follows reads
what came before: a statement that had to wait for a lock would still see what was there when it began.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from antiphon.store.base import Conversation, Item, NewConversation, Overdue
from antiphon.store.postgres_database import SQL
from antiphon.store.postgres_rows import page_of
from antiphon.store.refusals import check_each_once, conversation_not_found, exists_already, item_not_found


class Place(NamedTuple):
    """Where a new turn of a conversation stands."""

    conversation: int
    last_item: int  # the place of the conversation's last item
    open: bool  # whether an earlier turn is open


async def place_of(connection: Any, tenant: str, conversation_id: str, items: Sequence[Item]) -> Place:
    """The place of a turn that is given these items. Raises NotFound or BadRequest."""
    conversation = await _locked(connection, tenant, conversation_id)
    await _check_ids(connection, tenant, conversation, items, param="input")
    last_item, open = await connection.fetchrow(SQL["place"], conversation)
    return Place(conversation, last_item, open)


async def create_turn(connection: Any, response: int, place: Place, *, claimed: bool) -> None:
    seen = place.last_item if claimed else None
    await connection.execute(SQL["create_turn"], response, place.conversation, seen)


async def overdue_turns(connection: Any, wait_seconds: float, grace_seconds: float) -> list[Overdue]:
    return [Overdue(*row) for row in await connection.fetch(SQL["overdue_turns"], wait_seconds, grace_seconds)]


async def end_turns(connection: Any, said: Mapping[int, Sequence[Item] | None]) -> None:
    """Let the next turns run after these responses, and add what each was given and said; None adds nothing.

    An id that somebody else has given to another item meanwhile keeps that one.
    """
    turns = await connection.fetch(SQL["end_turns"], list(said))
    grown = [(conversation, response) for response, conversation in turns if said[response] is not None]
    await connection.execute(SQL["lock_conversations"], [conversation for conversation, _ in grown])
    for conversation, response in grown:
        given = [Item(*row) for row in await connection.fetch(SQL["given_items"], response)]
        await _add(connection, conversation, [item.completed() for item in (*given, *(said[response] or ()))])


async def create(connection: Any, tenant: str, new: NewConversation) -> None:
    check_each_once(new.items, param="items")
    row = await connection.fetchval(SQL["create_conversation"], tenant, new.id, new.created_at, new.metadata)
    if row is None:
        raise exists_already("Conversation", new.id)
    await _add(connection, row, new.items)


async def created(connection: Any, tenant: str, new: NewConversation) -> tuple[None] | None:
    return (None,) if await connection.fetchrow(SQL["get_conversation"], tenant, new.id) else None


async def get(connection: Any, tenant: str, conversation_id: str) -> Conversation:
    _row, created_at, metadata = await _row_of(connection, tenant, conversation_id)
    return Conversation(conversation_id, created_at, metadata)


async def update(connection: Any, tenant: str, conversation_id: str, metadata: bytes) -> Conversation:
    row = await connection.fetchrow(SQL["update_conversation"], tenant, conversation_id, metadata)
    if row is None:
        raise conversation_not_found(conversation_id)
    return Conversation(conversation_id, row[1], row[2])


async def delete(connection: Any, tenant: str, conversation_id: str) -> None:
    row = await connection.fetchval(SQL["delete_conversation"], tenant, conversation_id)
    if row is None:
        raise conversation_not_found(conversation_id)
    await connection.execute(SQL["delete_conversation_items"], row)


async def deleted(connection: Any, tenant: str, conversation_id: str) -> tuple[None] | None:
    return None if await connection.fetchrow(SQL["get_conversation"], tenant, conversation_id) else (None,)


async def add_items(connection: Any, tenant: str, conversation_id: str, items: Sequence[Item]) -> None:
    conversation = await _locked(connection, tenant, conversation_id)
    await _check_ids(connection, tenant, conversation, items, param="items")
    await _add(connection, conversation, items)


async def list_items(
    connection: Any, tenant: str, conversation_id: str, limit: int, after: str | None, descending: bool
) -> tuple[list[Item], bool]:
    conversation = (await _row_of(connection, tenant, conversation_id))[0]
    place = None if after is None else (await _item_of(connection, tenant, conversation, after))[0]
    rows, more = await page_of(connection, "list_items", conversation, limit=limit, after=place, descending=descending)
    return [Item(*row) for row in rows], more


async def conversation_bytes(connection: Any, tenant: str, conversation_id: str) -> int:
    conversation = (await _row_of(connection, tenant, conversation_id))[0]
    return int(await connection.fetchval(SQL["conversation_bytes"], conversation))


async def get_item(connection: Any, tenant: str, conversation_id: str, item_id: str) -> Item:
    conversation = (await _row_of(connection, tenant, conversation_id))[0]
    return Item(*(await _item_of(connection, tenant, conversation, item_id))[1:])


async def delete_item(connection: Any, tenant: str, conversation_id: str, item_id: str) -> Conversation:
    conversation, created_at, metadata = await _row_of(connection, tenant, conversation_id)
    if await connection.fetchval(SQL["delete_conversation_item"], tenant, item_id, conversation) is None:
        raise item_not_found(item_id)
    return Conversation(conversation_id, created_at, metadata)


async def item_deleted(connection: Any, tenant: str, conversation_id: str, item_id: str) -> tuple[Conversation] | None:
    conversation, created_at, metadata = await _row_of(connection, tenant, conversation_id)
    if await connection.fetchrow(SQL["find_conversation_item"], tenant, item_id, conversation):
        return None
    return (Conversation(conversation_id, created_at, metadata),)


async def _locked(connection: Any, tenant: str, conversation_id: str) -> int:
    row: int | None = await connection.fetchval(SQL["lock_conversation"], tenant, conversation_id)
    if row is None:
        raise conversation_not_found(conversation_id)
    return row


async def _row_of(connection: Any, tenant: str, conversation_id: str) -> Any:
    row = await connection.fetchrow(SQL["get_conversation"], tenant, conversation_id)
    if row is None:
        raise conversation_not_found(conversation_id)
    return row


async def _item_of(connection: Any, tenant: str, conversation: int, item_id: str) -> Any:
    row = await connection.fetchrow(SQL["find_conversation_item"], tenant, item_id, conversation)
    if row is None:
        raise item_not_found(item_id)
    return row


async def _add(connection: Any, conversation: int, items: Sequence[Item]) -> None:
    if items:
        ids, bodies = [item.id for item in items], [item.body for item in items]
        await connection.execute(SQL["add_items"], conversation, ids, bodies)


async def _check_ids(connection: Any, tenant: str, conversation: int, items: Sequence[Item], *, param: str) -> None:
    """Raise BadRequest if one of the items has the id of another one, in the conversation or among themselves."""
    rows = await connection.fetch(SQL["same_ids"], tenant, conversation, [item.id for item in items])
    check_each_once([*(Item(*row) for row in rows), *items], param=param)

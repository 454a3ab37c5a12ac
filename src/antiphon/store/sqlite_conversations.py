"""Conversations in a SQLite store: their rows, their items, and the responses that are their turns.

Writes and reads stand together here, each in the manner of its kind: a write runs inside a transaction of the writer's
and refuses before its first change; a read leaves no statement open.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import apsw
import msgspec

from antiphon.store.base import Conversation, Item, NewConversation, Overdue
from antiphon.store.refusals import check_each_once, conversation_not_found, exists_already, item_not_found
from antiphon.store.sqlite_file import SQL
from antiphon.store.sqlite_rows import page_of, rows_of


class Place(NamedTuple):
    """Where a new turn of a conversation stands."""

    conversation: int
    last_item: int  # the place of the conversation's last item
    open: bool  # whether an earlier turn is open


def place_of(cursor: apsw.Cursor, tenant: str, conversation_id: str, items: Sequence[Item]) -> Place:
    """The place of a turn that is given these items. Raises NotFound or BadRequest."""
    rows = rows_of(cursor, "find_conversation", {"tenant": tenant, "id": conversation_id})
    if not rows:
        raise conversation_not_found(conversation_id)
    conversation, last_item, open = rows[0]
    _check_ids(cursor, tenant, conversation, items, param="input")
    return Place(conversation, last_item, bool(open))


def create_turn(cursor: apsw.Cursor, response: int, place: Place, *, claimed: bool) -> None:
    seen = place.last_item if claimed else None
    cursor.execute(SQL["create_turn"], {"row": response, "conversation": place.conversation, "seen": seen})


def begin_turns(cursor: apsw.Cursor, responses: Iterable[int]) -> None:
    """Fix what those among these responses see that are turns."""
    cursor.execute(SQL["begin_turns"], {"rows": msgspec.json.encode(list(responses)).decode()})


def overdue_turns(cursor: apsw.Cursor, created_before: float, followed_after: float) -> list[Overdue]:
    where = {"created_before": created_before, "followed_after": followed_after}
    rows = rows_of(cursor, "overdue_turns", where)
    return [Overdue(tenant, id, bool(followed)) for tenant, id, followed in rows]


def end_turn(cursor: apsw.Cursor, response: int, said: Sequence[Item] | None) -> None:
    """Let the next turn run, if this response was one, and add what it was given and said; `said` is None to add none.

    An id that somebody else has given to another item meanwhile keeps that one.
    """
    rows = rows_of(cursor, "end_turn", {"row": response})
    if rows and said is not None:
        given = [Item(*row) for row in rows_of(cursor, "given_items", {"row": response})]
        _add(cursor, rows[0][0], [item.completed() for item in (*given, *said)])


def create(cursor: apsw.Cursor, tenant: str, new: NewConversation) -> None:
    check_each_once(new.items, param="items")
    values = {"tenant": tenant, "id": new.id, "created_at": new.created_at, "metadata": new.metadata}
    rows = rows_of(cursor, "create_conversation", values)
    if not rows:
        raise exists_already("Conversation", new.id)
    _add(cursor, rows[0][0], new.items)


def get(cursor: apsw.Cursor, tenant: str, conversation_id: str) -> Conversation:
    _row, created_at, metadata = _row_of(cursor, tenant, conversation_id)
    return Conversation(conversation_id, created_at, metadata)


def update(cursor: apsw.Cursor, tenant: str, conversation_id: str, metadata: bytes) -> Conversation:
    rows = rows_of(cursor, "update_conversation", {"tenant": tenant, "id": conversation_id, "metadata": metadata})
    if not rows:
        raise conversation_not_found(conversation_id)
    return Conversation(conversation_id, *rows[0][1:])


def delete(cursor: apsw.Cursor, tenant: str, conversation_id: str) -> None:
    rows = rows_of(cursor, "delete_conversation", {"tenant": tenant, "id": conversation_id})
    if not rows:
        raise conversation_not_found(conversation_id)
    cursor.execute(SQL["delete_conversation_items"], {"row": rows[0][0]})


def add_items(cursor: apsw.Cursor, tenant: str, conversation_id: str, items: Sequence[Item]) -> None:
    conversation = _row_of(cursor, tenant, conversation_id)[0]
    _check_ids(cursor, tenant, conversation, items, param="items")
    _add(cursor, conversation, items)


def list_items(
    cursor: apsw.Cursor, tenant: str, conversation_id: str, limit: int, after: str | None, descending: bool
) -> tuple[list[Item], bool]:
    conversation = _row_of(cursor, tenant, conversation_id)[0]
    place = None if after is None else _item_of(cursor, tenant, conversation, after)[0]
    rows, more = page_of(cursor, "list_items", {"conversation": conversation}, limit, place, descending)
    return [Item(*row) for row in rows], more


def conversation_bytes(cursor: apsw.Cursor, tenant: str, conversation_id: str) -> int:
    conversation = _row_of(cursor, tenant, conversation_id)[0]
    ((size,),) = rows_of(cursor, "conversation_bytes", {"conversation": conversation})
    return int(size)


def get_item(cursor: apsw.Cursor, tenant: str, conversation_id: str, item_id: str) -> Item:
    conversation = _row_of(cursor, tenant, conversation_id)[0]
    return Item(*_item_of(cursor, tenant, conversation, item_id)[1:])


def delete_item(cursor: apsw.Cursor, tenant: str, conversation_id: str, item_id: str) -> Conversation:
    conversation, created_at, metadata = _row_of(cursor, tenant, conversation_id)
    cursor.execute(SQL["delete_conversation_item"], {"tenant": tenant, "id": item_id, "conversation": conversation})
    if not cursor.connection.changes():
        raise item_not_found(item_id)
    return Conversation(conversation_id, created_at, metadata)


def _row_of(cursor: apsw.Cursor, tenant: str, conversation_id: str) -> tuple[int, int, bytes]:
    rows = rows_of(cursor, "get_conversation", {"tenant": tenant, "id": conversation_id})
    if not rows:
        raise conversation_not_found(conversation_id)
    row: tuple[int, int, bytes] = rows[0]
    return row


def _item_of(cursor: apsw.Cursor, tenant: str, conversation: int, item_id: str) -> tuple[int, str, bytes]:
    where = {"tenant": tenant, "id": item_id, "conversation": conversation}
    rows = rows_of(cursor, "find_conversation_item", where)
    if not rows:
        raise item_not_found(item_id)
    row: tuple[int, str, bytes] = rows[0]
    return row


def _add(cursor: apsw.Cursor, conversation: int, items: Sequence[Item]) -> None:
    for item in items:
        cursor.execute(SQL["add_item"], (item.id, item.body, conversation))


def _check_ids(cursor: apsw.Cursor, tenant: str, conversation: int, items: Sequence[Item], *, param: str) -> None:
    """Raise BadRequest if one of the items has the id of another one, in the conversation or among themselves."""
    ids = msgspec.json.encode([item.id for item in items]).decode()
    rows = rows_of(cursor, "same_ids", {"tenant": tenant, "conversation": conversation, "ids": ids})
    check_each_once([*(Item(*row) for row in rows), *items], param=param)

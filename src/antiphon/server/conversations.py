"""The operations of conversations: lists of items that outlive the responses that are their turns.

A response that names a conversation sees its items, and adds its own when it has ended: that is the store's part. Here
they are made, shown and changed by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec
from starlette.types import ASGIApp

from antiphon.protocol import view
from antiphon.server.call import Api, Call, checked_id, json_answer
from antiphon.server.create import check_seals
from antiphon.server.items import input_items, references
from antiphon.server.limits import check_context_bytes
from antiphon.server.pages import LIMIT, page_object
from antiphon.store.base import Conversation

Item = dict[str, Any]


async def create_conversation(api: Api, call: Call) -> ASGIApp:
    body = call.body or {}
    conversation_id = api.new_id("conv")
    conversation = await api.log.create_conversation(
        call.tenant,
        id=conversation_id,
        created_at=int(api.now()),
        metadata=body.get("metadata") or {},
        items=await _items(api, call.tenant, body.get("items") or [], conversation_id),
    )
    return json_answer(_shown(conversation))


async def get_conversation(api: Api, call: Call) -> ASGIApp:
    return json_answer(_shown(await api.log.store.get_conversation(call.tenant, _checked_id(call))))


async def update_conversation(api: Api, call: Call) -> ASGIApp:
    metadata = msgspec.json.encode(call.body.get("metadata") or {})
    store = api.log.store
    return json_answer(_shown(await store.update_conversation(call.tenant, _checked_id(call), metadata=metadata)))


async def delete_conversation(api: Api, call: Call) -> ASGIApp:
    conversation_id = _checked_id(call)
    await api.log.store.delete_conversation(call.tenant, conversation_id)
    return json_answer({"id": conversation_id, "object": "conversation.deleted", "deleted": True})


async def create_conversation_items(api: Api, call: Call) -> ASGIApp:
    conversation_id = _checked_id(call)
    items = await _items(api, call.tenant, call.body["items"], conversation_id)
    # No response could continue a larger one.
    check_context_bytes(api.limits, await api.log.store.conversation_bytes(call.tenant, conversation_id))
    await api.log.add_items(call.tenant, conversation_id, items)
    return json_answer(_page(call, items, more=False))


async def list_conversation_items(api: Api, call: Call) -> ASGIApp:
    parameters = call.parameters
    items, more = await api.log.list_items(
        call.tenant,
        _checked_id(call),
        limit=parameters.get("limit", LIMIT),
        after=parameters.get("after"),
        descending=parameters.get("order") != "asc",
    )
    return json_answer(_page(call, items, more=more))


async def get_conversation_item(api: Api, call: Call) -> ASGIApp:
    item = await api.log.store.get_item(call.tenant, _checked_id(call), call.parameters["item_id"])
    return json_answer(view.show_item(msgspec.json.decode(item.body), _see(call)))


async def delete_conversation_item(api: Api, call: Call) -> ASGIApp:
    store = api.log.store
    return json_answer(_shown(await store.delete_item(call.tenant, _checked_id(call), call.parameters["item_id"])))


async def _items(api: Api, tenant: str, given: list[Item], conversation_id: str) -> list[Item]:
    """The given items, complete; those that are named only are copied from where they stand."""
    ids = references(given)
    referenced = await api.log.find_items(tenant, ids) if ids else {}
    items = input_items(given, new_id=partial(api.new_id, chain=conversation_id), referenced=referenced, at="items")
    check_seals(api, tenant, items, param="items")  # no later turn could get past one that is broken
    return items


def _page(call: Call, items: list[Item], *, more: bool) -> dict[str, Any]:
    see = _see(call)
    return page_object([view.show_item(item, see) for item in items], more)


def _see(call: Call) -> int:
    return view.allowed(call.parameters.get("include", ()))


def _shown(conversation: Conversation) -> dict[str, Any]:
    return {
        "id": conversation.id,
        "object": "conversation",
        "created_at": conversation.created_at,
        "metadata": msgspec.Raw(conversation.metadata),
    }


def _checked_id(call: Call) -> str:
    return checked_id(call.parameters["conversation_id"], name="conversation_id", prefix="conv")


OPERATIONS: Mapping[str, Any] = {
    "createConversation": create_conversation,
    "getConversation": get_conversation,
    "updateConversation": update_conversation,
    "deleteConversation": delete_conversation,
    "createConversationItems": create_conversation_items,
    "listConversationItems": list_conversation_items,
    "getConversationItem": get_conversation_item,
    "deleteConversationItem": delete_conversation_item,
}

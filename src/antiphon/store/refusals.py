"""What every store says when it refuses, in the API's words, and the rule of the ids in a conversation."""

from __future__ import annotations

from collections.abc import Iterable

from antiphon.errors import BadRequest, Conflict, NotFound
from antiphon.store.base import Item


def response_not_found(response_id: str) -> NotFound:
    return NotFound(f"Response with id '{response_id}' not found.")


def conversation_not_found(conversation_id: str) -> NotFound:
    return NotFound(f"Conversation with id '{conversation_id}' not found.")


def item_not_found(item_id: str) -> NotFound:
    return NotFound(f"Item with id '{item_id}' not found.")


def prompt_not_found(prompt_id: str, version: int | None = None) -> NotFound:
    which = "" if version is None else f" and version '{version}'"
    return NotFound(f"Prompt with id '{prompt_id}'{which} not found.")


def previous_not_found(response_id: str) -> BadRequest:
    return BadRequest(
        f"Previous response with id '{response_id}' not found.",
        code="previous_response_not_found",
        param="previous_response_id",
    )


def exists_already(kind: str, id: str) -> Conflict:
    """kind: "Response" or "Conversation"."""
    return Conflict(f"{kind} with id '{id}' exists already.")


def key_in_use(key: str) -> Conflict:
    return Conflict(
        f"The idempotency key '{key}' was used for a request with another body. Use a new key for a new request.",
        code="idempotency_key_in_use",
        headers={"x-should-retry": "false"},
    )


def check_each_once(items: Iterable[Item], *, param: str) -> None:
    """Raise BadRequest if two of the items share an id and are not the same item."""
    known: dict[str, bytes] = {}
    for item in items:
        body = item.completed().body  # a turn's items differ from what was sent by their status alone
        if known.setdefault(item.id, body) != body:
            raise BadRequest(
                f"Duplicate item found with id {item.id}: another item of the conversation has it. "
                "Remove the item from your input, or send it without its id.",
                param=param,
            )

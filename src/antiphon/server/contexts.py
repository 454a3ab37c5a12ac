"""Compactconversation, Getinputtokencounts: what is done with a context instead of answering it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
from starlette.types import ASGIApp

from antiphon.errors import BadRequest
from antiphon.server.call import Api, Call, json_answer
from antiphon.server.create import Begun, begin, check_said, new_items, understood
from antiphon.server.responses import ended, reader_of
from antiphon.server.stream import Whole

Item = dict[str, Any]


async def compact_conversation(api: Api, call: Call) -> ASGIApp:
    """A response in memory that does nothing but compact: what it says is wrapped, its log forgotten."""
    body = call.body
    await understood(api, call.tenant, body)
    check_said(body)  # with the trigger in it, no input would be too little
    input = body.get("input") or []
    items = [{"role": "user", "content": input}] if isinstance(input, str) else input
    model = await _model(api, body)
    asked = {**body, "model": model, "input": [*items, {"type": "compaction_trigger"}], "store": False}
    begun = await begin(api, call.tenant, asked, admission=call.admission)
    return Whole(reader_of(api, call.tenant, begun), partial(_compacted, begun, call.tenant))


async def _compacted(begun: Begun, tenant: str) -> ASGIApp:
    stored = await ended(begun, tenant)
    assert stored.response is not None
    response = msgspec.json.decode(stored.response)
    return json_answer(
        {
            "id": begun.id,
            "object": "response.compaction",
            "created_at": response["created_at"],
            "output": [*_said_by_user(begun.context), *response["output"]],
            "usage": response["usage"],
        }
    )


def _said_by_user(context: Sequence[Item]) -> list[Item]:
    """The user's own messages, which the API gives back beside the summary."""
    return [item for item in context if item["type"] == "message" and item["role"] == "user"]


async def get_input_token_counts(api: Api, call: Call) -> ASGIApp:
    body, origin = await understood(api, call.tenant, call.body)
    items = await new_items(api, call.tenant, body.get("input") or [], origin.before)
    request = {**body, "model": await _model(api, body)}
    count = await api.count_tokens(call.tenant, request, [*origin.before, *items])
    return json_answer({"object": "response.input_tokens", "input_tokens": count})


async def _model(api: Api, body: Mapping[str, Any]) -> str:
    """The model that a body names; these operations let it be null, which is the first that there is."""
    named = body.get("model")
    models = [{"id": named}] if named else await api.models()
    if not models:
        raise BadRequest("Missing required parameter: 'model'.", code="missing_required_parameter", param="model")
    return str(models[0]["id"])


OPERATIONS: Mapping[str, Any] = {
    "Compactconversation": compact_conversation,
    "Getinputtokencounts": get_input_token_counts,
}

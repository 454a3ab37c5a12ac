"""listResponses, an extension: the stored responses by page, all of them or those that fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.types import ASGIApp

from antiphon.errors import NotFound
from antiphon.server.call import Api, Call, json_answer
from antiphon.server.pages import LIMIT
from antiphon.server.responses import shown


async def list_responses(api: Api, call: Call) -> ASGIApp:
    parameters = call.parameters
    page, more = await api.log.store.list_responses(
        call.tenant,
        limit=parameters.get("limit", LIMIT),
        after=parameters.get("after"),
        descending=parameters.get("order") != "asc",
        status=parameters.get("status"),
        model=parameters.get("model"),
        metadata=parameters.get("metadata"),
    )
    data = {}
    for stored in page:
        try:
            data[stored.id] = msgspec.Raw(await shown(api, stored))
        except NotFound:  # deleted meanwhile
            continue
    return json_answer(
        {
            "object": "list",
            "data": list(data.values()),
            "first_id": next(iter(data), None),
            "last_id": next(reversed(data), None),
            "has_more": more,
        }
    )


OPERATIONS: Mapping[str, Any] = {"listResponses": list_responses}

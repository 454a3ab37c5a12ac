"""createResponse, getResponse, deleteResponse, cancelResponse, listInputItems.

Each of them is a way to write or to read a log: create commits one, then follows it or gives its fold; get is the fold,
or following it; cancel closes it; delete erases it; the input items are what the model saw.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import msgspec
from starlette.types import ASGIApp

from antiphon.errors import ApiError, BadRequest, NotFound
from antiphon.log import Log
from antiphon.protocol import view
from antiphon.server.call import Api, Call, checked_id, encode, json_answer
from antiphon.server.create import Begun, begin
from antiphon.server.pages import page_object, page_of
from antiphon.server.stream import EventStream, Reader, Whole
from antiphon.store.base import Stored


class _Request(msgspec.Struct):
    """What the readers need of a stored create body."""

    include: list[str] | None = None


_decode_request = msgspec.json.Decoder(_Request).decode


async def create_response(api: Api, call: Call) -> ASGIApp:
    begun = await begin(api, call.tenant, call.body, admission=call.admission, idempotency_key=call.idempotency_key)
    reader = reader_of(api, call.tenant, begun)
    if begun.body.get("stream"):
        options = begun.body.get("stream_options") or {}
        return EventStream(
            reader,
            see=view.allowed(begun.body.get("include") or ()),
            padded=options.get("include_obfuscation") is not False,
            keepalive_seconds=api.limits.keepalive_seconds,
            done=api.sse_done,
            headers=begun.headers,
        )
    if begun.body.get("background"):
        return json_answer(begun.response, headers=begun.headers)
    return Whole(reader, partial(_ended, begun, call.tenant))


def reader_of(api: Api, tenant: str, begun: Begun) -> Reader:
    """The reading of a response by the one who created it; one in memory ends with its last reader."""
    log = begun.log
    at_end = partial(_forget, log, tenant, begun.id) if log is api.memory else None
    return Reader(log, tenant, begun.id, partial(log.following, tenant, begun.id), at_end)


async def _forget(log: Log, tenant: str, response_id: str) -> None:
    if log.is_followed(tenant, response_id):
        return  # the same create came again, and its caller reads on
    try:
        await log.delete(tenant, response_id)
    except NotFound:
        pass


async def _ended(begun: Begun, tenant: str) -> ASGIApp:
    """The answer to a plain create whose log is closed."""
    return json_answer((await ended(begun, tenant)).response, headers=begun.headers)


async def ended(begun: Begun, tenant: str) -> Stored:
    """A response that has ended. Raises the ApiError of a model that failed before it said anything."""
    stored = await begun.log.store.get(tenant, begun.id)
    if stored.status == "failed":
        for note in await begun.log.notes(tenant, begun.id):
            if note.kind == "failed" and not (await begun.log.fold(tenant, begun.id)).output:
                fields = note.fields
                raise ApiError.of(fields["status"], {"error": fields["error"]}, headers=fields.get("headers"))
    return stored


async def get_response(api: Api, call: Call) -> ASGIApp:
    response_id, parameters = _checked_id(call), call.parameters
    stored = await api.log.store.get(call.tenant, response_id)
    include = parameters.get("include", ())
    if parameters.get("stream"):
        reader = Reader(api.log, call.tenant, response_id, growing=not stored.closed)
        if not stored.closed and not stored.background:
            reader = Reader(api.log, call.tenant, response_id, partial(api.log.following, call.tenant, response_id))
        return EventStream(
            reader,
            see=_see(stored, include),
            padded=parameters.get("include_obfuscation") is not False,
            after=max(-1, parameters.get("starting_after", -1)),
            keepalive_seconds=api.limits.keepalive_seconds,
            done=api.sse_done,
        )
    return json_answer(await shown(api, stored, include))


async def delete_response(api: Api, call: Call) -> ASGIApp:
    response_id = _checked_id(call)
    await api.log.delete(call.tenant, response_id)
    return json_answer({"id": response_id, "object": "response", "deleted": True})


async def cancel_response(api: Api, call: Call) -> ASGIApp:
    response_id = _checked_id(call)
    stored = await api.log.store.get(call.tenant, response_id)
    if stored.closed and not stored.background and stored.status != "cancelled":
        raise BadRequest("Cannot cancel a synchronous response.")
    if not stored.closed:
        await api.log.cancel(call.tenant, response_id)
        stored = await api.log.store.get(call.tenant, response_id)
    return json_answer(await shown(api, stored))


async def list_input_items(api: Api, call: Call) -> ASGIApp:
    response_id, parameters = _checked_id(call), call.parameters
    stored = await api.log.store.get(call.tenant, response_id)
    see = _see(stored, parameters.get("include", ()))
    items, more = page_of((await api.log.context(call.tenant, response_id)).items, parameters)
    return json_answer(page_object([view.show_item(item, see) for item in items], more))


async def shown(api: Api, stored: Stored, include: Iterable[str] = ()) -> bytes:
    """A stored response as JSON: its bytes as they are kept, unless it still grows or this caller may see more."""
    see = _see(stored, include)
    if stored.response is not None and not stored.mask & see & ~_see(stored):
        return stored.response
    transcript = await api.log.fold(stored.tenant, stored.id)
    return encode(view.show_response(transcript.response, see))


def _see(stored: Stored, include: Iterable[str] = ()) -> int:
    """What a caller sees: the create's `include` together with this call's."""
    return view.allowed([*(_decode_request(stored.request).include or ()), *include])


def _checked_id(call: Call) -> str:
    return checked_id(call.parameters["response_id"], name="response_id", prefix="resp")


OPERATIONS: Mapping[str, Any] = {
    "createResponse": create_response,
    "getResponse": get_response,
    "deleteResponse": delete_response,
    "cancelResponse": cancel_response,
    "listInputItems": list_input_items,
}

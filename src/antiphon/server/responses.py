"""createResponse, getResponse, deleteResponse, cancelResponse.

Each of them is a way to write or to read a log: create commits one, then follows it or gives its fold; get is the fold,
or following it; cancel closes it; delete erases it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

import msgspec
from starlette.types import ASGIApp

from antiphon.errors import ApiError, BadRequest, NotFound
from antiphon.log import Log
from antiphon.protocol import view
from antiphon.protocol.transcript import Transcript
from antiphon.server.call import Api, Call, json_answer
from antiphon.server.items import check_calls, input_items, without_known
from antiphon.server.skeleton import skeleton
from antiphon.server.stream import EventStream, Reader, Whole
from antiphon.server.support import check_supported
from antiphon.store.base import Stored

_decode = msgspec.json.decode


class _Request(msgspec.Struct):
    """What the readers need of a stored create body."""

    include: list[str] | None = None


_decode_request = msgspec.json.Decoder(_Request).decode


async def create_response(api: Api, call: Call) -> ASGIApp:
    body = call.body
    previous = await _previous(api, call.tenant, body)
    check_supported(body)
    background, stored = bool(body.get("background")), body.get("store") is not False
    response_id = api.new_id("resp", chain=previous)
    before = [] if previous is None else await api.log.context(call.tenant, previous, output=True)
    given = input_items(body["input"], new_id=partial(api.new_id, chain=response_id))
    items = without_known(given, before)
    check_calls(before, items)

    transcript = Transcript(skeleton(body, id=response_id, created_at=int(api.now())))
    events = [transcript.write("response.created", status="queued" if background else "in_progress")]
    # A foreground response is worked on at once: saying so with the create saves a commit.
    events.append(transcript.write("response.queued" if background else "response.in_progress"))
    log = api.log if stored else api.memory
    with nullcontext() if background else api.place():
        claim = await log.create(
            call.tenant,
            transcript,
            events,
            request={name: value for name, value in body.items() if name != "input"},
            items=items if stored else [*before, *items],
            before=before if stored else (),
            previous=previous if stored else None,
            claim=not background,
        )
        if claim is not None:
            api.run(log, claim)
    return _created(api, call, log, events[-1]["response"])


def _created(api: Api, call: Call, log: Log, response: dict[str, Any]) -> ASGIApp:
    """The answer to a create: the log as events, its fold as it stands, or its fold when it is closed."""
    response_id, body = response["id"], call.body
    watched = partial(log.following, call.tenant, response_id)
    at_end = partial(_forget, log, call.tenant, response_id) if log is api.memory else None
    reader = Reader(log, call.tenant, response_id, watched, at_end)
    if body.get("stream"):
        options = body.get("stream_options") or {}
        return EventStream(
            reader,
            see=view.allowed(body.get("include") or ()),
            padded=options.get("include_obfuscation") is not False,
            keepalive_seconds=api.limits.keepalive_seconds,
            done=api.sse_done,
        )
    if body.get("background"):
        return json_answer(response)
    return Whole(reader, partial(_ended, log, call.tenant, response_id))


async def _previous(api: Api, tenant: str, body: Mapping[str, Any]) -> str | None:
    """The id of the response that a create continues. Raises BadRequest if that cannot be, or if there is no input."""
    previous: str | None = body.get("previous_response_id")
    conversation = body.get("conversation")
    if previous is not None and conversation is not None:
        raise BadRequest(
            "Mutually exclusive parameters: ''. "
            "Ensure you are only providing one of: 'previous_response_id' or 'conversation'.",
            code="mutually_exclusive_parameters",
        )
    if previous is not None:
        await _check_ended(api, tenant, previous)
    elif not (body.get("input") or body.get("prompt") or conversation):
        raise BadRequest(
            "One of \"input\" or \"previous_response_id\" or 'prompt' or 'conversation' must be provided.",
            code="missing_required_parameter",
        )
    return previous


async def _check_ended(api: Api, tenant: str, previous: str) -> None:
    try:
        stored = await api.log.store.get(tenant, previous)
    except NotFound as unknown:
        raise BadRequest(
            f"Previous response with id '{previous}' not found.",
            code="previous_response_not_found",
            param="previous_response_id",
        ) from unknown
    if not stored.closed:
        raise BadRequest(
            f"Previous response with id '{previous}' is still in progress.",
            code="previous_response_in_progress",
            param="previous_response_id",
        )


async def _forget(log: Log, tenant: str, response_id: str) -> None:
    try:
        await log.delete(tenant, response_id)
    except NotFound:
        pass


async def _ended(log: Log, tenant: str, response_id: str) -> ASGIApp:
    """The answer to a plain create whose log is closed; a model that failed before it said anything is an error."""
    stored = await log.store.get(tenant, response_id)
    if stored.status == "failed":
        for note in await log.notes(tenant, response_id):
            if note.kind == "failed" and not (await log.fold(tenant, response_id)).output:
                raise ApiError.of(note.fields["status"], {"error": note.fields["error"]})
    return _shown(stored)


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
    if not stored.closed:
        transcript = await api.log.fold(call.tenant, response_id)
        return json_answer(view.show_response(transcript.response, _see(stored, include)))
    return _shown(stored, include)


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
    return _shown(stored)


def _shown(stored: Stored, include: tuple[str, ...] = ()) -> ASGIApp:
    """A finished response: its bytes as they are kept, unless they hold what this caller may not see."""
    assert stored.response is not None
    if stored.mask and stored.mask & ~(see := _see(stored, include)):
        return json_answer(view.show_response(_decode(stored.response), see))
    return json_answer(stored.response)


def _see(stored: Stored, include: tuple[str, ...]) -> int:
    """What a caller sees: the create's `include` together with this call's."""
    return view.allowed([*(_decode_request(stored.request).include or ()), *include])


def _checked_id(call: Call) -> str:
    response_id: str = call.parameters["response_id"]
    if not response_id.startswith("resp"):
        raise BadRequest(
            f"Invalid 'response_id': '{response_id}'. Expected an ID that begins with 'resp'.",
            code="invalid_id_prefix",
            param="response_id",
        )
    return response_id


OPERATIONS: Mapping[str, Any] = {
    "createResponse": create_response,
    "getResponse": get_response,
    "deleteResponse": delete_response,
    "cancelResponse": cancel_response,
}

"""begin(): a create body becomes a response, committed and at work. Whoever is told what it says comes afterwards.

The order of the checks is the API's own: what the body names is looked up (the conversation, the prompt, the previous
response), then the input must be there, then this server must be able to do what is asked.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from antiphon.errors import ApiError, BadRequest, BrokenSeal, NotFound, Repeated
from antiphon.log import Log
from antiphon.protocol.transcript import Transcript
from antiphon.server.call import Api, checked_id
from antiphon.server.items import check_calls, input_items, references, split_trigger, without_known
from antiphon.server.limits import Admission, check_context, check_context_bytes
from antiphon.server.prompts import rendered_prompt
from antiphon.server.skeleton import skeleton
from antiphon.server.support import check_supported, unavailable_tools
from antiphon.store.base import Idempotency
from antiphon.store.refusals import previous_not_found

logger = logging.getLogger(__name__)

Item = dict[str, Any]

IDEMPOTENCY_KEY_MAX = 255  # characters
IDEMPOTENCY_SECONDS = 24 * 3600.0

_canonical = msgspec.json.Encoder(order="deterministic").encode


@dataclass(frozen=True)
class Begun:
    """A response that has begun, and what its caller asked for."""

    log: Log
    response: dict[str, Any]  # as it stood when it was created
    body: Mapping[str, Any]
    context: Sequence[Item]  # what the model sees, the input last
    unavailable_tools: tuple[str, ...] = ()  # that were asked for and are not offered to the model

    @property
    def id(self) -> str:
        return str(self.response["id"])

    @property
    def headers(self) -> Mapping[str, str]:
        """What the answer says beside its body."""
        missing = ", ".join(self.unavailable_tools)
        return {"antiphon-unavailable-tools": missing} if missing else {}


@dataclass(frozen=True)
class Origin:
    """What a body continues."""

    previous: str | None = None
    conversation: str | None = None
    before: Sequence[Item] = ()  # what the model has seen and said there
    bytes: int = 0  # of these
    in_memory: bool = False  # the previous response is not stored


async def begin(
    api: Api,
    tenant: str,
    body: Mapping[str, Any],
    *,
    admission: Admission | None = None,
    idempotency_key: str | None = None,
    kept: Collection[str] = (),
) -> Begun:
    """Create the response that a body asks for, and put it to work.

    kept: responses in memory that this caller may continue. A create that comes again with its key begins nothing: it
    gives the response that there is. Raises the ApiError that answers a body which cannot be carried out.
    """
    idempotency = _idempotency(body, idempotency_key)
    try:
        return await _begin(api, tenant, body, admission=admission, idempotency=idempotency, kept=kept)
    except ApiError:
        if idempotency is None:
            raise
        # A repeated create may be refused for what has changed since the first: what it named was deleted, or its
        # conversation went on, with its own answer.
        for log in (api.log, api.memory):
            try:
                await log.store.check_key(tenant, idempotency)
            except Repeated as repeated:
                return await _begun_before(api, log, tenant, repeated.response_id)
        raise


async def _begin(
    api: Api,
    tenant: str,
    body: Mapping[str, Any],
    *,
    admission: Admission | None,
    idempotency: Idempotency | None,
    kept: Collection[str],
) -> Begun:
    _check_whole(body)
    body, origin = await understood(api, tenant, body, kept=kept)
    if admission is not None and admission.hold is not None:
        admission.hold.add(origin.bytes)
    check_said(body)
    hosted_tools = unavailable_tools(body)
    run_there = bool(hosted_tools) and await api.runs_hosted_tools(body["model"])
    check_supported(body, hosted_tools=run_there, strict_tools=api.strict_tools)
    response_id = api.new_id("resp", chain=origin.previous or origin.conversation)
    input, compacting = split_trigger(body["input"])
    items = await new_items(api, tenant, input, origin.before, chain=response_id)
    stored, background = body.get("store") is not False, bool(body.get("background"))
    transcript = Transcript(skeleton(body, id=response_id, created_at=int(api.now())))
    events = [transcript.write("response.created", status="queued" if background else "in_progress")]
    # A foreground response is worked on at once: saying so with the create saves a commit.
    events.append(transcript.write("response.queued" if background else "response.in_progress"))
    request = {name: value for name, value in body.items() if name != "input"}
    if compacting:
        request["compaction_trigger"] = True
    log = api.log if stored else api.memory
    linked = stored and not origin.in_memory  # the store knows what comes before
    context = [*origin.before, *items]
    try:
        with nullcontext() if background else api.place():
            claim = await log.create(
                tenant,
                transcript,
                events,
                request=request,
                items=items if linked else context,
                before=origin.before if linked else (),
                previous=origin.previous if linked else None,
                conversation=origin.conversation,
                claim=not background,
                idempotency=idempotency,
                retention_days=None if admission is None else admission.retention_days,
            )
            if admission is not None:
                admission.began(response_id)
            if claim is not None:
                if admission is not None and admission.hold is not None:
                    api.limiter.work_on(response_id, admission.hold)
                api.run(log, claim)
            else:
                logger.info("response queued", extra={"response_id": response_id})
    except Repeated as repeated:
        return await _begun_before(api, log, tenant, repeated.response_id)
    return Begun(log, events[-1]["response"], body, context, () if run_there else hosted_tools)


async def _begun_before(api: Api, log: Log, tenant: str, response_id: str) -> Begun:
    """The response that a create has begun when it came for the first time."""
    stored = await log.store.get(tenant, response_id)
    body = msgspec.json.decode(stored.request)
    hosted_tools = unavailable_tools(body)
    run_there = bool(hosted_tools) and await api.runs_hosted_tools(body["model"])
    response = (await log.fold(tenant, response_id)).response
    return Begun(log, response, body, (), () if run_there else hosted_tools)


async def understood(
    api: Api, tenant: str, body: Mapping[str, Any], *, kept: Collection[str] = ()
) -> tuple[Mapping[str, Any], Origin]:
    """The body with its prompt template filled in, and what it continues.

    Raises the ApiError for what is named in it and is not there.
    """
    conversation = body.get("conversation")
    if isinstance(conversation, Mapping):
        conversation = conversation["id"]
    previous = body.get("previous_response_id")
    if previous is not None and conversation is not None:
        raise BadRequest(
            "Mutually exclusive parameters: ''. "
            "Ensure you are only providing one of: 'previous_response_id' or 'conversation'.",
            code="mutually_exclusive_parameters",
        )
    if body.get("model") == "":
        raise BadRequest("The requested model '' does not exist.", code="model_not_found", param="model")
    origin = Origin()
    if conversation is not None:
        check_context_bytes(api.limits, await api.log.store.conversation_bytes(tenant, conversation))
        before = await api.log.conversation_items(tenant, conversation)
        origin = Origin(conversation=conversation, before=before.items, bytes=before.bytes)
    body = await rendered_prompt(api, tenant, body)
    if previous is not None:
        origin = await _previous(api, tenant, previous, kept)
    check_context_bytes(api.limits, origin.bytes)
    return body, origin


def _check_whole(body: Mapping[str, Any]) -> None:
    """Raise BadRequest for a body without model or input. Only a template may supply them, and null names none."""
    for name in ("model", "input") if body.get("prompt") is None else ():
        if name not in body:
            message = f"Missing required parameter: '{name}'."
            raise BadRequest(message, code="missing_required_parameter", param=name)


def check_said(body: Mapping[str, Any]) -> None:
    """Raise BadRequest for a body that gives the model nothing to answer."""
    if not any(body.get(name) for name in ("input", "previous_response_id", "prompt", "conversation")):
        raise BadRequest(
            "One of \"input\" or \"previous_response_id\" or 'prompt' or 'conversation' must be provided.",
            code="missing_required_parameter",
        )


async def _previous(api: Api, tenant: str, previous: str, kept: Collection[str]) -> Origin:
    """The response that a create continues, which must have ended."""
    checked_id(previous, name="previous_response_id", prefix="resp")
    log = api.memory if previous in kept else api.log
    try:
        stored = await log.store.get(tenant, previous)
    except NotFound as unknown:
        raise previous_not_found(previous) from unknown
    if not stored.closed:
        raise BadRequest(
            f"Previous response with id '{previous}' is still in progress.",
            code="previous_response_in_progress",
            param="previous_response_id",
        )
    before = await log.context(tenant, previous, output=True)
    return Origin(previous, before=before.items, bytes=before.bytes, in_memory=log is api.memory)


async def new_items(
    api: Api, tenant: str, input: str | list[Item], before: Sequence[Item], *, chain: str | None = None
) -> list[Item]:
    """The items of an input, complete, without those that came before."""
    ids = references(input)
    referenced = await api.log.find_items(tenant, ids) if ids else {}
    given = input_items(input, new_id=partial(api.new_id, chain=chain), referenced=referenced)
    check_seals(api, tenant, given, param="input")
    items = without_known(given, before)
    check_calls(before, items)
    check_context(api.limits, len(before) + len(items))
    return items


def check_seals(api: Api, tenant: str, items: Sequence[Item], *, param: str) -> None:
    """Raise BadRequest for encrypted content that was not made here for this tenant."""
    seals = api.seals.of(tenant)
    for item in items:
        if item.get("encrypted_content"):
            try:
                seals.open(item["type"], item["encrypted_content"])
            except BrokenSeal as broken:
                raise BadRequest(
                    f"The encrypted content for item {item['id']} could not be verified.",
                    code="invalid_encrypted_content",
                    param=param,
                ) from broken


def _idempotency(body: Mapping[str, Any], key: str | None) -> Idempotency | None:
    if key is None:
        return None
    if not 0 < len(key) <= IDEMPOTENCY_KEY_MAX:
        raise BadRequest(
            f"Invalid 'Idempotency-Key': expected 1 to {IDEMPOTENCY_KEY_MAX} characters.",
            code="invalid_value",
            param="Idempotency-Key",
        )
    return Idempotency(key, hashlib.sha256(_canonical(body)).digest(), IDEMPOTENCY_SECONDS)

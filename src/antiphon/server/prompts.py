"""Prompt templates, an extension: kept here by version, and named by a create's `prompt`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.types import ASGIApp

from antiphon.errors import BadRequest, NotFound
from antiphon.server.call import Api, Call, checked_id, json_answer
from antiphon.server.pages import LIMIT, page_object
from antiphon.server.templates import names_in, rendered, variables_of
from antiphon.store.base import PromptVersion

# What belongs to one call, and not to what is asked in it.
_OF_A_CALL = ("prompt", "previous_response_id", "conversation", "stream", "stream_options")


async def rendered_prompt(api: Api, tenant: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
    """A create body with what its prompt template says; its own fields come first.

    Raises NotFound if there is no such template, BadRequest if the variables do not fit it or no model is named.
    """
    prompt = body.get("prompt")
    if prompt is None:
        return body
    kept = await _kept(api, tenant, prompt["id"], prompt.get("version"))
    fields = rendered(msgspec.json.decode(kept.body), prompt.get("variables"))
    _check_fields(api, fields)  # again: a variable may be longer than its place allows
    given = {name: value for name, value in body.items() if value is not None}
    whole = {"input": [], **fields, **given}
    if "model" not in whole:
        raise BadRequest("Missing required parameter: 'model'.", code="missing_required_parameter", param="model")
    return whole


async def create_prompt(api: Api, call: Call) -> ASGIApp:
    template, prompt_id = call.body["template"], call.body.get("id")
    _check_template(api, template)
    if prompt_id is None:
        prompt_id = api.new_id("pmpt")
    else:
        await _kept(api, call.tenant, prompt_id)
    return json_answer(_shown(await api.log.store.put_prompt(call.tenant, prompt_id, msgspec.json.encode(template))))


async def get_prompt(api: Api, call: Call) -> ASGIApp:
    return json_answer(_shown(await _kept(api, call.tenant, _checked_id(call), call.parameters.get("version"))))


async def list_prompts(api: Api, call: Call) -> ASGIApp:
    parameters = call.parameters
    prompts, more = await api.log.store.list_prompts(
        call.tenant,
        limit=parameters.get("limit", LIMIT),
        after=parameters.get("after"),
        descending=parameters.get("order") != "asc",
    )
    return json_answer(page_object([_shown(prompt) for prompt in prompts], more))


async def delete_prompt(api: Api, call: Call) -> ASGIApp:
    prompt_id = _checked_id(call)
    await api.log.store.delete_prompt(call.tenant, prompt_id)
    return json_answer({"id": prompt_id, "object": "prompt.deleted", "deleted": True})


async def _kept(api: Api, tenant: str, prompt_id: str, version: str | None = None) -> PromptVersion:
    """A version of a template, the newest if none is named. Raises NotFound."""
    if version is not None and not (version.isdecimal() and version.isascii() and len(version) < 19):
        raise NotFound(f"Prompt with id '{prompt_id}' and version '{version}' not found.")
    return await api.log.store.get_prompt(tenant, prompt_id, None if version is None else int(version))


def _check_template(api: Api, template: Mapping[str, Any]) -> None:
    """Raise BadRequest for what no create could be made of: the placeholders count as the texts that they are in."""
    fields = {name: value for name, value in template.items() if name != "variables"}
    for name in _OF_A_CALL:
        if name in fields:
            where = f"template.{name}"
            raise BadRequest(f"Unknown parameter: '{where}'.", code="unknown_parameter", param=where)
    _check_fields(api, fields)
    if "variables" in template:
        _check_declared(template["variables"], names_in(fields))


def _check_fields(api: Api, fields: Mapping[str, Any]) -> None:
    """Raise BadRequest for the first field of a template that a create could not have."""
    create = api.document.operation("createResponse").body
    assert create is not None
    schema = create.media["application/json"].strict(lenient=("input",))
    for problem in schema.problems({**fields, "prompt": {"id": "pmpt"}}, at="template"):
        raise BadRequest(problem.message, code=problem.code, param=problem.param)


def _check_declared(declared: Any, used: set[str]) -> None:
    where = "template.variables"
    if not isinstance(declared, list) or not all(isinstance(name, str) for name in declared):
        raise BadRequest(f"Invalid type for '{where}': expected an array of strings.", code="invalid_type", param=where)
    for name in sorted(used - set(declared)):
        raise BadRequest(
            f"Invalid '{where}': the template uses '{name}', which is not among them.",
            code="invalid_value",
            param=where,
        )


def _shown(prompt: PromptVersion) -> dict[str, Any]:
    template = msgspec.json.decode(prompt.body)
    return {
        "id": prompt.id,
        "object": "prompt",
        "created_at": prompt.created_at,
        "version": str(prompt.version),
        "variables": variables_of(template),
        "template": template,
    }


def _checked_id(call: Call) -> str:
    return checked_id(call.parameters["prompt_id"], name="prompt_id", prefix="pmpt")


OPERATIONS: Mapping[str, Any] = {
    "createPrompt": create_prompt,
    "getPrompt": get_prompt,
    "listPrompts": list_prompts,
    "deletePrompt": delete_prompt,
}

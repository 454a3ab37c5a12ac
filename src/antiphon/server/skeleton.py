"""The Response object before anything was said: every field that echoes the request, with its default.

Source: the recorded answers of the API; null and default values are sent, not left out. Secrets in tools are not
repeated: the request keeps them for whoever runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

Json = dict[str, Any]

# Echoed as sent, or with the default that stands here.
_ECHOED: Json = {
    "background": False,
    "frequency_penalty": 0.0,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "parallel_tool_calls": True,
    "presence_penalty": 0.0,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "prompt_cache_retention": None,
    "safety_identifier": None,
    "store": True,
    "temperature": 1.0,
    "tool_choice": "auto",
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
    "metadata": {},
}

# Echoed only if sent.
_OPTIONAL = ("prompt", "prompt_cache_options")

_REDACTED = "<redacted>"


def skeleton(body: Mapping[str, Any], *, id: str, created_at: int) -> Json:
    """The Response that a create begins with."""
    echoed = {name: default if body.get(name) is None else body[name] for name, default in _ECHOED.items()}
    response = {
        "id": id,
        "object": "response",
        "created_at": created_at,
        "status": "in_progress",
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "model": body["model"],
        "moderation": None,
        "output": [],
        **echoed,
        "reasoning": _reasoning(body.get("reasoning") or {}),
        "service_tier": "auto",  # the tier that was used is known at the end
        "text": _text(body.get("text") or {}),
        "tools": [_tool(tool) for tool in body.get("tools") or ()],
        "usage": None,
    }
    conversation = body.get("conversation")
    if conversation is not None:
        response["conversation"] = {"id": conversation if isinstance(conversation, str) else conversation["id"]}
    response.update((name, body[name]) for name in _OPTIONAL if body.get(name) is not None)
    return response


def _reasoning(reasoning: Mapping[str, Any]) -> Json:
    echoed = {"effort": None, "summary": None, **reasoning}
    if echoed["summary"] == "auto":  # the echo tells what was chosen: all that there is
        echoed["summary"] = "detailed"
    return echoed


def _text(text: Mapping[str, Any]) -> Json:
    format = text.get("format") or {"type": "text"}
    if format["type"] == "json_schema":
        format = {**format, "description": format.get("description"), "strict": bool(format.get("strict"))}
    return {"format": format, "verbosity": text.get("verbosity") or "medium"}


def _tool(tool: Mapping[str, Any]) -> Json:
    """A tool with its defaults filled in and its secrets left out."""
    echo = _ECHOES.get(tool["type"])
    return echo(tool) if echo else dict(tool)


def _function(tool: Mapping[str, Any]) -> Json:
    """`strict` counts as true when it is left out, and then the parameters are told as strict ones are.

    Parameters that leave an object open cannot be strict.
    """
    echoed = {"description": None, "parameters": None, "strict": True, **tool}
    if "strict" not in tool:
        if any(schema.get("additionalProperties") for schema in _schemas(echoed["parameters"])):
            echoed["strict"] = False
        else:
            echoed["parameters"] = _closed(echoed["parameters"])
    return echoed


def _schemas(schema: Any) -> Iterator[Mapping[str, Any]]:
    """A schema and all that are written in it."""
    if not isinstance(schema, Mapping):
        return
    yield schema
    for key, value in schema.items():
        for below in _below(key, value):
            yield from _schemas(below)


def _below(key: str, value: Any) -> Iterable[Any]:
    if key in _OF_SCHEMAS_BY_NAME and isinstance(value, Mapping):
        return value.values()
    if key in _LISTS_OF_SCHEMAS and isinstance(value, list):
        return value
    return [value] if key == "items" else []


def _closed(schema: Any) -> Any:
    """The schema with each object closed, and all its properties required."""
    if not isinstance(schema, Mapping):
        return schema
    closed = dict(schema)
    for key, value in schema.items():
        if key in _OF_SCHEMAS_BY_NAME and isinstance(value, Mapping):
            closed[key] = {name: _closed(each) for name, each in value.items()}
        elif key in _LISTS_OF_SCHEMAS and isinstance(value, list):
            closed[key] = [_closed(each) for each in value]
        elif key == "items":
            closed[key] = _closed(value)
    if "properties" in schema or schema.get("type") == "object":
        closed["additionalProperties"] = False
        closed["required"] = list(schema.get("properties") or ())
    return closed


def _namespace(tool: Mapping[str, Any]) -> Json:
    return {**tool, "tools": [_tool(each) for each in tool["tools"]]}


def _with(defaults: Json) -> Callable[[Mapping[str, Any]], Json]:
    return lambda tool: {**defaults, **tool}


def _web_search(tool: Mapping[str, Any]) -> Json:
    echoed = {"search_context_size": "medium", **tool}
    location = tool.get("user_location") or {"country": "US"}
    echoed["user_location"] = {**_LOCATION, **location}
    return echoed


def _mcp(tool: Mapping[str, Any]) -> Json:
    echoed = {"allowed_tools": None, "headers": None, "require_approval": "always", **tool}
    if echoed["headers"]:
        echoed["headers"] = dict.fromkeys(echoed["headers"], _REDACTED)
    if "authorization" in tool:
        echoed["authorization"] = _REDACTED
    if "server_url" in tool:
        echoed["server_url"] = _without_path(tool["server_url"])
    return echoed


def _without_path(url: str) -> str:
    """The URL as far as its host: a path, a query, and a user's name can each hold a key."""
    parts = urlsplit(url)
    host = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    return f"{host}/{_REDACTED}" if parts.path.strip("/") or parts.query or parts.fragment else host + parts.path


def _container(name: str) -> Callable[[Mapping[str, Any]], Json]:
    """Of a tool that may run in a container, described by that field: what the container may send to whom."""

    def echo(tool: Mapping[str, Any]) -> Json:
        container = tool.get(name)
        if not isinstance(container, Mapping):
            return dict(tool)
        policy = container.get("network_policy") or {}
        if not policy.get("domain_secrets"):
            return dict(tool)
        secrets = [{**secret, "value": _REDACTED} for secret in policy["domain_secrets"]]
        return {**tool, name: {**container, "network_policy": {**policy, "domain_secrets": secrets}}}

    return echo


_OF_SCHEMAS_BY_NAME = ("properties", "$defs", "definitions")
_LISTS_OF_SCHEMAS = ("anyOf", "oneOf", "allOf", "prefixItems")

_LOCATION: Json = {"type": "approximate", "country": None, "region": None, "city": None, "timezone": None}
_RANKING = {"ranker": "auto", "score_threshold": 0.0}
_IMAGE = {
    "background": "auto",
    "moderation": "auto",
    "n": 1,
    "output_compression": 100,
    "output_format": "png",
    "quality": "auto",
    "size": "auto",
}

_ECHOES: dict[str, Callable[[Mapping[str, Any]], Json]] = {
    "function": _function,
    "custom": _with({"format": {"type": "text"}}),
    "namespace": _namespace,
    "tool_search": _with({"execution": "server"}),
    "shell": _container("environment"),
    "code_interpreter": _container("container"),
    "file_search": _with({"filters": None, "max_num_results": 20, "ranking_options": _RANKING}),
    "image_generation": _with(_IMAGE),
    "mcp": _mcp,
    "web_search": lambda tool: {"filters": None, **_web_search(tool)},
    "web_search_2025_08_26": lambda tool: {"filters": None, **_web_search(tool)},
    "web_search_preview": _web_search,
    "web_search_preview_2025_03_11": _web_search,
}
"""How a tool is echoed, by its type; any other as it was sent."""

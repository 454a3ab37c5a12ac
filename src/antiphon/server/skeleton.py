"""The Response object before anything was said: every field that echoes the request, with its default.

Source: the recorded answers of the API; null and default values are sent, not left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Echoed as sent, or with the default that stands here.
_ECHOED: dict[str, Any] = {
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
_OPTIONAL = ("prompt_cache_options",)


def skeleton(body: Mapping[str, Any], *, id: str, created_at: int) -> dict[str, Any]:
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
        "output": [],
        **echoed,
        "reasoning": {"effort": None, "summary": None, **(body.get("reasoning") or {})},
        "service_tier": "auto",  # the tier that was used is known at the end
        "text": _text(body.get("text") or {}),
        "tools": [_tool(tool) for tool in body.get("tools") or ()],
        "usage": None,
    }
    for name in _OPTIONAL:
        if body.get(name) is not None:
            response[name] = body[name]
    return response


def _text(text: Mapping[str, Any]) -> dict[str, Any]:
    format = text.get("format") or {"type": "text"}
    if format["type"] == "json_schema":
        format = {**format, "description": format.get("description"), "strict": bool(format.get("strict"))}
    return {"format": format, "verbosity": text.get("verbosity") or "medium"}


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    """A function with its defaults; `strict` counts as true when it is left out."""
    return {"description": None, "parameters": None, "strict": True, **tool}

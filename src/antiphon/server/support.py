"""What of a valid create body this server carries out; all else is refused by name, never ignored.

One row a field: whether a value is supported. A value that asks for nothing, such as null or the default, always is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from antiphon.errors import BadRequest


def _only(*values: Any) -> Callable[[Any], bool]:
    return lambda value: value in values


SUPPORTED: dict[str, Callable[[Any], bool]] = {
    "conversation": _only(),
    "context_management": _only(),
    "moderation": _only(),
    "prompt": _only(),
    "truncation": _only("disabled"),
    "reasoning.summary": _only(),
    "reasoning.generate_summary": _only(),
    "reasoning.context": _only("auto"),
    "reasoning.mode": _only("standard"),
}
"""A path into the body -> whether its value is carried out. A path that is absent, or null, asks for nothing."""

_TOOLS = ("function",)
_TOOL_CHOICES = ("function",)
_ITEMS = ("message", "function_call", "function_call_output", "reasoning")
_PARTS = ("input_text", "input_image", "output_text", "refusal")
_NOT_INCLUDED = ("reasoning.encrypted_content",)


def check_supported(body: Mapping[str, Any]) -> None:
    """Raise BadRequest for the first thing asked for that is not carried out here."""
    for path, supported in SUPPORTED.items():
        value = _at(body, path)
        if value is not None and not supported(value):
            raise _unsupported(path)
    for index, value in enumerate(body.get("include") or ()):
        if value in _NOT_INCLUDED:
            raise _unsupported(f"include[{index}]", value)
    for index, tool in enumerate(body.get("tools") or ()):
        if tool["type"] not in _TOOLS:
            raise _unsupported(f"tools[{index}].type", tool["type"])
        for name in ("defer_loading", "output_schema"):
            if tool.get(name):
                raise _unsupported(f"tools[{index}].{name}")
        if tool.get("allowed_callers") not in (None, ["direct"]):
            raise _unsupported(f"tools[{index}].allowed_callers")
    choice = body.get("tool_choice")
    if isinstance(choice, Mapping) and choice.get("type") not in _TOOL_CHOICES:
        raise _unsupported("tool_choice.type", choice.get("type"))
    if isinstance(body["input"], list):
        for index, item in enumerate(body["input"]):
            _check_item(item, f"input[{index}]")
    if body.get("background") and body.get("store") is False:
        raise BadRequest(
            "A background response must be stored: 'background' needs 'store' to be true.",
            code="invalid_value",
            param="background",
        )


def _check_item(item: Mapping[str, Any], at: str) -> None:
    type = item.get("type", "message")
    if type not in _ITEMS:
        raise _unsupported(f"{at}.type", type)
    name = "output" if type == "function_call_output" else "content"
    parts = item.get(name)
    for index, part in enumerate(parts if isinstance(parts, list) and type != "reasoning" else ()):
        place = f"{at}.{name}[{index}]"
        if part["type"] not in _PARTS or (type == "function_call_output" and part["type"] != "input_text"):
            raise _unsupported(f"{place}.type", part["type"])
        if part.get("file_id"):
            raise _unsupported(f"{place}.file_id")
    if type == "function_call_output" and not item.get("call_id"):
        raise BadRequest(
            f"Missing required parameter: '{at}.call_id'.", code="missing_required_parameter", param=f"{at}.call_id"
        )
    if type == "reasoning" and item.get("encrypted_content"):
        raise _unsupported(f"{at}.encrypted_content")


def _at(body: Mapping[str, Any], path: str) -> Any:
    value: Any = body
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _unsupported(path: str, value: Any = None) -> BadRequest:
    what = f"Unsupported value: '{value}'" if value is not None else f"Unsupported parameter: '{path}'"
    return BadRequest(
        f"{what} is not supported by this server yet.",
        code="unsupported_value" if value is not None else "unsupported_parameter",
        param=path,
    )

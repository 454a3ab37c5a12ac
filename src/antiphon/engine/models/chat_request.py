"""chat_body(): a create request and its context items, as the body of a Chat Completions request.

Pure: JSON in, JSON out. A field is sent only if the request has it, since every server has defaults of its own. What
the Chat form cannot say is left out where nothing is lost by it (reasoning, records of hosted tools), else refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from antiphon.errors import ModelError

Json = dict[str, Any]

# Both APIs have these under one name, with one meaning.
_SAME = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "user")

_ROLES = {"developer": "system"}  # few chat templates know a developer; servers that do take system for it


def chat_body(
    request: Mapping[str, Any], context: Sequence[Mapping[str, Any]], *, limit_field: str = "max_tokens"
) -> Json:
    """The body to send, always streaming and with usage.

    limit_field: the server's name for max_output_tokens.
    Raises ModelError with status 400 for content that cannot be said in this form.
    """
    body: Json = {"model": request["model"], "messages": chat_messages(request.get("instructions"), context)}
    body.update((name, request[name]) for name in _SAME if request.get(name) is not None)
    if request.get("max_output_tokens") is not None:
        body[limit_field] = request["max_output_tokens"]
    effort = (request.get("reasoning") or {}).get("effort")
    if effort is not None:
        body["reasoning_effort"] = effort
    body.update(_text(request.get("text") or {}))
    body.update(_logprobs(request))
    body.update(_tools(request))
    return {**body, "stream": True, "stream_options": {"include_usage": True}}


def chat_messages(instructions: Any, context: Iterable[Mapping[str, Any]]) -> list[Json]:
    """Instructions and items as chat messages; calls go into the assistant message before them."""
    messages: list[Json] = []
    if isinstance(instructions, str) and instructions:
        messages.append({"role": "system", "content": instructions})
    elif isinstance(instructions, list):  # a prompt template may give them as items
        context = [*instructions, *context]
    for item in context:
        type = item.get("type", "message")
        if type == "message":
            messages.append(_message(item))
        elif type == "function_call":
            _add_call(messages, item)
        elif type == "function_call_output":
            messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": _content(item["output"])})
    return messages


def _message(item: Mapping[str, Any]) -> Json:
    role = item["role"]
    return {"role": _ROLES.get(role, role), "content": _content(item["content"])}


def _add_call(messages: list[Json], item: Mapping[str, Any]) -> None:
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": None})
    call = {
        "id": item["call_id"],
        "type": "function",
        "function": {"name": item["name"], "arguments": item["arguments"]},
    }
    messages[-1].setdefault("tool_calls", []).append(call)


def _content(content: Any) -> str | list[Json]:
    """Text alone becomes a string, which every server takes; anything else becomes a list of parts."""
    if isinstance(content, str):
        return content
    parts = [_part(part) for part in content]
    if all(part["type"] == "text" for part in parts):
        return "\n".join(part["text"] for part in parts)
    return parts


def _part(part: Mapping[str, Any]) -> Json:
    type = part["type"]
    if type in ("input_text", "output_text", "text", "summary_text", "reasoning_text"):
        return {"type": "text", "text": part["text"]}
    if type == "refusal":
        return {"type": "text", "text": part["refusal"]}
    if type == "input_image" and part.get("image_url"):
        detail = {"detail": part["detail"]} if part.get("detail") else {}
        return {"type": "image_url", "image_url": {"url": part["image_url"], **detail}}
    if type == "input_file" and part.get("file_data"):
        name = {"filename": part["filename"]} if part.get("filename") else {}
        return {"type": "file", "file": {**name, "file_data": part["file_data"]}}
    if type == "input_audio":
        return {"type": "input_audio", "input_audio": part["input_audio"]}
    raise _unsupported("input", f"A part of type '{type}' can be sent to this model's server only with its data in it.")


def _text(text: Mapping[str, Any]) -> Json:
    body: Json = {}
    format = text.get("format") or {}
    if format.get("type") == "json_object":
        body["response_format"] = {"type": "json_object"}
    elif format.get("type") == "json_schema":
        names = ("name", "schema", "strict", "description")
        schema = {name: format[name] for name in names if format.get(name) is not None}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if text.get("verbosity") not in (None, "medium"):  # medium is the default, and many servers do not know the field
        body["verbosity"] = text["verbosity"]
    return body


def _logprobs(request: Mapping[str, Any]) -> Json:
    top = request.get("top_logprobs") or 0
    if not top and "message.output_text.logprobs" not in (request.get("include") or ()):
        return {}
    return {"logprobs": True, "top_logprobs": top} if top else {"logprobs": True}


def _tools(request: Mapping[str, Any]) -> Json:
    """The function tools with what rules their use; servers refuse the rules where there is no tool."""
    tools = [tool for tool in request.get("tools") or () if tool["type"] == "function"]
    choice = request.get("tool_choice")
    if isinstance(choice, Mapping):
        if choice["type"] == "allowed_tools":
            allowed = {tool.get("name") for tool in choice["tools"] if tool["type"] == "function"}
            tools = [tool for tool in tools if tool["name"] in allowed]
            choice = choice["mode"]
        elif choice["type"] == "function":
            choice = {"type": "function", "function": {"name": choice["name"]}}
        else:
            raise _unsupported("tool_choice", f"The model's server has no tool of type '{choice['type']}'.")
    if not tools:
        return {}
    body: Json = {"tools": [_function(tool) for tool in tools]}
    if choice not in (None, "auto"):
        body["tool_choice"] = choice
    if request.get("parallel_tool_calls") is False:
        body["parallel_tool_calls"] = False
    return body


def _function(tool: Mapping[str, Any]) -> Json:
    names = ("name", "description", "parameters", "strict")
    return {"type": "function", "function": {name: tool[name] for name in names if tool.get(name) is not None}}


def _unsupported(param: str, message: str) -> ModelError:
    return ModelError(message, status=400, type="invalid_request_error", code="unsupported_parameter", param=param)

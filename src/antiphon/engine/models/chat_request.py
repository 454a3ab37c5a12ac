"""chat_body(): a create request and its context items, as the body of a Chat Completions request.

Pure: JSON in, JSON out. A field is sent only if the request has it, since every server has defaults of its own. Tools
that the client runs, their calls and their outputs become functions, calls of them and their results. What the Chat
form cannot say is left out where nothing is lost by it, else refused: reasoning is made anew, and of what hosted tools
have found the model has said what mattered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from antiphon.engine.tools.tool import Function
from antiphon.engine.tools.toolbox import CALLS, OUTPUTS, Toolbox
from antiphon.errors import ModelError
from antiphon.protocol.context import answered_name, asked_names

Json = dict[str, Any]

# Both APIs have these under one name, with one meaning.
_SAME = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "user")

_TEXTS = {  # where each part that is nothing but text has it
    **dict.fromkeys(("input_text", "output_text", "text", "summary_text", "reasoning_text"), "text"),
    "refusal": "refusal",
}

_ROLES = {"developer": "system"}  # few chat templates know a developer; servers that do take system for it


def chat_body(
    request: Mapping[str, Any], context: Sequence[Mapping[str, Any]], *, limit_field: str = "max_tokens"
) -> Json:
    """The body to send, always streaming and with usage.

    limit_field: the server's name for max_output_tokens.
    Raises ModelError with status 400 for content that cannot be said in this form.
    """
    toolbox = Toolbox(request, context)
    body: Json = {"model": request["model"], "messages": chat_messages(request.get("instructions"), context, toolbox)}
    body.update((name, request[name]) for name in _SAME if request.get(name) is not None)
    if request.get("max_output_tokens") is not None:
        body[limit_field] = request["max_output_tokens"]
    effort = (request.get("reasoning") or {}).get("effort")
    if effort is not None:
        body["reasoning_effort"] = effort
    body.update(_text(request.get("text") or {}))
    body.update(_logprobs(request))
    body.update(_tools(request, toolbox))
    return {**body, "stream": True, "stream_options": {"include_usage": True}}


def is_unfinished(context: Sequence[Mapping[str, Any]]) -> bool:
    """Whether it ends in the middle of an answer."""
    return bool(context) and context[-1].get("role") == "assistant" and context[-1].get("status") == "incomplete"


def unfinished_message(context: Sequence[Mapping[str, Any]]) -> Json:
    """The answer that the context ends in the middle of, with its reasoning, exactly as it was said."""
    message: Json = {"role": "assistant", "content": _content(context[-1]["content"])}
    thought = ""
    for item in reversed(context[:-1]):
        if item.get("type") != "reasoning":
            break
        thought = "".join(part["text"] for part in item.get("content") or item.get("summary") or ()) + thought
    return {**message, "reasoning_content": thought} if thought else message


def is_unconstrained(body: Mapping[str, Any]) -> bool:
    """Whether the answer is held to no grammar: that would hold the rest of an answer to the form of a whole one."""
    return "response_format" not in body and body.get("tool_choice", "auto") in ("auto", "none")


def chat_messages(
    instructions: Any, context: Iterable[Mapping[str, Any]], toolbox: Toolbox | None = None
) -> list[Json]:
    """Instructions and items as chat messages; calls go into the assistant message before them."""
    messages: list[Json] = []
    shown: list[Json] = []  # what results hold besides text: told by the user, once all results are there
    called: dict[str, str] = {}  # each name that an output may have for its call -> the call_id
    names = toolbox or Toolbox({})
    if isinstance(instructions, str) and instructions:
        messages.append({"role": "system", "content": instructions})
    elif isinstance(instructions, list):  # a prompt template may give them as items
        context = [*instructions, *context]
    for item in context:
        type = item.get("type", "message")
        if type in OUTPUTS:
            _add_result(messages, shown, item, called)
            continue
        if shown and (type == "message" or type in CALLS):
            messages.append({"role": "user", "content": shown})
            shown = []
        if type == "message":
            messages.append(_message(item))
        elif type in CALLS and item.get("call_id"):  # without one it is a search that a server has made
            _add_call(messages, item, names)
            called.update((name, item["call_id"]) for name in asked_names(item))
    if shown:
        messages.append({"role": "user", "content": shown})
    return messages


def _message(item: Mapping[str, Any]) -> Json:
    role = item["role"]
    return {"role": _ROLES.get(role, role), "content": _content(item["content"])}


def _add_call(messages: list[Json], item: Mapping[str, Any], toolbox: Toolbox) -> None:
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": None})
    call = CALLS[item["type"]]
    name = toolbox.name((call.type, item.get("namespace") or "", call.name or item["name"]))
    function = {"name": name, "arguments": call.told_arguments(item)}
    messages[-1].setdefault("tool_calls", []).append({"id": item["call_id"], "type": "function", "function": function})


def _add_result(messages: list[Json], shown: list[Json], item: Mapping[str, Any], called: Mapping[str, str]) -> None:
    """The result of a call, as text; images and files, which most servers do not take there, go to `shown`."""
    call_id = answered_name(item)
    if call_id is None:
        return
    call_id = called.get(call_id, call_id)
    content = _content(OUTPUTS[item["type"]].told_result(item))
    if not isinstance(content, str):
        rest = [part for part in content if part["type"] != "text"]
        shown += [{"type": "text", "text": f"This belongs to the result of {call_id}:"}, *rest]
        text = "\n".join(part["text"] for part in content if part["type"] == "text")
        content = text or "The result is in the next message of the user."
    messages.append({"role": "tool", "tool_call_id": call_id, "content": content})


def _content(content: Any) -> str | list[Json]:
    """Text alone becomes a string, which every server takes; anything else becomes a list of parts."""
    if isinstance(content, str):
        return content
    texts = [part[_TEXTS[part["type"]]] for part in content if part["type"] in _TEXTS]
    if len(texts) == len(content):
        return "\n".join(texts)
    return [_part(part) for part in content]


def _part(part: Mapping[str, Any]) -> Json:
    type = part["type"]
    if type in _TEXTS:
        return {"type": "text", "text": part[_TEXTS[type]]}
    if type in ("input_image", "computer_screenshot") and part.get("image_url"):
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


def _tools(request: Mapping[str, Any], toolbox: Toolbox) -> Json:
    """The functions with what rules their use; servers refuse the rules where there is no function."""
    functions, choice = toolbox.offered(request.get("tool_choice"))
    if not functions:
        return {}
    body: Json = {"tools": [_function(function, toolbox) for function in functions]}
    if choice is not None:
        body["tool_choice"] = choice
    if request.get("parallel_tool_calls") is False:
        body["parallel_tool_calls"] = False
    return body


def _function(function: Function, toolbox: Toolbox) -> Json:
    told: Json = {"name": toolbox.name(function.key)}
    if function.description is not None:
        told["description"] = function.description
    told["parameters"] = function.parameters
    if function.strict is not None:
        told["strict"] = function.strict
    return {"type": "function", "function": told}


def _unsupported(param: str, message: str) -> ModelError:
    return ModelError(message, status=400, type="invalid_request_error", code="unsupported_parameter", param=param)

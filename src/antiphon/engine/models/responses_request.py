"""responses_body(): a create request and its context items, as the body for a server that keeps nothing of ours.

Pure: JSON in, JSON out. Ids that we have given mean nothing there, and some servers refuse them; what an item refers to
by an id of its own kind (an approval its request) keeps it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Json = dict[str, Any]

# What is about the answer. State, storage and the form of the answer are ours.
_SENT = (
    "model", "instructions", "tools", "tool_choice", "parallel_tool_calls", "max_tool_calls", "temperature", "top_p",
    "top_logprobs", "presence_penalty", "frequency_penalty", "text", "reasoning", "max_output_tokens", "service_tier",
    "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "moderation", "user",
)  # fmt: skip

_ENCRYPTED = "reasoning.encrypted_content"

# These may come without an id; all others must have one.
_WITHOUT_ID = frozenset(
    {
        "message", "reasoning", "function_call", "function_call_output", "custom_tool_call",
        "custom_tool_call_output", "computer_call_output", "local_shell_call_output", "shell_call",
        "shell_call_output", "apply_patch_call", "apply_patch_call_output", "tool_search_call", "tool_search_output",
        "mcp_approval_response", "additional_tools", "compaction",
    }
)  # fmt: skip


# Fields that must be there and may be null; no other null is sent, since some servers refuse them.
_NULL = {"code_interpreter_call": {"code", "outputs"}, "image_generation_call": {"result"}}


def responses_body(request: Mapping[str, Any], context: Sequence[Mapping[str, Any]], *, keeps_ids: bool = True) -> Json:
    """The body to send, always streaming and never stored.

    keeps_ids: raw reasoning keeps its id, which vLLM wants to see; OpenAI takes neither it nor the id.
    """
    body: Json = {name: request[name] for name in _SENT if request.get(name) is not None}
    include = [name for name in request.get("include") or () if name != _ENCRYPTED]
    input = [sent for item in context if (sent := _item(item, keeps_ids)) is not None]
    return {**body, "input": input, "include": [*include, _ENCRYPTED], "store": False, "stream": True}


def without_encrypted(body: Mapping[str, Any]) -> Json:
    """The body for a model that knows no encrypted reasoning, or cannot read this one."""
    plain = {name: value for name, value in body.items() if name not in ("include", "input")}
    include = [name for name in body["include"] if name != _ENCRYPTED]
    return {**plain, "input": list(_readable(body["input"])), **({"include": include} if include else {})}


def _item(item: Mapping[str, Any], keeps_ids: bool) -> Json | None:
    type = item.get("type", "message")
    null = _NULL.get(type, ())
    sent = {name: value for name, value in item.items() if (value is not None or name in null) and name != "created_by"}
    if type == "reasoning":
        return _reasoning(sent, keeps_ids)
    if type in _WITHOUT_ID:
        sent.pop("id", None)
    if type == "message":
        sent.pop("status", None)
        return {**sent, "type": type, "content": _content(item["role"], item["content"])}
    return sent


def _reasoning(item: Json, keeps_ids: bool) -> Json | None:
    """Reasoning as it was encrypted there, or the raw text; a summary alone is of no use to the model."""
    item.pop("status", None)
    item.setdefault("summary", [])
    if item.get("encrypted_content"):
        item.pop("id", None)
        item.pop("content", None)
        return item
    return item if keeps_ids and item.get("content") else None


def _content(role: str, content: Any) -> Any:
    """What the assistant said in one text goes as a string: servers differ in the form of parts that they take back."""
    if role != "assistant" or isinstance(content, str):
        return content
    if len(content) == 1 and content[0]["type"] == "output_text":
        return content[0]["text"]
    return [{name: part[name] for name in ("type", "text", "refusal") if name in part} for part in content]


def _readable(items: Iterable[Json]) -> Iterable[Json]:
    return (item for item in items if not (item.get("type") == "reasoning" and item.get("encrypted_content")))

"""What of the API this server carries out, name by name: one table, which is also the check of a create body.

A name is *supported* (carried out), *accepted* (taken, kept and shown, without an effect of its own) or *refused* (a
400 that names it). Nothing is ignored in silence: hosted tools that are not here are named in a header of the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from antiphon.errors import BadRequest


@dataclass(frozen=True)
class Row:
    """One name of the API."""

    status: Literal["supported", "accepted", "refused"]
    note: str = ""
    takes: Callable[[Any], bool] | None = None  # of a field: which values, where not all; null asks for nothing


def _rows(*groups: Mapping[str, Row]) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    for group in groups:
        assert rows.keys().isdisjoint(group), f"twice: {rows.keys() & group.keys()}"
        rows.update(group)
    return rows


def _supported(names: str, note: str = "") -> dict[str, Row]:
    return dict.fromkeys(names.split(), Row("supported", note))


def _accepted(names: str, note: str) -> dict[str, Row]:
    return dict.fromkeys(names.split(), Row("accepted", note))


def _refused(names: str, note: str, *, but: tuple[Any, ...] = ()) -> dict[str, Row]:
    return dict.fromkeys(names.split(), Row("refused", note, takes=lambda value: value in but))


FIELDS = _rows(
    _supported("model", "As `GET /v1/models` lists them; other names are for the model's server to judge."),
    _supported("input instructions text temperature top_p presence_penalty frequency_penalty"),
    _supported("max_output_tokens top_logprobs parallel_tool_calls stream stream_options include metadata user"),
    _supported("previous_response_id context_management prompt reasoning reasoning.effort reasoning.summary"),
    _supported("store", "`false` keeps a response in memory while its request lasts."),
    _supported("background", "A background response must be stored."),
    _supported("conversation", "A response in a conversation must be stored."),
    _supported("truncation", "`auto` leaves out whole items from the beginning, calls together with their outputs."),
    _supported("tools tool_choice", "See the tools below."),
    _accepted("max_tool_calls", "It limits hosted tools, and none runs here."),
    _accepted("service_tier", "There is one tier; the answer says `default`, the one that was used."),
    _accepted("safety_identifier", "Echoed."),
    _accepted("prompt_cache_key prompt_cache_retention prompt_cache_options", "Echoed; the cache is the model's."),
    _accepted("client_metadata", "What a client notes about itself. Not kept."),
    _accepted("tools[].output_schema", "Echoed; the model is not told."),
    _supported(
        "tools[].defer_loading", "Hidden until a `tool_search` of the client brings it; else not hidden at all."
    ),
    _refused("tools[].allowed_callers", "Programs of the model do not run here: `direct` must be among them."),
    _refused("moderation", "Nothing here rates texts."),
    _refused("reasoning.generate_summary", "The old name of `reasoning.summary`."),
    _accepted(
        "reasoning.context",
        "Passed on to a server of the Responses API. A chat model is shown no earlier reasoning, whatever is asked.",
    ),
    _refused("reasoning.mode", "There is one mode: `standard`.", but=("standard",)),
)
"""The fields of a create body; those below a field only where it has members with a status of their own."""

_RECORD = "Kept and listed. Only a model server that speaks the Responses API is shown it."
_AGENTS = "Part of the beta of several agents."

INPUT_ITEMS = _rows(
    _supported("message function_call function_call_output custom_tool_call custom_tool_call_output"),
    _supported("shell_call shell_call_output local_shell_call local_shell_call_output"),
    _supported("apply_patch_call apply_patch_call_output computer_call computer_call_output"),
    _supported("tool_search_call tool_search_output additional_tools"),
    _supported("reasoning", "`encrypted_content` must have been made here for the same tenant."),
    _supported("compaction", "If it was made here for the same tenant."),
    _supported("compaction_trigger", "As the last item."),
    _supported("item_reference", "To an item of a stored response or a conversation."),
    _accepted("file_search_call web_search_call code_interpreter_call image_generation_call", _RECORD),
    _accepted("mcp_list_tools mcp_approval_request mcp_approval_response mcp_call program program_output", _RECORD),
    _refused("agent_message multi_agent_call multi_agent_call_output", _AGENTS),
)

PARTS = _rows(
    _supported("input_text output_text refusal summary_text reasoning_text"),
    _supported("input_image", "As a data URL, or as a URL that the model's server fetches."),
    _supported("computer_screenshot", "As a data URL, or as a URL that the model's server fetches."),
    _supported("input_file", "With `file_data`, or with a `file_url` that the model's server fetches."),
    _supported("input_audio", "If the model's server takes it."),
    _refused("file_id", "In any part: files are not served here yet."),
    _refused("scoped_content", "The API has published its name alone."),
)
"""The parts of input items, and the field by which a part names a file."""

_CARRIED = "Only from a model server that speaks the Responses API and sends it."

OUTPUT_ITEMS = _rows(
    _supported("message reasoning function_call custom_tool_call local_shell_call shell_call apply_patch_call"),
    _supported("computer_call tool_search_call compaction"),
    _accepted("file_search_call web_search_call code_interpreter_call image_generation_call program", _CARRIED),
    _accepted("mcp_list_tools mcp_approval_request mcp_call tool_search_output additional_tools", _CARRIED),
    _accepted("function_call_output custom_tool_call_output computer_call_output mcp_approval_response", _CARRIED),
    _accepted("local_shell_call_output shell_call_output apply_patch_call_output program_output", _CARRIED),
)

_NOT_HERE = (
    "A model server that speaks the Responses API is offered it. With any other it does not run: it is echoed, named "
    "in `antiphon-unavailable-tools`, and the model is not offered it."
)

TOOLS = _rows(
    _supported(
        "function custom namespace local_shell apply_patch computer computer_use_preview", "The client runs it."
    ),
    _supported("shell", "The client runs it. With a container it is a hosted tool, which does not run here."),
    _supported("tool_search", "Without `execution` `client` there is nothing to search: the model is shown all tools."),
    _accepted("web_search web_search_2025_08_26 web_search_preview web_search_preview_2025_03_11", _NOT_HERE),
    _accepted("file_search code_interpreter image_generation mcp programmatic_tool_calling", _NOT_HERE),
)

TOOLS_MAX = 10_000  # of one request

INCLUDE = _supported(
    "file_search_call.results web_search_call.results web_search_call.action.sources code_interpreter_call.outputs "
    "computer_call_output.output.image_url message.input_image.image_url message.output_text.logprobs "
    "reasoning.encrypted_content"
)

EVENTS = _rows(
    _supported(
        """
        response.created response.queued response.in_progress response.completed response.incomplete
        response.failed error response.output_item.added response.output_item.done response.content_part.added
        response.content_part.done response.output_text.delta response.output_text.done
        response.output_text.annotation.added response.refusal.delta response.refusal.done
        response.reasoning_text.delta response.reasoning_text.done response.reasoning_summary_part.added
        response.reasoning_summary_part.done response.reasoning_summary_text.delta
        response.reasoning_summary_text.done response.function_call_arguments.delta
        response.function_call_arguments.done response.custom_tool_call_input.delta
        response.custom_tool_call_input.done response.shell_call_command.added response.shell_call_command.delta
        response.shell_call_command.done response.apply_patch_call_operation_diff.delta
        response.apply_patch_call_operation_diff.done
        """
    ),
    _accepted(
        """
        response.shell_call_output_content.delta response.shell_call_output_content.done
        response.file_search_call.in_progress response.file_search_call.searching
        response.file_search_call.completed response.web_search_call.in_progress
        response.web_search_call.searching response.web_search_call.completed
        response.code_interpreter_call.in_progress response.code_interpreter_call.interpreting
        response.code_interpreter_call.completed response.code_interpreter_call_code.delta
        response.code_interpreter_call_code.done response.image_generation_call.in_progress
        response.image_generation_call.generating response.image_generation_call.partial_image
        response.image_generation_call.completed response.mcp_call.in_progress response.mcp_call.completed
        response.mcp_call.failed response.mcp_call_arguments.delta response.mcp_call_arguments.done
        response.mcp_list_tools.in_progress response.mcp_list_tools.completed response.mcp_list_tools.failed
        response.audio.delta response.audio.done response.audio.transcript.delta response.audio.transcript.done
        """,
        _CARRIED,
    ),
)

TABLE: dict[str, dict[str, Row]] = {
    "fields": FIELDS,
    "input_items": INPUT_ITEMS,
    "parts": PARTS,
    "tools": TOOLS,
    "include": INCLUDE,
    "output_items": OUTPUT_ITEMS,
    "events": EVENTS,
}

# What every create is held against, looked up once.
_TAKEN = [(path, path.split("."), row.takes) for path, row in FIELDS.items() if row.takes]
_HOSTED = frozenset(type for type, row in TOOLS.items() if row.status == "accepted")


def check_supported(body: Mapping[str, Any], *, hosted_tools: bool = False, strict_tools: bool = False) -> None:
    """Raise BadRequest for the first thing asked for that is not carried out here; see also `check_items`.

    hosted_tools: the model's server runs them; strict_tools: those that are not here are refused, too.
    """
    for path, names, takes in _TAKEN:
        value = _at(body, names)
        if value is not None and not takes(value):
            raise _unsupported(path)
    for count, (place, tool) in enumerate(_offered(body), 1):
        if count > TOOLS_MAX:
            raise BadRequest(
                f"Invalid 'tools': too many of them. Expected at most {TOOLS_MAX}, those of namespaces counted.",
                code="array_above_max_length",
                param="tools",
            )
        if strict_tools and not hosted_tools and _is_hosted(tool):
            raise _unsupported(f"{place}.type", tool["type"])
        if "direct" not in (tool.get("allowed_callers") or ("direct",)):
            raise _unsupported(f"{place}.allowed_callers")
    if not hosted_tools:
        _check_choice(body)
    _check_stored(body)


def unavailable_tools(body: Mapping[str, Any]) -> tuple[str, ...]:
    """The types of the tools that a request offers to the model and that do not run here."""
    return tuple(dict.fromkeys(tool["type"] for _, tool in _offered(body) if _is_hosted(tool)))


def _is_hosted(tool: Mapping[str, Any]) -> bool:
    """Whether it is a tool that the server would have to run."""
    if tool["type"] == "shell":
        return bool((tool.get("environment") or {}).get("type", "local") != "local")
    return tool["type"] in _HOSTED


def _offered(body: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each tool of a request with its place, those that its input brings too."""
    yield from _tools(body.get("tools") or (), "tools")
    input = body.get("input")
    for index, item in enumerate(input if isinstance(input, list) else ()):
        if item.get("type") in ("additional_tools", "tool_search_output"):
            yield from _tools(item["tools"], f"input[{index}].tools")


def _tools(tools: Any, at: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each tool with its place, those of a namespace too."""
    for index, tool in enumerate(tools):
        place = f"{at}[{index}]"
        yield place, tool
        if tool["type"] == "namespace":
            yield from _tools(tool["tools"], f"{place}.tools")


def _check_choice(body: Mapping[str, Any]) -> None:
    """A choice that leaves the model nothing but what is not here cannot be carried out."""
    choice = body.get("tool_choice")
    if choice is None:
        return
    hosted = _HOSTED.union(unavailable_tools(body))
    if isinstance(choice, str):
        offered = [tool["type"] for tool in body.get("tools") or ()] if choice == "required" else []
        if offered and hosted.issuperset(offered):
            raise _unsupported("tool_choice", choice)
    elif choice["type"] == "allowed_tools":
        offered = [tool["type"] for tool in choice["tools"]] if choice["mode"] == "required" else []
        if offered and hosted.issuperset(offered):
            raise _unsupported("tool_choice.tools", offered[0])
    elif choice["type"] in hosted:
        raise _unsupported("tool_choice.type", choice["type"])


def check_items(items: Sequence[Mapping[str, Any]], *, at: str) -> None:
    """Raise BadRequest for the first item that is not taken here. at: the list's place in the body."""
    for index, item in enumerate(items):
        _check_item(item, f"{at}[{index}]")


def item_type(item: Mapping[str, Any]) -> str:
    """The type of an item as it was sent: without one it is a message, and a reference may have a type of null."""
    type: str | None = item.get("type")
    return type or ("message" if "role" in item else "item_reference")


def _check_item(item: Mapping[str, Any], at: str) -> None:
    type = item_type(item)
    if INPUT_ITEMS[type].status == "refused":
        raise _unsupported(f"{at}.type", type)
    for name in ("content", "output"):
        value = item.get(name)
        if isinstance(value, list):
            for index, part in enumerate(value):
                _check_part(part, f"{at}.{name}[{index}]")
        elif isinstance(value, Mapping):
            _check_part(value, f"{at}.{name}")
    if type == "function_call_output" and not item.get("call_id"):
        raise _missing(f"{at}.call_id")
    if type == "local_shell_call_output" and not (item.get("call_id") or item.get("id")):
        raise _missing(f"{at}.call_id")


def _check_part(part: Mapping[str, Any], at: str) -> None:
    type = part.get("type")
    if type in PARTS and PARTS[type].status == "refused":
        raise _unsupported(f"{at}.type", type)
    if part.get("file_id"):
        raise BadRequest(
            f"Files are not served here yet: send '{at}' with its data, or by a URL.",
            code="unsupported_parameter",
            param=f"{at}.file_id",
        )


def _check_stored(body: Mapping[str, Any]) -> None:
    for name, what in (("background", "A background response"), ("conversation", "A response in a conversation")):
        if body.get(name) and body.get("store") is False:
            raise BadRequest(
                f"{what} must be stored: '{name}' needs 'store' to be true.", code="invalid_value", param=name
            )


def _at(body: Mapping[str, Any], names: Sequence[str]) -> Any:
    value: Any = body
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _missing(path: str) -> BadRequest:
    return BadRequest(f"Missing required parameter: '{path}'.", code="missing_required_parameter", param=path)


def _unsupported(path: str, value: Any = None) -> BadRequest:
    what = f"Unsupported value: '{value}'" if value is not None else f"Unsupported parameter: '{path}'"
    return BadRequest(
        f"{what} is not supported by this server.",
        code="unsupported_value" if value is not None else "unsupported_parameter",
        param=path,
    )

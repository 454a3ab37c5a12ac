"""The input of a create as context items: each complete, with an id, in the form in which it is stored and listed.

Clients leave out what a listed item must have (ids, statuses, annotations), fill in nulls, and send keys that no form
has; all that is settled here, once. FORMS says what an item of each type holds.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from antiphon.errors import BadRequest, NotFound
from antiphon.protocol import view
from antiphon.protocol.context import answered_name, asked_names, is_client_call
from antiphon.protocol.ids import PREFIXES
from antiphon.server.support import check_items, item_type

Item = dict[str, Any]
Input = str | list[Item]


@dataclass(frozen=True)
class Form:
    """What an item of one type holds when it is listed, besides its id and its type."""

    fields: tuple[str, ...]
    statuses: tuple[str, ...] = ("in_progress", "completed", "incomplete")  # none: it has no status
    defaults: Mapping[str, Any] = field(default_factory=dict)  # of fields that may not be absent


def _form(fields: str, *, statuses: str | None = None, **defaults: Any) -> Form:
    if statuses is None:
        return Form(tuple(fields.split()), defaults=defaults)
    return Form(tuple(fields.split()), tuple(statuses.split()), defaults)


FORMS: dict[str, Form] = {
    "message": _form("role content phase"),
    "reasoning": _form("encrypted_content summary content", statuses=""),
    "function_call": _form("call_id caller namespace name arguments created_by"),
    "function_call_output": _form("call_id name namespace caller output created_by"),
    "custom_tool_call": _form("call_id caller namespace name input created_by"),
    "custom_tool_call_output": _form("call_id caller output created_by"),
    "file_search_call": _form(
        "queries results", statuses="in_progress searching completed incomplete failed", queries=[], results=None
    ),
    "web_search_call": _form("action results", statuses="in_progress searching completed failed"),
    "code_interpreter_call": _form(
        "container_id code outputs",
        statuses="in_progress completed incomplete interpreting failed",
        container_id="",
        code=None,
        outputs=None,
    ),
    "image_generation_call": _form(
        "result background output_format quality size revised_prompt",
        statuses="in_progress completed generating failed",
        result=None,
    ),
    "computer_call": _form("call_id action actions pending_safety_checks", pending_safety_checks=[]),
    "computer_call_output": _form(
        "call_id acknowledged_safety_checks output created_by", statuses="completed incomplete failed"
    ),
    "shell_call": _form("call_id caller action environment created_by", environment=None),
    "shell_call_output": _form("call_id caller output max_output_length created_by", max_output_length=None),
    "local_shell_call": _form("call_id action"),
    "local_shell_call_output": _form("call_id output"),
    "apply_patch_call": _form("call_id caller operation created_by", statuses="in_progress completed"),
    "apply_patch_call_output": _form("call_id caller output created_by", statuses="completed failed"),
    "tool_search_call": _form("call_id execution arguments created_by", call_id=None),
    "tool_search_output": _form("call_id execution tools created_by", call_id=None),
    "additional_tools": _form("role tools", statuses="", role="developer"),
    "mcp_list_tools": _form("server_label tools error", statuses=""),
    "mcp_approval_request": _form("server_label name arguments", statuses=""),
    "mcp_approval_response": _form("approval_request_id approve reason", statuses=""),
    "mcp_call": _form(
        "server_label name arguments output error approval_request_id",
        statuses="in_progress completed incomplete calling failed",
        output=None,
        error=None,
        approval_request_id=None,
    ),
    "program": _form("call_id code fingerprint", statuses=""),
    "program_output": _form("call_id result", statuses="completed incomplete"),
    "compaction": _form("encrypted_content created_by", statuses=""),
}
"""The form of every item that can be listed, by its type."""

PARTS: dict[str, Form] = {
    "input_text": _form("text prompt_cache_breakpoint"),
    "input_image": _form("image_url file_id detail prompt_cache_breakpoint", detail="auto"),
    "input_file": _form("file_id filename file_data file_url detail prompt_cache_breakpoint"),
    "input_audio": _form("input_audio"),
    "output_text": _form("text annotations logprobs", annotations=[], logprobs=[]),
    "refusal": _form("refusal"),
    "summary_text": _form("text"),
    "reasoning_text": _form("text"),
    "computer_screenshot": _form("image_url file_id"),
}
"""The form of every part, by its type; parts have no status."""

# What an action of a web search holds, by its type; one of another type is not listed.
_SEARCH_ACTIONS: dict[str, tuple[str, ...]] = {
    "search": ("query", "queries", "sources"),
    "open_page": ("url",),
    "find_in_page": ("url", "pattern"),
}


def input_items(
    input: Input, *, new_id: Callable[[str], str], referenced: Mapping[str, Item] | None = None, at: str = "input"
) -> list[Item]:
    """The items of an `input`; a string is one message of the user, and an empty one says nothing.

    new_id: makes an id with the prefix given. referenced: the items that its references name, by id.
    at: the place of the input in the body. Raises BadRequest for an item that is not taken here, NotFound for a
    reference that is not among `referenced`.
    """
    if isinstance(input, str):
        input = [{"role": "user", "content": input}] if input else []
    check_items(input, at=at)
    for index, item in enumerate(input):
        if _is_trigger(item):
            raise _misplaced_trigger(f"{at}[{index}]")
    return [
        _referenced(item["id"], referenced or {}) if item_type(item) == "item_reference" else _complete(item, new_id)
        for item in input
    ]


def references(input: Input) -> list[str]:
    """The ids that the `item_reference`s of an input name."""
    return [] if isinstance(input, str) else [item["id"] for item in input if item_type(item) == "item_reference"]


def split_trigger(input: Input) -> tuple[Input, bool]:
    """The input without its `compaction_trigger`, and whether it has one: a wish, which is neither kept nor listed.

    Raises BadRequest if that is not the last item.
    """
    places = [] if isinstance(input, str) else [at for at, item in enumerate(input) if _is_trigger(item)]
    if not places:
        return input, False
    if places[0] != len(input) - 1:
        raise _misplaced_trigger(f"input[{places[0]}]")
    return input[:-1], True


def _is_trigger(item: Item) -> bool:
    return item_type(item) == "compaction_trigger"


def _misplaced_trigger(place: str) -> BadRequest:
    return BadRequest(
        f"Invalid '{place}': a 'compaction_trigger' must be the last item of a response's input.",
        code="invalid_value",
        param=place,
    )


def _referenced(id: str, referenced: Mapping[str, Item]) -> Item:
    if id not in referenced:
        raise NotFound(
            f"Item with id '{id}' not found. Items are not persisted when `store` is set to false. "
            "Try again with `store` set to true, or remove this item from your input."
        )
    return referenced[id]


def _complete(item: Item, new_id: Callable[[str], str]) -> Item:
    type = item_type(item)
    form = FORMS[type]
    given = _said(item)
    if type in _SETTLE:
        given.update(_SETTLE[type](given))
    complete = {"id": given.get("id") or new_id(PREFIXES[type]), "type": type, **_filled(form, given)}
    if type == "local_shell_call":  # an older form has no call_id: its id stands for it
        complete.setdefault("call_id", complete["id"])
    if form.statuses:
        status = given.get("status")
        complete["status"] = status if status in form.statuses else "completed"
    return complete


def _filled(form: Form, given: Item) -> Item:
    """What the form has room for, with defaults; the copies are the item's own."""
    return {
        **copy.deepcopy(dict(form.defaults)),
        **{name: given[name] for name in form.fields if given.get(name) is not None},
    }


def _part(part: Item) -> Item:
    return {"type": part["type"], **_filled(PARTS[part["type"]], part)}


def _parts(content: str | list[Item]) -> str | list[Item]:
    return content if isinstance(content, str) else [_part(part) for part in content]


def _message(item: Item) -> Item:
    content, said = item["content"], item["role"] == "assistant"
    if isinstance(content, str):
        content = [{"type": "output_text" if said else "input_text", "text": content}]
    return {"content": _parts(content)}


def _reasoning(item: Item) -> Item:
    return {name: _parts(item[name]) for name in ("summary", "content") if name in item}


def _tool_output(item: Item) -> Item:
    return {"output": _parts(item["output"])}


def _screenshot(item: Item) -> Item:
    return {"output": _part(item["output"])}


def _file_search(item: Item) -> Item:
    return {"results": [_said(result) for result in item["results"]]} if "results" in item else {}


def _web_search(item: Item) -> Item:
    """Some clients note actions that the form has no word for, and the action may be absent."""
    action = item.get("action") or {"type": None}
    fields = _SEARCH_ACTIONS.get(action["type"], ())
    found = {name: action[name] for name in fields if action.get(name) is not None}
    if not fields or (action["type"] == "find_in_page" and len(found) < len(fields)):
        return {"action": None}
    return {"action": {"type": action["type"], **found}}


def _shell(item: Item) -> Item:
    environment = item.get("environment")
    if environment:  # what the client has at hand there was for the tool, the call names the place alone
        environment = {name: environment[name] for name in ("type", "container_id") if name in environment}
    limits = {"timeout_ms": None, "max_output_length": None}
    return {"action": {**limits, **item["action"]}, "environment": environment}


def _local_shell(item: Item) -> Item:
    return {"action": {"type": "exec", **item["action"], "env": item["action"].get("env") or {}}}


def _local_shell_output(item: Item) -> Item:
    """Without a call_id, its id is that of the call, as the API's description has it."""
    return {} if item.get("call_id") else {"call_id": item.get("id"), "id": None}


def _execution(item: Item) -> Item:
    """Who has searched for the tool: only a client is told a call_id."""
    return {"execution": item.get("execution") or ("client" if item.get("call_id") else "server")}


_SETTLE: dict[str, Callable[[Item], Item]] = {
    "message": _message,
    "reasoning": _reasoning,
    "function_call_output": _tool_output,
    "custom_tool_call_output": _tool_output,
    "computer_call_output": _screenshot,
    "file_search_call": _file_search,
    "web_search_call": _web_search,
    "shell_call": _shell,
    "local_shell_call": _local_shell,
    "local_shell_call_output": _local_shell_output,
    "tool_search_call": _execution,
    "tool_search_output": _execution,
}
"""What of an item takes more than its form to complete: given what was sent, the changes to it."""


def without_known(items: Iterable[Item], before: Iterable[Item]) -> list[Item]:
    """The items without those that the model has seen already: some clients send the history along all the same."""
    known = {item["id"]: item for item in before}
    return [item for item in items if not (item["id"] in known and _same(item, known[item["id"]]))]


def _same(item: Item, known: Item) -> bool:
    """Whether an item is the known one as its sender may have seen it: what only `include` unlocks can be missing."""
    shown = view.show_item(known, view.mask({"item": item}))
    return _said(item) == _said(shown)


def _said(item: Item) -> Item:
    """What of an object has a value."""
    return {name: value for name, value in item.items() if value is not None}


def check_calls(before: Sequence[Item], items: Sequence[Item]) -> None:
    """Raise BadRequest if a call that waits has no output, a new output no call, or new reasoning no outcome.

    before: what the model has seen and said already; items: the new input. Earlier halves of calls are what a deletion
    has left: nobody can mend them. Source: the API asks for each call's output before the next turn.
    """
    names = {name for item in before for name in asked_names(item)}
    waiting = [item for item in reversed([*_said_last(before)]) if is_client_call(item)]
    for item in items:
        names.update(asked_names(item))
        if is_client_call(item):
            waiting.append(item)
        elif item["type"].endswith("_output") and (answered := answered_name(item)) is not None:
            if answered not in names:
                raise BadRequest(f"No tool call found for {_spoken(item)} with call_id {answered}.", param="input")
            waiting = [call for call in waiting if answered not in asked_names(call)]
    for item, following in zip_longest(items, items[1:]):
        if item["type"] == "reasoning" and not (following and _is_said(following)):
            raise BadRequest(
                f"Item '{item['id']}' of type 'reasoning' was provided without its required following item.",
                param="input",
            )
    for call in waiting:
        raise BadRequest(f"No tool output found for {_spoken(call)} {call['call_id']}.", param="input")


def _said_last(before: Sequence[Item]) -> Iterator[Item]:
    """What the model said last, from the end: the items behind the last one that it cannot have said."""
    for item in reversed(before):
        if not _is_said(item):
            return
        yield item


def _is_said(item: Item) -> bool:
    """Whether it may be what a model has said."""
    return answered_name(item) is None and item.get("role", "assistant") == "assistant"


def _spoken(item: Item) -> str:
    """The item's type in words, as the API's messages have it."""
    return str(item["type"]).replace("_", " ")

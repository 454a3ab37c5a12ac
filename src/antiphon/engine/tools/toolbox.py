"""Toolbox: the tools that the client runs, of one turn, under the names by which a chat model knows them.

TOOLS is the table of their types: a new one is a file beside this one and a line there. What is not in it is for a
server to run, and is not offered to the model.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from antiphon.engine.tools.apply_patch import APPLY_PATCH
from antiphon.engine.tools.computer import COMPUTER, COMPUTER_USE_PREVIEW
from antiphon.engine.tools.custom import CUSTOM
from antiphon.engine.tools.function import FUNCTION, FunctionCall
from antiphon.engine.tools.local_shell import LOCAL_SHELL
from antiphon.engine.tools.namespace import NAMESPACE
from antiphon.engine.tools.shell import SHELL
from antiphon.engine.tools.tool import Function, Tool, ToolCall, an_object
from antiphon.engine.tools.tool_search import TOOL_SEARCH, is_search
from antiphon.errors import ModelError

Json = dict[str, Any]
Key = tuple[str, str, str]  # the type of the call's item, the namespace, the name

TOOLS: dict[str, Tool] = {
    "function": FUNCTION,
    "custom": CUSTOM,
    "namespace": NAMESPACE,
    "local_shell": LOCAL_SHELL,
    "shell": SHELL,
    "apply_patch": APPLY_PATCH,
    "computer": COMPUTER,
    "computer_use": COMPUTER,  # a name that only tool_choice has
    "computer_use_preview": COMPUTER_USE_PREVIEW,
    "tool_search": TOOL_SEARCH,
}
"""What a tool that the client runs is, by the type of its definition."""

CALLS: dict[str, type[ToolCall]] = {tool.call.type: tool.call for tool in TOOLS.values() if tool.call}
"""How a stored call is told, by the item's type."""

OUTPUTS: dict[str, type[ToolCall]] = {call.output_type: call for call in CALLS.values()}
"""How the stored output of a call is told, by the item's type."""

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")  # what every server takes
_BRINGING = ("additional_tools", "tool_search_output")


class Toolbox:
    """The functions of a request, with those that its context brings. A later definition takes an earlier one's place.

    Deferred tools are hidden while the client has a search that can bring them, and has not brought them.
    """

    def __init__(self, request: Mapping[str, Any], context: Iterable[Mapping[str, Any]] = ()) -> None:
        given = list(request.get("tools") or ())
        brought = [tool for item in context if item.get("type") in _BRINGING for tool in item["tools"]]
        hides = any(is_search(tool) for tool in (*given, *brought))
        self._functions: dict[Key, Function] = {}
        for function in _functions(given):
            self._functions[function.key] = replace(function, deferred=function.deferred and hides)
        for function in _functions(brought):
            self._functions[function.key] = replace(function, deferred=False)
        self._names: dict[Key, str] = {}
        self._keys: dict[str, Key] = {}
        # The caller's own functions first: they keep their names whatever else there is.
        for key in sorted(self._functions, key=lambda key: key[:2] != (FunctionCall.type, "")):
            self.name(key)

    def name(self, key: Key) -> str:
        """The name by which the model knows a function; also of one that history has and the request has not."""
        if key not in self._names:
            name = _legal("__".join(filter(None, key[1:])))
            if name in self._keys:
                name = _marked(name, key)
            self._names[key], self._keys[name] = name, key
        return self._names[key]

    def function(self, name: str) -> Function:
        """The function that the model means; for a name that it made up, a function of that name."""
        known = self._functions.get(self._keys.get(name, ("", "", "")))
        return known or Function(FunctionCall, name, None, an_object())

    def offered(self, choice: Any = None) -> tuple[list[Function], Any]:
        """The functions to show under a tool_choice, and the choice in the form of Chat Completions.

        The second is None where the model may choose. Raises ModelError for a choice of a tool that is not here.
        """
        shown = [function for function in self._functions.values() if not function.deferred]
        if not isinstance(choice, Mapping):
            return shown, None if choice == "auto" else choice
        if choice["type"] == "allowed_tools":
            allowed = {function.key for entry in choice["tools"] for function in self._meant(entry)}
            shown = [function for function in self._functions.values() if function.key in allowed]
            return shown, None if choice["mode"] == "auto" else choice["mode"]
        meant = self._meant(choice)
        if not meant:
            raise ModelError(
                f"The model cannot be made to call a tool of type '{choice['type']}' that is not among its functions.",
                status=400,
                type="invalid_request_error",
                code="unsupported_parameter",
                param="tool_choice",
            )
        chosen = meant[0]
        if chosen.deferred:
            shown.append(chosen)
        return shown, {"type": "function", "function": {"name": self.name(chosen.key)}}

    def _meant(self, entry: Mapping[str, Any]) -> list[Function]:
        """The functions that an entry of tool_choice names; one without a namespace first."""
        functions = self._functions.values()
        if entry["type"] == "namespace":
            return [function for function in functions if function.namespace == entry.get("name")]
        tool = TOOLS.get(entry["type"])
        if tool is None or tool.call is None:
            return []
        name = tool.call.name or entry.get("name")
        meant = [one for one in functions if one.call.type == tool.call.type and one.name == name]
        return sorted(meant, key=lambda function: function.namespace != (entry.get("namespace") or ""))


def _functions(tools: Iterable[Mapping[str, Any]]) -> Iterator[Function]:
    for tool in tools:
        if tool["type"] in TOOLS:
            yield from TOOLS[tool["type"]].functions(tool)


def _legal(name: str) -> str:
    """The name in a form that every server takes. One that must be changed is marked: two may look alike then."""
    return name if _NAME.fullmatch(name) else _marked(re.sub(r"[^a-zA-Z0-9_-]", "_", name), (name,))


def _marked(name: str, what: tuple[str, ...]) -> str:
    """The name, cut, with a mark that depends on `what` alone: it is the same in every turn of a chain."""
    return f"{name[:55]}_{hashlib.sha256(repr(what).encode()).hexdigest()[:8]}"

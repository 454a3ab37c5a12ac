"""tool_search: finds tools that are not shown at first. With the execution `client` the client finds them.

Their definitions come in a tool_search_output, and are shown to the model from then on. With the execution `server`
there is nothing to do here: tools are deferred to spare tokens alone, so the model is shown them all from the start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from antiphon.engine.tools.tool import Function, Json, Tool, WholeCall, an_object, dumped, loaded

_PARAMETERS = an_object(("query",), query={"type": "string", "description": "What the tool should do."})


class ToolSearchCall(WholeCall):
    type = "tool_search_call"
    output_type = "tool_search_output"
    name = "tool_search"

    def fields(self, arguments: str) -> Json:
        return {"execution": "client", "arguments": loaded(arguments)}

    @staticmethod
    def told_arguments(item: Mapping[str, Any]) -> str:
        return dumped(item["arguments"] or {})

    @staticmethod
    def told_result(item: Mapping[str, Any]) -> str:
        names = [tool.get("name") or tool["type"] for tool in item["tools"]]
        return "These tools can be called now: " + ", ".join(names) if names else "No tool was found."


def is_search(tool: Mapping[str, Any]) -> bool:
    """Whether the client finds tools."""
    return tool["type"] == "tool_search" and tool.get("execution") == "client"


def functions(tool: Mapping[str, Any]) -> list[Function]:
    if not is_search(tool):
        return []
    about = tool.get("description") or "Finds more tools, which can be called afterwards."
    parameters = _PARAMETERS if tool.get("parameters") is None else tool["parameters"]
    return [Function(ToolSearchCall, ToolSearchCall.name, about, parameters)]


TOOL_SEARCH = Tool(functions, ToolSearchCall)

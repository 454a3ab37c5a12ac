"""function: what chat models know by themselves. Its arguments are passed on as the model writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from antiphon.engine.tools.tool import Event, Function, Json, Tool, ToolCall, an_object


def functions(tool: Mapping[str, Any], *, namespace: str = "") -> list[Function]:
    return [
        Function(
            FunctionCall,
            tool["name"],
            tool.get("description"),
            an_object() if tool.get("parameters") is None else tool["parameters"],
            namespace=namespace,
            strict=tool.get("strict"),
            deferred=bool(tool.get("defer_loading")),
        )
    ]


class FunctionCall(ToolCall):
    type = "function_call"
    output_type = "function_call_output"

    def begin(self) -> list[Event]:
        namespace = {"namespace": self.function.namespace} if self.function.namespace else {}
        return [self._open(arguments="", name=self.function.name, **namespace)]

    def take(self, piece: str) -> list[Event]:
        self._pieces.append(piece)
        return [self._transcript.write("response.function_call_arguments.delta", **self._place, delta=piece)]

    def end(self, *, completed: bool) -> list[Event]:
        events = [] if self._pieces or not completed else self.take("{}")  # callers parse them, so "" will not do
        return events + self._close(completed=completed)

    @staticmethod
    def told_arguments(item: Mapping[str, Any]) -> str:
        return str(item["arguments"])

    @staticmethod
    def told_result(item: Mapping[str, Any]) -> str | list[Json]:
        output: str | list[Json] = item["output"]
        return output


FUNCTION = Tool(functions, FunctionCall)

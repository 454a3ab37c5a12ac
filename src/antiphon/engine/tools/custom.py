"""custom: a tool that takes free text. To a chat model it is a function whose one argument is that text.

A grammar of the text stands in the description: what servers take as constraints differs too much to rely on, and the
caller's own parser has the last word anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from antiphon.engine.tools.function import FunctionCall
from antiphon.engine.tools.strings import StringReader
from antiphon.engine.tools.tool import Event, Function, Json, Tool, ToolCall, an_object, dumped, loaded

_INPUT = ("input",)


def functions(tool: Mapping[str, Any], *, namespace: str = "") -> list[Function]:
    lines = [tool["description"]] if tool.get("description") else []
    format = tool.get("format") or {}
    if format.get("type") == "grammar":
        kind = "Lark grammar" if format["syntax"] == "lark" else "regular expression"
        lines.append(f"The input is text that matches this {kind}, with nothing around it:\n{format['definition']}")
    text = {"type": "string", "description": "The tool's input: free text, not JSON."}
    return [
        Function(
            CustomCall,
            tool["name"],
            "\n\n".join(lines) or None,
            an_object(_INPUT, input=text),
            namespace=namespace,
            deferred=bool(tool.get("defer_loading")),
        )
    ]


class CustomCall(ToolCall):
    """Its text is shown as it comes. A model that leaves out the object around the text is understood as well."""

    type = "custom_tool_call"
    output_type = "custom_tool_call_output"

    def begin(self) -> list[Event]:
        self._strings = StringReader()
        self._found = self._ended = False
        namespace = {"namespace": self.function.namespace} if self.function.namespace else {}
        return [self._open(input="", name=self.function.name, **namespace)]

    def take(self, piece: str) -> list[Event]:
        events = super().take(piece)
        for string in self._strings.feed(piece):
            if string.path == _INPUT and not self._ended:
                self._found, self._ended = True, string.ended
                events += self._say(string.text)
        return events

    def end(self, *, completed: bool) -> list[Event]:
        events: list[Event] = []
        if completed:
            try:
                events += self._say(self._rest())
            except ValueError as reason:
                self._fail(reason)
                return []
        return events + self._close(completed=completed)

    def _rest(self) -> str:
        """The text where it was not found at its place. Raises ValueError."""
        arguments = self.arguments
        if not arguments.lstrip().startswith("{"):
            return arguments
        members = loaded(arguments)
        if self._found:
            return ""
        if len(members) == 1 and isinstance(text := next(iter(members.values())), str):
            return text  # under a name of the model's own
        return arguments

    def _say(self, text: str) -> list[Event]:
        if not text:
            return []
        return [self._transcript.write("response.custom_tool_call_input.delta", **self._place, delta=text)]

    @staticmethod
    def told_arguments(item: Mapping[str, Any]) -> str:
        return dumped({"input": item["input"]})

    @staticmethod
    def told_result(item: Mapping[str, Any]) -> str | list[Json]:
        return FunctionCall.told_result(item)


CUSTOM = Tool(functions, CustomCall)

"""apply_patch: a change of one file, carried out by the client. The diff is shown as the model writes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from antiphon.engine.tools.strings import StringReader
from antiphon.engine.tools.tool import Event, Function, Json, Shape, Tool, ToolCall, an_object, dumped

_ABOUT = """\
Creates, changes or deletes one file of the user.
The diff of a new file is its lines, each with + before it.
The diff of a change is one or more hunks. A hunk begins with a line @@, which may go on with the class or function that
it is in. Its lines have before them a space (left as it is), - (taken out) or + (put in), and show about three lines of
the file as it is before and after the change. There are no line numbers."""

_SHAPE = Shape(
    an_object(
        ("type", "path"),
        type={"type": "string", "enum": ["create_file", "update_file", "delete_file"]},
        path={"type": "string", "description": "The file, from the working directory on."},
        diff={"type": "string", "description": "What is new; empty for delete_file."},
    )
)
# A model that is held to the schema must not be able to leave the diff out, nor to say it before the rest.
_PARAMETERS: Json = {**_SHAPE.schema, "required": ["type", "path", "diff"]}


class ApplyPatchCall(ToolCall):
    """The item is opened once the operation's type and path are known."""

    type = "apply_patch_call"
    output_type = "apply_patch_call_output"
    name = "apply_patch"

    def begin(self) -> list[Event]:
        self._strings = StringReader()
        self._texts: dict[str, list[str]] = {}  # of the operation so far, in pieces
        self._ended: set[str] = set()
        return []

    def take(self, piece: str) -> list[Event]:
        events = super().take(piece)
        for path, text, ended in self._strings.feed(piece):
            if len(path) != 1 or path[0] in self._ended:
                continue
            name = str(path[0])
            self._texts.setdefault(name, []).append(text)
            if ended:
                self._ended.add(name)
            if self._place and name == "diff":
                events += self._say(text)
            elif not self._place and {"type", "path"} <= self._ended:
                events += self._show()
        return events

    def end(self, *, completed: bool) -> list[Event]:
        if completed:
            try:
                operation = _SHAPE.fit(self.arguments)
                if any(value != self._text(name) for name, value in operation.items()):
                    raise ValueError("they say one thing twice")
                if "diff" not in operation and operation["type"] != "delete_file":
                    raise ValueError("there is no diff")
            except ValueError as reason:
                self._fail(reason)
                return []
        return self._close(completed=completed) if self._place else []

    def _show(self) -> list[Event]:
        operation: Json = {name: self._text(name) for name in ("type", "path")}
        if operation["type"] not in _SHAPE.schema["properties"]["type"]["enum"]:
            return []
        if operation["type"] != "delete_file":
            operation["diff"] = ""
        return [self._open(operation=operation), *self._say(self._text("diff"))]

    def _say(self, text: str) -> list[Event]:
        if not text or self._text("type") == "delete_file":
            return []
        return [self._transcript.write("response.apply_patch_call_operation_diff.delta", **self._place, delta=text)]

    def _text(self, name: str) -> str:
        return "".join(self._texts.get(name, ()))

    @staticmethod
    def told_arguments(item: Mapping[str, Any]) -> str:
        return dumped({**item["operation"], "diff": item["operation"].get("diff", "")})

    @staticmethod
    def told_result(item: Mapping[str, Any]) -> str:
        said = {"output": item["output"]} if item.get("output") else {}
        return dumped({"status": item["status"], **said})


def functions(tool: Mapping[str, Any]) -> list[Function]:
    return [Function(ApplyPatchCall, ApplyPatchCall.name, _ABOUT, _PARAMETERS)]


APPLY_PATCH = Tool(functions, ApplyPatchCall)

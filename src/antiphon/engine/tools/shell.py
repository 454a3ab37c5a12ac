"""shell: commands that the client runs, each shown as the model writes it.

Only with the environment `local`, which is also what no environment means; containers are run by a server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from antiphon.engine.tools.strings import Piece, StringReader
from antiphon.engine.tools.tool import Event, Function, Shape, Tool, ToolCall, an_object, dumped

_SHAPE = Shape(
    an_object(
        ("commands",),
        commands={"type": "array", "items": {"type": "string"}, "description": "Shell commands, each run on its own."},
        timeout_ms={"type": "integer", "description": "After how many milliseconds to end each of them."},
        max_output_length={"type": "integer", "description": "How many characters of its output are wanted."},
    )
)
_LIMITS = {"timeout_ms": None, "max_output_length": None}


class ShellCall(ToolCall):
    type = "shell_call"
    output_type = "shell_call_output"
    name = "shell"

    def begin(self) -> list[Event]:
        self._strings = StringReader()
        self._begun = self._ended = 0  # commands
        self._command: list[str] = []  # the last of them so far, in pieces
        return [self._open(action={"commands": [], **_LIMITS}, environment={"type": "local"})]

    def take(self, piece: str) -> list[Event]:
        events = super().take(piece)
        for string in self._strings.feed(piece):
            if len(string.path) == 2 and string.path[0] == "commands":
                events += self._say(string)
        return events

    def end(self, *, completed: bool) -> list[Event]:
        if not completed:
            return self._close(completed=False)
        try:
            action = {**_LIMITS, **_SHAPE.fit(self.arguments)}
            said = self._transcript.item(self._place["output_index"])["action"]["commands"]
            if action["commands"] != said:  # a key that stands twice, or a value that is no string
                raise ValueError("their commands cannot be told")
        except ValueError as reason:
            self._fail(reason)
            return []
        return self._close(completed=True, action=action)

    def _say(self, string: Piece) -> list[Event]:
        """The events of a command, which have no item_id. Source: the event schemas of the document."""
        place = {"output_index": self._place["output_index"], "command_index": string.path[1]}
        events: list[Event] = []
        if string.path[1] == self._begun == self._ended:
            self._begun += 1
            self._command = []
            events.append(self._transcript.write("response.shell_call_command.added", **place, command=""))
        elif string.path[1] != self._ended or self._begun == self._ended:
            return []
        if string.text:
            self._command.append(string.text)
            events.append(self._transcript.write("response.shell_call_command.delta", **place, delta=string.text))
        if string.ended:
            self._ended += 1
            command = "".join(self._command)
            events.append(self._transcript.write("response.shell_call_command.done", **place, command=command))
        return events

    @staticmethod
    def told_arguments(item: Mapping[str, Any]) -> str:
        action = item["action"]
        names = ("commands", *_LIMITS)
        return dumped({name: action[name] for name in names if action.get(name) is not None})

    @staticmethod
    def told_result(item: Mapping[str, Any]) -> str:
        names = ("stdout", "stderr", "outcome")
        return dumped([{name: entry[name] for name in names} for entry in item["output"]])


def functions(tool: Mapping[str, Any]) -> list[Function]:
    environment = tool.get("environment") or {"type": "local"}
    if environment["type"] != "local":
        return []
    lines = ["Runs shell commands on the user's computer and gives what they print, and how they end."]
    if skills := environment.get("skills"):
        lines.append("There are skills; before you use one, read the file SKILL.md in its directory:")
        lines += [f"- {skill['name']} ({skill['path']}): {skill['description']}" for skill in skills]
    return [Function(ShellCall, ShellCall.name, "\n".join(lines), _SHAPE.schema)]


SHELL = Tool(functions, ShellCall)

"""local_shell: one command, run by the client. The older form of `shell`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from antiphon.engine.tools.tool import Function, Json, Shape, Tool, WholeCall, an_object, dumped

_SHAPE = Shape(
    an_object(
        ("command",),
        command={
            "type": "array",
            "items": {"type": "string"},
            "description": 'The program and its arguments, such as ["bash", "-lc", "ls -l"].',
        },
        working_directory={"type": "string", "description": "Where to run it."},
        timeout_ms={"type": "integer", "description": "After how many milliseconds to end it."},
        env={"type": "object", "additionalProperties": {"type": "string"}, "description": "Environment variables."},
        user={"type": "string", "description": "The user to run it as."},
    )
)


class LocalShellCall(WholeCall):
    type = "local_shell_call"
    output_type = "local_shell_call_output"
    name = "local_shell"

    def fields(self, arguments: str) -> Json:
        return {"action": {"type": "exec", "env": {}, **_SHAPE.fit(arguments)}}

    @staticmethod
    def told_arguments(item: Mapping[str, Any]) -> str:
        return dumped({name: value for name, value in item["action"].items() if value and name != "type"})

    @staticmethod
    def told_result(item: Mapping[str, Any]) -> str:
        return str(item["output"])


def functions(tool: Mapping[str, Any]) -> list[Function]:
    about = "Runs a command on the user's computer and gives what it prints."
    return [Function(LocalShellCall, LocalShellCall.name, about, _SHAPE.schema)]


LOCAL_SHELL = Tool(functions, LocalShellCall)

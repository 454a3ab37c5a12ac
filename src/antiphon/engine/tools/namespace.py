"""namespace: a group of functions and custom tools. To a chat model each is a function of its own.

The namespace's description goes before each of theirs, since chat models know no groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from antiphon.engine.tools import custom, function
from antiphon.engine.tools.tool import Function, Tool


def functions(tool: Mapping[str, Any]) -> list[Function]:
    kinds = {"function": function.functions, "custom": custom.functions}
    found = [one for member in tool["tools"] for one in kinds[member["type"]](member, namespace=tool["name"])]
    about = f"{tool['name']}: {tool['description']}" if tool.get("description") else ""
    return [replace(one, description="\n\n".join(filter(None, (about, one.description))) or None) for one in found]


NAMESPACE = Tool(functions, None)

"""computer and computer_use_preview: a screen that the client shows, and acts on.

The older type does one action in a call, the newer one a list. What comes back is a screenshot, which a chat model gets
in a message of the user: most servers take text alone as the result of a function.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from antiphon.engine.tools.tool import Function, Json, Shape, Tool, WholeCall, an_object, dumped

_INTEGER: Json = {"type": "integer"}
_KEYS: Json = {"type": "array", "items": {"type": "string"}, "description": "Keys, such as CTRL, that are held down."}
_POINT: Json = {"x": _INTEGER, "y": _INTEGER}


def _action(type: str, required: Json | None = None, **optional: Json) -> Json:
    required = {"type": {"type": "string", "const": type}, **(required or {})}
    return an_object(tuple(required), **required, **optional)


_BUTTON: Json = {"type": "string", "enum": ["left", "right", "wheel", "back", "forward"]}
_ACTION: Json = {
    "anyOf": [
        _action("screenshot"),
        _action("click", {"button": _BUTTON, **_POINT}, keys=_KEYS),
        _action("double_click", _POINT, keys=_KEYS),
        _action("move", _POINT, keys=_KEYS),
        _action("drag", {"path": {"type": "array", "items": an_object(("x", "y"), **_POINT)}}, keys=_KEYS),
        _action("scroll", {**_POINT, "scroll_x": _INTEGER, "scroll_y": _INTEGER}, keys=_KEYS),
        _action("keypress", {"keys": {"type": "array", "items": {"type": "string"}}}),
        _action("type", {"text": {"type": "string"}}),
        _action("wait"),
    ]
}
_ACTIONS = Shape(an_object(("actions",), actions={"type": "array", "items": _ACTION, "minItems": 1}))
_ONE_ACTION = Shape(an_object(("action",), action=_ACTION))


class ComputerCall(WholeCall):
    type = "computer_call"
    output_type = "computer_call_output"
    name = "computer"
    shape = _ACTIONS

    def fields(self, arguments: str) -> Json:
        value = self.shape.fit(arguments)
        for action in value.get("actions") or [value["action"]]:
            if action["type"] == "double_click":
                action.setdefault("keys", None)  # of all actions, this one must have them
        return {**value, "pending_safety_checks": []}

    @staticmethod
    def told_arguments(item: Mapping[str, Any]) -> str:
        actions = item.get("actions")
        return dumped({"actions": actions} if actions else {"action": item.get("action")})

    @staticmethod
    def told_result(item: Mapping[str, Any]) -> list[Json]:
        return [item["output"]]


class ComputerPreviewCall(ComputerCall):
    shape = _ONE_ACTION


def _functions(tool: Mapping[str, Any]) -> list[Function]:
    about = "Acts on the user's screen, by the actions in their order, and gives a screenshot of it."
    return [Function(ComputerCall, ComputerCall.name, about, _ACTIONS.schema)]


def _preview_functions(tool: Mapping[str, Any]) -> list[Function]:
    size = f"{tool['display_width']} x {tool['display_height']}"
    about = f"Does one action on the user's screen, and gives a screenshot of it. {size} pixels, {tool['environment']}."
    return [Function(ComputerPreviewCall, ComputerCall.name, about, _ONE_ACTION.schema)]


COMPUTER = Tool(_functions, ComputerCall)
COMPUTER_USE_PREVIEW = Tool(_preview_functions, ComputerPreviewCall)

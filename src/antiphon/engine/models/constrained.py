"""Functions for a model that was never taught to call them: described in words, and held to by a grammar.

The chat template of a small model leaves `tools` out, and nothing makes it obey `tool_choice`. But its server can
constrain what it writes to a JSON schema. So the functions are described in the system text, and the whole answer is
constrained to one of `{"name": ..., "arguments": {...}}` and, where the model may choose, `{"answer": ...}`.
`constrained` makes such a request, `Unwrapper` reads the answer as it comes. One call a turn is all that this can do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from antiphon.engine.model import Call, Delta, Finish, Text
from antiphon.engine.tools.strings import CHARACTERS, unescaped
from antiphon.errors import ModelError

Json = dict[str, Any]

_SYSTEM = "You are a helpful assistant."  # without any, the template's own text makes the model talk nonsense
_ANY_OBJECT: Json = {"type": "object"}


def constrained(body: Mapping[str, Any]) -> tuple[Json, bool]:
    """The body for a server without tools, and whether its answer must be read by Unwrapper.

    Raises ModelError with status 400 for content other than text.
    """
    plain = {name: body[name] for name in body if name not in ("tools", "tool_choice", "parallel_tool_calls")}
    messages = _plain_messages(body["messages"])
    functions = _offered(body)
    if not functions:
        return {**plain, "messages": messages}, False
    may_answer = body.get("tool_choice", "auto") == "auto"
    messages[0]["content"] += "\n\n" + _description(functions, may_answer=may_answer)
    answer = _answer_schema(body.get("response_format") or {}) if may_answer else None
    format = {"type": "json_schema", "json_schema": {"name": "turn", "schema": _schema(functions, answer)}}
    return {**plain, "messages": messages, "response_format": format}, True


class Unwrapper:
    """Turns the text of a constrained answer into the pieces that it stands for, as they come."""

    def __init__(self) -> None:
        self._kind = ""  # "call", "json" or "string", once the text shows which
        self._held = ""  # not told yet: a head that is not whole, an escape that is cut, or braces that may be the last

    def take(self, deltas: Iterable[Delta]) -> list[Delta]:
        told: list[Delta] = []
        for delta in deltas:
            if isinstance(delta, Text):
                self._held += delta.text
                if not self._kind:
                    self._begin(told)
                self._tell(told)
            elif isinstance(delta, Finish):
                self._end(delta, told)
            else:
                told.append(delta)
        return told

    def _begin(self, told: list[Delta]) -> None:
        call, answer = _CALL_HEAD.match(self._held), _ANSWER_HEAD.match(self._held)
        if call:
            self._kind = "call"
            told.append(Call(0, "", call[1]))
        elif answer:
            self._kind = "string" if answer[1] else "json"
        if head := call or answer:
            self._held = self._held[head.end() :]

    def _tell(self, told: list[Delta]) -> None:
        if self._kind == "string":
            whole = CHARACTERS.match(self._held)
            assert whole is not None  # it matches the empty string
            if whole[0]:
                told.append(Text(unescaped(whole[0])))
                self._held = self._held[whole.end() :]
        elif self._kind:
            end = len(self._held.rstrip("} \t\r\n"))  # the last brace is the wrapper's
            if end:
                self._say(self._held[:end], told)
                self._held = self._held[end:]

    def _end(self, finish: Finish, told: list[Delta]) -> None:
        if self._kind in ("call", "json"):
            rest = self._held.rstrip()
            if rest and (rest := rest[:-1] if finish.reason == "stop" else rest):
                self._say(rest, told)
        told.append(Finish("tool_calls") if self._kind == "call" and finish.reason == "stop" else finish)

    def _say(self, text: str, told: list[Delta]) -> None:
        told.append(Call(0, text) if self._kind == "call" else Text(text))


_CALL_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*"([^"]*)"\s*,\s*"arguments"\s*:\s*')
_ANSWER_HEAD = re.compile(r'\s*\{\s*"answer"\s*:\s*(?=\S)(")?')


def _plain_messages(messages: Iterable[Mapping[str, Any]]) -> list[Json]:
    """The messages with calls and results as text, and a system message at the head."""
    plain: list[Json] = []
    names: dict[str, str] = {}
    for message in messages:
        role, content = message["role"], message["content"] or ""
        if not isinstance(content, str):
            raise ModelError(
                "This model reads text alone.",
                status=400,
                type="invalid_request_error",
                code="unsupported_parameter",
                param="input",
            )
        for call in message.get("tool_calls") or ():
            function = call["function"]
            names[call["id"]] = function["name"]
            content += f'\n{{"name": {json.dumps(function["name"])}, "arguments": {function["arguments"]}}}'
        if role == "tool":
            role, content = "user", f"{names.get(message['tool_call_id'], 'The function')} returned: {content}"
        plain.append({"role": role, "content": content.strip()})
    if not plain or plain[0]["role"] != "system":
        plain.insert(0, {"role": "system", "content": _SYSTEM})
    return plain


def _offered(body: Mapping[str, Any]) -> list[Json]:
    choice = body.get("tool_choice", "auto")
    functions = [tool["function"] for tool in body.get("tools") or ()] if choice != "none" else []
    if isinstance(choice, Mapping):
        functions = [function for function in functions if function["name"] == choice["function"]["name"]]
    return functions


def _description(functions: Iterable[Json], *, may_answer: bool) -> str:
    lines = ["You can call these functions:"]
    for function in functions:
        parameters = json.dumps(function.get("parameters") or {})
        lines.append(f"{function['name']}: {function.get('description') or 'no description'}; arguments: {parameters}")
    lines.append('To call one, write {"name": its name, "arguments": its arguments}.')
    if may_answer:
        lines.append('If none of them helps, write {"answer": your answer}.')
    return "\n".join(lines)


def _schema(functions: Iterable[Json], answer: Json | None) -> Json:
    forms, shared = [], {}
    for function in functions:
        parameters = dict(function.get("parameters") or _ANY_OBJECT)
        shared.update(parameters.pop("$defs", {}))  # references count from the root of the whole schema
        forms.append(_object(name={"const": function["name"]}, arguments=parameters))
    if answer is not None:
        answer = dict(answer)
        shared.update(answer.pop("$defs", {}))
        forms.append(_object(answer=answer))
    return {"anyOf": forms, "$defs": shared} if shared else {"anyOf": forms}


def _answer_schema(format: Mapping[str, Any]) -> Json:
    if format.get("type") == "json_schema":
        return dict(format["json_schema"]["schema"])
    return _ANY_OBJECT if format.get("type") == "json_object" else {"type": "string"}


def _object(**properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}

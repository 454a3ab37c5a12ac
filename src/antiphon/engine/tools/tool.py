"""What a tool that the client runs must say: the functions that it is to a chat model, and its calls both ways.

A Tool is the meaning of one type of definition; the table in toolbox.py names them all. A ToolCall is a call while the
model says it: it takes the arguments, in pieces, and writes an item of the tool's own type with its own events. The
same class tells how such an item, and its output, are told to a chat model when they are history.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jsonschema_rs

from antiphon.engine.tools.strings import without_halves
from antiphon.errors import ModelError
from antiphon.protocol.endings import close_item
from antiphon.protocol.transcript import Transcript

Json = dict[str, Any]
Event = dict[str, Any]


@dataclass(frozen=True)
class Function:
    """What a chat model is told of a tool, or of one function in it."""

    call: type[ToolCall]  # what a call of it becomes
    name: str  # as the API's caller knows it; alone, or in its namespace
    description: str | None
    parameters: Json
    namespace: str = ""
    strict: bool | None = None
    deferred: bool = False  # not shown until a search has brought it

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells it from every other function."""
        return (self.call.type, self.namespace, self.name)


@dataclass(frozen=True)
class Tool:
    """A type of tool definition that the client runs.

    functions: those that a definition stands for; none if it is one that the server would have to run.
    call: what calls of it become; None for a type that only holds other tools.
    """

    functions: Callable[[Mapping[str, Any]], list[Function]]
    call: type[ToolCall] | None


class ToolCall:
    """A call that the model is making. `begin` it, `take` its arguments, `end` it; each gives the events it makes.

    Arguments that do not fit the tool are a `failure` at the end: an item that says something else than the model
    would be carried out by the caller, and a half of it cannot be shown as the tool's type at all. The response fails
    with the code `invalid_tool_call`, and the caller may try again.
    """

    type: ClassVar[str]  # of the item
    output_type: ClassVar[str]  # of the item that answers it
    name: ClassVar[str] = ""  # the name of a tool that has no other

    def __init__(self, transcript: Transcript, function: Function, *, item_id: str, call_id: str) -> None:
        self.function = function
        self.failure: ModelError | None = None
        self._transcript = transcript
        self._item_id = item_id
        self._call_id = call_id
        self._place: dict[str, Any] = {}  # item_id and output_index, once the item is opened
        self._pieces: list[str] = []

    def begin(self) -> list[Event]:
        """The tool was named."""
        return []

    def take(self, piece: str) -> list[Event]:
        """A piece of the arguments came."""
        self._pieces.append(piece)
        return []

    def end(self, *, completed: bool) -> list[Event]:
        """All has come, or, unless completed, the model was cut short."""
        raise NotImplementedError

    @property
    def is_whole(self) -> bool:
        """Whether the arguments are a whole JSON object: then only white space can follow."""
        arguments = self.arguments
        try:
            return bool(arguments) and loaded(arguments) is not None
        except ValueError:
            return False

    @property
    def arguments(self) -> str:
        return "".join(self._pieces)

    @staticmethod
    def told_arguments(item: Mapping[str, Any]) -> str:
        """The arguments of a stored call, as the model said them or might have."""
        raise NotImplementedError

    @staticmethod
    def told_result(item: Mapping[str, Any]) -> str | list[Json]:
        """What a stored output says: text, or parts of a message."""
        raise NotImplementedError

    def _open(self, **fields: Any) -> Event:
        index = self._transcript.next_output_index
        item = {"id": self._item_id, "type": self.type, "status": "in_progress", "call_id": self._call_id, **fields}
        self._place = {"item_id": self._item_id, "output_index": index}
        return self._transcript.write("response.output_item.added", output_index=index, item=item)

    def _close(self, *, completed: bool, **fields: Any) -> list[Event]:
        return close_item(self._transcript, self._place["output_index"], completed=completed, **fields)

    def _fail(self, reason: ValueError) -> None:
        self.failure = ModelError(
            f"The model called '{self.function.name}' with arguments that do not fit it: {reason}.",
            code="invalid_tool_call",
        )


class WholeCall(ToolCall):
    """A call that can be shown only once it is known to the end; one that is cut short is not shown at all."""

    def end(self, *, completed: bool) -> list[Event]:
        if not completed:
            return []
        try:
            fields = self.fields(self.arguments)
        except ValueError as reason:
            self._fail(reason)
            return []
        return [self._open(**fields), *self._close(completed=True)]

    def fields(self, arguments: str) -> Json:
        """The fields that are the item's own. Raises ValueError."""
        raise NotImplementedError


class Shape:
    """The parameters of a function that is ours, and the values that fit them."""

    def __init__(self, schema: Json) -> None:
        self.schema = schema
        self._validator = jsonschema_rs.Draft202012Validator(schema, mask="the value")

    def fit(self, arguments: str) -> Json:
        """The value, without nulls and without what the schema does not name. Raises ValueError."""
        value = _known(loaded(arguments), self.schema)
        for error in self._validator.iter_errors(value):
            at = ".".join(str(step) for step in error.instance_path)
            raise ValueError(f"{at}: {error.message}" if at else error.message)
        return dict(value)


def an_object(required: tuple[str, ...] = (), **properties: Json) -> Json:
    """The schema of an object that has these properties alone."""
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def loaded(arguments: str) -> Json:
    """The object that arguments are; a function that needs none may get none. Raises ValueError."""
    try:
        value = json.loads(arguments or "{}", strict=False, parse_constant=_refuse)
        if "\\u" in arguments:
            value = json.loads(without_halves(json.dumps(value, ensure_ascii=False)))
    except (ValueError, RecursionError) as error:
        raise ValueError("they are not JSON") from error
    if not isinstance(value, dict):
        raise ValueError("they are no object")
    return value


def dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _known(value: Any, schema: Mapping[str, Any]) -> Any:
    """The value without what the schema does not name: models add things, and leave nothing out by null."""
    if "anyOf" in schema:  # told apart by the type
        type = value.get("type") if isinstance(value, dict) else None
        forms = (form for form in schema["anyOf"] if form["properties"]["type"]["const"] == type)
        return _known(value, next(forms, {}))
    if isinstance(value, list):
        return [_known(entry, schema.get("items", {})) for entry in value]
    if isinstance(value, dict) and "properties" in schema:
        known = schema["properties"]
        return {name: _known(value[name], known[name]) for name in known if value.get(name) is not None}
    return value

"""An operation's call in Python, with all that it requires and no more."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from antiphon.spec import Body, Operation, Schema
from antiphon.spec.flat import Flat, Flattener
from antiphon.spec.names import is_spellable, keyword

from .sample import NoSample, sample

_WIDTH = 88
_FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
_FILE = b"..."


@dataclass(frozen=True)
class Caller:
    """What the examples call with."""

    spec: str = ""  # the API description to name; empty for the packaged one
    taken: frozenset[str] = frozenset()  # names that the client itself has, so that they are no operations


def example(operation: Operation, caller: Caller) -> str | None:
    """A program that calls the operation; None if no valid arguments for it are found."""
    call = _called(operation, caller, {})
    if call is None:
        return None
    answers = any(answer.media for status, answer in operation.answers.items() if status[0] == "2")
    return _program(caller, [f"answer = {call}", "print(answer)"] if answers else [call])


def streaming(operation: Operation, caller: Caller) -> str | None:
    """The same for its answer event by event; None if it has no such."""
    switch = _switch(operation) if operation.streams else {}
    call = _called(operation, caller, switch) if switch else None
    if call is None:
        return None
    return _program(caller, [f"with {call} as stream:", "    for event in stream:", "        print(event)"])


def _program(caller: Caller, lines: list[str]) -> str:
    made = f"spec={literal(caller.spec)}" if caller.spec else ""
    body = textwrap.indent("\n".join(lines), "    ")
    return f"from antiphon import Client\n\nwith Client({made}) as client:\n{body}"


def _called(operation: Operation, caller: Caller, more: dict[str, Any]) -> str | None:
    try:
        arguments = _arguments(operation) | more
    except NoSample:
        return None
    if is_spellable(operation.name) and operation.name not in caller.taken:
        return _call(f"client.{operation.name}", [], arguments)
    return _call("client.call", [literal(operation.id)], arguments)


def _switch(operation: Operation) -> dict[str, Any]:
    """The keyword that asks for events."""
    names = {each.name for each in operation.parameters}
    for schema in operation.body.media.values() if operation.body else ():
        flat = Flattener(schema.named)(schema.raw)
        names |= {*flat.properties, *(name for union in flat.unions for leaf in union for name in leaf.properties)}
    if "stream" in names:
        return {"stream": True}
    return {"stream_format": "sse"} if "stream_format" in names else {}


def literal(value: Any, indent: int = 0) -> str:
    """The value as Python writes it, over several lines where it is long."""
    flat = repr(value) if not isinstance(value, str) else _quoted(value)
    if not isinstance(value, (dict, list)) or not value or len(flat) + indent <= _WIDTH:
        return _short(value)
    inner = indent + 4
    if isinstance(value, dict):
        lines = [f"{_quoted(key)}: {literal(each, inner)}," for key, each in value.items()]
    else:
        lines = [f"{literal(each, inner)}," for each in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return "\n".join([opening, *(" " * inner + line for line in lines), " " * indent + closing])


def _short(value: Any) -> str:
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_quoted(key)}: {_short(each)}" for key, each in value.items()) + "}"
    return "[" + ", ".join(map(_short, value)) + "]" if isinstance(value, list) else repr(value)


def _quoted(value: str) -> str:
    plain = repr(value)
    return f'"{plain[1:-1]}"' if plain[0] == "'" and '"' not in plain else plain


def _call(function: str, positional: list[str], arguments: Mapping[str, Any]) -> str:
    odd = {name: value for name, value in arguments.items() if not is_spellable(name)}
    words = [*positional, *(f"{name}={_short(value)}" for name, value in arguments.items() if name not in odd)]
    words += [f"**{_short(odd)}"] if odd else []
    flat = f"{function}({', '.join(words)})"
    if len(flat) + len("answer = ") <= _WIDTH:
        return flat
    words = [*positional, *(f"{name}={literal(value, 4)}" for name, value in arguments.items() if name not in odd)]
    words += [f"**{literal(odd, 4)}"] if odd else []
    return "\n".join([f"{function}(", *(f"    {word}," for word in words), ")"])


def _arguments(operation: Operation) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    taken: set[str] = {"body"}
    for parameter in operation.parameters:
        spelled = keyword(parameter.name)
        taken |= {parameter.name, spelled}
        if parameter.required:
            name = spelled if is_spellable(spelled) else parameter.name
            arguments[name] = sample(parameter.schema, name=spelled, known=False)
    if operation.body is not None:
        body = _body(operation.body)
        if isinstance(body, dict) and body and not taken & body.keys():
            arguments |= body
        elif body != {}:
            arguments["body"] = body
    return arguments


def _body(body: Body) -> Any:
    """A value for the body: the fields of JSON or of a form, else bytes."""
    for kind, schema in body.media.items():
        if kind == "application/json" or kind.endswith("+json"):
            return _needed(body, schema)
    for kind in _FORMS:
        if kind in body.media:
            made = _needed(body, body.media[kind])
            return with_files(made, body.media[kind]) if isinstance(made, dict) else made
    return _FILE


def _needed(body: Body, schema: Schema) -> Any:
    """A body with what must be in it: nothing, if nothing must."""
    if schema.closed().valid({}):
        return {}
    return sample(schema, name="body")


def with_files(value: dict[str, Any], schema: Schema) -> dict[str, Any]:
    """The fields of a form, with bytes where a file is meant."""
    flatten = Flattener(schema.named)
    flat = flatten(schema.raw)
    properties = {
        **flat.properties,
        **{k: v for union in flat.unions for leaf in union for k, v in leaf.properties.items()},
    }
    return {name: _file_or(each, flatten(properties.get(name, {})), flatten) for name, each in value.items()}


def _file_or(value: Any, flat: Flat, flatten: Flattener) -> Any:
    if isinstance(value, list):
        return [_file_or(each, flatten(flat.get("items")), flatten) for each in value]
    leaves = [flat, *(leaf for union in flat.unions for leaf in union)]
    is_file = any(leaf.get("format") == "binary" or leaf.get("contentMediaType") for leaf in leaves)
    return _FILE if is_file and isinstance(value, str) else value

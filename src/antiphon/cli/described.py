"""One operation in words, for people at a terminal."""

from __future__ import annotations

import json
import shlex
import textwrap
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from antiphon.client.forms import field_schema
from antiphon.client.manual import fields, first, plain, required, words

if TYPE_CHECKING:
    from antiphon.spec import Operation, Parameter, Schema

WIDTH = 100


def described(operation: Operation) -> Iterator[str]:
    """All that a caller must know of one operation."""
    yield f"{operation.name}  ({operation.id})"
    yield f"{operation.method} {address(operation)}"
    told = plain(operation.description or operation.summary)
    if told:
        yield from ("", *_wrapped(told, indent=""))
    if operation.parameters:
        yield from ("", "Parameters")
        yield from _table((each.name, _kind(each), plain(each.description)) for each in operation.parameters)
    if operation.body:
        for media, schema in operation.body.media.items():
            yield from ("", f"Body ({media}{', required' if operation.body.required else ''})")
            yield from _table(_fields(schema))
    yield from ("", "Answers")
    yield from _table(
        (status, ", ".join(each.media) or "-", each.description) for status, each in operation.answers.items()
    )
    yield from ("", "Example", f"  {example(operation)}")


def example(operation: Operation) -> str:
    """A call of the operation with all that it requires, for a shell."""
    given = {each.name: _sample(each.schema, each.name) for each in operation.parameters if each.required}
    schema = _body(operation)
    files: list[str] = []
    if operation.body and operation.body.required and not schema:
        files = ["body"]
    elif schema:
        needed = {name: field for name, field in fields(schema).items() if name in required(schema)}
        files = [name for name, field in needed.items() if is_file(field)]
        given |= {name: _sample(field, name) for name, field in needed.items() if name not in files}
    line = ["antiphon", "call", operation.name]
    for name, value in given.items():
        line += ["-p", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
    for name in files:
        line += ["-F", f"{name}=@FILE"]
    return shlex.join(line)


def schemas(operation: Operation) -> dict[str, Schema]:
    """The schema of each field of the body and of each parameter: of all that a keyword may give."""
    body = _body(operation)
    return {**(fields(body) if body else {}), **{each.name: each.schema for each in operation.parameters}}


def is_file(schema: Schema) -> bool:
    return words(schema).startswith("file")


def _body(operation: Operation) -> Schema | None:
    return field_schema(operation.body) if operation.body else None


def _fields(schema: Schema) -> Iterator[tuple[str, str, str]]:
    needed = required(schema)
    for name, field in fields(schema).items():
        notes = [words(field), "required" if name in needed else ""]
        yield name, ", ".join(filter(None, notes)), plain(first(field, "description", ""))


def _kind(parameter: Parameter) -> str:
    place = "" if parameter.location == "query" else f"in the {parameter.location}"
    return ", ".join(filter(None, [words(parameter.schema), place, "required" if parameter.required else ""]))


def _sample(schema: Schema, name: str) -> Any:
    """A value that could stand in an example."""
    for key in ("example", "default", "const"):
        found = first(schema, key, None)
        if found not in (None, ""):
            return found
    enum = first(schema, "enum", None)
    if enum:
        return enum[0]
    samples: dict[str, Any] = {"integer": 1, "number": 1, "boolean": True, "array": [], "object": {}}
    return samples.get(words(schema).split(" ")[0], name.upper())


def address(operation: Operation) -> str:
    fixed = "&".join(f"{name}={value}" for name, value in operation.query)
    return operation.path + (f"?{fixed}" if fixed else "")


def _table(rows: Iterable[tuple[str, str, str]]) -> Iterator[str]:
    for name, kind, told in rows:
        yield f"  {name}  ({kind})"
        yield from _wrapped(told.partition("\n\n")[0].partition("\n- ")[0], indent="      ")


def _wrapped(text: str, *, indent: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        yield from textwrap.wrap(" ".join(paragraph.split()), WIDTH, initial_indent=indent, subsequent_indent=indent)

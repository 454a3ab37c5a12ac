"""`antiphon operations`: what can be called, as a list, or one operation with all that it takes."""

from __future__ import annotations

import json
import re
import shlex
from argparse import Namespace
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from antiphon.cli.talk import add_command
from antiphon.client.forms import field_schema

if TYPE_CHECKING:
    from antiphon.spec import Document, Operation, Parameter, Schema

WIDTH = 100


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "operations",
        run,
        usage="antiphon operations [OPERATION] [--spec PATH|URL]",
        help="List the operations that can be called. With the name of one, show what it takes and an example.",
    )
    parser.add_argument("operation", nargs="?", metavar="OPERATION", help="An operationId or the name of its method.")
    parser.add_argument("--spec", metavar="PATH|URL", help="Another API description than the packaged one.")


def run(options: Namespace) -> int:
    from antiphon.spec import Document

    document = Document.load(options.spec)
    if options.operation is None:
        print("\n".join(listing(document)))
    else:
        print("\n".join(described(document.operation(options.operation))))
    return 0


def listing(document: Document) -> Iterator[str]:
    """A line for each operation: its name, method and path."""
    operations = document.operations.values()
    width = max((len(each.name) for each in operations), default=0)
    for each in operations:
        deprecated = "  (deprecated)" if each.deprecated else ""
        yield f"{each.name:{width}}  {each.method:6}  {_path(each)}{deprecated}"


def described(operation: Operation) -> Iterator[str]:
    """All that a caller must know of one operation."""
    yield f"{operation.name}  ({operation.id})"
    yield f"{operation.method} {_path(operation)}"
    told = _plain(operation.description or operation.summary)
    if told:
        yield from ("", *_wrapped(told, indent=""))
    if operation.parameters:
        yield from ("", "Parameters")
        yield from _table((each.name, _kind(each), _plain(each.description)) for each in operation.parameters)
    if operation.body:
        for media, schema in operation.body.media.items():
            yield from ("", f"Body ({media}{', required' if operation.body.required else ''})")
            yield from _table(_fields(schema))
    yield from ("", "Answers")
    yield from _table(
        (status, ", ".join(each.media) or "-", each.description) for status, each in operation.answers.items()
    )
    if operation.body and field_schema(operation.body) is None:
        yield from ("", f"`antiphon call` cannot send a body of {' or '.join(operation.body.media)} yet.")
    else:
        yield from ("", "Example", f"  {example(operation)}")


def example(operation: Operation) -> str:
    """A call of the operation with all that it requires, for a shell."""
    given = {each.name: _sample(each.schema, each.name) for each in operation.parameters if each.required}
    schema = field_schema(operation.body) if operation.body else None
    files: list[str] = []
    if schema:
        fields = {name: field for name, field in body_schemas(schema).items() if name in _required(schema)}
        files = [name for name, field in fields.items() if _first(field, "format", "") == "binary"]
        given |= {name: _sample(field, name) for name, field in fields.items() if name not in files}
    words = ["antiphon", "call", operation.name]
    for name, value in given.items():
        words += ["-p", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
    for name in files:
        words += ["-F", f"{name}=@FILE"]
    return shlex.join(words)


def body_schemas(schema: Schema) -> dict[str, Schema]:
    """The schema of each field of a body, where the fields are named."""
    from antiphon.spec import Schema
    from antiphon.spec.sealing import in_place

    found: dict[str, list[Any]] = {}
    for node in in_place(schema.raw, schema.named):
        for name, field in node.get("properties", {}).items():
            found.setdefault(name, []).append(field)
    return {name: Schema(each[0] if len(each) == 1 else {"anyOf": each}, schema.named) for name, each in found.items()}


def _required(schema: Schema) -> set[str | None]:
    """The fields that are missed when none is given."""
    return {each.param for each in schema.problems({}) if each.code == "missing_required_parameter"}


def _fields(schema: Schema) -> Iterator[tuple[str, str, str]]:
    required = _required(schema)
    for name, field in body_schemas(schema).items():
        words = [_type(field), "required" if name in required else ""]
        yield name, ", ".join(filter(None, words)), _plain(_first(field, "description", ""))


def _kind(parameter: Parameter) -> str:
    place = "" if parameter.location == "query" else f"in the {parameter.location}"
    return ", ".join(filter(None, [_type(parameter.schema), place, "required" if parameter.required else ""]))


def _type(schema: Schema) -> str:
    """What a value must be, in a few words: `integer`, `string or array`, `auto|low|high`."""
    from antiphon.spec.sealing import in_place

    types: dict[str, None] = {}
    choices: list[str] = []
    for node in in_place(schema.raw, schema.named):
        if "enum" in node:
            choices += [str(value) for value in node["enum"] if value is not None]
        elif "type" in node:
            types.update(dict.fromkeys([node["type"]] if isinstance(node["type"], str) else node["type"]))
    if choices and "string" not in types:
        types = {"|".join(choices): None, **types}
    shown = " or ".join(each for each in types if each != "null")
    return shown if len(shown) <= 60 else shown[:57] + "..."


def _sample(schema: Schema, name: str) -> Any:
    """A value that could stand in an example."""
    for key in ("example", "default", "const"):
        found = _first(schema, key, None)
        if found not in (None, ""):
            return found
    enum = _first(schema, "enum", None)
    if enum:
        return enum[0]
    samples: dict[str, Any] = {"integer": 1, "number": 1, "boolean": True, "array": [], "object": {}}
    return samples.get(_type(schema).split(" ")[0], name.upper())


def _first(schema: Schema, key: str, default: Any) -> Any:
    from antiphon.spec.sealing import in_place

    return next((node[key] for node in in_place(schema.raw, schema.named) if key in node), default)


def _path(operation: Operation) -> str:
    fixed = "&".join(f"{name}={value}" for name, value in operation.query)
    return operation.path + (f"?{fixed}" if fixed else "")


def _table(rows: Iterable[tuple[str, str, str]]) -> Iterator[str]:
    for name, kind, told in rows:
        yield f"  {name}  ({kind})"
        yield from _wrapped(told.partition("\n\n")[0].partition("\n- ")[0], indent="      ")


def _wrapped(text: str, *, indent: str) -> Iterator[str]:
    import textwrap

    for paragraph in text.split("\n\n"):
        yield from textwrap.wrap(" ".join(paragraph.split()), WIDTH, initial_indent=indent, subsequent_indent=indent)


def _plain(description: str) -> str:
    """The description without the addresses of its links, which lead to nowhere outside of its site."""
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", description).strip()

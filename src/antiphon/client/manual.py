"""What `help(client.get_response)` says: an operation's page, made from the API description."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from antiphon.client.forms import field_schema
from antiphon.client.request import body_fields
from antiphon.spec.names import keyword

if TYPE_CHECKING:
    from antiphon.spec import Operation, Parameter, Schema


def page(operation: Operation) -> str:
    """The operation's call, its address, its parameters and the fields of its body."""
    return "\n".join([_call(operation), "", *_paragraphs(operation)])


def _call(operation: Operation) -> str:
    needed = [keyword(each.name) for each in operation.parameters if each.required]
    optional = [keyword(each.name) for each in operation.parameters if not each.required]
    body = ["**body"] if operation.body else []
    return f"{operation.name}({', '.join(['*', *needed, *(f'{name}=None' for name in optional), *body])})".replace(
        "(*)", "()"
    )


def _paragraphs(operation: Operation) -> Iterator[str]:
    yield from filter(
        None, (operation.summary, operation.description if operation.description != operation.summary else "")
    )
    yield f"\n{operation.method} {operation.path} ({operation.id})"
    if operation.deprecated:
        yield "\nDeprecated."
    if operation.parameters:
        yield "\nParameters:"
        yield from map(_parameter, operation.parameters)
    if operation.body:
        yield "\nBody: " + ", ".join(operation.body.media) + ("" if operation.body.required else ", optional")
        schema = field_schema(operation.body)
        yield from (f"    {name}" for name in (body_fields(schema) if schema else ()))
    if operation.streams:
        yield "\nWith `stream=True` it gives a stream of events."


def _parameter(parameter: Parameter) -> str:
    notes = [_type(parameter.schema), f"in {parameter.location}", "required" if parameter.required else "optional"]
    text = re.sub(r"\s+", " ", parameter.description).strip()
    return f"    {keyword(parameter.name)} ({', '.join(filter(None, notes))}){f': {text}' if text else ''}"


def _type(schema: Schema) -> str:
    kind: Any = schema.raw.get("type", "") if isinstance(schema.raw, dict) else ""
    return " or ".join(kind) if isinstance(kind, list) else str(kind)

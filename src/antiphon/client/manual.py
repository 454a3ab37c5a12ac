"""What `help(client.get_response)` says: an operation's page and its signature, made from the API description."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from antiphon.client.forms import field_schema
from antiphon.client.pages import listing
from antiphon.errors import ApiError
from antiphon.spec.names import is_spellable, keyword
from antiphon.spec.sealing import in_place, name_of

if TYPE_CHECKING:
    from antiphon.spec import Operation, Schema

WORDS_MAX = 60
DEPTH_MAX = 6
EVENTS = "text/event-stream"
FILE = "Path | bytes | IO[bytes] | tuple"
OBJECT = "dict[str, Any]"

_TYPES = {
    "string": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "object": OBJECT,
    "null": "None",
}


class _Shown(str):
    """What is shown in a signature as it is, without quotes."""

    __slots__ = ()
    __repr__ = str.__str__


def page(operation: Operation) -> str:
    """The operation's call, its address, its parameters, the fields of its body, its answers and its errors."""
    return "\n".join([_call(operation), "", *_paragraphs(operation)])


def shown(operation: Operation) -> str:
    """The call with the type and the default of each keyword, what it gives and what it raises: some lines."""
    keywords = [f"    {each}," for each in signature(operation).parameters.values()]
    opening = [f"{operation.name}(", "    *,", *keywords, ")"] if keywords else [f"{operation.name}()"]
    raised = ", ".join(name for name, _ in _errors(operation))
    return "\n".join([*opening, f"Gives {_given(operation)}.", f"Raises {raised}."])


def signature(operation: Operation) -> inspect.Signature:
    """The operation's keywords with their types; a default of `...` is the server's own.

    Those that Python cannot spell are meant by `**others`.
    """
    found = dict(_keywords(operation))
    spelled = [each for name, each in found.items() if is_spellable(name)]
    if len(spelled) < len(found):
        spelled.append(inspect.Parameter("others", inspect.Parameter.VAR_KEYWORD))
    return inspect.Signature(sorted(spelled, key=lambda each: (each.kind, each.default is not inspect.Parameter.empty)))


def fields(schema: Schema) -> dict[str, Schema]:
    """The schema of each field of a body, where the fields are named."""
    found: dict[str, list[Any]] = {}
    for node in in_place(schema.raw, schema.named):
        for name, field in node.get("properties", {}).items():
            found.setdefault(name, []).append(field)
    make = type(schema)
    return {name: make(each[0] if len(each) == 1 else {"anyOf": each}, schema.named) for name, each in found.items()}


def required(schema: Schema) -> set[str | None]:
    """The fields that are missed when none is given."""
    return {each.param for each in schema.problems({}) if each.code == "missing_required_parameter"}


def first(schema: Schema, key: str, default: Any = None) -> Any:
    """What the schema says there, itself or by what it is made of."""
    return next((node[key] for node in in_place(schema.raw, schema.named) if key in node), default)


def words(schema: Schema) -> str:
    """What a value must be, in a few words: `integer`, `string or array`, `auto|low|high`."""
    types: dict[str, None] = {}
    choices: list[str] = []
    for node in in_place(schema.raw, schema.named):
        if "enum" in node or "const" in node:
            choices += [str(value) for value in node.get("enum", [node.get("const")]) if value is not None]
        elif node.get("format") == "binary":
            types["file"] = None
        elif "type" in node:
            types.update(dict.fromkeys([node["type"]] if isinstance(node["type"], str) else node["type"]))
    if choices and "string" not in types:
        types = {"|".join(dict.fromkeys(choices)): None, **types}
    told = " or ".join(each for each in types if each != "null")
    return told if len(told) <= WORDS_MAX else told[: WORDS_MAX - 3] + "..."


def plain(description: str) -> str:
    """The description without the addresses of its links, which lead to nowhere outside of its site."""
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", description).strip()


def _keywords(operation: Operation) -> Iterator[tuple[str, inspect.Parameter]]:
    schema = field_schema(operation.body) if operation.body else None
    needed = required(schema) if schema else set()
    for name, each in fields(schema).items() if schema else ():
        yield name, _keyword(name, _type(each), default=first(each, "default", ...), needed=name in needed)
    if operation.body:
        whole = schema is None and operation.body.required
        yield "body", _keyword("body", OBJECT if schema else FILE, needed=whole)
    if operation.method != "GET":
        yield "idempotency_key", _keyword("idempotency_key", "str")
    for parameter in operation.parameters:  # behind the fields, since they go before those of the same name
        name, default = keyword(parameter.name), first(parameter.schema, "default")
        yield name, _keyword(name, _type(parameter.schema), default=default, needed=parameter.required)


def _call(operation: Operation) -> str:
    needed = [keyword(each.name) for each in operation.parameters if each.required]
    optional = [keyword(each.name) for each in operation.parameters if not each.required]
    body = ["**body"] if operation.body else []
    return f"{operation.name}({', '.join(['*', *needed, *(f'{name}=None' for name in optional), *body])})".replace(
        "(*)", "()"
    )


def _paragraphs(operation: Operation) -> Iterator[str]:
    told = dict.fromkeys((operation.summary.strip(), plain(operation.description)))
    yield from filter(None, told)
    yield f"\n{operation.method} {operation.path} ({operation.id})"
    if operation.deprecated:
        yield "\nDeprecated."
    if operation.parameters:
        yield "\nParameters:"
        for each in operation.parameters:
            place = [f"in {each.location}", "required" if each.required else "optional"]
            yield _line(keyword(each.name), each.schema, place, each.description)
    yield from _body(operation)
    yield f"\nGives {_given(operation)}."
    yield "\nRaises:"
    yield from (f"    {name}{f': {told}' if told else ''}" for name, told in _errors(operation))


def _body(operation: Operation) -> Iterator[str]:
    if operation.body is None:
        return
    yield "\nBody: " + ", ".join(operation.body.media) + ("" if operation.body.required else ", optional")
    schema = field_schema(operation.body)
    needed = required(schema) if schema else set()
    for name, each in fields(schema).items() if schema else ():
        yield _line(name, each, ["required" if name in needed else "optional"], str(first(each, "description", "")))


def _line(name: str, schema: Schema, notes: list[str], description: str) -> str:
    default = first(schema, "default")
    found = [words(schema), *notes, "" if default is None else f"default {json.dumps(default, ensure_ascii=False)}"]
    text = re.sub(r"\s+", " ", plain(description).partition("\n\n")[0].partition("\n- ")[0]).strip()
    return f"    {name} ({', '.join(filter(None, found))}){f': {text}' if text else ''}"


def _given(operation: Operation) -> str:
    """What comes back, in words."""
    kinds: dict[str, None] = {}
    for status, answer in sorted(operation.answers.items()):
        for media, schema in answer.media.items() if status[0] == "2" else ():
            if media != EVENTS:
                kinds[_named(schema) if "json" in media else f"a Download ({media})"] = None
    found = " or ".join(kinds) or "nothing"
    if listing(operation) is not None:
        found = f"a page of a list, {found}"
    if not operation.streams:
        return found
    body = field_schema(operation.body) if operation.body else None
    switch = 'stream_format="sse"' if body and "stream_format" in fields(body) else "stream=True"
    return f"{found}; with `{switch}` a stream of events"


def _named(schema: Schema) -> str:
    raw = schema.raw if isinstance(schema.raw, dict) else {}
    return name_of(raw["$ref"]) if "$ref" in raw else words(schema) or "any value"


def _errors(operation: Operation) -> Iterator[tuple[str, str]]:
    """What a call may raise, with the reason."""
    yield "InvalidRequest", "the arguments do not fit; nothing was sent"
    for status, answer in sorted(operation.answers.items()):
        code = "500" if status.upper() == "5XX" else status
        if code.isdigit() and int(code) >= 400:
            kind = type(ApiError.of(int(code), None)).__name__
            yield kind, f"{status}, {' '.join(plain(answer.description).split())}".rstrip(", ")
    yield "ApiError", "the server answers with any other error"
    yield "ConnectionFailed", "there is no answer"
    if operation.streams:
        yield "StreamBroken", "a stream breaks and cannot be resumed"


def _keyword(name: str, kind: str, *, default: Any = ..., needed: bool = False) -> inspect.Parameter:
    shown = inspect.Parameter.empty if needed else _Shown("...") if default is ... else default
    place = name if is_spellable(name) else "_"  # one that cannot be spelled is left out after all
    return inspect.Parameter(place, inspect.Parameter.KEYWORD_ONLY, annotation=_Shown(kind), default=shown)


def _type(schema: Schema) -> str:
    """The type of a value as Python writes it; what is in an object is not told."""
    return " | ".join(_types(schema.raw, schema, 0))


def _types(node: Any, schema: Schema, depth: int) -> list[str]:
    """The alternatives, None last. Whatever words are known of a text besides are not told."""
    found = dict.fromkeys(_each_type(node, schema, depth))
    if not found or "Any" in found:
        return ["Any"]
    told = [each for each in found if each != "None" and not ("str" in found and each.startswith("Literal"))]
    return [*told, *(["None"] if "None" in found else [])]


def _each_type(node: Any, schema: Schema, depth: int) -> Iterator[str]:
    if not isinstance(node, dict) or depth > DEPTH_MAX:
        yield "Any"
    elif "$ref" in node:
        yield from _types(schema.named.schema(name_of(node["$ref"])), schema, depth + 1)
    elif "enum" in node or "const" in node:
        values = node.get("enum", [node.get("const")])
        told = ", ".join(repr(each) for each in values if isinstance(each, (str, int)))
        yield from filter(None, [told and f"Literal[{told}]", "None" if None in values else ""])
    elif "anyOf" in node:
        for each in node["anyOf"]:
            yield from _types(each, schema, depth + 1)
    elif parts := [each for each in node.get("allOf", ()) if isinstance(each, dict) and each.keys() - {"description"}]:
        yield from _types(parts[0], schema, depth + 1)
    else:
        kinds = node.get("type") or ("object" if "properties" in node else "")
        for kind in [kinds] if isinstance(kinds, str) else kinds:
            yield _of_kind(kind, node, schema, depth)


def _of_kind(kind: str, node: dict[str, Any], schema: Schema, depth: int) -> str:
    if kind == "array":
        return f"list[{' | '.join(_types(node.get('items', True), schema, depth + 1))}]"
    return FILE if node.get("format") == "binary" else _TYPES.get(kind, "Any")

"""The body of a request: which of the described forms it takes, as it is sent and as it is checked.

JSON where that is described and nothing in it is a file; else a form; else the bytes that were given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from antiphon.client.forms import MULTIPART, URLENCODED, form_kind, json_kind, pairs, text
from antiphon.client.upload import File, Upload, file, multipart
from antiphon.errors import InvalidRequest
from antiphon.spec.faults import Problem
from antiphon.spec.sealing import Named, in_place

if TYPE_CHECKING:
    from antiphon.spec import Operation, Schema

_A_FILE = "a file (a Path, bytes, an open file, or a tuple of a name and one of these)"


@dataclass(frozen=True)
class Encoded:
    """A body as it is sent, and the value that the other side will read."""

    data: bytes | Upload
    kind: str  # the content type
    value: Any
    problems: tuple[Problem, ...] = ()


def encode(operation: Operation, value: Any) -> Encoded:
    """Raises InvalidRequest if no form of the body can say this value."""
    assert operation.body is not None, "only an operation that takes a body is given one"
    media = operation.body.media
    json, form = json_kind(operation.body), form_kind(operation.body)
    if form == MULTIPART:
        value = _with_files(value)
    if json and (form is None or not _has_files(value)):
        return _json(operation, json, media[json], value)
    if form and isinstance(value, Mapping):
        return _form(operation, form, media[form], value)
    return _bytes(operation, value)


def _json(operation: Operation, kind: str, schema: Schema, value: Any) -> Encoded:
    import msgspec

    try:
        data = msgspec.json.encode(value)
        read = msgspec.json.decode(data)
    except (TypeError, ValueError, RecursionError) as error:
        if isinstance(error, TypeError) and _has_files(_with_files(value)):
            raise InvalidRequest(f"{operation.id} takes no file: its body is JSON.") from error
        raise InvalidRequest(f"{operation.id}: the body cannot be written as JSON: {error}") from error
    return Encoded(data, kind, read, tuple(schema.closed().problems(read)))


def _form(operation: Operation, kind: str, schema: Schema, value: Mapping[str, Any]) -> Encoded:
    fields = {name: each for name, each in value.items() if each is not None}  # no form can say null
    misplaced = tuple(_misplaced(fields, [schema.raw], schema.named, at=""))
    read = _json(operation, kind, schema, _without_files(fields))
    problems = (*read.problems, *misplaced)
    if problems or kind == URLENCODED:
        flat = [(key, text(leaf)) for name, each in read.value.items() for key, leaf in pairs(name, each)]
        return Encoded(urlencode(flat).encode(), kind, read.value, problems)
    assert operation.body is not None, "only an operation that takes a body is given one"
    kind, upload = multipart(fields, operation.body.encoding.get(kind, {}))
    return Encoded(upload, kind, read.value)


def _bytes(operation: Operation, value: Any) -> Encoded:
    assert operation.body is not None, "only an operation that takes a body is given one"
    kinds = [kind for kind in operation.body.media if kind not in (MULTIPART, URLENCODED)]
    value = value.encode() if isinstance(value, str) else value
    found = value if isinstance(value, File) else file(value)
    if not kinds or found is None:
        expected = " or ".join(operation.body.media)
        raise InvalidRequest(f"{operation.id} takes a body of {expected}, which cannot be made of this value.")
    source = found.content.source
    return Encoded(source if isinstance(source, bytes) else Upload([found.content]), kinds[0], None)


def _with_files(value: Any) -> Any:
    """The value, with all that can be sent as a file made one."""
    found = file(value)
    if found is not None:
        return found
    if isinstance(value, Mapping):
        return {key: _with_files(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_files(each) for each in value]
    return value


def _has_files(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_has_files, value.values()))
    return any(map(_has_files, value)) if isinstance(value, list) else isinstance(value, File)


def _without_files(value: Any) -> Any:
    """The value as a schema sees it: to it a file is a string."""
    if isinstance(value, Mapping):
        return {key: _without_files(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_files(each) for each in value]
    return value.name if isinstance(value, File) else value


def _misplaced(value: Any, schemas: Sequence[Any], named: Named, *, at: str) -> Iterator[Problem]:
    """Files where no file may be, and strings where only a file may be: a schema cannot tell one from the other."""
    nodes = [node for each in schemas if isinstance(each, dict) for node in in_place(each, named)]
    if isinstance(value, Mapping):
        for key, each in value.items():
            below = [node["properties"][key] for node in nodes if key in node.get("properties", ())]
            yield from _misplaced(each, below, named, at=f"{at}.{key}" if at else key)
    elif isinstance(value, list):
        below = [node["items"] for node in nodes if "items" in node]
        for index, each in enumerate(value):
            yield from _misplaced(each, below, named, at=f"{at}[{index}]")
    elif isinstance(value, (File, str)):
        strings = [node for node in nodes if node.get("type") == "string" or "contentMediaType" in node]
        binary = [node for node in strings if node.get("format") == "binary" or "contentMediaType" in node]
        if isinstance(value, File) and strings and not binary:
            yield Problem(f"Invalid type for '{at}': expected a string, but got a file instead.", "invalid_type", at)
        elif isinstance(value, str) and binary and len(binary) == len(strings):
            told = f"Invalid type for '{at}': expected {_A_FILE}, but got a string instead."
            yield Problem(told, "invalid_type", at)

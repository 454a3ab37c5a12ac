"""An API description as objects: its operations with their parameters, bodies and answers, and its schemas.

A `Document` reads a compiled index; nothing is parsed before it is asked for. It does not know HTTP.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import DocumentError, UnknownOperation
from .cache import Index, cached
from .names import folded, listed, nearest, snake_case
from .sealing import Named
from .security import Scheme
from .servers import Server, Variable
from .source import Source, read
from .validation import Schema

_AS_IT_IS = ("id", "name", "method", "path", "summary", "description", "deprecated")
_OVERLAY = Path(__file__).with_name("overlay.yaml")


@dataclass(frozen=True, eq=False)
class Parameter:
    name: str
    location: str  # path, query, header or cookie
    required: bool
    description: str
    schema: Schema
    style: str
    explode: bool


@dataclass(frozen=True, eq=False)
class Body:
    required: bool
    media: Mapping[str, Schema]  # by content type
    encoding: Mapping[str, Mapping[str, str]]  # by content type: those of the fields of a form that have their own


@dataclass(frozen=True, eq=False)
class Answer:
    description: str
    media: Mapping[str, Schema]  # by content type; empty where the answer has no body
    example: Any = None


@dataclass(frozen=True, eq=False)
class Operation:
    """One method on one path. There is one of each in a document, so it is compared by identity."""

    id: str
    name: str  # the method's name in snake_case
    method: str
    path: str  # with {parameters}, without a query
    query: tuple[tuple[str, str], ...]  # fixed pairs, from a path that was written with a query
    summary: str
    description: str
    deprecated: bool
    tags: tuple[str, ...]
    servers: tuple[Server, ...]  # where it is, if not where the others are; else empty
    # The ways to be let in, any of which will do: each the schemes that it takes together, none where anyone may call.
    security: tuple[tuple[Scheme, ...], ...]
    parameters: tuple[Parameter, ...]
    body: Body | None
    answers: Mapping[str, Answer]  # by status: "200", "4XX", "default"
    streams: bool  # an answer may be a stream of events

    @property
    def server_url(self) -> str:
        """Where it is, if not where the others are; else empty."""
        return self.servers[0].url_with() if self.servers else ""


class Document:
    """An OpenAPI document. Made by `load`."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self.title: str = index.about["title"]
        self.version: str = index.about["version"]
        self.description: str = index.about["description"]
        self.server_url: str = index.about["server_url"]
        self.servers: tuple[Server, ...] = tuple(map(_server, index.about["servers"]))
        self.security: Mapping[str, Scheme] = _schemes(index)
        self.tags: Mapping[str, str] = index.about["tags"]  # with their descriptions
        self.event_types: tuple[str, ...] = tuple(index.about["events"])
        self.operations: Mapping[str, Operation] = _Operations(index)
        self.named: Named = index  # the same, in the form in which schemas refer to each other
        self._ids: dict[str, str] | None = None
        self._schemas: dict[str, Schema] = {}

    @classmethod
    def load(cls, source: str | os.PathLike[str] | None = None) -> Document:
        """The document at a path or an http(s) URL, YAML or JSON; without one, the packaged official document.

        The packaged document comes with our overlay. What was compiled is kept in the user's cache directory; where
        that takes longer than a second, stderr says so. Raises DocumentError if the document cannot be used.
        """
        found = read(source)
        overlay = _OVERLAY.read_bytes() if found.packaged else b""
        return cls(cached(_key(found, overlay), lambda: _compiled(found, overlay), location=found.location))

    @property
    def schemas(self) -> tuple[str, ...]:
        """The names of the component schemas, and of others that are referred to, in order."""
        return tuple(sorted(self._index.schemas))

    def operation(self, name: str) -> Operation:
        """The operation of that id, method name, or any other spelling of one.

        Raises UnknownOperation, which names the nearest.
        """
        if name in self.operations:
            return self.operations[name]
        if self._ids is None:
            self._ids = self._spellings()
        operation_id = self._ids.get(name) or self._ids.get(folded(name))
        if operation_id is None:
            near = nearest(name, (entry[2] for entry in self._index.operations.values()))
            hint = f" Did you mean {listed(near, word='or')}?" if near else ""
            raise UnknownOperation(f"There is no operation '{name}'.{hint}")
        return self.operations[operation_id]

    def schema(self, name: str) -> Schema:
        """The component schema of that name."""
        if name not in self._index.schemas:
            raise DocumentError(f"The API description has no schema {name!r}.")
        return self._schema(name)

    def event_schema(self, type: str) -> Schema:
        """The schema of the stream event of that type."""
        if type not in self._index.about["events"]:
            raise DocumentError(f"The API description has no event {type!r}.")
        return self._schema(self._index.about["events"][type])

    def subset(self, operation_ids: Iterable[str], *, server_url: str) -> dict[str, Any]:
        """An OpenAPI document of these operations alone, with all that they refer to."""
        from .subset import subset  # seldom asked for

        return subset(self._index, [self.operation(each).id for each in operation_ids], server_url=server_url)

    def _schema(self, name: str) -> Schema:
        schema = self._schemas.get(name)
        if schema is None:
            schema = self._schemas[name] = Schema(self._index.schema(name), self._index)
        return schema

    def _spellings(self) -> dict[str, str]:
        ids: dict[str, str] = {}
        for operation_id, (_, _, name, *_) in self._index.operations.items():
            for spelling in (folded(operation_id), folded(name), snake_case(operation_id)):
                ids.setdefault(spelling, operation_id)
        # A method's own name goes before the other spellings of its neighbours.
        return ids | {entry[2]: operation_id for operation_id, entry in self._index.operations.items()}


class _Operations(Mapping[str, Operation]):
    """The operations by id, each made when it is first asked for."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._made: dict[str, Operation] = {}

    def __getitem__(self, operation_id: str) -> Operation:
        operation = self._made.get(operation_id)
        if operation is None:
            operation = self._made[operation_id] = _operation(self._index, self._index.operation(operation_id))
        return operation

    def __contains__(self, operation_id: object) -> bool:
        return operation_id in self._index.operations

    def __iter__(self) -> Iterator[str]:
        return iter(self._index.operations)

    def __len__(self) -> int:
        return len(self._index.operations)


def _server(entry: dict[str, Any]) -> Server:
    variables = {name: Variable(**{**each, "enum": tuple(each["enum"])}) for name, each in entry["variables"].items()}
    return Server(**{**entry, "variables": variables})


def _schemes(index: Index) -> dict[str, Scheme]:
    return {name: Scheme(**{**each, "scopes": ()}) for name, each in index.about["security"].items()}


def _operation(index: Index, entry: dict[str, Any]) -> Operation:
    def media(schemas: dict[str, Any]) -> dict[str, Schema]:
        return {kind: Schema(raw, index) for kind, raw in schemas.items()}

    body = entry["body"]
    known = _schemes(index)
    answers = {
        status: Answer(each["description"], media(each["media"]), each["example"])
        for status, each in entry["answers"].items()
    }
    return Operation(
        **{key: entry[key] for key in _AS_IT_IS},
        query=tuple((key, value) for key, value in entry["query"]),
        tags=tuple(entry["tags"]),
        servers=tuple(map(_server, entry["servers"])),
        security=tuple(
            tuple(replace(known[name], scopes=tuple(scopes)) for name, scopes in choice.items())
            for choice in entry["security"]
        ),
        parameters=tuple(
            Parameter(**(each | {"schema": Schema(each["schema"], index)})) for each in entry["parameters"]
        ),
        body=None if body is None else Body(body["required"], media(body["media"]), body["encoding"]),
        answers=answers,
        streams=any("text/event-stream" in answer.media for answer in answers.values()),
    )


def _key(found: Source, overlay: bytes) -> str:
    # The URL of a document counts, since a relative server URL is joined to it.
    place = found.location if found.is_remote else ""
    digest = hashlib.blake2b(found.data, digest_size=16)
    for part in (b"\0", overlay, b"\0", place.encode()):
        digest.update(part)
    return digest.hexdigest()


def _compiled(found: Source, overlay: bytes) -> dict[str, Any]:
    from .compile import compiled
    from .overlay import apply, parse

    document = found.parse()
    if overlay:
        document = apply(document, parse(overlay))
    return compiled(document, location=found.location, silent=found.packaged)

"""An OpenAPI document, compiled to the entries of the index: one JSON value per operation and per named schema.

Everything that a later start needs to know is decided here, once; nothing here knows files or caches.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import count
from typing import Any
from urllib.parse import parse_qsl

from ..errors import DocumentError
from .names import method_name, snake_case
from .normal import Schemas, at, reference, steps
from .security import schemes
from .servers import server_url, servers

_METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_HEADERS_SAID_ELSEWHERE = ("accept", "content-type", "authorization")
_EVENTS = "ResponseStreamEvent"

_Place = tuple[str, str, dict[str, Any]]  # path, method, and all that the document says of the path


def compiled(document: dict[str, Any], *, location: str, silent: bool = False) -> dict[str, Any]:
    """The entries `{"about", "operations", "schemas"}` of a document.

    silent: do not warn about what had to be mended.
    """
    _check_version(document, location)
    try:
        return _compiled(document, location, silent)
    except (AttributeError, TypeError, KeyError) as error:
        raise DocumentError(f"{location} does not have the shape of an OpenAPI document: {error}") from error
    except RecursionError as error:
        raise DocumentError(f"{location} is nested too deeply.") from error


def _check_version(document: dict[str, Any], location: str) -> None:
    version = str(document.get("openapi", ""))
    if version.startswith("3."):
        return
    found = f"openapi: {version or 'absent'}"
    if "swagger" in document:
        found = f"swagger: {document['swagger']}; a converter makes OpenAPI 3 of it"
    raise DocumentError(f"{location} is not an OpenAPI 3 document ({found}).")


def _compiled(document: dict[str, Any], location: str, silent: bool) -> dict[str, Any]:
    schemas = Schemas(document, silent=silent)
    reader = _Operations(document, schemas, location)
    operations = {operation["id"]: operation for operation in reader}
    names: set[str] = set()
    for operation in operations.values():
        while operation["name"] in names:
            operation["name"] += "_"
        names.add(operation["name"])
    schemas.finish()
    info = document.get("info") or {}
    about = {
        "title": str(info.get("title", "")),
        "version": str(info.get("version", "")),
        "description": str(info.get("description") or ""),
        "server_url": server_url(document.get("servers"), location),
        "servers": [asdict(server) for server in servers(document.get("servers"), location)],
        "tags": {str(tag["name"]): str(tag.get("description") or "") for tag in document.get("tags") or []},
        "security": {name: asdict(scheme) for name, scheme in reader.schemes.items()},
        "security_schemes": (document.get("components") or {}).get("securitySchemes") or {},
        "events": dict(_events(schemas.done)),
    }
    entries = {name: {"schema": schema, "refs": schemas.references[name]} for name, schema in schemas.done.items()}
    return {"about": about, "operations": operations, "schemas": entries}


class _Operations:
    """Reads the operations of a document, one entry after the other."""

    def __init__(self, document: dict[str, Any], schemas: Schemas, location: str) -> None:
        self.document = document
        self.schemas = schemas
        self.location = location
        described = (document.get("components") or {}).get("securitySchemes") or {}
        self.schemes = schemes({name: self._followed(each) for name, each in described.items()})

    def __iter__(self) -> Iterator[dict[str, Any]]:
        found = list(self._found())
        for operation_id, (path, method, item) in zip(self._ids(found), found, strict=True):
            yield self._operation(operation_id, path, method, item, item[method])

    def _found(self) -> Iterator[_Place]:
        for path, item in (self.document.get("paths") or {}).items():
            item = self._followed(item)
            for method in _METHODS:
                if isinstance(item.get(method), dict):
                    yield str(path), method, item

    def _ids(self, found: list[_Place]) -> list[str]:
        """An id of its own for each operation: that of the document where it has one, else of method and path."""
        ids: dict[int, str] = {}
        taken: set[str] = set()
        for number, (_, method, item) in enumerate(found):
            given = str(item[method].get("operationId") or "")
            if given in taken:
                self.schemas.warn(
                    f"{self.location} has two operations with the id {given!r}; the later one is renamed."
                )
            elif given:
                ids[number] = given
                taken.add(given)
        for number, (path, method, _) in enumerate(found):
            if number not in ids:
                ids[number] = _free(snake_case(f"{method} {path.partition('?')[0]}"), taken)
                taken.add(ids[number])
        return [ids[number] for number in range(len(found))]

    def _followed(self, node: Any) -> Any:
        for _ in range(100):
            target = reference(node)
            if target is None:
                return node
            node = at(self.document, target)
        raise DocumentError(f"The reference {target!r} leads to itself.")

    def _operation(
        self, operation_id: str, key: str, method: str, item: dict[str, Any], raw: dict[str, Any]
    ) -> dict[str, Any]:
        path, _, query = key.partition("?")
        own_servers = raw.get("servers") or item.get("servers")
        return {
            "id": operation_id,
            "name": method_name(operation_id) or snake_case(f"{method} {path}"),
            "method": method.upper(),
            "path": path,
            "query": parse_qsl(query, keep_blank_values=True),
            "summary": str(raw.get("summary") or ""),
            "description": str(raw.get("description") or ""),
            "deprecated": raw.get("deprecated") is True,
            "tags": [str(tag) for tag in raw.get("tags") or []],
            "servers": [asdict(server) for server in servers(own_servers, self.location)],
            "security": list(self._security(raw.get("security", self.document.get("security")) or [])),
            "parameters": self._parameters(path, item.get("parameters"), raw.get("parameters")),
            "body": self._body(raw.get("requestBody")),
            "answers": self._answers(raw),
        }

    def _security(self, choices: Iterable[Any]) -> Iterator[dict[str, list[str]]]:
        """The ways to be let in: each the schemes that it takes together, with their scopes."""
        for choice in choices:
            unknown = [name for name in choice or {} if name not in self.schemes]
            if unknown:
                self.schemas.warn(f"{self.location} asks for {unknown[0]!r}, which is no security scheme of it.")
            else:
                yield {name: [str(scope) for scope in scopes or []] for name, scopes in (choice or {}).items()}

    def _parameters(self, path: str, of_path: Any, of_operation: Any) -> list[dict[str, Any]]:
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for each in [*(of_path or []), *(of_operation or [])]:
            raw = self._followed(each)
            # What these headers say is said elsewhere in the document, so OpenAPI wants them overlooked here.
            if raw["in"] != "header" or str(raw["name"]).lower() not in _HEADERS_SAID_ELSEWHERE:
                found[raw["name"], raw["in"]] = self._parameter(raw)
        for name in re.findall(r"{([^{}]+)}", path):
            if (name, "path") not in found:
                self.schemas.warn(f"{self.location} does not describe {{{name}}} of {path}; it is taken as a string.")
                found[name, "path"] = self._parameter({"name": name, "in": "path", "schema": {"type": "string"}})
        return list(found.values())

    def _parameter(self, raw: dict[str, Any]) -> dict[str, Any]:
        place = str(raw["in"])
        style = str(raw.get("style") or ("form" if place in ("query", "cookie") else "simple"))
        schema = raw.get("schema")
        if schema is None:  # the other way to describe a parameter: as a text of a media type
            schema = next((media.get("schema") for media in (raw.get("content") or {}).values()), None)
        return {
            "name": str(raw["name"]),
            "location": place,
            "required": place == "path" or raw.get("required") is True,
            "description": str(raw.get("description") or ""),
            "style": style,
            "explode": bool(raw.get("explode", style == "form")),
            "schema": self.schemas.normal({} if schema is None else schema),
        }

    def _body(self, node: Any) -> dict[str, Any] | None:
        if node is None:
            return None
        raw = self._followed(node)
        return {
            "required": raw.get("required") is True,
            "description": str(raw.get("description") or ""),
            "media": self._media(raw),
            "encoding": self._encoding(raw),
        }

    def _encoding(self, raw: dict[str, Any]) -> dict[str, dict[str, str]]:
        """The content types of a form's fields, by that of the form; those that leave a choice say nothing."""
        encodings = {
            str(kind): (media or {}).get("encoding") or {} for kind, media in (raw.get("content") or {}).items()
        }
        types = {
            kind: {str(name): str((each or {}).get("contentType") or "") for name, each in fields.items()}
            for kind, fields in encodings.items()
        }
        return {
            kind: {name: value for name, value in fields.items() if value and not set("*,") & set(value)}
            for kind, fields in types.items()
        }

    def _answers(self, raw: dict[str, Any]) -> dict[str, Any]:
        answers = {str(status): self._answer(each) for status, each in (raw.get("responses") or {}).items()}
        success = next((answer for status, answer in answers.items() if status[0] == "2"), None)
        if success and success["example"] is None:
            success["example"] = _aside(raw)
        return answers

    def _answer(self, node: Any) -> dict[str, Any]:
        raw = self._followed(node)
        example = next(filter(None, (self._example(media) for media in (raw.get("content") or {}).values())), None)
        return {"description": str(raw.get("description") or ""), "media": self._media(raw), "example": example}

    def _media(self, raw: dict[str, Any]) -> dict[str, Any]:
        content = raw.get("content") or {}
        return {str(kind): self.schemas.normal((media or {}).get("schema") or {}) for kind, media in content.items()}

    def _example(self, media: Any) -> Any:
        media = media or {}
        if "example" in media:
            return media["example"]
        for each in (media.get("examples") or {}).values():
            return self._followed(each).get("value")
        schema = self._followed(media.get("schema") or {})
        return schema.get("example") if isinstance(schema, dict) else None


def _aside(raw: dict[str, Any]) -> Any:
    """The answer that the official document shows of an operation, outside of what OpenAPI has for it."""
    examples = (raw.get("x-oaiMeta") or {}).get("examples")
    first = next(iter(examples), None) if isinstance(examples, list) else examples
    try:
        return json.loads((first or {}).get("response") or "null")
    except ValueError:  # it is no JSON, or has dots where something was left out
        return None


def _free(name: str, taken: set[str]) -> str:
    """The name, with a number behind it if it is taken."""
    numbered = (f"{name}_{number}" for number in count(2))
    return name if name not in taken else next(each for each in numbered if each not in taken)


def _events(schemas: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The stream's event types with the schema that describes each."""
    for branch in schemas.get(_EVENTS, {}).get("anyOf", []):
        target = reference(branch)
        name = steps(target)[-1] if target else ""
        kind = schemas.get(name, {}).get("properties", {}).get("type", {})
        for value in kind.get("enum", [kind["const"]] if "const" in kind else []):
            yield value, name

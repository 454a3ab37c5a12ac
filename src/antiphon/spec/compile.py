"""An OpenAPI document, compiled to the entries of the index: one JSON value per operation and per named schema.

Everything that a later start needs to know is decided here, once; nothing here knows files or caches.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urljoin

from ..errors import DocumentError
from .names import method_name, snake_case
from .normal import Schemas, at, reference, steps

_METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_EVENTS = "ResponseStreamEvent"


def compiled(document: dict[str, Any], *, location: str, silent: bool = False) -> dict[str, Any]:
    """The entries `{"about", "operations", "schemas"}` of a document.

    silent: do not warn about what had to be mended.
    """
    version = str(document.get("openapi", ""))
    if not version.startswith("3."):
        raise DocumentError(f"{location} is not an OpenAPI 3 document (openapi: {version or 'absent'}).")
    try:
        return _compiled(document, location, silent)
    except (AttributeError, TypeError, KeyError) as error:
        raise DocumentError(f"{location} does not have the shape of an OpenAPI document: {error}") from error
    except RecursionError as error:
        raise DocumentError(f"{location} is nested too deeply.") from error


def _compiled(document: dict[str, Any], location: str, silent: bool) -> dict[str, Any]:
    schemas = Schemas(document, silent=silent)
    operations: dict[str, Any] = {}
    names: set[str] = set()
    for operation in _Operations(document, schemas):
        if operation["id"] in operations:
            raise DocumentError(f"{location} has two operations with the id {operation['id']!r}.")
        while operation["name"] in names:
            operation["name"] += "_"
        names.add(operation["name"])
        operations[operation["id"]] = operation
    schemas.finish()
    info = document.get("info") or {}
    about = {
        "title": str(info.get("title", "")),
        "version": str(info.get("version", "")),
        "server_url": _server_url(document, location),
        "security_schemes": (document.get("components") or {}).get("securitySchemes") or {},
        "events": dict(_events(schemas.done)),
    }
    entries = {name: {"schema": schema, "refs": schemas.references[name]} for name, schema in schemas.done.items()}
    return {"about": about, "operations": operations, "schemas": entries}


class _Operations:
    """Reads the operations of a document, one entry after the other."""

    def __init__(self, document: dict[str, Any], schemas: Schemas) -> None:
        self.document = document
        self.schemas = schemas

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for key, item in (self.document.get("paths") or {}).items():
            item = self._followed(item)
            for method in _METHODS:
                if isinstance(item.get(method), dict):
                    yield self._operation(str(key), method, item, item[method])

    def _followed(self, node: Any) -> Any:
        for _ in range(100):
            target = reference(node)
            if target is None:
                return node
            node = at(self.document, target)
        raise DocumentError(f"The reference {target!r} leads to itself.")

    def _operation(self, key: str, method: str, item: dict[str, Any], raw: dict[str, Any]) -> dict[str, Any]:
        path, _, query = key.partition("?")
        operation_id = str(raw.get("operationId") or snake_case(f"{method} {path}"))
        security = raw.get("security", self.document.get("security")) or []
        return {
            "id": operation_id,
            "name": method_name(operation_id),
            "method": method.upper(),
            "path": path,
            "query": parse_qsl(query, keep_blank_values=True),
            "summary": str(raw.get("summary") or ""),
            "description": str(raw.get("description") or ""),
            "deprecated": raw.get("deprecated") is True,
            "tags": [str(tag) for tag in raw.get("tags") or []],
            "security": sorted({str(scheme) for choice in security for scheme in choice}),
            "parameters": self._parameters(item.get("parameters"), raw.get("parameters")),
            "body": self._body(raw.get("requestBody")),
            "answers": {str(k): self._answer(each) for k, each in (raw.get("responses") or {}).items()},
        }

    def _parameters(self, of_path: Any, of_operation: Any) -> list[dict[str, Any]]:
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for each in [*(of_path or []), *(of_operation or [])]:
            raw = self._followed(each)
            found[raw["name"], raw["in"]] = self._parameter(raw)
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
        }

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


def _server_url(document: dict[str, Any], location: str) -> str:
    server: dict[str, Any] = next(iter(document.get("servers") or []), {})
    url = str(server.get("url") or "/")
    for name, variable in (server.get("variables") or {}).items():
        url = url.replace("{" + str(name) + "}", str(variable.get("default", "")))
    return (urljoin(location, url) if location.startswith(("http://", "https://")) else url).rstrip("/")


def _events(schemas: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The stream's event types with the schema that describes each."""
    for branch in schemas.get(_EVENTS, {}).get("anyOf", []):
        target = reference(branch)
        name = steps(target)[-1] if target else ""
        kind = schemas.get(name, {}).get("properties", {}).get("type", {})
        for value in kind.get("enum", [kind["const"]] if "const" in kind else []):
            yield value, name

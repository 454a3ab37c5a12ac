"""A part of a document as a document of its own: some operations, and the schemas that these reach."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlencode

from .cache import Index
from .sealing import closure, referred


def subset(index: Index, operation_ids: Iterable[str], *, server_url: str) -> dict[str, Any]:
    paths: dict[str, Any] = {}
    names: set[str] = set()
    schemes: set[str] = set()
    for operation_id in operation_ids:
        entry = index.operation(operation_id)
        key = entry["path"] + ("?" + urlencode([tuple(pair) for pair in entry["query"]]) if entry["query"] else "")
        paths.setdefault(key, {})[entry["method"].lower()] = _operation(entry)
        schemes.update(name for choice in entry["security"] for name in choice)
        for schema in _schemas(entry):
            names |= closure(index, referred(schema))
    about = index.about
    return {
        "openapi": "3.1.0",
        "info": {"title": about["title"], "version": about["version"]},
        "servers": [{"url": server_url}],
        "paths": paths,
        "components": {
            "schemas": {name: index.schema(name) for name in sorted(names)},
            "securitySchemes": {key: value for key, value in about["security_schemes"].items() if key in schemes},
        },
    }


def _schemas(entry: dict[str, Any]) -> Iterator[Any]:
    yield from (parameter["schema"] for parameter in entry["parameters"])
    for part in (entry["body"], *entry["answers"].values()):
        if part is not None:
            yield from part["media"].values()


def _operation(entry: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "operationId": entry["id"],
        "summary": entry["summary"],
        "description": entry["description"],
        "tags": entry["tags"],
        "parameters": [_parameter(each) for each in entry["parameters"]],
        "security": entry["security"],
        "responses": {status: _answer(answer) for status, answer in entry["answers"].items()},
    }
    if entry["deprecated"]:
        made["deprecated"] = True
    if entry["body"] is not None:
        made["requestBody"] = {"required": entry["body"]["required"], "content": _content(entry["body"])}
    return made


def _parameter(each: dict[str, Any]) -> dict[str, Any]:
    return {key: each[key] for key in ("name", "required", "description", "style", "explode", "schema")} | {
        "in": each["location"]
    }


def _answer(answer: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {"description": answer["description"]}
    if answer["media"]:
        made["content"] = _content(answer)
    return made


def _content(part: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {kind: {"schema": schema} for kind, schema in part["media"].items()}
    for kind, fields in part.get("encoding", {}).items():
        if fields:
            content[kind]["encoding"] = {name: {"contentType": value} for name, value in fields.items()}
    return content

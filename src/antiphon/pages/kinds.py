"""What a value must be, in a few words with links: `array of Tool`, `"auto" or "low"`, `string (date-time)`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from antiphon.spec.normal import reference
from antiphon.spec.sealing import name_of

from .model import Line, Span, code, joined, text

_WORDS_MAX = 12
_DEPTH_MAX = 6

_BOUNDS = (
    ("minimum", "at least {}"),
    ("exclusiveMinimum", "above {}"),
    ("maximum", "at most {}"),
    ("exclusiveMaximum", "below {}"),
    ("multipleOf", "a multiple of {}"),
    ("minLength", "at least {} characters"),
    ("maxLength", "at most {} characters"),
    ("minItems", "at least {} items"),
    ("maxItems", "at most {} items"),
)


def kind(raw: Any, places: Mapping[str, str], depth: int = 0) -> Line:
    """places: where the page of each named schema is."""
    if not isinstance(raw, dict) or depth > _DEPTH_MAX:
        return text("nothing" if raw is False else "any value")
    target = reference(raw)
    if target is not None:
        name = name_of(target)
        return (Span(name, page=places.get(name, "")),)
    if "const" in raw or "enum" in raw:
        return _words(raw.get("enum", [raw.get("const")]))
    if "anyOf" in raw:
        return joined(_distinct(kind(each, places, depth + 1) for each in raw["anyOf"]), " or ")
    if "allOf" in raw:
        parts = [each for each in raw["allOf"] if isinstance(each, dict) and _says_something(each)]
        if parts:
            return joined(_distinct(kind(each, places, depth + 1) for each in parts), " and ")
    return joined(_distinct(_plain(raw, places, depth)), " or ") or text("any value")


def limits(facets: Iterable[Mapping[str, Any]]) -> Iterator[Line]:
    """What else a value must be."""
    told: set[str] = set()
    for facet in facets:
        for key, words in _BOUNDS:
            if key in facet and key not in told:
                told.add(key)
                yield text(words.format(facet[key]))
        if "pattern" in facet and "pattern" not in told:
            told.add("pattern")
            yield (Span("like "), code(facet["pattern"]))


def default(facets: Iterable[Mapping[str, Any]]) -> Line:
    """What a value is if it is left out; empty if nothing is said."""
    given = next((facet["default"] for facet in facets if facet.get("default") is not None), None)
    return () if given is None else (code(json.dumps(given, ensure_ascii=False)),)


def _plain(raw: Mapping[str, Any], places: Mapping[str, str], depth: int) -> Iterator[Line]:
    said = raw.get("type") or ("object" if "properties" in raw else "array" if "items" in raw else [])
    for each in [said] if isinstance(said, str) else said:
        if each == "array" and isinstance(raw.get("items"), dict):
            yield (Span("array of "), *kind(raw["items"], places, depth + 1))
        elif each == "object" and isinstance(raw.get("additionalProperties"), dict) and "properties" not in raw:
            yield (Span("map of "), *kind(raw["additionalProperties"], places, depth + 1))
        elif each == "string" and raw.get("format") == "binary":
            yield text("file")
        elif "format" in raw and each in ("string", "integer", "number"):
            yield text(f"{each} ({raw['format']})")
        else:
            yield text(each)


def _words(values: list[Any]) -> Line:
    lines: list[Line] = [(code(json.dumps(value, ensure_ascii=False)),) for value in values[:_WORDS_MAX]]
    if len(values) > _WORDS_MAX:
        lines.append(text(f"{len(values) - _WORDS_MAX} others"))
    return joined(lines, " or ")


def _says_something(raw: Mapping[str, Any]) -> bool:
    return bool(raw.keys() & {"$ref", "type", "enum", "const", "anyOf", "allOf", "properties", "items"})


def _distinct(lines: Iterable[Line]) -> list[Line]:
    return list(dict.fromkeys(lines))

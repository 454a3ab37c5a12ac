"""What the keywords of a schema must look like. Real documents have some that a validator refuses to read.

A keyword that has no meaning in the form in which it is written is better left out than the whole schema lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

TYPES = frozenset(("null", "boolean", "object", "array", "number", "string", "integer"))


def misshapen(schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each keyword of the schema that no validator could read, with the reason."""
    found = [(key, value, _SHAPES[key]) for key, value in schema.items() if key in _SHAPES]
    yield from ((key, f"{_shown(value)} is not {what}") for key, value, (fits, what) in found if not fits(value))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _is_type(value: Any) -> bool:
    kinds = value if isinstance(value, list) else [value]
    return bool(kinds) and all(isinstance(kind, str) and kind in TYPES for kind in kinds)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_bound(value: Any) -> bool:
    return isinstance(value, (int, float))  # a boolean is OpenAPI 3.0's form of the exclusive ones


def _is_size(value: Any) -> bool:
    return _is_number(value) and value >= 0 and value == value // 1


def _is_map(value: Any) -> bool:
    return isinstance(value, dict)


def _is_schema(value: Any) -> bool:
    return isinstance(value, (dict, bool))


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _are_values(value: Any) -> bool:
    return isinstance(value, list) and bool(value)


def _are_schemas(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_schema, value))


_Shape = tuple[Callable[[Any], bool], str]


def _each(keys: str, shape: _Shape) -> dict[str, _Shape]:
    return dict.fromkeys(keys.split(), shape)


_SHAPES: Mapping[str, _Shape] = {
    **_each("type", (_is_type, "a type of JSON")),
    **_each("title description pattern format contentEncoding contentMediaType", (_is_text, "a text")),
    **_each("uniqueItems readOnly writeOnly deprecated", (_is_flag, "true or false")),
    **_each("minimum maximum", (_is_number, "a number")),
    **_each("exclusiveMinimum exclusiveMaximum", (_is_bound, "a number")),
    **_each("multipleOf", (lambda value: _is_number(value) and value > 0, "a number above 0")),
    **_each("minLength maxLength minItems maxItems minProperties maxProperties", (_is_size, "a size")),
    **_each("minContains maxContains", (_is_size, "a size")),
    **_each("required", (_are_names, "a list of names")),
    **_each("enum", (_are_values, "a list of values")),
    **_each("allOf anyOf oneOf prefixItems", (_are_schemas, "a list of schemas")),
    **_each("properties patternProperties dependentSchemas", (_is_map, "a map of schemas")),
    **_each(
        "items additionalProperties additionalItems unevaluatedItems unevaluatedProperties", (_is_schema, "a schema")
    ),
    **_each("contains propertyNames not if then else", (_is_schema, "a schema")),
}

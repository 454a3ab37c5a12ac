"""A schema seen from its value: all that `$ref` and `allOf` say of one value in one place, with its alternatives.

Only explanations need it; the validator has its own view.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .normal import reference
from .sealing import Named, name_of

_ALL: tuple[str, ...] = ("null", "boolean", "object", "array", "number", "string", "integer")
_ARTICLES = {
    "string": "a string",
    "integer": "an integer",
    "number": "a decimal",
    "boolean": "a boolean",
    "object": "an object",
    "array": "an array",
}

# Schemas that the API calls by a name of their own, alone and as the elements of an array.
_NAMES = {"Metadata": "a metadata object", "InputItem": "an input item"}
_ELEMENTS = {"Tool": "tools", "InputItem": "input items"}

_FLATTENED_DEPTH_MAX = 50


@dataclass(frozen=True, eq=False)
class Flat:
    """Facets that hold together, and unions of which one alternative each must hold as well."""

    facets: tuple[dict[str, Any], ...]
    unions: tuple[tuple[Flat, ...], ...]
    names: frozenset[str]  # of the schemas passed on the way
    elements: str = ""  # what the API calls the elements, for an array

    def joined(self, other: Flat) -> Flat:
        return Flat(self.facets + other.facets, other.unions, self.names | other.names, self.elements or other.elements)

    def get(self, key: str) -> Any:
        """The keyword's value, from the first facet that has it."""
        return next((facet[key] for facet in self.facets if key in facet), None)

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """The types that all facets allow."""
        kinds = _ALL
        for facet in self.facets:
            if "type" in facet:
                said = (facet["type"],) if isinstance(facet["type"], str) else tuple(facet["type"])
                kinds = said if kinds is _ALL else tuple(kind for kind in kinds if kind in said)
        return kinds

    @cached_property
    def properties(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for facet in self.facets:
            for name, schema in facet.get("properties", {}).items():
                found[name] = {"allOf": [found[name], schema]} if name in found else schema
        return found

    @cached_property
    def required(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for facet in self.facets for name in facet.get("required", ())))

    @cached_property
    def words(self) -> list[Any] | None:
        """The values allowed by name; None if there is no such list."""
        for facet in self.facets:
            if "enum" in facet:
                return list(facet["enum"])
            if "const" in facet:
                return [facet["const"]]
        return None

    @property
    def is_closed(self) -> bool:
        return any(facet.get("additionalProperties") is False for facet in self.facets)

    @property
    def is_map(self) -> bool:
        return any(facet.get("additionalProperties", False) is not False for facet in self.facets)

    @property
    def is_condition(self) -> bool:
        """Whether it only says which keys must be there together."""
        return all(facet.keys() <= {"required", "title", "description"} for facet in self.facets)

    def tags(self, key: str) -> Sequence[str]:
        """The values by which the property `key` tells this alternative from its neighbours."""
        schema = self.properties.get(key)
        if not isinstance(schema, dict):
            return ()
        if "anyOf" in schema:  # a nullable one
            schema = next((each for each in schema["anyOf"] if "enum" in each), {})
        return [schema["const"]] if "const" in schema else schema.get("enum", ())


class Flattener:
    """Makes schemas flat, each once."""

    def __init__(self, named: Named) -> None:
        self.named = named
        self._made: dict[int, tuple[Any, Flat]] = {}

    def __call__(self, raw: Any, depth: int = 0) -> Flat:
        known = self._made.get(id(raw))
        if known is None:
            # The schema is kept beside its flat form, since ids of what is gone are given out again.
            known = self._made[id(raw)] = (raw, self._flat(raw, depth))
        return known[1]

    def _flat(self, raw: Any, depth: int) -> Flat:
        facets: list[dict[str, Any]] = []
        unions: list[tuple[Flat, ...]] = []
        names: set[str] = set()
        waiting = [raw]
        while waiting and len(facets) < 1000:
            node = waiting.pop(0)
            if not isinstance(node, dict) or any(node is facet for facet in facets):
                continue
            facets.append(node)
            target = reference(node)
            if target is not None:
                names.add(name_of(target))
                waiting.append(self.named.schema(name_of(target)))
            waiting += node.get("allOf", ())
            if "anyOf" in node and depth < _FLATTENED_DEPTH_MAX:
                unions.append(tuple(self._leaves(node["anyOf"], depth + 1)))
        return Flat(tuple(facets), tuple(unions), frozenset(names), self._elements(facets))

    def _leaves(self, branches: Iterable[Any], depth: int) -> Iterable[Flat]:
        """The alternatives, those of nested unions among them."""
        for branch in branches:
            flat = self(branch, depth)
            if len(flat.unions) == 1:
                own = Flat(flat.facets, (), flat.names, flat.elements)
                yield from (own.joined(leaf) for leaf in flat.unions[0])
            else:
                yield flat

    def _elements(self, facets: list[dict[str, Any]]) -> str:
        for facet in facets:
            items = facet.get("items")
            if isinstance(items, dict):
                target = reference(items)
                name = _ELEMENTS.get(name_of(target)) if target else None
                kinds = self.named.schema(name_of(target)).get("type") if target else items.get("type")
                return name or f"{'object' if not isinstance(kinds, str) else kinds}s"
        return ""


def fits(value: Any, kinds: Sequence[str]) -> bool:
    """Whether the value is of one of these JSON types."""
    if value is None:
        return "null" in kinds
    if isinstance(value, bool):
        return "boolean" in kinds
    if isinstance(value, str):
        return "string" in kinds
    if isinstance(value, (int, float)):
        return "number" in kinds or ("integer" in kinds and value == value // 1)
    return ("array" if isinstance(value, (list, tuple)) else "object") in kinds


def kinds_name(leaves: Sequence[Flat], value: Any, names: frozenset[str] = frozenset()) -> str:
    """What was expected, as the API names it: `a string`, `one of a string or array of input items`."""
    found: dict[str, None] = {}
    for name in names:
        if name in _NAMES:
            found[_NAMES[name]] = None
    if not found:
        for leaf in leaves:
            own = next((_NAMES[name] for name in leaf.names if name in _NAMES), None)
            for kind in leaf.kinds:
                if kind != "null":
                    found[own or _kind_name(kind, leaf)] = None
    expected = list(found) or ["null"]
    # A null is answered with the first kind alone.
    if len(expected) == 1 or value is None:
        return expected[0]
    bare = [expected[0], *(each.split(" ", 1)[1] for each in expected[1:])]
    return f"one of {' or '.join(bare)}" if len(bare) == 2 else f"one of {', '.join(bare[:-1])}, or {bare[-1]}"


def _kind_name(kind: str, leaf: Flat) -> str:
    return f"an array of {leaf.elements}" if kind == "array" and leaf.elements else _ARTICLES[kind]

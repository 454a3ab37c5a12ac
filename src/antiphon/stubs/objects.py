"""What an object may hold, put together from all schemas that speak of it: `$ref`, `allOf`, and `anyOf` as a choice."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from antiphon.spec.sealing import Named, in_place, name_of

ALTERNATIVES_MAX = 32  # more of them, from choices beside choices, are no help to a reader

# What says of which kind a value is. A schema without any of these only comments on one that is beside it.
_KINDS = frozenset(("$ref", "additionalProperties", "allOf", "anyOf", "const", "enum", "items", "properties", "type"))


@dataclass(frozen=True)
class Shape:
    """One way in which an object may be filled."""

    properties: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)  # all schemas of a key hold
    required: frozenset[str] = frozenset()

    def __or__(self, other: Shape) -> Shape:
        keys = dict.fromkeys((*self.properties, *other.properties))
        both = {key: (*self.properties.get(key, ()), *other.properties.get(key, ())) for key in keys}
        return Shape(both, self.required | other.required)


def silent(node: Any) -> bool:
    """Whether the schema leaves the kind of the value open."""
    return node is True or (isinstance(node, dict) and not node.keys() & _KINDS)


def has_properties(node: Any, named: Named) -> bool:
    return any(each.get("properties") for each in in_place(node, named))


def shapes(node: Any, named: Named, _seen: frozenset[str] = frozenset()) -> list[Shape] | None:
    """The ways to fill an object of this schema; None if a value may be something else, or there are too many."""
    if silent(node):
        return [_own(node)]
    if not isinstance(node, dict) or node.get("type", "object") != "object" or node.keys() & {"enum", "const", "items"}:
        return None
    parts: list[list[Shape] | None] = [[_own(node)]]
    if "$ref" in node:
        name = name_of(node["$ref"])
        parts.append(None if name in _seen else shapes(named.schema(name), named, _seen | {name}))
    parts += [shapes(each, named, _seen) for each in node.get("allOf", ())]
    if "anyOf" in node:
        parts.append(_choice(shapes(each, named, _seen) for each in node["anyOf"]))
    return _together(parts)


def _own(node: Any) -> Shape:
    if not isinstance(node, dict):
        return Shape()
    properties = {name: (each,) for name, each in node.get("properties", {}).items()}
    return Shape(properties, frozenset(node.get("required", ())))


def _choice(branches: Iterable[list[Shape] | None]) -> list[Shape] | None:
    found: list[Shape] = []
    for branch in branches:
        if branch is None:
            return None
        found += branch
    # Branches that only require keys ("this one or that one") are more than a type can say.
    return found if any(each.properties for each in found) else [Shape()]


def _together(parts: list[list[Shape] | None]) -> list[Shape] | None:
    whole = [Shape()]
    for part in parts:
        if part is None or len(whole) * len(part) > ALTERNATIVES_MAX:
            return None
        whole = [one | other for one, other in itertools.product(whole, part)]
    return whole

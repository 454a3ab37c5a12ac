"""Schemas as Python types: an expression for each, and the definitions of those that need a name.

Objects become TypedDicts, everything else an alias. What answers hold is `list` and `dict`, for the caller to change;
what is only sent is `Sequence` and `Mapping`, so that any will do.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from antiphon.spec import Schema
from antiphon.spec.sealing import Named, in_place, name_of
from antiphon.stubs.names import TypeNames, joined
from antiphon.stubs.objects import Shape, has_properties, shapes, silent

INLINE_MAX = 80  # a longer type gets a name

# A type as its alternatives, each an expression: `str | None` is `["str", "None"]`.
Union = list[str]

_SIMPLE = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}


@dataclass(frozen=True)
class Key:
    """A key of a TypedDict."""

    type: str
    required: bool


@dataclass
class Definitions:
    """The named types of a stub."""

    objects: dict[str, dict[str, Key]] = field(default_factory=dict)
    aliases: dict[str, Union] = field(default_factory=dict)


class Types:
    """Turns schemas into types and remembers what must be defined for them."""

    def __init__(self, names: TypeNames, components: Iterable[str], answered: Iterable[str]) -> None:
        """
        components: the named schemas that will be asked for; their names go before those of nested types.
        answered: those among them that answers may hold.
        """
        self.defined = Definitions()
        self.names = names
        self._spelled = {name: names.new(name) for name in sorted(components)}
        self._answered = frozenset(answered)
        self._begun: set[str] = set()

    def of(self, schema: Schema, hint: str, *, given: bool) -> str:
        """The type of a value. given: the caller gives it; hint: a name for it, should it need one."""
        return _Reading(self, schema.named, given=given).expression(schema.raw, hint)

    def component(self, name: str, named: Named) -> str:
        """The name of a component's type; it is defined when it is first asked for."""
        spelled = self._spelled[name]
        if name not in self._begun:
            self._begun.add(name)
            reading = _Reading(self, named, given=name not in self._answered)
            node = named.schema(name)
            if _leads_to_itself(node, name, named):
                self.defined.aliases[spelled] = ["Any"]
            else:
                reading.define(spelled, node)
        return spelled

    def keys(self, expression: str) -> dict[str, Key] | None:
        """The keys of an object, or of a choice of objects, by its name; None if it is something else."""
        if expression in self.defined.objects:
            return self.defined.objects[expression]
        branches = self.defined.aliases.get(expression) or expression.split(" | ")
        if branches == [expression]:
            return None
        found = [self.keys(each) for each in branches if each != "None"]
        return _merged([each for each in found if each is not None]) if None not in found else None


class _Reading:
    """Reads the schemas of one component, or of one place in an operation."""

    def __init__(self, types: Types, named: Named, *, given: bool) -> None:
        self._types = types
        self._named = named
        self._given = given
        self._list, self._map = ("Sequence", "Mapping") if given else ("list", "dict")

    def expression(self, node: Any, hint: str) -> str:
        union = self._union(node, hint)
        text = " | ".join(union)
        if len(text) <= INLINE_MAX:
            return text
        name = self._types.names.new(hint)
        self._types.defined.aliases[name] = union
        return name

    def define(self, name: str, node: Any) -> None:
        """Define the type of that name."""
        ways = self._ways(node)
        if ways is not None and len(ways) == 1:
            self._object(name, ways[0])
        else:
            self._types.defined.aliases[name] = self._union(node, name)

    def _union(self, node: Any, hint: str) -> Union:
        """The alternatives of a schema, each once, None last."""
        found = dict.fromkeys(self._alternatives(node, hint))
        if not found or "Any" in found:
            return ["Any"]
        return [*(each for each in found if each != "None"), *(["None"] if "None" in found else [])]

    def _alternatives(self, node: Any, hint: str) -> Union:
        if not isinstance(node, dict) or silent(node):
            return ["Never" if node is False else "Any"]
        if "const" in node or "enum" in node:
            return _literals(node.get("enum", [node.get("const")]))
        if _refers(node):
            return [self._types.component(name_of(node["$ref"]), self._named)]
        ways = self._ways(node)
        if ways is not None:
            return [self._new_object(hint, way) for way in ways]
        if "anyOf" in node:
            return [each for branch in node["anyOf"] for each in self._union(branch, hint)]
        if "allOf" in node:  # parts that are no objects: the first that says something
            return self._union(next((each for each in node["allOf"] if not silent(each)), True), hint)
        return self._of_kinds(node, hint)

    def _ways(self, node: Any) -> list[Shape] | None:
        """How to fill the object that the schema itself describes; None if others describe it, or it is none."""
        if not isinstance(node, dict) or _refers(node):
            return None
        if "properties" not in node and "allOf" not in node and "$ref" not in node:
            return None
        if "allOf" in node and len(_told(node["allOf"])) == 1 and "properties" not in node:
            return None
        return shapes(node, self._named) if has_properties(node, self._named) else None

    def _new_object(self, hint: str, way: Shape) -> str:
        name = self._types.names.new(hint)
        self._object(name, way)
        return name

    def _object(self, name: str, way: Shape) -> None:
        keys: dict[str, Key] = {}
        self._types.defined.objects[name] = keys
        for key, nodes in way.properties.items():
            # Of several schemas the last one is the narrowest in practice: what an allOf adds to what it extends.
            node = next((each for each in reversed(nodes) if not silent(each)), True)
            keys[key] = Key(self.expression(node, name + joined(key)), key in way.required)

    def _of_kinds(self, node: dict[str, Any], hint: str) -> Union:
        kinds = node.get("type") or ("array" if "items" in node else "object")
        found: Union = []
        for kind in [kinds] if isinstance(kinds, str) else kinds:
            found += self._of_kind(str(kind), node, hint)
        return found

    def _of_kind(self, kind: str, node: dict[str, Any], hint: str) -> Union:
        if kind == "array":
            return [f"{self._list}[{self.expression(node.get('items', True), hint + 'Item')}]"]
        if kind == "object" and node.get("properties"):
            return [self._new_object(hint, way) for way in shapes({**node, "type": "object"}, self._named) or ()]
        if kind == "object":
            extra = node.get("additionalProperties", True)
            return [f"{self._map}[str, {self.expression(extra or True, hint + 'Value')}]"]
        if kind == "string" and self._given and (node.get("format") == "binary" or "contentMediaType" in node):
            return ["File"]
        return [_SIMPLE.get(kind, "Any")]


def _refers(node: dict[str, Any]) -> bool:
    """Whether the schema is a reference and no more; a type beside it says what the reference says too."""
    return "$ref" in node and silent({key: each for key, each in node.items() if key not in ("$ref", "type")})


def _told(nodes: list[Any]) -> list[Any]:
    return [each for each in nodes if not silent(each)]


def _literals(values: list[Any]) -> Union:
    """The values as one Literal; None stands beside it, and numbers with a fraction have no literals."""
    plain = [value for value in values if isinstance(value, (str, int))]
    found = [f"Literal[{', '.join(map(_literal, plain))}]"] if plain else []
    if any(isinstance(value, float) for value in values):
        found.append("float")
    if any(isinstance(value, (list, dict)) for value in values):
        found.append("Any")
    return [*found, *(["None"] if None in values else [])]


def _literal(value: str | int) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _leads_to_itself(node: Any, name: str, named: Named) -> bool:
    """Whether the schema says that a value is what it is: such a name cannot be resolved."""
    return any("$ref" in each and name_of(each["$ref"]) == name for each in in_place(node, named))


def _merged(objects: list[dict[str, Key]]) -> dict[str, Key]:
    """The keys of a choice of objects, as if it were one; required is what all require."""
    merged: dict[str, Key] = {}
    for key in dict.fromkeys(key for each in objects for key in each):
        found = [each.get(key) for each in objects]
        types = dict.fromkeys(part for each in found if each for part in each.type.split(" | "))
        merged[key] = Key(" | ".join(types), all(each is not None and each.required for each in found))
    return merged

"""Schemas with fewer liberties: what they do not name is refused.

An object that is put together of several schemas may only be sealed as a whole: each part alone would refuse the
others' properties. So every named schema has up to two sealed forms: `whole`, sealed itself, and `part`, left open at
its own level, sealed below it. They lie beside the plain ones in one bundle.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from .normal import SCHEMAS, escaped, reference, steps

_IN_PLACE = ("allOf", "anyOf")
_BELOW = ("items", "additionalProperties", "unevaluatedItems", "contains")


class Named(Protocol):
    """Where the named schemas are kept."""

    def schema(self, name: str) -> dict[str, Any]: ...

    def references(self, name: str) -> list[str]: ...


@dataclass(frozen=True)
class Seal:
    """Where unknown keys are refused: at the top only, or at every depth but below the lenient top-level properties."""

    deep: bool
    lenient: frozenset[str] = frozenset()

    def below(self, key: str) -> Seal | None:
        """The seal of the top-level property `key`."""
        return Seal(deep=True) if self.deep and key not in self.lenient else None


def sealed(raw: Any, named: Named, seal: Seal) -> dict[str, Any]:
    """A schema for the validator: `raw` with all that it reaches, sealed."""
    bundle = _Bundle(named, seal.lenient)
    if seal.deep:
        root = bundle.part(raw, top=True) if declares(raw, named) else bundle.whole(raw)
    else:
        root = bundle.plain(raw)
    made: dict[str, Any] = {"allOf": [root], "components": bundle.finish()}
    if declares(raw, named):
        made["unevaluatedProperties"] = False
    return made


def name_of(target: str) -> str:
    """The name of the schema that a normalised reference leads to."""
    return steps(target)[2]


def referred(node: Any) -> set[str]:
    """The names of the schemas that a schema itself refers to."""
    found: set[str] = set()
    waiting = [node]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            target = reference(each)
            if target is not None and target.startswith(SCHEMAS):
                found.add(name_of(target))
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each
    return found


def closure(named: Named, names: set[str]) -> set[str]:
    """These names, and all that are reached from them."""
    reached: set[str] = set()
    waiting = set(names)
    while waiting:
        name = waiting.pop()
        reached.add(name)
        waiting.update(each for each in named.references(name) if each not in reached)
    return reached


def in_place(node: Any, named: Named) -> Iterator[dict[str, Any]]:
    """The schema and all that speak of the same value with it: those of `$ref`, `allOf` and `anyOf`."""
    seen: set[int] = set()
    waiting = [node]
    while waiting:
        each = waiting.pop(0)
        if not isinstance(each, dict) or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        target = reference(each)
        if target is not None:
            waiting.append(named.schema(name_of(target)))
        for key in _IN_PLACE:
            waiting += each.get(key, ())


def declares(node: Any, named: Named) -> bool:
    """Whether the schema names any property; one that names none describes a free map."""
    return any(each.get("properties") for each in in_place(node, named))


class _Bundle:
    """Collects the forms of named schemas that a sealed schema refers to."""

    def __init__(self, named: Named, lenient: frozenset[str]) -> None:
        self.named = named
        self.lenient = lenient
        self.made: dict[str, dict[str, Any]] = {"schemas": {}, "whole": {}, "part": {}, "top": {}}
        self.waiting: list[tuple[str, str]] = []

    def finish(self) -> dict[str, Any]:
        while self.waiting:
            form, name = self.waiting.pop()
            schema = self.named.schema(name)
            self.made[form][name] = self.whole(schema) if form == "whole" else self.part(schema, top=form == "top")
        return self.made

    def plain(self, node: Any) -> Any:
        for name in closure(self.named, referred(node)):
            self.made["schemas"][name] = self.named.schema(name)
        return node

    def whole(self, node: Any) -> Any:
        """The schema, sealed at its own level."""
        if not isinstance(node, dict):
            return node
        parts = [key for key in (*_IN_PLACE, "$ref") if key in node]
        if len(parts) == 1 and "properties" not in node and (parts != ["allOf"] or len(node["allOf"]) == 1):
            return self._inside(node, "whole", top=False)
        made = self._inside(node, "part", top=False)
        if not declares(node, self.named):
            return made
        # The simple keyword where it will do: it costs the validator less.
        return {"unevaluatedProperties" if parts else "additionalProperties": False, **made}

    def part(self, node: Any, *, top: bool = False) -> Any:
        """The schema, left open at its own level."""
        return self._inside(node, "part", top=top) if isinstance(node, dict) else node

    def _inside(self, node: dict[str, Any], form: str, *, top: bool) -> dict[str, Any]:
        made = dict(node)
        for key in _IN_PLACE:
            if key in node:
                made[key] = [self.part(each, top=top) if form == "part" else self.whole(each) for each in node[key]]
        if "$ref" in node:
            made["$ref"] = self._refer("top" if top else form, node["$ref"])
        for key in _BELOW:
            if key in node:
                made[key] = self.whole(node[key])
        for key in ("properties", "patternProperties"):
            if key in node:
                made[key] = {name: self._property(name, each, top=top) for name, each in node[key].items()}
        for key in ("not", "if", "then", "else", "dependentSchemas", "prefixItems"):
            if key in node:  # sealing what is negated would turn its meaning round; the others are too rare
                self.plain(node[key])
        return made

    def _property(self, name: str, node: Any, *, top: bool) -> Any:
        return self.plain(node) if top and name in self.lenient else self.whole(node)

    def _refer(self, form: str, target: str) -> str:
        name = name_of(target)
        if name not in self.made[form]:
            self.made[form][name] = {}
            self.waiting.append((form, name))
        return f"#/components/{form}/{escaped(name)}"

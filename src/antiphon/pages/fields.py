"""The fields of an object as a list: those of nested objects below them, those of named schemas by a link."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from antiphon.spec.flat import Flat, Flattener
from antiphon.spec.normal import reference
from antiphon.spec.sealing import Named

from .kinds import default, kind, limits
from .model import Block, Bullets, Entry, Line, Paragraph, Span, code, joined, text
from .prose import blocks

_DEPTH_MAX = 8


class Fields:
    """Writes the fields of schemas, linked to the pages of the named ones."""

    def __init__(self, named: Named, places: Mapping[str, str]) -> None:
        self.places = places
        self.flatten = Flattener(named)

    def of(self, raw: Any, *, depth: int = 0) -> tuple[Block, ...]:
        """All that may be in a value of the schema; nothing for what is no object."""
        flat = self.flatten(raw)
        required = set(flat.required)
        entries = tuple(
            self._entry(name, each, required=name in required, depth=depth) for name, each in flat.properties.items()
        )
        made: list[Block] = [Bullets(entries)] if entries else []
        for union in flat.unions:
            made += self._alternatives(flat, union, depth)
        return tuple(made)

    def about(self, raw: Any) -> tuple[Line, tuple[Block, ...]]:
        """A schema's kind and limits in one line, and what its description says."""
        facets = self.facets(raw)
        description = next((facet["description"] for facet in facets if facet.get("description")), "")
        given = default(facets)
        notes = [*limits(facets), (Span("default "), *given) if given else ()]
        return joined([kind(raw, self.places), *notes], ", "), blocks(description)

    def facets(self, raw: Any) -> tuple[dict[str, Any], ...]:
        """All that is said of a value, of a nullable one too."""
        flat = self.flatten(raw)
        found = flat.facets
        for union in flat.unions:
            leaves = [leaf for leaf in union if leaf.kinds != ("null",)]
            if len(leaves) == 1:
                found += leaves[0].facets
        return found

    def _entry(self, name: str, raw: Any, *, required: bool, depth: int) -> Entry:
        facets = self.facets(raw)
        notes = [
            text(words)
            for words, holds in (
                ("required", required),
                ("only in answers", _says(facets, "readOnly")),
                ("only in requests", _says(facets, "writeOnly")),
                ("deprecated", _says(facets, "deprecated")),
            )
            if holds
        ]
        what, told = self.about(raw)
        line: Line = (Span(name, "code"), Span(": "), *joined([what, *notes], ", "))
        if told and isinstance(told[0], Paragraph):
            line, told = (*line, Span(". "), *told[0].line), told[1:]
        return Entry(line, (*told, *self._inside(raw, depth + 1)))

    def _inside(self, raw: Any, depth: int) -> Iterator[Block]:
        """The fields of the objects that are described in place."""
        if depth > _DEPTH_MAX:
            return
        for each in _described_here(raw):
            yield from self.of(each, depth=depth)

    def _alternatives(self, flat: Flat, union: tuple[Flat, ...], depth: int) -> Iterator[Block]:
        if all(leaf.is_condition for leaf in union):
            sets = [joined([(code(name),) for name in leaf.required], " and ") for leaf in union]
            yield Paragraph((Span("Needs "), *joined(sets, ", or "), Span(".")))
            return
        leaves: dict[Line, Any] = {}
        for leaf in union:
            if leaf.properties:
                leaves.setdefault(kind(leaf.facets[0], self.places), leaf.facets[0])
        if not leaves:
            return
        yield Paragraph(text("And the fields of one of:" if flat.properties else "One of:"))
        entries = []
        for line, raw in leaves.items():
            inside = self.of(raw, depth=depth + 1) if reference(raw) is None and depth < _DEPTH_MAX else ()
            title = raw.get("title")
            entries.append(Entry((*line, Span(f", {title}")) if title else line, inside))
        yield Bullets(tuple(entries))


def _says(facets: tuple[dict[str, Any], ...], key: str) -> bool:
    return any(facet.get(key) is True for facet in facets)


def _described_here(raw: Any) -> Iterator[dict[str, Any]]:
    """The objects with fields inside a schema, in arrays, maps and alternatives too, that have no name of their own."""
    if not isinstance(raw, dict) or reference(raw) is not None:
        return
    if raw.get("properties"):
        yield raw
        return
    for key in ("items", "additionalProperties"):
        yield from _described_here(raw.get(key))
    for key in ("anyOf", "allOf"):
        for each in raw.get(key, ()):
            yield from _described_here(each)

"""A value that a schema allows: what an example shows where the document gives none."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from antiphon.spec import Schema
from antiphon.spec.flat import Flat, Flattener, fits

from .patterns import matching

_ITEMS_DEPTH_MAX = 5  # below it, arrays that may be empty are
_DEPTH_MAX = 12
_TRIES_MAX = 30

_FORMATS = {
    "date-time": "2026-01-31T12:00:00Z",
    "date": "2026-01-31",
    "time": "12:00:00Z",
    "duration": "PT1H",
    "email": "someone@example.com",
    "uuid": "123e4567-e89b-12d3-a456-426614174000",
    "uri": "https://example.com/",
    "url": "https://example.com/",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "byte": "aGVsbG8=",
}
_WORDS = ("a", "A", "1", "example")
_EASIEST = ("string", "integer", "number", "boolean", "array", "object", "null")


class NoSample(Exception):
    """No value could be found."""


def sample(schema: Schema, *, name: str = "value", known: bool = True) -> Any:
    """A small value that the schema allows. Raises NoSample if none is found.

    name: what the value is called; a free text will say it.
    known: only what the schema names may be in it.
    """
    judge = schema.closed() if known else schema
    for branch in range(_TRIES_MAX):
        maker = _Maker(Flattener(schema.named), branch)
        value = maker.value(schema.raw, name, 0)
        if judge.valid(value):
            return value
        if not maker.had_choice:
            break
    raise NoSample


class _Maker:
    """branch: of the first union with more than one alternative, the one to take; of the others, the easiest."""

    def __init__(self, flatten: Flattener, branch: int) -> None:
        self.flatten = flatten
        self.branch = branch
        self.had_choice = False

    def value(self, raw: Any, name: str, depth: int) -> Any:
        flat = self.flatten(raw)
        for union in flat.unions:
            if union:
                flat = flat.joined(self._chosen(union))
        if flat.words is not None:
            allowed = [facet["enum"] for facet in flat.facets if "enum" in facet]
            common = (word for word in flat.words if word is not None and all(word in words for words in allowed))
            return next(common, None)
        default = flat.get("default")
        if default is not None and not isinstance(default, (dict, list)) and fits(default, flat.kinds):
            return default
        kind = next((kind for kind in _EASIEST if kind in flat.kinds), "string")
        if len(flat.kinds) == 7:
            kind = "object" if flat.properties else "string"
        if kind == "object":
            return self._object(flat, depth)
        return self._array(flat, name, depth) if kind == "array" else _scalar(kind, flat, name)

    def _chosen(self, union: tuple[Flat, ...]) -> Flat:
        # Of fields that may stand for each other the document names those first that it means.
        easiest = list(union) if all(leaf.is_condition for leaf in union) else sorted(union, key=_difficulty)
        if len(union) > 1 and not self.had_choice:
            self.had_choice = True
            return easiest[self.branch % len(easiest)]
        return easiest[0]

    def _object(self, flat: Flat, depth: int) -> dict[str, Any]:
        if depth > _DEPTH_MAX:
            return {}
        wanted = flat.required or (tuple(flat.properties) if depth == 0 else ())
        needed = int(flat.get("minProperties") or 0)
        wanted += tuple(key for key in flat.properties if key not in wanted)[: max(0, needed - len(wanted))]
        made = {key: self.value(flat.properties.get(key, {}), key, depth + 1) for key in wanted}
        for number in range(len(made), needed):
            made[f"key{number}"] = self.value(flat.get("additionalProperties"), "value", depth + 1)
        return made

    def _array(self, flat: Flat, name: str, depth: int) -> list[Any]:
        most = flat.get("maxItems")
        count = max(int(flat.get("minItems") or 0), 1 if depth <= _ITEMS_DEPTH_MAX and most != 0 else 0)
        one = name[:-1] if name.endswith("s") else name
        items = [self.value(flat.get("items"), one, depth + 1) for _ in range(count)]
        if flat.get("uniqueItems") and count > 1:
            items = [f"{item}{number}" if isinstance(item, str) else item for number, item in enumerate(items)]
        return items


def _difficulty(flat: Flat) -> tuple[int, int]:
    if len(flat.kinds) == 7:
        return (_EASIEST.index("object"), len(flat.required))
    return (min((_EASIEST.index(kind) for kind in flat.kinds), default=9), len(flat.required))


def _scalar(kind: str, flat: Flat, name: str) -> Any:
    if kind == "string":
        return next((word for word in _words(flat, name) if _fits(word, flat)), name)
    if kind in ("integer", "number"):
        return _number(flat)
    return True if kind == "boolean" else None


def _words(flat: Flat, name: str) -> Iterator[str]:
    if flat.get("format") in _FORMATS:
        yield _FORMATS[flat.get("format")]
    yield from (name, *_WORDS)
    if flat.get("pattern") and (word := matching(flat.get("pattern"))) is not None:
        yield word
    size = int(flat.get("minLength") or 1)
    yield from (word * size for word in ("a", "A", "1"))
    yield "x" * int(flat.get("maxLength") or 0)


def _fits(word: str, flat: Flat) -> bool:
    longest = flat.get("maxLength")
    if len(word) < int(flat.get("minLength") or 0) or (longest is not None and len(word) > longest):
        return False
    try:
        return not flat.get("pattern") or bool(re.search(flat.get("pattern"), word))
    except re.error:  # a pattern of another language; the schema has the last word anyway
        return True


def _number(flat: Flat) -> float:
    low, above, high, below = (flat.get(f"{each}imum") for each in ("min", "exclusiveMin", "max", "exclusiveMax"))
    step = flat.get("multipleOf") or 1
    if low is not None:
        return max(low, 1) if high is None or high >= 1 else low  # type: ignore[no-any-return]
    if above is not None:
        return above + step if below is None or above + step < below else (above + below) / 2  # type: ignore[no-any-return]
    most = high if high is not None else below
    return min(step, most - (high is None)) if most is not None else step


def shown(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)

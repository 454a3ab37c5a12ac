"""What is wrong with a value that the validator refused, and where, in the API's words and order.

A validator says that none of thirty alternatives fits; this walk takes the one that was meant (by `type`, for
messages by `role`, else by the kind of value) and looks for the fault inside it. It gives no verdict: it is run
after a refusal, and when it finds nothing, the validator's own words are passed on.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from . import faults
from .faults import Problem
from .flat import Flat, Flattener, fits, kinds_name
from .sealing import Seal

if TYPE_CHECKING:
    from .validation import Schema

__all__ = ["Problem", "problems"]

PROBLEMS_MAX = 100

# An explanation takes at most about a second: alternatives inside alternatives without a `type` could take for ever.
STEPS_MAX = 100_000

# From here on the validator finds the faulty elements, which takes it a hundredth of the walk's time.
_LONG_ARRAY = 32

# The order in which the API looks at the fields of a create body. What is not here comes after these.
_FIELD_ORDER = (
    "model", "input", "previous_response_id", "conversation", "prompt", "moderation", "include", "tools",
    "metadata", "text", "temperature", "top_p", "presence_penalty", "frequency_penalty", "tool_choice",
    "parallel_tool_calls", "stream", "stream_options", "background", "max_output_tokens", "max_tool_calls",
    "reasoning", "user", "safety_identifier", "prompt_cache_options", "prompt_cache_key",
    "prompt_cache_retention", "truncation", "instructions", "store", "service_tier", "top_logprobs",
    "context_management",
)  # fmt: skip

# Keys of the older API that people still send: the key, and where its meaning went.
_MOVED = {"messages": "input"}

_ROLES = ("assistant", "system", "developer", "user")

# Of these unions the API names the object itself as wrong, not its `type`; the items it lists alphabetically.
_ITEMS = "InputItem"
_PARTS = frozenset(("InputContent", "AssistantContentParam", _ITEMS))


def problems(value: Any, schema: Schema, *, at: str = "") -> list[Problem]:
    """The faults of the value, the first one first; at least one for a value that the schema refuses."""
    if schema.valid(value):
        return []
    walk = _Walk(schema)
    found: list[Problem] = []
    try:
        found.extend(islice(walk.value(value, walk.flatten(schema.raw), at, schema.seal, top=True), PROBLEMS_MAX))
    # The validator is not asked then: to word its errors would take it far longer than to find that there are some.
    except RecursionError:
        return found or [faults.other(at, "it is not what the API describes, and nested too deeply to tell where")]
    except _TooMuch:
        return found or [faults.other(at, "it is not what the API describes, and too large to tell where")]
    return found or [_of_the_validator(value, schema, at)]


class _TooMuch(Exception):
    """The walk has come to its limit."""


class _Walk:
    """Yields the faults of a value, for one schema after the other on the way down.

    seal: where unknown keys are refused from here on; None: only where the schema itself says so.
    """

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.flatten = Flattener(schema.named)
        self.steps = 0

    def value(self, value: Any, flat: Flat, at: str, seal: Seal | None, *, top: bool = False) -> Iterator[Problem]:
        self.steps += 1
        if self.steps > STEPS_MAX:
            raise _TooMuch
        conditions = []
        for union in flat.unions:
            if all(leaf.is_condition for leaf in union):
                conditions.append(union)
                continue
            chosen = self._choose(value, flat, union, at, seal)
            if isinstance(chosen, Problem):
                yield chosen
                return
            if chosen is not None:
                flat = flat.joined(chosen)
        if value is None and "null" in flat.kinds:
            return
        if not fits(value, flat.kinds):
            yield faults.wrong_type(at, kinds_name([flat], value), value)
        elif isinstance(value, dict):
            yield from self._object(value, flat, at, seal, conditions, top=top)
        else:
            yield from self._simple(value, flat, at, seal)

    def _choose(
        self, value: Any, flat: Flat, union: Sequence[Flat], at: str, seal: Seal | None
    ) -> Flat | Problem | None:
        """The alternative that was meant; a problem if there is none; None if the value needs no alternative."""
        fitting = [leaf for leaf in union if fits(value, leaf.kinds)]
        if not fitting:
            return faults.wrong_type(at, kinds_name(union, value, flat.names), value)
        if value is None:
            return fitting[0]
        if isinstance(value, dict):
            typed = [leaf for leaf in fitting if leaf.tags("type")]
            if typed and len(fitting) > 1:
                return self._by_type(value, typed, flat.names, at)
        return self._by_fault(value, fitting, at, seal)

    def _by_type(self, value: dict[str, Any], leaves: list[Flat], names: frozenset[str], at: str) -> Flat | Problem:
        tag = value.get("type")
        if "type" not in value:
            untyped = [leaf for leaf in leaves if "type" not in leaf.required]
            if not untyped:
                return faults.missing(_path(at, "type"))
            return self._by_role(value, untyped, at)
        if not isinstance(tag, str):
            return faults.wrong_type(_path(at, "type"), "a string", tag)
        meant = [leaf for leaf in leaves if tag in leaf.tags("type")]
        if meant:
            return self._by_role(value, meant, at)
        supported = list(dict.fromkeys(each for leaf in leaves for each in leaf.tags("type")))
        if _ITEMS in names:
            supported.sort()
        return faults.wrong_value(at if names & _PARTS else _path(at, "type"), tag, supported)

    def _by_role(self, value: dict[str, Any], leaves: list[Flat], at: str) -> Flat | Problem:
        spoken = [leaf for leaf in leaves if leaf.tags("role")]
        if len(spoken) < 2:
            return leaves[0]
        role = value.get("role", "")
        meant = [leaf for leaf in spoken if role in leaf.tags("role")] if isinstance(role, str) else []
        if meant:
            return meant[0]
        if isinstance(role, str):
            return faults.wrong_value(at, role, _ROLES)
        return faults.wrong_type(_path(at, "role"), "a string", role)

    def _by_fault(self, value: Any, leaves: list[Flat], at: str, seal: Seal | None) -> Flat | Problem | None:
        if len(leaves) == 1:
            return leaves[0]
        if isinstance(value, str):
            return _by_words(value, leaves, at)
        found = [(leaf, list(islice(self.value(value, leaf, at, seal), PROBLEMS_MAX))) for leaf in leaves]
        return min(found, key=lambda each: len(each[1]))[0]

    def _simple(self, value: Any, flat: Flat, at: str, seal: Seal | None) -> Iterator[Problem]:
        words = flat.words
        if words is not None and value not in words:
            yield faults.wrong_value(at, value, [word for word in words if word is not None])
        elif isinstance(value, str):
            yield from _string(value, flat, at)
        elif isinstance(value, (list, tuple)):
            yield from _length(value, flat, at)
            yield from self._elements(value, flat.get("items"), at, seal if seal is not None and seal.deep else None)
        elif not isinstance(value, bool):
            yield from _number(value, flat, at)

    def _elements(self, value: Sequence[Any], items: Any, at: str, seal: Seal | None) -> Iterator[Problem]:
        if not isinstance(items, dict):
            return
        element = self.schema.part(items, seal) if len(value) >= _LONG_ARRAY else None
        for number, each in enumerate(value):
            if element is None or not element.valid(each):
                yield from self.value(each, self.flatten(items), f"{at}[{number}]", seal)

    def _object(
        self,
        value: dict[str, Any],
        flat: Flat,
        at: str,
        seal: Seal | None,
        conditions: list[tuple[Flat, ...]],
        *,
        top: bool,
    ) -> Iterator[Problem]:
        if not all(isinstance(key, str) for key in value):
            yield faults.other(at, "its keys must be strings")
            return
        yield from _size(value, flat, at)
        absent = list(_absent(value, flat, conditions))
        moved = {key: to for key, to in _MOVED.items() if key in value and key not in flat.properties and to in absent}
        for name in absent:
            old = next((key for key, to in moved.items() if to == name), None)
            yield faults.moved(old, name) if old else faults.missing(_path(at, name))
        if flat.is_closed or (seal is not None and flat.properties and not flat.is_map):
            for key in value:
                if key not in flat.properties and key not in moved:
                    yield faults.unknown(_path(at, key), _meant(key, flat.properties, value))
        for key in _ordered(value, flat, top=top):
            yield from self._property(value[key], flat, key, at, _below(seal, key, top=top))

    def _property(self, value: Any, flat: Flat, key: str, at: str, seal: Seal | None) -> Iterator[Problem]:
        raw = flat.properties.get(key, flat.get("additionalProperties"))
        if not isinstance(raw, dict):
            return
        schema = self.flatten(raw)
        if schema.kinds == ("null",) and value is not None:
            yield faults.unknown(_path(at, key))  # what may only be null is not a parameter here
        else:
            yield from self.value(value, schema, _path(at, key), seal)


def _below(seal: Seal | None, key: str, *, top: bool) -> Seal | None:
    if seal is None or not seal.deep:
        return None
    return seal.below(key) if top else seal


def _path(at: str, key: str) -> str:
    return f"{at}.{key}" if at else key


def _ordered(value: dict[str, Any], flat: Flat, *, top: bool) -> list[str]:
    """The keys of the value in the order in which the API looks at them."""
    names = dict.fromkeys((*_FIELD_ORDER, *flat.properties) if top else flat.properties)
    order = {key: number for number, key in enumerate(names)}
    return sorted(value, key=lambda key: order.get(key, len(order)))


def _absent(value: dict[str, Any], flat: Flat, conditions: list[tuple[Flat, ...]]) -> Iterator[str]:
    # The API asks for the type and the name of a thing before its other fields.
    for name in sorted(flat.required, key=lambda name: (name != "type", name != "name")):
        if name not in value:
            yield name
    for union in conditions:
        if not any(value.keys() >= set(leaf.required) for leaf in union):
            yield from (name for name in union[0].required if name not in value)


def _by_words(value: str, leaves: list[Flat], at: str) -> Flat | Problem:
    """Of several kinds of text the one that allows this one; a problem if all are lists without it."""
    for leaf in leaves:
        if leaf.words is None or value in leaf.words:
            return leaf
    return faults.wrong_value(at, value, dict.fromkeys(word for leaf in leaves for word in leaf.words or ()))


def _string(value: str, flat: Flat, at: str) -> Iterator[Problem]:
    longest, shortest, pattern = flat.get("maxLength"), flat.get("minLength"), flat.get("pattern")
    if longest is not None and len(value) > longest:
        yield faults.long_string(at, len(value), longest)
    if shortest is not None and len(value) < shortest:
        yield faults.short_string(at, len(value), shortest)
    elif pattern is not None and not _matches(pattern, value):
        yield faults.pattern(at, pattern)


def _matches(pattern: str, value: str) -> bool:
    import jsonschema_rs  # the validator's own notion of a pattern, not Python's

    return jsonschema_rs.is_valid({"pattern": pattern}, value)


_BOUNDS: tuple[tuple[str, str, Callable[[float, float], bool]], ...] = (
    ("minimum", ">=", operator.ge),
    ("exclusiveMinimum", ">", operator.gt),
    ("maximum", "<=", operator.le),
    ("exclusiveMaximum", "<", operator.lt),
)


def _number(value: float, flat: Flat, at: str) -> Iterator[Problem]:
    decimal = "number" in flat.kinds
    for key, sign, holds in _BOUNDS:
        limit = flat.get(key)
        if limit is not None and not holds(value, limit):
            yield faults.out_of_range(at, value, sign, limit, decimal=decimal)


def _length(value: Sequence[Any], flat: Flat, at: str) -> Iterator[Problem]:
    longest, shortest = flat.get("maxItems"), flat.get("minItems")
    if longest is not None and len(value) > longest:
        yield faults.long_array(at, len(value), longest)
    if shortest is not None and len(value) < shortest:
        yield faults.short_array(at, len(value), shortest)


def _size(value: dict[str, Any], flat: Flat, at: str) -> Iterator[Problem]:
    most, names = flat.get("maxProperties"), flat.get("propertyNames")
    if most is not None and len(value) > most:
        yield faults.many_properties(at, len(value), most)
    longest = names.get("maxLength") if isinstance(names, dict) else None
    for key in value:
        if longest is not None and len(key) > longest:
            yield faults.long_name(at, key, longest)


def _meant(key: str, known: Any, value: dict[str, Any]) -> list[str]:
    return [each for each in known if each not in value and _is_near(key, each)]


def _is_near(one: str, other: str) -> bool:
    """Whether at most two letters must be inserted, deleted or changed to make one of the other."""
    if abs(len(one) - len(other)) > 2:
        return False
    row = list(range(len(other) + 1))
    for number, letter in enumerate(one, 1):
        row, above = [number], row
        for place, each in enumerate(other):
            row.append(min(above[place] + (letter != each), above[place + 1] + 1, row[place] + 1))
    return row[-1] <= 2


def _of_the_validator(value: Any, schema: Schema, at: str) -> Problem:
    """The fault that the validator found deepest inside the value."""
    try:
        waiting = list(islice(schema.errors(value), PROBLEMS_MAX))
        deepest = waiting[0]
    except (ValueError, IndexError):  # its words end at 255 levels, where its verdict goes on
        return faults.other(at, "it is not what the API describes")
    while waiting:
        error = waiting.pop()
        if len(error.instance_path) > len(deepest.instance_path):
            deepest = error
        waiting += [each for branch in getattr(error.kind, "context", ()) for each in branch]
    for step in deepest.instance_path:
        at = f"{at}[{step}]" if isinstance(step, int) else _path(at, step)
    return faults.other(at, deepest.message.rstrip("."))

"""A text that a regular expression matches: its shortest repetitions, its first alternatives."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable
from typing import Any

_parser: Any = importlib.import_module("re._parser")  # nothing public gives the parts of an expression

_REPEATED_MAX = 1000
_ANY = "a1-A _.~"  # one of these is in nearly every class of characters that is described by what is not in it
_CATEGORIES = {"CATEGORY_DIGIT": "1", "CATEGORY_WORD": "a", "CATEGORY_SPACE": " ", "CATEGORY_NOT_SPACE": "a"}


def matching(pattern: str) -> str | None:
    """None if none is found, or the expression is one of another language."""
    try:
        made = _all(_parser.parse(pattern))
        return made if re.search(pattern, made) else None
    except (re.error, RecursionError, OverflowError):
        return None


def _all(parts: Iterable[tuple[Any, Any]]) -> str:
    return "".join(_one(str(kind), value) for kind, value in parts)


def _one(kind: str, value: Any) -> str:
    if kind == "LITERAL":
        return chr(value)
    if kind == "NOT_LITERAL":
        return _other_than({chr(value)})
    if kind == "IN":
        return _of_class(value)
    if kind in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        least: int = value[0]
        return _all(value[2]) * min(least, _REPEATED_MAX)
    if kind == "SUBPATTERN":
        return _all(value[3])
    if kind == "BRANCH":
        return _all(value[1][0])
    if kind == "ANY":
        return "a"
    return ""  # what takes no room, such as the ends; whether it holds is tried at last


def _of_class(members: list[tuple[Any, Any]]) -> str:
    if str(members[0][0]) == "NEGATE":
        return _other_than({_member(each) for each in members[1:]})
    return _member(members[0])


def _other_than(refused: set[str]) -> str:
    return next((each for each in _ANY if each not in refused), "a")


def _member(member: tuple[Any, Any]) -> str:
    kind, value = str(member[0]), member[1]
    if kind == "RANGE":
        return chr(value[0])
    return _CATEGORIES.get(str(value), "a") if kind == "CATEGORY" else chr(value)

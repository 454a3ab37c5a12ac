"""What can be wrong with a request, in the words, codes and params of the API.

One function per kind of fault; each makes the `Problem` that tells it. Source: the wire reference, "Known answers".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .names import listed

# Long enough for every value that was meant; what a caller sends may have any length.
_SHOWN_CHARACTERS_MAX = 100


@dataclass(frozen=True)
class Problem:
    """One fault of a value: what the API says about it, the API's code for it, and the path to it."""

    message: str
    code: str | None
    param: str | None


def missing(param: str) -> Problem:
    return Problem(f"Missing required parameter: '{param}'.", "missing_required_parameter", param)


def wrong_type(param: str, expected: str, value: Any) -> Problem:
    what = f"Invalid type for '{param}'" if param else "Invalid type for the request body"
    return Problem(f"{what}: expected {expected}, but got {kind_name(value)} instead.", "invalid_type", param or None)


def wrong_value(param: str, value: Any, supported: Iterable[Any]) -> Problem:
    names = listed((str(each) for each in supported), word="and")
    return Problem(f"Invalid value: '{_shown(value)}'. Supported values are: {names}.", "invalid_value", param or None)


def unknown(param: str, meant: Sequence[str] = ()) -> Problem:
    hint = f" Did you mean {listed(meant, word='or')}?" if meant else ""
    return Problem(f"Unknown parameter: '{_shown(param)}'.{hint}", "unknown_parameter", _shown(param))


def moved(param: str, to: str) -> Problem:
    message = f"Unsupported parameter: '{param}'. In the Responses API, this parameter has moved to '{to}'."
    return Problem(message, "unsupported_parameter", None)


def out_of_range(param: str, value: float, sign: str, limit: float, *, decimal: bool) -> Problem:
    """sign: how the value should have compared with the limit, like `>=`."""
    kind = "decimal" if decimal else "integer"
    side, code = ("below minimum", "below_min") if sign.startswith(">") else ("above maximum", "above_max")
    return Problem(
        f"Invalid '{param}': {kind} {side} value. Expected a value {sign} {limit}, but got {value} instead.",
        f"{kind}_{code}_value",
        param,
    )


def long_string(param: str, length: int, limit: int) -> Problem:
    return Problem(
        f"Invalid '{param}': string too long. Expected a string with maximum length {limit}, "
        f"but got a string with length {length} instead.",
        "string_above_max_length",
        param,
    )


def short_string(param: str, length: int, limit: int) -> Problem:
    if length == 0:
        what, got, code = "empty string", "an empty string", "empty_string"
    else:
        what, got, code = "string too short", f"a string with length {length}", "string_below_min_length"
    message = f"Invalid '{param}': {what}. Expected a string with minimum length {limit}, but got {got} instead."
    return Problem(message, code, param)


def pattern(param: str, expected: str) -> Problem:
    message = (
        f"Invalid '{param}': string does not match pattern. Expected a string that matches the pattern '{expected}'."
    )
    return Problem(message, "invalid_value", param)


def long_array(param: str, length: int, limit: int) -> Problem:
    return Problem(
        f"Invalid '{param}': array too long. Expected an array with maximum length {limit}, "
        f"but got an array with length {length} instead.",
        "array_above_max_length",
        param,
    )


def short_array(param: str, length: int, limit: int) -> Problem:
    if length == 0:
        what, got, code = "empty array", "an empty array", "empty_array"
    else:
        what, got, code = "array too short", f"an array with length {length}", "array_below_min_length"
    message = f"Invalid '{param}': {what}. Expected an array with minimum length {limit}, but got {got} instead."
    return Problem(message, code, param)


def many_properties(param: str, count: int, limit: int) -> Problem:
    return Problem(
        f"Invalid '{param}': too many properties. Expected an object with at most {limit} properties, "
        f"but got an object with {count} properties instead.",
        "object_above_max_properties",
        param or None,
    )


def long_name(param: str, name: str, limit: int) -> Problem:
    short = f"{name[:3]}...{name[-3:]}"
    return Problem(
        f"Invalid property name in '{param}': '{short}' is too long. Expected a string with maximum length {limit}, "
        f"but got a string with length {len(name)} instead.",
        "property_name_above_max_length",
        f"{param}.{_shown(name)}",
    )


def other(param: str, reason: str) -> Problem:
    """A fault that the walk did not understand, in the validator's words."""
    what = f"Invalid '{param}'" if param else "Invalid request body"
    return Problem(f"{what}: {_shown(reason, 300)}.", "invalid_value", param or None)


def kind_name(value: Any) -> str:
    """The kind of a JSON value as the API names it; null is called an object."""
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, int):
        return "an integer"
    if isinstance(value, float):
        return "a decimal"
    return "an array" if isinstance(value, (list, tuple)) else "an object"


def _shown(value: Any, limit: int = _SHOWN_CHARACTERS_MAX) -> str:
    text = str(value).encode("utf-8", "replace").decode()  # without the half characters that JSON can smuggle in
    return text if len(text) <= limit else text[:limit] + "..."

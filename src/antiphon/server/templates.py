"""Prompt templates, without I/O: create fields with `{{name}}` in their texts, and what becomes of them.

A value is a text, which may stand anywhere in a text, or a part (input_text, input_image, input_file), which may stand
only where a placeholder is the whole of a text part.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from antiphon.errors import BadRequest

Value = str | Mapping[str, Any]

_PLACEHOLDER = re.compile(r"\{\{\s*([A-Za-z_][\w.-]*)\s*\}\}")


def names_in(value: Any) -> set[str]:
    """The names of the placeholders in all texts of a JSON value."""
    return {match[1] for text in _texts(value) for match in _PLACEHOLDER.finditer(text)}


def variables_of(template: Mapping[str, Any]) -> list[str]:
    """The names that a template knows: those that it declares, then those that only its texts have."""
    declared = list(template.get("variables") or ())
    return declared + sorted(names_in(_fields(template)) - set(declared))


def rendered(template: Mapping[str, Any], variables: Mapping[str, Value] | None) -> dict[str, Any]:
    """The create fields that a template stands for with these values. Raises BadRequest if they do not fit."""
    fields = _fields(template)
    given = dict(variables or {})
    for name in sorted(names_in(fields) - set(given)):
        raise _refused(f"Missing prompt variable: '{name}'.", "missing_required_parameter")
    known = variables_of(template)
    for name in given:
        if name not in known:
            names = ", ".join(f"'{each}'" for each in known) or "none"
            raise _refused(f"Unknown prompt variable: '{name}'. The prompt's variables are: {names}.", "invalid_value")
    filled = {name: _filled(value, given) for name, value in fields.items() if name != "input"}
    if "input" in fields:
        filled["input"] = _filled_input(fields["input"], given)
    return filled


def _fields(template: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in template.items() if name != "variables"}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


def _filled_input(input: Any, given: Mapping[str, Value]) -> Any:
    """A text is a message of the user, so a part may stand for the whole of it."""
    part = _part(input, given)
    return _filled(input, given) if part is None else [{"role": "user", "content": [part]}]


def _filled(value: Any, given: Mapping[str, Value]) -> Any:
    if isinstance(value, str):
        return _PLACEHOLDER.sub(lambda match: _text(match[1], given[match[1]]), value)
    if isinstance(value, list):
        return [_filled(each, given) for each in value]
    if not isinstance(value, Mapping):
        return value
    if value.get("type") == "input_text" and (part := _part(value.get("text"), given)) is not None:
        return part
    filled = {}
    for name, each in value.items():
        part = _part(each, given) if name == "content" else None
        filled[name] = _filled(each, given) if part is None else [part]
    return filled


def _part(text: Any, given: Mapping[str, Value]) -> dict[str, Any] | None:
    """The part that stands for the whole of a text, if one does."""
    whole = _PLACEHOLDER.fullmatch(text) if isinstance(text, str) else None
    value = given[whole[1]] if whole else None
    return dict(value) if isinstance(value, Mapping) else None


def _text(name: str, value: Value) -> str:
    if isinstance(value, str):
        return value
    place = f"{{{{{name}}}}}"
    message = f"Invalid prompt variable '{name}': {value['type']} can only stand where a whole text part is '{place}'."
    raise _refused(message, "invalid_value")


def _refused(message: str, code: str) -> BadRequest:
    return BadRequest(message, code=code, param="prompt.variables")

"""Overlays: the differences between a published document and the one we mean, as data, each with its reason.

The format is OpenAPI Overlay 1.0. Of JSONPath there is what such files need: names, numbers, `[*]`, several names at
once, and entries by value: `[?@ == 'a']`, `[?@['$ref'] == 'b']`, or any of several, `[?@ in ['a', 'b']]`. All that a
target names must be there, so that an action that has become superfluous is noticed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ..errors import DocumentError

_TEXT = r"'[^']*'"
_TEXTS = rf"{_TEXT}(?:\s*,\s*{_TEXT})*"
_STEP = re.compile(
    rf"""\.(?P<name>[A-Za-z_][\w-]*)
      | \[(?P<all>\*)\]
      | \[(?P<index>\d+)\]
      | \[\s*(?P<names>{_TEXTS})\s*\]
      | \[\?\s*@(?:\['(?P<key>[^']*)'\])?\s*(?:==\s*(?P<value>{_TEXT})|in\s*\[\s*(?P<values>{_TEXTS})\s*\])\s*\]
    """,
    re.VERBOSE,
)


@dataclass(frozen=True)
class Action:
    """One change: what `target` matches is removed, or merged with `update`."""

    target: str
    description: str
    update: Any = None
    remove: bool = False


def parse(text: bytes) -> list[Action]:
    """The actions of an overlay file, in their order."""
    from .source import parse_yaml

    overlay = parse_yaml(text)
    if not isinstance(overlay, dict) or not str(overlay.get("overlay", "")).startswith("1."):
        raise DocumentError("This is not an OpenAPI overlay of version 1.")
    try:
        actions = [Action(**{"description": "", **each}) for each in overlay.get("actions", [])]
    except TypeError as error:
        raise DocumentError(f"The overlay's actions cannot be read: {error}.") from error
    for action in actions:
        if not isinstance(action.target, str):
            raise DocumentError(f"The overlay's target {action.target!r} is no text.")
        if action.remove == (action.update is not None):
            raise DocumentError(f"The overlay's action on {action.target} must either update or remove.")
    return actions


def apply(document: dict[str, Any], actions: list[Action]) -> dict[str, Any]:
    """The document, changed action by action; the one that was given is used up."""
    root = {"$": document}
    for action in actions:
        places = _places(root, action.target)
        if not places:
            raise DocumentError(f"The overlay's target {action.target} matches nothing.")
        if action.target == "$" and not (isinstance(action.update, dict) and isinstance(root["$"], dict)):
            raise DocumentError("The overlay cannot remove the document, or put something else in its place.")
        if action.remove:
            _remove(places)
        else:
            for parent, key in places:
                parent[key] = merged(parent[key], action.update)
    return root["$"]


def merged(value: Any, update: Any) -> Any:
    """The value with the update merged in: objects by key, to the end of a list, anything else replaced."""
    if isinstance(value, dict) and isinstance(update, dict):
        return value | {key: merged(value[key], each) if key in value else each for key, each in update.items()}
    if isinstance(value, list):
        return [*value, *(update if isinstance(update, list) else [update])]
    return update


def _remove(places: list[tuple[Any, Any]]) -> None:
    # From the back: the places in a list keep their numbers while later ones go.
    for parent, key in reversed(places):
        del parent[key]


def _places(root: dict[str, Any], target: str) -> list[tuple[Any, Any]]:
    """Each match as (container, key)."""
    if not target.startswith("$"):
        raise DocumentError(f"The overlay's target {target} does not begin with $.")
    places: list[tuple[Any, Any]] = [(root, "$")]
    position = 1
    while position < len(target):
        step = _STEP.match(target, position)
        if step is None:
            raise DocumentError(f"The overlay's target {target} cannot be read from {target[position:]!r} on.")
        places = [place for parent, key in places for place in _matches(parent[key], step)]
        position = step.end()
    return places


def _matches(node: Any, step: re.Match[str]) -> list[tuple[Any, Any]]:
    pairs = list(node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ())
    if step["all"]:
        keys = [key for key, _ in pairs]
    elif step["index"]:
        keys = [key for key, _ in pairs if key == int(step["index"])]
    elif step["name"] or step["names"]:
        keys = _present(node, [step["name"]] if step["name"] else _texts(step["names"]))
    else:
        wanted = _texts(step["value"] or step["values"])
        keys = [key for key, value in pairs if _compared(value, step["key"]) in wanted]
        missing = [each for each in wanted if each not in [_compared(value, step["key"]) for _, value in pairs]]
        if missing:
            raise DocumentError(f"The overlay's target finds nothing equal to {', '.join(missing)}.")
    return [(node, key) for key in keys]


def _present(node: Any, names: list[str]) -> list[str]:
    missing = [name for name in names if not isinstance(node, dict) or name not in node]
    if missing:
        raise DocumentError(f"The overlay's target finds nothing at {', '.join(missing)}.")
    return names


def _compared(value: Any, key: str | None) -> Any:
    if key is None:
        return value
    return value.get(key) if isinstance(value, dict) else None


def _texts(listed: str) -> list[str]:
    return re.findall(r"'([^']*)'", listed)

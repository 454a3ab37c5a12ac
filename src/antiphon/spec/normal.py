"""The schemas of any OpenAPI 3 document, made into plain JSON Schema 2020-12.

`oneOf` becomes `anyOf`, since the official document's own messages match two branches; `nullable` and the boolean
`exclusiveMinimum` of OpenAPI 3.0 get their present form; references, wherever they lead in the document, lead to a
named schema. What says nothing about validity or meaning (examples, extensions) is left out.
"""

from __future__ import annotations

import warnings
from typing import Any

from ..errors import DocumentError
from .shapes import misshapen

SCHEMAS = "#/components/schemas/"
SCHEMA_NODES_MAX = 2_000_000  # YAML aliases can unfold a small file into a huge tree

# Where a schema holds others: one, a list of them, or a map. What is not here is taken as it is.
_ONE = frozenset(("items", "additionalItems", "unevaluatedItems", "contains", "additionalProperties"))
_ONE |= {"unevaluatedProperties", "propertyNames", "not", "if", "then", "else"}
_MAP = frozenset(("properties", "patternProperties", "dependentSchemas"))
_LEFT_OUT = frozenset(
    ("nullable", "example", "examples", "xml", "externalDocs", "$id", "$schema", "$anchor", "$comment")
)
_LEFT_OUT |= {"$recursiveAnchor", "$defs", "definitions"}  # what a reference needs of the last two gets a name


def escaped(name: str) -> str:
    """The name as the last step of a JSON pointer in a URL."""
    if name.isidentifier():
        return name
    from urllib.parse import quote  # costs 3 ms to import, and nearly every name is an identifier

    return quote(name.replace("~", "~0").replace("/", "~1"), safe="~!$&'()*+,;=:@-._")


def steps(pointer: str) -> list[str]:
    """The steps of a `#/a/b` reference."""
    if "%" in pointer:
        from urllib.parse import unquote

        pointer = unquote(pointer)
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer[2:].split("/")]


def reference(node: Any) -> str | None:
    """Where a node refers to. A property that is named `$ref` holds a schema and is none."""
    target = node.get("$ref") if isinstance(node, dict) else None
    return target if isinstance(target, str) else None


class Schemas:
    """The named schemas of a document in normal form, and those that other references have made necessary."""

    def __init__(self, document: dict[str, Any], *, silent: bool) -> None:
        self.document = document
        self.silent = silent
        self.old = str(document.get("openapi", "")).startswith("3.0")
        self.done: dict[str, Any] = {}
        self.references: dict[str, list[str]] = {}
        self._nodes = 0
        self._found: dict[str, None] = {}
        self._name = ""
        self._waiting: dict[str, Any] = dict((document.get("components") or {}).get("schemas") or {})

    def finish(self) -> None:
        """Normalise all that is named, and what these refer to, until nothing new is found."""
        while self._waiting:
            name, schema = self._waiting.popitem()
            self.done[name] = {}  # known from now on: a schema may refer to itself
            self._found, self._name = {}, name
            self.done[name] = self.normal(schema)
            self.references[name] = sorted(self._found)

    def normal(self, schema: Any) -> Any:
        if not isinstance(schema, dict):
            return schema is not False  # anything that is no schema says nothing
        self._nodes += 1
        if self._nodes > SCHEMA_NODES_MAX:
            raise DocumentError(f"The API description unfolds to more than {SCHEMA_NODES_MAX} schemas.")
        made: dict[str, Any] = {}
        for key, value in schema.items():
            if key not in _LEFT_OUT and not key.startswith("x-"):
                self._keyword(made, key, value)
        for key, reason in misshapen(made):
            self._mended(f"`{key}` is left out: {reason}")
            del made[key]
        required = made.get("required")
        if isinstance(required, list) and len(set(required)) < len(required):
            self._mended("a name that `required` has twice counts once")
            made["required"] = list(dict.fromkeys(required))
        self._mend_exclusive(made, "exclusiveMinimum", "minimum")
        self._mend_exclusive(made, "exclusiveMaximum", "maximum")
        return _nullable(made) if schema.get("nullable") is True else made

    def _keyword(self, made: dict[str, Any], key: str, value: Any) -> None:
        if key in ("oneOf", "anyOf") and isinstance(value, list):
            union = [self.normal(each) for each in value]
            if "anyOf" in made:  # a schema may have both
                made["allOf"] = [*made.get("allOf", []), {"anyOf": union}]
            else:
                made["anyOf"] = union
        elif key == "allOf" and isinstance(value, list):
            made["allOf"] = [*made.get("allOf", []), *(self.normal(each) for each in value)]
        elif key in ("$ref", "$recursiveRef"):
            made["$ref"] = self._refer(value)
        elif key in _ONE and isinstance(value, dict):
            made[key] = self.normal(value)
        elif key == "prefixItems" and isinstance(value, list):
            made[key] = [self.normal(each) for each in value]
        elif key in _MAP and isinstance(value, dict):
            made[key] = {str(name): self.normal(each) for name, each in value.items()}
        else:
            made[key] = value

    def _refer(self, target: str) -> str:
        """The reference to a named schema that stands for `target`, which may be any place in the document."""
        if target == "#":
            name = self._name
        elif target.startswith(SCHEMAS) and target.count("/") == 3:
            name = steps(target)[2]
        else:
            name = target[2:]
        if target != "#":
            inside(target)
        if name not in self.done and name not in self._waiting:
            self._waiting[name] = at(self.document, target)
        self._found[name] = None
        return SCHEMAS + escaped(name)

    def _mend_exclusive(self, made: dict[str, Any], exclusive: str, inclusive: str) -> None:
        flag = made.get(exclusive)
        if not isinstance(flag, bool):
            return
        if not self.old:
            self._mended(f"`{exclusive}: {str(flag).lower()}` is taken as in OpenAPI 3.0")
        del made[exclusive]
        if flag and inclusive in made:
            made[exclusive] = made.pop(inclusive)

    def _mended(self, how: str) -> None:
        self.warn(f"In the schema {self._name or 'of an operation'} {how}.")

    def warn(self, what: str) -> None:
        if not self.silent:
            warnings.warn(what, stacklevel=2)


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    kind = schema.get("type")
    if isinstance(kind, str) and not schema.keys() & {"enum", "const", "anyOf", "allOf", "$ref"}:
        return {**schema, "type": [kind, "null"]}
    spoken: dict[str, Any] = {
        key: schema.pop(key) for key in ("title", "description", "default", "deprecated") if key in schema
    }
    return {**spoken, "anyOf": [schema, {"type": "null"}]}


def inside(target: str) -> None:
    """Refuse a reference to another file, to another site, or to an anchor."""
    if not target.startswith("#/"):
        raise DocumentError(
            f"The reference {target!r} leads out of the API description; it is not followed. "
            "A bundler makes one document of several."
        )


def at(document: dict[str, Any], target: str) -> Any:
    """What a `#/...` reference leads to, other references followed on the way."""
    inside(target)
    node: Any = document
    for step in steps(target):
        for _ in range(100):
            further = reference(node)
            if further is None or (isinstance(node, dict) and step in node):
                break
            node = at(document, further)
        try:
            node = node[int(step)] if isinstance(node, list) else node[step]
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise DocumentError(f"The reference {target!r} leads to nothing.") from error
    return node

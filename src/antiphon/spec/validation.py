"""The verdict: is this value what the schema describes? Given by jsonschema-rs, in microseconds.

A schema is compiled from the named schemas that it reaches, on first use. `closed` and `strict` give the same schema
with fewer liberties; what is wrong with a refused value is told by `explain`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ..errors import DocumentError
from .normal import SCHEMAS
from .sealing import Named, Seal, closure, referred, sealed

if TYPE_CHECKING:
    from .explain import Problem


class Schema:
    """A schema of a document. Cheap to hold: it is compiled when first used."""

    __slots__ = ("_forms", "_parts", "_validator", "named", "raw", "seal")

    def __init__(self, raw: Any, named: Named, seal: Seal | None = None) -> None:
        self.raw = raw
        self.named = named  # where the schemas are that it refers to
        self.seal = seal
        self._validator: Any = None
        self._forms: dict[Seal, Schema] = {}
        self._parts: dict[tuple[int, Seal | None], Schema] = {}

    def __repr__(self) -> str:
        name = self.raw.get("$ref", self.raw.get("title", "")) if isinstance(self.raw, dict) else self.raw
        return f"<Schema {str(name).removeprefix(SCHEMAS)}>"

    def valid(self, value: Any) -> bool:
        validator = self._validator or self._compile()
        try:
            return validator.is_valid(value)  # type: ignore[no-any-return]
        except ValueError:  # it is no JSON: bytes, keys that are numbers, half of a surrogate pair as a key
            return False

    def closed(self) -> Schema:
        """The same, but keys that the schema does not name are refused at the top; further down nothing changes."""
        return self._form(Seal(deep=False))

    def strict(self, lenient: Iterable[str] = ()) -> Schema:
        """The same, but keys that the schemas do not name are refused everywhere.

        lenient: top-level properties below which nothing changes.
        """
        return self._form(Seal(deep=True, lenient=frozenset(lenient)))

    def problems(self, value: Any, *, at: str = "") -> list[Problem]:
        """What is wrong with the value, in the API's words and order; nothing if it is valid.

        at: the path of the value itself, for messages about a part of a whole.
        """
        if self.valid(value):
            return []
        from .explain import problems  # only a refusal needs it

        return problems(value, self, at=at)

    def errors(self, value: Any) -> Iterator[Any]:
        """The validator's own errors, deep in its words; values of the caller are not repeated in them."""
        validator = self._validator or self._compile()
        return iter(validator.iter_errors(value))

    def part(self, raw: Any, seal: Seal | None) -> Schema:
        """A schema from inside this one, compiled once as long as this one lives."""
        part = self._parts.get((id(raw), seal))
        if part is None or part.raw is not raw:
            part = self._parts[id(raw), seal] = Schema(raw, self.named, seal)
        return part

    def _form(self, seal: Seal) -> Schema:
        form = self._forms.get(seal)
        if form is None:
            form = self._forms[seal] = Schema(self.raw, self.named, seal)
        return form

    def _compile(self) -> Any:
        import jsonschema_rs  # not needed to look an operation up

        if self.seal is None:
            schemas = {name: self.named.schema(name) for name in closure(self.named, referred(self.raw))}
            bundle: dict[str, Any] = {"allOf": [self.raw], "components": {"schemas": schemas}}
        else:
            bundle = sealed(self.raw, self.named, self.seal)
        try:
            self._validator = jsonschema_rs.Draft202012Validator(bundle, offline=True, mask="the value")
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
            reason = str(getattr(error, "message", error)).split("\n", 1)[0]
            raise DocumentError(f"{self!r} of the API description is not a usable schema: {reason}") from error
        return self._validator

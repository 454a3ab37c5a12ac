"""Operations as methods: the ways to call each, and what comes back.

A call has its parameters and the fields of its body as keywords, or gives the body whole. One that may stream is
overloaded by the keyword that says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from antiphon.spec import Operation
from antiphon.stubs.expressions import Key, Types
from antiphon.stubs.names import argument, joined

JSON = "application/json"
EVENTS = "text/event-stream"
FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")

# The keywords that say whether to stream, with the types that mean no, and yes.
SWITCHES: Mapping[str, tuple[str, str]] = {
    "stream": ("Literal[False] | None", "Literal[True]"),
    "stream_format": ('Literal["audio"] | None', 'Literal["sse"]'),
}


@dataclass(frozen=True)
class Keyword:
    type: str
    default: str = ""  # none: it must be given


@dataclass(frozen=True)
class Events:
    """A stream: the type of its events, and of the value that they add up to."""

    event: str
    outcome: str


@dataclass(frozen=True)
class Listed:
    """A page of a list: the type of its items."""

    item: str


Result = str | Events | Listed


@dataclass(frozen=True)
class Way:
    """One way to call a method. others: there are keywords that Python cannot spell."""

    keywords: Mapping[str, Keyword]
    result: Result
    others: bool = False


@dataclass(frozen=True)
class Method:
    name: str
    summary: str
    ways: tuple[Way, ...]


def method(operation: Operation, types: Types, *, items: str | None) -> Method:
    """items: the key that holds the items, if the operation gives a list page by page."""
    summary = operation.summary or operation.description
    line = " ".join(summary.partition("\n\n")[0].split())
    note = " Deprecated." if operation.deprecated else ""
    return Method(operation.name, line + note, tuple(_Calls(operation, types, items).ways()))


class _Calls:
    """Finds the ways to call an operation."""

    def __init__(self, operation: Operation, types: Types, items: str | None) -> None:
        self._operation = operation
        self._types = types
        self._items = items
        self._hint = joined(operation.name)
        self._others = False
        self._parameters = self._of_parameters()
        self._forms = self._of_forms()
        self._body = self._of_body()
        self._fields = self._of_fields()

    def ways(self) -> Iterator[Way]:
        operation = self._operation
        answer, events = _answer(operation, self._types, self._hint)
        plain = answer if self._items is None else Listed(_item(answer, self._items, self._types))
        flat = self._parameters | self._fields
        switch = next((name for name in SWITCHES if name in flat), None)
        if events is not None and switch is not None:
            yield from self._streaming(switch, flat, plain, events)
        elif not self._fields or not any(each.default == "" for each in self._fields.values()):
            body = {} if self._body is None else {"body": self._body}
            yield self._way(flat | body, plain)
        else:
            yield self._way(flat, plain)
            yield self._with_body(plain)

    def _streaming(self, switch: str, flat: Mapping[str, Keyword], plain: Result, events: Events) -> Iterator[Way]:
        no, yes = SWITCHES[switch]
        yield self._way({**flat, switch: Keyword(no, "...")}, plain)
        yield self._way({**flat, switch: Keyword(yes)}, events)
        # Whether it streams is known when it runs: by a variable, or by what stands in the body.
        if switch == "stream":
            yield self._way({**flat, switch: Keyword("bool | None")}, "Any")
        if self._body is not None:
            yield self._with_body("Any")

    def _with_body(self, result: Result) -> Way:
        assert self._body is not None, "fields are those of a body"
        optional = {name: replace(each, default="...") for name, each in self._fields.items()}
        return self._way({**self._parameters, **optional, "body": replace(self._body, default="")}, result)

    def _way(self, keywords: Mapping[str, Keyword], result: Result) -> Way:
        if self._operation.method == "POST":
            keywords = {**keywords, "idempotency_key": Keyword("str | None", "...")}
        needed = {name: each for name, each in keywords.items() if not each.default}
        return Way(needed | dict(keywords), result, self._others)

    def _of_parameters(self) -> dict[str, Keyword]:
        found: dict[str, Keyword] = {}
        for each in self._operation.parameters:
            name = argument(each.name)
            if name is None:
                self._others = True
                continue
            kind = self._types.of(each.schema, self._hint + joined(each.name), given=True)
            optional = kind if "None" in kind.split(" | ") else f"{kind} | None"
            found[name] = Keyword(kind) if each.required else Keyword(optional, "...")
        return found

    def _of_body(self) -> Keyword | None:
        body = self._operation.body
        if body is None:
            return None
        whole = [*self._forms, *(["File | str"] if any(not _has_fields(media) for media in body.media) else [])]
        return Keyword(" | ".join(whole), "" if body.required else "...")

    def _of_forms(self) -> list[str]:
        """The types of those bodies whose fields can be keywords."""
        media = self._operation.body.media if self._operation.body else {}
        found = [self._types.of(media[kind], self._hint + "Body", given=True) for kind in media if _has_fields(kind)]
        return list(dict.fromkeys(found))

    def _of_fields(self) -> dict[str, Keyword]:
        """The fields of the body that can be given as keywords; parameters of the same name go before them."""
        keys = self._types.keys(" | ".join(self._forms)) if self._forms else None
        if keys is None or self._operation.body is None:
            return {}
        needed = self._operation.body.required
        return {
            name: Keyword(key.type, "" if key.required and needed else "...")
            for name, key in keys.items()
            if self._spelled(name) and name not in (*self._parameters, "body", "idempotency_key")
        }

    def _spelled(self, name: str) -> bool:
        if argument(name) == name:
            return True
        self._others = True
        return False


def _answer(operation: Operation, types: Types, hint: str) -> tuple[str, Events | None]:
    """The type of a plain answer, and of a stream if there is one."""
    good = [each for status, each in sorted(operation.answers.items()) if status[0] == "2"]
    found: dict[str, None] = {}
    event: str | None = None
    for answer in good or filter(None, [operation.answers.get("default")]):
        for media, schema in answer.media.items():
            if media == EVENTS:
                event = types.of(schema, hint + "Event", given=False)
            else:
                found[types.of(schema, hint + "Result", given=False) if _is_json(media) else "Download"] = None
        if not answer.media:
            found["None"] = None
    if "Download" in found:
        found.pop("str", None)  # some documents call the same bytes a JSON text too
    plain = " | ".join(found) or "Any"
    return plain, None if event is None else Events(event, _outcome(event, plain, types))


def _item(answer: str, items: str, types: Types) -> str:
    """The type of a list's items."""
    keys: Mapping[str, Key] = types.keys(answer) or {}
    held = keys[items].type.removesuffix(" | None") if items in keys else ""
    return held.removeprefix("list[").removesuffix("]") if held.startswith("list[") and "] | " not in held else "Any"


def _outcome(event: str, plain: str, types: Types) -> str:
    """What the events add up to: the plain answer, if they carry it as `response`."""
    keys: Mapping[str, Key] = types.keys(event) or {}
    return plain if "response" in keys and plain in keys["response"].type.split(" | ") else "Any"


def _has_fields(media: str) -> bool:
    return _is_json(media) or media in FORMS


def _is_json(media: str) -> bool:
    kind = media.partition(";")[0].strip().lower()
    return kind == JSON or kind.endswith("+json")

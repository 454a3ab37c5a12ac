"""The pages of a document: an index by tag, one for each path with its operations, one for each named schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from antiphon.spec import Answer, Body, Document, Operation, Parameter, Schema, Scheme

from .example import Caller, example, streaming
from .fields import Fields
from .kinds import default, kind, limits
from .model import Block, Heading, Line, Listing, Page, Paragraph, Span, Table, code, joined, text
from .places import placed
from .prose import blocks, opening
from .sample import NoSample, sample, shown

INDEX = "index"
SCHEMAS = "schemas/index"
UNTAGGED = "Other operations"


def pages(document: Document, caller: Caller) -> Iterator[Page]:
    site = _Site(document, caller)
    yield site.index()
    yield from (site.path(path) for path in site.paths)
    if site.schemas:
        yield site.schema_index()
        yield from (site.schema(name) for name in site.schemas)


class _Site:
    def __init__(self, document: Document, caller: Caller) -> None:
        self.document = document
        self.caller = caller
        self.operations: dict[str, list[Operation]] = {}  # by path
        for operation in document.operations.values():
            self.operations.setdefault(_path(operation), []).append(operation)
        self.paths = placed("paths", self.operations)
        self.schemas = placed("schemas", document.schemas, taken=(SCHEMAS,))
        self.fields = Fields(document.named, self.schemas)

    def index(self) -> Page:
        found: list[Block] = [*blocks(self.document.description)]
        if self.document.servers:
            urls: list[Line] = [(code(each.url),) for each in self.document.servers]
            found.append(Paragraph((Span("At "), *joined(urls, ", "), Span("."))))
        if self.schemas:
            found.append(Paragraph((Span("Schemas", page=SCHEMAS),)))
        for tag, operations in self._by_tag().items():
            found += [Heading(2, tag), *blocks(self.document.tags.get(tag, ""))]
            found.append(
                Table(("Operation", "Request", "Summary"), tuple(self._index_row(each) for each in operations))
            )
        title = " ".join(filter(None, (self.document.title or "API", self.document.version)))
        return Page(INDEX, title, tuple(found))

    def _by_tag(self) -> dict[str, list[Operation]]:
        found: dict[str, list[Operation]] = {tag: [] for tag in self.document.tags}
        for operation in self.document.operations.values():
            for tag in operation.tags or (UNTAGGED,):
                found.setdefault(tag, []).append(operation)
        return {tag: operations for tag, operations in found.items() if operations}

    def _index_row(self, operation: Operation) -> tuple[Line, ...]:
        path = _path(operation)
        link = Span(operation.name, "code", page=self.paths[path], anchor=operation.name)
        name: Line = (link, Span(" (deprecated)")) if operation.deprecated else (link,)
        return name, (code(f"{operation.method} {path}"),), _summary(operation)

    def path(self, path: str) -> Page:
        found: list[Block] = [Paragraph((Span("All operations", page=INDEX),))]
        for operation in self.operations[path]:
            found += self._operation(operation)
        return Page(self.paths[path], path, tuple(found))

    def _operation(self, operation: Operation) -> Iterator[Block]:
        yield Heading(2, operation.name)
        yield Paragraph((code(f"{operation.method} {_path(operation)}"), Span(" — "), code(operation.id)))
        if operation.deprecated:
            yield Paragraph((Span("Deprecated.", "strong"),))
        if operation.server_url:
            yield Paragraph((Span("At "), code(operation.server_url), Span(".")))
        yield from blocks(operation.summary)
        if operation.description != operation.summary:
            yield from blocks(operation.description)
        if operation.security:
            yield Paragraph((Span("Callers are known by "), *_security(operation), Span(".")))
        for program in (example(operation, self.caller), streaming(operation, self.caller)):
            if program is not None:
                yield Listing("python", program)
        if operation.parameters:
            yield Heading(3, "Parameters")
            rows = tuple(self._parameter(each) for each in operation.parameters)
            yield Table(("Name", "In", "Type", "Required", "Default", "Meaning"), rows)
        if operation.body is not None:
            yield from self._body(operation.body)
        yield Heading(3, "Answers")
        for status, answer in operation.answers.items():
            yield from self._answer(status, answer)

    def _parameter(self, parameter: Parameter) -> tuple[Line, ...]:
        facets = self.fields.facets(parameter.schema.raw)
        said = parameter.description or next((str(each["description"]) for each in facets if "description" in each), "")
        return (
            (code(parameter.name),),
            text(parameter.location),
            joined([kind(parameter.schema.raw, self.schemas), *limits(facets)], ", "),
            text("yes" if parameter.required else ""),
            default(facets),
            opening(said),
        )

    def _body(self, body: Body) -> Iterator[Block]:
        yield Heading(3, "Body")
        for media, schema in body.media.items():
            notes = [(code(media),), kind(schema.raw, self.schemas), text("required" if body.required else "")]
            yield Paragraph(joined(notes, ", "))
            yield from self.fields.of(schema.raw)

    def _answer(self, status: str, answer: Answer) -> Iterator[Block]:
        yield Heading(4, status if status != "default" else "any other status")
        yield from blocks(answer.description)
        for media, schema in answer.media.items():
            yield Paragraph(joined([(code(media),), kind(schema.raw, self.schemas)], ", "))
            if schema.raw and "$ref" not in schema.raw:
                yield from self.fields.of(schema.raw)
            if _is_json(media):
                yield from _example(schema, answer.example)

    def schema_index(self) -> Page:
        rows = tuple(
            ((Span(name, page=place),), self._what(self.document.schema(name))) for name, place in self.schemas.items()
        )
        table = Table(("Schema", "Meaning"), rows)
        return Page(SCHEMAS, "Schemas", (Paragraph((Span("All operations", page=INDEX),)), table))

    def _what(self, schema: Schema) -> Line:
        raw = schema.raw if isinstance(schema.raw, dict) else {}
        return opening(str(raw.get("description", ""))) or kind(raw, self.schemas)

    def schema(self, name: str) -> Page:
        schema = self.document.schema(name)
        what, told = self.fields.about(schema.raw)
        found = [
            Paragraph((Span("All schemas", page=SCHEMAS),)),
            *told,
            Paragraph(what),
            *self.fields.of(schema.raw),
            *_example(schema, None),
        ]
        return Page(self.schemas[name], name, tuple(found))


def _example(schema: Schema, given: Any) -> Iterator[Block]:
    """The example that the document gives, if it is one, else one that is made of the schema."""
    if given is None or not schema.valid(given):
        try:
            given = sample(schema, known=False)
        except NoSample:
            return
    yield Listing("json", shown(given))


def _is_json(media: str) -> bool:
    kind = media.partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def _summary(operation: Operation) -> Line:
    return opening(operation.summary) or opening(operation.description)


def _path(operation: Operation) -> str:
    fixed = "&".join(f"{name}={value}" for name, value in operation.query)
    return operation.path + (f"?{fixed}" if fixed else "")


def _security(operation: Operation) -> Line:
    choices = [joined([_scheme(each) for each in choice], " and ") or text("nothing") for choice in operation.security]
    return joined(choices, ", or ")


def _scheme(scheme: Scheme) -> Line:
    if scheme.type == "apiKey":
        line: Line = (Span(f"a key in the {scheme.location} "), code(scheme.parameter))
    elif scheme.type == "http":
        line = text(f"HTTP {scheme.scheme}")
    else:
        line = text(scheme.type)
    if scheme.scopes:
        line += (Span(" with "), *joined([(code(each),) for each in scheme.scopes], ", "))
    return line

"""What a page is made of, whatever it will be written in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias


@dataclass(frozen=True)
class Span:
    """A piece of a line: a text, perhaps with a link."""

    text: str
    kind: Literal["text", "code", "strong"] = "text"
    href: str = ""  # to another site
    page: str = ""  # to a page of ours, by its place
    anchor: str = ""  # there, or with no page on this one


Line: TypeAlias = tuple[Span, ...]


@dataclass(frozen=True)
class Heading:
    level: int
    text: str


@dataclass(frozen=True)
class Paragraph:
    line: Line


@dataclass(frozen=True)
class Entry:
    line: Line
    below: tuple[Block, ...] = ()


@dataclass(frozen=True)
class Bullets:
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Table:
    head: tuple[str, ...]
    rows: tuple[tuple[Line, ...], ...]


@dataclass(frozen=True)
class Listing:
    language: str
    text: str


Block: TypeAlias = Heading | Paragraph | Bullets | Table | Listing


@dataclass(frozen=True)
class Page:
    place: str  # where it is among the pages, without the ending of its file: `paths/responses`
    title: str
    blocks: tuple[Block, ...]


def text(words: str) -> Line:
    return (Span(words),) if words else ()


def code(words: str) -> Span:
    return Span(words, "code")


def joined(lines: list[Line], between: str) -> Line:
    """The lines as one, with these words between them."""
    found: list[Span] = []
    for line in filter(None, lines):
        found += [Span(between), *line] if found else line
    return tuple(found)

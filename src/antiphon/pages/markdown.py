"""A page as Markdown, in the form that GitHub and most others read."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from .model import Block, Bullets, Heading, Line, Listing, Page, Paragraph, Span, Table

ENDING = ".md"


def written(page: Page) -> str:
    lines = [f"# {_escaped(page.title)}"]
    for block in page.blocks:
        lines += ["", *_block(block, page.place)]
    return "\n".join(lines) + "\n"


def _block(block: Block, place: str) -> Iterator[str]:
    if isinstance(block, Heading):
        yield f"{'#' * block.level} {_escaped(block.text)}"
    elif isinstance(block, Paragraph):
        yield _at_start(_line(block.line, place))
    elif isinstance(block, Listing):
        fence = max((run[0] + "`" for run in re.finditer("`{3,}", block.text)), default="```", key=len)
        yield from (f"{fence}{block.language}", *block.text.split("\n"), fence)
    elif isinstance(block, Bullets):
        yield from _bullets(block, place)
    else:
        yield from _table(block, place)


def _bullets(block: Bullets, place: str) -> Iterator[str]:
    for entry in block.entries:
        yield f"- {_at_start(_line(entry.line, place))}"
        for below in entry.below:
            if not isinstance(below, Bullets):  # a blank line would part the paragraph from its entry's list
                yield ""
            yield from ("  " + each if each else "" for each in _block(below, place))


def _table(block: Table, place: str) -> Iterator[str]:
    yield f"| {' | '.join(block.head)} |"
    yield f"|{' --- |' * len(block.head)}"
    for row in block.rows:
        # Even inside of code a bar would end the cell.
        yield f"| {' | '.join(_line(cell, place).replace('|', chr(92) + '|') for cell in row)} |"


def _line(line: Line, place: str) -> str:
    return "".join(_span(span, place) for span in line)


def _span(span: Span, place: str) -> str:
    if span.kind == "code":
        made = _code(span.text)
    elif span.kind == "strong":
        made = f"**{_escaped(span.text).strip()}**"
    else:
        made = _escaped(span.text)
    target = span.href or address(span, place, ENDING)
    return f"[{made}]({target.replace('(', '%28').replace(')', '%29')})" if target else made


def address(span: Span, place: str, ending: str) -> str:
    """Where the span leads to, as seen from the page at `place`; empty if nowhere."""
    anchor = f"#{span.anchor}" if span.anchor else ""
    if not span.page:
        return anchor
    return posixpath.relpath(span.page, posixpath.dirname(place) or ".") + ending + anchor


def _code(words: str) -> str:
    words = " ".join(words.split())
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", words)), default=0))
    space = " " if words.startswith("`") or words.endswith("`") else ""
    return f"{ticks}{space}{words}{space}{ticks}"


def _escaped(words: str) -> str:
    words = re.sub(r"([\\`*\[\]])", r"\\\1", words)
    words = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", words)
    return words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _at_start(words: str) -> str:
    """A paragraph must not begin like a heading or a list."""
    return re.sub(r"^(\d+)([.)]\s)", r"\1\\\2", re.sub(r"^([#+-])", r"\\\1", words))

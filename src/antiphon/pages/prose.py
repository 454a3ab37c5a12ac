"""Descriptions, which are Markdown, read into the model: paragraphs, lists, listings, links, code and emphasis.

Links to other sites are kept. Of relative ones, which lead somewhere in the site that the description was written
for, only the words are. Anything else, HTML too, is plain text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .model import Block, Bullets, Entry, Line, Listing, Paragraph, Span

_INLINE = re.compile(
    r"(?P<ticks>`+)(?P<code>.+?)(?P=ticks)"
    r"|!?\[(?P<words>[^\[\]]*)\]\((?P<href>[^()\s]*(?:\([^()\s]*\)[^()\s]*)*)[^()]*\)"
    r"|<(?P<bare>https?://[^<>\s]+)>"
    r"|\*\*(?P<strong>[^*]+)\*\*"
)
_BULLET = re.compile(r"\s*(?:[-*+•]|\d+[.)])\s+(?P<rest>.*)")
_FENCE = re.compile(r"\s*(?P<fence>```+|~~~+)\s*(?P<language>\w*)")
_RULE = re.compile(r"\s*(?:-{3,}|={3,}|\*{3,}|_{3,})\s*$")


def blocks(markdown: str) -> tuple[Block, ...]:
    return tuple(_Reader(markdown.expandtabs().splitlines()).blocks())


def line(markdown: str) -> Line:
    """A text without its layout, in one line."""
    return tuple(_spans(" ".join(markdown.split())))


def opening(markdown: str) -> Line:
    """The first paragraph."""
    return next((each.line for each in blocks(markdown) if isinstance(each, Paragraph)), ())


class _Reader:
    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self.paragraph: list[str] = []
        self.bullets: list[str] = []

    def blocks(self) -> Iterator[Block]:
        while self.lines:
            each = self.lines.pop(0)
            fence = _FENCE.match(each)
            if fence:
                yield from self._finished()
                yield self._listing(fence)
            elif not each.strip() or _RULE.match(each):
                yield from self._finished(keep_list=self._list_goes_on())
            elif each.lstrip().startswith("#"):
                yield from self._finished()
                yield Paragraph((Span(" ".join(each.strip("# ").split()), "strong"),))
            else:
                yield from self._line(each)
        yield from self._finished()

    def _line(self, each: str) -> Iterator[Block]:
        bullet = _BULLET.match(each)
        if bullet:
            yield from self._finished(keep_list=True)
            self.bullets.append(bullet["rest"])
        elif self.bullets and (each.startswith(" ") or not self.paragraph):
            self.bullets[-1] += " " + each.strip()
        else:
            self.paragraph.append(each)

    def _list_goes_on(self) -> bool:
        ahead = next((each for each in self.lines if each.strip()), "")
        return bool(self.bullets) and bool(_BULLET.match(ahead))

    def _finished(self, *, keep_list: bool = False) -> Iterator[Block]:
        if self.paragraph:
            yield Paragraph(line(" ".join(self.paragraph)))
            self.paragraph = []
        if self.bullets and not keep_list:
            yield Bullets(tuple(Entry(line(each)) for each in self.bullets))
            self.bullets = []

    def _listing(self, fence: re.Match[str]) -> Listing:
        found: list[str] = []
        while self.lines:
            each = self.lines.pop(0)
            if each.strip().startswith(fence["fence"]):
                break
            found.append(each)
        return Listing(fence["language"], "\n".join(found))


def _spans(words: str) -> Iterator[Span]:
    position = 0
    for found in _INLINE.finditer(words):
        if found.start() > position:
            yield Span(words[position : found.start()])
        position = found.end()
        yield from _span(found)
    if position < len(words):
        yield Span(words[position:])


def _span(found: re.Match[str]) -> Iterator[Span]:
    if found["code"]:
        yield Span(found["code"].strip() or found["code"], "code")
    elif found["strong"]:
        yield Span(found["strong"], "strong")
    elif found["bare"]:
        yield Span(found["bare"], href=found["bare"])
    elif found["words"]:
        named = found["words"].strip("`")
        kind = "code" if named != found["words"] else "text"
        href = found["href"] if found["href"].startswith(("http://", "https://")) else ""
        yield Span(named, "code" if kind == "code" else "text", href=href)

"""Pages of an API description, for people: written as Markdown or HTML, the same at every time for one document."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from antiphon.spec import Document

from . import html, markdown
from .example import Caller
from .model import Page
from .site import pages

__all__ = ["FORMATS", "Caller", "write"]

FORMATS: Mapping[str, tuple[str, Callable[[Page], str]]] = {
    "md": (markdown.ENDING, markdown.written),
    "html": (html.ENDING, html.written),
}


def write(document: Document, directory: Path, *, format: str = "md", caller: Caller | None = None) -> list[Path]:
    """Write all pages below the directory, and give their files, the index first. Other files there stay."""
    ending, written = FORMATS[format]
    files = []
    for page in pages(document, caller or Caller()):
        file = directory / (page.place + ending)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(written(page), encoding="utf-8", newline="\n")
        files.append(file)
    return files

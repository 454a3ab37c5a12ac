"""A page as HTML that needs nothing else: no script, no other file."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from .markdown import address
from .model import Block, Bullets, Heading, Line, Listing, Page, Paragraph, Span, Table

ENDING = ".html"

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
code, pre {{ font-family: ui-monospace, monospace; font-size: 0.9em; }}
pre {{ overflow-x: auto; padding: 0.75rem; background: #8882; border-radius: 4px; }}
table {{ border-collapse: collapse; display: block; overflow-x: auto; }}
th, td {{ text-align: left; vertical-align: top; padding: 0.25rem 0.75rem 0.25rem 0; border-bottom: 1px solid #8884; }}
h2 {{ margin-top: 3rem; border-bottom: 2px solid #8886; }}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


def written(page: Page) -> str:
    body = "\n".join(line for block in page.blocks for line in _block(block, page.place))
    return _PAGE.format(title=escape(page.title), body=body)


def _block(block: Block, place: str) -> Iterator[str]:
    if isinstance(block, Heading):
        anchor = f' id="{escape(block.text)}"' if block.level == 2 else ""
        yield f"<h{block.level}{anchor}>{escape(block.text)}</h{block.level}>"
    elif isinstance(block, Paragraph):
        yield f"<p>{_line(block.line, place)}</p>"
    elif isinstance(block, Listing):
        yield f"<pre><code>{escape(block.text)}</code></pre>"
    elif isinstance(block, Bullets):
        yield from (
            "<ul>",
            *(line for entry in block.entries for line in _entry(entry.line, entry.below, place)),
            "</ul>",
        )
    else:
        yield from _table(block, place)


def _entry(line: Line, below: tuple[Block, ...], place: str) -> Iterator[str]:
    yield f"<li>{_line(line, place)}"
    for block in below:
        yield from _block(block, place)
    yield "</li>"


def _table(block: Table, place: str) -> Iterator[str]:
    yield "<table>"
    yield f"<tr>{''.join(f'<th>{escape(each)}</th>' for each in block.head)}</tr>"
    for row in block.rows:
        yield f"<tr>{''.join(f'<td>{_line(cell, place)}</td>' for cell in row)}</tr>"
    yield "</table>"


def _line(line: Line, place: str) -> str:
    return "".join(_span(span, place) for span in line)


def _span(span: Span, place: str) -> str:
    made = escape(span.text)
    if span.kind != "text":
        made = f"<{span.kind}>{made}</{span.kind}>"
    target = span.href or address(span, place, ENDING)
    return f'<a href="{escape(target)}">{made}</a>' if target else made

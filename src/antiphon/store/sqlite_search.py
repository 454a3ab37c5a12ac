"""Whether a text is anywhere in a SQLite database: in its tables, and in the bytes of its files.

What is packed is unpacked to be searched. That leaves what belongs to no row, and there even a packed text could hide:
so unused pages, and the gaps in pages, must hold zeros. A text that is found is never told, only where it is.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw

from antiphon.store.base import Segment
from antiphon.store.packing import dictionary_of, unpack, unpack_segment
from antiphon.store.sqlite_checkpoint import Checkpointer, without_gap
from antiphon.store.sqlite_file import SQL, check_there, connect, translating
from antiphon.store.upkeep import Found, forms_of

EMPTYING_SECONDS = 5.0  # how long readers and writers may keep the write-ahead log from being emptied

_BESIDE = ("", "-wal", "-journal")
_UNPACKED = {"responses", "segments"}


def search(path: str, text: str) -> list[Found]:
    """Everywhere that the text is in the database, beside a server that uses it or not. Raises StoreError."""
    check_there(path)
    with translating(path):
        emptied = _empty_log(path)
        with closing(connect(path, durability="full")) as connection, connection:
            # While this transaction reads, no checkpoint changes the file.
            forms = forms_of(text)
            found = [*_in_tables(connection, forms), *_in_files(path, forms), *_remains(connection, path)]
    if not emptied:
        found.append(Found(Path(f"{path}-wal").name, "could not be emptied: something may be left of what was deleted"))
    return found


def _empty_log(path: str) -> bool:
    with closing(Checkpointer(path)) as checkpointer:
        until = time.monotonic() + EMPTYING_SECONDS
        while not checkpointer.empty():
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
    return True


def _in_tables(connection: apsw.Connection, forms: Sequence[bytes]) -> Iterator[Found]:
    yield from _in_responses(connection, forms)
    tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    for (table,) in tables.fetchall():
        names = [str(name) for (name,) in connection.execute("SELECT name FROM pragma_table_xinfo(?)", (table,))]
        for number, row in enumerate(connection.execute(f'SELECT * FROM "{table}"')):
            yield from (
                Found(f"{table}.{name}", _owner(dict(zip(names, row, strict=True)), number))
                for name, value in zip(names, row, strict=True)
                if not (table in _UNPACKED and name in ("response", "frames")) and _holds(value, forms)
            )


def _in_responses(connection: apsw.Connection, forms: Sequence[bytes]) -> Iterator[Found]:
    """In what is packed: the final objects and the logs."""
    rows = connection.execute("SELECT row, id, request, response FROM responses")
    for row, id, request, kept in rows:
        response = b""
        if kept is not None:
            said = [body for (body,) in connection.execute(SQL["said"], {"row": row})]
            response = unpack(kept, dictionary_of(request, said))
        if _holds(response, forms):
            yield Found("responses.response", id)
        segments = "SELECT first, last - first + 1, frames, mask FROM segments WHERE response = ?"
        for columns in connection.execute(segments, (row,)):
            segment = unpack_segment(Segment(*columns), response)
            if _holds(segment.frames, forms):
                yield Found("segments.frames", f"{id}, from event {segment.first} on")
    orphans = "SELECT row FROM segments WHERE response NOT IN (SELECT row FROM responses)"
    for (row,) in connection.execute(orphans):
        yield Found("segments.frames", f"row {row}, which belongs to no response")


def _owner(row: dict[str, Any], number: int) -> str:
    """What to call a row, without telling what it holds."""
    id = row.get("id")
    return str(id) if isinstance(id, str) else f"row {row.get('row', number)}"


def _holds(value: Any, forms: Sequence[bytes]) -> bool:
    content = value.encode() if isinstance(value, str) else value
    return isinstance(content, bytes) and any(form in content for form in forms)


def _in_files(path: str, forms: Sequence[bytes]) -> Iterator[Found]:
    for ending in _BESIDE:
        file = Path(path + ending)
        if not file.exists() or not file.stat().st_size:
            continue
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
            places = {content.find(form) for form in forms} - {-1}
            yield from (Found(file.name, f"byte {place}") for place in sorted(places))


def _remains(connection: apsw.Connection, path: str) -> Iterator[Found]:
    """What is not zero where nothing should be: not necessarily of this text, but it cannot be told."""
    size, count = connection.pragma("page_size"), connection.pragma("page_count")
    assert isinstance(size, int)
    assert isinstance(count, int)
    with Path(path).open("rb") as file:
        unused = _unused_pages(file, size)
        for number in range(1, count + 1):
            file.seek((number - 1) * size)
            page = file.read(size)
            if number in unused:
                if any(page):
                    yield Found(Path(path).name, f"page {number} is not in use and holds something")
            elif page and without_gap(page, first=number == 1) != page:
                yield Found(Path(path).name, f"page {number} holds something between its rows")


def _unused_pages(file: Any, size: int) -> set[int]:
    """The leaves of the file's list of free pages; the pages of the list itself hold numbers alone."""
    unused: set[int] = set()
    file.seek(32)
    trunk = int.from_bytes(file.read(4), "big")
    while trunk:
        file.seek((trunk - 1) * size)
        page = file.read(size)
        trunk, leaves = (int.from_bytes(page[at : at + 4], "big") for at in (0, 4))
        unused |= {int.from_bytes(page[at : at + 4], "big") for at in range(8, 8 + 4 * leaves, 4)}
    return unused

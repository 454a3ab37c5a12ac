"""The SQL of every engine, kept as SQL.

`<engine>.sql` holds the named queries: a line `-- name: ...`, a sentence of what it gives, the statement.
`<engine>/NNN_*.sql` are the migrations, run in order, each once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import resources

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


def queries(engine: str) -> Mapping[str, str]:
    """The statements of an engine, by name."""
    text = resources.files(__package__).joinpath(f"{engine}.sql").read_text("utf-8")
    _, *parts = _NAME.split(text)
    return {name: statement.strip() for name, statement in zip(parts[::2], parts[1::2], strict=True)}


def migrations(engine: str) -> Sequence[str]:
    """The migrations of an engine; the first makes version 1 of an empty database."""
    folder = resources.files(__package__).joinpath(engine)
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    for number, file in enumerate(files, start=1):
        assert int(file.name[:3]) == number, f"{file.name} should be number {number}"
    return [file.read_text("utf-8") for file in files]

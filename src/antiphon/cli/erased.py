"""`antiphon verify-erased`: whether anything is left of what was deleted. Reads the database itself."""

from __future__ import annotations

import sys
from argparse import Namespace
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from antiphon.cli.backup import add_place, settings_of
from antiphon.cli.talk import Misuse, add_command, answer, needs, tell

if TYPE_CHECKING:
    from antiphon.settings import Settings
    from antiphon.store.upkeep import Found

LEAST = 4  # characters; shorter texts are everywhere


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "verify-erased",
        run,
        usage="antiphon verify-erased ID|--text STRING [--database URL] [--config FILE]",
        help="Look for what should be gone. It searches all tables of the database, unpacked, and of SQLite all bytes\n"
        "of its files, beside a running server too, for an id or for a text, in UTF-8 and as JSON escapes it. Each\n"
        "place is told in a line of JSON, without the text; the exit code is 1 if there is any. Responses that\n"
        "continue a deleted one name its id. What the files of PostgreSQL still hold cannot be seen from outside.",
    )
    parser.add_argument("id", nargs="?", metavar="ID", help="The id of what was deleted.")
    parser.add_argument("--text", metavar="STRING", help="A text that was in it; - reads it from stdin.")
    add_place(parser)


def run(options: Namespace) -> int:
    if (options.id is None) == (options.text is None):
        raise Misuse("antiphon verify-erased: expected an id, or --text with a text.")
    text = sys.stdin.read().rstrip("\n") if options.text == "-" else options.id or options.text
    if len(text) < LEAST:
        raise Misuse(f"antiphon verify-erased: expected at least {LEAST} characters.")
    settings = settings_of(options)
    found, unseen = _in_postgres(settings, text) if settings.postgres else _in_file(settings, text)
    for each in found:
        answer(asdict(each), pretty=False)
    nowhere = "No row holds it." if unseen else "It is nowhere."
    tell(f"{len(found)} places hold it." if found else nowhere)
    if unseen:
        tell(unseen)
    return 1 if found else 0


def _in_file(settings: Settings, text: str) -> tuple[list[Found], str]:
    try:
        from antiphon.store.sqlite_search import search
    except ModuleNotFoundError as error:
        raise needs("server", error) from error
    return search(settings.database_path, text), ""


def _in_postgres(settings: Settings, text: str) -> tuple[list[Found], str]:
    """Where it was found, and where it was not looked for."""
    try:
        from antiphon.store.postgres_search import UNSEEN, search
    except ModuleNotFoundError as error:
        raise needs("postgres", error) from error
    import asyncio

    return asyncio.run(search(settings.database, text)), UNSEEN

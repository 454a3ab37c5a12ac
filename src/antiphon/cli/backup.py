"""`antiphon backup`: a copy of a SQLite database in use."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from typing import Any

from antiphon.cli.talk import Misuse, add_command, answer, needs
from antiphon.settings import Settings


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "backup",
        run,
        usage="antiphon backup FILE [--database URL] [--config FILE]",
        help="Copy the SQLite database, while a server uses it or not, as it is at one moment. FILE is a database\n"
        "again, checked, and takes its place as a whole or not at all. FILE.key gets the key of encrypted content:\n"
        "keep both, and keep them safe. PostgreSQL has tools of its own, such as pg_dump.",
    )
    parser.add_argument("file", metavar="FILE", help="Where the copy is to be.")
    add_place(parser)


def add_place(parser: ArgumentParser) -> None:
    """The flags that say which database it is."""
    parser.add_argument("--database", metavar="URL", help="The database; default as for a server.")
    parser.add_argument("--config", metavar="FILE", help="The file with settings; otherwise antiphon.toml, if any.")


def settings_of(options: Namespace) -> Settings:
    """The settings of a command about a database. Raises Misuse for one in memory, which is another one for each."""
    settings = Settings.load({"database": options.database}, os.environ, options.config)
    if settings.database_path == ":memory:":
        raise Misuse("The database is in memory, so it is that server's alone.")
    return settings


def run(options: Namespace) -> int:
    settings = settings_of(options)
    if settings.postgres:
        raise Misuse("antiphon backup: the database is PostgreSQL; use pg_dump, or `antiphon export`.")
    try:
        from antiphon.store.sqlite_backup import backup
    except ModuleNotFoundError as error:
        raise needs("server", error) from error
    backup(settings.database_path, options.file)
    key = f"{options.file}.key"
    answer(
        {
            "file": options.file,
            "bytes": os.path.getsize(options.file),
            "key_file": key if os.path.exists(key) else None,
        },
        pretty=False,
    )
    return 0

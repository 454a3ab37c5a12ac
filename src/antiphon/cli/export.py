"""`antiphon export` and `antiphon import`: all that a database keeps, as a file, and back into any other."""

from __future__ import annotations

import contextlib
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from antiphon.cli.backup import add_place, settings_of
from antiphon.cli.talk import add_command, answer, needs
from antiphon.errors import AntiphonError
from antiphon.settings import Settings

if TYPE_CHECKING:
    from antiphon.store.portable import Portable, Record

STDIO = "-"


def add(commands: Any) -> None:
    exporting = add_command(
        commands,
        "export",
        export,
        usage="antiphon export [--to FILE|-] [--database URL] [--config FILE]",
        help="Write all that the database keeps as lines of JSON, as it is at one moment: for `antiphon import` into\n"
        "any other database. A server may run on it meanwhile. The lines hold everybody's texts, and the key of\n"
        "encrypted content: keep them safe.",
    )
    exporting.add_argument("--to", metavar="FILE|-", default=STDIO, help="Where to write; default stdout, -.")
    add_place(exporting)
    importing = add_command(
        commands,
        "import",
        load,
        usage="antiphon import [FILE|-] [--database URL] [--config FILE]",
        help="Take what `antiphon export` wrote into the database. What is there already stays as it is: after an\n"
        "interruption, import the same file again. A file that was changed or cut off is refused, with the line.\n"
        "No server may run on the database meanwhile, and on one of PostgreSQL none before.",
    )
    importing.add_argument("file", nargs="?", metavar="FILE|-", default=STDIO, help="What to read; default stdin, -.")
    add_place(importing)


def export(options: Namespace) -> int:
    settings = settings_of(options)
    if options.to == STDIO:
        _run(_export(settings, sys.stdout.buffer))
        return 0
    from antiphon.store.whole_file import whole_file

    with _files(options.to), whole_file(options.to) as new, open(new, "wb") as file:
        counts = _run(_export(settings, file))
    answer({"file": options.to, "records": counts}, pretty=False)
    return 0


def load(options: Namespace) -> int:
    settings = settings_of(options)
    with _files(options.file), contextlib.ExitStack() as stack:
        read_stdin = options.file == STDIO
        file = sys.stdin.buffer if read_stdin else stack.enter_context(open(options.file, "rb"))
        answer(_run(_load(settings, file, "stdin" if read_stdin else options.file)), pretty=False)
    return 0


async def _export(settings: Settings, file: BinaryIO) -> Counter[str]:
    from antiphon.node import open_beside
    from antiphon.store.portable_file import Encoder

    encoder = Encoder()
    async with open_beside(settings) as store, contextlib.aclosing(store.dump()) as batches:
        file.write(encoder.header(now=time.time()))
        async for batch in batches:
            file.write(encoder.lines(batch))
    file.write(encoder.end())
    file.flush()
    return encoder.counts


async def _load(settings: Settings, file: BinaryIO, name: str) -> dict[str, Any]:
    from antiphon.store.portable import batches
    from antiphon.store.portable_file import Decoder, kind_of

    decoder = Decoder(file, name)

    async def read() -> AsyncIterator[Sequence[Record]]:
        for batch in batches(decoder.records()):  # nobody else is on this loop
            yield batch

    async with _owned(settings) as store:
        added = await store.load(read())
    return {"records": decoder.counts, "added": {kind_of(kind): number for kind, number in added.items() if number}}


@contextlib.asynccontextmanager
async def _owned(settings: Settings) -> AsyncIterator[Portable]:
    """The store; of SQLite as a server has it, so that none can be there."""
    from antiphon.node import open_beside
    from antiphon.store.sqlite import SqliteStore

    if settings.postgres:
        async with open_beside(settings) as shared:
            yield shared
        return
    store = SqliteStore(settings.database_path, durability=settings.durability)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def _run(running: Any) -> Any:
    try:
        import asyncio

        return asyncio.run(running)
    except ModuleNotFoundError as error:
        raise needs("server", error) from error


@contextlib.contextmanager
def _files(name: str) -> Iterator[None]:
    """What goes wrong with a file inside is an error about that name."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise AntiphonError(f"{name}: {error.strerror or error}") from error

"""`antiphon docs`: an API description as pages for people."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from antiphon.cli.talk import Misuse, add_command


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "docs",
        run,
        usage="antiphon docs --out DIR [--format md|html] [--spec PATH|URL]",
        help="Write pages of an API description: one for each path with its operations, their parameters, bodies and\n"
        "answers, and a call of each in Python; one for each schema; an index by tag, whose file goes to stdout.\n\n"
        "Files of the same name are written over; others stay.",
    )
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="The directory to write to.")
    parser.add_argument(
        "--format", metavar="md|html", choices=("md", "html"), default="md", help="Markdown or HTML. [md]"
    )
    parser.add_argument("--spec", metavar="PATH|URL", help="Another API description than the packaged one.")


def run(options: Namespace) -> int:
    from antiphon.client import Client
    from antiphon.pages import Caller, write
    from antiphon.spec import Document

    document = Document.load(options.spec)
    taken = frozenset(object.__dir__(Client(spec=document)))
    try:
        files = write(document, options.out, format=options.format, caller=Caller(options.spec or "", taken))
    except OSError as error:
        raise Misuse(f"--out: {error.filename or options.out} cannot be written: {error.strerror or error}.") from error
    print(files[0])
    return 0

"""`antiphon operations`: what can be called, as a list, or one operation with all that it takes."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from antiphon.cli.completion import complete_operations
from antiphon.cli.talk import add_command

if TYPE_CHECKING:
    from antiphon.spec import Document


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "operations",
        run,
        usage="antiphon operations [OPERATION] [--spec PATH|URL]",
        help="List the operations that can be called. With the name of one, show what it takes and an example.",
    )
    complete_operations(
        parser.add_argument(
            "operation", nargs="?", metavar="OPERATION", help="An operationId, or the name of its method."
        )
    )
    parser.add_argument("--spec", metavar="PATH|URL", help="Another API description than the packaged one.")


def run(options: Namespace) -> int:
    from antiphon.cli.described import described
    from antiphon.spec import Document

    document = Document.load(options.spec)
    if options.operation is None:
        print("\n".join(listing(document)))
    else:
        print("\n".join(described(document.operation(options.operation))))
    return 0


def listing(document: Document) -> Iterator[str]:
    """A line for each operation: its name, method and path."""
    from antiphon.cli.described import address

    operations = document.operations.values()
    width = max((len(each.name) for each in operations), default=0)
    for each in operations:
        deprecated = "  (deprecated)" if each.deprecated else ""
        yield f"{each.name:{width}}  {each.method:6}  {address(each)}{deprecated}"

"""`antiphon demo`: the tour of `antiphon.demo.tour`, where what it needs is installed."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from antiphon.cli.talk import add_command, needs


def add(commands: Any) -> None:
    add_command(
        commands,
        "demo",
        run,
        usage="antiphon demo",
        help="Show on this machine what Antiphon does, in about half a minute.\n\n"
        "Starts a server with the embedded model on a free port and a database in a temporary directory, calls it\n"
        "with this client and with the official SDK, cuts connections, kills the server, and checks every claim.\n"
        "The exit code is 0 only if all of them hold.",
    )


def run(options: Namespace) -> int:
    from antiphon.cli.model import require_weights

    try:
        from antiphon.demo import tour
    except ModuleNotFoundError as error:
        raise needs("demo", error) from error
    require_weights()
    return tour.run()

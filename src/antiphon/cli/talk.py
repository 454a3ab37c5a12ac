"""What a command says: answers to stdout as JSON, all else to stderr."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable
from typing import Any

from antiphon.errors import AntiphonError


class Misuse(AntiphonError):
    """The command line makes no sense."""


class Help(RawDescriptionHelpFormatter):
    """The same lines on every terminal, and on the page."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=110)


def add_command(commands: Any, name: str, run: Callable[..., int], *, usage: str, help: str) -> ArgumentParser:
    """A command with its help. help: what it does; the first sentence stands in the list of commands.

    The usage is written by hand: it shows the ways to use the command and not each of its flags.
    """
    made: ArgumentParser = commands.add_parser(
        name,
        usage=usage,
        help=help.partition(". ")[0].partition(".\n")[0].rstrip("."),
        description=help,
        formatter_class=Help,
        allow_abbrev=False,
    )
    made.set_defaults(run=run, misused=made.error)
    return made


def needs(extra: str, missing: ModuleNotFoundError) -> AntiphonError:
    """The error for a command whose packages are not all there."""
    return AntiphonError(f"{missing.name} is not installed; this command needs: pip install 'antiphon[{extra}]'")


def tell(message: str) -> None:
    print(message, file=sys.stderr)


def answer(value: Any, *, pretty: bool) -> None:
    """One JSON value to stdout: a line of its own, or with `pretty` as many as are good to read."""
    layout: dict[str, Any] = {"indent": 2} if pretty else {"separators": (",", ":")}
    print(json.dumps(value, ensure_ascii=False, **layout), flush=True)

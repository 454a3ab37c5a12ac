"""The `antiphon` command: a thin coat on the library, one file for each command.

Answers go to stdout and talk to stderr; the exit code is 0, 1 (it failed) or 2 (it was misused). A command is a module
with `add(commands)`, which describes its arguments and names the function that carries it out. What it needs is
imported when it runs: the bare package has the client alone, and help should come at once.
"""

from __future__ import annotations

import os
import sys
import warnings
from argparse import Action, ArgumentParser
from collections.abc import Sequence
from typing import Any

from antiphon.cli import (
    backup,
    call,
    completion,
    demo,
    docs,
    erased,
    export,
    keys,
    model,
    operations,
    prompts,
    serve,
    stubs,
    usage,
)
from antiphon.cli.talk import Help, Misuse, tell
from antiphon.errors import AntiphonError, BadSetting, DocumentError, InvalidRequest, UnknownOperation

COMMANDS = (serve, call, operations, prompts, keys, usage, erased, export, backup, docs, stubs, completion, model, demo)
MISUSES = (Misuse, BadSetting, DocumentError, InvalidRequest, UnknownOperation)
INTERRUPTED = 130  # what shells report of a command that Ctrl-C has ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command line and give its exit code."""
    whole = parser()
    if "_ARGCOMPLETE" in os.environ:
        completion.offer(whole)
    options, unknown = whole.parse_known_args(arguments)
    if unknown:
        options.misused(f"unrecognized arguments: {' '.join(unknown)}")
    warnings.showwarning = _tell_warning
    try:
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except MISUSES as error:
        tell(f"antiphon: {error}")
        return 2
    except AntiphonError as error:
        tell(f"antiphon: {error}")
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # whoever reads the answer, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _tell_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    tell(f"antiphon: {message}")


class Version(Action):
    """Tells the version, which is looked up only then: that takes longer than all else of a start."""

    def __call__(self, parser: ArgumentParser, *_: Any) -> None:
        from antiphon import __version__

        print(f"antiphon {__version__}")
        parser.exit()


def parser() -> ArgumentParser:
    whole = ArgumentParser(
        prog="antiphon",
        usage="antiphon COMMAND ...",
        description="Keep model responses as logs of numbered events, and call the whole OpenAI API.",
        epilog="`antiphon COMMAND --help` tells about one command.",
        formatter_class=Help,
    )
    whole.add_argument("--version", action=Version, nargs=0, help="Show the version.")
    commands = whole.add_subparsers(title="commands", prog="antiphon", metavar="COMMAND", required=True)
    _add_commands(commands)
    return whole


def page() -> str:
    """The help of every command as Markdown."""
    commands = ArgumentParser(prog="antiphon").add_subparsers()
    _add_commands(commands)
    helps = {name: command.format_help().strip() for name, command in commands.choices.items()}
    return "\n\n".join(f"## antiphon {name}\n\n```text\n{text}\n```" for name, text in helps.items())


def _add_commands(commands: Any) -> None:
    for command in COMMANDS:
        command.add(commands)

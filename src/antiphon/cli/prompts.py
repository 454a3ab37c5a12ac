"""`antiphon prompts`: the prompt templates that a server keeps. Each action is a call as `antiphon call` makes it."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from antiphon.cli import call
from antiphon.cli.talk import Misuse, add_command

# each action, and what must stand behind it
ACTIONS = {
    "list": "nothing",
    "create": "the file of a template, or - for stdin",
    "show": "the id of a prompt",
    "delete": "the id of a prompt",
}


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "prompts",
        run,
        usage="antiphon prompts list\n"
        "       antiphon prompts create FILE|- [--id ID]\n"
        "       antiphon prompts show ID [--version N]\n"
        "       antiphon prompts delete ID",
        help="Manage the prompt templates of an Antiphon server. A template is a JSON object of the fields of a\n"
        "create, such as model, instructions and input, with placeholders like {{city}} in their texts; a create\n"
        "that names it by `prompt` gives their values. With --id, `create` adds a version to a prompt.",
    )
    parser.add_argument("action", choices=ACTIONS, metavar="|".join(ACTIONS), help="What to do.")
    parser.add_argument(
        "what", nargs="?", metavar="FILE|ID", help="The file of the template, or - for stdin; or an id."
    )
    parser.add_argument("--id", metavar="ID", help="The prompt that gets a new version.")
    parser.add_argument("--version", metavar="N", help="The version to show; default the newest.")
    parser.add_argument("--base-url", metavar="URL", help="Where the server is; default OPENAI_BASE_URL.")
    parser.add_argument(
        "--api-key-env", metavar="NAME", help="The variable that holds the API key; default OPENAI_API_KEY."
    )


def run(options: Namespace) -> int:
    action = options.action
    if (options.what is None) != (action == "list"):
        raise Misuse(f"antiphon prompts {action}: expected {ACTIONS[action]} behind it.")
    for flag, fits in (("id", "create"), ("version", "show")):
        if getattr(options, flag) is not None and action != fits:
            raise Misuse(f"--{flag} belongs to `antiphon prompts {fits}`.")
    if not options.base_url and not os.environ.get("OPENAI_BASE_URL"):
        raise Misuse("antiphon prompts: no server is named; give --base-url or OPENAI_BASE_URL.")
    if action == "list":
        return _call(options, "listPrompts", all=True)
    if action == "create":
        return _call(options, "createPrompt", template=_read(options.what), id=options.id)
    if action == "show":
        return _call(options, "getPrompt", prompt_id=options.what, version=options.version)
    return _call(options, "deletePrompt", prompt_id=options.what)


def _call(options: Namespace, operation: str, *, all: bool = False, **given: str | None) -> int:
    asked = {
        "operation": operation,
        "parameters": [f"{name}={text}" for name, text in given.items() if text is not None],
        "form": [],
        "data": None,
        "stream": False,
        "text": False,
        "all": all,
        "output": None,
        "spec": None,
    }
    return call.run(Namespace(**{**vars(options), **asked}))


def _read(place: str) -> str:
    try:
        return sys.stdin.read() if place == "-" else Path(place).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Misuse(f"antiphon prompts create: {place} cannot be read: {error}.") from error

"""`antiphon completion`: the script of a shell, and what it is answered when TAB is pressed.

argcomplete speaks with the shells and walks the commands and their flags; here is what it cannot know: operations, the
names and values of what they take. Of the API description only the index and the operation in question are read.
"""

from __future__ import annotations

from argparse import Action, ArgumentParser, Namespace
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from antiphon.cli.talk import add_command

if TYPE_CHECKING:
    from antiphon.spec import Document, Operation, Schema

SHELLS = ("bash", "zsh", "fish")
SUMMARY_MAX = 60


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "completion",
        run,
        usage="antiphon completion bash|zsh|fish",
        help="Give the script by which a shell completes commands, operations, and what an operation takes.\n\n"
        'For bash, and for zsh behind its compinit, a line of its start-up file: eval "$(antiphon completion bash)"\n'
        "For fish: antiphon completion fish > ~/.config/fish/completions/antiphon.fish",
    )
    parser.add_argument("shell", metavar="bash|zsh|fish", choices=SHELLS, help="The shell to write it for.")


def run(options: Namespace) -> int:
    from argcomplete.shell_integration import shellcode

    print(shellcode(["antiphon"], shell=options.shell))
    return 0


def offer(parser: ArgumentParser) -> None:
    """Tell the shell that asks what may come next, and end this process."""
    from argcomplete import autocomplete

    # The flags of a command are offered for a dash; else they would stand among the operations.
    autocomplete(parser, always_complete_options=False)


def complete_operations(action: Action) -> None:
    action.completer = _operations  # type: ignore[attr-defined]


def complete_parameters(action: Action) -> None:
    action.completer = _parameters  # type: ignore[attr-defined]


def complete_files(action: Action) -> None:
    action.completer = _files  # type: ignore[attr-defined]


def _operations(prefix: str, parsed_args: Namespace, **_: Any) -> dict[str, str]:
    """The names that begin so; if there are none, the ids."""
    document = _document(parsed_args)
    found = list(document.operations.values()) if document else []
    names = {each.name: _about(each) for each in found if each.name.startswith(prefix)}
    return names or {each.id: _about(each) for each in found if each.id.startswith(prefix)}


def _parameters(prefix: str, parsed_args: Namespace, **_: Any) -> Iterable[str]:
    """`name=` of all that the operation takes, and behind that the words it may be."""
    from antiphon.cli.described import schemas

    operation = _operation(parsed_args)
    taken = schemas(operation) if operation else {}
    name, equals, _text = prefix.partition("=")
    if not equals:
        return [f"{each}=" for each in taken]
    return [f"{name}={word}" for word in _words(taken[name])] if name in taken else []


def _files(prefix: str, parsed_args: Namespace, **_: Any) -> Iterable[str]:
    """`name=` of the fields that are files, and behind that `@` and those that are there."""
    from argcomplete.completers import FilesCompleter

    from antiphon.cli.described import is_file, schemas

    name, equals, file = prefix.partition("=")
    if equals:
        return [f"{name}=@{path}" for path in FilesCompleter()(file.removeprefix("@"))]
    operation = _operation(parsed_args)
    return [f"{each}=" for each, schema in schemas(operation).items() if is_file(schema)] if operation else []


def _document(given: Namespace) -> Document | None:
    from antiphon.spec import Document

    source = given.spec
    return None if source and "://" in source else Document.load(source)  # TAB is no reason to ask the network


def _operation(given: Namespace) -> Operation | None:
    document = _document(given)
    return document.operation(given.operation) if document and given.operation else None


def _about(operation: Operation) -> str:
    told = operation.summary or f"{operation.method} {operation.path}"
    return told if len(told) <= SUMMARY_MAX else told[: SUMMARY_MAX - 3] + "..."


def _words(schema: Schema) -> Iterator[str]:
    """The values that the schema names, those of a list's items too."""
    from antiphon.spec.sealing import in_place

    for node in in_place(schema.raw, schema.named):
        for value in node.get("enum", [node["const"]] if "const" in node else []):
            if isinstance(value, (str, int)) and not isinstance(value, bool):
                yield str(value)
        if node.get("type") == "boolean":
            yield from ("true", "false")
        if isinstance(node.get("items"), dict):
            yield from _words(type(schema)(node["items"], schema.named))

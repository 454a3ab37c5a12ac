"""`antiphon call`: one call of an operation, from words to JSON and from JSON to words."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from antiphon.cli.completion import complete_files, complete_operations, complete_parameters
from antiphon.cli.talk import Misuse, add_command, answer, tell
from antiphon.errors import AntiphonError, ConnectionFailed

if TYPE_CHECKING:
    from typing import IO

    from antiphon.client.stream import Stream
    from antiphon.spec import Operation, Schema

    FileOf = Path | tuple[str, IO[bytes]]


TEXTS = ("response.output_text.delta", "transcript.text.delta")


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "call",
        run,
        usage="antiphon call OPERATION [-p NAME=VALUE ...] [-F NAME=@FILE ...] [-d JSON|@FILE|-]\n"
        "                     [--stream] [--text] [--all] [--output FILE]",
        help="Call an operation of the API. The answer goes to stdout, as JSON where it is JSON.\n\n"
        "The exit code is 1 if the answer is an error or a stream ends as failed, and 2 if the call made no sense\n"
        "and was not sent.",
    )
    complete_operations(
        parser.add_argument("operation", metavar="OPERATION", help="An operationId, or the name of its method.")
    )
    parameter = parser.add_argument(
        "-p",
        dest="parameters",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="A parameter or a field of the body, read as its schema says. Repeat it to make a list.",
    )
    complete_parameters(parameter)
    form = parser.add_argument(
        "-F",
        dest="form",
        metavar="NAME=@FILE",
        action="append",
        default=[],
        help="A file as a field of the body; @- is stdin. Repeat it to make a list. Without the @, the same as -p.",
    )
    complete_files(form)
    parser.add_argument("-d", dest="data", metavar="JSON|@FILE|-", help="The body: itself, in a file, or from stdin.")
    parser.add_argument("--stream", action="store_true", help="Ask for events, and give each as a line as it comes.")
    parser.add_argument("--text", action="store_true", help="The same, but give only the text of the answer.")
    parser.add_argument(
        "--all", action="store_true", help="Give all items of a list, over all its pages, each as a line."
    )
    parser.add_argument("--output", metavar="FILE", type=Path, help="Write the answer to FILE instead of stdout.")
    parser.add_argument(
        "--base-url",
        metavar="URL",
        help="Where to call; default OPENAI_BASE_URL for OpenAI's API, else what the API says.",
    )
    parser.add_argument(
        "--api-key-env",
        metavar="NAME",
        help="The variable that holds the API key; default OPENAI_API_KEY for OpenAI's API.",
    )
    parser.add_argument("--spec", metavar="PATH|URL", help="Another API description than the packaged one.")


def run(options: Namespace) -> int:
    from antiphon.client import Client
    from antiphon.client.download import Download

    with Client(options.base_url, _api_key(options.api_key_env), spec=options.spec) as client:
        operation = client.document.operation(options.operation)
        arguments = _arguments(operation, options)
        _check(operation, options)
        if options.stream or options.text:
            _ask_for_events(operation, arguments)
        with _place_is_told(options):
            said = client.call(operation.id, **arguments)
        with _writing(options.output):
            if isinstance(said, Download) and _can_be_replaced(options.output):
                said.save(options.output)
                return 0
            with _stdout(options.output):
                return _show(said, options)


@contextlib.contextmanager
def _place_is_told(options: Namespace) -> Iterator[None]:
    """Who named no server may have meant another than OpenAI's."""
    try:
        yield
    except ConnectionFailed as error:
        if options.base_url or options.spec or os.environ.get("OPENAI_BASE_URL"):
            raise
        told = f"{error.message} To call another server, give --base-url or OPENAI_BASE_URL."
        raise ConnectionFailed(told, sent=error.sent) from error


def _check(operation: Operation, options: Namespace) -> None:
    """What is asked of the answer must be possible; a call that has been made may have cost something."""
    from antiphon.client.pages import listing

    if (options.stream or options.text) and not operation.streams:
        raise Misuse(f"{operation.name} has no stream; call it without --stream and --text.")
    if options.all and listing(operation) is None:
        raise Misuse(f"{operation.name} gives no list; call it without --all.")
    if options.output is not None and options.output.is_dir():
        raise Misuse(f"--output: {options.output} is a directory.")
    if options.output is not None and not options.output.parent.is_dir():
        raise Misuse(f"--output: there is no directory {options.output.parent}.")


def _api_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    if key := os.environ.get(variable, "").strip():
        return key
    raise Misuse(f"--api-key-env: the variable {variable} is not set, or empty; expected an API key.")


def _arguments(operation: Operation, options: Namespace) -> dict[str, Any]:
    """The keyword arguments that the command line means; whether they make sense is checked by the call."""
    from antiphon.cli.described import schemas

    given: dict[str, list[str | FileOf]] = {}
    for name, text in _pairs("-p", options.parameters):
        given.setdefault(name, []).append(text)
    for name, text in _pairs("-F", options.form):
        given.setdefault(name, []).append(_file(text[1:]) if text.startswith("@") else text)
    wanted = schemas(operation)
    arguments = {name: _value(each, wanted.get(name)) for name, each in given.items()}
    if options.data is not None:
        arguments["body"] = _body(options.data)
    return arguments


def _pairs(flag: str, given: list[str]) -> Iterator[tuple[str, str]]:
    for pair in given:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise Misuse(f"{flag}: {pair!r} is not NAME=VALUE.")
        yield name, text


def _file(path: str) -> FileOf:
    return ("stdin", sys.stdin.buffer) if path == "-" else Path(path)


def _value(given: list[str | FileOf], schema: Schema | None) -> Any:
    """The texts as the schema wants them; files as a list where it wants one or there are many."""
    read = converted([str(each) for each in given], schema)
    if not all(isinstance(each, str) for each in given):
        return given if isinstance(read, list) else given[0]
    return read


def converted(texts: list[str], schema: Schema | None) -> Any:
    """The first reading of the texts that the schema allows, or the likeliest if there is none."""
    readings = list(_readings(texts))
    return next((each for each in readings if schema is None or schema.valid(each)), readings[-1])


def _readings(texts: list[str]) -> Iterator[Any]:
    """What the texts may mean, in the order of trying: `"5"` where a string may stand, else 5."""
    if len(texts) == 1:
        yield texts[0]
    yield texts
    yield [_json_or_text(each) for each in texts]
    if len(texts) == 1:
        yield _json_or_text(texts[0])


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _body(data: str) -> Any:
    """What -d gives: JSON, the JSON of a file, or that of stdin."""
    try:
        if data in ("-", "@-"):
            return json.load(sys.stdin)
        if data.startswith("@"):
            return json.loads(Path(data[1:]).read_text(encoding="utf-8"))
        return json.loads(data)
    except OSError as error:
        raise Misuse(f"-d: {data[1:]} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise Misuse(f"-d: the body is not JSON: {error}.") from error


def _ask_for_events(operation: Operation, arguments: dict[str, Any]) -> None:
    from antiphon.cli.described import schemas

    switch, value = ("stream", True) if "stream" in schemas(operation) else ("stream_format", "sse")
    body = arguments.get("body")
    if isinstance(body, dict):
        body.pop(switch, None)
    arguments[switch] = value


@contextlib.contextmanager
def _writing(path: Path | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if path is None:
            raise
        raise AntiphonError(f"--output: {path} cannot be written: {error.strerror}.") from error


def _can_be_replaced(path: Path | None) -> bool:
    """Whether it is a plain file, there or to be: a pipe or a device is written to as it stands."""
    return path is not None and (path.is_file() or not path.exists())


@contextlib.contextmanager
def _stdout(path: Path | None) -> Iterator[None]:
    """What is printed meanwhile goes to the file, if there is one."""
    if path is None:
        yield
        return
    with path.open("w", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        yield


def _show(said: Any, options: Namespace) -> int:
    """Show the answer; the exit code is that of the way in which it ends."""
    from antiphon.client.download import Download
    from antiphon.client.pages import Page
    from antiphon.client.stream import Stream

    if isinstance(said, Stream):
        with said:
            code = _show_events(said, _show_text if options.text else _show_event)
        if options.text:
            print()
        return code
    if isinstance(said, Download):
        with said:
            sys.stdout.flush()
            for piece in said:
                sys.stdout.buffer.write(piece)
    elif options.all and isinstance(said, Page):
        for item in said.all():
            answer(item, pretty=False)
    elif said is not None:
        answer(said, pretty=sys.stdout.isatty())
    return 0


def _show_events(stream: Stream, show: Callable[[Any], None]) -> int:
    """Show each event; the exit code is that of the way in which they end."""
    ending: dict[str, Any] = {}
    for event in stream:
        show(event)
        if event.get("type") in ("response.failed", "response.incomplete"):
            ending = event["response"]
    if ending.get("status") == "failed":
        tell(f"antiphon: the response failed: {(ending.get('error') or {}).get('message')}")
        return 1
    if ending:
        reason = (ending.get("incomplete_details") or {}).get("reason")
        tell(f"antiphon: the response is {ending['status']}" + (f": {reason}" if reason else ""))
    return 0


def _show_event(event: Any) -> None:
    answer(event, pretty=False)


def _show_text(event: Any) -> None:
    if event.get("type") in TEXTS:
        print(event["delta"], end="", flush=True)
    for choice in event.get("choices", ()):  # of Chat Completions
        print(choice["delta"].get("content") or "", end="", flush=True)

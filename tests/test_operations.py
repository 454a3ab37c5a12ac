"""Every operation of the official document, called once: an application checks what it gets by the document."""

import inspect
import pydoc
import re
import rlcompleter
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from antiphon import AsyncClient, Client
from antiphon.client.download import Download
from antiphon.client.forms import text
from antiphon.spec import Document
from tests.servers.api import ApiServer, reply

DOCUMENT = Document.load()
FILE = b"\x00file"


# The smallest arguments that an operation takes.


def minimal(schema, named):
    """The smallest value that the schema describes, of alternatives the first."""
    own: dict[str, Any] = {"properties": {}, "required": []}
    for each in _together(schema, named):
        own["properties"] |= each.get("properties", {})
        own["required"] += each.get("required", [])
        own |= {name: value for name, value in each.items() if name not in own and name != "description"}
    if own.get("format") == "binary":
        return FILE
    if "const" in own or "enum" in own:
        return own.get("const", own.get("enum", [None])[0])
    kind = own.get("type", "object" if own["required"] or own["properties"] else "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        return {name: minimal(own["properties"].get(name, {}), named) for name in dict.fromkeys(own["required"])}
    if kind == "array":
        return [minimal(own.get("items", {}), named)] * own.get("minItems", 1)
    if kind == "string":
        return "x" * max(1, own.get("minLength", 1))
    return {"integer": own.get("minimum", 1), "number": own.get("minimum", 1), "boolean": True}.get(kind)


def _together(schema, named):
    """The schemas that speak of one value: its own, those it is made of, and the first of each alternative."""
    if "$ref" in schema:
        yield from _together(named.schema(schema["$ref"].rpartition("/")[2]), named)
    for each in schema.get("allOf", []) + schema.get("anyOf", [])[:1]:
        yield from _together(each, named)
    yield schema


def arguments_of(operation, *, optional=False):
    """Arguments by name; with `optional`, those parameters too that may be left out, but none that asks for events."""
    parameters = [each for each in operation.parameters if each.required or (optional and each.name != "stream")]
    arguments = {each.name: minimal(each.schema.raw, each.schema.named) for each in parameters}
    if operation.body:
        media = operation.body.media
        schema = next(media[kind] for kind in ("multipart/form-data", "application/json") if kind in media)
        arguments["body"] = minimal(schema.raw, schema.named)
    return arguments


# The other side.


def described(method, path):
    """The operation that a request is for: the most literal of the paths that fit."""
    fitting = []
    for operation in DOCUMENT.operations.values():
        pattern = re.sub(r"\\{([^}]+)\\}", r"([^/]+)", re.escape(operation.path))
        if operation.method == method and re.fullmatch(pattern, path):
            fitting.append((operation.path.count("{"), operation.id))
    return DOCUMENT.operation(min(fitting)[1])


def written(parameter, arguments):
    """The query pairs that a parameter should have become."""
    value = arguments[parameter.name]
    if isinstance(value, dict):
        return [[f"{parameter.name}[{key}]", text(each)] for key, each in value.items()]
    if isinstance(value, list):
        return [[f"{parameter.name.removesuffix('[]')}[]", text(each)] for each in value]
    return [[parameter.name, text(value)]]


async def checking(exchange):
    """Answers with what it was asked, and what is wrong with that by the document."""
    operation = described(exchange.method, exchange.path.removeprefix("/v1"))
    kind = exchange.headers.get("content-type", "").partition(";")[0]
    problems = []
    if operation.body and kind == "application/json":
        problems = [each.message for each in operation.body.media[kind].closed().problems(exchange.body)]
    elif operation.body and operation.body.required:
        assert kind in operation.body.media
        schema = operation.body.media[kind]
        fields = {each["name"].partition("[")[0] for each in exchange.body}
        required = {name for each in _together(schema.raw, schema.named) for name in each.get("required", ())}
        problems = sorted(required - fields)
    seen = {name: getattr(exchange, name) for name in ("path", "query", "body")}
    await reply(body={"operation": operation.id, "problems": problems, **seen})(exchange)


@pytest.fixture(scope="module")
def client():
    server = ApiServer()
    server.usual = checking
    with Client(app=server, max_retries=0) as client:
        yield client


def held(operation, arguments, seen):
    """Whether all that was given has arrived."""
    assert (seen["operation"], seen["problems"]) == (operation.id, [])
    in_path = [str(arguments[each.name]) for each in operation.parameters if each.location == "path"]
    assert all(each in unquote(seen["path"]).split("/") for each in in_path)
    in_query = [each for each in operation.parameters if each.location == "query" and each.name in arguments]
    assert seen["query"] == [pair for each in in_query for pair in written(each, arguments)]
    if operation.body and not isinstance(seen["body"], list):
        assert seen["body"] == arguments["body"]
    elif operation.body:
        files = [each for each in seen["body"] if each["filename"] is not None]
        assert all(each["data"] == FILE.decode("latin-1") for each in files)
        assert {each["name"].partition("[")[0] for each in seen["body"]} == set(arguments["body"])


@pytest.mark.parametrize("operation_id", DOCUMENT.operations)
def test_every_operation_can_be_called(client, operation_id):
    operation = DOCUMENT.operation(operation_id)
    arguments = arguments_of(operation)

    seen = getattr(client, operation.name)(**arguments)

    held(operation, arguments, seen)


@pytest.mark.parametrize("operation_id", [each.id for each in DOCUMENT.operations.values() if each.parameters])
def test_every_parameter_arrives(client, operation_id):
    operation = DOCUMENT.operation(operation_id)
    arguments = arguments_of(operation, optional=True)

    held(operation, arguments, client.call(operation_id, **arguments))


async def test_operations_of_every_kind_can_be_awaited():
    server = ApiServer()
    server.usual = checking
    async with AsyncClient(app=server, max_retries=0) as client:
        for operation_id in [*list(DOCUMENT.operations)[::20], "createFile", "createImageEdit", "create-realtime-call"]:
            operation = DOCUMENT.operation(operation_id)
            arguments = arguments_of(operation)
            held(operation, arguments, await client.call(operation_id, **arguments))


@pytest.mark.parametrize("operation_id", ["createSpeech", "RetrieveVideoContent", "GetSkillContent"])
def test_operations_that_answer_with_files_do(operation_id):
    server = ApiServer(reply(body=FILE, headers={"content-type": "application/octet-stream"}))
    with Client(app=server) as client:
        answer = client.call(operation_id, **arguments_of(DOCUMENT.operation(operation_id)))

        assert isinstance(answer, Download)
        assert answer.read() == FILE


@pytest.mark.parametrize("operation_id", [each.id for each in DOCUMENT.operations.values() if each.streams])
def test_operations_that_answer_with_events_do(operation_id):
    async def events(exchange):
        await exchange.start(200, {"content-type": "text/event-stream"})
        await exchange.say(b'data: {"type": "x.delta", "n": 1}\n\ndata: [DONE]\n\n', more=False)

    operation = DOCUMENT.operation(operation_id)
    how = {"stream_format": "sse"} if operation_id == "createSpeech" else {"stream": True}
    arguments = arguments_of(operation) | ({} if operation.method == "POST" else how)
    if operation.method == "POST":
        arguments["body"] |= how
    with Client(app=ApiServer(events), resume_seconds=0) as client:
        assert next(client.call(operation_id, **arguments)) == {"type": "x.delta", "n": 1}


# What a person is told who asks an operation what it takes.

ZOO = Path(__file__).parent / "documents" / "zoo.yaml"


def helped(method):
    return pydoc.plain(pydoc.render_doc(method))


def test_a_method_shows_the_type_and_the_default_of_each_keyword(client):
    assert repr(client.list_files).splitlines() == [
        "list_files(",
        "    *,",
        "    purpose: str = None,",
        "    limit: int = 10000,",
        "    order: Literal['asc', 'desc'] = 'desc',",
        "    after: str = None,",
        ")",
        "Gives a page of a list, ListFilesResponse.",
        "Raises InvalidRequest, ApiError, ConnectionFailed.",
    ]


@pytest.mark.parametrize(
    ("operation", "lines"),
    [
        (
            "create_response",
            [
                "    model: str,",
                "    temperature: float | None = 1,",
                "    truncation: Literal['auto', 'disabled'] | None = 'disabled',",
                "    tools: list[dict[str, Any]] = ...,",
                "    metadata: dict[str, Any] | None = ...,",
                "    idempotency_key: str = ...,",
                "Gives Response; with `stream=True` a stream of events.",
            ],
        ),
        ("create_file", ["    file: Path | bytes | IO[bytes] | tuple,", "    body: dict[str, Any] = ...,"]),
        (
            "create_speech",
            ['Gives a Download (application/octet-stream); with `stream_format="sse"` a stream of events.'],
        ),
        ("list_audit_logs", ["    effective_at: dict[str, Any] = None,", "    project_ids: list[str] = None,"]),
        ("create_realtime_call", ["    sdp: str,"]),
    ],
)
def test_a_method_shows_bodies_files_streams_and_errors(client, operation, lines):
    shown = repr(getattr(client, operation)).splitlines()

    assert [line for line in lines if line not in shown] == []


def test_help_tells_all_of_an_operation(client):
    told = helped(client.get_response)

    assert told.startswith(
        "Python Library Documentation: Method in module antiphon.client.methods\n\nget_response(*, re"
    )
    assert "stream: bool = None, starting_after: int = None" in told
    assert "GET /responses/{response_id} (getResponse)" in told
    assert "        starting_after (integer, in query, optional): The sequence number of the event" in told
    assert "    Gives Response; with `stream=True` a stream of events." in told
    assert "        InvalidRequest: the arguments do not fit; nothing was sent" in told
    assert "        StreamBroken: a stream breaks and cannot be resumed" in told


def test_help_tells_the_fields_of_a_body(client):
    told = helped(client.create_file)

    assert "    Body: multipart/form-data\n" in told
    assert "        file (file, required): The File object (not file name) to be uploaded." in told
    assert "        purpose (assistants|batch|fine-tune|vision|user_data|evals, required): " in told
    assert "        expires_after (object, optional): " in told


@pytest.mark.parametrize("operation_id", DOCUMENT.operations)
def test_every_operation_has_help_and_takes_what_it_shows(client, operation_id):
    operation = DOCUMENT.operation(operation_id)
    method = getattr(client, operation.name)
    needed = {name for name, each in inspect.signature(method).parameters.items() if each.default is each.empty}

    assert helped(method).count(f"{operation.method} {operation.path}") == 1
    assert repr(method).startswith(f"{operation.name}(")
    assert {each.name.removesuffix("[]") for each in operation.parameters if each.required} <= needed


def test_a_method_shows_the_errors_that_the_description_names():
    with Client(spec=ZOO) as client:
        assert (
            repr(client.get_animal).splitlines()[-1] == "Raises InvalidRequest, NotFound, ApiError, ConnectionFailed."
        )
        assert "        NotFound: 404, No such animal\n" in helped(client.get_animal)


def test_a_keyword_that_python_cannot_spell_is_told_too():
    with Client(spec=ZOO) as client:
        assert "**others" in str(inspect.signature(client.list_animals))
        assert "    from (string, in query, required)" in str(client.list_animals.__doc__)
        assert "    body: Path | bytes | IO[bytes] | tuple," in repr(client.operation_2nd_photo)


def test_the_names_of_operations_are_those_of_their_methods(tmp_path):
    """An id may have no letter that a name could be made of."""
    paths = "".join(
        f"  /{n}: {{get: {{operationId: {id}, responses: {{'200': {{description: OK}}}}}}}}\n"
        for n, id in enumerate(["получить", "取得", "get-it"])
    )
    path = tmp_path / "letters.yaml"
    path.write_text("openapi: 3.1.0\ninfo: {title: Letters, version: '1'}\npaths:\n" + paths, encoding="utf-8")

    with Client("http://127.0.0.1/v1", spec=path) as client:
        assert len(set(client.operations)) == 3
        assert sorted(each.name for each in client.document.operations.values()) == list(client.operations)
        assert all(getattr(client, name).__name__ == name for name in client.operations)


def test_the_completer_of_python_finds_operations(client):
    completer = rlcompleter.Completer({"client": client})

    assert [completer.complete("client.get_resp", 0), completer.complete("client.get_resp", 1)] == [
        "client.get_response(",
        None,
    ]
    assert completer.complete("client.list_mod", 0) == "client.list_models()"
    assert completer.complete("client.raw.get_resp", 0) == "client.raw.get_response("


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("client.get_resp", ["get_response"]),
        ("client.get_response(include_", ["include_obfuscation="]),
        ("client.create_response(max_o", ["max_output_tokens="]),
        ("client.create_speech(stream_f", ["stream_format="]),
        ("client.raw.delete_respo", ["delete_response"]),
    ],
)
@pytest.mark.filterwarnings("default")  # what it and its parts do is their affair
def test_ipython_finds_operations_and_their_keywords(client, line, offered, tmp_path, monkeypatch):
    interactive = pytest.importorskip("IPython.core.interactiveshell")
    from IPython.core.completer import provisionalcompleter
    from traitlets.config import Config

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    shell = interactive.InteractiveShell(config=Config(HistoryManager={"enabled": False}))
    shell.user_ns["client"] = client
    with provisionalcompleter():
        found = [each.text for each in shell.Completer.completions(line, len(line))]

    assert found == offered

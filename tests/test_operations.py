"""Every operation of the official document, called once: an application checks what it gets by the document."""

import re
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

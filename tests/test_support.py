"""What is supported: one table that names everything the API knows, and tells the truth about it."""

from typing import Any

import pytest

from antiphon.protocol.fold import CHANGES_NOTHING, FOLD
from antiphon.protocol.view import INCLUDES
from antiphon.server.app import OPERATIONS
from antiphon.server.support import EVENTS, FIELDS, INCLUDE, INPUT_ITEMS, OUTPUT_ITEMS, PARTS, TOOLS, unavailable_tools
from antiphon.spec import Document
from tests.servers.antiphon import antiphon, created
from tests.test_items import AUDIO, FILE, FUNCTION, IMAGE, SENT, USER

OK: dict[str, Any] = {"model": "text:Hello there", "input": "Hi"}

# A value for each field, such as the API takes it; what it names need not be there.
FIELD_VALUES: dict[str, Any] = {
    "background": True,
    "client_metadata": {"session": "x"},
    "context_management": [{"type": "compaction", "compact_threshold": 100_000}],
    "conversation": "conv_1",
    "frequency_penalty": 0.5,
    "include": ["message.output_text.logprobs"],
    "input": "Ho",
    "instructions": "Be short.",
    "max_output_tokens": 100,
    "max_tool_calls": 1,
    "metadata": {"a": "b"},
    "model": "text:Ho",
    "moderation": {"model": "omni-moderation-latest"},
    "parallel_tool_calls": False,
    "presence_penalty": 0.5,
    "previous_response_id": "resp_1",
    "prompt": {"id": "pmpt_1"},
    "prompt_cache_key": "a",
    "prompt_cache_options": {"mode": "explicit"},
    "prompt_cache_retention": "24h",
    "reasoning": {"effort": "low"},
    "reasoning.context": "all_turns",
    "reasoning.effort": "high",
    "reasoning.generate_summary": "auto",
    "reasoning.mode": "pro",
    "reasoning.summary": "auto",
    "safety_identifier": "a",
    "service_tier": "flex",
    "store": False,
    "stream": False,
    "stream_options": {"include_obfuscation": False},
    "temperature": 0.5,
    "text": {"verbosity": "low"},
    "tool_choice": "none",
    "tools": [FUNCTION],
    "tools[].allowed_callers": ["programmatic"],
    "tools[].defer_loading": True,
    "tools[].output_schema": {"type": "object"},
    "top_logprobs": 2,
    "top_p": 0.5,
    "truncation": "auto",
    "user": "a",
}

ITEM_VALUES: list[dict[str, Any]] = [
    *SENT,
    {"type": "item_reference", "id": "msg_1"},
    {"type": "compaction_trigger"},
    {"type": "agent_message", "author": "a", "recipient": "b", "content": []},
    {"type": "multi_agent_call", "call_id": "c", "action": "wait_agent", "arguments": "{}"},
    {"type": "multi_agent_call_output", "call_id": "c", "action": "wait_agent", "output": []},
]

PART_VALUES: list[dict[str, Any]] = [
    {"type": "input_text", "text": "Hi"},
    IMAGE,
    FILE,
    AUDIO,
    {"type": "scoped_content"},
]

TOOL_VALUES: list[dict[str, Any]] = [
    FUNCTION,
    {"type": "custom", "name": "c"},
    {"type": "namespace", "name": "n", "description": "", "tools": [FUNCTION]},
    {"type": "local_shell"},
    {"type": "shell"},
    {"type": "shell", "environment": {"type": "local"}},
    {"type": "apply_patch"},
    {"type": "computer"},
    {"type": "computer_use_preview", "environment": "linux", "display_width": 1, "display_height": 1},
    {"type": "tool_search"},
    {"type": "tool_search", "execution": "client"},
]

HOSTED: list[dict[str, Any]] = [
    {"type": "web_search"},
    {"type": "web_search_2025_08_26"},
    {"type": "web_search_preview"},
    {"type": "web_search_preview_2025_03_11"},
    {"type": "file_search", "vector_store_ids": ["vs_1"]},
    {"type": "code_interpreter", "container": {"type": "auto"}},
    {"type": "image_generation"},
    {"type": "mcp", "server_label": "x", "server_url": "https://example.com/mcp"},
    {"type": "programmatic_tool_calling"},
    {"type": "shell", "environment": {"type": "container_auto"}},
]


@pytest.fixture(scope="module")
def document():
    return Document.load()


@pytest.fixture(scope="module")
def server():
    with antiphon() as server:
        yield server


@pytest.fixture
async def http(server):
    async with server.http() as http:
        yield http


def by_type(value):
    return value.get("type", "message")


def named(document, schema):
    """The component schema that a reference names, or the schema itself."""
    return document.schema(schema["$ref"].rpartition("/")[2]).raw if "$ref" in schema else schema


def types(document, schema):
    """Every `type` that an object of the schema may have."""
    raw = named(document, schema)
    found = set(raw.get("properties", {}).get("type", {}).get("enum", ()))
    for choice in raw.get("properties", {}).get("type", {}).get("anyOf", ()):
        found |= set(choice.get("enum", ()))
    return found.union(*(types(document, part) for part in (*raw.get("allOf", ()), *raw.get("anyOf", ()))))


def fields(document, schema):
    raw = named(document, schema)
    return set(raw.get("properties", ())).union(*(fields(document, part) for part in raw.get("allOf", ())))


def of(name):
    return {"$ref": f"#/components/schemas/{name}"}


def test_the_table_names_every_field_of_a_create(document):
    assert {path for path in FIELDS if "." not in path} == fields(document, of("CreateResponse"))
    assert {path.split(".")[0].removesuffix("[]") for path in FIELDS} <= fields(document, of("CreateResponse"))


@pytest.mark.parametrize(
    ("rows", "schema"),
    [(INPUT_ITEMS, "InputItem"), (OUTPUT_ITEMS, "OutputItem"), (TOOLS, "Tool")],
    ids=["input items", "output items", "tools"],
)
def test_the_table_names_every_type(document, rows, schema):
    assert set(rows) == types(document, of(schema))


def test_the_table_names_every_part(document):
    parts = ("InputContent", "AssistantContentParam", "SummaryTextContent", "ReasoningTextContent")
    known = {type for part in (*parts, "ComputerScreenshotImage") for type in types(document, of(part))}

    assert set(PARTS) - {"file_id"} == known


def test_the_table_names_every_value_of_include(document):
    (named,) = [each for each in document.operation("listInputItems").parameters if each.name == "include"]

    assert set(INCLUDE) == set(INCLUDES) == types_of_enum(document, named.schema.raw["items"])


def types_of_enum(document, schema):
    return set(named(document, schema)["enum"])


def test_the_table_names_every_event(document):
    assert set(EVENTS) == set(document.event_types)


def test_every_event_of_the_table_is_understood():
    lifecycle = {"created", "queued", "in_progress", "completed", "incomplete", "failed"}
    items = {"output_item.added", "output_item.done"}

    assert set(EVENTS) <= {*FOLD, *CHANGES_NOTHING, *(f"response.{name}" for name in lifecycle | items)}


async def test_the_server_tells_its_table(http, document):
    told = (await http.get("/support")).json()

    assert told["fields"]["moderation"] == {"status": "refused", "note": "Nothing here rates texts."}
    assert told["fields"]["input"] == {"status": "supported"}
    assert told["tools"]["mcp"]["status"] == "accepted"
    tables = {"fields": FIELDS, "input_items": INPUT_ITEMS, "parts": PARTS, "tools": TOOLS, "include": INCLUDE}
    tables |= {"output_items": OUTPUT_ITEMS, "events": EVENTS}
    assert {group: list(told[group]) for group in tables} == {group: list(rows) for group, rows in tables.items()}


async def test_an_operation_is_supported_if_it_is_served(http, document):
    told = (await http.get("/support")).json()["operations"]
    paths = ("/responses", "/conversations")
    ours = {id for id, operation in document.operations.items() if operation.path.startswith(paths)}

    assert set(told) == ours
    assert {id for id, row in told.items() if row["status"] == "supported"} == ours & set(OPERATIONS)


def test_every_name_of_the_table_is_tried():
    assert set(FIELD_VALUES) == set(FIELDS)
    assert {by_type(item) for item in ITEM_VALUES} == set(INPUT_ITEMS)
    assert {by_type(tool) for tool in TOOL_VALUES + HOSTED} == set(TOOLS)


def asking(path, value):
    """The create body that asks for a field."""
    if path.startswith("tools[]."):
        return {"tools": [FUNCTION | {path.removeprefix("tools[]."): value}]}
    name, _, member = path.partition(".")
    return {name: {member: value} if member else value}


async def refused(http, **body):
    """Where a create asks for what this server does not carry out; the model's server may refuse things of its own."""
    answer = await http.post("/responses", json={**OK, **body})
    error = answer.json().get("error") or {}
    assert answer.status_code < 500, answer.text
    ours = str(error.get("code")).startswith("unsupported_") and error["param"] != "input"
    return error["param"] if ours else None


@pytest.mark.parametrize("path", FIELD_VALUES)
async def test_a_field_is_refused_by_name_or_not_at_all(http, path):
    param = await refused(http, **asking(path, FIELD_VALUES[path]))

    assert param == (path.replace("[]", "[0]") if FIELDS[path].status == "refused" else None)


@pytest.mark.parametrize("path", [path for path, row in FIELDS.items() if row.status == "refused"])
async def test_a_field_that_asks_for_nothing_is_let_through(http, path):
    nothing = {"tools[].allowed_callers": ["direct"], "reasoning.context": "auto", "reasoning.mode": "standard"}

    assert await refused(http, **asking(path, nothing.get(path))) is None


@pytest.mark.parametrize("item", ITEM_VALUES, ids=by_type)
async def test_an_item_is_refused_by_type_or_not_at_all(http, item):
    param = await refused(http, input=[USER, item])

    assert param == ("input[1].type" if INPUT_ITEMS[by_type(item)].status == "refused" else None)


@pytest.mark.parametrize("part", PART_VALUES, ids=by_type)
async def test_a_part_is_refused_by_type_or_not_at_all(http, part):
    param = await refused(http, input=[{"role": "user", "content": [part]}])

    assert param == ("input[0].content[0].type" if PARTS[by_type(part)].status == "refused" else None)


NAMED_FILES = [
    {"role": "user", "content": [{"type": "input_image", "file_id": "file-1"}]},
    {"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]},
    {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_file", "file_id": "file-1"}]},
    {"type": "custom_tool_call_output", "call_id": "c", "output": [{"type": "input_image", "file_id": "file-1"}]},
    {"type": "computer_call_output", "call_id": "c", "output": {"type": "computer_screenshot", "file_id": "file-1"}},
]


@pytest.mark.parametrize("item", NAMED_FILES, ids=by_type)
async def test_a_file_that_is_only_named_is_refused(http, item):
    answer = await http.post("/responses", json={**OK, "input": [item]})
    error = answer.json()["error"]

    assert answer.status_code == 400
    assert error["param"].removesuffix(".file_id") in ("input[0].content[0]", "input[0].output[0]", "input[0].output")
    assert error["message"].startswith("Files are not served here yet")


@pytest.mark.parametrize("tool", TOOL_VALUES, ids=by_type)
async def test_a_tool_that_the_client_runs_is_taken(http, tool):
    assert await refused(http, tools=[tool]) is None
    assert unavailable_tools({"tools": [tool]}) == ()


@pytest.mark.parametrize("tool", HOSTED, ids=by_type)
async def test_a_hosted_tool_is_echoed_and_told_to_be_missing(http, tool):
    response = await created(http, "text", tools=[FUNCTION, tool, tool])

    assert [each["type"] for each in response["tools"]] == ["function", tool["type"], tool["type"]]
    assert unavailable_tools({"tools": [FUNCTION, tool, tool]}) == (tool["type"],)


@pytest.mark.parametrize("type", ["additional_tools", "tool_search_output"])
def test_a_hosted_tool_that_the_input_brings_is_missing_too(type):
    assert unavailable_tools({"input": [USER, {"type": type, "tools": [FUNCTION, *HOSTED]}]})[0] == "web_search"


@pytest.mark.parametrize("tool", HOSTED, ids=by_type)
async def test_a_strict_server_refuses_hosted_tools(strict, tool):
    assert await refused(strict, tools=[FUNCTION, tool]) == "tools[1].type"


async def test_a_strict_server_takes_tools_that_the_client_runs(strict):
    assert await refused(strict, tools=TOOL_VALUES) is None


@pytest.fixture(scope="module")
def strict_server():
    with antiphon(strict_tools=True) as server:
        yield server


@pytest.fixture
async def strict(strict_server):
    async with strict_server.http() as http:
        yield http


@pytest.mark.parametrize(
    ("choice", "tools", "param"),
    [
        ({"type": "web_search_preview"}, [], "tool_choice.type"),
        ({"type": "mcp", "server_label": "x"}, [], "tool_choice.type"),
        ({"type": "programmatic_tool_calling"}, [], "tool_choice.type"),
        ({"type": "shell"}, [{"type": "shell", "environment": {"type": "container_auto"}}], "tool_choice.type"),
        ("required", [{"type": "web_search"}, {"type": "image_generation"}], "tool_choice"),
        ({"type": "allowed_tools", "mode": "required", "tools": [{"type": "web_search"}]}, [], "tool_choice.tools"),
        ({"type": "shell"}, [{"type": "shell"}], None),
        ({"type": "function", "name": "f"}, [FUNCTION, {"type": "web_search"}], None),
        ("required", [FUNCTION, {"type": "web_search"}], None),
        ("auto", [{"type": "web_search"}], None),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "web_search"}]},
            [FUNCTION, {"type": "web_search"}],
            None,
        ),
    ],
)
async def test_a_choice_that_leaves_only_hosted_tools_is_refused(http, choice, tools, param):
    assert await refused(http, tool_choice=choice, tools=tools) == param


@pytest.mark.parametrize("name", ["background", "conversation"])
async def test_what_must_be_stored_cannot_be_unstored(http, name):
    conversation = (await http.post("/conversations", json={})).json()["id"]
    value = {"background": True, "conversation": conversation}[name]
    answer = await http.post("/responses", json={**OK, "store": False, name: value})

    assert answer.status_code == 400
    assert (answer.json()["error"]["param"], answer.json()["error"]["code"]) == (name, "invalid_value")


async def test_an_output_without_its_call_is_refused(http):
    answer = await http.post("/responses", json={**OK, "input": [{"type": "function_call_output", "output": "x"}]})

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "input[0].call_id"


async def test_what_codex_sends_is_taken(http):
    """It offers a hosted tool with every request, and leaves out what items need only when they are listed."""
    grammar = {"type": "grammar", "syntax": "lark", "definition": 'start: "a"'}
    answer = await http.post(
        "/responses",
        json={
            "model": "text:Hello there",
            "instructions": "You are a coding agent.",
            "input": [
                {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Be short."}]},
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Ho"}]},
                {"type": "function_call", "name": "shell", "arguments": "{}", "call_id": "call_1"},
                {"type": "function_call_output", "call_id": "call_1", "output": "a.txt"},
                {"type": "custom_tool_call", "status": "completed", "call_id": "call_2", "name": "p", "input": "a"},
                {"type": "custom_tool_call_output", "call_id": "call_2", "output": "done"},
                {"type": "web_search_call", "status": "completed", "action": {"type": "other"}},
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "And now?"}]},
            ],
            "tools": [
                {"type": "function", "name": "shell", "strict": False, "parameters": {"type": "object"}},
                {"type": "custom", "name": "p", "description": "", "format": grammar},
                {"type": "namespace", "name": "mcp__files", "description": "", "tools": [FUNCTION]},
                {"type": "web_search", "external_web_access": False},
                {"type": "local_shell"},
            ],
            "tool_choice": "auto",
            "parallel_tool_calls": True,
            "reasoning": {"effort": "medium", "summary": "auto"},
            "store": False,
            "stream": False,
            "include": ["reasoning.encrypted_content"],
            "prompt_cache_key": "a",
            "text": {"verbosity": "low"},
            "client_metadata": {"session_id": "a"},
        },
    )

    assert answer.status_code == 200, answer.text
    assert [tool["type"] for tool in answer.json()["tools"]][-2:] == ["web_search", "local_shell"]

"""Every error that the wire reference lists: the bad request is sent, and the whole answer is compared.

A row is what is sent and what comes back: status, type, code, param and message. Where our behaviour is decided
otherwise than what the API was seen to do, the row or the test says ours.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.servers.antiphon import antiphon, created, creating, replayed
from tests.servers.chat import Stream, script

OK = {"model": "text", "input": "Hi"}
USER = {"role": "user", "content": "Hi"}
INVALID = "invalid_request_error"


@dataclass(frozen=True)
class Request:
    """A request; `{finished}`, `{deleted}` and the like in its path stand for what the fixture `known` has made."""

    method: str
    path: str
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Fault:
    status: int
    type: str
    code: str | None
    param: str | None
    message: str


def create(**fields: Any) -> Request:
    """A create that would do, but for these fields."""
    return Request("POST", "/responses", {**OK, **fields})


def body(**fields: Any) -> Request:
    """A create with these fields alone."""
    return Request("POST", "/responses", fields)


def get(path: str) -> Request:
    return Request("GET", path)


def bad(code: str | None, param: str | None, message: str) -> Fault:
    return Fault(400, INVALID, code, param, message)


def missing(param: str) -> Fault:
    return bad("missing_required_parameter", param, f"Missing required parameter: '{param}'.")


def unknown(param: str, hint: str = "") -> Fault:
    return bad("unknown_parameter", param, f"Unknown parameter: '{param}'.{hint}")


def wrong_type(param: str, expected: str, found: str) -> Fault:
    return bad("invalid_type", param, f"Invalid type for '{param}': expected {expected}, but got {found} instead.")


def wrong_value(param: str, value: str, supported: str) -> Fault:
    return bad("invalid_value", param, f"Invalid value: '{value}'. Supported values are: {supported}.")


def not_found(message: str) -> Fault:
    return Fault(404, INVALID, None, None, message)


NO_INPUT = bad(
    "missing_required_parameter",
    None,
    "One of \"input\" or \"previous_response_id\" or 'prompt' or 'conversation' must be provided.",
)
INCLUDES = (
    "'file_search_call.results', 'web_search_call.results', 'web_search_call.action.sources', "
    "'message.input_image.image_url', 'computer_call_output.output.image_url', 'code_interpreter_call.outputs', "
    "'reasoning.encrypted_content', and 'message.output_text.logprobs'"
)
ITEMS = (
    "'additional_tools', 'agent_message', 'apply_patch_call', 'apply_patch_call_output', 'code_interpreter_call', "
    "'compaction', 'compaction_trigger', 'computer_call', 'computer_call_output', 'custom_tool_call', "
    "'custom_tool_call_output', 'file_search_call', 'function_call', 'function_call_output', "
    "'image_generation_call', 'item_reference', 'local_shell_call', 'local_shell_call_output', "
    "'mcp_approval_request', 'mcp_approval_response', 'mcp_call', 'mcp_list_tools', 'message', 'multi_agent_call', "
    "'multi_agent_call_output', 'program', 'program_output', 'reasoning', 'shell_call', 'shell_call_output', "
    "'tool_search_call', 'tool_search_output', and 'web_search_call'"
)
ROLES = "'assistant', 'system', 'developer', and 'user'"
USER_PARTS = "'input_text', 'input_image', 'input_file', 'scoped_content', and 'input_audio'"

IDS: dict[str, tuple[Request, Fault]] = {
    **{
        f"{name}, {method} {path}": (
            Request(method, path.format(known)),
            not_found(f"Response with id '{known}' not found."),
        )
        for name, known in (("unknown", "resp_x"), ("deleted", "{deleted}"))
        for method, path in (
            ("GET", "/responses/{}"),
            ("GET", "/responses/{}?stream=true"),
            ("GET", "/responses/{}/input_items"),
            ("DELETE", "/responses/{}"),
            ("POST", "/responses/{}/cancel"),
        )
    },
    **{
        f"of another kind, {method} {path}": (
            Request(method, path),
            bad("invalid_id_prefix", name, f"Invalid '{name}': 'x'. Expected an ID that begins with '{prefix}'."),
        )
        for method, path, name, prefix in (
            ("GET", "/responses/x", "response_id", "resp"),
            ("GET", "/responses/x?stream=true", "response_id", "resp"),
            ("GET", "/responses/x/input_items", "response_id", "resp"),
            ("DELETE", "/responses/x", "response_id", "resp"),
            ("POST", "/responses/x/cancel", "response_id", "resp"),
            ("GET", "/conversations/x", "conversation_id", "conv"),
            ("DELETE", "/conversations/x", "conversation_id", "conv"),
            ("GET", "/conversations/x/items", "conversation_id", "conv"),
        )
    },
    "continued, unknown": (
        create(previous_response_id="resp_x"),
        bad("previous_response_not_found", "previous_response_id", "Previous response with id 'resp_x' not found."),
    ),
    "continued, deleted": (
        create(previous_response_id="{deleted}"),
        bad("previous_response_not_found", "previous_response_id", "Previous response with id '{deleted}' not found."),
    ),
    "continued, of another kind": (
        create(previous_response_id="x"),
        bad(
            "invalid_id_prefix",
            "previous_response_id",
            "Invalid 'previous_response_id': 'x'. Expected an ID that begins with 'resp'.",
        ),
    ),
    "continued, and a conversation": (
        create(previous_response_id="resp_x", conversation="conv_x"),
        bad(
            "mutually_exclusive_parameters",
            None,
            "Mutually exclusive parameters: ''. "
            "Ensure you are only providing one of: 'previous_response_id' or 'conversation'.",
        ),
    ),
    "conversation unknown": (create(conversation="conv_x"), not_found("Conversation with id 'conv_x' not found.")),
    "conversation unknown, as an object": (
        create(conversation={"id": "conv_x"}),
        not_found("Conversation with id 'conv_x' not found."),
    ),
    "conversation unknown, asked for": (
        get("/conversations/conv_x"),
        not_found("Conversation with id 'conv_x' not found."),
    ),
    "prompt unknown": (create(prompt={"id": "pmpt_x"}), not_found("Prompt with id 'pmpt_x' not found.")),
    "item unknown": (
        create(input=[{"type": "item_reference", "id": "rs_x"}]),
        not_found(
            "Item with id 'rs_x' not found. Items are not persisted when `store` is set to false. "
            "Try again with `store` set to true, or remove this item from your input."
        ),
    ),
}

MODEL_AND_INPUT: dict[str, tuple[Request, Fault]] = {
    "everything missing": (body(), missing("model")),
    "model missing": (body(input="Hi"), missing("model")),
    "model missing, beside no prompt": (body(input="Hi", prompt=None), missing("model")),
    "model null": (create(model=None), wrong_type("model", "a string", "an object")),
    # What models there are is for the model's server to say.
    "model empty": (
        create(model=""),
        bad("model_not_found", "model", "The requested model '' does not exist."),
    ),
    "model unknown": (
        create(model="unheard-of"),
        Fault(404, INVALID, "model_not_found", None, "The model 'unheard-of' does not exist."),
    ),
    "input missing": (body(model="text"), missing("input")),
    "input missing, beside no prompt": (body(model="text", prompt=None), missing("input")),
    "input missing, but continued": (body(model="text", previous_response_id="resp_x"), missing("input")),
    "input an empty array": (create(input=[]), NO_INPUT),
    "input an empty string": (create(input=""), NO_INPUT),
    "input null": (create(input=None), wrong_type("input", "a string", "an object")),
    "messages": (
        body(model="text", messages=[USER]),
        bad(
            "unsupported_parameter",
            None,
            "Unsupported parameter: 'messages'. In the Responses API, this parameter has moved to 'input'.",
        ),
    ),
}

KEYS: dict[str, tuple[Request, Fault]] = {
    "unlike any": (create(bogus=1), unknown("bogus")),
    "like one": (create(stor=True), unknown("stor", " Did you mean 'store'?")),
    "like two": (create(strea=True), unknown("strea", " Did you mean 'store' or 'stream'?")),
    "like one that is there": (create(stor=True, store=True), unknown("stor")),
    "below another": (create(reasoning={"efort": "low"}), unknown("reasoning.efort", " Did you mean 'effort'?")),
    "of Chat's streams": (
        create(stream=True, stream_options={"include_usage": True}),
        unknown("stream_options.include_usage"),
    ),
    "phase of a user": (create(input=[{**USER, "phase": "commentary"}]), unknown("input[0].phase")),
    "options of the cache": (create(prompt_cache_options={"bogus": 1}), unknown("prompt_cache_options.bogus")),
}

TYPES: dict[str, tuple[Request, Fault]] = {
    "a string": (create(instructions=1), wrong_type("instructions", "a string", "an integer")),
    "an integer": (create(max_output_tokens="20"), wrong_type("max_output_tokens", "an integer", "a string")),
    "a decimal": (create(temperature="hot"), wrong_type("temperature", "a decimal", "a string")),
    "a boolean": (create(store="no"), wrong_type("store", "a boolean", "a string")),
    "an object": (create(text=[]), wrong_type("text", "an object", "an array")),
    "an array of tools": (create(tools={}), wrong_type("tools", "an array of tools", "an object")),
    "an array of objects": (
        create(context_management=True),
        wrong_type("context_management", "an array of objects", "a boolean"),
    ),
    "a metadata object": (create(metadata=1.5), wrong_type("metadata", "a metadata object", "a decimal")),
    "an input item": (create(input=[USER, "Hi"]), wrong_type("input[1]", "an input item", "a string")),
    "one of two": (create(input={}), wrong_type("input", "one of a string or array of input items", "an object")),
}

VALUES: dict[str, tuple[Request, Fault]] = {
    "one of two": (create(truncation="bogus"), wrong_value("truncation", "bogus", "'auto' and 'disabled'")),
    "one of three": (
        create(tool_choice="bogus"),
        wrong_value("tool_choice", "bogus", "'none', 'auto', and 'required'"),
    ),
    "include": (create(include=["bogus.thing"]), wrong_value("include[0]", "bogus.thing", INCLUDES)),
    "include of a GET": (get("/responses/resp_x?include[]=bogus"), wrong_value("include[0]", "bogus", INCLUDES)),
    "order": (
        create(text={"verbosity": "loud"}),
        wrong_value("text.verbosity", "loud", "'low', 'medium', and 'high'"),
    ),
    "integer too small": (
        create(max_output_tokens=15),
        bad(
            "integer_below_min_value",
            "max_output_tokens",
            "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16, but got 15 instead.",
        ),
    ),
    "count too small": (
        create(max_tool_calls=0),
        bad(
            "integer_below_min_value",
            "max_tool_calls",
            "Invalid 'max_tool_calls': integer below minimum value. Expected a value >= 1, but got 0 instead.",
        ),
    ),
    "integer too large": (
        create(top_logprobs=21),
        bad(
            "integer_above_max_value",
            "top_logprobs",
            "Invalid 'top_logprobs': integer above maximum value. Expected a value <= 20, but got 21 instead.",
        ),
    ),
    "decimal too small": (
        create(temperature=-1),
        bad(
            "decimal_below_min_value",
            "temperature",
            "Invalid 'temperature': decimal below minimum value. Expected a value >= 0, but got -1 instead.",
        ),
    ),
    "decimal too large": (
        create(top_p=1.5),
        bad(
            "decimal_above_max_value",
            "top_p",
            "Invalid 'top_p': decimal above maximum value. Expected a value <= 1, but got 1.5 instead.",
        ),
    ),
    "too much metadata": (
        create(metadata={f"k{number}": "v" for number in range(17)}),
        bad(
            "object_above_max_properties",
            "metadata",
            "Invalid 'metadata': too many properties. Expected an object with at most 16 properties, "
            "but got an object with 17 properties instead.",
        ),
    ),
    "metadata too long": (
        create(metadata={"k": "v" * 600}),
        bad(
            "string_above_max_length",
            "metadata.k",
            "Invalid 'metadata.k': string too long. Expected a string with maximum length 512, "
            "but got a string with length 600 instead.",
        ),
    ),
    "key of metadata too long": (
        create(metadata={"k" * 70: "v"}),
        bad(
            "property_name_above_max_length",
            "metadata." + "k" * 70,
            "Invalid property name in 'metadata': 'kkk...kkk' is too long. "
            "Expected a string with maximum length 64, but got a string with length 70 instead.",
        ),
    ),
    "empty array": (
        create(context_management=[]),
        bad(
            "empty_array",
            "context_management",
            "Invalid 'context_management': empty array. Expected an array with minimum length 1, "
            "but got an empty array instead.",
        ),
    ),
    "array too long": (
        Request("POST", "/conversations", {"items": [USER] * 21}),
        bad(
            "array_above_max_length",
            "items",
            "Invalid 'items': array too long. Expected an array with maximum length 20, "
            "but got an array with length 21 instead.",
        ),
    ),
    "limit too small": (
        get("/responses/{finished}/input_items?limit=0"),
        bad(
            "integer_below_min_value",
            "limit",
            "Invalid 'limit': integer below minimum value. Expected a value >= 1, but got 0 instead.",
        ),
    ),
    "limit too large": (
        get("/responses/{finished}/input_items?limit=101"),
        bad(
            "integer_above_max_value",
            "limit",
            "Invalid 'limit': integer above maximum value. Expected a value <= 100, but got 101 instead.",
        ),
    ),
    "background, and not stored": (
        create(background=True, store=False),
        bad(
            "invalid_value",
            "background",
            "A background response must be stored: 'background' needs 'store' to be true.",
        ),
    ),
}

ITEMS_OF_INPUT: dict[str, tuple[Request, Fault]] = {
    "unknown type": (create(input=[{"type": "bogus_item"}]), wrong_value("input[0]", "bogus_item", ITEMS)),
    "unknown role": (create(input=[{"role": "tool", "content": "Hi"}]), wrong_value("input[0]", "tool", ROLES)),
    "nothing": (create(input=[USER, {}]), wrong_value("input[1]", "", ROLES)),
    "no content": (create(input=[{"role": "user"}]), missing("input[0].content")),
    "part of the assistant": (
        create(input=[{"role": "user", "content": [{"type": "output_text", "text": "Hi"}]}]),
        wrong_value("input[0].content[0]", "output_text", USER_PARTS),
    ),
    "part of the user": (
        create(input=[{"role": "assistant", "content": [{"type": "input_text", "text": "Hi"}]}]),
        wrong_value("input[0].content[0]", "input_text", "'output_text' and 'refusal'"),
    ),
    "part without type": (
        create(input=[{"role": "user", "content": [{"text": "Hi"}]}]),
        missing("input[0].content[0].type"),
    ),
    "call without output": (
        create(input=[USER, {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"}]),
        bad(None, "input", "No tool output found for function call call_1."),
    ),
    "reasoning without what followed": (
        create(input=[USER, {"type": "reasoning", "id": "rs_1", "summary": []}]),
        bad(None, "input", "Item 'rs_1' of type 'reasoning' was provided without its required following item."),
    ),
    "file by id": (
        create(input=[{"role": "user", "content": [{"type": "input_file", "file_id": "file-x"}]}]),
        bad(
            "unsupported_parameter",
            "input[0].content[0].file_id",
            "Files are not served here yet: send 'input[0].content[0]' with its data, or by a URL.",
        ),
    ),
    "output without call": (
        create(input=[{"type": "function_call_output", "call_id": "call_1", "output": "x"}]),
        bad(None, "input", "No tool call found for function call output with call_id call_1."),
    ),
}

TOOLS: dict[str, tuple[Request, Fault]] = {
    "no type": (create(tools=[{"name": "f"}]), missing("tools[0].type")),
    "no name": (create(tools=[{"type": "function"}]), missing("tools[0].name")),
    "as in Chat": (
        create(tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}]),
        missing("tools[0].name"),
    ),
    "choice as in Chat": (
        create(tool_choice={"type": "function", "function": {"name": "f"}}),
        missing("tool_choice.name"),
    ),
    "format without name": (
        create(text={"format": {"type": "json_schema", "schema": {}}}),
        missing("text.format.name"),
    ),
}

STORED: dict[str, tuple[Request, Fault]] = {
    "starting_after no integer": (
        get("/responses/{finished}?stream=true&starting_after=x"),
        wrong_type("starting_after", "an integer", "a string"),
    ),
    "cancel, not background": (
        Request("POST", "/responses/{finished}/cancel"),
        bad(None, None, "Cannot cancel a synchronous response."),
    ),
}

TRANSPORT: dict[str, tuple[Request, Fault]] = {
    "unknown route": (Request("POST", "/bogus", {}), not_found("Invalid URL (POST /v1/bogus)")),
    "wrong method": (
        Request("PUT", "/responses", {}),
        Fault(405, INVALID, None, None, "Not allowed to PUT on /v1/responses."),
    ),
    "no JSON": (
        Request("POST", "/responses", b"{"),
        bad(None, None, "We could not parse the JSON body of your request: Input data was truncated."),
    ),
    "a form": (
        Request("POST", "/responses", b"model=text", {"content-type": "application/x-www-form-urlencoded"}),
        Fault(
            415,
            INVALID,
            None,
            None,
            "Unsupported content type: 'application/x-www-form-urlencoded'. "
            "This API method only accepts 'application/json' requests.",
        ),
    ),
}

RATE_LIMIT = "Rate limit reached for m on tokens per min (TPM): Limit 30000, Used 25265, Requested 8020."
QUOTA = "You exceeded your current quota, please check your plan and billing details."

MODELS: dict[str, tuple[Request, Fault]] = {
    # What a model does not take, only its server knows; its words are passed on.
    "parameter not supported": (
        create(model="refuses:temperature", temperature=1),
        bad(
            "unsupported_parameter",
            "temperature",
            "Unsupported parameter: 'temperature' is not supported with this model.",
        ),
    ),
    "rate limit": (
        create(model="limits:tokens"),
        Fault(429, "tokens", "rate_limit_exceeded", None, RATE_LIMIT),
    ),
    "quota": (
        create(model="limits:insufficient_quota"),
        Fault(429, "insufficient_quota", "insufficient_quota", None, QUOTA),
    ),
}


@script("refuses")
async def _refuses(stream: Stream, param: str) -> None:
    message = f"Unsupported parameter: '{param}' is not supported with this model."
    error = {"message": message, "type": INVALID, "param": param, "code": "unsupported_parameter"}
    await stream.json({"error": error}, status=400)


@script("limits")
async def _limits(stream: Stream, type: str) -> None:
    code = "insufficient_quota" if type == "insufficient_quota" else "rate_limit_exceeded"
    message = QUOTA if type == "insufficient_quota" else RATE_LIMIT
    await stream.json({"error": {"message": message, "type": type, "param": None, "code": code}}, status=429)


GROUPS = {
    "ids": IDS,
    "model and input": MODEL_AND_INPUT,
    "keys": KEYS,
    "types": TYPES,
    "values": VALUES,
    "items": ITEMS_OF_INPUT,
    "tools": TOOLS,
    "stored": STORED,
    "transport": TRANSPORT,
    "models": MODELS,
}
ROWS = {f"{group}: {name}": row for group, rows in GROUPS.items() for name, row in rows.items()}


@pytest.fixture(scope="module")
def server():
    with antiphon() as server:
        yield server


@pytest.fixture
async def http(server):
    async with server.http() as http:
        yield http


@pytest.fixture
async def known(http):
    """The ids of a response that has ended and of one that was deleted."""
    finished, deleted = [(await created(http, "text"))["id"] for _ in range(2)]
    await http.delete(f"/responses/{deleted}")
    return {"finished": finished, "deleted": deleted}


def filled(text, known):
    return re.sub(r"\{(finished|deleted)\}", lambda match: known[match[1]], text)


async def send(http, request, known):
    body = request.body
    if isinstance(body, dict):
        body = json.loads(filled(json.dumps(body), known))
    content = {"content": request.body} if isinstance(request.body, bytes) else {"json": body}
    headers = {"content-type": "application/json", **request.headers} if request.body is not None else {}
    return await http.request(
        request.method, filled(request.path, known), headers=headers, **(content if headers else {})
    )


@pytest.mark.parametrize("row", ROWS)
async def test_an_error_is_as_it_is_documented(http, known, row):
    request, fault = ROWS[row]
    answer = await send(http, request, known)

    assert answer.status_code == fault.status
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "error": {
            "message": filled(fault.message, known),
            "type": fault.type,
            "param": fault.param,
            "code": fault.code,
        }
    }


@pytest.mark.parametrize(
    "row",
    [f"{group}: {name}" for group in ("ids", "values", "items", "tools") for name, (request, _) in GROUPS[group].items()
     if request.path == "/responses"],
)  # fmt: skip
async def test_an_error_before_a_stream_is_the_same(http, known, row):
    request, fault = ROWS[row]
    answer = await send(http, Request("POST", "/responses", {**request.body, "stream": True}), known)

    assert (answer.status_code, answer.json()["error"]["message"]) == (fault.status, filled(fault.message, known))


# A fault for each field that has one, in no order.
FAULTY: dict[str, Any] = {
    "top_logprobs": -1, "store": "x", "bogus": 1, "service_tier": "x", "context_management": [], "truncation": "x",
    "instructions": 1, "prompt_cache_retention": "x", "prompt_cache_key": 1, "prompt_cache_options": 1,
    "safety_identifier": 1, "user": 1, "reasoning": 1, "max_tool_calls": 0, "max_output_tokens": 1, "background": 1,
    "stream_options": 1, "stream": 1, "parallel_tool_calls": 1, "tool_choice": "x", "frequency_penalty": "x",
    "presence_penalty": "x", "top_p": 2, "temperature": 3, "text": 1, "metadata": 1, "tools": 1, "include": ["x"],
    "moderation": 1, "prompt": 1, "conversation": 1, "previous_response_id": 1, "input": [{}],
}  # fmt: skip
ORDER = [
    "model", "input", "bogus", "input[0]", "previous_response_id", "conversation", "prompt", "moderation",
    "include[0]", "tools", "metadata", "text", "temperature", "top_p", "presence_penalty", "frequency_penalty",
    "tool_choice", "parallel_tool_calls", "stream", "stream_options", "background", "max_output_tokens",
    "max_tool_calls", "reasoning", "user", "safety_identifier", "prompt_cache_options", "prompt_cache_key",
    "prompt_cache_retention", "truncation", "instructions", "store", "service_tier", "top_logprobs",
    "context_management",
]  # fmt: skip


async def test_faults_are_told_in_the_order_of_the_api(http):
    """Each time the fault that was told is mended, the next one is told."""
    faulty = {name: value for name, value in FAULTY.items() if name not in ("input", "prompt")}
    told = []
    for _ in range(len(FAULTY) + 2):
        error = (await http.post("/responses", json=faulty)).json()["error"]
        told.append(error["param"])
        if error["param"] == "model":
            faulty["model"] = "text"
        elif error["param"] == "input":
            faulty |= {"input": FAULTY["input"], "prompt": FAULTY["prompt"]}  # which may stand for both
        elif error["param"] == "input[0]":
            faulty["input"] = "Hi"
        else:
            del faulty[error["param"].removesuffix("[0]")]

    assert told == ORDER
    assert (await http.post("/responses", json=faulty)).status_code == 200


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        # What is wrong in itself comes before what it names,
        ({"previous_response_id": "resp_x", "context_management": []}, "empty_array"),
        # two things that exclude each other before either of them is looked for,
        ({"previous_response_id": "resp_x", "conversation": "conv_x", "input": ""}, "mutually_exclusive_parameters"),
        # what is not found before an input that is empty,
        ({"previous_response_id": "resp_x", "input": []}, "previous_response_not_found"),
        # and that before what the model says.
        ({"model": "refuses:temperature", "temperature": 1, "input": ""}, "missing_required_parameter"),
        ({"model": "refuses:temperature", "temperature": 1, "previous_response_id": "resp_x"},
         "previous_response_not_found"),
    ],
)  # fmt: skip
async def test_the_steps_of_the_check_have_their_order(http, fields, told):
    answer = await http.post("/responses", json={**OK, **fields})

    assert answer.json()["error"]["code"] == told


@pytest.mark.parametrize(
    ("authorization", "code", "message"),
    [
        (
            {},
            None,
            "You didn't provide an API key. Provide it in an Authorization header: 'Authorization: Bearer YOUR_KEY'.",
        ),
        ({"authorization": "Bearer sk-wrong"}, "invalid_api_key", "Incorrect API key provided: ***."),
    ],
    ids=["no key", "a wrong key"],
)
async def test_a_key_that_is_missing_or_wrong(with_keys, authorization, code, message):
    async with with_keys.http(headers=authorization) as http:
        answer = await http.post("/responses", json=OK)

    assert answer.status_code == 401
    assert answer.json() == {"error": {"message": message, "type": INVALID, "param": None, "code": code}}


@pytest.fixture(scope="module")
def with_keys():
    with antiphon(api_keys={"alice": "sk-alice-0123456789abcdef"}) as server:
        yield server


async def test_a_response_too_many_at_once(http):
    with antiphon(foreground_limit=1) as small:
        async with small.http() as http, creating(http, "gate:1:1") as stream:
            await stream.deltas(1)
            answer = await http.post("/responses", json=OK)
            small.upstream.requests[-1].release()
            await stream.rest()

    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "1"
    message = "Too many responses are being worked on. Please try again in a moment."
    error = {"message": message, "type": "requests", "param": None, "code": "rate_limit_exceeded"}
    assert answer.json() == {"error": error}


# What the API refuses and is done here.


async def test_every_stored_response_can_be_streamed(http, known):
    """The API streams those alone that were made in the background, by a stream, a few minutes ago."""
    raw = await replayed(http, known["finished"])

    assert raw.count(b"event: response.created\n") == raw.count(b"event: response.completed\n") == 1


async def test_starting_after_without_a_stream_means_nothing(http, known):
    answer = await http.get(f"/responses/{known['finished']}?starting_after=3")

    assert answer.json() == (await http.get(f"/responses/{known['finished']}")).json()


async def test_a_background_response_can_be_cancelled_again_and_again(http, server):
    response = await created(http, "hang", background=True)
    first, second = [await http.post(f"/responses/{response['id']}/cancel") for _ in range(2)]

    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json()["status"] == "cancelled"
    assert first.json() == second.json()


async def test_a_background_response_that_has_ended_is_shown_when_it_is_cancelled(http):
    response = await created(http, "text", background=True)
    await replayed(http, response["id"])
    ended = (await http.get(f"/responses/{response['id']}")).json()
    answer = await http.post(f"/responses/{response['id']}/cancel")

    assert ended["status"] == "completed"
    assert (answer.status_code, answer.json()) == (200, ended)


async def test_a_running_response_can_be_deleted(http):
    response = await created(http, "hang", background=True)
    answer = await http.delete(f"/responses/{response['id']}")

    assert (answer.status_code, answer.json()["deleted"]) == (200, True)
    assert (await http.get(f"/responses/{response['id']}")).status_code == 404

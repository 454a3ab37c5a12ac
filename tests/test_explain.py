"""Explanations: every kind of fault, in the API's own words, codes, params and order."""

import pytest

from antiphon.spec import Document
from antiphon.spec.explain import Problem
from antiphon.spec.flat import kinds_name
from antiphon.spec.validation import Schema

from .test_validation import Kept


@pytest.fixture(scope="module")
def document():
    return Document.load()


@pytest.fixture(scope="module")
def create(document):
    return document.operation("createResponse").body.media["application/json"].strict(lenient=("input",))


USER = {"role": "user", "content": "x"}

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


def missing(param):
    return Problem(f"Missing required parameter: '{param}'.", "missing_required_parameter", param)


def wrong_type(param, expected, got):
    return Problem(f"Invalid type for '{param}': expected {expected}, but got {got} instead.", "invalid_type", param)


def wrong_value(param, value, supported):
    return Problem(f"Invalid value: '{value}'. Supported values are: {supported}.", "invalid_value", param)


def unknown(param, hint=""):
    return Problem(f"Unknown parameter: '{param}'.{hint}", "unknown_parameter", param)


# What is put into the body {"model": "m", "input": "x"}, and the first problem that is told.
FAULTS: dict[str, tuple[dict, Problem]] = {
    "model null": ({"model": None}, wrong_type("model", "a string", "an object")),
    "input null": ({"input": None}, wrong_type("input", "a string", "an object")),
    "input a number": ({"input": 5}, wrong_type("input", "one of a string or array of input items", "an integer")),
    "input too long": (
        {"input": "x" * 10_485_761},
        Problem(
            "Invalid 'input': string too long. Expected a string with maximum length 10485760, "
            "but got a string with length 10485761 instead.",
            "string_above_max_length",
            "input",
        ),
    ),
    "unknown key": ({"bogus": 1}, unknown("bogus")),
    "one key meant": ({"stor": True}, unknown("stor", " Did you mean 'store'?")),
    "two keys meant": ({"strea": True}, unknown("strea", " Did you mean 'store' or 'stream'?")),
    "a key meant that is there already": ({"stor": True, "store": True}, unknown("stor")),
    "a string for a boolean": ({"store": "yes"}, wrong_type("store", "a boolean", "a string")),
    "a boolean for an integer": ({"max_tool_calls": True}, wrong_type("max_tool_calls", "an integer", "a boolean")),
    "a decimal for an integer": ({"max_tool_calls": 1.5}, wrong_type("max_tool_calls", "an integer", "a decimal")),
    "a string for a decimal": ({"temperature": "1"}, wrong_type("temperature", "a decimal", "a string")),
    "an integer for a string": ({"instructions": 1}, wrong_type("instructions", "a string", "an integer")),
    "an array for an object": ({"reasoning": []}, wrong_type("reasoning", "an object", "an array")),
    "a string for tools": ({"tools": "x"}, wrong_type("tools", "an array of tools", "a string")),
    "a string for objects": (
        {"context_management": "x"},
        wrong_type("context_management", "an array of objects", "a string"),
    ),
    "an array for metadata": ({"metadata": []}, wrong_type("metadata", "a metadata object", "an array")),
    "a number for an item": ({"input": [USER, 7]}, wrong_type("input[1]", "an input item", "an integer")),
    "a number for a metadata value": ({"metadata": {"k": 1}}, wrong_type("metadata.k", "a string", "an integer")),
    "a number for either form": (
        {"conversation": 5},
        wrong_type("conversation", "one of a string or object", "an integer"),
    ),
    "bad enum of two": ({"truncation": "bogus"}, wrong_value("truncation", "bogus", "'auto' and 'disabled'")),
    "bad enum of three": (
        {"text": {"verbosity": "x"}},
        wrong_value("text.verbosity", "x", "'low', 'medium', and 'high'"),
    ),
    "bad include": ({"include": ["bogus.thing"]}, wrong_value("include[0]", "bogus.thing", INCLUDES)),
    "bad word for tool_choice": (
        {"tool_choice": "x"},
        wrong_value("tool_choice", "x", "'none', 'auto', and 'required'"),
    ),
    "integer too small": (
        {"max_output_tokens": 15},
        Problem(
            "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16, but got 15 instead.",
            "integer_below_min_value",
            "max_output_tokens",
        ),
    ),
    "integer too large": (
        {"top_logprobs": 21},
        Problem(
            "Invalid 'top_logprobs': integer above maximum value. Expected a value <= 20, but got 21 instead.",
            "integer_above_max_value",
            "top_logprobs",
        ),
    ),
    "decimal too small": (
        {"temperature": -1},
        Problem(
            "Invalid 'temperature': decimal below minimum value. Expected a value >= 0, but got -1 instead.",
            "decimal_below_min_value",
            "temperature",
        ),
    ),
    "decimal too large": (
        {"top_p": 1.5},
        Problem(
            "Invalid 'top_p': decimal above maximum value. Expected a value <= 1, but got 1.5 instead.",
            "decimal_above_max_value",
            "top_p",
        ),
    ),
    "too much metadata": (
        {"metadata": {str(number): "x" for number in range(17)}},
        Problem(
            "Invalid 'metadata': too many properties. Expected an object with at most 16 properties, "
            "but got an object with 17 properties instead.",
            "object_above_max_properties",
            "metadata",
        ),
    ),
    "metadata value too long": (
        {"metadata": {"k": "x" * 600}},
        Problem(
            "Invalid 'metadata.k': string too long. Expected a string with maximum length 512, "
            "but got a string with length 600 instead.",
            "string_above_max_length",
            "metadata.k",
        ),
    ),
    "metadata key too long": (
        {"metadata": {"k" * 70: "x"}},
        Problem(
            "Invalid property name in 'metadata': 'kkk...kkk' is too long. Expected a string with maximum length 64, "
            "but got a string with length 70 instead.",
            "property_name_above_max_length",
            "metadata." + "k" * 70,
        ),
    ),
    "empty array": (
        {"context_management": []},
        Problem(
            "Invalid 'context_management': empty array. Expected an array with minimum length 1, "
            "but got an empty array instead.",
            "empty_array",
            "context_management",
        ),
    ),
    "array too long": (
        {"tools": [{"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["x"] * 51}}]},
        Problem(
            "Invalid 'tools[0].container.file_ids': array too long. Expected an array with maximum length 50, "
            "but got an array with length 51 instead.",
            "array_above_max_length",
            "tools[0].container.file_ids",
        ),
    ),
    "empty string": (
        {"input": [{"type": "function_call_output", "call_id": "", "output": "x"}]},
        Problem(
            "Invalid 'input[0].call_id': empty string. Expected a string with minimum length 1, "
            "but got an empty string instead.",
            "empty_string",
            "input[0].call_id",
        ),
    ),
    "pattern": (
        {"tools": [{"type": "mcp", "server_label": "x", "tunnel_id": "y"}]},
        Problem(
            "Invalid 'tools[0].tunnel_id': string does not match pattern. "
            "Expected a string that matches the pattern '^tunnel_[a-z0-9]{32}$'.",
            "invalid_value",
            "tools[0].tunnel_id",
        ),
    ),
    "unknown item type": ({"input": [{"type": "bogus_item"}]}, wrong_value("input[0]", "bogus_item", ITEMS)),
    "empty item": ({"input": [{}]}, wrong_value("input[0]", "", ROLES)),
    "unknown role": ({"input": [{"role": "tool", "content": "x"}]}, wrong_value("input[0]", "tool", ROLES)),
    "message without role": ({"input": [{"type": "message", "content": "x"}]}, wrong_value("input[0]", "", ROLES)),
    "role of a wrong type": ({"input": [{"role": 5}]}, wrong_type("input[0].role", "a string", "an integer")),
    "type null": ({"input": [{"type": None, "id": "x"}]}, wrong_type("input[0].type", "a string", "an object")),
    "type of a wrong type": ({"input": [{"type": 5}]}, wrong_type("input[0].type", "a string", "an integer")),
    "message without content": ({"input": [{"role": "user"}]}, missing("input[0].content")),
    "assistant message without content": ({"input": [USER, {"role": "assistant"}]}, missing("input[1].content")),
    "content of a wrong type": (
        {"input": [{"role": "user", "content": 5}]},
        wrong_type("input[0].content", "one of a string or array of objects", "an integer"),
    ),
    "part of the assistant from the user": (
        {"input": [{"role": "user", "content": [{"type": "output_text", "text": "x"}]}]},
        wrong_value("input[0].content[0]", "output_text", USER_PARTS),
    ),
    "part of the user from the assistant": (
        {"input": [{"role": "assistant", "content": [{"type": "input_text", "text": "x"}]}]},
        wrong_value("input[0].content[0]", "input_text", "'output_text' and 'refusal'"),
    ),
    "part without type": (
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "x"}, {"text": "x"}]}]},
        missing("input[0].content[1].type"),
    ),
    "part without text": (
        {"input": [{"role": "user", "content": [{"type": "input_text"}]}]},
        missing("input[0].content[0].text"),
    ),
    "phase of the user": ({"input": [{**USER, "phase": "commentary"}]}, unknown("input[0].phase")),
    "call without call_id": (
        {"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]},
        missing("input[0].call_id"),
    ),
    "tool without type": ({"tools": [{"name": "f"}]}, missing("tools[0].type")),
    "tool without name": ({"tools": [{"type": "function"}]}, missing("tools[0].name")),
    "tool with an unknown key": ({"tools": [{"type": "function", "name": "f", "x": 1}]}, unknown("tools[0].x")),
    "choice in the Chat form": (
        {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        missing("tool_choice.name"),
    ),
    "format without name": ({"text": {"format": {"type": "json_schema", "schema": {}}}}, missing("text.format.name")),
    "unknown format": (
        {"text": {"format": {"type": "yaml"}}},
        wrong_value("text.format.type", "yaml", "'text', 'json_schema', and 'json_object'"),
    ),
    "option of the Chat stream": ({"stream_options": {"include_usage": True}}, unknown("stream_options.include_usage")),
    "moderation without model": ({"moderation": {}}, missing("moderation.model")),
    "option of the cache": ({"prompt_cache_options": {"x": 1}}, unknown("prompt_cache_options.x")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_told_as_the_api_tells_it(create, fault):
    fields, expected = FAULTS[fault]

    assert create.problems({"model": "m", "input": "x", **fields})[0] == expected


@pytest.mark.parametrize("type", ["foo", "web_serch"])
def test_an_unknown_tool_is_told_with_the_tools_that_there_are(create, type):
    (problem,) = create.problems({"model": "m", "input": "x", "tools": [{"type": type}]})

    assert problem.message.startswith(f"Invalid value: '{type}'. Supported values are: 'function', 'file_search', ")
    assert (problem.code, problem.param) == ("invalid_value", "tools[0].type")


@pytest.mark.parametrize(
    ("body", "params"),
    [
        ({"bogus": 1}, ["model", "input", "bogus"]),
        ({"model": "m", "bogus": 1}, ["input", "bogus"]),
        ({"model": "m", "input": "x", "store": 1, "bogus": 1}, ["bogus", "store"]),
        ({"model": "m", "input": 5, "previous_response_id": 5}, ["input", "previous_response_id"]),
        (
            {"top_logprobs": "", "store": "", "temperature": "", "metadata": "", "tools": "", "include": "",
             "moderation": "", "previous_response_id": 5, "input": 5, "model": 5},
            ["model", "input", "previous_response_id", "moderation", "include", "tools", "metadata", "temperature",
             "store", "top_logprobs"],
        ),
        (
            {"model": "m", "input": "x", "service_tier": 5, "instructions": 5, "truncation": 5, "user": 5,
             "reasoning": 5, "max_output_tokens": "", "background": 5, "stream": 5, "parallel_tool_calls": 5,
             "top_p": "", "text": 5},
            ["text", "top_p", "parallel_tool_calls", "stream", "background", "max_output_tokens", "reasoning", "user",
             "truncation", "instructions", "service_tier"],
        ),
        ({"model": "m", "input": [{}, {"role": "user"}, 5]}, ["input[0]", "input[1].content", "input[2]"]),
    ],
)  # fmt: skip
def test_faults_are_told_in_the_order_of_the_api(create, body, params):
    assert [problem.param for problem in create.problems(body)] == params


def test_messages_instead_of_input_are_told_where_they_went(create):
    (problem,) = create.problems({"model": "m", "messages": []})

    assert (problem.code, problem.param) == ("unsupported_parameter", None)
    assert "has moved to 'input'" in problem.message
    assert create.problems({"model": "m", "input": "x", "messages": []}) == [unknown("messages")]


def test_conversations_take_no_more_than_twenty_items(document):
    body = document.operation("createConversationItems").body.media["application/json"].closed()

    assert body.problems({"items": [USER] * 21}) == [
        Problem(
            "Invalid 'items': array too long. Expected an array with maximum length 20, "
            "but got an array with length 21 instead.",
            "array_above_max_length",
            "items",
        )
    ]
    assert body.problems({}) == [missing("items")]


def test_a_body_that_is_no_object_is_told_without_a_param(create):
    assert create.problems([]) == [
        Problem(
            "Invalid type for the request body: expected an object, but got an array instead.", "invalid_type", None
        )
    ]


def test_the_closed_form_looks_for_unknown_keys_at_the_top_alone(document):
    closed = document.operation("createResponse").body.media["application/json"].closed()

    assert closed.problems({"model": "m", "input": "x", "text": {"other": 1}}) == []
    assert closed.problems({"model": "m", "input": "x", "other": 1}) == [unknown("other")]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"input": b"x"}, "Invalid type for 'input': expected one of a string or array of input items, "
         "but got an object instead."),
        ({"metadata": {1: "x"}}, "Invalid 'metadata': its keys must be strings."),
        ({"\ud800": 1}, "Unknown parameter: '?'."),
        ({"temperature": float("nan")}, "Invalid 'temperature': decimal below minimum value. "
         "Expected a value >= 0, but got nan instead."),
        ({"client_metadata": object()}, "Invalid request body: it is not what the API describes."),
    ],
)  # fmt: skip
def test_what_is_no_json_is_refused_in_words(create, fields, message):
    assert create.problems({"model": "m", "input": "x", **fields})[0].message == message


def test_a_query_parameter_is_told_by_its_name(document):
    (after,) = [each for each in document.operation("getResponse").parameters if each.name == "starting_after"]

    assert after.schema.problems("x", at="starting_after") == [wrong_type("starting_after", "an integer", "a string")]


def test_a_fault_in_a_long_input_is_found(create):
    """Long arrays take a shorter way through the validator."""
    (problem,) = create.problems({"model": "m", "input": [USER] * 1000 + [{"role": "user"}]})

    assert problem == missing("input[1000].content")


def test_no_more_than_a_hundred_problems_are_told(create):
    assert len(create.problems({"model": "m", "input": [{}] * 1000})) == 100


def test_what_a_caller_sends_is_not_repeated_at_length(create):
    (problem,) = create.problems({"model": "m", "input": "x", "truncation": "x" * 10_000})

    assert len(problem.message) < 250


def schema_of(raw, **components):
    kept = Kept({"It": raw, **components})
    return Schema(kept.schema("It"), kept)


@pytest.mark.parametrize(
    ("raw", "value", "message"),
    [
        ({"minLength": 3}, "ab", "Invalid 'it': string too short. Expected a string with minimum length 3, "
         "but got a string with length 2 instead."),
        ({"type": "array", "minItems": 3}, [1], "Invalid 'it': array too short. Expected an array with minimum "
         "length 3, but got an array with length 1 instead."),
        ({"type": "integer", "exclusiveMinimum": 0}, 0, "Invalid 'it': integer below minimum value. "
         "Expected a value > 0, but got 0 instead."),
        ({"type": "number", "exclusiveMaximum": 1}, 1, "Invalid 'it': decimal above maximum value. "
         "Expected a value < 1, but got 1 instead."),
        ({"const": "a"}, "b", "Invalid value: 'b'. Supported values are: 'a'."),
        ({"type": "object", "properties": {}, "additionalProperties": False}, {"a": 1}, "Unknown parameter: 'it.a'."),
        ({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "integer"}}, {"type": "object"}]}, 5,
         "Invalid type for 'it': expected one of a string, array of integers, or object, but got an integer instead."),
        ({"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, {}, "Missing required parameter: 'it.a'."),
        ({"anyOf": [{"properties": {"a": {"type": "string"}}}, {"properties": {"a": {"type": "integer"}}}]},
         {"a": []}, "Invalid type for 'it.a': expected a string, but got an array instead."),
    ],
)  # fmt: skip
def test_other_documents_are_explained_in_the_same_words(raw, value, message):
    assert [problem.message for problem in schema_of(raw).problems(value, at="it")] == [message]


@pytest.mark.parametrize(
    ("raw", "value", "param"),
    [
        ({"properties": {"a": {"type": "array", "uniqueItems": True}}}, {"a": [1, 1]}, "a"),
        ({"properties": {"a": {"properties": {"b": {"multipleOf": 5}}}}}, {"a": {"b": 7}}, "a.b"),
        ({"items": {"not": {"type": "string"}}}, [1, "x"], "[1]"),
        ({"minProperties": 1}, {}, None),
    ],
)
def test_what_the_walk_does_not_understand_is_told_in_the_words_of_the_validator(raw, value, param):
    (problem,) = schema_of(raw).problems(value)

    assert (problem.param, problem.code) == (param, "invalid_value")
    assert problem.message.startswith(f"Invalid '{param}': " if param else "Invalid request body: ")


def test_alternatives_inside_alternatives_come_to_an_end():
    """Without a `type` to go by each level doubles the work, so the walk has a limit."""
    node = {"$ref": "#/components/schemas/Node"}
    either = [{"type": "array", "items": node}, {"type": "array", "items": node, "maxItems": 3}, {"type": "integer"}]
    value: object = 7
    for _ in range(40):
        value = [value]

    (problem,) = schema_of({"prefixItems": [node, {"type": "string"}], "items": node}, Node={"anyOf": either}).problems(
        [value, value]
    )

    assert problem == Problem(
        "Invalid request body: it is not what the API describes, and too large to tell where.", "invalid_value", None
    )


def test_a_value_that_is_nested_too_deeply_is_refused_in_words(create):
    filters: dict = {"type": "eq", "key": "k", "value": {}}
    for _ in range(400):
        filters = {"type": "and", "filters": [filters]}
    tool = {"type": "file_search", "vector_store_ids": ["vs_1"], "filters": filters}

    (problem,) = create.problems({"model": "m", "input": "x", "tools": [tool]})

    assert "nested too deeply" in problem.message


def test_every_event_of_a_stream_can_be_explained(document):
    for type in document.event_types:
        problems = document.event_schema(type).strict().problems({"type": type, "other": 1})

        assert problems[-1] == unknown("other")
        assert {problem.code for problem in problems[:-1]} <= {"missing_required_parameter"}


def test_the_names_of_kinds_need_no_value():
    assert kinds_name([], 5) == "null"

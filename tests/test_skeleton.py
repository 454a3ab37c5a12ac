"""The Response that a create begins with: what it echoes, with which defaults, and which secrets it keeps to itself."""

import json

import pytest

from antiphon.server.skeleton import skeleton
from antiphon.spec import Document
from tests.contracts.model import WEATHER
from tests.test_support import HOSTED, TOOL_VALUES

BODY = {"model": "m", "input": "Hi"}
FUNCTION = {"type": "function", "name": "f"}


@pytest.fixture(scope="module")
def response_schema():
    return Document.load().schema("Response").strict()


@pytest.fixture
def begun(response_schema):
    """The Response that a create with these fields begins with; it is always one of the API's."""

    def begun(**fields):
        response = skeleton({**BODY, **fields}, id="resp_1", created_at=1)
        assert response_schema.problems(response) == []
        return response

    return begun


@pytest.mark.parametrize("tool", TOOL_VALUES + HOSTED, ids=lambda tool: tool["type"])
def test_every_tool_is_echoed_as_the_api_describes_it(begun, tool):
    (echoed,) = begun(tools=[tool])["tools"]

    assert echoed["type"] == tool["type"]
    assert echoed.keys() >= tool.keys()


@pytest.mark.parametrize(
    ("tool", "defaults"),
    [
        (FUNCTION, {"description": None, "parameters": None, "strict": True}),
        (FUNCTION | {"strict": False}, {"description": None, "parameters": None}),
        ({"type": "custom", "name": "c"}, {"format": {"type": "text"}}),
        ({"type": "tool_search"}, {"execution": "server"}),
        (
            {"type": "web_search"},
            {
                "filters": None,
                "search_context_size": "medium",
                "user_location": {
                    "type": "approximate", "country": "US", "city": None, "region": None, "timezone": None
                },
            },
        ),
        (
            {"type": "file_search", "vector_store_ids": ["vs_1"]},
            {"filters": None, "max_num_results": 20, "ranking_options": {"ranker": "auto", "score_threshold": 0.0}},
        ),
        (
            {"type": "image_generation"},
            {
                "background": "auto", "moderation": "auto", "n": 1, "output_compression": 100, "output_format": "png",
                "quality": "auto", "size": "auto",
            },
        ),
        (
            {"type": "mcp", "server_label": "s", "connector_id": "connector_gmail"},
            {"allowed_tools": None, "headers": None, "require_approval": "always"},
        ),
    ],
    ids=lambda value: value.get("type"),
)  # fmt: skip
def test_the_defaults_of_a_tool_are_filled_in(begun, tool, defaults):
    assert begun(tools=[tool])["tools"] == [tool | defaults]


def test_a_user_who_says_where_he_is_keeps_his_place(begun):
    (tool,) = begun(tools=[{"type": "web_search", "user_location": {"type": "approximate", "city": "Rome"}}])["tools"]

    place = {"type": "approximate", "country": None, "city": "Rome", "region": None, "timezone": None}
    assert tool["user_location"] == place


def test_the_functions_of_a_namespace_have_their_defaults(begun):
    (namespace,) = begun(tools=[{"type": "namespace", "name": "n", "description": "d", "tools": [FUNCTION]}])["tools"]

    assert namespace["tools"] == [FUNCTION | {"description": None, "parameters": None, "strict": True}]


NESTED = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "array", "items": {"type": "object", "properties": {"day": {"$ref": "#/$defs/day"}}}},
        "either": {"anyOf": [{"type": "object", "properties": {}}, {"type": "null"}]},
    },
    "required": ["city"],
    "$defs": {"day": {"type": "object", "properties": {"properties": {"type": "string"}}}},
}
CLOSED = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"day": {"$ref": "#/$defs/day"}},
                "additionalProperties": False,
                "required": ["day"],
            },
        },
        "either": {
            "anyOf": [
                {"type": "object", "properties": {}, "additionalProperties": False, "required": []},
                {"type": "null"},
            ]
        },
    },
    "required": ["city", "days", "either"],
    "$defs": {
        "day": {
            "type": "object",
            "properties": {"properties": {"type": "string"}},
            "additionalProperties": False,
            "required": ["properties"],
        }
    },
    "additionalProperties": False,
}


def test_parameters_become_strict_when_nothing_is_said(begun):
    given = json.dumps(NESTED)
    (tool,) = begun(tools=[FUNCTION | {"parameters": NESTED}])["tools"]

    assert (tool["strict"], tool["parameters"]) == (True, CLOSED)
    assert json.dumps(NESTED) == given


@pytest.mark.parametrize("strict", [True, False, None])
def test_parameters_stay_as_they_are_when_it_is_said(begun, strict):
    (tool,) = begun(tools=[FUNCTION | {"parameters": NESTED, "strict": strict}])["tools"]

    assert (tool["strict"], tool["parameters"]) == (strict, NESTED)


@pytest.mark.parametrize("more", [True, {"type": "string"}])
def test_parameters_that_leave_an_object_open_are_not_strict(begun, more):
    parameters = {"type": "object", "properties": {"a": {"type": "object", "additionalProperties": more}}}
    (tool,) = begun(tools=[FUNCTION | {"parameters": parameters}])["tools"]

    assert (tool["strict"], tool["parameters"]) == (False, parameters)


def test_parameters_that_are_strict_already_are_echoed_unchanged(begun):
    assert begun(tools=[WEATHER])["tools"] == [WEATHER | {"strict": True}]


SECRET = "a-secret-of-the-caller"
POLICY = {
    "type": "allowlist",
    "allowed_domains": ["example.com"],
    "domain_secrets": [{"domain": "example.com", "name": "KEY", "value": SECRET}],
}
MCP = {"type": "mcp", "server_label": "s"}


@pytest.mark.parametrize(
    ("tool", "echoed"),
    [
        (MCP | {"server_url": "https://example.com/mcp", "authorization": SECRET}, {"authorization": "<redacted>"}),
        (MCP | {"server_url": "https://a.example", "headers": {"x-key": SECRET}}, {"headers": {"x-key": "<redacted>"}}),
        (MCP | {"server_url": f"https://a.example/{SECRET}/"}, {"server_url": "https://a.example/<redacted>"}),
        (MCP | {"server_url": f"https://a.example:8?key={SECRET}"}, {"server_url": "https://a.example:8/<redacted>"}),
        (MCP | {"server_url": f"https://me:{SECRET}@a.example/x"}, {"server_url": "https://a.example/<redacted>"}),
        (MCP | {"server_url": "https://a.example/"}, {"server_url": "https://a.example/"}),
        ({"type": "code_interpreter", "container": {"type": "auto", "network_policy": POLICY}}, {}),
        ({"type": "shell", "environment": {"type": "container_auto", "network_policy": POLICY}}, {}),
    ],
)
def test_what_a_tool_must_not_tell_is_not_echoed(begun, tool, echoed):
    given = json.dumps(tool)
    response = begun(tools=[tool])

    assert SECRET not in json.dumps(response)
    assert echoed.items() <= response["tools"][0].items()
    assert json.dumps(tool) == given  # whoever runs the tool knows it still


@pytest.mark.parametrize(
    ("given", "echoed"),
    [
        (None, {"effort": None, "summary": None}),
        ({"effort": "low"}, {"effort": "low", "summary": None}),
        ({"summary": "auto"}, {"effort": None, "summary": "detailed"}),
        ({"summary": "concise"}, {"effort": None, "summary": "concise"}),
        ({"context": "auto"}, {"effort": None, "summary": None, "context": "auto"}),
    ],
)  # fmt: skip
def test_the_echo_of_reasoning_says_what_was_chosen(begun, given, echoed):
    assert begun(reasoning=given)["reasoning"] == echoed


@pytest.mark.parametrize("given", ["conv_1", {"id": "conv_1"}])
def test_a_conversation_is_echoed_as_an_object(begun, given):
    assert begun(conversation=given)["conversation"] == {"id": "conv_1"}


@pytest.mark.parametrize("name", ["conversation", "prompt", "prompt_cache_options"])
def test_what_was_not_used_is_not_echoed(begun, name):
    assert name not in begun()
    assert name not in begun(**{name: None})


def test_a_prompt_is_echoed_as_it_was_sent(begun):
    prompt = {"id": "pmpt_1", "version": "2", "variables": {"city": "Rome"}}

    assert begun(prompt=prompt)["prompt"] == prompt


def test_nothing_is_rated(begun):
    assert begun()["moderation"] is None


@pytest.mark.parametrize("name", ["include", "context_management", "stream", "stream_options", "client_metadata"])
def test_what_the_api_does_not_echo_is_not_echoed(begun, name):
    assert name not in begun(**{name: True})

"""Tools that the client runs as functions of a chat model: what it is offered, and what it is told of earlier calls."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.engine.models.chat_request import chat_body
from antiphon.engine.models.constrained import constrained
from antiphon.engine.tools.function import FunctionCall
from antiphon.engine.tools.toolbox import CALLS, OUTPUTS, Toolbox
from antiphon.errors import ModelError
from antiphon.protocol.context import CLIENT_CALLS, answered_name
from tests.contracts.model import WEATHER, user
from tests.test_tools import CLICK, GROUP, HIDDEN, PATCH, PREVIEW, SEARCH, SHELL, calls_of, told


def offered(*tools, context=(), **request):
    """The body's tools, by their names, and its choice."""
    body = chat_body({"model": "m", "tools": list(tools), **request}, context)
    return {tool["function"]["name"]: tool["function"] for tool in body.get("tools", ())}, body.get("tool_choice")


def test_the_table_has_every_call_that_the_client_answers():
    assert set(CALLS) == CLIENT_CALLS
    assert {answered_name({"type": type, "call_id": "call_1"}) for type in OUTPUTS} == {"call_1"}


def test_a_function_keeps_all_it_says():
    functions, _ = offered({**WEATHER, "strict": True})

    assert functions["get_weather"] == {
        **{name: WEATHER[name] for name in ("name", "description", "parameters")},
        "strict": True,
    }


def test_a_function_without_parameters_takes_an_empty_object():
    functions, _ = offered({"type": "function", "name": "now", "parameters": None, "strict": True})

    assert functions["now"] == {
        "name": "now",
        "parameters": {"type": "object", "properties": {}, "required": [], "additionalProperties": False},
        "strict": True,
    }


def test_a_custom_tool_is_a_function_of_one_text_with_its_grammar_in_words():
    functions, _ = offered(PATCH, {"type": "custom", "name": "note", "format": {"type": "text"}})

    assert list(functions["apply_patch"]["parameters"]["properties"]) == ["input"]
    assert functions["apply_patch"]["description"].startswith("Changes files.\n\n")
    assert 'start: "*** Begin Patch" /.+/' in functions["apply_patch"]["description"]
    assert "description" not in functions["note"]


def test_the_members_of_a_namespace_are_functions_that_bear_its_name():
    functions, _ = offered(GROUP)

    assert list(functions) == ["crm__find", "crm__query"]
    assert functions["crm__find"]["description"] == "crm: Customers.\n\nFinds one."
    assert functions["crm__find"]["strict"] is False


def test_hosted_tools_are_not_offered():
    container = {"type": "shell", "environment": {"type": "container_auto"}}
    functions, choice = offered({"type": "web_search"}, container, {"type": "tool_search"}, tool_choice="required")

    assert (functions, choice) == ({}, None)


def test_the_skills_of_a_shell_are_described():
    skill = {"name": "sheets", "description": "Makes sheets.", "path": "/skills/sheets"}
    functions, _ = offered({"type": "shell", "environment": {"type": "local", "skills": [skill]}})

    assert "- sheets (/skills/sheets): Makes sheets." in functions["shell"]["description"]


def test_every_tool_of_the_client_has_a_legal_function():
    tools = [{"type": "local_shell"}, {"type": "shell"}, {"type": "apply_patch"}, {"type": "computer"}, SEARCH]
    functions, _ = offered(*tools)

    assert list(functions) == ["local_shell", "shell", "apply_patch", "computer", "tool_search"]
    assert "800 x 600 pixels, linux" in offered(PREVIEW)[0]["computer"]["description"]


def test_the_callers_own_function_keeps_its_name_in_a_clash():
    own = {"type": "function", "name": "shell"}
    functions, _ = offered(SHELL, own)

    name = next(name for name in functions if name != "shell")
    assert functions["shell"]["parameters"]["properties"] == {}
    assert name.startswith("shell_")
    assert "commands" in functions[name]["parameters"]["properties"]


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ("auto", None),
        (None, None),
        ("none", "none"),
        ("required", "required"),
        ({"type": "function", "name": "get_weather"}, "get_weather"),
        ({"type": "function", "name": "find"}, "crm__find"),
        ({"type": "custom", "name": "apply_patch"}, "apply_patch"),
        ({"type": "custom", "name": "query"}, "crm__query"),
        ({"type": "shell"}, "shell"),
        ({"type": "computer_use"}, "computer"),
        ({"type": "computer"}, "computer"),
    ],
)
def test_a_choice_of_a_tool_is_a_choice_of_its_function(choice, told):
    tools = [WEATHER, PATCH, GROUP, SHELL, {"type": "computer"}]
    _, chosen = offered(*tools, tool_choice=choice)

    assert chosen == (told if told in (None, "none", "required") else {"type": "function", "function": {"name": told}})


def test_a_choice_of_apply_patch_is_not_one_of_a_custom_tool_of_that_name():
    functions, chosen = offered(PATCH, {"type": "apply_patch"}, tool_choice={"type": "apply_patch"})

    assert "diff" in functions[chosen["function"]["name"]]["parameters"]["properties"]


def test_the_allowed_tools_are_offered_alone():
    allowed = [{"type": "shell"}, {"type": "custom", "name": "apply_patch"}, {"type": "namespace", "name": "crm"}]
    choice = {"type": "allowed_tools", "mode": "required", "tools": [*allowed, {"type": "web_search"}]}
    functions, chosen = offered(WEATHER, PATCH, GROUP, SHELL, {"type": "web_search"}, tool_choice=choice)

    assert list(functions) == ["apply_patch", "crm__find", "crm__query", "shell"]
    assert chosen == "required"
    assert offered(WEATHER, SHELL, tool_choice={**choice, "mode": "auto"})[1] is None


@pytest.mark.parametrize("choice", [{"type": "web_search_preview"}, {"type": "function", "name": "other"}])
def test_a_choice_of_a_tool_that_is_not_there_is_refused(choice):
    with pytest.raises(ModelError) as failure:
        offered(WEATHER, tool_choice=choice)

    assert (failure.value.status, failure.value.param) == (400, "tool_choice")


def test_a_deferred_tool_is_hidden_until_a_search_has_brought_it():
    found = {"type": "tool_search_output", "call_id": "call_1", "execution": "client", "tools": [HIDDEN]}

    assert list(offered(WEATHER, HIDDEN, SEARCH)[0]) == ["get_weather", "tool_search"]
    assert list(offered(WEATHER, HIDDEN, SEARCH, context=[found])[0]) == ["get_weather", "hidden", "tool_search"]
    assert list(offered(SEARCH, context=[found])[0]) == ["tool_search", "hidden"]


def test_a_deferred_tool_that_is_chosen_is_shown():
    functions, chosen = offered(HIDDEN, SEARCH, tool_choice={"type": "function", "name": "hidden"})

    assert list(functions) == ["tool_search", "hidden"]
    assert chosen["function"]["name"] == "hidden"


@pytest.mark.parametrize("search", [{"type": "tool_search"}, {"type": "tool_search", "execution": "server"}])
def test_without_a_search_of_the_client_nothing_is_hidden(search):
    assert list(offered(HIDDEN, search)[0]) == ["hidden"]


def test_additional_tools_are_offered_as_well():
    more = {"type": "additional_tools", "role": "developer", "tools": [GROUP, {**WEATHER, "description": "Newer"}]}
    functions, _ = offered(WEATHER, context=[more])

    assert list(functions) == ["get_weather", "crm__find", "crm__query"]
    assert functions["get_weather"]["description"] == "Newer"


SCREENSHOT = {"type": "computer_screenshot", "image_url": "data:image/png;base64,AAAA"}
OUTCOME = {"type": "exit", "exit_code": 0}


@pytest.mark.parametrize(
    ("stored", "output", "called", "text"),
    [
        (
            {"type": "custom_tool_call", "name": "apply_patch", "input": 'a"é'},
            {"type": "custom_tool_call_output", "output": "done"},
            ("apply_patch", {"input": 'a"é'}),
            "done",
        ),
        (
            {"type": "function_call", "namespace": "crm", "name": "find", "arguments": "{}"},
            {"type": "function_call_output", "output": [{"type": "input_text", "text": "one"}]},
            ("crm__find", {}),
            "one",
        ),
        (
            {"type": "local_shell_call", "action": {"type": "exec", "command": ["ls"], "env": {}, "user": None}},
            {"type": "local_shell_call_output", "output": "a.txt"},
            ("local_shell", {"command": ["ls"]}),
            "a.txt",
        ),
        (
            {"type": "shell_call", "action": {"commands": ["ls"], "timeout_ms": 9, "max_output_length": None}},
            {"type": "shell_call_output", "output": [{"stdout": "é", "stderr": "", "outcome": OUTCOME}]},
            ("shell", {"commands": ["ls"], "timeout_ms": 9}),
            '[{"stdout":"é","stderr":"","outcome":{"type":"exit","exit_code":0}}]',
        ),
        (
            {"type": "apply_patch_call", "operation": {"type": "delete_file", "path": "a"}},
            {"type": "apply_patch_call_output", "status": "failed", "output": "no such file"},
            ("apply_patch", {"type": "delete_file", "path": "a", "diff": ""}),
            '{"status":"failed","output":"no such file"}',
        ),
        (
            {"type": "computer_call", "actions": [CLICK]},
            {"type": "computer_call_output", "output": SCREENSHOT},
            ("computer", {"actions": [CLICK]}),
            "The result is in the next message of the user.",
        ),
        (
            {"type": "computer_call", "action": CLICK},
            {"type": "computer_call_output", "output": SCREENSHOT},
            ("computer", {"action": CLICK}),
            "The result is in the next message of the user.",
        ),
        (
            {"type": "tool_search_call", "execution": "client", "arguments": {"query": "q"}},
            {"type": "tool_search_output", "execution": "client", "tools": [GROUP, SHELL]},
            ("tool_search", {"query": "q"}),
            "These tools can be called now: crm, shell",
        ),
    ],
)
def test_a_stored_call_and_its_output_are_told_to_the_model(stored, output, called, text):
    messages = told({**stored, "call_id": "call_1"}, {**output, "call_id": "call_1"})

    assert calls_of(messages) == [("call_1", *called)]
    assert messages[1] == {"role": "tool", "tool_call_id": "call_1", "content": text}


def test_images_of_results_follow_them_in_a_message_of_the_user():
    def result(call_id):
        text, image = {"type": "input_text", "text": "seen"}, {"type": "input_image", "image_url": "data:,A"}
        return {"type": "function_call_output", "call_id": call_id, "output": [text, image]}

    function = {"type": "function_call", "name": "f", "arguments": "{}"}
    calls = [{**function, "call_id": "call_1"}, {**function, "call_id": "call_2"}]
    messages = told(*calls, result("call_1"), result("call_2"), user("And?"))

    assert [message["role"] for message in messages] == ["assistant", "tool", "tool", "user", "user"]
    assert [message["content"] for message in messages[1:3]] == ["seen", "seen"]
    assert [part["type"] for part in messages[3]["content"]] == ["text", "image_url", "text", "image_url"]
    assert "call_2" in messages[3]["content"][2]["text"]


def test_the_output_of_a_local_shell_may_name_its_call_by_either_id():
    action = {"type": "exec", "command": ["ls"], "env": {}}
    stored = {"type": "local_shell_call", "id": "lsh_1", "call_id": "call_1", "action": action}
    for name in ("lsh_1", "call_1"):
        output = {"type": "local_shell_call_output", "id": name, "output": "a"}
        assert told(stored, output)[1]["tool_call_id"] == "call_1"


def test_what_hosted_tools_did_is_left_out():
    context = [
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search"}},
        {"type": "tool_search_call", "call_id": None, "execution": "server", "arguments": {}},
        {"type": "tool_search_output", "call_id": None, "execution": "server", "tools": [HIDDEN]},
        {"type": "mcp_approval_request", "id": "mcpr_1", "server_label": "s", "name": "n", "arguments": "{}"},
    ]

    assert told(*context, user("Hi"), tools=[HIDDEN]) == [{"role": "user", "content": "Hi"}]


def test_a_call_of_a_tool_that_is_gone_keeps_its_name():
    stored = {"type": "custom_tool_call", "call_id": "call_1", "name": "gone", "input": "x"}
    clash = {**stored, "call_id": "call_2", "name": "get_weather"}
    first, second = calls_of(told(stored, clash, tools=[WEATHER]))

    assert first[1] == "gone"
    assert second[1].startswith("get_weather_")


def test_a_model_without_functions_is_held_to_the_shape_of_the_tools():
    tools = [PATCH, SHELL]
    body, wrapped = constrained(
        chat_body({"model": "m", "tools": tools, "tool_choice": {"type": "shell"}}, [user("Go")])
    )

    assert wrapped
    assert "tools" not in body
    [form] = body["response_format"]["json_schema"]["schema"]["anyOf"]
    assert form["properties"]["name"] == {"const": "shell"}
    assert form["properties"]["arguments"]["required"] == ["commands"]


names = st.text(st.sampled_from("ab_-é. "), min_size=1, max_size=6) | st.text(min_size=60, max_size=128)


@st.composite
def toolsets(draw):
    tools = []
    for type, name in draw(
        st.lists(st.tuples(st.sampled_from(["function", "custom", "namespace"]), names), max_size=8)
    ):
        if type == "namespace":
            members = [{"type": "function", "name": member} for member in draw(st.lists(names, min_size=1, max_size=3))]
            tools.append({"type": type, "name": name, "description": "", "tools": members})
        else:
            tools.append({"type": type, "name": name})
    return [*tools, *draw(st.lists(st.sampled_from([SHELL, {"type": "apply_patch"}, {"type": "local_shell"}])))]


@settings(max_examples=200)
@given(tools=toolsets())
def test_every_name_is_legal_and_leads_back_to_its_function(tools):
    toolbox = Toolbox({"tools": tools})
    functions, _ = toolbox.offered()
    told = [toolbox.name(function.key) for function in functions]

    assert len(set(told)) == len(told)
    for name, function in zip(told, functions, strict=True):
        assert 0 < len(name) <= 64
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
        assert toolbox.function(name) is function
        if function.call is FunctionCall and not function.namespace and name_is_legal(function.name):
            assert name == function.name


def name_is_legal(name):
    return len(name) <= 64 and name.isascii() and name.replace("_", "").replace("-", "").isalnum()

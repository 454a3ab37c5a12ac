"""Calls of tools that the client runs, by a model that knows only functions: each an item of its tool's own type."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.engine.model import Call, Finish, Reasoning, Text
from antiphon.engine.models.chat_completions import ChatCompletions
from antiphon.engine.models.chat_request import chat_body
from antiphon.engine.models.constrained import Unwrapper
from antiphon.engine.tools.toolbox import Toolbox
from antiphon.protocol.context import CLIENT_CALLS
from antiphon.protocol.endings import close_cancelled
from tests.contracts.model import WEATHER, user
from tests.servers.chat import ChatServer
from tests.servers.running import serve
from tests.test_answer import Log, Scripted, check, check_sdk, strict, types
from tests.test_strings import json_values

PATCH = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Changes files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": 'start: "*** Begin Patch" /.+/'},
}
GROUP = {
    "type": "namespace",
    "name": "crm",
    "description": "Customers.",
    "tools": [
        {"type": "function", "name": "find", "description": "Finds one.", "parameters": None, "strict": False},
        {"type": "custom", "name": "query", "description": "Runs a query."},
    ],
}
SHELL = {"type": "shell", "environment": {"type": "local"}}
SEARCH = {"type": "tool_search", "execution": "client", "description": "Finds tools.", "parameters": None}
HIDDEN = {**WEATHER, "name": "hidden", "defer_loading": True}
PREVIEW = {"type": "computer_use_preview", "environment": "linux", "display_width": 800, "display_height": 600}


@pytest.fixture(scope="module")
def base_url():
    with serve(ChatServer()) as url:
        yield url + "/v1"


@pytest.fixture
async def call(base_url):
    """Let the model make these calls, each a name and its arguments, and give the log."""
    model = ChatCompletions(base_url)

    async def called(*calls, tools, size=7, finish="tool_calls", **request):
        told = [(name, said if isinstance(said, str) else json.dumps(said)) for name, said in calls]
        request = {"model": f"calls:{size}:{finish}", "tools": list(tools), **request}
        return await Log().answer(model, request, [user(json.dumps(told))])

    yield called
    await model.close()


def deltas(log, type):
    return [event["delta"] for event in log.events if event["type"] == type]


def told(*context, tools=()):
    return chat_body({"model": "m", "tools": list(tools)}, context)["messages"]


def calls_of(messages):
    return [
        (call["id"], call["function"]["name"], json.loads(call["function"]["arguments"]))
        for message in messages
        for call in message.get("tool_calls", ())
    ]


async def test_a_custom_call_shows_its_text_as_it_comes(call):
    text = '*** Begin Patch\n"é" \\ 🎈\n*** End Patch'
    log = await call(("apply_patch", {"input": text}), tools=[PATCH])

    assert types(log)[0] == "output_item.added"
    assert set(types(log)[1:-3]) == {"custom_tool_call_input.delta"}
    assert types(log)[-3:] == ["custom_tool_call_input.done", "output_item.done", "completed"]
    assert log.events[2]["item"]["input"] == ""
    pieces = deltas(log, "response.custom_tool_call_input.delta")
    assert len(pieces) > 3
    assert "".join(pieces) == text
    assert log.response["output"] == [
        {
            "id": "ctc_0",
            "type": "custom_tool_call",
            "status": "completed",
            "call_id": "call_0",
            "input": text,
            "name": "apply_patch",
        }
    ]
    check(log)
    check_sdk(log)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("*** Begin Patch", "*** Begin Patch"),
        ('"quoted"', '"quoted"'),
        ('{"patch": "a"}', "a"),
        ('{"a": 1}', '{"a": 1}'),
        ('{"input": {"a": "b"}}', '{"input": {"a": "b"}}'),
        ('{"input": ""}', ""),
        ('{"note": "first", "input": "b"}', "b"),
        (r'{"input": "\ud83d"}', "\ufffd"),
        ("", ""),
    ],
)
async def test_a_custom_call_that_leaves_out_its_wrapping_is_understood(call, arguments, text):
    log = await call(("apply_patch", arguments), tools=[PATCH])

    assert [item["input"] for item in log.response["output"]] == [text]
    check(log)


async def test_calls_of_a_namespace_carry_its_name(call):
    log = await call(("crm__find", "{}"), ("crm__query", {"input": "select"}), tools=[GROUP])

    assert [(item["type"], item["namespace"], item["name"]) for item in log.response["output"]] == [
        ("function_call", "crm", "find"),
        ("custom_tool_call", "crm", "query"),
    ]
    check(log)
    check_sdk(log)


async def test_a_shell_call_shows_its_commands_one_after_the_other(call):
    said: dict[str, Any] = {"commands": ["ls -l", "", 'echo "é🎈"'], "timeout_ms": 500}
    log = await call(("shell", said), tools=[SHELL], size=5)

    assert log.events[2]["item"] == {
        "id": "sh_0",
        "type": "shell_call",
        "status": "in_progress",
        "call_id": "call_0",
        "action": {"commands": [], "timeout_ms": None, "max_output_length": None},
        "environment": {"type": "local"},
    }
    commands = [event for event in log.events if event["type"].startswith("response.shell_call_command.")]
    assert [
        (event["command_index"], event["command"])
        for event in commands
        if event["type"] == "response.shell_call_command.done"
    ] == list(enumerate(said["commands"]))
    assert [event["command"] for event in commands if event["type"].endswith(".added")] == ["", "", ""]
    assert all("item_id" not in event for event in commands)
    assert len(deltas(log, "response.shell_call_command.delta")) > 3
    assert log.response["output"][0]["action"] == {**said, "max_output_length": None}
    assert log.response["output"][0]["status"] == "completed"
    check(log)
    check_sdk(log)


async def test_a_patch_shows_its_diff_as_it_comes(call):
    operation = {"type": "update_file", "path": "a/b.py", "diff": "@@\n-é\n+🎈\n"}
    log = await call(("apply_patch", operation), tools=[{"type": "apply_patch"}])

    assert log.events[2]["item"]["operation"] == {**operation, "diff": ""}
    assert "".join(deltas(log, "response.apply_patch_call_operation_diff.delta")) == operation["diff"]
    assert types(log)[-3:] == ["apply_patch_call_operation_diff.done", "output_item.done", "completed"]
    assert log.response["output"] == [
        {
            "id": "apc_0",
            "type": "apply_patch_call",
            "status": "completed",
            "call_id": "call_0",
            "operation": operation,
        }
    ]
    check(log)


@pytest.mark.parametrize(
    "operation",
    [
        {"diff": "+a\n", "path": "a", "type": "create_file"},
        {"path": "a", "diff": "+a\n", "type": "create_file"},
        {"type": "create_file", "path": "a", "diff": ""},
    ],
)
async def test_a_patch_may_come_in_any_order(call, operation):
    log = await call(("apply_patch", operation), tools=[{"type": "apply_patch"}], size=1)

    assert log.response["output"][0]["operation"] == operation
    assert "".join(deltas(log, "response.apply_patch_call_operation_diff.delta")) == operation["diff"]
    check(log)


@pytest.mark.parametrize("said", [{}, {"diff": ""}, {"diff": "-all"}])
async def test_a_deletion_has_no_diff(call, said):
    operation = {"type": "delete_file", "path": "a", **said}
    log = await call(("apply_patch", operation), tools=[{"type": "apply_patch"}])

    assert types(log) == ["output_item.added", "output_item.done", "completed"]
    assert log.response["output"][0]["operation"] == {"type": "delete_file", "path": "a"}
    check(log)


CLICK = {"type": "click", "button": "left", "x": 1, "y": 2}
DOUBLE = {"type": "double_click", "x": 1, "y": 2}


@pytest.mark.parametrize(
    ("tool", "name", "said", "item"),
    [
        (
            {"type": "local_shell"},
            "local_shell",
            {"command": ["ls"], "timeout_ms": 9, "user": None, "why": "to see"},
            {"type": "local_shell_call", "action": {"type": "exec", "command": ["ls"], "timeout_ms": 9, "env": {}}},
        ),
        (
            {"type": "computer"},
            "computer",
            {"actions": [{**CLICK, "keys": None}, DOUBLE, {"type": "wait"}]},
            {
                "type": "computer_call",
                "actions": [CLICK, {**DOUBLE, "keys": None}, {"type": "wait"}],
                "pending_safety_checks": [],
            },
        ),
        (
            PREVIEW,
            "computer",
            {"action": {"type": "drag", "path": [{"x": 1, "y": 2}, {"x": 3, "y": 4}]}},
            {
                "type": "computer_call",
                "action": {"type": "drag", "path": [{"x": 1, "y": 2}, {"x": 3, "y": 4}]},
                "pending_safety_checks": [],
            },
        ),
        (
            SEARCH,
            "tool_search",
            {"query": "weather"},
            {"type": "tool_search_call", "execution": "client", "arguments": {"query": "weather"}},
        ),
    ],
)
async def test_other_calls_are_shown_once_they_are_whole(call, tool, name, said, item):
    log = await call((name, said), tools=[tool])

    assert types(log) == ["output_item.added", "output_item.done", "completed"]
    assert log.events[2]["item"]["status"] == "in_progress"
    shown = log.response["output"][0]
    assert {field: shown[field] for field in item} == item
    assert (shown["status"], shown["call_id"]) == ("completed", "call_0")
    check(log)
    check_sdk(log)


async def test_calls_of_many_tools_follow_one_another(call):
    calls = [
        ("get_weather", {"city": "Rome"}),
        ("shell", {"commands": ["ls"]}),
        ("apply_patch", {"input": "x"}),
        ("local_shell", {"command": ["ls"]}),
    ]
    log = await call(*calls, tools=[WEATHER, SHELL, PATCH, {"type": "local_shell"}])

    assert [item["type"] for item in log.response["output"]] == [
        "function_call",
        "shell_call",
        "custom_tool_call",
        "local_shell_call",
    ]
    assert [item["call_id"] for item in log.response["output"]] == ["call_0", "call_1", "call_2", "call_3"]
    check(log)
    check_sdk(log)


async def test_a_name_that_the_model_made_up_is_a_function_call(call):
    log = await call(("dance", {}), tools=[SHELL])

    assert (log.response["output"][0]["type"], log.response["output"][0]["name"]) == ("function_call", "dance")
    check(log)


async def test_what_a_call_says_is_told_as_it_was_said(call):
    """From the model to the item and back: the same function with the same arguments."""
    said = [
        ("get_weather", {"city": "Rome"}),
        ("crm__find", {}),
        ("crm__query", {"input": "select '🎈'"}),
        ("local_shell", {"command": ["ls"], "working_directory": "/", "env": {"A": "b"}}),
        ("shell", {"commands": ["ls", "pwd"], "timeout_ms": 9, "max_output_length": 100}),
        ("apply_patch", {"type": "update_file", "path": "a", "diff": "@@\n-a\n+b\n"}),
        ("computer", {"actions": [CLICK, {"type": "type", "text": "é"}, {"type": "screenshot"}]}),
        ("tool_search", {"query": "more", "limit": 3}),
    ]
    tools = [
        WEATHER, GROUP, {"type": "local_shell"}, SHELL, {"type": "apply_patch"}, {"type": "computer"}, SEARCH
    ]  # fmt: skip
    log = await call(*said, tools=tools)

    messages = told(*log.response["output"], tools=tools)
    assert [(name, arguments) for _, name, arguments in calls_of(messages)] == said


@pytest.mark.parametrize(
    ("tool", "name", "arguments"),
    [
        (PATCH, "apply_patch", '{"input": "a'),
        (SHELL, "shell", "ls"),
        (SHELL, "shell", '{"commands": "ls"}'),
        (SHELL, "shell", '{"commands": ["ls", 1]}'),
        (SHELL, "shell", '{"commands": ["ls"], "commands": ["rm"]}'),
        (SHELL, "shell", '{"commands": ["ls"], "timeout_ms": "soon"}'),
        (SHELL, "shell", '{"commands": ["ls"'),
        ({"type": "apply_patch"}, "apply_patch", '{"type": "rename_file", "path": "a", "diff": ""}'),
        ({"type": "apply_patch"}, "apply_patch", '{"type": "create_file", "path": "a"}'),
        ({"type": "apply_patch"}, "apply_patch", '{"type": "create_file", "path": "a", "diff": "+a", "diff": "+b"}'),
        ({"type": "apply_patch"}, "apply_patch", '{"type": "create_file", "path": "a", "diff": 1}'),
        ({"type": "local_shell"}, "local_shell", '{"command": "ls"}'),
        ({"type": "local_shell"}, "local_shell", ""),
        ({"type": "computer"}, "computer", '{"actions": []}'),
        ({"type": "computer"}, "computer", '{"actions": [{"type": "jump"}]}'),
        ({"type": "computer"}, "computer", '{"actions": [{"type": "click", "x": 1}]}'),
        ({"type": "computer"}, "computer", '{"actions": ["click"]}'),
        (SEARCH, "tool_search", '["weather"]'),
        (SEARCH, "tool_search", '{"query": NaN}'),
    ],
)
async def test_arguments_that_do_not_fit_are_a_failure_of_the_model(call, tool, name, arguments):
    log = await call((name, arguments), tools=[tool])

    assert types(log)[-2:] == ["error", "failed"]
    assert log.events[-2]["code"] == "invalid_tool_call"
    assert f"The model called '{name}' with arguments that do not fit it" in log.events[-2]["message"]
    assert all(item["status"] != "completed" for item in log.response["output"])
    assert log.notes[-1].fields["status"] == 502
    for event in log.events:
        assert strict(event["type"]).valid(event)


async def test_nothing_follows_a_call_that_does_not_fit():
    batches = [[Call(0, '{"commands": 1}', "shell")], [Text("meanwhile")], [Call(1, "{}", "f"), Finish("tool_calls")]]
    log = await Log().answer(Scripted(*batches), {"model": "m", "tools": [SHELL]})

    assert types(log) == ["output_item.added", "output_item.done", "error", "failed"]


@pytest.mark.parametrize(
    ("tool", "name", "arguments", "shown"),
    [
        (WEATHER, "get_weather", '{"ci', [("function_call", "incomplete")]),
        (PATCH, "apply_patch", '{"input": "*** Be', [("custom_tool_call", "incomplete")]),
        (SHELL, "shell", '{"commands": ["ls", "ca', [("shell_call", "incomplete")]),
        ({"type": "apply_patch"}, "apply_patch", '{"type": "create_file", "path": "a", "diff": "+', None),
        ({"type": "apply_patch"}, "apply_patch", '{"type": "create_f', []),
        ({"type": "local_shell"}, "local_shell", '{"command": ["l', []),
    ],
)
async def test_a_call_that_was_cut_is_not_a_whole_one(call, tool, name, arguments, shown):
    log = await call((name, arguments), tools=[tool], finish="length")

    assert log.response["status"] == "incomplete"
    expected = [("apply_patch_call", "in_progress")] if shown is None else shown  # that type knows no "incomplete"
    assert [(item["type"], item["status"]) for item in log.response["output"]] == expected
    check(log)


MANY = (
    [Reasoning("Well")],
    [Call(0, '{"input": "a', "apply_patch"), Call(0, 'b"}')],
    [Call(1, '{"commands": ["l', "shell"), Call(1, 's", "rm'), Call(1, '"]}')],
    [Call(2, '{"type":"create_file","path":"a","diff":"+', "patch"), Call(2, 'a"}')],
    [Call(3, '{"command": ["ls"]}', "local_shell"), Finish("tool_calls")],
)
TOOLS_OF_MANY = [PATCH, SHELL, {"type": "local_shell"}]


def many():
    """The batches, with the name that the tool apply_patch has beside a custom one of that name, and the request."""
    request = {"model": "m", "tools": [*TOOLS_OF_MANY, {"type": "apply_patch"}]}
    name = Toolbox(request).name(("apply_patch_call", "", "apply_patch"))
    return [
        [Call(d.index, d.arguments, name) if isinstance(d, Call) and d.name == "patch" else d for d in batch]
        for batch in MANY
    ], request


async def test_a_worker_may_die_anywhere_in_these_calls():
    batches, request = many()
    whole = await Log().answer(Scripted(*batches), request)
    check(whole)
    for kept in range(1, len(whole.entries) - 1):
        log = await Log().answer(Scripted(*batches), request, entries_max=kept)
        if log.transcript().closed:
            continue
        model = Scripted(*batches)
        await log.answer(model, request)

        check(log)
        calls = [item for item in log.response["output"] if item["type"] in CLIENT_CALLS]
        assert all(item["status"] == "completed" for item in calls)
        first = next(place for place, entry in enumerate(whole.entries) if _ends_a_call(entry))
        assert model.asked == (0 if kept >= first else 1)


def _ends_a_call(entry):
    return (
        isinstance(entry, dict)
        and entry["type"] == "response.output_item.done"
        and entry["item"]["type"] in CLIENT_CALLS
    )


async def test_these_calls_may_be_cancelled_anywhere():
    batches, request = many()
    whole = await Log().answer(Scripted(*batches), request)
    for kept in range(1, len(whole.entries)):
        log = await Log().answer(Scripted(*batches), request, entries_max=kept)
        if not log.transcript().closed:
            log.entries += close_cancelled(log.transcript())

            assert log.response["status"] == "cancelled"
            check(log)


async def test_a_call_of_a_model_without_functions_becomes_the_tools_own_item():
    unwrapper = Unwrapper()
    said = '{"name": "shell", "arguments": {"commands": ["ls"]}}'
    batches = [unwrapper.take([Text(character)]) for character in said] + [unwrapper.take([Finish("stop")])]
    log = await Log().answer(Scripted(*batches), {"model": "m", "tools": [SHELL]})

    assert log.response["output"][0]["action"]["commands"] == ["ls"]
    check(log)


def test_half_of_a_surrogate_pair_does_not_swallow_what_follows():
    deltas = Unwrapper().take([Text(r'{"answer": "a\ud83d and \ud83c\udf88"}'), Finish("stop")])

    assert deltas == [Text("a\ufffd and 🎈"), Finish("stop")]


@settings(max_examples=150)
@given(
    calls=st.lists(
        st.tuples(
            st.sampled_from(["get_weather", "apply_patch", "shell", "local_shell", "computer", "crm__query", "?"]),
            json_values.map(json.dumps)
            | st.sampled_from(['{"input": "a"}', '{"commands": ["a", "b"]}', '{"command": ["a"]}', "", "x", '{"']),
        ),
        max_size=4,
    ),
    size=st.integers(1, 9),
    ending=st.sampled_from(["tool_calls", "length"]),
    kept=st.integers(1, 60),
)
async def test_whatever_is_called_the_log_is_whole(calls, size, ending, kept):
    """Also if the first worker dies after any number of entries."""
    batches = [
        [Call(index, arguments[at : at + size], "" if at else name)]
        for index, (name, arguments) in enumerate(calls)
        for at in range(0, max(len(arguments), 1), size)
    ]
    tools = [WEATHER, PATCH, SHELL, GROUP, {"type": "local_shell"}, {"type": "computer"}]
    model = Scripted(*batches, [Finish(ending)])
    log = await Log().answer(model, {"model": "m", "tools": tools}, entries_max=kept)
    if not log.transcript().closed:
        await log.answer(model, {"model": "m", "tools": tools})

    if log.response["status"] == "failed":
        assert log.events[-2]["code"] == "invalid_tool_call"
        assert all(strict(event["type"]).valid(event) for event in log.events if event["type"] != "error")
    else:
        check(log)

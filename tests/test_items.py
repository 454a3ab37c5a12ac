"""The items of an input: each is stored complete, in the form in which the API's description lists it."""

from typing import Any

import pytest

from antiphon.errors import BadRequest, NotFound
from antiphon.protocol.ids import PREFIXES
from antiphon.server.items import (
    FORMS,
    PARTS,
    check_calls,
    input_items,
    references,
    split_trigger,
    without_known,
)
from antiphon.spec import Document

USER = {"role": "user", "content": "Hi"}
SCREENSHOT = {"type": "computer_screenshot", "image_url": "data:image/png;base64,AAAA"}
FUNCTION = {"type": "function", "name": "f"}
IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
FILE = {"type": "input_file", "filename": "a.txt", "file_data": "data:text/plain;base64,QQ=="}
AUDIO = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
PATCH = {"type": "create_file", "path": "a.txt", "diff": "+a"}
SHELL_OUTPUT = {"stdout": "a", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}

# What is left out may be left out: each is the least of its kind that has a plain meaning.
SENT: list[Any] = [
    USER,
    {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Hi"}, IMAGE, FILE, AUDIO]},
    {"role": "system", "content": "Hi", "id": None, "status": None, "phase": None},
    {"role": "user", "content": [{**IMAGE, "file_id": None, "detail": None, "prompt_cache_breakpoint": None}]},
    {"role": "user", "content": [{"type": "input_file", "file_url": "https://example.com/a.pdf"}]},
    {"role": "assistant", "content": "Hi"},
    {
        "role": "assistant",
        "content": [{"type": "output_text", "text": "Hi", "annotations": None}],
        "phase": "commentary",
    },
    {"role": "assistant", "content": [{"type": "refusal", "refusal": "No"}], "status": "incomplete"},
    {"type": "reasoning", "summary": [], "content": None, "status": None, "encrypted_content": "gAAAAA"},
    {
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "a"}],
        "content": [{"type": "reasoning_text", "text": "b"}],
        "status": "completed",
    },
    {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "namespace": None, "caller": None},
    {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "caller": {"type": "direct"}},
    {"type": "function_call_output", "call_id": "c", "output": "x", "status": None},
    {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "x"}, IMAGE, FILE]},
    {"type": "custom_tool_call", "call_id": "c", "name": "f", "input": "x", "status": "strange"},
    {"type": "custom_tool_call_output", "call_id": "c", "output": "x"},
    {"type": "custom_tool_call_output", "call_id": "c", "output": [IMAGE]},
    {"type": "file_search_call"},
    {"type": "file_search_call", "queries": ["a"], "results": [{"file_id": "file-1", "text": "a", "score": 0.5}]},
    {"type": "web_search_call"},
    {"type": "web_search_call", "status": "failed", "action": {"type": "search", "query": "a"}},
    {"type": "web_search_call", "action": {"type": "open_page", "url": "https://example.com"}},
    {"type": "web_search_call", "action": {"type": "find_in_page", "url": "https://example.com", "pattern": "a"}},
    {"type": "web_search_call", "action": {"type": "find_in_page"}},
    {"type": "web_search_call", "action": {"type": "other"}},
    {"type": "code_interpreter_call"},
    {
        "type": "code_interpreter_call",
        "container_id": "cntr_1",
        "code": "1",
        "outputs": [{"type": "logs", "logs": "1"}],
    },
    {"type": "image_generation_call"},
    {"type": "image_generation_call", "result": "AAAA", "quality": "high", "revised_prompt": None},
    {"type": "computer_call", "call_id": "c", "action": {"type": "screenshot"}},
    {"type": "computer_call", "call_id": "c", "actions": [{"type": "screenshot"}], "pending_safety_checks": None},
    {"type": "computer_call_output", "call_id": "c", "output": SCREENSHOT, "status": "in_progress"},
    {"type": "computer_call_output", "call_id": "c", "output": SCREENSHOT, "acknowledged_safety_checks": [{"id": "a"}]},
    {"type": "shell_call", "call_id": "c", "action": {"commands": ["ls"]}},
    {
        "type": "shell_call",
        "call_id": "c",
        "action": {"commands": ["ls"], "timeout_ms": 5},
        "environment": {"type": "local", "skills": []},
    },
    {
        "type": "shell_call",
        "call_id": "c",
        "action": {"commands": []},
        "environment": {"type": "container_reference", "container_id": "cntr_1"},
    },
    {"type": "shell_call_output", "call_id": "c", "output": [SHELL_OUTPUT]},
    {"type": "shell_call_output", "call_id": "c", "output": [], "max_output_length": 5, "status": "incomplete"},
    {"type": "local_shell_call", "id": "lsh_1", "call_id": None, "action": {"command": ["ls"]}},
    {"type": "local_shell_call", "call_id": "c", "action": {"type": "exec", "command": ["ls"], "env": {"A": "b"}}},
    {"type": "local_shell_call_output", "id": "c", "output": "x"},
    {"type": "local_shell_call_output", "call_id": "c", "output": "x", "status": "completed"},
    {"type": "apply_patch_call", "call_id": "c", "status": "completed", "operation": PATCH},
    {"type": "apply_patch_call_output", "call_id": "c", "status": "failed", "output": None},
    {"type": "apply_patch_call_output", "call_id": "c", "status": "completed", "output": "x"},
    {"type": "tool_search_call", "arguments": {}},
    {"type": "tool_search_call", "call_id": "c", "execution": "client", "arguments": {"query": "a"}},
    {"type": "tool_search_output", "tools": [FUNCTION]},
    {"type": "tool_search_output", "call_id": "c", "tools": [{"type": "web_search"}], "status": None},
    {"type": "additional_tools", "role": "developer", "tools": [FUNCTION]},
    {"type": "mcp_list_tools", "server_label": "s", "tools": [{"name": "t", "input_schema": {}}], "error": None},
    {"type": "mcp_approval_request", "id": "mcpr_1", "server_label": "s", "name": "t", "arguments": "{}"},
    {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True, "reason": None},
    {"type": "mcp_call", "server_label": "s", "name": "t", "arguments": "{}"},
    {"type": "mcp_call", "server_label": "s", "name": "t", "arguments": "{}", "error": "x", "status": "failed"},
    {
        "type": "mcp_call",
        "server_label": "s",
        "name": "t",
        "arguments": "{}",
        "error": {"type": "http_error", "code": 500, "message": "x"},
    },
    {"type": "program", "id": "cm_1", "call_id": "c", "code": "1", "fingerprint": "x"},
    {"type": "program_output", "id": "cmo_1", "call_id": "c", "result": "1", "status": "completed"},
    {"type": "compaction", "encrypted_content": "x", "id": None},
]


@pytest.fixture(scope="module")
def document():
    return Document.load()


@pytest.fixture
def new_id():
    """Ids that tell which was made when."""
    numbers = iter(range(1, 100))
    return lambda prefix: f"{prefix}_{next(numbers)}"


def name(item):
    return item.get("type") or item["role"]


def stored(item, **options):
    (complete,) = input_items([item], new_id=lambda prefix: f"{prefix}_new", **options)
    return complete


@pytest.mark.parametrize("item", SENT, ids=name)
def test_what_is_sent_is_taken(document, item):
    create = document.operation("createResponse").body.media["application/json"].strict(lenient=("input",))

    assert create.problems({"model": "m", "input": [item]}) == []


@pytest.mark.parametrize("form", ["ItemResource", "ConversationItem"])
@pytest.mark.parametrize("extra", [{}, {"a key of tomorrow": 1}], ids=["", "more"])
@pytest.mark.parametrize("item", SENT, ids=name)
def test_each_item_is_stored_in_the_form_in_which_it_is_listed(document, item, extra, form):
    assert document.schema(form).strict().problems(stored(item | extra)) == []


@pytest.mark.parametrize("item", SENT, ids=name)
def test_what_was_listed_can_be_sent_again_and_stays_as_it_is(item):
    listed = stored(item)

    assert stored(listed) == listed


def test_every_item_type_of_the_description_is_tried(document):
    listed = {
        type
        for each in document.schema("ItemResource").raw["anyOf"]
        for type in types(document, each["$ref"].rpartition("/")[2])
    }

    assert listed == set(FORMS) == {item.get("type", "message") for item in SENT}
    assert set(FORMS) <= set(PREFIXES)


def types(document, schema):
    raw = document.schema(schema).raw
    for part in raw.get("allOf", ()):
        yield from types(document, part["$ref"].rpartition("/")[2]) if "$ref" in part else ()
    yield from raw.get("properties", {}).get("type", {}).get("enum", ())


def test_every_part_is_tried():
    parts = {
        part["type"]
        for item in SENT
        for name in ("content", "summary", "output")
        for part in (item.get(name) if isinstance(item.get(name), list) else [item.get(name)])
        if isinstance(part, dict) and "type" in part
    }

    assert parts == set(PARTS)


@pytest.mark.parametrize("item", SENT, ids=name)
def test_an_item_without_an_id_gets_one_by_its_type(item):
    bare = {key: value for key, value in item.items() if key != "id"}
    complete = stored({**bare, "call_id": "c"} if "local_shell_call" in name(item) else bare)

    assert complete["id"] == PREFIXES[complete["type"]] + "_new"


def test_a_text_is_one_message_of_the_user(new_id):
    assert input_items("Hi", new_id=new_id) == [
        {
            "id": "msg_1",
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "Hi"}],
            "status": "completed",
        }
    ]


def test_a_text_of_the_assistant_is_output():
    assert stored({"role": "assistant", "content": "Hi"})["content"] == [
        {"type": "output_text", "text": "Hi", "annotations": [], "logprobs": []}
    ]


def test_an_image_without_a_detail_has_the_default():
    assert stored({"role": "user", "content": [IMAGE]})["content"] == [{**IMAGE, "detail": "auto"}]


def test_sealed_reasoning_is_kept_as_it_came():
    item = {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "gAAAAA"}

    assert stored(item) == item


@pytest.mark.parametrize("status", [None, "failed", "searching"])
def test_a_status_that_an_item_cannot_have_counts_as_done(status):
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "status": status}

    assert stored(call)["status"] == "completed"


def test_the_output_of_a_local_shell_may_name_its_call_by_its_own_id():
    output = stored({"type": "local_shell_call_output", "id": "call_1", "output": "x"})

    assert (output["id"], output["call_id"]) == ("lsho_new", "call_1")


def test_items_share_nothing_with_each_other():
    first, second = stored({"type": "file_search_call"}), stored({"type": "file_search_call"})
    first["queries"].append("a")

    assert second["queries"] == []


def test_a_reference_is_replaced_by_the_item_that_it_names(new_id):
    kept = stored({**USER, "id": "msg_kept"})
    input: list[Any] = [{"type": "item_reference", "id": "msg_kept"}, {"id": "msg_kept", "type": None}, USER]

    assert references(input) == ["msg_kept", "msg_kept"]
    assert input_items(input, new_id=new_id, referenced={"msg_kept": kept}) == [
        kept,
        kept,
        stored(USER) | {"id": "msg_1"},
    ]
    assert references("Hi") == []


def test_a_reference_to_nothing_is_not_found(new_id):
    with pytest.raises(NotFound) as caught:
        input_items([{"type": "item_reference", "id": "rs_1"}], new_id=new_id)

    assert caught.value.wire()["error"] == {
        "message": "Item with id 'rs_1' not found. Items are not persisted when `store` is set to false. "
        "Try again with `store` set to true, or remove this item from your input.",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }


def test_an_empty_text_says_nothing(new_id):
    assert input_items("", new_id=new_id) == []


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"type": "agent_message", "author": "a", "recipient": "b", "content": []}, "items[1].type"),
        ({"role": "user", "content": [{"type": "scoped_content"}]}, "items[1].content[0].type"),
        ({"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]}, "items[1].content[0].file_id"),
        ({"type": "function_call_output", "output": "x"}, "items[1].call_id"),
        ({"type": "local_shell_call_output", "output": "x"}, "items[1].call_id"),
        ({"type": "compaction_trigger"}, "items[1]"),
    ],
)
def test_what_is_not_taken_is_refused_where_it_stands(new_id, item, param):
    with pytest.raises(BadRequest) as caught:
        input_items([USER, item], new_id=new_id, at="items")

    assert caught.value.param == param


def test_a_compaction_trigger_is_split_off():
    assert split_trigger([USER, {"type": "compaction_trigger"}]) == ([USER], True)
    assert split_trigger([USER]) == ([USER], False)
    assert split_trigger("Hi") == ("Hi", False)


@pytest.mark.parametrize("input", [[{"type": "compaction_trigger"}, USER], [{"type": "compaction_trigger"}] * 2])
def test_a_compaction_trigger_must_be_the_last_item(input):
    with pytest.raises(BadRequest) as caught:
        split_trigger(input)

    assert (caught.value.param, caught.value.code) == ("input[0]", "invalid_value")


# What the model has said, with all that only an `include` shows; and how clients send it back.
SAID = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Hi", "annotations": [], "logprobs": [{"token": "Hi"}]}],
}
SEALED = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAAA"}
FOUND = {"type": "file_search_call", "id": "fs_1", "status": "completed", "queries": ["a"], "results": [{"text": "b"}]}


@pytest.mark.parametrize(
    ("known", "again"),
    [
        (SAID, SAID),
        (SAID, SAID | {"content": [{"type": "output_text", "text": "Hi"}], "phase": None}),
        (SEALED, SEALED),
        (SEALED, {"type": "reasoning", "id": "rs_1", "summary": [], "content": None, "status": None}),
        (FOUND, FOUND),
        (FOUND, FOUND | {"results": None}),
    ],
)
def test_what_the_model_has_seen_is_not_a_new_item(known, again):
    assert without_known([stored(again)], before=[known]) == []


@pytest.mark.parametrize(
    ("known", "again"),
    [
        (SAID, SAID | {"id": "msg_2"}),
        (SAID, SAID | {"content": "Ho"}),
        (SEALED, SEALED | {"encrypted_content": "gAAAAB"}),
        (FOUND, FOUND | {"results": [{"text": "c"}]}),
    ],
)
def test_what_differs_is_a_new_item(known, again):
    item = stored(again)

    assert without_known([item], before=[known]) == [item]


# The calls that a client answers, each with its answer.
PAIRS: dict[str, Any] = {
    "function call": (
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "x"},
    ),
    "custom tool call": (
        {"type": "custom_tool_call", "call_id": "c", "name": "f", "input": ""},
        {"type": "custom_tool_call_output", "call_id": "c", "output": "x"},
    ),
    "shell call": (
        {"type": "shell_call", "call_id": "c", "action": {"commands": []}},
        {"type": "shell_call_output", "call_id": "c", "output": []},
    ),
    "local shell call": (
        {"type": "local_shell_call", "call_id": "c", "action": {"command": []}},
        {"type": "local_shell_call_output", "id": "c", "output": "x"},
    ),
    "apply patch call": (
        {"type": "apply_patch_call", "call_id": "c", "status": "completed", "operation": PATCH},
        {"type": "apply_patch_call_output", "call_id": "c", "status": "completed"},
    ),
    "computer call": (
        {"type": "computer_call", "call_id": "c", "action": {"type": "screenshot"}},
        {"type": "computer_call_output", "call_id": "c", "output": SCREENSHOT},
    ),
    "tool search call": (
        {"type": "tool_search_call", "call_id": "c", "execution": "client", "arguments": {}},
        {"type": "tool_search_output", "call_id": "c", "execution": "client", "tools": []},
    ),
}


@pytest.mark.parametrize(("call", "output"), PAIRS.values(), ids=PAIRS)
def test_a_call_and_its_output_go_together(call, output):
    check_calls([], [stored(call), stored(output)])
    check_calls([stored(USER), stored(call)], [stored(output)])


@pytest.mark.parametrize("said", PAIRS)
def test_a_call_without_its_output_is_refused(said):
    call = stored(PAIRS[said][0])
    for before, items in (([], [call]), ([call], [stored(USER)])):
        with pytest.raises(BadRequest) as caught:
            check_calls(before, items)

        assert (caught.value.message, caught.value.param) == (f"No tool output found for {said} c.", "input")


@pytest.mark.parametrize("said", PAIRS)
def test_an_output_without_its_call_is_refused(said):
    with pytest.raises(BadRequest) as caught:
        check_calls([stored(USER)], [stored(PAIRS[said][1])])

    assert caught.value.message in (
        f"No tool call found for {said} output with call_id c.",
        f"No tool call found for {said.removesuffix(' call')} output with call_id c.",
    )


def test_a_call_that_was_cut_short_needs_no_output():
    check_calls([stored(PAIRS["function call"][0] | {"status": "incomplete"})], [stored(USER)])


def test_a_call_that_a_deletion_left_alone_needs_no_output():
    check_calls([stored(PAIRS["function call"][0]), stored(USER)], [stored(USER)])


def test_nothing_new_is_no_fault():
    check_calls([], [])
    check_calls([stored(USER), SAID], [])


def test_a_search_that_the_server_has_made_needs_no_output():
    check_calls([], [stored({"type": "tool_search_call", "arguments": {}})])


REASONING = {"type": "reasoning", "id": "rs_1", "summary": []}


@pytest.mark.parametrize("items", [[REASONING], [REASONING, USER], [REASONING, PAIRS["function call"][1]]])
def test_reasoning_without_what_came_of_it_is_refused(items):
    with pytest.raises(BadRequest) as caught:
        check_calls([stored(PAIRS["function call"][0])], [stored(item) for item in items])

    assert (caught.value.message, caught.value.param) == (
        "Item 'rs_1' of type 'reasoning' was provided without its required following item.",
        "input",
    )


@pytest.mark.parametrize("said", [SAID, {"type": "web_search_call"}, {"type": "mcp_approval_request", "id": "mcpr_1"}])
def test_reasoning_goes_with_what_came_of_it(said):
    said = {"server_label": "s", "name": "t", "arguments": "{}"} | said
    check_calls([], [stored(REASONING), stored(REASONING), stored(said), stored(USER)])

"""The overlay: how it changes a document, and that with it the packaged document says what the API does."""

import json
from pathlib import Path

import pytest

from antiphon.errors import DocumentError
from antiphon.spec import Document
from antiphon.spec.overlay import Action, apply, parse

OVERLAY = Path(__file__).parents[1] / "src/antiphon/spec/overlay.yaml"
TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.sse"))


@pytest.fixture(scope="module")
def document():
    return Document.load()


@pytest.fixture(scope="module")
def create(document):
    """The form of the create body that a server holds requests to."""
    return document.operation("createResponse").body.media["application/json"].strict(lenient=("input",))


def changed(document, *actions):
    return apply(document, [Action(description="", **action) for action in actions])


@pytest.mark.parametrize(
    ("target", "update", "result"),
    [
        ("$", {"c": 3}, {"a": {"b": 1}, "list": ["x", "y"], "c": 3}),
        ("$.a", {"b": 2, "c": {"d": 3}}, {"a": {"b": 2, "c": {"d": 3}}, "list": ["x", "y"]}),
        ("$['a']", {"b": [2]}, {"a": {"b": [2]}, "list": ["x", "y"]}),
        ("$.list", "z", {"a": {"b": 1}, "list": ["x", "y", "z"]}),
        ("$.list", ["z", "w"], {"a": {"b": 1}, "list": ["x", "y", "z", "w"]}),
        ("$.list[0]", "w", {"a": {"b": 1}, "list": ["w", "y"]}),
    ],
)
def test_an_update_is_merged_into_what_the_target_matches(target, update, result):
    assert changed({"a": {"b": 1}, "list": ["x", "y"]}, {"target": target, "update": update}) == result


@pytest.mark.parametrize(
    ("target", "result"),
    [
        ("$.list[?@ == 'b']", ["a", "c", {"k": "v"}]),
        ("$.list[?@ in ['a', 'c']]", ["b", {"k": "v"}]),
        ("$.list[?@['k'] == 'v']", ["a", "b", "c"]),
        ("$.list[1]", ["a", "c", {"k": "v"}]),
        ("$.list[*]", []),
    ],
)
def test_what_the_target_matches_can_be_removed(target, result):
    document = {"list": ["a", "b", "c", {"k": "v"}]}

    assert changed(document, {"target": target, "remove": True}) == {"list": result}


def test_one_action_can_change_several_places():
    document = {"a/b": {"x": 1}, "c": {"x": 1}, "d": {"x": 1}}

    assert changed(document, {"target": "$['a/b', 'c'].x", "update": 2}) == {
        "a/b": {"x": 2},
        "c": {"x": 2},
        "d": {"x": 1},
    }


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("$.b", "nothing at b"),
        ("$['a','b']", "nothing at b"),
        ("$.a.x", "nothing at x"),
        ("$.list[7]", "matches nothing"),
        ("$.list[?@ == 'z']", "nothing equal to z"),
        ("$.list[?@ in ['x', 'z']]", "nothing equal to z"),
        ("a", r"does not begin with \$"),
        ("$..a", "cannot be read"),
        ("$.a[?length(@) > 1]", "cannot be read"),
    ],
)
def test_a_target_without_a_match_is_an_error(target, reason):
    """Else a newer document would make an action idle without anybody noticing."""
    with pytest.raises(DocumentError, match=reason):
        changed({"a": 1, "list": ["x"]}, {"target": target, "update": 2})


@pytest.mark.parametrize(
    "text",
    [
        b"openapi: 3.1.0",
        b"overlay: 1.0.0\nactions: [{target: $.a}]",
        b"overlay: 1.0.0\nactions: [{target: $.a, update: 1, remove: true}]",
    ],
)
def test_what_is_no_overlay_is_refused(text):
    with pytest.raises(DocumentError):
        parse(text)


def test_every_action_gives_its_reason():
    assert [action.target for action in parse(OVERLAY.read_bytes()) if len(action.description) < 20] == []


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_the_worked_transcripts_are_valid_in_the_strict_form(document, path):
    for frame in path.read_text().strip().split("\n\n"):
        name, data = frame.split("\n")
        event = json.loads(data.removeprefix("data: "))

        assert name == "event: " + event["type"]
        assert document.event_schema(event["type"]).strict().problems(event) == []


MESSAGE = {"role": "user", "content": [{"type": "input_text", "text": "x"}]}


@pytest.mark.parametrize(
    "item",
    [
        MESSAGE,
        {"type": "message", **MESSAGE},
        {"type": "message", "id": "msg_1", "status": "completed", **MESSAGE},
        {"role": "developer", "content": "x"},
        {"role": "user", "content": [{"type": "input_image", "image_url": "https://x.test/a.png"}]},
        {"role": "user", "content": [{"type": "input_file", "file_data": "data:,x", "filename": None}]},
        {"role": "assistant", "content": "x"},
        {"role": "assistant", "content": "x", "phase": "final_answer"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "x"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "x"}], "id": "msg_1"},
        {"type": "reasoning", "summary": [], "encrypted_content": "gAAAAA"},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "x"}], "content": None},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "x"},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "x"}]},
        {"type": "custom_tool_call", "call_id": "c", "name": "f", "input": "x", "status": "completed"},
        {"type": "custom_tool_call_output", "call_id": "c", "output": "x"},
        {
            "type": "local_shell_call",
            "call_id": "c",
            "status": "completed",
            "action": {"type": "exec", "command": ["ls"]},
        },
        {"type": "local_shell_call_output", "id": "c", "output": "x"},
        {"type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "x"}},
        {"type": "web_search_call", "status": "completed"},
        {"type": "shell_call", "call_id": "c", "action": {"commands": ["ls"]}},
        {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True},
        {"type": "compaction", "encrypted_content": "x"},
        {"type": "compaction_trigger"},
        {"type": "item_reference", "id": "msg_1"},
        {"type": "program", "id": "cm_1", "call_id": "c", "code": "1", "fingerprint": "x"},
        {"type": "program_output", "id": "cmo_1", "call_id": "c", "result": "1", "status": "completed"},
        {"type": "additional_tools", "role": "developer", "tools": [{"type": "function", "name": "f"}]},
        {**MESSAGE, "a key of tomorrow": 1},
    ],
    ids=lambda item: item.get("type", item.get("role")),
)
def test_items_are_accepted_as_clients_send_them(create, item):
    assert create.problems({"model": "m", "input": [item]}) == []


@pytest.mark.parametrize(
    "item",
    [
        {},
        {"id": "msg_1"},
        {"role": "user"},
        {"role": "tool", "content": "x"},
        {"role": "user", "content": [{"type": "output_text", "text": "x"}]},
        {"role": "assistant", "content": [{"type": "input_text", "text": "x"}]},
        {"role": "user", "content": "x", "phase": "commentary"},
        {"type": "item_reference"},
        {"type": "function_call", "name": "f", "arguments": "{}"},
        {"type": "bogus_item"},
    ],
)
def test_items_without_a_plain_meaning_are_refused(create, item):
    assert not create.valid({"model": "m", "input": [item]})


@pytest.mark.parametrize(
    "fields",
    [
        {"client_metadata": {"session": "x"}},
        {"moderation": {"model": "omni-moderation-latest", "policy": {"input": {"mode": "score"}}}},
        {"prompt_cache_options": {"mode": "explicit", "ttl": "30m"}},
        {"presence_penalty": 0.5, "frequency_penalty": 0},
        {"user": None, "safety_identifier": None, "prompt_cache_key": None, "top_logprobs": None, "metadata": None},
        {"metadata": {str(number): "x" * 512 for number in range(16)}},
        {"metadata": {"k" * 64: ""}},
        {"reasoning": {"effort": "max", "context": "all_turns", "mode": "pro"}},
        {"tools": [{"type": "function", "name": "f"}]},
        {"tools": [{"type": "function", "name": "f", "parameters": {"properties": {"x": {"any": "thing"}}}}]},
        {"tools": [{"type": "web_search", "external_web_access": False}]},
        {"tools": [{"type": "programmatic_tool_calling"}], "tool_choice": {"type": "programmatic_tool_calling"}},
        {"tools": [{"type": "custom", "name": "f", "allowed_callers": ["programmatic"]}]},
        {"service_tier": "fast"},
        {"max_tool_calls": 1},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_a_create_may_hold_what_the_api_knows(create, fields):
    assert create.problems({"model": "m", "input": "x", **fields}) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"unknown": 1},
        {"metadata": {str(number): "x" for number in range(17)}},
        {"metadata": {"k": "x" * 513}},
        {"metadata": {"k" * 65: "x"}},
        {"max_tool_calls": 0},
        {"moderation": {"policy": {}}},
        {"prompt_cache_options": {"other": 1}},
        {"stream_options": {"include_usage": True}},
        {"text": {"format": {"type": "text", "other": 1}}},
        {"tools": [{"type": "function", "name": "f", "other": 1}]},
        {"user": 5},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_a_create_may_not_hold_what_the_api_refuses(create, fields):
    assert not create.valid({"model": "m", "input": "x", **fields})


def test_a_create_needs_model_and_input_or_a_prompt_that_has_them(create):
    assert not create.valid({"input": "x"})
    assert not create.valid({"model": "m", "previous_response_id": "resp_1"})
    assert create.valid({"prompt": {"id": "pmpt_1"}})


RESPONSE = {
    "id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "completed_at": 2,
    "background": False, "error": None, "incomplete_details": None, "instructions": None, "max_output_tokens": None,
    "max_tool_calls": None, "model": "m", "output": [], "parallel_tool_calls": True, "previous_response_id": None,
    "prompt_cache_key": None, "prompt_cache_retention": None, "safety_identifier": None, "service_tier": "default",
    "reasoning": {"effort": None, "summary": None}, "store": True, "temperature": 1.0, "top_p": 1.0,
    "presence_penalty": 0.0, "frequency_penalty": 0.0, "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "tool_choice": "auto", "tools": [], "top_logprobs": 0, "truncation": "disabled", "usage": None, "user": None,
    "metadata": {},
}  # fmt: skip

USAGE = {
    "input_tokens": 1, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0}, "output_tokens": 1,
    "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 2,
}  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"status": "in_progress", "completed_at": None},
        {"status": "queued", "background": True, "completed_at": None},
        {"status": "cancelled", "completed_at": None, "usage": USAGE},
        {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}, "usage": USAGE},
        {"status": "failed", "error": {"code": "insufficient_quota", "message": "x"}},
        {"conversation": {"id": "conv_1"}},
        {"prompt": {"id": "pmpt_1", "version": None, "variables": {"a": "b"}}},
        {"prompt_cache_options": {"mode": "implicit"}, "moderation": None},
        {"moderation": {side: {"type": "error", "code": "x", "message": "y"} for side in ("input", "output")}},
        {"output": [{"type": "program", "id": "cm_1", "call_id": "c", "code": "", "fingerprint": ""}]},
        {"output": [{"type": "program_output", "id": "x", "call_id": "c", "result": "", "status": "completed"}]},
        {"output": [{"type": "additional_tools", "id": "x", "role": "developer", "tools": []}]},
        {"output": [{"type": "web_search_call", "id": "ws_1", "status": "in_progress"}]},
        {"output": [{"type": "local_shell_call_output", "id": "x", "output": "y"}]},
        {"output": [{"type": "mcp_approval_response", "id": "x", "approval_request_id": "y", "approve": True}]},
    ],
)
def test_responses_are_valid_in_the_strict_form(document, changes):
    response = RESPONSE | changes

    assert document.schema("Response").strict().problems(response) == []
    event = {"type": "response.completed", "response": response, "sequence_number": 0}
    assert document.event_schema("response.completed").strict().valid(event)


@pytest.mark.parametrize(
    "changes",
    [
        {"unknown": 1},
        {"usage": {**USAGE, "input_tokens_details": {"cached_tokens": 0}}},
        {"output": [{"type": "message", "role": "assistant", "status": "completed", "content": []}]},
        {"output": [{"type": "reasoning", "summary": []}]},
        {"output": [{"type": "message", "id": "m", "role": "assistant", "status": "completed",
                     "content": [{"type": "output_text", "text": "x"}]}]},
    ],
)  # fmt: skip
def test_what_we_send_must_be_complete_all_the_same(document, changes):
    """What is lenient is the input alone: an item without its id is no output."""
    assert not document.schema("Response").strict().valid(RESPONSE | changes)


DELTA = {"item_id": "msg_1", "output_index": 0, "content_index": 0, "delta": "x", "sequence_number": 4}


def test_the_event_types_are_those_of_the_reference(document):
    types = set(document.event_types)

    assert len(document.event_types) == len(types) == 60
    assert {f"response.shell_call_command.{end}" for end in ("added", "delta", "done")} <= types
    assert {f"response.shell_call_output_content.{end}" for end in ("delta", "done")} <= types
    assert {f"response.apply_patch_call_operation_diff.{end}" for end in ("delta", "done")} <= types
    assert "keepalive" not in types


def test_every_delta_of_text_may_be_padded(document):
    padded = {
        type
        for type in document.event_types
        if type.endswith(".delta") and "obfuscation" in document.event_schema(type).raw["properties"]
    }

    assert padded == {type for type in document.event_types if type.endswith(".delta")} - {
        "response.shell_call_output_content.delta"  # its delta is an object
    }


def test_a_delta_is_held_to_its_own_type(document):
    text = document.event_schema("response.output_text.delta").strict()
    event = {"type": "response.output_text.delta", "logprobs": [], **DELTA}

    assert text.valid(event)
    assert text.valid({**event, "obfuscation": "abc"})
    assert not text.valid({**event, "summary_index": 0})
    assert not text.valid({**event, "type": "response.refusal.delta"})
    assert not text.valid(DELTA)


def test_errors_may_be_nested_and_flat_at_once(document):
    error = {"code": None, "message": "x", "param": None}
    schema = document.event_schema("error").strict()

    assert schema.valid({"type": "error", "sequence_number": 2, **error, "error": {"type": "server_error", **error}})
    assert schema.valid({"type": "error", "sequence_number": 2, **error})


def test_events_without_a_response_id_are_valid(document):
    assert (
        document.event_schema("response.audio.done")
        .strict()
        .valid({"type": "response.audio.done", "sequence_number": 0})
    )


def test_empty_pages_have_no_first_and_last_item(document):
    page = {"object": "list", "data": [], "has_more": False, "first_id": None, "last_id": None}

    assert document.schema("ResponseItemList").strict().valid(page)
    assert document.schema("ConversationItemList").strict().valid(page)


def test_operations_answer_as_the_api_does(document):
    deleted = document.operation("delete_response").answers["200"].media["application/json"]
    missing = document.operation("cancel_response").answers["404"].media["application/json"]

    assert deleted.strict().valid({"id": "resp_1", "object": "response", "deleted": True})
    error = {"message": "x", "type": "invalid_request_error", "param": None, "code": None}
    assert missing.strict().valid({"error": error})
    assert not missing.valid(error)


@pytest.mark.parametrize("operation", ["listInputItems", "listConversationItems"])
def test_pages_have_limits(document, operation):
    (limit,) = [each for each in document.operation(operation).parameters if each.name == "limit"]

    assert [number for number in (0, 1, 100, 101) if limit.schema.valid(number)] == [1, 100]

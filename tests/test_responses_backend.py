"""Responses against a real server that speaks the API in its own ways: what reaches our log, and what is asked."""

import json
from contextlib import ExitStack, aclosing
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.engine.compaction import summarize
from antiphon.engine.model import TENANT, Carried, Finish, Usage
from antiphon.engine.models.chat_completions import ChatCompletions
from antiphon.engine.models.detected import Detected
from antiphon.engine.models.local import Local
from antiphon.engine.models.responses import Responses
from antiphon.engine.models.responses_reader import ResponsesReader
from antiphon.engine.models.responses_request import responses_body
from antiphon.errors import ModelError
from antiphon.protocol import sse
from tests.contracts.model import WEATHER, ModelContract, said, text_of, user
from tests.logs import logs
from tests.servers.antiphon import antiphon
from tests.servers.responses import ResponsesServer
from tests.servers.running import serve
from tests.test_answer import Log, Scripted, check, check_sdk, types

SCRIPTS = (
    "text", "tools", "reasoning", "raw-reasoning", "search", "future", "sparse", "end-only", "plain", "nonsense",
    "length",
)  # fmt: skip


@pytest.fixture(scope="module")
def base_url():
    with serve(ResponsesServer()) as url:
        yield url + "/v1"


@pytest.fixture
async def model(base_url):
    model = Responses(base_url, api_key="sk-secret", idle_seconds=10)
    yield model
    await model.close()


@pytest.fixture
async def watched():
    """A model, and a server of its own that remembers what it saw."""
    server = ResponsesServer(counts=42)
    with serve(server) as url:
        model = Responses(url + "/v1", api_key="sk-secret", cache_secret="pepper")
        yield model, server
        await model.close()


async def carried(model, script, *context, **request):
    """The log that an answer of this script makes."""
    return await Log().answer(model, {"model": script, "tools": [WEATHER], **request}, context or [user("Go.")])


class TestContract(ModelContract):
    @pytest.fixture
    def asked(self, model):
        return model, "text:Hello there"

    @pytest.fixture
    def calling(self, model):
        return model, "tools"


@pytest.mark.parametrize("script", SCRIPTS)
async def test_whatever_the_server_says_the_log_is_whole(model, script):
    log = await carried(model, script)

    check(log)
    if log.response["status"] == "completed":  # the SDK's helper has no words for another end
        check_sdk(log)


@pytest.mark.parametrize("script", [*SCRIPTS, "failed", "eof"])
async def test_no_id_of_the_server_gets_into_the_log(model, script):
    log = await carried(model, script)

    assert "theirs" not in json.dumps(log.events)
    assert "obfuscation" not in json.dumps(log.events)


@pytest.mark.parametrize("script", SCRIPTS)
async def test_a_worker_may_die_in_the_middle_of_what_is_carried(model, script):
    whole = len((await carried(model, script)).entries)
    for kept in range(1, whole - 1, 3):
        log = await Log().answer(model, {"model": script, "tools": [WEATHER]}, [user("Go.")], entries_max=kept)
        if not log.transcript().closed:
            await log.answer(model, {"model": "text"}, [user("Go.")])

        check(log)


async def test_a_text_has_its_events_in_the_apis_order(model):
    log = await carried(model, "text:Hello world")

    assert types(log) == [
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert log.response["usage"]["input_tokens_details"]["cached_tokens"] == 5
    assert log.response["usage"]["output_tokens_details"]["reasoning_tokens"] == 3
    assert log.response["usage"]["total_tokens"] == 16


async def test_the_servers_own_tools_are_carried_through(model):
    log = await carried(model, "search")

    search, message = log.response["output"]
    assert search["type"] == "web_search_call"
    assert search["action"] == {"type": "search", "query": "weather", "queries": ["weather"]}
    assert message["content"][0]["annotations"][0]["url"] == "https://example.org"
    assert [type for type in types(log) if "web_search" in type] == [
        "web_search_call.in_progress",
        "web_search_call.searching",
        "web_search_call.completed",
    ]


async def test_two_calls_are_two_items(model):
    log = await carried(model, "tools")

    assert [(item["call_id"], item["arguments"]) for item in log.response["output"]] == [
        ("call_a", '{"city":"Paris"}'),
        ("call_b", '{"city":"Rome"}'),
    ]


async def test_a_call_id_that_is_taken_becomes_another(model):
    old = {"type": "function_call", "call_id": "call_a", "name": "f", "arguments": "{}"}
    log = await carried(model, "tools", user("Go."), old)

    ids = [item["call_id"] for item in log.response["output"]]
    assert "call_a" not in ids
    assert len(set(ids)) == 2
    check(log)


async def test_encrypted_reasoning_is_sealed_for_the_caller_and_opened_for_the_server(watched):
    model, server = watched
    log = await carried(model, "reasoning")
    reasoning, message = log.response["output"]
    await carried(model, "text", user("Go."), reasoning, message, user("And?"))

    assert reasoning["summary"] == [{"type": "summary_text", "text": "Two and two."}]
    assert "gAAAAA" not in json.dumps(log.events)
    assert server.requests[1].body["input"][1] == {
        "type": "reasoning",
        "summary": reasoning["summary"],
        "encrypted_content": "gAAAAA",
    }


async def test_reasoning_in_the_words_of_open_responses_is_understood(model):
    log = await carried(model, "raw-reasoning")

    assert log.response["output"][0]["content"] == [{"type": "reasoning_text", "text": "Two and two."}]
    assert "reasoning_text.delta" in types(log)


async def test_what_nobody_knows_yet_is_left_out(model):
    log = await carried(model, "future")

    assert [item["type"] for item in log.response["output"]] == ["message"]


async def test_a_server_that_says_little_is_said_in_full(model):
    log = await carried(model, "sparse")

    assert [item["type"] for item in log.response["output"]] == ["message", "function_call"]
    assert log.response["output"][0]["content"][0]["text"] == "Not much is said."
    assert types(log).count("output_text.delta") == 4


async def test_an_answer_that_was_cut_is_incomplete(model):
    log = await carried(model, "length")

    assert log.response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert log.response["output"][0]["status"] == "incomplete"
    assert log.response["output"][0]["content"][0]["text"] == "This is cut"


@pytest.mark.parametrize(
    ("script", "status", "code", "message"),
    [
        ("failed", 502, "server_error", "The engine has died."),
        ("failed:rate_limit_exceeded", 429, "rate_limit_exceeded", "The engine has died."),
        ("failed:invalid_prompt", 400, "invalid_prompt", "The engine has died."),
        ("stream-error", 429, "rate_limit_exceeded", "Too fast."),
        ("stream-error:flat", 429, "rate_limit_exceeded", "Too fast."),
        ("stream-error:nested:context_length_exceeded", 400, "context_length_exceeded", "Too fast."),
        ("eof", 502, "server_error", "broke off"),
        ("malformed", 502, "server_error", "malformed event"),
        ("error:401", 502, "server_error", "credentials"),
        ("error:429", 429, "some_code", "It said no."),
        ("error:503", 503, "some_code", "It said no."),
        ("none", 400, "model_not_found", "The requested model 'none' does not exist."),
    ],
)
async def test_every_failure_is_told_truthfully(model, script, status, code, message):
    with pytest.raises(ModelError) as failure:
        await said(model, {"model": script})

    assert (failure.value.status, failure.value.code) == (status, code)
    assert message in failure.value.message


async def test_a_failure_in_the_middle_keeps_what_was_said(model):
    log = await carried(model, "failed")

    assert log.response["status"] == "failed"
    assert log.response["output"][0]["content"][0]["text"] == "So far"
    assert log.response["usage"]["total_tokens"] == 16
    check(log)


async def test_closing_the_turn_closes_the_socket(watched):
    model, server = watched
    async with aclosing(model.turn({"model": "hang"}, [user("Go.")])) as turn:
        assert await anext(turn)

    await server.requests[0].closing()


async def test_nothing_is_stored_there_and_everything_is_sent(watched):
    model, server = watched
    request = {
        "model": "text",
        "instructions": "Be kind.",
        "store": True,
        "background": True,
        "previous_response_id": "resp_ours",
        "conversation": {"id": "conv_ours"},
        "metadata": {"a": "b"},
        "stream_options": {"include_obfuscation": True},
        "max_output_tokens": 99,
        "include": ["file_search_call.results"],
        "tools": [{"type": "web_search"}],
        TENANT: "alice",
    }
    await said(model, request, user("Hi"))

    sent = server.requests[0].body
    assert len(sent.pop("cache_salt")) == 64
    assert sent == {
        "model": "text",
        "instructions": "Be kind.",
        "max_output_tokens": 99,
        "tools": [{"type": "web_search"}],
        "input": [user("Hi")],
        "include": ["file_search_call.results", "reasoning.encrypted_content"],
        "store": False,
        "stream": True,
    }


def test_items_lose_the_ids_that_are_ours():
    context = [
        {"id": "msg_1", "status": "completed", **user("Hi")},
        {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "gA", "status": None},
        {"id": "rs_2", "type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {"id": "rs_3", "type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
        {
            "id": "msg_2",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Hello.", "annotations": [], "logprobs": []}],
        },
        {"id": "ws_1", "type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "q"}},
        {"id": "fc_1", "type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "status": "completed"},
        {"id": "fco_1", "type": "function_call_output", "call_id": "c", "output": "1"},
    ]

    assert responses_body({"model": "m"}, context)["input"] == [
        user("Hi"),
        {"type": "reasoning", "summary": [], "encrypted_content": "gA"},
        context[2],
        {"type": "message", "role": "assistant", "content": "Hello."},
        context[5],
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "status": "completed"},
        {"type": "function_call_output", "call_id": "c", "output": "1"},
    ]
    assert [item["type"] for item in responses_body({"model": "m"}, context, keeps_ids=False)["input"]][:3] == [
        "message",
        "reasoning",
        "message",
    ]


async def test_a_model_without_encrypted_reasoning_is_asked_without_it_from_then_on(watched):
    model, server = watched
    for _ in range(2):
        assert text_of(await said(model, {"model": "unencrypted"})) == "Plainly"

    assert ["include" in seen.body for seen in server.requests] == [True, False, False]


async def test_reasoning_that_the_server_cannot_open_is_left_out(watched):
    model, server = watched
    sealed = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "another server's"}
    for _ in range(2):
        assert text_of(await said(model, {"model": "foreign-reasoning"}, sealed, user("Hi"))) == "Forgotten"

    assert [len(seen.body["input"]) for seen in server.requests] == [2, 1, 2, 1]


async def test_every_delta_is_carried_and_the_end_is_told(model):
    deltas = await said(model, {"model": "text:Hello"})

    assert isinstance(deltas[0], Carried)
    assert deltas[-2:] == [Finish("stop"), Usage(7, 9, 5, 3)]


async def test_antiphon_may_stand_before_antiphon():
    with antiphon() as behind:
        model = Responses(behind.url, api_key="sk-tests")
        log = await carried(model, "tools:pieces")
        check(log)
        calls = log.response["output"]
        results = [{"type": "function_call_output", "call_id": call["call_id"], "output": "Sunny"} for call in calls]
        context = [user("Go."), *calls, *results]
        log = await carried(model, "tools:pieces", *context)
        await model.close()

    check(log)
    assert log.response["output"][0]["content"][0]["text"] == "The results: Sunny, Sunny"
    assert msgspec.json.encode(log.response)


async def test_llama_cpp_may_be_asked_in_this_way_too():
    """A foreign server, with its own idea of the API; what its model says is never looked at closely."""
    pytest.importorskip("xllamacpp")
    local = Local()
    behind = (await local.loaded()).connection
    options: dict[str, Any] = {"api_key": behind.api_key}
    model = Detected(Responses(behind.base_url, **options), ChatCompletions(behind.base_url, **options))
    request = {"model": local.id, "max_output_tokens": 8}
    first = await Log().answer(model, request, [user("Say hello.")])
    second = await Log().answer(model, request, [user("Say hello."), *first.response["output"], user("And again.")])
    too_long = await Log().answer(model, request, [user("word " * 5000)])
    await model.close()
    await local.close()

    for log in (first, second, too_long):
        check(log)
    assert types(first).count("output_text.delta") > 1
    assert second.response["usage"]["input_tokens"] > first.response["usage"]["input_tokens"]
    assert too_long.notes[-1].fields["error"]["code"] == "context_length_exceeded"


def read(events, *, size=1 << 20):
    """What a reader makes of these events, if they come in pieces of this size; the failure comes last."""
    data = b"".join(map(sse.encode, events))
    reader = ResponsesReader()
    batches = [reader.feed(data[start : start + size]) for start in range(0, len(data), size)]
    return [*filter(None, batches), *([reader.failure] if reader.failure else [])]


def texts(response):
    """All that the items of a response say, in their order."""
    return [
        [item["type"], item.get("arguments"), *(part.get("text", part.get("refusal")) for part in parts)]
        for item in response["output"]
        for parts in [[*item.get("summary", ()), *item.get("content", ())]]
    ]


@given(events=logs(), size=st.integers(1, 400))
async def test_a_log_says_the_same_when_it_is_carried(events, size):
    log = await Log().answer(Scripted(*read(events, size=size)))

    if log.response["status"] == "completed" and texts(events[-1]["response"]):
        said = [["", None if each[1] == "" else each[1], *each[2:]] for each in texts(events[-1]["response"])]
        assert [["", None if each[1] == "{}" else each[1], *each[2:]] for each in texts(log.response)] == said


@given(events=logs(), choose=st.randoms(use_true_random=False))
async def test_whatever_is_missing_or_said_twice_the_log_is_whole(events, choose):
    """Also what comes out of its order, short of the end."""
    middle = [event for event in events[:-1] for _ in range(choose.choice([0, 1, 1, 1, 2]))]
    if middle and choose.random() < 0.5:
        middle.insert(0, middle.pop(choose.randrange(len(middle))))
    log = await Log().answer(Scripted(*read([*middle, events[-1]])))

    assert [event["sequence_number"] for event in log.events] == list(range(len(log.events)))
    assert log.transcript().closed
    assert all(item.get("status") != "in_progress" for item in log.response["output"])


NO_TEXTS: list[Any] = [None, 7, True, {}, [], {"type": "foo"}]


@given(events=logs(), choose=st.randoms(use_true_random=False), wrong=st.sampled_from(NO_TEXTS))
async def test_what_is_of_a_wrong_type_does_not_break_the_log(events, choose, wrong):
    """Any value below the response, however deep."""
    events = msgspec.json.decode(msgspec.json.encode(events))
    holder: Any = choose.choice(events[1:])
    while True:
        key = choose.choice(list(holder) if isinstance(holder, dict) else list(range(len(holder))))
        if not (isinstance(holder[key], dict | list) and holder[key]) or choose.random() < 0.2:
            break
        holder = holder[key]
    if key != "type":
        holder[key] = wrong
    log = await Log().answer(Scripted(*read(events)))

    assert [event["sequence_number"] for event in log.events] == list(range(len(log.events)))
    assert log.transcript().output == log.response["output"]
    assert msgspec.json.encode(log.events)


def message(**part):
    """The events of a message whose one part is this."""
    place = {"item_id": "msg_theirs", "output_index": 0, "content_index": 0}
    item = {"id": "msg_theirs", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
    return [
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.content_part.added", **place, "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": {**item, "status": "completed"}},
    ]


def completed(**fields):
    return {"type": "response.completed", "response": {"output": [], **fields}}


@pytest.mark.parametrize("type", ["image", "summary_text", "reasoning_text"])
async def test_a_part_that_does_not_belong_there_is_left_out(type):
    log = await Log().answer(Scripted(*read([*message(type=type, text="No."), completed()])))

    check(log)
    assert log.response["output"][0]["content"] == []


async def test_the_end_of_a_text_without_the_text_leaves_what_was_said():
    begun, added, done = message(type="output_text", text="")
    place = {"item_id": "msg_theirs", "output_index": 0, "content_index": 0}
    delta = {"type": "response.output_text.delta", **place, "delta": "Hello"}
    nothing = {"type": "response.output_text.done", **place}
    log = await Log().answer(Scripted(*read([begun, added, delta, nothing, done, completed()])))

    check(log)
    assert log.response["output"][0]["content"][0]["text"] == "Hello"


async def test_logprobs_that_make_no_sense_do_not_take_the_text_with_them():
    begun, added, done = message(type="output_text", text="")
    place = {"item_id": "msg_theirs", "output_index": 0, "content_index": 0}
    delta = {"type": "response.output_text.delta", **place, "delta": "Hello", "logprobs": [{"token": 7}]}
    log = await Log().answer(Scripted(*read([begun, added, delta, done, completed()])))

    check(log)
    assert log.response["output"][0]["content"][0]["text"] == "Hello"


async def test_a_call_gets_what_its_caller_needs_to_answer_it():
    """A call_id, and arguments as text."""
    call = {"id": "fc_theirs", "type": "function_call", "name": "f", "arguments": {"a": 1}, "status": "completed"}
    done = {"type": "response.output_item.done", "output_index": 0, "item": call}
    log = await Log().answer(Scripted(*read([done, completed()])))

    check(log)
    (item,) = log.response["output"]
    assert item["call_id"].startswith("call_")
    assert item["arguments"] == '{"a":1}'


BARE: dict[str, dict[str, Any]] = {
    "web_search_call": {"action": None},
    "file_search_call": {},
    "code_interpreter_call": {"container_id": "c_1"},
    "image_generation_call": {},
    "computer_call": {"call_id": "c_1", "action": {"type": "wait"}},
    "shell_call": {"call_id": "c_1", "action": {"commands": ["ls"], "timeout_ms": 1, "max_output_length": 1}},
    "shell_call_output": {"call_id": "c_1", "output": []},
    "apply_patch_call": {"call_id": "c_1", "operation": {"type": "delete_file", "path": "a"}},
    "apply_patch_call_output": {"call_id": "c_1"},
    "mcp_list_tools": {"server_label": "s", "tools": [], "error": None},
}


@pytest.mark.parametrize("type", BARE)
async def test_what_servers_leave_out_where_it_says_nothing_is_put_in(type):
    item = {"id": "x_theirs", "type": type, "status": None, **BARE[type]}
    events = [{"type": f"response.output_item.{end}", "output_index": 0, "item": item} for end in ("added", "done")]
    log = await Log().answer(Scripted(*read([*events, completed()])))

    check(log)
    assert log.response["status"] == "completed"
    assert types(log) == ["output_item.added", "output_item.done", "completed"]


@pytest.mark.parametrize("usage", [{"input_tokens": "seven"}, {"input_tokens": {"a": 1}}, [7], "none"])
async def test_a_usage_that_cannot_be_read_is_no_failure(usage):
    log = await Log().answer(Scripted(*read([*message(type="output_text", text="Hi"), completed(usage=usage)])))

    check(log)
    assert (log.response["status"], log.response["usage"]) == ("completed", None)


@pytest.mark.parametrize("script", ["text:A summary", "plain", "end-only"])
async def test_a_context_is_summarized_however_the_server_sends_its_answer(model, script):
    summary = await summarize(model, {"model": script}, [user("I am Ada.")])

    assert summary.text


async def test_a_tool_that_the_models_server_runs_is_offered_to_it_and_not_called_missing():
    body = {"model": "search", "input": "Hi", "tools": [{"type": "web_search"}], "tool_choice": "required"}
    with ExitStack() as stack:
        url = stack.enter_context(serve(ResponsesServer()))
        options: dict[str, Any] = {"upstream_protocol": "responses", "strict_tools": True}
        server = stack.enter_context(antiphon(upstream=f"{url}/v1", **options))
        async with server.http() as http:
            answer = await http.post("/responses", json=body)

    assert answer.status_code == 200, answer.text
    assert "antiphon-unavailable-tools" not in answer.headers
    assert "web_search_call" in [item["type"] for item in answer.json()["output"]]


@pytest.mark.parametrize("cut", [1, 2])
async def test_an_end_without_its_empty_line_is_an_end(cut):
    data = sse.encode(completed(usage={"input_tokens": 1, "output_tokens": 2}))
    reader = ResponsesReader()
    deltas = [*reader.feed(data[:-cut]), *reader.close()]

    assert deltas == [Finish("stop"), Usage(1, 2)]


def test_only_what_may_be_null_is_sent_as_null():
    run = {"type": "code_interpreter_call", "id": "ci_1", "container_id": "c", "code": None, "outputs": None}
    call = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{}", "namespace": None}

    assert responses_body({"model": "m"}, [run, call])["input"] == [
        run,
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
    ]

"""ChatCompletions against a real server that commits every sin that model servers commit."""

import asyncio
import json
import socket
from contextlib import aclosing

import pytest

from antiphon.engine.model import Call, Finish, Reasoning, Refusal, Text, Usage
from antiphon.engine.models.chat_completions import ChatCompletions
from antiphon.engine.models.chat_reader import ChatReader
from antiphon.engine.models.chat_request import chat_body, chat_messages
from antiphon.errors import ModelError
from tests.contracts.model import WEATHER, ModelContract, said, text_of, user
from tests.servers.call_forms import CALL_FORMS
from tests.servers.chat import ChatServer
from tests.servers.running import serve


@pytest.fixture(scope="module")
def base_url():
    with serve(ChatServer()) as url:
        yield url + "/v1"


@pytest.fixture
async def model(base_url):
    model = ChatCompletions(base_url, api_key="sk-secret", idle_seconds=10)
    yield model
    await model.close()


@pytest.fixture
async def watched():
    """A model, and a server of its own that remembers what it saw."""
    server = ChatServer()
    with serve(server) as url:
        model = ChatCompletions(url + "/v1", api_key="sk-secret")
        yield model, server
        await model.close()


class TestContract(ModelContract):
    @pytest.fixture
    def asked(self, model):
        return model, "text:Hello there"

    @pytest.fixture
    def calling(self, model):
        return model, "tools"


async def test_text_comes_piece_by_piece(model):
    deltas = await said(model, {"model": "text:Hello dear world"})

    assert deltas == [Text("Hello"), Text(" dear"), Text(" world"), Finish("stop"), Usage(7, 5)]


async def test_what_arrives_together_comes_together(model):
    async with aclosing(model.turn({"model": "burst:256"}, [user("Go.")])) as turn:
        batches = [deltas async for deltas in turn]

    assert sum(isinstance(delta, Text) for deltas in batches for delta in deltas) == 256
    assert len(batches) < 20


async def test_a_stream_may_be_cut_anywhere_and_have_other_line_ends(model):
    deltas = await said(model, {"model": "drip:Ünder way 🎈"})

    assert text_of(deltas) == "Ünder way 🎈"


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_reasoning_is_read_under_both_its_names(model, field):
    deltas = await said(model, {"model": f"reasoning:{field}"})

    assert "".join(delta.text for delta in deltas if isinstance(delta, Reasoning)) == "Two and two."
    assert text_of(deltas) == "It is four."
    assert deltas[-1] == Usage(7, 7, cached_tokens=5, reasoning_tokens=3)


async def test_a_refusal_is_no_text(model):
    deltas = await said(model, {"model": "refusal"})

    assert "".join(delta.text for delta in deltas if isinstance(delta, Refusal)) == "I will not say that."
    assert text_of(deltas) == ""


async def test_logprobs_come_as_events_want_them(model):
    deltas = await said(model, {"model": "logprobs"})

    assert deltas[0] == Text(
        "Yes", [{"token": "Yes", "logprob": -0.1, "top_logprobs": [{"token": "Yes", "logprob": -0.1}]}]
    )


@pytest.mark.parametrize("form", CALL_FORMS)
async def test_two_calls_are_told_apart_in_every_form_that_servers_have(model, form):
    deltas = await said(model, {"model": f"tools:{form}", "tools": [WEATHER]})
    calls = [delta for delta in deltas if isinstance(delta, Call)]

    for index, city in enumerate(["Paris", "Rome"]):
        pieces = [call for call in calls if call.index == index]
        assert json.loads("".join(piece.arguments for piece in pieces)) == {"city": city}
        assert [piece.name for piece in pieces] == ["get_weather"] + [""] * (len(pieces) - 1)
        assert pieces[0].call_id == ("" if form in ("no-id", "nothing") else "call_" + "ab"[index])
    assert Finish("tool_calls") in deltas


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("length", "length"),
        ("filter", "content_filter"),
        ("no-done", "stop"),
        ("no-finish", "stop"),
        ("lingering", "stop"),
        ("no-usage", "stop"),
        ("empty", "stop"),
        ("plain", "stop"),
    ],
)
async def test_every_ending_is_understood(model, script, reason):
    deltas = await said(model, {"model": script})

    assert [delta for delta in deltas if isinstance(delta, Finish)] == [Finish(reason)]


async def test_an_answer_in_one_piece_is_taken_as_one_chunk(model):
    assert (await said(model, {"model": "plain"}))[0] == Text("All at once")


@pytest.mark.parametrize(
    ("script", "status", "code", "message"),
    [
        ("break:2", 502, "server_error", "broke off"),
        ("eof:2", 502, "server_error", "broke off"),
        ("malformed", 502, "server_error", "malformed chunk"),
        ("half-character", 502, "server_error", "malformed chunk"),
        ('malformed:{"choices"', 502, "server_error", "malformed chunk"),
        ("nameless", 502, "server_error", "without a name"),
        ("stream-error", 502, "server_error", "The engine has died."),
        ("stream-error:rate_limit_exceeded", 429, "rate_limit_exceeded", "The engine has died."),
        ("html", 502, "server_error", "web page"),
        ("error:400", 400, "some_code", "It said no."),
        ("error:400:llama.cpp", 400, "context_length_exceeded", "It said no."),
        ("error:400:vllm", 400, "invalid_request_error", "It said no."),
        ("error:422:fastapi", 422, "invalid_request_error", "It said no."),
        ("error:404:ollama", 404, "model_not_found", "It said no."),
        ("error:404:not-found", 502, "server_error", "no Chat Completions there"),
        ("error:404:html", 502, "server_error", "no Chat Completions there"),
        ("error:429", 429, "some_code", "It said no."),
        ("error:429:empty", 429, "rate_limit_exceeded", "status 429"),
        ("error:401:key", 502, "server_error", "refused this server's credentials"),
        ("error:403:html", 502, "server_error", "refused this server's credentials"),
        ("error:302:empty", 502, "server_error", "no Chat Completions there"),
        ("error:500:html", 500, "server_error", "status 500"),
        ("error:503:ollama", 503, "server_error", "It said no."),
    ],
)
async def test_every_failure_is_told_truthfully(model, script, status, code, message):
    with pytest.raises(ModelError) as failure:
        await said(model, {"model": script})

    assert (failure.value.status, failure.value.code) == (status, code)
    assert message in failure.value.message
    assert failure.value.type == (
        "server_error" if status >= 500 else "requests" if status == 429 else "invalid_request_error"
    )


async def test_our_key_is_sent_and_never_told(watched):
    model, server = watched
    with pytest.raises(ModelError) as failure:
        await said(model, {"model": "error:400:key"})

    assert server.requests[0].headers["authorization"] == "Bearer sk-secret"
    assert failure.value.message == "Wrong: Bearer ***"


async def test_what_was_said_before_a_break_is_not_lost(model):
    deltas = []

    async def gather():
        async with aclosing(model.turn({"model": "break:3"}, [user("Go.")])) as turn:
            async for batch in turn:
                deltas.extend(batch)

    with pytest.raises(ModelError):
        await gather()

    assert text_of(deltas) == " 0 1 2"


async def test_an_event_has_a_greatest_size(base_url):
    model = ChatCompletions(base_url, event_bytes_max=100_000)
    with pytest.raises(ModelError, match="too much at once"):
        await said(model, {"model": "oversized:1000000"})

    await model.close()


@pytest.mark.parametrize("script", ["hang:2", "silent"])
async def test_a_silent_server_is_given_up(base_url, script):
    model = ChatCompletions(base_url, idle_seconds=0.1)
    with pytest.raises(ModelError) as failure:
        await said(model, {"model": script})

    assert failure.value.status == 504
    await model.close()


async def test_a_server_that_is_not_there_is_unavailable():
    with socket.socket() as taken:  # bound and not listening: nobody answers there
        taken.bind(("127.0.0.1", 0))
        model = ChatCompletions(f"http://127.0.0.1:{taken.getsockname()[1]}/v1")
        with pytest.raises(ModelError) as failure:
            await said(model, {"model": "text"})

    assert failure.value.status == 503
    assert "127.0.0.1" not in failure.value.message
    await model.close()


async def test_closing_the_generator_closes_the_socket(watched):
    model, server = watched
    turn = model.turn({"model": "hang:2"}, [user("Go.")])
    assert await anext(turn)

    await turn.aclose()

    await server.requests[0].closing()


@pytest.mark.parametrize("script", ["hang:2", "silent"])
async def test_cancelling_the_task_closes_the_socket(watched, script):
    model, server = watched
    task = asyncio.create_task(said(model, {"model": script}))
    seen = await server.request()
    task.cancel()

    await seen.closing()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_whole_answer_leaves_its_connection_to_the_next(watched):
    model, server = watched
    for _ in range(3):
        await said(model, {"model": "text"})

    assert len({seen.client for seen in server.requests}) == 1
    assert not any(seen.closed for seen in server.requests)


async def test_models_are_asked_for_once(watched):
    model, server = watched
    assert await model.models() == await model.models()

    assert [(seen.method, seen.path) for seen in server.requests] == [("GET", "/v1/models")]


def test_a_chunk_that_names_no_choice_says_nothing():
    assert ChatReader().feed(b'data: {"choices": null}\n\ndata: {}\n\n: hello\n\ndata:\n\n') == []


def test_only_what_the_request_has_is_sent():
    assert chat_body({"model": "m"}, [user("Hi")]) == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_every_field_has_its_name_in_the_other_api():
    schema = {"type": "object", "properties": {}}
    request = {
        "model": "m",
        "instructions": "Be kind.",
        "temperature": 0,
        "top_p": 0.5,
        "presence_penalty": 0.25,
        "frequency_penalty": -1,
        "user": "u",
        "max_output_tokens": 99,
        "reasoning": {"effort": "low", "summary": None},
        "text": {"format": {"type": "json_schema", "name": "n", "schema": schema, "strict": True}, "verbosity": "low"},
        "top_logprobs": 3,
        "include": ["message.output_text.logprobs"],
        "tools": [WEATHER, {"type": "web_search"}],
        "tool_choice": {"type": "function", "name": "get_weather"},
        "parallel_tool_calls": False,
        "metadata": {"a": "b"},
    }

    assert chat_body(request, [], limit_field="max_completion_tokens") == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be kind."}],
        "temperature": 0,
        "top_p": 0.5,
        "presence_penalty": 0.25,
        "frequency_penalty": -1,
        "user": "u",
        "max_completion_tokens": 99,
        "reasoning_effort": "low",
        "verbosity": "low",
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}},
        "logprobs": True,
        "top_logprobs": 3,
        "tools": [{"type": "function", "function": {name: WEATHER[name] for name in WEATHER if name != "type"}}],
        "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
        "parallel_tool_calls": False,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_allowed_tools_are_the_only_ones_offered():
    other = {"type": "function", "name": "other"}
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "other"}]}
    body = chat_body({"model": "m", "tools": [WEATHER, other], "tool_choice": choice}, [])

    assert [tool["function"]["name"] for tool in body["tools"]] == ["other"]
    assert body["tool_choice"] == "required"


def test_rules_for_tools_are_not_sent_without_tools():
    body = chat_body({"model": "m", "tools": [{"type": "web_search"}], "tool_choice": "required"}, [])

    assert {"tools", "tool_choice", "parallel_tool_calls"}.isdisjoint(body)


def test_items_become_messages():
    def call(call_id):
        return {"type": "function_call", "id": "fc_1", "call_id": call_id, "name": "f", "arguments": "{}"}

    context = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "input_text", "text": "One"}, {"type": "input_text", "text": "Two"}]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Let me see."}]},
        call("call_1"),
        call("call_2"),
        {"type": "function_call_output", "call_id": "call_1", "output": "1"},
        {"type": "function_call_output", "call_id": "call_2", "output": [{"type": "input_text", "text": "2"}]},
        call("call_3"),
        {"type": "function_call_output", "call_id": "call_3", "output": "3"},
        {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
    ]
    chat_call = {"type": "function", "function": {"name": "f", "arguments": "{}"}}

    assert chat_messages(None, context) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "One\nTwo"},
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [{"id": "call_1", **chat_call}, {"id": "call_2", **chat_call}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "1"},
        {"role": "tool", "tool_call_id": "call_2", "content": "2"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "call_3", **chat_call}]},
        {"role": "tool", "tool_call_id": "call_3", "content": "3"},
        {"role": "assistant", "content": "No."},
    ]


def test_images_and_files_keep_their_data():
    parts = [
        {"type": "input_text", "text": "What is this?"},
        {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "low"},
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"},
    ]

    assert chat_messages(None, [{"role": "user", "content": parts}])[0]["content"] == [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"}},
    ]


def test_a_file_that_is_not_there_is_refused():
    with pytest.raises(ModelError) as failure:
        chat_messages(None, [{"role": "user", "content": [{"type": "input_image", "file_id": "file-1"}]}])

    assert (failure.value.status, failure.value.code) == (400, "unsupported_parameter")

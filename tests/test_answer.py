"""answer(): every log that it can make is whole, in order, true to the schema, and good enough for the official SDK."""

import itertools
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import cache
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.engine.answer import answer
from antiphon.engine.model import Call, Delta, Finish, Reasoning, Refusal, Text, Usage
from antiphon.engine.models.chat_completions import ChatCompletions
from antiphon.errors import ModelError
from antiphon.protocol.endings import close_cancelled, close_failed, heed
from antiphon.protocol.transcript import Note, Transcript
from antiphon.seals import Seals
from antiphon.spec.document import Document
from tests.contracts.model import WEATHER, user
from tests.servers.chat import ChatServer
from tests.servers.running import serve

SKELETON = {
    "id": "resp_1", "object": "response", "created_at": 1, "status": "in_progress", "background": False,
    "completed_at": None, "error": None, "frequency_penalty": 0.0, "incomplete_details": None, "instructions": None,
    "max_output_tokens": None, "max_tool_calls": None, "model": "m", "output": [], "parallel_tool_calls": True,
    "presence_penalty": 0.0, "previous_response_id": None, "prompt_cache_key": None, "prompt_cache_retention": None,
    "reasoning": {"effort": None, "summary": None}, "safety_identifier": None, "service_tier": "auto", "store": True,
    "temperature": 1.0, "text": {"format": {"type": "text"}, "verbosity": "medium"}, "tool_choice": "auto",
    "tools": [], "top_logprobs": 0, "top_p": 1.0, "truncation": "disabled", "usage": None, "user": None,
    "metadata": {},
}  # fmt: skip


class Scripted:
    """A Model that says what it is given; an exception among the batches is raised at its place."""

    async def continues_prefix(self, request, context):
        return False

    def __init__(self, *batches):
        self.batches = batches
        self.asked = 0

    async def turn(self, request, context) -> AsyncGenerator[list[Delta]]:
        self.asked += 1
        for batch in self.batches:
            if isinstance(batch, Exception):
                raise batch
            yield batch

    async def models(self):
        return []

    async def close(self):
        pass


class Log:
    """A response's log as a store would keep it: events and notes in their order, over any number of workers."""

    def __init__(self):
        self.entries: list[Any] = [Transcript(SKELETON).write("response.created")]
        self._numbers = itertools.count()

    def transcript(self):
        transcript = Transcript()
        for event in self.events:
            transcript.read(event)
        heed(transcript, self.notes)
        return transcript

    @property
    def events(self):
        return [entry for entry in self.entries if not isinstance(entry, Note)]

    @property
    def notes(self):
        return [entry for entry in self.entries if isinstance(entry, Note)]

    @property
    def response(self):
        return self.events[-1]["response"]

    async def answer(self, model, request=None, context=(), *, entries_max=10_000):
        """Let a worker write on; it dies when so many entries have been kept."""
        answering = answer(
            self.transcript(),
            request or {"model": "m"},
            context,
            model,
            seals=Seals(["a secret for the tests of answer()"]).of("default"),
            now=lambda: 1234.5,
            new_id=lambda prefix: f"{prefix}_{next(self._numbers)}",
            notes=self.notes,
        )
        left = entries_max
        async with aclosing(answering):
            async for batch in answering:
                assert batch
                self.entries += batch[:left]
                left -= len(batch)
                if left <= 0:
                    break
        return self


async def answered(*batches, **options):
    return await Log().answer(Scripted(*batches), **options)


@cache
def document():
    return Document.load()


@cache
def strict(type):
    return document().event_schema(type).strict()


def check(log):
    """What holds for every log that has come to its end."""
    events = log.events
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events].count("response.created") == 1
    assert [event["type"] for event in events].count("response.in_progress") == 1
    transcript = log.transcript()  # refuses a wrong order
    assert transcript.closed
    folded = Transcript()
    for event in events[:-1]:
        folded.read(event)
    heed(folded, log.notes)
    assert folded.output == log.response["output"]
    for event in events:
        problems = [error.message for error in strict(event["type"]).errors(event)]
        assert not problems, (event["type"], problems)


def check_sdk(log):
    """The official SDK's stream helper takes the log, and its final response has our text."""
    frames = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in log.events)
    transport = openai.DefaultHttpxClient(transport=_replay(frames.encode()))
    with (
        openai.OpenAI(api_key="k", http_client=transport) as client,
        client.responses.stream(model="m", input="Hi") as stream,
    ):
        final = stream.get_final_response()

    assert final.output_text == "".join(
        part["text"]
        for item in log.response["output"]
        for part in item.get("content", ())
        if part["type"] == "output_text"
    )
    assert [item.to_dict()["id"] for item in final.output] == [item["id"] for item in log.response["output"]]


def _replay(body):
    return httpx2.MockTransport(
        lambda request: httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=body)
    )


def types(log):
    """The types of the log's events from the first item on, without what all of them begin with."""
    return [event["type"].removeprefix("response.") for event in log.events[2:]]


TEXT = ([Text("Hello")], [Text(" world"), Finish("stop")], [Usage(7, 2, 1, 0)])
CALLS = (
    [Reasoning("Well")],
    [Reasoning("...")],
    [Text("I look it up.")],
    [Call(0, "", "get_weather", "call_a"), Call(0, '{"city":'), Call(0, '"Paris"}')],
    [Call(1, '{"city":', "get_weather", "call_b")],
    [Call(1, '"Rome"}'), Finish("tool_calls"), Usage(7, 9, 0, 2)],
)


async def test_a_text_has_its_events_in_the_apis_order():
    log = await answered(*TEXT)

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
    assert log.response["output"] == [
        {
            "id": "msg_0",
            "type": "message",
            "status": "completed",
            "content": [{"type": "output_text", "annotations": [], "logprobs": [], "text": "Hello world"}],
            "role": "assistant",
        }
    ]
    assert log.response["completed_at"] == 1234
    assert log.response["service_tier"] == "default"
    assert log.response["usage"] == {
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 0},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 9,
    }
    check(log)
    check_sdk(log)


async def test_reasoning_text_and_calls_follow_one_another():
    log = await answered(*CALLS)

    assert [item["type"] for item in log.response["output"]] == [
        "reasoning",
        "message",
        "function_call",
        "function_call",
    ]
    assert "status" not in log.response["output"][0]
    assert [item["arguments"] for item in log.response["output"][2:]] == ['{"city":"Paris"}', '{"city":"Rome"}']
    assert [item["call_id"] for item in log.response["output"][2:]] == ["call_a", "call_b"]
    check(log)
    check_sdk(log)


async def test_mixed_pieces_of_calls_make_items_one_after_the_other():
    log = await answered(
        [Call(0, "", "f", "call_a"), Call(1, "", "g", "call_b"), Call(1, '{"b":')],
        [Text("meanwhile"), Call(0, '{"a":1}'), Call(1, "2}"), Finish("tool_calls")],
    )

    assert [event["output_index"] for event in log.events[2:-1]] == sorted(
        event["output_index"] for event in log.events[2:-1]
    )
    assert [item.get("arguments") for item in log.response["output"]] == ['{"a":1}', '{"b":2}', None]
    check(log)


async def test_a_call_that_is_complete_does_not_hold_up_the_next():
    log = Log()
    model = Scripted([Call(0, "{}", "f")], [Call(1, "{", "g")], [Call(1, "}"), Finish("tool_calls")])
    await log.answer(model, entries_max=5)

    assert types(log)[-2:] == ["function_call_arguments.done", "output_item.done"]


async def test_a_call_without_arguments_has_an_empty_object():
    log = await answered([Call(0, "", "f", "call_a"), Finish("tool_calls")])

    assert log.response["output"][0]["arguments"] == "{}"
    check(log)


@pytest.mark.parametrize("context", [[], [{"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"}]])
async def test_no_two_calls_have_one_call_id(context):
    calls = [Call(0, "{}", "f", "a"), Call(1, "{}", "f", "a"), Call(2, "{}", "f"), Finish("tool_calls")]
    log = await answered(calls, context=context)

    ids = [item["call_id"] for item in (*context, *log.response["output"])]
    assert len(set(ids)) == len(ids)
    check_sdk(log)


@pytest.mark.parametrize("asked", [{"summary": "auto"}, {"summary": "detailed"}, {"generate_summary": "concise"}])
async def test_reasoning_is_a_summary_where_one_is_asked_for(asked):
    with serve(ChatServer()) as url:
        model = ChatCompletions(url + "/v1")
        log = await Log().answer(model, {"model": "reasoning", "reasoning": asked}, [user("2 + 2?")])
        await model.close()

    reasoning = log.response["output"][0]
    assert reasoning == {
        "id": "rs_0",
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "Two and two."}],
        "encrypted_content": reasoning["encrypted_content"],
    }
    assert types(log)[:2] == ["output_item.added", "reasoning_summary_part.added"]
    assert set(types(log)[2:5]) == {"reasoning_summary_text.delta"}
    assert types(log)[5:8] == ["reasoning_summary_text.done", "reasoning_summary_part.done", "output_item.done"]
    check(log)
    check_sdk(log)


async def test_reasoning_is_raw_text_where_no_summary_is_asked_for():
    log = await answered(
        [Reasoning("Two and two."), Finish("stop")], request={"model": "m", "reasoning": {"summary": None}}
    )

    assert log.response["output"][0]["content"] == [{"type": "reasoning_text", "text": "Two and two."}]
    check(log)


async def test_a_refusal_is_a_part_of_its_own():
    log = await answered([Text("Well, "), Refusal("no"), Refusal("."), Finish("stop")])

    assert [part["type"] for part in log.response["output"][0]["content"]] == ["output_text", "refusal"]
    check(log)
    check_sdk(log)


async def test_logprobs_are_in_events_and_parts_each_in_its_form():
    logprobs = [{"token": "é", "logprob": -0.5, "top_logprobs": [{"token": "é", "logprob": -0.5}]}]
    log = await answered([Text("é", logprobs), Finish("stop")])

    assert [event["logprobs"] for event in log.events if "logprobs" in event] == [logprobs, logprobs]
    part = log.response["output"][0]["content"][0]
    assert part["logprobs"][0]["bytes"] == part["logprobs"][0]["top_logprobs"][0]["bytes"] == [195, 169]
    check(log)


async def test_an_answer_of_nothing_is_an_empty_message():
    log = await answered([Finish("stop")])

    assert log.response["status"] == "completed"
    assert [part["text"] for part in log.response["output"][0]["content"]] == [""]
    check(log)
    check_sdk(log)


@pytest.mark.parametrize(("reason", "told"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
async def test_an_answer_that_was_cut_is_incomplete(reason, told):
    log = await answered([Text("So far"), Finish(reason)], [Usage(1, 2)])

    assert log.events[-1]["type"] == "response.incomplete"
    assert log.response["status"] == "incomplete"
    assert log.response["incomplete_details"] == {"reason": told}
    assert log.response["output"][0]["status"] == "incomplete"
    assert log.response["completed_at"] is None
    assert log.response["usage"]["total_tokens"] == 3
    check(log)


async def test_a_failure_keeps_what_was_said_and_says_what_went_wrong():
    failure = ModelError("Too fast.", status=429, type="requests", code="rate_limit_exceeded", param="model")
    log = await answered([Text("So far"), Usage(1, 1)], failure)

    fault = {"message": "Too fast.", "type": "requests", "code": "rate_limit_exceeded", "param": "model"}
    assert types(log)[-2:] == ["error", "failed"]
    event = log.events[-2]
    assert event["error"] == fault
    assert {name: event[name] for name in ("message", "code", "param")} == {
        name: fault[name] for name in ("message", "code", "param")
    }
    assert log.response["error"] == {"code": "rate_limit_exceeded", "message": "Too fast."}
    assert log.response["output"][0]["status"] == "incomplete"
    assert log.response["usage"]["total_tokens"] == 2
    assert log.notes[-1].kind == "failed"
    assert log.notes[-1].fields == {"status": 429, "error": fault}


async def test_a_code_that_the_api_does_not_have_is_a_server_error():
    log = await answered(ModelError("Not there.", status=404, code="model_not_found"))

    assert log.events[-2]["code"] == "model_not_found"
    assert log.response["error"] == {"code": "server_error", "message": "Not there."}


async def test_a_model_that_stops_without_a_reason_has_failed():
    log = await answered([Text("So")])

    assert log.response["status"] == "failed"


async def test_closing_the_answer_closes_the_models_socket():
    server = ChatServer()
    with serve(server) as url:
        model = ChatCompletions(url + "/v1")
        log = await Log().answer(model, {"model": "hang:2"}, [user("Go.")], entries_max=5)
        await server.requests[0].closing()
        await model.close()

    assert not log.transcript().closed


async def cuts(batches):
    """How many entries a whole log of these batches has."""
    return len((await answered(*batches)).entries)


@pytest.mark.parametrize("batches", [TEXT, CALLS, ([Text("a"), Refusal("b"), Finish("stop")],)], ids=str)
async def test_a_worker_may_die_after_any_entry(batches):
    for cut in range(await cuts(batches) - 1):
        log = await answered(*batches, entries_max=cut) if cut else Log()
        if log.transcript().closed:
            continue
        model = Scripted(*TEXT)
        await log.answer(model)

        check(log)
        check_sdk(log)
        calls = [item for item in log.response["output"] if item["type"] == "function_call"]
        assert all(item["status"] == "completed" for item in calls)
        assert model.asked == (0 if calls else 1)


async def test_two_workers_may_die_one_after_the_other():
    for first, second in itertools.product(range(1, 12, 2), range(1, 12, 3)):
        log = await answered(*CALLS, entries_max=first)
        await log.answer(Scripted(*TEXT), entries_max=second)
        if not log.transcript().closed:
            await log.answer(Scripted(*TEXT))

        check(log)
        check_sdk(log)


async def test_a_finished_call_is_not_given_twice():
    log = await answered(*CALLS, entries_max=20)
    assert log.transcript().item(2)["status"] == "completed"
    model = Scripted(*CALLS)
    await log.answer(model)

    assert model.asked == 0
    assert [item["type"] for item in log.response["output"]] == ["reasoning", "message", "function_call"]


async def test_a_turn_that_is_done_again_leaves_nothing_of_the_first():
    log = await answered(*CALLS, entries_max=9)
    await log.answer(Scripted(*TEXT))

    assert [item["content"][0]["text"] for item in log.response["output"]] == ["Hello world"]


@pytest.mark.parametrize("kept", range(12))
async def test_a_log_may_be_cancelled_anywhere(kept):
    log = await answered(*CALLS, entries_max=kept) if kept else Log()
    transcript = log.transcript()
    log.entries += close_cancelled(transcript)

    assert log.events[-1]["type"] == "response.incomplete"
    assert log.response["status"] == "cancelled"
    assert [event["sequence_number"] for event in log.events] == list(range(len(log.events)))
    assert log.response["output"] == transcript.output
    assert all(item.get("status") != "in_progress" for item in log.response["output"])


async def test_a_log_may_be_given_up():
    log = await answered(*CALLS, entries_max=9)
    log.entries += close_failed(log.transcript(), message="Three workers have died.")

    assert types(log)[-2:] == ["error", "failed"]
    assert log.response["error"] == {"code": "server_error", "message": "Three workers have died."}


def said_deltas():
    text = st.text(min_size=1, max_size=5)
    call = st.builds(Call, st.integers(0, 3), st.sampled_from(["", "{", "}", '{"a":1}', "x"]), st.just("f"), text)
    piece = st.one_of(st.builds(Text, text), st.builds(Refusal, text), st.builds(Reasoning, text), call)
    usage = st.builds(Usage, st.integers(0, 9), st.integers(0, 9))
    return st.lists(st.lists(piece | usage, min_size=1, max_size=6), max_size=6)


@settings(max_examples=150)
@given(
    batches=said_deltas(),
    ending=st.sampled_from([[Finish("stop")], [Finish("length")], [Finish("content_filter")], ModelError("No.")]),
    kept=st.integers(1, 40),
)
async def test_whatever_is_said_the_log_is_whole(batches, ending, kept):
    """Also if the first worker dies after any number of entries."""
    whole = await answered(*batches, ending)
    resumed = await answered(*batches, ending, entries_max=kept)
    if not resumed.transcript().closed:
        await resumed.answer(Scripted(*batches, ending))

    check(whole)
    check(resumed)
    said = "".join(delta.text for batch in batches for delta in batch if isinstance(delta, Text))
    if isinstance(ending, list) and ending[0].reason == "stop":
        assert _texts(whole, "output_text") == said


def _texts(log, type):
    parts = [part for item in log.response["output"] for part in item.get("content", ()) if part["type"] == type]
    return "".join(part["text"] for part in parts)


async def test_a_real_stream_makes_a_whole_log():
    with serve(ChatServer()) as url:
        model = ChatCompletions(url + "/v1")
        for script in ("text", "reasoning", "refusal", "logprobs", "length", "tools:mixed", "break:3", "plain"):
            check(await Log().answer(model, {"model": script, "tools": [WEATHER]}, [user("Go.")]))
        await model.close()

"""What the server answers, field by field, and how responses are continued, stopped and erased."""

import json

import pytest

from tests.contracts.model import WEATHER, user
from tests.servers.antiphon import antiphon, created, creating, events, following, replayed

# Every field of a Response with its default, as the recorded answers of the API have them.
DEFAULTS = {
    "object": "response", "status": "completed", "background": False, "error": None, "frequency_penalty": 0.0,
    "incomplete_details": None, "instructions": None, "max_output_tokens": None, "max_tool_calls": None,
    "model": "text:Tides turn", "moderation": None, "parallel_tool_calls": True, "presence_penalty": 0.0,
    "previous_response_id": None,
    "prompt_cache_key": None, "prompt_cache_retention": None, "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None, "service_tier": "default", "store": True, "temperature": 1.0,
    "text": {"format": {"type": "text"}, "verbosity": "medium"}, "tool_choice": "auto", "tools": [], "top_logprobs": 0,
    "top_p": 1.0, "truncation": "disabled", "user": None, "metadata": {},
}  # fmt: skip
CHANGING = {"id", "created_at", "completed_at", "output", "usage"}


@pytest.fixture(scope="module")
def server():
    with antiphon() as server:
        yield server


@pytest.fixture
async def http(server):
    async with server.http() as http:
        yield http


def text_of(response):
    return "".join(part["text"] for item in response["output"] for part in item.get("content", ()))


def output(call_id, said="mild"):
    return {"type": "function_call_output", "call_id": call_id, "output": said}


async def asked(http, model="echo", **body):
    """The messages that reach the model."""
    return json.loads(text_of(await created(http, model, **body)))["messages"]


async def test_a_response_has_every_field_with_its_default(http):
    response = await created(http, "text:Tides turn")

    assert response.keys() == DEFAULTS.keys() | CHANGING
    assert {name: response[name] for name in DEFAULTS} == DEFAULTS
    assert response["created_at"] <= response["completed_at"]
    assert response["usage"] == {
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 11,
    }
    (message,) = response["output"]
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": "Tides turn"}
    assert message == {
        "id": message["id"],
        "type": "message",
        "status": "completed",
        "content": [part],
        "role": "assistant",
    }


async def test_early_snapshots_have_the_same_fields_and_nothing_said(http):
    async with creating(http, "text:Tides turn") as stream:
        first, second, *_, last = events(await stream.rest())

    early = {"status": "in_progress", "service_tier": "auto"}
    assert first["response"].keys() == second["response"].keys() == last["response"].keys()
    assert {name: first["response"][name] for name in DEFAULTS} == DEFAULTS | early
    assert (first["response"]["output"], first["response"]["usage"], first["response"]["completed_at"]) == (
        [],
        None,
        None,
    )
    assert second["response"] == first["response"]


async def test_a_stream_is_the_recorded_transcript_of_a_text(http):
    async with creating(http, "text:Tides turn") as stream:
        said = events(await stream.rest())
    response_id, item_id = said[0]["response"]["id"], said[2]["item"]["id"]

    where = {"item_id": item_id, "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": ""}
    item = {"id": item_id, "type": "message", "status": "in_progress", "content": [], "role": "assistant"}
    whole = {**part, "text": "Tides turn"}
    assert [{**event, "sequence_number": None, "obfuscation": None} for event in said[2:-1]] == [
        {**event, "sequence_number": None, "obfuscation": None}
        for event in (
            {"type": "response.output_item.added", "output_index": 0, "item": item},
            {"type": "response.content_part.added", **where, "part": part},
            {"type": "response.output_text.delta", **where, "delta": "Tides", "logprobs": []},
            {"type": "response.output_text.delta", **where, "delta": " turn", "logprobs": []},
            {"type": "response.output_text.done", **where, "text": "Tides turn", "logprobs": []},
            {"type": "response.content_part.done", **where, "part": whole},
            {
                "type": "response.output_item.done",
                "output_index": 0,
                "item": {**item, "status": "completed", "content": [whole]},
            },
        )
    ]
    assert ["obfuscation" in event for event in said] == [event["type"].endswith("delta") for event in said]
    assert {event["response"]["id"] for event in (said[0], said[1], said[-1])} == {response_id}


async def test_a_stream_is_the_recorded_transcript_of_a_call(http):
    body = {"tools": [WEATHER], "store": False, "stream_options": {"include_obfuscation": False}}
    async with creating(http, "tools", **body) as stream:
        said = events(await stream.rest())
    first = [event for event in said if event.get("output_index") == 0]
    item = first[0]["item"]

    where = {"item_id": item["id"], "output_index": 0}
    assert item == {
        "id": item["id"],
        "type": "function_call",
        "status": "in_progress",
        "arguments": "",
        "call_id": "call_a",
        "name": "get_weather",
    }
    arguments = '{"city":"Paris"}'
    assert [{name: event[name] for name in event if name != "sequence_number"} for event in first[1:]] == [
        {"type": "response.function_call_arguments.delta", **where, "delta": '{"city":'},
        {"type": "response.function_call_arguments.delta", **where, "delta": '"Paris"}'},
        {"type": "response.function_call_arguments.done", **where, "name": "get_weather", "arguments": arguments},
        {
            "type": "response.output_item.done",
            "output_index": 0,
            "item": {**item, "status": "completed", "arguments": arguments},
        },
    ]
    assert said[-1]["response"]["tools"] == [{**WEATHER, "strict": True}]
    assert said[-1]["response"]["store"] is False


GIVEN = {
    "frequency_penalty": 0.5,
    "instructions": "Be short.",
    "max_output_tokens": 100,
    "max_tool_calls": 3,
    "parallel_tool_calls": False,
    "presence_penalty": -0.5,
    "prompt_cache_key": "key",
    "prompt_cache_retention": "24h",
    "prompt_cache_options": {"mode": "explicit"},
    "safety_identifier": "somebody",
    "store": False,
    "temperature": 0.2,
    "top_logprobs": 2,
    "top_p": 0.9,
    "user": "me",
    "metadata": {"a": "b"},
    "tool_choice": "none",
}


@pytest.mark.parametrize("name", GIVEN)
async def test_a_field_is_echoed_as_it_was_given(http, name):
    response = await created(http, "text", **{name: GIVEN[name]})

    assert response[name] == GIVEN[name]


@pytest.mark.parametrize("name", [*GIVEN, "reasoning", "tools", "text", "include", "stream_options"])
async def test_null_counts_as_not_given(http, name):
    answer = await http.post("/responses", json={"model": "text:Tides turn", "input": "Hi", name: None})

    if answer.status_code == 200:
        assert {each: answer.json()[each] for each in DEFAULTS} == DEFAULTS
    else:  # where the API has no null
        assert answer.json()["error"]["code"] == "invalid_type"
        assert answer.json()["error"]["param"] == name


@pytest.mark.parametrize(
    ("given", "echoed"),
    [
        ({"reasoning": {"effort": "low"}}, {"reasoning": {"effort": "low", "summary": None}}),
        (
            {"text": {"verbosity": "low"}},
            {"text": {"format": {"type": "text"}, "verbosity": "low"}},
        ),
        (
            {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}}}},
            {
                "text": {
                    "format": {
                        "type": "json_schema", "name": "x", "schema": {"type": "object"}, "description": None,
                        "strict": False,
                    },
                    "verbosity": "medium",
                }
            },
        ),
        (
            {"tools": [{"type": "function", "name": "f"}]},
            {"tools": [{"type": "function", "name": "f", "description": None, "parameters": None, "strict": True}]},
        ),
        (
            {"tools": [WEATHER], "tool_choice": {"type": "function", "name": "get_weather"}},
            {"tools": [{**WEATHER, "strict": True}], "tool_choice": {"type": "function", "name": "get_weather"}},
        ),
        ({"background": True}, {"background": True, "status": "queued"}),
        ({"service_tier": "flex"}, {"service_tier": "default"}),
    ],
)  # fmt: skip
async def test_an_echo_is_completed_by_its_defaults(http, given, echoed):
    response = await created(http, "text", **given)

    assert {name: response[name] for name in echoed} == echoed


async def test_what_the_api_does_not_echo_is_not_echoed(http):
    include = ["message.output_text.logprobs"]
    options = {"include_obfuscation": False}
    response = await created(http, "text", include=include, stream_options=options, client_metadata={"a": "b"})

    assert response.keys() == DEFAULTS.keys() | CHANGING


async def test_get_gives_what_create_gave(http):
    response = await created(http, "text")
    answer = await http.get(f"/responses/{response['id']}")

    assert answer.json() == response
    assert answer.headers["content-type"] == "application/json"


async def test_ids_of_a_chain_share_their_key(http):
    first = await created(http, "text")
    second = await created(http, "text", previous_response_id=first["id"])

    assert first["id"] != second["id"]
    keys = {id.partition("_")[2][:16] for id in (first["id"], first["output"][0]["id"], second["id"])}
    assert len(keys) == 1


async def test_a_running_response_is_shown_as_far_as_it_is(http, server):
    async with creating(http, "gate:3:1") as stream:
        await stream.deltas(3)
        running = (await http.get(f"/responses/{stream.response_id}")).json()
        server.upstream.requests[-1].release()
        await stream.rest()

    assert running["status"] == "in_progress"
    assert running["usage"] is None
    assert text_of(running) == " 0 1 2"
    assert running["output"][0]["status"] == "in_progress"


async def test_a_queued_response_is_shown_as_queued():
    with antiphon(workers=0) as server:
        async with server.http() as http:
            response = await created(http, "text", background=True)
            queued = (await http.get(f"/responses/{response['id']}")).json()

    assert queued == response
    assert queued["status"] == "queued"


async def test_deleting_tells_what_was_deleted(http):
    response = await created(http, "text")
    answer = await http.delete(f"/responses/{response['id']}")

    assert answer.json() == {"id": response["id"], "object": "response", "deleted": True}


async def test_a_deleted_response_is_unknown(http):
    response = await created(http, "text")
    await http.delete(f"/responses/{response['id']}")

    for method, path in (("GET", ""), ("GET", "?stream=true"), ("DELETE", ""), ("POST", "/cancel")):
        answer = await http.request(method, f"/responses/{response['id']}{path}")
        assert answer.status_code == 404
    continued = await http.post(
        "/responses", json={"model": "text", "input": "Hi", "previous_response_id": response["id"]}
    )
    assert continued.json()["error"]["code"] == "previous_response_not_found"


async def test_deleting_a_running_response_ends_it_and_whoever_follows(http, server):
    async with creating(http, "gate:2:1") as stream:
        await stream.deltas(2)
        seen = server.upstream.requests[-1]
        async with following(http, stream.response_id, starting_after=4) as follower:
            deleted = await http.delete(f"/responses/{stream.response_id}")
            await follower.rest()
        await stream.rest()
        await seen.closing()

    assert deleted.status_code == 200
    assert [event["type"] for event in stream.events][-1] == "response.output_text.delta"
    assert (await http.get(f"/responses/{stream.response_id}")).status_code == 404


async def test_a_response_continues_what_came_before(http):
    first = await created(http, "text:Aye", input="One")
    second = await created(http, "text:Aye aye", input="Two", previous_response_id=first["id"])
    messages = await asked(http, input="Three", previous_response_id=second["id"])

    assert [message["content"] for message in messages] == ["One", "Aye", "Two", "Aye aye", "Three"]
    assert [message["role"] for message in messages] == ["user", "assistant", "user", "assistant", "user"]


async def test_a_branch_sees_only_its_own_ancestors(http):
    root = await created(http, "text:Root", input="0")
    left = await created(http, "text:Left", input="1", previous_response_id=root["id"])
    right = await created(http, "text:Right", input="2", previous_response_id=root["id"])

    for branch, own in ((left, ["1", "Left"]), (right, ["2", "Right"])):
        messages = await asked(http, input="?", previous_response_id=branch["id"])
        assert [message["content"] for message in messages] == ["0", "Root", *own, "?"]


async def test_a_response_can_be_continued_without_new_input(http):
    first = await created(http, "text:Aye", input="One")
    messages = await asked(http, input=[], previous_response_id=first["id"])

    assert [message["content"] for message in messages] == ["One", "Aye"]


async def test_what_is_not_stored_may_continue_what_is(http):
    first = await created(http, "text:Aye", input="One")
    second = await created(http, "echo", input="Two", previous_response_id=first["id"], store=False)

    assert [message["content"] for message in json.loads(text_of(second))["messages"]] == ["One", "Aye", "Two"]
    assert second["previous_response_id"] == first["id"]
    assert second["store"] is False


async def test_what_is_not_stored_is_unknown(http):
    response = await created(http, "text", store=False)

    for method, path in (("GET", ""), ("GET", "?stream=true"), ("DELETE", ""), ("POST", "/cancel")):
        answer = await http.request(method, f"/responses/{response['id']}{path}")
        assert answer.status_code == 404
    body = {"model": "text", "input": "Hi", "previous_response_id": response["id"]}
    assert (await http.post("/responses", json=body)).json()["error"]["code"] == "previous_response_not_found"


async def test_a_running_response_cannot_be_continued(http, server):
    async with creating(http, "gate:1:1") as stream:
        await stream.deltas(1)
        body = {"model": "text", "input": "Hi", "previous_response_id": stream.response_id}
        answer = await http.post("/responses", json=body)
        server.upstream.requests[-1].release()
        await stream.rest()

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "previous_response_id"
    assert (await http.post("/responses", json=body)).status_code == 200


async def test_a_response_can_be_continued_as_soon_as_its_end_is_seen(http):
    previous = None
    for number in range(20):
        async with creating(http, f"text:{number}", previous_response_id=previous) as stream:
            await stream.until(lambda raw: b"event: response.completed\n" in raw)
            previous = stream.response_id

    messages = await asked(http, previous_response_id=previous)
    assert [each["content"] for each in messages if each["role"] == "assistant"] == [str(n) for n in range(20)]


async def test_a_child_of_a_deleted_response_can_be_continued(http):
    first = await created(http, "text:Aye", input="One")
    second = await created(http, "text:Aye aye", input="Two", previous_response_id=first["id"])
    third = await created(http, "text:Aye aye aye", input="Three", previous_response_id=second["id"])
    await http.delete(f"/responses/{second['id']}")
    messages = await asked(http, input="Four", previous_response_id=third["id"])

    assert [message["content"] for message in messages] == ["One", "Aye", "Three", "Aye aye aye", "Four"]
    assert (await http.get(f"/responses/{third['id']}")).json() == third


@pytest.mark.parametrize("deleted", ["the call", "its output"])
async def test_a_call_that_lost_its_half_is_left_out(http, deleted):
    first = await created(http, "tools", tools=[WEATHER], input="One")
    outputs = [output(call["call_id"]) for call in first["output"]]
    second = await created(http, "text:Mild", tools=[WEATHER], input=outputs, previous_response_id=first["id"])
    third = await created(http, "text:Aye", input="Three", previous_response_id=second["id"])
    await http.delete(f"/responses/{(first if deleted == 'the call' else second)['id']}")
    messages = await asked(http, input="Four", previous_response_id=third["id"])

    kept = ["Mild"] if deleted == "the call" else ["One"]
    assert [message["content"] for message in messages] == [*kept, "Three", "Aye", "Four"]


async def test_a_call_that_was_cut_short_is_not_shown_to_the_model(http):
    cut = {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"ci', "status": "incomplete"}
    messages = await asked(http, input=[user("One"), cut, user("Two")])

    assert [message["content"] for message in messages] == ["One", "Two"]


async def test_calls_may_be_answered_in_any_order_and_beside_other_input(http):
    first = await created(http, "tools", tools=[WEATHER])
    one, two = (call["call_id"] for call in first["output"])
    input = [output(two, "cold"), user("By the way"), output(one, "hot")]
    second = await created(http, "tools", tools=[WEATHER], input=input, previous_response_id=first["id"])

    assert text_of(second) == "The results: cold, hot"


async def test_an_item_that_is_sent_again_is_no_second_one(http):
    """Clients that keep the history themselves send stored items back, with their ids."""
    first = await created(http, "text:Aye", input="One")
    messages = await asked(http, input=[*first["output"], user("Two")], previous_response_id=first["id"])

    assert [message["content"] for message in messages] == ["One", "Aye", "Two"]


async def test_a_failed_response_can_be_continued(http):
    first = await created(http, "break:2", input="One")
    messages = await asked(http, input="Two", previous_response_id=first["id"])

    assert first["status"] == "failed"
    assert [message["content"] for message in messages] == ["One", " 0 1", "Two"]


async def test_logprobs_are_hidden_from_whom_did_not_ask(http):
    include = ["message.output_text.logprobs"]
    quiet = await created(http, "logprobs", top_logprobs=1)
    loud = await created(http, "logprobs", include=include)

    def logprobs(response):
        return response["output"][0]["content"][0]["logprobs"]

    assert (len(logprobs(quiet)), len(logprobs(loud))) == (0, 2)
    shown = await http.get(f"/responses/{quiet['id']}", params={"include[]": include})
    assert len(logprobs(shown.json())) == 2
    assert len(logprobs((await http.get(f"/responses/{loud['id']}")).json())) == 2
    assert b'"logprob":' not in await replayed(http, quiet["id"])
    assert b'"logprob":' in await replayed(http, quiet["id"], include=include)


async def test_models_are_those_of_the_model_server(http):
    models = (await http.get("/models")).json()

    assert models["object"] == "list"
    assert {"id": "echo", "object": "model", "created": 1, "owned_by": "tests"} in models["data"]


async def test_the_end_of_a_stream_can_be_marked():
    with antiphon(sse_done=True) as server:
        async with server.http() as http, creating(http, "text") as stream:
            raw = await stream.rest()

    assert raw.endswith(b"\n\ndata: [DONE]\n\n")


async def test_head_gives_the_headers_of_get(http):
    response = await created(http, "text")
    answer = await http.head(f"/responses/{response['id']}")

    assert (answer.status_code, answer.content) == (200, b"")

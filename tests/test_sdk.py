"""The official SDK, in both its forms, finds here what it finds at OpenAI."""

import inspect
import json

import openai
import pydantic
import pytest

from tests.contracts.model import WEATHER
from tests.servers.antiphon import antiphon

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
PLACE = {"format": {"type": "json_schema", "name": "place", "schema": SCHEMA}}

TEXT_STREAM = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]


class Place(pydantic.BaseModel):
    city: str


@pytest.fixture(scope="module")
def server():
    with antiphon() as server:
        yield server


@pytest.fixture(params=["sync", "async"])
async def sdk(request, server):
    if request.param == "sync":
        with server.sdk() as sdk:
            yield sdk
    else:
        async with server.async_sdk() as sdk:
            yield sdk


async def done(value):
    """What a call of either SDK gives."""
    return await value if inspect.isawaitable(value) else value


async def listed(stream):
    """All that a stream of either SDK gives."""
    stream = await done(stream)
    return [event async for event in stream] if hasattr(stream, "__aiter__") else list(stream)


async def helped(manager):
    """The events of the stream helper, and the response that it makes of them."""
    if hasattr(manager, "__aenter__"):
        async with manager as stream:
            return [event async for event in stream], await stream.get_final_response()
    with manager as stream:
        return list(stream), stream.get_final_response()


def types(events):
    return [event.type for event in events]


async def test_a_plain_create_gives_the_whole_response(sdk):
    response = await done(sdk.responses.create(model="text:Hello there", input="Hi"))

    assert response.status == "completed"
    assert response.output_text == "Hello there"
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens > 0
    assert response._request_id.startswith("req_")


async def test_a_stream_says_what_the_api_says_in_its_order(sdk):
    events = await listed(sdk.responses.create(model="text:Hello there", input="Hi", stream=True))

    assert types(events) == TEXT_STREAM
    assert [event.sequence_number for event in events] == list(range(10))
    assert [event.delta for event in events if event.type == "response.output_text.delta"] == ["Hello", " there"]
    assert events[-1].response.output_text == "Hello there"


async def test_a_background_response_comes_back_queued_and_is_finished_later(sdk):
    response = await done(sdk.responses.create(model="text:Hello there", input="Hi", background=True))
    events = await listed(sdk.responses.retrieve(response.id, stream=True))

    assert (response.status, response.output, response.usage) == ("queued", [], None)
    assert types(events)[:3] == ["response.created", "response.queued", "response.in_progress"]
    assert (await done(sdk.responses.retrieve(response.id))).output_text == "Hello there"


async def test_a_background_stream_begins_with_queued(sdk):
    events = await listed(sdk.responses.create(model="text:Hello there", input="Hi", background=True, stream=True))

    assert types(events) == ["response.created", "response.queued", *TEXT_STREAM[1:]]
    assert [event.response.status for event in events[:3]] == ["queued", "queued", "in_progress"]


async def test_the_stream_helper_makes_the_response(sdk):
    events, final = await helped(sdk.responses.stream(model="text:Hello there", input="Hi"))

    assert types(events) == TEXT_STREAM
    assert final.output_text == "Hello there"
    assert final.id == events[0].response.id


async def test_the_stream_helper_follows_a_response_from_any_event(sdk):
    response = await done(sdk.responses.create(model="text:Hello there", input="Hi"))
    events, final = await helped(sdk.responses.stream(response_id=response.id, starting_after=4))

    assert types(events) == TEXT_STREAM[5:]
    assert final.output_text == "Hello there"


async def test_structured_output_is_parsed(sdk):
    response = await done(sdk.responses.parse(model='text:{"city": "Paris"}', input="Where?", text_format=Place))

    assert response.output_parsed == Place(city="Paris")


async def test_the_arguments_of_a_function_are_parsed(sdk):
    tool = openai.pydantic_function_tool(Place, name="get_weather")
    response = await done(sdk.responses.parse(model="tools", input="The weather?", tools=[tool]))

    assert [call.parsed_arguments for call in response.output] == [Place(city="Paris"), Place(city="Rome")]


async def test_the_stream_helper_parses_structured_output(sdk):
    model = 'text:{"city": "Paris"}'
    final = (await helped(sdk.responses.stream(model=model, input="Where?", text=PLACE)))[1]

    assert json.loads(final.output_text) == {"city": "Paris"}


@pytest.mark.parametrize("seen", [0, 5, 8])
async def test_a_retrieved_stream_begins_behind_what_was_seen(sdk, seen):
    response = await done(sdk.responses.create(model="text:Hello there", input="Hi"))
    events = await listed(sdk.responses.retrieve(response.id, stream=True, starting_after=seen))

    assert types(events) == TEXT_STREAM[seen + 1 :]
    assert events[0].sequence_number == seen + 1


async def test_a_background_stream_that_broke_off_is_resumed(sdk):
    stream = await done(sdk.responses.create(model="text:Hello there", input="Hi", background=True, stream=True))
    seen = [await anext(stream) if hasattr(stream, "__anext__") else next(stream) for _ in range(6)]
    await done(stream.close())
    number = seen[-1].sequence_number
    seen += await listed(sdk.responses.retrieve(seen[0].response.id, stream=True, starting_after=number))

    assert types(seen) == ["response.created", "response.queued", *TEXT_STREAM[1:]]
    assert [event.sequence_number for event in seen] == list(range(11))


async def test_input_items_are_listed_page_by_page(sdk):
    first = await done(sdk.responses.create(model="text:Hello there", input="Hi"))
    second = await done(sdk.responses.create(model="text", input="And?", previous_response_id=first.id))
    items = await listed(sdk.responses.input_items.list(second.id, limit=1, order="asc"))

    assert [(item.role, item.content[0].text) for item in items] == [
        ("user", "Hi"),
        ("assistant", "Hello there"),
        ("user", "And?"),
    ]


async def test_input_tokens_are_counted(sdk):
    few = await done(sdk.responses.input_tokens.count(model="text", input="Hi"))
    more = await done(sdk.responses.input_tokens.count(model="text", input="Hi " * 100))

    assert few.object == "response.input_tokens"
    assert 0 < few.input_tokens < more.input_tokens


# The SDK takes all messages of a compaction for the model's, and wonders at the parts of the user's.
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
async def test_what_was_said_is_compacted_and_goes_on_from_there(sdk, server):
    said = [{"role": "user", "content": "A word?"}, {"role": "assistant", "content": "Cobalt."}]
    compacted = await done(sdk.responses.compact(model="text:They spoke of cobalt", input=said))
    input = [*compacted.output, {"role": "user", "content": "Which was it?"}]
    response = await done(sdk.responses.create(model="text:Cobalt", input=input, store=False))

    assert compacted.object == "response.compaction"
    assert compacted.output[-1].type == "compaction"
    assert response.output_text == "Cobalt"
    assert "They spoke of cobalt" in json.dumps(server.upstream.requests[-1].body["messages"])


async def test_a_conversation_keeps_the_items_of_its_responses(sdk, server):
    conversation = await done(sdk.conversations.create(items=[{"role": "user", "content": "I am Ada."}]))
    first = await done(sdk.responses.create(model="text:Hello", input="Hi", conversation=conversation.id))
    await listed(sdk.responses.create(model="text:Ada", input="My name?", conversation=conversation.id, stream=True))
    items = await listed(sdk.conversations.items.list(conversation.id, order="asc", limit=2))

    assert first.conversation.id == conversation.id
    assert [item.content[0].text for item in items] == ["I am Ada.", "Hi", "Hello", "My name?", "Ada"]
    contents = [message["content"] for message in server.upstream.requests[-1].body["messages"]]
    assert contents == ["I am Ada.", "Hi", "Hello", "My name?"]


async def test_the_items_of_a_conversation_are_added_found_and_deleted(sdk):
    conversation = await done(sdk.conversations.create())
    words = [{"role": "user", "content": word} for word in ("One", "Two")]
    added = await done(sdk.conversations.items.create(conversation.id, items=words))
    item = await done(sdk.conversations.items.retrieve(added.data[0].id, conversation_id=conversation.id))
    left = await done(sdk.conversations.items.delete(item.id, conversation_id=conversation.id))

    assert item == added.data[0]
    assert left.id == conversation.id
    assert [each.id for each in await listed(sdk.conversations.items.list(conversation.id))] == [added.data[1].id]


async def test_a_conversation_is_renamed_and_deleted(sdk):
    conversation = await done(sdk.conversations.create(metadata={"topic": "birds"}))
    renamed = await done(sdk.conversations.update(conversation.id, metadata={"topic": "fish"}))
    found = await done(sdk.conversations.retrieve(conversation.id))
    deleted = await done(sdk.conversations.delete(conversation.id))

    assert found == renamed
    assert found.metadata == {"topic": "fish"}
    assert deleted.deleted
    with pytest.raises(openai.NotFoundError):
        await done(sdk.conversations.retrieve(conversation.id))


async def test_a_deleted_response_is_gone(sdk):
    response = await done(sdk.responses.create(model="text:Hello there", input="Hi"))
    await done(sdk.responses.delete(response.id))

    with pytest.raises(openai.NotFoundError, match=f"Response with id '{response.id}' not found."):
        await done(sdk.responses.retrieve(response.id))


async def test_a_background_response_can_be_cancelled(sdk):
    response = await done(sdk.responses.create(model="hang", input="Hi", background=True))
    cancelled = await done(sdk.responses.cancel(response.id))

    assert cancelled.status == "cancelled"
    assert cancelled.id == response.id


async def test_models_are_listed_and_found(sdk):
    models = await listed(sdk.models.list())
    model = await done(sdk.models.retrieve("text"))

    assert "text" in [model.id for model in models]
    assert (model.id, model.object, model.owned_by) == ("text", "model", "tests")
    with pytest.raises(openai.NotFoundError):
        await done(sdk.models.retrieve("no/such:model"))


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (404, openai.NotFoundError),
        (409, openai.ConflictError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
    ],
)
async def test_a_plain_create_fails_as_the_model_server_did(sdk, status, error):
    with pytest.raises(error, match="It said no") as raised:
        await done(sdk.responses.create(model=f"error:{status}", input="Hi"))

    assert raised.value.status_code == status
    assert raised.value.request_id.startswith("req_")


@pytest.mark.parametrize("status", [401, 403])
async def test_a_model_server_that_refuses_our_key_is_not_the_callers_fault(sdk, status):
    with pytest.raises(openai.InternalServerError, match="refused this server's credentials"):
        await done(sdk.responses.create(model=f"error:{status}", input="Hi"))


async def test_a_refused_request_names_its_fault(sdk):
    with pytest.raises(openai.BadRequestError) as raised:
        await done(sdk.responses.create(model="text", input="Hi", temperature=3))

    assert raised.value.param == "temperature"
    assert raised.value.code == "decimal_above_max_value"
    assert raised.value.type == "invalid_request_error"


async def test_a_stream_that_fails_raises_what_the_model_server_said(sdk):
    with pytest.raises(openai.APIError, match="It said no") as raised:
        await listed(sdk.responses.create(model="error:400", input="Hi", stream=True))

    assert raised.value.code == "some_code"


async def test_a_response_that_breaks_off_keeps_what_was_said(sdk):
    response = await done(sdk.responses.create(model="break:3", input="Hi"))

    assert response.status == "failed"
    assert response.error.code == "server_error"
    assert response.output_text == " 0 1 2"
    assert response.output[0].status == "incomplete"


async def test_a_function_is_called_and_its_output_answered_in_a_second_turn(sdk, server):
    asked = await done(sdk.responses.create(model="tools", input="The weather?", tools=[WEATHER]))
    outputs = [
        {"type": "function_call_output", "call_id": call.call_id, "output": f"mild in {json.loads(call.arguments)}"}
        for call in asked.output
    ]
    told = await done(
        sdk.responses.create(model="tools", input=outputs, tools=[WEATHER], previous_response_id=asked.id)
    )

    assert [(call.type, call.name, call.arguments, call.status) for call in asked.output] == [
        ("function_call", "get_weather", '{"city":"Paris"}', "completed"),
        ("function_call", "get_weather", '{"city":"Rome"}', "completed"),
    ]
    assert told.output_text == "The results: mild in {'city': 'Paris'}, mild in {'city': 'Rome'}"
    messages = server.upstream.requests[-1].body["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "tool"]
    assert [call["id"] for call in messages[1]["tool_calls"]] == [call.call_id for call in asked.output]


async def test_a_function_is_called_without_anything_being_stored(sdk):
    asked = await done(sdk.responses.create(model="tools", input="The weather?", tools=[WEATHER], store=False))
    input = [{"role": "user", "content": "The weather?"}]
    for call in asked.output:
        input += [
            call.to_dict(),
            {"type": "function_call_output", "call_id": call.call_id, "output": "mild"},
        ]
    told = await done(sdk.responses.create(model="tools", input=input, tools=[WEATHER], store=False))

    assert told.output_text == "The results: mild, mild"


async def test_parallel_calls_are_streamed_one_behind_the_other(sdk):
    events, final = await helped(sdk.responses.stream(model="tools:mixed", input="The weather?", tools=[WEATHER]))
    places = [event.output_index for event in events if hasattr(event, "output_index")]

    assert places == sorted(places)
    assert set(places) == {0, 1}
    assert [call.arguments for call in final.output] == ['{"city":"Paris"}', '{"city":"Rome"}']


async def test_a_call_without_its_output_is_refused(sdk):
    asked = await done(sdk.responses.create(model="tools", input="The weather?", tools=[WEATHER]))

    with pytest.raises(
        openai.BadRequestError, match=f"No tool output found for function call {asked.output[0].call_id}"
    ):
        await done(sdk.responses.create(model="text", input="And?", previous_response_id=asked.id))
    output = {"type": "function_call_output", "call_id": "call_unknown", "output": "mild"}
    with pytest.raises(openai.BadRequestError, match="No tool call found"):
        await done(sdk.responses.create(model="text", input=[output]))


async def test_reasoning_is_an_item_before_the_message(sdk):
    events, final = await helped(sdk.responses.stream(model="reasoning", input="Two and two?"))

    assert [item.type for item in final.output] == ["reasoning", "message"]
    assert final.output[0].content[0].text == "Two and two."
    assert final.output_text == "It is four."
    assert final.usage.output_tokens_details.reasoning_tokens == 3
    assert final.usage.input_tokens_details.cached_tokens == 5
    assert [event.delta for event in events if event.type == "response.reasoning_text.delta"] == [
        "Two",
        " and",
        " two.",
    ]


async def test_reasoning_that_is_sent_back_is_taken(sdk):
    first = await done(sdk.responses.create(model="reasoning", input="Two and two?", store=False))
    input = [*(item.to_dict() for item in first.output), {"role": "user", "content": "Sure?"}]

    assert (await done(sdk.responses.create(model="text:Yes", input=input))).output_text == "Yes"


async def test_a_refusal_is_a_part_of_its_own(sdk):
    events, final = await helped(sdk.responses.stream(model="refusal", input="Hi"))

    assert final.output[0].content[0].type == "refusal"
    assert final.output[0].content[0].refusal == "I will not say that."
    assert "response.refusal.done" in types(events)


@pytest.mark.parametrize(("model", "reason"), [("length", "max_output_tokens"), ("filter", "content_filter")])
async def test_an_answer_that_is_cut_is_incomplete_and_says_why(sdk, model, reason):
    response = await done(sdk.responses.create(model=model, input="Hi"))
    events = await listed(sdk.responses.create(model=model, input="Hi", stream=True))

    assert (response.status, response.incomplete_details.reason) == ("incomplete", reason)
    assert response.output[0].status == "incomplete"
    assert response.completed_at is None
    assert events[-1].type == "response.incomplete"
    assert events[-1].response.output_text == response.output_text


async def test_an_incomplete_answer_can_be_continued(sdk, server):
    first = await done(sdk.responses.create(model="length", input="Hi"))
    await done(sdk.responses.create(model="text", input="Go on", previous_response_id=first.id))

    contents = [message["content"] for message in server.upstream.requests[-1].body["messages"]]
    assert contents == ["Hi", "This is cut", "Go on"]


async def test_logprobs_come_if_they_were_asked_for(sdk, server):
    include = ["message.output_text.logprobs"]
    events, final = await helped(sdk.responses.stream(model="logprobs", input="Hi", include=include, top_logprobs=1))
    deltas = [event for event in events if event.type == "response.output_text.delta"]

    assert [entry.token for entry in final.output[0].content[0].logprobs] == ["Yes", "!"]
    assert [delta.logprobs[0].token for delta in deltas] == ["Yes", "!"]
    assert server.upstream.requests[-1].body["top_logprobs"] == 1
    assert (await done(sdk.responses.retrieve(final.id))).output[0].content[0].logprobs[0].token == "Yes"


async def test_a_schema_and_instructions_reach_the_model(sdk, server):
    response = await done(
        sdk.responses.create(
            model="echo", input="Where?", text=PLACE, instructions="Be short.", temperature=0.5, max_output_tokens=99
        )
    )
    asked = json.loads(response.output_text)

    assert asked["response_format"] == {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}
    assert asked["messages"] == [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Where?"},
    ]
    assert (asked["temperature"], asked["max_tokens"]) == (0.5, 99)


async def test_instructions_are_not_inherited(sdk):
    first = await done(sdk.responses.create(model="text:Aye", input="Hi", instructions="Be a pirate."))
    second = await done(sdk.responses.create(model="echo", input="And?", previous_response_id=first.id))

    assert second.instructions is None
    assert [message["role"] for message in json.loads(second.output_text)["messages"]] == ["user", "assistant", "user"]

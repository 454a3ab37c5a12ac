"""LangChain's ChatOpenAI, told to use the Responses API."""

# mypy: disable-error-code="import-not-found"

import openai
import pytest
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, custom_tool
from pydantic import BaseModel

from tests.clients.conftest import KEY


class Place(BaseModel):
    """A place."""

    city: str


@tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"mild in {city}"


@pytest.fixture
def chat(server):
    """Makes a chat model that follows a script."""

    def chat(script, **options):
        return ChatOpenAI(
            model=script, base_url=server.url, api_key=KEY, use_responses_api=True, max_retries=0, **options
        )

    return chat


def answered(model):
    """The messages of a turn with tools: question, calls, results."""
    asked = model.invoke("The weather?")
    results = [get_weather.invoke(call) for call in asked.tool_calls]
    return [HumanMessage("The weather?"), asked, *results]


def test_a_model_is_invoked(chat):
    message = chat("text:Hello there").invoke([SystemMessage("Be kind."), HumanMessage("Hi")])

    assert message.text == "Hello there"
    assert message.response_metadata["status"] == "completed"
    assert message.usage_metadata["total_tokens"] > 0


def test_the_text_is_streamed(chat):
    chunks = list(chat("text:Hello there").stream("Hi"))

    assert [chunk.text for chunk in chunks if chunk.text] == ["Hello", " there"]
    assert sum(chunks[1:], chunks[0]).usage_metadata["total_tokens"] > 0


async def test_a_model_can_be_waited_for(chat):
    """One test, since its HTTP client is kept for one event loop."""
    model = chat("text:Hello there")

    assert (await model.ainvoke("Hi")).text == "Hello there"
    assert "".join([chunk.text async for chunk in model.astream("Hi")]) == "Hello there"


def test_tools_are_called_and_their_results_answered(chat):
    model = chat("tools").bind_tools([get_weather])
    messages = answered(model)

    assert [call["args"] for call in messages[1].tool_calls] == [{"city": "Paris"}, {"city": "Rome"}]
    assert all(isinstance(result, ToolMessage) for result in messages[2:])
    assert model.invoke(messages).text == "The results: mild in Paris, mild in Rome"


def test_tools_are_called_in_a_stream(chat):
    chunks = list(chat("tools").bind_tools([get_weather]).stream("The weather?"))

    assert [call["args"] for call in sum(chunks[1:], chunks[0]).tool_calls] == [{"city": "Paris"}, {"city": "Rome"}]


def test_tools_are_answered_without_anything_being_stored(chat):
    model = chat("tools", store=False).bind_tools([get_weather])

    assert model.invoke(answered(model)).text == "The results: mild in Paris, mild in Rome"


def test_a_custom_tool_is_called_with_free_text(chat):
    @custom_tool
    def shout(text: str) -> str:
        """Shouts."""
        return text.upper()

    model = chat('call-once:shout:{"input": "so"}').bind_tools([shout])
    asked = model.invoke("Shout")
    results = [shout.invoke(call) for call in asked.tool_calls]

    assert model.invoke([HumanMessage("Shout"), asked, *results]).text == "The result: SO"


def test_a_tool_that_only_openai_runs_does_not_stop_the_others(chat):
    model = chat("tools").bind_tools([get_weather, {"type": "web_search"}])

    assert [call["name"] for call in model.invoke("The weather?").tool_calls] == ["get_weather", "get_weather"]


def test_a_tool_can_be_demanded(chat, server):
    chat("tools").bind_tools([get_weather], tool_choice="get_weather", strict=True).invoke("The weather?")

    asked = server.upstream.requests[-1].body
    assert asked["tool_choice"] == {"type": "function", "function": {"name": "get_weather"}}


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_the_output_is_structured(chat, method):
    script = "tools" if method == "function_calling" else 'text:{"city": "Paris"}'
    model = chat(script).with_structured_output(Place, method=method)

    assert model.invoke("Where? Answer with JSON.") == Place(city="Paris")


def test_structured_output_is_streamed(chat):
    model = chat('text:{"city": "Paris"}').with_structured_output(Place)

    assert list(model.stream("Where?"))[-1] == Place(city="Paris")


def test_the_server_keeps_what_was_said(chat, server):
    model = chat("text:Cobalt", use_previous_response_id=True)
    first = model.invoke("A word?")
    model.invoke([HumanMessage("A word?"), first, HumanMessage("Again?")])

    contents = [message["content"] for message in server.upstream.requests[-1].body["messages"]]
    assert contents == ["A word?", "Cobalt", "Again?"]


def test_reasoning_can_be_sent_back(chat):
    first = chat("reasoning", output_version="responses/v1").invoke("Two and two?")

    assert first.text == "It is four."
    assert chat("text:Yes").invoke([HumanMessage("Two and two?"), first, HumanMessage("Sure?")]).text == "Yes"


def test_an_image_is_taken(chat):
    pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    parts = [
        {"type": "text", "text": "What is it?"},
        {"type": "image", "base64": pixel, "mime_type": "image/png"},
    ]

    assert chat("text:A dot").invoke([HumanMessage(parts)]).text == "A dot"


def test_an_error_is_what_the_server_said(chat):
    with pytest.raises(openai.BadRequestError, match="It said no"):
        chat("error:400").invoke("Hi")

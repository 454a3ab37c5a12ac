"""The official SDK against a real server process with the embedded model, of which nothing exact is expected."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from antiphon.demo.child import Server
from tests.contracts.model import WEATHER

MODEL = "smollm2-135m-instruct"
SHORT: dict[str, Any] = {"model": MODEL, "max_output_tokens": 16}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory: Path = tmp_path_factory.mktemp("embedded")
    with Server(directory) as server:
        server.start()
        yield server


@pytest.fixture(params=["sync", "async"])
async def sdk(request: pytest.FixtureRequest, server: Server) -> Any:
    kind = openai.OpenAI if request.param == "sync" else openai.AsyncOpenAI
    sdk: Any = kind(base_url=server.base_url, api_key="none", max_retries=0)
    yield sdk
    await done(sdk.close())


async def done(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


async def listed(stream: Any) -> list[Any]:
    stream = await done(stream)
    return [event async for event in stream] if hasattr(stream, "__aiter__") else list(stream)


async def helped(manager: Any) -> list[Any]:
    """The events that the stream helper lets through."""
    if hasattr(manager, "__aenter__"):
        async with manager as stream:
            return [event async for event in stream]
    with manager as stream:
        return list(stream)


async def test_a_response_is_made_retrieved_streamed_again_continued_and_deleted(sdk: Any) -> None:
    first = await done(sdk.responses.create(input="Say hello.", **SHORT))
    assert first.output_text
    assert first.usage.output_tokens > 0
    assert (await done(sdk.responses.retrieve(first.id))).output == first.output

    replayed = await helped(sdk.responses.stream(response_id=first.id))
    assert replayed[0].type == "response.created"
    assert replayed[-1].response.output_text == first.output_text

    second = await done(sdk.responses.create(input="And again.", previous_response_id=first.id, **SHORT))
    assert second.usage.input_tokens > first.usage.input_tokens

    await done(sdk.responses.delete(first.id))
    with pytest.raises(openai.NotFoundError):
        await done(sdk.responses.retrieve(first.id))


async def test_a_stream_has_no_gap(sdk: Any) -> None:
    events = await listed(sdk.responses.create(input="Count to five.", stream=True, **SHORT))

    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].type in ("response.completed", "response.incomplete")


async def test_a_background_response_can_be_cancelled(sdk: Any) -> None:
    queued = await done(sdk.responses.create(model=MODEL, input="Tell me everything about the sea.", background=True))
    assert queued.status == "queued"

    cancelled = await done(sdk.responses.cancel(queued.id))

    assert cancelled.status == "cancelled"
    assert (await done(sdk.responses.retrieve(queued.id))).status == "cancelled"


async def test_a_function_is_called(sdk: Any) -> None:
    response = await done(
        sdk.responses.create(
            model=MODEL, input="What is the weather in Paris?", tools=[WEATHER], tool_choice="required"
        )
    )

    assert response.output[-1].type == "function_call"
    assert response.output[-1].name == WEATHER["name"]

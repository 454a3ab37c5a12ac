"""The cases of the Open Responses compliance suite, by its ids, against `antiphon serve --sse-done`.

As in the suite, every answer and every event must be of the published document: of its models in the package
openresponses-types, which is made from it. Keys beyond the document are allowed, types of events beyond it are not.
"""

from __future__ import annotations

import json
from contextlib import asynccontextmanager

import httpx2
import pytest
import websockets

from antiphon.protocol import sse
from tests.servers.antiphon import PLAIN, Process
from tests.servers.chat import ChatServer
from tests.servers.running import serve

document = pytest.importorskip("openresponses_types.types", reason="the published document is tried where it is")

EVENTS = {
    next(iter(model.model_fields["type"].annotation)).value: model
    for name, model in vars(document).items()
    if name.endswith("StreamingEvent")
}
TERMINAL = ("response.completed", "response.incomplete", "response.failed", "error")

MODEL = "text:One, two and three"
PIXEL = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the current weather for a location",
    "parameters": {
        "type": "object",
        "properties": {"location": {"type": "string", "description": "The city and state"}},
        "required": ["location"],
    },
}


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with serve(ChatServer()) as upstream:
        process = Process(upstream, tmp_path_factory.mktemp("open-responses"), "--sse-done")
        yield process.url
        process.close()


@pytest.fixture
async def client(url):
    async with httpx2.AsyncClient(base_url=url, **PLAIN) as client:
        yield client


def message(role, content, **fields):
    return {"type": "message", "role": role, "content": content, **fields}


def held(model, value):
    """The value, if it is of the document's model: each type as it is, nothing converted."""
    model.model_validate_json(json.dumps(value), strict=True)
    return value


async def created(client, *input, **body):
    """The response to a create; the suite demands that it is there, whole and of the document."""
    answer = await client.post("/responses", json={"model": MODEL, "input": list(input), **body})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return held(document.ResponseResource, answer.json())


async def streamed(client, *input, **body):
    """The events of a streamed create, each of the document, and behind them the end that Open Responses demands."""
    answer = await client.post("/responses", json={"model": MODEL, "input": list(input), "stream": True, **body})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    *messages, last = sse.Decoder().feed(answer.content)
    assert last.data == b"[DONE]"
    events = [json.loads(each.data) for each in messages]
    assert [each.event for each in messages] == [event["type"] for event in events]
    return [held(EVENTS[event["type"]], event) for event in events]


class Socket:
    """A WebSocket, as the suite speaks it."""

    def __init__(self, connection):
        self._connection = connection

    async def create(self, input, **body):
        """The last message of a create; all of them are of the document."""
        creating = {"type": "response.create", "model": MODEL, "input": input, **body}
        await self._connection.send(json.dumps(creating))
        while True:
            said = json.loads(await self._connection.recv())
            model = document.WebSocketErrorEvent if "status" in said else EVENTS[said["type"]]
            held(model, said)
            if said["type"] in TERMINAL:
                return said


@asynccontextmanager
async def connected(url):
    async with websockets.connect(url.replace("http", "ws", 1) + "/responses", proxy=None) as connection:
        yield Socket(connection)


@pytest.fixture
async def socket(url):
    async with connected(url) as socket:
        yield socket


def is_whole(response):
    return response["status"] == "completed" and response["output"] != []


async def test_basic_response(client):
    assert is_whole(await created(client, message("user", "Say hello in exactly 3 words.")))


async def test_assistant_phase(client):
    response = await created(
        client,
        message("assistant", "I am looking it up.", phase="commentary"),
        message("assistant", "It is blue.", phase="final_answer"),
        message("user", "What is blue?"),
    )
    assert is_whole(response)


@pytest.mark.parametrize("phase", ["commentary", "final_answer"])
async def test_response_output_phase_schema(client, phase):
    """A fixture in the suite; here a response that came over the wire."""
    response = await created(client, message("user", "Hi"))
    response["output"][0]["phase"] = phase
    held(document.ResponseResource, response)


async def test_streaming_response(client):
    events = await streamed(client, message("user", "Count from 1 to 5."))
    assert events[-1]["type"] == "response.completed"
    assert is_whole(events[-1]["response"])


async def test_system_prompt(client):
    response = await created(client, message("system", "You are a pirate."), message("user", "Say hello."))
    assert is_whole(response)


async def test_tool_calling(client):
    response = await created(client, message("user", "What's the weather?"), model="tools", tools=[WEATHER])
    assert "function_call" in [item["type"] for item in response["output"]]


async def test_tool_calling_streaming(client):
    """Of an older revision of the suite."""
    events = await streamed(client, message("user", "What's the weather?"), model="tools", tools=[WEATHER])
    types = [event["type"] for event in events]
    items = {event["type"]: event["item"]["type"] for event in events if "item" in event}
    assert items == {"response.output_item.added": "function_call", "response.output_item.done": "function_call"}
    assert "response.function_call_arguments.delta" in types
    assert "response.function_call_arguments.done" in types


async def test_image_input(client):
    parts = [{"type": "input_text", "text": "What is it?"}, {"type": "input_image", "image_url": PIXEL}]
    assert is_whole(await created(client, message("user", parts)))


async def test_multi_turn(client):
    response = await created(
        client,
        message("user", "My name is Alice."),
        message("assistant", "Hello Alice! Nice to meet you. How can I help you today?"),
        message("user", "What is my name?"),
    )
    assert is_whole(response)


async def compacted(client):
    input = [message("user", "The word is cobalt."), message("assistant", "I will keep it.")]
    answer = await client.post(
        "/responses/compact", json={"model": MODEL, "input": input, "prompt_cache_key": "compliance"}
    )
    assert answer.status_code == 200, answer.text
    return held(document.CompactResource, answer.json())


async def test_compact_response(client):
    resource = await compacted(client)
    assert resource["object"] == "response.compaction"
    assert "compaction" in [item["type"] for item in resource["output"]]


async def test_compact_missing_model(client):
    answer = await client.post("/responses/compact", json={"input": "Hi"})
    assert answer.status_code in (400, 422)


async def test_websocket_response(socket):
    said = await socket.create([message("user", "Count from 1 to 3.")])
    assert is_whole(said["response"])


async def test_websocket_sequential_responses(socket):
    for word in ("One.", "Two."):
        assert (await socket.create(word, store=False))["type"] == "response.completed"


async def remembering(socket):
    """A response that only its connection keeps."""
    said = await socket.create([message("user", "The word is cobalt.")], store=False)
    assert said["type"] == "response.completed"
    return said["response"]["id"]


async def continued(socket, response_id, *input):
    return await socket.create(
        list(input) or [message("user", "What is the word?")], store=False, previous_response_id=response_id
    )


def is_not_found(said):
    return said["type"] == "error" and said["error"]["code"] == "previous_response_not_found"


async def test_websocket_continuation(socket):
    said = await continued(socket, await remembering(socket))
    assert is_whole(said["response"])


async def test_websocket_reconnect_store_false_recovery(url, socket):
    response_id = await remembering(socket)
    async with connected(url) as other:
        assert is_not_found(await continued(other, response_id))
        assert (await other.create("Hi", store=False))["type"] == "response.completed"


async def test_websocket_previous_response_not_found(socket):
    assert is_not_found(await continued(socket, "resp_00000000000000000000000000000000000000000000000000"))


async def test_websocket_failed_continuation_evicts_cache(socket):
    response_id = await remembering(socket)
    unasked = {"type": "function_call_output", "call_id": "call_unknown", "output": "{}"}
    assert (await continued(socket, response_id, unasked))["type"] in ("error", "response.failed")
    assert is_not_found(await continued(socket, response_id))


async def test_websocket_compact_new_chain(client, socket):
    output = (await compacted(client))["output"]
    said = await socket.create([*output, message("user", "What is the word?")], store=False)
    assert is_whole(said["response"])

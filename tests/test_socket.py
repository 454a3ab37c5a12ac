"""Responses over a WebSocket: the events of a stream as messages, in lanes, with a memory of its own."""

import json
from contextlib import asynccontextmanager
from typing import Any

import pytest
import websockets

from tests.servers.antiphon import antiphon


@pytest.fixture(scope="module")
def server():
    with antiphon() as server:
        yield server


class Socket:
    """A connection as a test speaks it."""

    def __init__(self, connection):
        self.connection = connection

    async def create(self, model="text:Hi there", **body):
        await self.send({"type": "response.create", "model": model, "input": "Hi", **body})

    async def send(self, message):
        await self.connection.send(message if isinstance(message, str | bytes) else json.dumps(message))

    async def message(self):
        return json.loads(await self.connection.recv())

    async def events(self):
        """The messages up to the end of one response, or up to an error of the connection."""
        said = []
        while True:
            said.append(await self.message())
            if "status" in said[-1] or said[-1]["type"] in (
                "response.completed",
                "response.incomplete",
                "response.failed",
            ):
                return said

    async def answer(self, model="text:Hi there", **body):
        """The last message that a create brings."""
        await self.create(model, **body)
        return (await self.events())[-1]


@asynccontextmanager
async def connected(server, **options):
    url = server.url.replace("http", "ws", 1) + "/responses"
    async with websockets.connect(url, proxy=None, **options) as connection:
        yield Socket(connection)


@pytest.fixture
async def socket(server):
    async with connected(server) as socket:
        yield socket


def text(event):
    return event["response"]["output"][0]["content"][0]["text"]


async def test_a_create_brings_the_events_of_its_stream(socket):
    await socket.create()
    events = await socket.events()
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[0]["type"] == "response.created"
    assert text(events[-1]) == "Hi there"


async def test_the_next_create_begins_at_number_0_again(socket):
    await socket.answer()
    await socket.create()
    assert (await socket.message())["sequence_number"] == 0


async def test_a_stored_response_can_be_retrieved_afterwards(server, socket):
    done = await socket.answer()
    async with server.http() as http:
        assert (await http.get(f"/responses/{done['response']['id']}")).json() == done["response"]


async def test_deltas_are_padded_unless_they_should_not_be(socket):
    await socket.create(stream_options={"include_obfuscation": False})
    plain = await socket.events()
    await socket.create()
    padded = await socket.events()
    assert not any("obfuscation" in event for event in plain)
    assert any("obfuscation" in event for event in padded)


async def test_a_response_that_is_not_stored_can_be_continued_on_its_connection(server, socket):
    first = await socket.answer("text:cobalt", store=False)
    second = await socket.answer("echo", store=False, previous_response_id=first["response"]["id"])
    sent = json.loads(text(second))["messages"]
    assert [message["content"] for message in sent] == ["Hi", "cobalt", "Hi"]
    third = await socket.answer("echo", previous_response_id=second["response"]["id"])  # stored, with all before it
    fourth = await socket.answer("echo", previous_response_id=third["response"]["id"])
    assert len(json.loads(text(fourth))["messages"]) == 7


async def test_it_cannot_be_continued_on_another_connection_nor_after_the_end_of_its_own(server, socket):
    first = await socket.answer(store=False)
    async with connected(server) as other:
        refusal = await other.answer(store=False, previous_response_id=first["response"]["id"])
        assert refusal["error"]["code"] == "previous_response_not_found"
        assert refusal["error"]["param"] == "previous_response_id"
        assert refusal["status"] == 400
        assert (await other.answer(store=False))["type"] == "response.completed"
    async with server.http() as http:
        assert (await http.get(f"/responses/{first['response']['id']}")).status_code == 404


async def test_only_the_latest_one_is_kept(socket):
    first = await socket.answer(store=False)
    await socket.answer(store=False)
    refusal = await socket.answer(store=False, previous_response_id=first["response"]["id"])
    assert refusal["error"]["code"] == "previous_response_not_found"


@pytest.mark.parametrize(
    "failing",
    [
        {"input": [{"type": "function_call_output", "call_id": "call_unknown", "output": "x"}]},
        {"model": "error:500"},
    ],
    ids=["refused", "failed"],
)
async def test_a_failed_continuation_ends_what_it_continued(socket, failing):
    first = await socket.answer(store=False)
    await socket.answer(store=False, previous_response_id=first["response"]["id"], **failing)
    refusal = await socket.answer(store=False, previous_response_id=first["response"]["id"])
    assert refusal["error"]["code"] == "previous_response_not_found"


async def test_creates_of_one_lane_are_answered_one_after_the_other(socket):
    for word in ("one", "two", "three"):
        await socket.create(f"text:{word}")
    assert [text((await socket.events())[-1]) for _ in range(3)] == ["one", "two", "three"]


async def test_lanes_run_side_by_side_and_their_events_name_them(server, socket):
    before = len(server.upstream.requests)
    await socket.create("gate", stream_id="slow")
    waiting = await server.upstream.request(before + 1)
    await socket.create("text:quick", stream_id="quick")
    seen: list[dict[str, Any]] = []
    while not seen or seen[-1]["type"] != "response.completed":
        seen.append(await socket.message())
    assert seen[-1]["stream_id"] == "quick"
    assert {event["stream_id"] for event in seen} == {"slow", "quick"}
    waiting.release()
    assert {event["stream_id"] for event in await socket.events()} == {"slow"}


@pytest.mark.parametrize(
    ("message", "code", "param"),
    [
        ("{", "invalid_request_error", None),
        ("[]", "invalid_value", "type"),
        ({"type": "session.update"}, "invalid_value", "type"),
        ({"type": "response.create", "stream_id": "a b"}, "invalid_value", "stream_id"),
        ({"type": "response.create", "input": "Hi"}, "missing_required_parameter", "model"),
        ({"type": "response.create", "model": "m", "input": "Hi", "stor": 1}, "unknown_parameter", "stor"),
        (
            {"type": "response.create", "model": "m", "input": "Hi", "background": True},
            "unsupported_parameter",
            "background",
        ),
    ],
)
async def test_a_bad_message_is_an_error_and_the_connection_goes_on(socket, message, code, param):
    await socket.send(message)
    error = await socket.message()
    assert (error["type"], error["status"]) == ("error", 400)
    assert (error["error"]["code"], error["error"]["param"]) == (code, param)
    assert (await socket.answer())["type"] == "response.completed"


async def test_who_hangs_up_stops_what_is_not_stored(server):
    before = len(server.upstream.requests)
    async with connected(server) as socket:
        await socket.create("hang:2", store=False)
        seen = await server.upstream.request(before + 1)
        await socket.message()
    await seen.closing()


async def test_without_a_key_the_handshake_is_refused():
    with antiphon(api_keys={"me": "sk-1234567890123456"}) as server:
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with connected(server):
                pass
        assert refused.value.response.status_code == 401
        assert json.loads(refused.value.response.body)["error"]["type"] == "invalid_request_error"
        async with connected(server, additional_headers={"Authorization": "Bearer sk-1234567890123456"}) as socket:
            assert (await socket.answer())["type"] == "response.completed"


async def test_a_page_of_another_site_is_refused_where_there_are_no_keys(server):
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with connected(server, origin="https://elsewhere.example"):
            pass
    assert refused.value.response.status_code == 403


async def test_the_official_sdk_converses(server):
    async with server.async_sdk() as sdk, sdk.responses.connect() as connection:
        await connection.response.create(model="text:Hi there", input="Hi")
        types = []
        async for event in connection:
            types.append(event.type)
            if event.type == "response.completed":
                break
    assert types[0] == "response.created"
    assert event.response.output_text == "Hi there"


@pytest.mark.filterwarnings("ignore:connect.. must be used as a context manager:DeprecationWarning")  # the SDK's way
def test_the_official_sdk_converses_without_an_event_loop(server):
    with server.sdk() as sdk, sdk.responses.connect() as connection:
        connection.response.create(model="text:Hi there", input="Hi")
        for event in connection:
            if event.type == "response.completed":
                break
    assert event.response.output_text == "Hi there"


async def test_a_connection_may_use_any_number_of_lanes_one_after_the_other(socket):
    for number in range(40):
        assert (await socket.answer(stream_id=f"lane-{number}"))["type"] == "response.completed"


async def test_so_many_lanes_at_once_are_enough(server, socket):
    before = len(server.upstream.requests)
    for number in range(33):
        await socket.create("silent", stream_id=f"lane-{number}", store=False)
    while (refusal := await socket.message())["type"] != "error":
        pass
    assert (refusal["status"], refusal["error"]["code"]) == (429, "rate_limit_exceeded")
    assert refusal["stream_id"] == "lane-32"
    await server.upstream.request(before + 32)


async def test_what_waits_on_a_connection_is_bounded():
    with antiphon(max_body_bytes=100_000) as server:
        async with connected(server) as socket:
            await socket.create("silent", store=False)
            for lane in ("a", "b", "c"):
                await socket.create("silent", input="x" * 40_000, stream_id=lane, store=False)
            while (refusal := await socket.message())["type"] != "error":
                pass
    assert (refusal["status"], refusal["stream_id"]) == (429, "c")


async def test_who_hangs_up_at_once_leaves_nothing_behind_that_no_worker_has(tmp_path):
    """The leases of this server hold longer than any test waits."""
    settings = {"orphan_grace_seconds": 0, "lease_seconds": 600, "durability": "full"}
    with antiphon(tmp_path, **settings) as server:
        for _ in range(10):
            async with connected(server) as socket:
                for lane in ("a", "b", "c"):
                    await socket.create("hang", stream_id=lane)
                socket.connection.transport.abort()
        async with server.http() as http:
            open_ones = [""]
            while open_ones:
                open_ones = (await http.get("/responses", params={"status": "in_progress"})).json()["data"]

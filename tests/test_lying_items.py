"""A Responses server that lies about its items: what is said in our name is what the API description knows, or nothing.

Each answer below is held against the description by `antiphon()`, event by event, when the module is done.
"""

from contextlib import ExitStack

import pytest

from tests.servers.antiphon import antiphon, created, events, replayed
from tests.servers.responses import FALSE_ITEMS, ODD_EVENTS, ResponsesServer
from tests.servers.running import serve
from tests.test_answer import Log, Scripted
from tests.test_responses_backend import completed, read


@pytest.fixture(scope="module")
def server():
    with ExitStack() as stack:
        url = stack.enter_context(serve(ResponsesServer()))
        yield stack.enter_context(antiphon(upstream=f"{url}/v1", upstream_protocol="responses"))


@pytest.fixture
async def http(server):
    async with server.http() as http:
        yield http


def texts(response):
    return [part["text"] for item in response["output"] for part in item.get("content", ())]


async def streamed(http, name):
    """The last event of a lying answer."""
    async with http.stream("POST", "/responses", json={"model": f"lie:{name}", "input": "Hi", "stream": True}) as said:
        return events(await said.aread())[-1]


@pytest.mark.parametrize("name", FALSE_ITEMS)
async def test_an_item_that_is_not_what_its_type_says_fails_the_response(http, name):
    last = await streamed(http, name)
    response = last["response"]

    assert last["type"] == "response.failed"
    assert response["error"]["code"] == "server_error"
    assert response["error"]["message"].startswith("The model's server sent ")
    assert len(response["error"]["message"]) < 400
    assert texts(response)[0] == "So far"
    assert all(item["status"] != "in_progress" for item in response["output"] if "status" in item)
    stored = (await http.get(f"/responses/{response['id']}")).json()
    assert (stored["status"], stored["output"]) == ("failed", response["output"])
    assert events(await replayed(http, response["id"]))[-1] == last


async def test_whoever_waits_for_the_whole_is_told_whose_fault_it_is(http):
    response = await created(http, "lie:no container")

    assert response["status"] == "failed"
    assert "an item that is not valid" in response["error"]["message"]
    assert "container_id" in response["error"]["message"]


@pytest.mark.parametrize("name", ODD_EVENTS)
async def test_what_can_be_left_out_or_put_right_is(http, name):
    last = await streamed(http, name)

    assert last["type"] == "response.completed"
    assert texts(last["response"])[0] == "So far"


async def test_what_a_lie_has_left_behind_can_be_answered(http):
    first = await streamed(http, "annotations of numbers")
    second = await created(http, "text:And on", previous_response_id=first["response"]["id"])

    assert texts(second) == ["And on"]


async def test_a_field_of_a_later_version_goes_through():
    item = {"id": "ws_1", "type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "q"}}
    done = {"type": "response.output_item.done", "output_index": 0, "item": {**item, "mood": ["good"]}}
    log = await Log().answer(Scripted(*read([done, completed()])))

    assert log.response["status"] == "completed"
    assert log.response["output"][0]["mood"] == ["good"]

"""A create that is sent again with its Idempotency-Key is carried out once."""

import asyncio
import itertools

import pytest

from tests.servers.antiphon import antiphon, created, creating

JSON = {"content-type": "application/json"}
KEYS = (f"key-{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def server():
    with antiphon() as server:
        yield server


@pytest.fixture
async def http(server):
    async with server.http(headers={"idempotency-key": next(KEYS)}) as http:
        yield http


async def test_the_same_create_gives_the_same_response(server, http):
    before = len(server.upstream.requests)
    first = await created(http, "text:Once")
    assert await created(http, "text:Once") == first
    assert len(server.upstream.requests) == before + 1


async def test_it_does_not_matter_in_which_order_the_fields_are_sent(http):
    first = await http.post("/responses", content=b'{"model": "text:Hi", "input": "Hi"}', headers=JSON)
    again = await http.post("/responses", content=b'{"input":"Hi","model":"text:Hi"}', headers=JSON)
    assert first.json() == again.json()


async def test_a_stream_that_is_asked_for_again_is_the_same_from_its_beginning(http):
    async with creating(http, "text:Once") as first, creating(http, "text:Once") as again:
        assert await first.rest() == await again.rest()


async def test_a_background_response_is_shown_as_it_stands(server, http):
    first = await created(http, "gate", background=True)
    waiting = await server.upstream.request(len(server.upstream.requests))
    again = await created(http, "gate", background=True)
    assert (first["id"], first["status"], again["status"]) == (again["id"], "queued", "in_progress")
    waiting.release()


async def test_two_at_once_are_one(server, http):
    before = len(server.upstream.requests)
    first, second = await asyncio.gather(created(http, "text:Once"), created(http, "text:Once"))
    assert first == second
    assert len(server.upstream.requests) == before + 1


async def test_another_body_with_the_key_is_a_conflict_that_need_not_be_tried_again(http):
    await created(http, "text:Once")
    answer = await http.post("/responses", json={"model": "text:Twice", "input": "Hi"})
    assert answer.status_code == 409
    assert answer.headers["x-should-retry"] == "false"
    assert answer.json()["error"]["code"] == "idempotency_key_in_use"


async def test_a_model_that_failed_before_it_said_anything_can_be_asked_again(server, http):
    before = len(server.upstream.requests)
    for _ in range(2):
        answer = await http.post("/responses", json={"model": "error:400", "input": "Hi"})
        assert answer.status_code == 400
    assert len(server.upstream.requests) == before + 2


async def test_a_refused_create_does_not_use_the_key_up(http):
    answer = await http.post("/responses", json={"model": "m", "input": "Hi", "previous_response_id": "resp_x"})
    assert answer.status_code == 400
    await created(http, "text:Once")


async def test_a_deleted_response_gives_its_key_free(server, http):
    first = await created(http, "text:Once")
    await http.delete(f"/responses/{first['id']}")
    assert (await created(http, "text:Once"))["id"] != first["id"]


async def test_what_is_not_stored_holds_its_key_while_it_runs(server, http):
    before = len(server.upstream.requests)
    async with creating(http, "gate", store=False) as first:
        waiting = await server.upstream.request(before + 1)
        async with creating(http, "gate", store=False) as again:
            waiting.release()
            assert await again.rest() == await first.rest()
    async with creating(http, "gate", store=False) as later:
        (await server.upstream.request(before + 2)).release()
        await later.rest()
    assert later.response_id != first.response_id


async def test_a_key_belongs_to_its_tenant():
    with antiphon(api_keys={"ada": "sk-ada-1234567890", "bob": "sk-bob-1234567890"}) as server:
        ids = set()
        for key in ("sk-ada-1234567890", "sk-bob-1234567890"):
            async with server.http(headers={"authorization": f"Bearer {key}", "idempotency-key": "same"}) as http:
                ids.add((await created(http, "text:Mine"))["id"])
    assert len(ids) == 2


async def test_a_key_of_any_length_is_refused_beyond_a_limit(http):
    answer = await http.post("/responses", json={"model": "m", "input": "Hi"}, headers={"idempotency-key": "x" * 256})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "Idempotency-Key"


async def test_the_same_create_is_known_though_its_conversation_went_on(http, server):
    """Its own answer is a call, which nobody has answered: as a new create it would be refused."""
    made = await http.post("/conversations", headers={"idempotency-key": ""})
    tool = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}
    turn = {"conversation": made.json()["id"], "tools": [tool]}

    first = await created(http, "call-once:f:{}", **turn)

    assert await created(http, "call-once:f:{}", **turn) == first


async def test_the_same_create_is_known_though_what_it_continued_is_gone(http, server):
    async with server.http() as keyless:
        before = await created(keyless, "text")
        first = await created(http, "text:Once", previous_response_id=before["id"])
        await keyless.delete(f"/responses/{before['id']}")

        assert await created(http, "text:Once", previous_response_id=before["id"]) == first

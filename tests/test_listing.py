"""The list of responses, an extension: all of them or those that fit, each as a GET gives it."""

import pytest

from tests.servers.antiphon import antiphon, created, creating


@pytest.fixture
def server():
    with antiphon() as server:
        yield server


@pytest.fixture
async def http(server):
    async with server.http() as http:
        yield http


async def listed(http, **query):
    answer = await http.get("/responses", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def ids(http, **query):
    return [response["id"] for response in (await listed(http, **query))["data"]]


async def test_no_responses_are_an_empty_page(http):
    page = await listed(http)

    assert page == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


async def test_responses_are_listed_newest_first_as_a_get_gives_them(http):
    made = [await created(http, model) for model in ("text:One", "text:Two", "reasoning")]

    page = await listed(http)

    assert page["data"] == made[::-1]
    assert (page["first_id"], page["last_id"], page["has_more"]) == (made[-1]["id"], made[0]["id"], False)
    assert (await listed(http, order="asc"))["data"] == made


async def test_one_that_runs_is_shown_as_far_as_it_is(http):
    async with creating(http, "gate:2:3") as stream:
        await stream.deltas(2)
        (response,) = (await listed(http))["data"]

    assert response["id"] == stream.response_id
    assert response["status"] == "in_progress"
    assert response["output"][0]["content"][0]["text"]


async def test_what_was_not_asked_for_is_not_shown(http):
    body = {"top_logprobs": 1, "include": ["message.output_text.logprobs"]}
    made = [await created(http, "logprobs", **each) for each in (body, {})]

    shown = (await listed(http, order="asc"))["data"]

    assert shown == made
    assert [bool(each["output"][0]["content"][0]["logprobs"]) for each in shown] == [True, False]


async def test_the_pages_together_are_all_responses_once(http):
    made = [(await created(http, "text"))["id"] for _ in range(5)]

    first = await listed(http, limit=2)
    second = await listed(http, limit=2, after=first["last_id"])
    third = await listed(http, limit=2, after=second["last_id"])

    pages = [first, second, third]
    assert [each["id"] for page in pages for each in page["data"]] == made[::-1]
    assert [page["has_more"] for page in pages] == [True, True, False]


async def test_responses_are_chosen_by_what_they_have(http):
    tides = (await created(http, "text:a", metadata={"topic": "tides", "k": "1"}))["id"]
    moon = (await created(http, "text:b", metadata={"topic": "moon"}))["id"]
    cut = (await created(http, "length"))["id"]

    assert await ids(http, **{"metadata[topic]": "tides"}) == [tides]
    assert await ids(http, **{"metadata[topic]": "tides", "metadata[k]": "2"}) == []
    assert await ids(http, model="text:b") == [moon]
    assert await ids(http, status="incomplete") == [cut]
    assert await ids(http, status="completed") == [moon, tides]
    assert await ids(http, status="completed", **{"metadata[k]": "1"}) == [tides]


async def test_a_deleted_or_unstored_response_is_not_listed(http):
    kept, deleted = [(await created(http, "text"))["id"] for _ in range(2)]
    await created(http, "text", store=False)

    await http.delete(f"/responses/{deleted}")

    assert await ids(http) == [kept]


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 101}, {"order": "up"}, {"status": "done"}])
async def test_a_bad_page_is_refused(http, query):
    answer = await http.get("/responses", params=query)

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == next(iter(query))


async def test_an_unknown_cursor_is_not_found(http):
    answer = await http.get("/responses", params={"after": "resp_nothing"})

    assert answer.status_code == 404
    assert answer.json()["error"]["message"] == "Response with id 'resp_nothing' not found."

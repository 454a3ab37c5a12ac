"""What is left of a response that is cancelled, and what becomes of one whose model's server is out of reach."""

from collections import Counter

import pytest

from tests.servers.antiphon import antiphon, created, creating, events, replayed
from tests.servers.chat import Stream, script

_asked: Counter[str] = Counter()


@pytest.fixture
def server():
    with antiphon(keepalive_seconds=0.05) as server:
        yield server


@script("metered")
async def _metered(stream: Stream, count: str, form: str = "usage") -> None:
    """So many words, each with what it has cost so far, and nothing more."""
    for said in range(1, int(count) + 1):
        choice = {"index": 0, "delta": {"content": f" {said}"}, "finish_reason": None}
        told: dict[str, float] = {"prompt_tokens": 7, "completion_tokens": said, "total_tokens": 7 + said}
        if form == "timings":
            told = {"cache_n": 3, "prompt_n": 4, "predicted_n": said, "prompt_ms": 1.5}
        await stream.event({"choices": [choice], form: told})
    await stream.released()


@script("down")
async def _down(stream: Stream, times: str, name: str) -> None:
    """Not there for so many requests of that name; then it says that it is back."""
    _asked[name] += 1
    if _asked[name] <= int(times):
        await stream.json({"error": {"message": "Starting.", "type": "unavailable", "code": 503}}, status=503)
    else:
        await stream.say("Back again.")
        await stream.end()


@pytest.mark.parametrize(("form", "cached"), [("usage", 0), ("timings", 3)])
async def test_a_cancelled_response_has_the_usage_that_the_models_server_has_told(server, form, cached):
    async with server.http() as http, creating(http, f"metered:1:{form}") as stream:
        await stream.deltas(1)
        cancelled = (await http.post(f"/responses/{stream.response_id}/cancel")).json()

    assert cancelled["status"] == "cancelled"
    assert cancelled["usage"] == {
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": 1,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 8,
    }


async def test_the_usage_of_a_cancelled_response_is_never_a_guess(server):
    async with server.http() as http, creating(http, "hang:2") as stream:
        await stream.deltas(2)
        cancelled = (await http.post(f"/responses/{stream.response_id}/cancel")).json()

    assert cancelled["usage"] is None


async def test_a_background_response_waits_for_a_server_that_is_down(server):
    async with server.http() as http:
        response = await created(http, "down:4:waits", background=True)
        said = events(await replayed(http, response["id"]))

    types = [event["type"] for event in said]
    assert types[:3] == ["response.created", "response.queued", "response.in_progress"]
    assert types.count("response.in_progress") == 1
    assert said[-1]["response"]["status"] == "completed"
    assert said[-1]["response"]["output"][0]["content"][0]["text"] == "Back again."


async def test_nobody_is_kept_waiting_in_the_foreground(server):
    async with server.http() as http:
        answer = await http.post("/responses", json={"model": "down:99:here", "input": "Hi"})

    assert answer.status_code == 503
    assert answer.json()["error"]["message"] == "Starting."


async def test_a_request_that_is_refused_fails_at_once_in_the_background_too(server):
    async with server.http() as http:
        response = await created(http, "error:400", background=True)
        said = events(await replayed(http, response["id"]))

    assert said[-1]["response"]["status"] == "failed"


async def test_a_server_that_is_down_keeps_no_other_response_waiting():
    with antiphon(workers=1) as server:
        async with server.http() as http:
            waiting = [await created(http, f"down:999:{number}", background=True) for number in range(3)]
            for each in range(len(waiting)):
                await server.upstream.request(each + 1)
            other = await created(http, "text:Here I am", background=True)
            said = events(await replayed(http, other["id"]))
            cancelled = [(await http.post(f"/responses/{each['id']}/cancel")).json() for each in waiting]

    assert said[-1]["response"]["status"] == "completed"
    assert [each["status"] for each in cancelled] == ["cancelled"] * 3


async def test_cancel_reaches_a_response_that_waits_for_its_server(server):
    async with server.http() as http, creating(http, "down:999:cancelled", background=True) as stream:
        await stream.until(lambda raw: raw.count(b"\n\n") >= 3)
        await server.upstream.request(3)
        cancelled = (await http.post(f"/responses/{stream.response_id}/cancel")).json()
        await stream.rest()

    assert cancelled["status"] == "cancelled"
    assert stream.events[-1]["response"] == cancelled

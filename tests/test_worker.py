"""Who keeps a response going, and what stops it: callers who go away, cancel, limits. The model's socket tells."""

import asyncio

import httpx2
import pytest

from tests.contracts.model import WEATHER
from tests.servers.antiphon import antiphon, created, creating, events, following, replayed


@pytest.fixture
def server():
    """Nobody waits for a response longer than its caller does, and no renewal comes to help."""
    with antiphon(orphan_grace_seconds=0, lease_seconds=600, lease_renew_seconds=500) as server:
        yield server


@pytest.fixture
def patient():
    """A response goes on for longer than any test when its caller goes away."""
    with antiphon(keepalive_seconds=0.05) as server:
        yield server


@pytest.fixture
def begun(caplog):
    """Tells the id of the response that was begun last: a plain caller learns it only at the end."""
    caplog.set_level("INFO", "antiphon.worker")

    def begun():
        return [record.response_id for record in caplog.records if record.message == "response begun"][-1]

    return begun


def types(said):
    return [event["type"] for event in said]


def waiting(http, model, **body):
    """A plain create, and its caller who waits for the whole."""
    return asyncio.create_task(http.post("/responses", json={"model": model, "input": "Hi", **body}))


async def gone(task):
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def ended(http, response_id):
    """The response as it is when its log is closed."""
    await replayed(http, response_id)
    return (await http.get(f"/responses/{response_id}")).json()


@pytest.mark.parametrize("model", ["hang:2", "silent"])
@pytest.mark.parametrize("stored", [True, False])
async def test_a_plain_caller_who_goes_away_takes_the_model_with_him(server, model, stored):
    async with server.http() as http:
        task = waiting(http, model, store=stored)
        seen = await server.upstream.request()
        await gone(task)

        await seen.closing()


async def test_a_stream_that_is_not_kept_ends_with_its_caller(patient):
    """At once, whatever the grace: there is nothing to come back to."""
    async with patient.http() as http:
        async with creating(http, "hang:2", store=False) as stream:
            await stream.deltas(2)
        await patient.upstream.requests[0].closing()

        assert (await http.get(f"/responses/{stream.response_id}")).status_code == 404


async def test_a_plain_create_that_is_not_kept_ends_with_its_caller(patient):
    async with patient.http() as http:
        task = waiting(http, "hang:2", store=False)
        seen = await patient.upstream.request()
        await gone(task)

        await seen.closing()


async def test_a_stream_whose_caller_went_away_is_cancelled_and_keeps_what_was_said(server):
    async with server.http() as http:
        async with creating(http, "hang:2") as stream:
            await stream.deltas(2)
        await server.upstream.requests[0].closing()
        response = await ended(http, stream.response_id)

    assert response["status"] == "cancelled"
    assert response["output"][0]["content"][0]["text"] == " 0 1"
    assert response["output"][0]["status"] == "incomplete"


async def test_the_grace_is_waited_out_before_a_response_is_cancelled():
    with antiphon(orphan_grace_seconds=0.3) as server:
        async with server.http() as http:
            async with creating(http, "hang:2") as stream:
                await stream.deltas(2)
            assert not server.upstream.requests[0].closed
            await server.upstream.requests[0].closing()
            response = await ended(http, stream.response_id)

    assert response["status"] == "cancelled"


async def test_whoever_comes_back_within_the_grace_keeps_the_response_going():
    """Ten signs of life are more than the grace lasts."""
    with antiphon(orphan_grace_seconds=0.3, keepalive_seconds=0.05) as server:
        async with server.http() as http:
            async with creating(http, "gate:2:2") as stream:
                await stream.deltas(2)
            async with following(http, stream.response_id, starting_after=4) as follower:
                await follower.until(lambda raw: raw.count(b": keep-alive\n\n") >= 10)
                server.upstream.requests[0].release()
                await follower.rest()

    assert follower.events[0]["sequence_number"] == 5
    assert types(follower.events)[-1] == "response.completed"


async def test_a_response_goes_on_for_the_one_follower_who_stays(server):
    async with server.http() as http, creating(http, "gate:2:2") as stream:
        await stream.deltas(2)
        async with following(http, stream.response_id) as follower:
            await follower.deltas(2)
            async with following(http, stream.response_id) as other:
                await other.deltas(2)
            await stream.answer.aclose()
            await other_is_cancelled(server, http)
            server.upstream.requests[0].release()
            await follower.rest()

    assert types(follower.events)[-1] == "response.completed"


async def other_is_cancelled(server, http):
    """A response whose caller goes away is cancelled: by then everything that happened before has been noticed."""
    async with creating(http, "hang:1") as stream:
        await stream.deltas(1)
    await server.upstream.requests[-1].closing()
    assert (await ended(http, stream.response_id))["status"] == "cancelled"


async def test_what_was_left_behind_in_the_foreground_takes_no_room_of_the_background(tmp_path):
    """The next worker takes both at once: it looks again only after half a minute."""
    with antiphon(tmp_path, workers=0) as server:
        async with server.http() as http, creating(http, "hang:1") as stream:
            await stream.deltas(1)
            waiting = await created(http, "text", background=True)
    with antiphon(tmp_path, workers=1, poll_seconds=30, lease_renew_seconds=30, lease_seconds=90) as server:
        models = {(await server.upstream.request(number)).body["model"] for number in (1, 2)}
        async with server.http() as http:
            response = await ended(http, waiting["id"])

    assert models == {"hang:1", "text"}
    assert response["status"] == "completed"


async def test_a_background_response_goes_on_without_its_caller(server):
    async with server.http() as http:
        async with creating(http, "gate:2:2", background=True) as stream:
            await stream.deltas(2)
        await other_is_cancelled(server, http)
        assert not server.upstream.requests[0].closed
        server.upstream.requests[0].release()
        response = await ended(http, stream.response_id)

    assert response["status"] == "completed"


@pytest.mark.parametrize("body", [{"store": False}, {"background": True}, {}])
async def test_a_response_goes_on_beyond_the_grace_as_long_as_its_caller_waits(body):
    """Ten signs of life are more than the grace lasts."""
    with antiphon(orphan_grace_seconds=0.2, keepalive_seconds=0.05) as server:
        async with server.http() as http, creating(http, "gate:2:2", **body) as stream:
            await stream.until(lambda raw: raw.count(b": keep-alive\n\n") >= 10)
            server.upstream.requests[0].release()
            await stream.rest()

    assert types(stream.events)[-1] == "response.completed"


@pytest.mark.parametrize("background", [False, True])
async def test_cancel_stops_the_model_and_keeps_what_was_said(patient, background):
    async with patient.http() as http:
        async with creating(http, "hang:3", background=background) as stream:
            await stream.deltas(3)
            async with following(http, stream.response_id, starting_after=2) as follower:
                answer = await http.post(f"/responses/{stream.response_id}/cancel")
                await patient.upstream.requests[0].closing()
                await follower.rest()
            await stream.rest()
        kept = await http.get(f"/responses/{stream.response_id}")
        again = await http.post(f"/responses/{stream.response_id}/cancel")

    cancelled = answer.json()
    assert answer.status_code == 200
    assert cancelled["status"] == "cancelled"
    assert (cancelled["error"], cancelled["incomplete_details"], cancelled["completed_at"]) == (None, None, None)
    assert cancelled["output"][0]["content"][0]["text"] == " 0 1 2"
    assert types(stream.events)[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    assert stream.events[-1]["response"] == kept.json() == cancelled
    assert follower.events[-1] == stream.events[-1]
    assert (again.status_code, again.content) == (200, kept.content)


async def test_cancel_answers_the_one_who_waits_for_the_whole(patient, begun):
    async with patient.http() as http:
        task = waiting(http, "hang:2")
        seen = await patient.upstream.request()
        cancelled = await http.post(f"/responses/{begun()}/cancel")
        await seen.closing()
        waited = await task

    assert waited.status_code == 200
    assert waited.json() == cancelled.json()
    assert waited.json()["status"] == "cancelled"


async def test_cancel_before_a_worker_has_begun(patient):
    with antiphon(workers=0) as server:
        async with server.http() as http:
            response = await created(http, "text", background=True)
            cancelled = (await http.post(f"/responses/{response['id']}/cancel")).json()
            said = events(await replayed(http, response["id"]))

    assert cancelled == {**response, "status": "cancelled"}
    assert types(said) == ["response.created", "response.queued", "response.incomplete"]
    assert server.upstream.requests == []


async def test_two_cancels_at_once_are_one(patient):
    async with patient.http() as http, creating(http, "hang:2") as stream:
        await stream.deltas(2)
        cancels = [http.post(f"/responses/{stream.response_id}/cancel") for _ in range(5)]
        answers = await asyncio.gather(*cancels)
        await stream.rest()

    assert [answer.status_code for answer in answers] == [200] * 5
    assert len({answer.content for answer in answers}) == 1
    assert types(stream.events).count("response.incomplete") == 1


async def test_of_many_cancels_at_once_each_gets_the_cancelled_response(patient):
    async with patient.http() as http:
        for _ in range(10):
            begun = await created(http, "hang:2", background=True)
            cancels = [http.post(f"/responses/{begun['id']}/cancel") for _ in range(6)]
            answers = await asyncio.gather(*cancels)

            assert [answer.status_code for answer in answers] == [200] * 6
            assert len({answer.content for answer in answers}) == 1


async def test_cancelling_what_has_ended(patient):
    async with patient.http() as http:
        background = await created(http, "text", background=True)
        whole = await ended(http, background["id"])
        plain = await created(http, "text")
        answers = [await http.post(f"/responses/{each['id']}/cancel") for each in (background, plain)]

    assert (answers[0].status_code, answers[0].json()) == (200, whole)
    assert whole["status"] == "completed"
    assert answers[1].status_code == 400
    assert answers[1].json()["error"]["message"] == "Cannot cancel a synchronous response."


async def test_a_cancelled_call_is_not_to_be_carried_out(patient):
    async with patient.http() as http, creating(http, "call-then-hang", tools=[WEATHER]) as stream:
        await stream.deltas(2)
        cancelled = (await http.post(f"/responses/{stream.response_id}/cancel")).json()
        await stream.rest()

    assert [(item["type"], item["status"]) for item in cancelled["output"]] == [
        ("function_call", "completed"),
        ("function_call", "incomplete"),
    ]


async def test_a_cancelled_response_can_be_continued(patient):
    async with patient.http() as http:
        async with creating(http, "hang:2") as stream:
            await stream.deltas(2)
            await http.post(f"/responses/{stream.response_id}/cancel")
        response = await created(http, "echo", input="Go on", previous_response_id=stream.response_id)

    assert response["status"] == "completed"
    contents = [message["content"] for message in patient.upstream.requests[-1].body["messages"]]
    assert contents == ["Hi", " 0 1", "Go on"]


async def test_who_waits_for_what_is_deleted_is_told_that_it_is_gone(patient, begun):
    async with patient.http() as http:
        task = waiting(http, "hang:2")
        seen = await patient.upstream.request()
        await http.delete(f"/responses/{begun()}")
        await seen.closing()
        waited = await task

    assert waited.status_code == 404


async def test_a_plain_response_can_be_followed_when_its_caller_has_gone(patient, begun):
    async with patient.http() as http:
        task = waiting(http, "gate:2:2")
        seen = await patient.upstream.request()
        await gone(task)
        async with following(http, begun()) as follower:
            await follower.deltas(2)
            seen.release()
            await follower.rest()

    assert types(follower.events)[-1] == "response.completed"


async def test_no_more_foreground_responses_than_the_limit_are_begun():
    with antiphon(foreground_limit=1, orphan_grace_seconds=0) as server:
        async with server.http() as http:
            async with creating(http, "gate:1:1") as stream:
                await stream.deltas(1)
                refused = [
                    await http.post("/responses", json={"model": "text", "input": "Hi", **body})
                    for body in ({}, {"stream": True}, {"store": False})
                ]
                background = await created(http, "text", background=True)
                whole = await ended(http, background["id"])
                server.upstream.requests[0].release()
                await stream.rest()
            taken = await created(http, "text")

    for answer in refused:
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["error"]["code"] == "rate_limit_exceeded"
    assert whole["status"] == taken["status"] == "completed"


async def test_the_limit_holds_for_creates_that_come_at_once():
    with antiphon(foreground_limit=2, orphan_grace_seconds=0) as server:
        async with server.http() as http:
            tasks = [waiting(http, "gate:1:1") for _ in range(20)]
            await server.upstream.request(2)
            ended = asyncio.as_completed(tasks)
            refused = [await next(ended) for _ in range(18)]
            for seen in server.upstream.requests:
                seen.release()
            answers = await asyncio.gather(*tasks)

    assert {answer.status_code for answer in refused} == {429}
    assert sum(answer.status_code == 200 for answer in answers) == len(server.upstream.requests) == 2


async def test_background_responses_wait_for_a_free_worker():
    with antiphon(workers=1) as server:
        async with server.http() as http:
            async with creating(http, "gate:1:1", background=True) as first:
                await first.deltas(1)
                second = await created(http, "text", background=True)
                waiting = (await http.get(f"/responses/{second['id']}")).json()
                server.upstream.requests[0].release()
                await first.rest()
            whole = await ended(http, second["id"])

    assert waiting["status"] == "queued"
    assert whole["status"] == "completed"
    assert [seen.body["model"] for seen in server.upstream.requests] == ["gate:1:1", "text"]


async def test_a_caller_who_goes_away_before_his_body_is_whole_leaves_nothing(patient):
    async def body():
        yield b'{"model": "text", '
        raise httpx2.ReadError("the caller has gone")

    async with patient.http() as http:
        with pytest.raises(httpx2.ReadError):
            await http.post("/responses", content=body(), headers={"content-type": "application/json"})
        await created(http, "text:still here")

    assert len(patient.upstream.requests) == 1


async def test_many_who_come_and_go_leave_no_response_running(server):
    async with server.http() as http:
        for number in range(10):
            async with creating(http, "hang:1", store=bool(number % 2)) as stream:
                await stream.deltas(1)
        for number in range(10):
            await (await server.upstream.request(number + 1)).closing()

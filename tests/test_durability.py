"""A server process is killed, and another one takes its place: what anybody had seen is there, and what ran goes on."""

import openai
import pytest

from tests.contracts.model import WEATHER
from tests.servers.antiphon import Process, created, creating, events, following, replayed
from tests.servers.chat import ChatServer
from tests.servers.running import serve

QUICK = ("--poll-seconds", "0.05", "--lease-renew-seconds", "0.05")


@pytest.fixture
def upstream():
    """The model server outlives every process that asks it."""
    return ChatServer()


@pytest.fixture
def start(upstream, tmp_path):
    """Starts a server on the one database that there is."""
    processes = []
    with serve(upstream) as url:

        def start(*flags):
            processes.append(Process(url, tmp_path, *QUICK, *flags))
            return processes[-1]

        yield start
        for process in processes:
            process.close()


def types(said):
    return [event["type"] for event in said]


def check_whole(said):
    """One log from its beginning to its end: no hole, no second beginning, no index twice."""
    assert [event["sequence_number"] for event in said] == list(range(len(said)))
    assert types(said).count("response.created") == 1
    assert sum(each in types(said) for each in ("response.completed", "response.incomplete", "response.failed")) == 1
    added = [event["output_index"] for event in said if event["type"] == "response.output_item.added"]
    assert added == list(range(len(added)))


def text_of(response):
    return "".join(part["text"] for item in response["output"] for part in item.get("content", ()))


async def helped(url, response_id):
    """What the official SDK's stream helper makes of a log."""
    sdk = openai.AsyncOpenAI(base_url=url, api_key="x")
    async with sdk, sdk.responses.stream(response_id=response_id) as stream:
        return await stream.get_final_response()


async def test_all_that_was_seen_is_there_after_the_process_was_killed(start):
    first = start()
    async with first.http() as http, creating(http, "paced:5000:2ms", background=True) as stream:
        await stream.deltas(20)
        first.kill()
        seen = stream.raw[: stream.raw.rindex(b"\n\n") + 2]

    second = start()
    async with second.http() as http:
        await http.post(f"/responses/{stream.response_id}/cancel")
        whole = await replayed(http, stream.response_id)

    assert whole.startswith(seen)
    check_whole(events(whole))


async def test_a_running_background_response_is_taken_up_and_brought_to_its_end(start, upstream):
    first = start()
    async with first.http() as http, creating(http, "gate:3:2", background=True) as stream:
        await stream.deltas(3)
        first.kill()

    second = start()
    async with second.http() as http:
        async with following(http, stream.response_id, starting_after=6) as follower:
            (await upstream.request(2)).release()
            rest = await follower.rest()
        whole = await replayed(http, stream.response_id)
        response = (await http.get(f"/responses/{stream.response_id}")).json()
    final = await helped(second.url, stream.response_id)

    assert whole.endswith(rest)
    assert whole.startswith(stream.raw[: stream.raw.rindex(b"\n\n") + 2])
    check_whole(events(whole))
    assert response["status"] == "completed"
    assert text_of(response) == final.output_text == " 0 1 2 and and"
    assert events(whole)[-1]["response"] == response


async def test_a_queued_response_survives(start, upstream):
    first = start("--workers", "0")
    async with first.http() as http:
        response = await created(http, "text:At last", background=True)
    first.kill()

    second = start()
    async with second.http() as http:
        said = events(await replayed(http, response["id"]))

    check_whole(said)
    assert text_of(said[-1]["response"]) == "At last"
    assert types(said)[:3] == ["response.created", "response.queued", "response.in_progress"]
    assert len(upstream.requests) == 1


async def test_turns_of_a_conversation_wait_for_each_other_over_a_restart(start, upstream):
    first = start()
    async with first.http() as http:
        conversation = (await http.post("/conversations")).json()["id"]
        async with creating(http, "gate:2:1", conversation=conversation) as stream:
            await stream.deltas(2)
            waiting = await created(http, "text:Two", conversation=conversation, background=True)
            first.kill()

    second = start()
    async with second.http() as http:
        async with following(http, stream.response_id, starting_after=5) as follower:
            (await upstream.request(2)).release()
            await follower.rest()
        said = events(await replayed(http, waiting["id"]))
        items = (await http.get(f"/conversations/{conversation}/items", params={"order": "asc"})).json()["data"]

    check_whole(said)
    assert types(said)[:3] == ["response.created", "response.queued", "response.in_progress"]
    assert [item["content"][0]["text"] for item in items] == ["Hi", " 0 1 and", "Hi", "Two"]
    assert len(upstream.requests) == 3


async def test_finished_responses_are_the_same_bytes_afterwards(start):
    first = start()
    streams, answers = [], []
    async with first.http() as http:
        for model in ("text:Hello there", "reasoning", "break:2"):
            async with creating(http, model) as stream:
                await stream.rest()
            streams.append(stream)
            answers.append((await http.get(f"/responses/{stream.response_id}")).content)
        first.kill()  # as soon as the last end was seen

    second = start()
    async with second.http() as http:
        for stream, answer in zip(streams, answers, strict=True):
            assert await replayed(http, stream.response_id) == stream.raw
            assert (await http.get(f"/responses/{stream.response_id}")).content == answer
        messages = await created(http, "echo", input="And?", previous_response_id=streams[0].response_id)

    assert '"Hello there"' in text_of(messages)


async def test_a_foreground_stream_can_be_resumed_from_the_next_process(start, upstream):
    first = start()
    async with first.http() as http, creating(http, "gate:2:2") as stream:
        await stream.deltas(2)
        first.kill()

    second = start()
    async with second.http() as http:
        async with following(http, stream.response_id, starting_after=5) as follower:
            (await upstream.request(2)).release()
            await follower.rest()
        whole = events(await replayed(http, stream.response_id))

    check_whole(whole)
    assert follower.events == whole[6:]
    assert text_of(whole[-1]["response"]) == " 0 1 and and"


async def test_a_foreground_response_that_nobody_resumes_is_cancelled(start, upstream):
    first = start()
    async with first.http() as http, creating(http, "hang:2") as stream:
        await stream.deltas(2)
        first.kill()

    second = start("--orphan-grace-seconds", "0.2")
    await (await upstream.request(2)).closing()
    async with second.http() as http:
        said = events(await replayed(http, stream.response_id))

    check_whole(said)
    assert said[-1]["response"]["status"] == "cancelled"


async def test_what_was_left_behind_is_taken_up_also_by_a_server_that_takes_no_background_work(start, upstream):
    first = start()
    async with first.http() as http, creating(http, "hang:2") as stream:
        await stream.deltas(2)
        first.kill()

    second = start("--orphan-grace-seconds", "0.2", "--workers", "0")
    await (await upstream.request(2)).closing()
    async with second.http() as http:
        said = events(await replayed(http, stream.response_id))

    check_whole(said)


async def test_what_is_not_stored_is_nowhere_afterwards(start, upstream, tmp_path):
    first = start()
    async with first.http() as http, creating(http, "hang:2", input="a secret of mine", store=False) as stream:
        await stream.deltas(2)
        first.kill()
    await upstream.requests[0].closing()

    second = start()
    async with second.http() as http:
        assert (await http.get(f"/responses/{stream.response_id}")).status_code == 404
        await created(http, "text")
    assert len(upstream.requests) == 2
    assert not any(b"a secret of mine" in path.read_bytes() for path in tmp_path.iterdir())


async def test_a_finished_call_is_never_made_a_second_time(start, upstream):
    first = start()
    body = {"tools": [WEATHER], "background": True}
    async with first.http() as http, creating(http, "call-then-hang", **body) as stream:
        await stream.until(lambda raw: raw.count(b"event: response.output_item.added\n") == 2 and raw.endswith(b"\n\n"))
        first.kill()

    second = start()
    async with second.http() as http:
        said = events(await replayed(http, stream.response_id))
    final = await helped(second.url, stream.response_id)

    check_whole(said)
    (call,) = said[-1]["response"]["output"]
    assert (call["call_id"], call["arguments"], call["status"]) == ("call_0", '{"city":"Paris"}', "completed")
    assert [item.call_id for item in final.output] == ["call_0"]
    assert len(upstream.requests) == 1


async def test_a_response_that_takes_its_workers_with_it_fails_in_the_end(start):
    flags = ("--max-attempts", "2")
    first = start(*flags)
    async with first.http() as http, creating(http, "hang:2", background=True) as stream:
        await stream.deltas(2)
        first.kill()
    second = start(*flags)
    async with second.http() as http, following(http, stream.response_id) as follower:
        await follower.deltas(4)
        second.kill()

    third = start(*flags)
    async with third.http() as http:
        said = events(await replayed(http, stream.response_id))

    check_whole(said)
    assert types(said)[-2:] == ["error", "response.failed"]
    assert said[-1]["response"]["error"]["code"] == "server_error"
    assert text_of(said[-1]["response"]) == " 0 1"
    assert said[-1]["response"]["output"][0]["status"] == "incomplete"


async def test_a_server_that_is_asked_to_stop_hands_its_work_to_the_next_one(start, upstream):
    """It counts as no failed attempt: of those there may be only one here."""
    flags = ("--max-attempts", "1", "--stop-seconds", "3")
    first = start(*flags)
    async with first.http() as http, creating(http, "gate:2:2", background=True) as stream:
        await stream.deltas(2)
        first.stop()
        assert first.stopped(seconds=10) == 0
    await upstream.requests[0].closing()

    second = start(*flags)
    async with second.http() as http:
        async with following(http, stream.response_id, starting_after=5) as follower:
            (await upstream.request(2)).release()
            await follower.rest()
        whole = events(await replayed(http, stream.response_id))

    check_whole(whole)
    assert types(whole)[-1] == "response.completed"
    assert text_of(whole[-1]["response"]) == " 0 1 and and"


async def test_a_server_that_is_asked_to_stop_lets_what_can_end_end(start, upstream):
    first = start()
    async with first.http() as http, creating(http, "gate:2:2") as stream:
        await stream.deltas(2)
        first.stop()
        upstream.requests[0].release()
        await stream.rest()
    assert first.stopped(seconds=10) == 0

    assert types(stream.events)[-1] == "response.completed"

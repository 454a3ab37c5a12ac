"""A log is read again byte for byte: from any event, by any number of readers, while it is written and ever after."""

import asyncio
import json

import pytest

from tests.servers.antiphon import antiphon, created, creating, events, following, replayed

LAST = 10  # the number of the last event of `text:Hello there, you`


@pytest.fixture(scope="module")
def server():
    with antiphon() as server:
        yield server


@pytest.fixture
async def http(server):
    async with server.http() as http:
        yield http


def frames(raw):
    """The frames of a stream; comments between them are nobody's event."""
    return [frame + b"\n\n" for frame in raw.split(b"\n\n")[:-1] if not frame.startswith(b":")]


def without_padding(raw):
    """The same stream as a caller has it who wants no padding, made by other means than the server's."""
    said = []
    for event in events(raw):
        event.pop("obfuscation", None)
        data = json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()
        said.append(b"event: " + event["type"].encode() + b"\ndata: " + data + b"\n\n")
    return b"".join(said)


@pytest.mark.parametrize(
    "model", ["text:Hello there, you", "drip:Ünder way — 汉字 🌊", "tools", "reasoning", "break:3"]
)
@pytest.mark.parametrize("background", [False, True])
async def test_a_replay_is_the_live_stream_byte_for_byte(http, model, background):
    tools = [{"type": "function", "name": "f", "parameters": {}, "strict": False}]
    async with creating(http, model, background=background, tools=tools) as stream:
        live = await stream.rest()

    assert await replayed(http, stream.response_id) == live
    assert await replayed(http, stream.response_id) == live


@pytest.mark.parametrize("seen", range(-3, LAST + 4))
async def test_a_replay_from_any_event_is_exactly_the_rest(http, seen):
    async with creating(http, "text:Hello there, you") as stream:
        live = frames(await stream.rest())

    rest = await replayed(http, stream.response_id, starting_after=seen)
    assert len(live) == LAST + 1
    assert frames(rest) == live[max(0, seen + 1) :]


@pytest.mark.parametrize("seen", range(-1, LAST + 2))
async def test_a_replay_without_padding_is_the_rest_without_padding(http, seen):
    async with creating(http, "text:Hello there, you") as stream:
        live = await stream.rest()

    bare = await replayed(http, stream.response_id, starting_after=seen, include_obfuscation="false")
    assert bare == b"".join(frames(without_padding(live))[max(0, seen + 1) :])


async def test_padding_can_be_declined_when_the_response_is_created(http):
    options = {"include_obfuscation": False}
    async with creating(http, "text:Hello there, you", stream_options=options) as stream:
        bare = await stream.rest()

    assert b"obfuscation" not in bare
    padded = await replayed(http, stream.response_id)
    assert without_padding(padded) == bare


async def test_padding_hides_the_length_of_each_delta(http):
    async with creating(http, "text:a bb ccc dddd 汉字汉字 ☃ eeeeeeeeeeeeeee ffffffffffffffffffff") as stream:
        await stream.rest()

    deltas = [event for event in stream.events if event["type"].endswith(".delta")]
    assert len(deltas) == 8
    for delta in deltas:
        assert len(delta["obfuscation"]) < 16
        assert (len(delta["delta"]) + len(delta["obfuscation"])) % 16 == 0


async def test_what_a_user_wrote_is_never_taken_for_padding(http):
    text = 'x","sequence_number":5,"obfuscation":"abc"}'
    async with creating(http, f"text:{text}") as stream:
        live = await stream.rest()

    bare = await replayed(http, stream.response_id, include_obfuscation="false")
    assert [event.get("delta") for event in events(bare)] == [event.get("delta") for event in events(live)]


async def test_the_terminal_snapshot_is_what_get_gives(http):
    for model in ("text:Hello", "break:2", "length", "error:500"):
        async with creating(http, model) as stream:
            await stream.rest()
        kept = await http.get(f"/responses/{stream.response_id}")

        assert stream.events[-1]["response"] == kept.json()


async def test_the_fold_of_the_events_is_what_get_gives(http):
    async with creating(http, "text:Hello there, you") as stream:
        await stream.rest()

    said = "".join(event["delta"] for event in stream.events if event["type"] == "response.output_text.delta")
    kept = (await http.get(f"/responses/{stream.response_id}")).json()
    assert kept["output"][0]["content"][0]["text"] == said == "Hello there, you"


async def test_followers_who_join_at_any_point_all_get_the_same(http, server):
    """Twenty of them: the log grows by one event each time another one joins, from its first event or behind it."""
    async with creating(http, "steps:20") as stream:
        await stream.deltas(1)
        seen = server.upstream.requests[-1]
        followers = []
        for number in range(20):
            after = number if number % 2 else -1
            followers.append((after, asyncio.create_task(replayed(http, stream.response_id, starting_after=after))))
            seen.release()
            await stream.deltas(number + 2)
        live = frames(await stream.rest())

    assert len(live) == 4 + 21 + 4
    for after, follower in followers:
        assert frames(await follower) == live[after + 1 :]


@pytest.mark.parametrize("seen", [-1, 0, 3, 5, 6])
@pytest.mark.parametrize("padded", ["true", "false"])
async def test_a_resumed_stream_goes_on_into_what_is_still_said(http, server, seen, padded):
    async with creating(http, "gate:3:2") as stream:
        await stream.deltas(3)
        async with following(http, stream.response_id, starting_after=seen, include_obfuscation=padded) as follower:
            if seen < 6:
                await follower.until(lambda raw: b'"sequence_number":6' in raw and raw.endswith(b"\n\n"))
            server.upstream.requests[-1].release()
            rest = await follower.rest()
        live = await stream.rest()

    expected = live if padded == "true" else without_padding(live)
    assert frames(rest) == frames(expected)[seen + 1 :]


async def test_a_follower_may_be_ahead_of_the_log(http, server):
    """Who has seen more than there is yet, by whatever mistake, gets what comes behind that."""
    async with creating(http, "gate:2:4") as stream:
        await stream.deltas(2)
        async with following(http, stream.response_id, starting_after=8) as follower:
            server.upstream.requests[-1].release()
            rest = await follower.rest()
        live = await stream.rest()

    assert frames(rest) == frames(live)[9:]


async def test_starting_after_without_stream_means_nothing(http):
    response = await created(http, "text")
    answer = await http.get(f"/responses/{response['id']}", params={"starting_after": 3})

    assert answer.json() == response


async def test_a_reader_that_falls_behind_still_gets_everything(http):
    """It takes nothing until the log is long closed, and the log is much larger than the tail and every buffer."""
    with antiphon(tail_bytes=0) as server:
        async with server.http() as http, creating(http, "burst:30000") as slow:
            await slow.deltas(1)
            first = slow.events[0]["response"]["id"]
            whole = await replayed(http, first)
            assert len(slow.raw) < len(whole) / 2
            await created(http, "text")  # takes the tail from it
            await slow.rest()

    assert slow.raw == whole
    assert whole.count(b"\n\n") == 4 + 30_000 + 4


async def test_a_log_that_this_process_never_wrote_reads_the_same(tmp_path):
    with antiphon(tmp_path) as server:
        async with server.http() as http, creating(http, "text:Hello there, you") as stream:
            live = await stream.rest()
            before = (await http.get(f"/responses/{stream.response_id}")).content
    with antiphon(tmp_path) as server:
        async with server.http() as http:
            rests = [await replayed(http, stream.response_id, starting_after=seen) for seen in range(-1, LAST + 2)]
            after = (await http.get(f"/responses/{stream.response_id}")).content

    assert [frames(rest) for rest in rests] == [frames(live)[seen + 1 :] for seen in range(-1, LAST + 2)]
    assert after == before


async def test_a_silent_stream_shows_that_it_lives():
    with antiphon(keepalive_seconds=0.1) as server:
        async with server.http() as http, creating(http, "gate:1:1") as stream:
            await stream.until(lambda raw: raw.count(b": keep-alive\n\n") == 3)
            server.upstream.requests[-1].release()
            live = await stream.rest()
            whole = await replayed(http, stream.response_id)

    assert b"".join(frames(live)) == whole
    assert b"keep-alive" not in whole


async def test_a_stream_that_waits_for_its_model_shows_that_it_lives():
    with antiphon(keepalive_seconds=0.1) as server:
        async with server.http() as http, creating(http, "silent") as stream:
            await stream.until(lambda raw: raw.count(b": keep-alive\n\n") == 2)
            cancelled = await http.post(f"/responses/{stream.response_id}/cancel")
            await stream.rest()

    assert cancelled.json()["status"] == "cancelled"
    assert [event["type"] for event in stream.events] == [
        "response.created",
        "response.in_progress",
        "response.incomplete",
    ]


async def test_the_stream_is_not_to_be_kept_or_held_back_on_its_way(http):
    async with creating(http, "text") as stream:
        await stream.rest()

    assert stream.answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert stream.answer.headers["cache-control"] == "no-cache"
    assert stream.answer.headers["x-accel-buffering"] == "no"

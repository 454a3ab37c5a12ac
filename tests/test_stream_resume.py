"""A stream whose connection breaks goes on behind the last event: without a gap, without a repeat, and not for ever."""

import asyncio
import gc
import json
from typing import Any

import pytest

from antiphon import AsyncClient, Client
from antiphon.client.call import Close, Event, Opened, Patience, Read, Reply, Request, Wait, call
from antiphon.client.follow import Following, LogAddress
from antiphon.client.stream import Stream
from antiphon.errors import (
    ApiError,
    BadRequest,
    ConnectionFailed,
    Gap,
    NotFound,
    ProtocolError,
    RateLimited,
    ServerError,
    StreamBroken,
    Unavailable,
)
from antiphon.protocol.sse import encode
from tests.servers.api import LOG, RESPONSE, RESPONSE_ID, ApiServer, Door, error, once_left, play, reply, say
from tests.servers.running import serve

MESSAGES = [{"role": "user", "content": "hello"}]
HELLO: dict[str, Any] = {"model": "m", "input": "Say one fact about tides."}


@pytest.fixture(scope="module")
def door():
    door = Door()
    with serve(door) as url:
        yield door, url


@pytest.fixture
def server():
    return ApiServer()


@pytest.fixture(params=["over a socket", "into the app"])
def place(request, server, door):
    """Where a client finds the server: its arguments."""
    if request.param == "into the app":
        return {"app": server}
    door[0].server = server
    return {"base_url": f"{door[1]}/v1"}


@pytest.fixture
async def async_client(place):
    async with AsyncClient(**place) as client:
        yield client


@pytest.fixture(params=["sync", "async"])
async def client(request, place):
    """Each kind of client of the same server."""
    if request.param == "sync":
        with Client(**place) as blocking:
            yield blocking
    else:
        async with AsyncClient(**place) as client:
            yield client


async def heard(client, operation="createResponse", **arguments):
    """The events of a stream, and the stream."""
    arguments = arguments or HELLO

    def listen():
        with client.call(operation, **arguments, stream=True) as stream:
            return list(stream), stream

    if isinstance(client, Client):
        return await asyncio.to_thread(listen)
    async with client.call(operation, **arguments, stream=True) as stream:
        return [event async for event in stream], stream


async def opened(client, operation, **arguments):
    if isinstance(client, Client):
        return await asyncio.to_thread(client.call, operation, **arguments, stream=True)
    return await client.call(operation, **arguments, stream=True)


async def following(stream):
    """The next event."""
    return await (asyncio.to_thread(next, stream) if isinstance(stream, Stream) else anext(stream))


# Over real connections.


@pytest.mark.parametrize("then", ["drop", "end"])
@pytest.mark.parametrize("cut", range(1, 12))
async def test_a_stream_cut_anywhere_is_whole(client, server, cut, then):
    server.plan.append(play(cut, then=then))

    events, stream = await heard(client)

    assert events == LOG
    assert stream.response == RESPONSE
    assert [(each.method, dict(each.query).get("starting_after")) for each in server.requests] == [
        ("POST", None),
        ("GET", str(cut - 1)),
    ]


async def test_a_stream_cut_after_every_event_is_whole(client, server):
    server.plan.extend(play(1, then="drop") for _ in range(11))

    events, stream = await heard(client)

    assert events == LOG
    assert stream.response == RESPONSE
    assert len(server.requests) == 12


@pytest.mark.parametrize("cut", [1, 6])
async def test_a_stalled_stream_is_closed_and_then_resumed(client, server, cut):
    server.plan.extend([play(cut, then="hang"), once_left(server, play(), request=0)])
    client.stall_seconds = 0.1

    events, _ = await heard(client)

    assert events == LOG


@pytest.mark.parametrize("pieces", [1, 2, 7, 64, 100_000])
async def test_the_bytes_may_come_in_any_pieces(client, server, pieces):
    server.plan.append(play(pieces=pieces))

    events, stream = await heard(client)

    assert events == LOG
    assert stream.response == RESPONSE


async def test_a_resume_asks_for_what_the_create_asked_for(client, server):
    server.plan.append(play(2, then="drop"))

    await heard(
        client,
        **HELLO,
        include=["reasoning.encrypted_content", "message.output_text.logprobs"],
        stream_options={"include_obfuscation": False},
    )

    assert server.requests[1].path == f"/v1/responses/{RESPONSE_ID}"
    assert server.requests[1].query == [
        ("include[]", "reasoning.encrypted_content"),
        ("include[]", "message.output_text.logprobs"),
        ("include_obfuscation", "false"),
        ("stream", "true"),
        ("starting_after", "1"),
    ]


async def test_a_resume_goes_where_the_stream_was_begun_and_as_whom(client, server):
    server.plan.append(play(2, then="drop"))
    first = client.with_options(api_key="sk-one")
    stream = await opened(first, "createResponse", **HELLO)
    first.with_options(api_key="sk-two", base_url="http://127.0.0.1:9/v2")

    assert [await following(stream) for _ in LOG] == LOG
    assert [each.headers["authorization"] for each in server.requests] == ["Bearer sk-one"] * 2


async def test_a_resume_of_a_retrieval_asks_for_the_same(client, server):
    server.plan.append(play(2, then="drop"))

    events, _ = await heard(
        client,
        "getResponse",
        response_id=RESPONSE_ID,
        include=["reasoning.encrypted_content"],
        include_obfuscation=True,
        starting_after=4,
    )

    assert events == LOG[5:]
    assert server.requests[1].query == [
        ("include[]", "reasoning.encrypted_content"),
        ("include_obfuscation", "true"),
        ("stream", "true"),
        ("starting_after", "6"),
    ]


@pytest.mark.parametrize("seen", range(-1, 12))
async def test_a_stream_begun_anywhere_gives_exactly_the_rest(client, seen):
    events, stream = await heard(client, "getResponse", response_id=RESPONSE_ID, starting_after=seen)

    assert events == LOG[seen + 1 :]
    assert stream.response == RESPONSE


async def test_a_server_that_sends_old_events_again_is_not_heard_twice(client, server):
    async def from_the_beginning(exchange):
        exchange.query = []
        await play()(exchange)

    server.plan.extend([play(5, then="drop"), from_the_beginning])

    events, stream = await heard(client)

    assert events == LOG
    assert stream.response == RESPONSE


async def test_a_gap_is_asked_for_again(client, server):
    server.plan.append(play(log=LOG[:4] + LOG[6:]))

    events, _ = await heard(client)

    assert events == LOG
    assert server.requests[1].after == 3


async def test_a_resume_that_is_refused_ends_the_stream_and_says_why(client, server):
    server.plan.extend([play(3, then="drop"), error(404, "Response not found.")])

    with pytest.raises(StreamBroken, match="after event 2 and the server does not stream it again") as caught:
        await heard(client)

    assert caught.value.response_id == RESPONSE_ID
    assert caught.value.sequence_number == 2
    assert isinstance(caught.value.__cause__, NotFound)


@pytest.mark.parametrize("cut", [0, 3])
async def test_what_is_deleted_while_it_is_followed_is_not_found(client, server, cut):
    """The server has shown it before, so there is nothing to resume any more."""
    server.plan.extend([play(cut, then="end"), error(404, "Response not found.")])

    with pytest.raises(NotFound, match="Response not found"):
        await heard(client, "getResponse", response_id=RESPONSE_ID)


async def test_a_resume_waits_for_a_server_that_is_coming_back(client, server):
    server.plan.extend([play(3, then="drop"), error(503, headers={"retry-after-ms": "1"}), play()])

    events, _ = await heard(client)

    assert events == LOG


async def test_a_create_lost_before_its_first_event_is_not_sent_again(client, server):
    server.plan.append(play(0, then="drop"))

    with pytest.raises(StreamBroken, match="is sent again only with an idempotency_key") as caught:
        await heard(client)

    assert caught.value.response_id is None
    assert caught.value.sequence_number == -1
    assert len(server.requests) == 1


async def test_a_create_under_an_idempotency_key_is_sent_again(client, server):
    server.plan.append(play(0, then="drop"))

    events, _ = await heard(client, **HELLO, idempotency_key="once")

    assert events == LOG
    assert [each.headers["idempotency-key"] for each in server.requests] == ["once", "once"]
    assert server.requests[0].body == server.requests[1].body


async def test_a_resume_does_not_carry_the_idempotency_key(client, server):
    server.plan.append(play(1, then="drop"))

    await heard(client, **HELLO, idempotency_key="once")

    assert "idempotency-key" not in server.requests[1].headers


async def test_a_retrieval_lost_before_its_first_event_is_asked_for_again(client, server):
    server.plan.append(play(0, then="drop"))

    events, _ = await heard(client, "getResponse", response_id=RESPONSE_ID)

    assert events == LOG


async def test_other_event_streams_give_their_data_as_it_comes(client, server):
    server.plan.append(say(b'data: {"n": 1}\n\ndata: {"n": 2}\n\ndata: [DONE]\n\ndata: {"n": 3}\n\n'))

    events, stream = await heard(client, "createChatCompletion", model="m", messages=MESSAGES)

    assert events == [{"n": 1}, {"n": 2}]
    assert stream.response is None


@pytest.mark.parametrize(
    ("told", "kind", "status", "message"),
    [
        (b'data: {"error": {"message": "It broke.", "type": "x", "code": null}}', ServerError, 500, "It broke."),
        (b'data: {"error": {"message": "Too many.", "code": 429}}', RateLimited, 429, "Too many."),
        (b'data: {"error": {"message": "No.", "code": "400"}}', BadRequest, 400, "No."),
        (b'data: {"error": {"message": "No.", "code": "no_such"}}', ServerError, 500, "No."),
        (b'data: {"error": "It broke."}', ServerError, 500, "It broke."),
        (b'event: error\ndata: {"message": "It broke.", "code": 503}', Unavailable, 503, "It broke."),
    ],
)
async def test_an_error_that_another_event_stream_tells_of_is_raised(client, server, told, kind, status, message):
    server.plan.append(say(b'data: {"n": 1, "error": null}\n\n' + told + b"\n\ndata: [DONE]\n\n"))
    stream = await opened(client, "createChatCompletion", model="m", messages=MESSAGES)

    assert await following(stream) == {"n": 1, "error": None}
    with pytest.raises(ApiError) as raised:
        await following(stream)
    assert type(raised.value) is kind
    assert (raised.value.status, raised.value.message) == (status, message)
    assert len(server.requests) == 1


async def test_the_error_of_a_response_is_an_event_of_its_log(client, server):
    told = {"type": "error", "error": {"message": "It broke."}, "message": "It broke.", "sequence_number": 1}
    ending = {"type": "response.failed", "response": {"id": RESPONSE_ID, "status": "failed"}, "sequence_number": 2}
    server.plan.append(say(encode(LOG[0]) + encode(told) + encode(ending)))

    events, _ = await heard(client)

    assert events == [LOG[0], told, ending]


async def test_other_event_streams_cannot_be_resumed(client, server):
    server.plan.append(say(b'data: {"n": 1}\n\n', then="drop"))

    with pytest.raises(StreamBroken, match="broke off and cannot be resumed, since its events have no numbers"):
        await heard(client, "createChatCompletion", model="m", messages=MESSAGES)


# What the two kinds of stream offer.


def test_a_stream_tells_the_response_so_far(server):
    with Client(app=server) as client, client.create_response(**HELLO, stream=True) as stream:
        assert stream.response is None
        for event in stream:
            if event["type"] == "response.output_text.delta":
                break
        said = stream.response

    assert said
    assert said["output"][0]["content"][0]["text"] == "The "
    assert (stream.sequence_number, stream.response_id) == (4, RESPONSE_ID)


def test_a_stream_gives_its_text_in_pieces(server):
    with Client(app=server) as client:
        assert list(client.create_response(**HELLO, stream=True).text) == ["The ", "tide ", "über", " all"]


def test_a_stream_gives_its_final_response(server):
    with Client(app=server) as client:
        assert client.create_response(**HELLO, stream=True).until_done() == RESPONSE


async def test_an_async_stream_gives_text_and_final_response(server):
    async with AsyncClient(app=server) as client:
        stream = await client.create_response(**HELLO, stream=True)

        assert [piece async for piece in stream.text] == ["The ", "tide ", "über", " all"]
        assert await stream.until_done() == RESPONSE


async def test_an_async_stream_is_iterated_entered_or_awaited(server):
    async with AsyncClient(app=server) as client:
        at_once = [event async for event in client.create_response(**HELLO, stream=True)]
        async with client.create_response(**HELLO, stream=True) as stream:
            entered = [event async for event in stream]
        awaited = [event async for event in await client.create_response(**HELLO, stream=True)]

    assert at_once == entered == awaited == LOG


async def test_the_app_hears_at_once_that_a_stream_was_left(client, server):
    server.plan.append(play(3, then="hang"))

    def leave():
        stream = client.create_response(**HELLO, stream=True)
        next(stream)
        stream.close()

    if isinstance(client, Client):
        await asyncio.to_thread(leave)
    else:
        async with client.create_response(**HELLO, stream=True) as stream:
            await anext(stream)

    await asyncio.to_thread(server.requests[0].wait_left)


async def test_a_forgotten_stream_is_left(client, server):
    """`async for ... break` leaves nobody to close the stream but the garbage collector."""
    server.plan.append(play(3, then="hang"))

    def forget():
        for _ in client.create_response(**HELLO, stream=True):
            break

    async def forget_async():
        async for _ in client.create_response(**HELLO, stream=True):
            break

    await (asyncio.to_thread(forget) if isinstance(client, Client) else forget_async())
    gc.collect()

    await asyncio.to_thread(server.requests[0].wait_left)


async def test_a_read_that_was_cancelled_loses_nothing(async_client, server):
    """The read takes the connection with it; the next one resumes."""
    server.plan.append(play(3, then="hang"))
    async with async_client.create_response(**HELLO, stream=True) as stream:
        events = [await anext(stream) for _ in range(3)]
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.wait([waiting], timeout=0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        events += [event async for event in stream]

    assert events == LOG


async def test_a_stream_closed_by_another_task_just_ends(async_client, server):
    server.plan.append(play(3, then="hang"))
    stream = await async_client.create_response(**HELLO, stream=True)
    for _ in range(3):
        await anext(stream)
    waiting = asyncio.ensure_future(anext(stream, "the end"))
    await asyncio.wait([waiting], timeout=0.05)
    await stream.close()

    assert await waiting == "the end"


async def test_a_connection_that_stays_open_does_not_keep_the_end_from_coming(client, server):
    client.stall_seconds = 10_000
    server.plan.append(play(then="hang"))

    events, _ = await heard(client)

    assert events == LOG


async def test_a_connection_is_used_again_after_a_whole_stream(server, door):
    door[0].server = server
    async with AsyncClient(f"{door[1]}/v1") as client:
        _ = [event async for event in client.create_response(**HELLO, stream=True)]
        await client.list_models()

    assert server.requests[0].client == server.requests[1].client


# By hand, with a clock of the test's own.

CREATE = Request("POST", "/responses", body=b"{}", wants_stream=True)
LOG_OF_CREATE = LogAddress("/responses")
STREAM = Reply(200, {"content-type": "text/event-stream"}, None)
LOST = ConnectionFailed("lost")


class Player:
    """Answers a call's steps by a script, and keeps the time."""

    def __init__(self, *script, log=LOG_OF_CREATE, request=CREATE, **changes):
        self.now = 0.0
        patience = Patience(now=lambda: self.now, chance=lambda: 0.0, **changes)
        self.following = Following(request, log=log, patience=patience)
        self.steps = call(request, patience=patience, following=lambda _: self.following)
        self.script = iter(script)
        self.events, self.taken = [], []

    def run(self):
        came: Any = None
        while True:
            try:
                failed = isinstance(came, Exception)
                step = self.steps.throw(came) if failed else self.steps.send(came)
            except StopIteration:
                return self
            came = None
            self.taken.append(step)
            if isinstance(step, Event):
                self.events.append(step.data)
            elif isinstance(step, Wait):
                self.now += step.seconds
            elif isinstance(step, (Read, Request)):
                came = next(self.script)

    def breaks(self):
        with pytest.raises(StreamBroken) as caught:
            self.run()
        return caught.value

    @property
    def waits(self):
        return [step.seconds for step in self.taken if isinstance(step, Wait)]


def whole(response):
    return Reply(200, {"content-type": "application/json"}, json.dumps(response).encode())


def frames(*events):
    return b"".join(map(encode, events))


def test_the_old_answer_is_closed_before_the_next_is_asked_for():
    player = Player(STREAM, frames(*LOG[:3]), LOST, STREAM, frames(*LOG[3:]), b"").run()

    kinds = [type(step) for step in player.taken if not isinstance(step, Event)]
    assert kinds == [Request, Opened, Read, Read, Close, Request, Read, Read, Close]
    assert player.events == LOG


def test_the_pauses_grow_while_nothing_new_comes_and_start_anew_with_the_next_event():
    refused = [LOST] * 3
    player = Player(
        STREAM, frames(LOG[0]), LOST, *refused, STREAM, frames(LOG[1]), LOST, *refused, STREAM, frames(*LOG[2:]), b""
    ).run()

    assert player.events == LOG
    assert player.waits == [0.5, 1.0, 2.0, 0.5, 1.0, 2.0]


def test_an_open_stream_without_news_is_no_progress():
    player = Player(STREAM, frames(LOG[0]), *[LOST, STREAM] * 4, frames(*LOG[1:]), b"").run()

    assert player.waits == [0.5, 1.0, 2.0]


def test_a_comment_is_a_sign_of_life():
    """Silence is what is timed, so whatever bytes come begin it anew."""
    player = Player(STREAM, frames(*LOG[:2]), b": still here\n", b"\n", frames(*LOG[2:]), b"", stall_seconds=7.0).run()

    assert player.events == LOG
    assert [step.seconds for step in player.taken if isinstance(step, Read)] == [7.0, 7.0, 7.0, 7.0, 1.0]


def test_resuming_is_given_up_when_its_time_is_over():
    player = Player(STREAM, frames(LOG[0]), *[LOST] * 100, resume_seconds=60.0)

    broken = player.breaks()

    assert player.now <= 60.0 < player.now + 8.0
    assert (broken.response_id, broken.sequence_number, broken.__cause__) == (RESPONSE_ID, 0, LOST)


def test_without_time_to_resume_a_break_is_the_end():
    player = Player(STREAM, frames(LOG[0]), LOST, resume_seconds=0.0)

    player.breaks()

    assert len([step for step in player.taken if isinstance(step, Request)]) == 1


def test_a_server_that_asks_for_patience_gets_it():
    busy = Reply(503, {"retry-after": "20"}, b"")
    player = Player(STREAM, frames(LOG[0]), LOST, busy, STREAM, frames(*LOG[1:]), b"").run()

    assert player.waits == [20.0]


def test_a_server_that_asks_for_more_time_than_there_is_ends_the_stream():
    busy = Reply(503, {"retry-after": "90"}, b"")

    broken = Player(STREAM, frames(LOG[0]), LOST, busy, resume_seconds=60.0).breaks()

    assert isinstance(broken.__cause__, Unavailable)


@pytest.mark.parametrize("status", [400, 404])
def test_a_refusal_ends_the_stream_from_the_error(status):
    broken = Player(STREAM, frames(*LOG[:4]), LOST, Reply(status, {}, b"")).breaks()

    assert isinstance(broken.__cause__, ApiError)
    assert broken.__cause__.status == status
    assert (broken.response_id, broken.sequence_number) == (RESPONSE_ID, 3)


def test_a_server_that_cannot_stream_what_is_stored_ends_the_stream():
    stored = Reply(200, {"content-type": "application/json"}, b"{}")

    assert isinstance(Player(STREAM, frames(LOG[0]), LOST, stored).breaks().__cause__, ProtocolError)


def test_a_log_that_ends_without_a_last_event_ends_when_its_response_has():
    """Some servers close the stream of a cancelled response without a word."""
    cancelled = {"id": RESPONSE_ID, "status": "cancelled", "output": []}
    player = Player(STREAM, frames(*LOG[:5]), b"", STREAM, b"", whole(cancelled), STREAM, b"").run()

    assert player.events == LOG[:5]
    assert player.following.response == cancelled


def test_events_that_come_after_the_response_was_seen_to_have_ended_are_not_missed():
    player = Player(STREAM, frames(*LOG[:5]), b"", STREAM, b"", whole(RESPONSE), STREAM, frames(*LOG[5:]), b"").run()

    assert player.events == LOG


def test_a_log_that_ends_early_while_its_response_runs_is_asked_for_again():
    running = whole({"id": RESPONSE_ID, "status": "in_progress"})
    player = Player(STREAM, frames(LOG[0]), b"", STREAM, b"", running, STREAM, frames(*LOG[1:]), b"").run()

    assert player.events == LOG


def test_a_log_whose_response_is_gone_is_given_up():
    gone = Reply(404, {}, b"")
    broken = Player(STREAM, frames(LOG[0]), b"", STREAM, b"", gone).breaks()

    assert isinstance(broken.__cause__, NotFound)


def test_a_gap_that_stays_is_the_cause_in_the_end():
    player = Player(STREAM, frames(LOG[0], LOG[2]), *[STREAM, frames(LOG[2])] * 100, resume_seconds=30.0)

    assert isinstance(player.breaks().__cause__, Gap)
    assert player.events == LOG[:1]


def test_an_event_that_is_no_json_is_asked_for_again():
    player = Player(STREAM, frames(LOG[0]) + b"data: {\n\n", STREAM, frames(*LOG[1:]), b"").run()

    assert player.events == LOG


def test_events_of_unknown_types_are_passed_on():
    odd = {"type": "keepalive", "sequence_number": 1}
    rest = [{**event, "sequence_number": event["sequence_number"] + 1} for event in LOG[1:]]
    player = Player(STREAM, frames(LOG[0], odd, *rest), b"").run()

    assert player.events == [LOG[0], odd, *rest]
    assert player.following.response == RESPONSE


def test_a_server_that_breaks_the_order_is_still_heard_to_the_end():
    early = {**LOG[4], "sequence_number": 1}
    rest = [{**event, "sequence_number": event["sequence_number"] + 1} for event in LOG[1:]]
    player = Player(STREAM, frames(LOG[0], early, *rest), b"").run()

    assert len(player.events) == 13
    assert player.following.response == RESPONSE


@pytest.mark.parametrize("sin", [{"delta": None}, {"delta": 7}, {"type": []}, {"type": None}, {"logprobs": [{}]}])
def test_a_server_that_says_nonsense_is_still_heard_to_the_end(sin):
    """At any point, asking for the Response so far does no harm."""
    at = next(index for index, event in enumerate(LOG) if event["type"].endswith("_text.delta"))
    said = [*LOG[:at], {**LOG[at], **sin}, *LOG[at + 1 :]]
    data = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in said]
    broken = Player(STREAM, b"".join(data[: at + 1]), LOST, resume_seconds=0)
    broken.breaks()
    player = Player(STREAM, b"".join(data), b"").run()

    assert broken.following.response is None or broken.following.response["status"] == "in_progress"
    assert player.events == said
    assert player.following.response == RESPONSE


def test_a_stream_without_numbers_is_read_as_it_comes():
    bare = [{name: value for name, value in event.items() if name != "sequence_number"} for event in LOG]
    player = Player(STREAM, frames(*bare), b"").run()

    assert player.events == bare


def test_a_stream_without_numbers_cannot_be_resumed():
    bare = {"type": "response.created", "response": {"id": RESPONSE_ID}}

    assert Player(STREAM, frames(bare), LOST).breaks().__cause__ is LOST


def test_a_stream_begun_in_the_middle_has_no_response_before_its_end():
    log = LogAddress("/responses", response_id=RESPONSE_ID, after=5)
    player = Player(
        STREAM, frames(*LOG[6:9]), LOST, STREAM, frames(*LOG[9:11]), b"", STREAM, frames(LOG[11]), b"", log=log
    )
    seen = []
    player.events = type("Noting", (list,), {"append": lambda self, _: seen.append(player.following.response)})()

    player.run()

    assert seen == [None] * 5 + [RESPONSE]


def test_a_connection_that_stays_open_after_the_last_event_is_closed():
    player = Player(STREAM, frames(*LOG), LOST).run()

    assert player.events == LOG
    assert isinstance(player.taken[-1], Close)


@pytest.mark.parametrize("ending", ["response.failed", "response.incomplete"])
def test_every_terminal_event_ends_the_stream(ending):
    last = {"type": ending, "response": {"id": RESPONSE_ID, "status": "x", "output": []}, "sequence_number": 2}
    player = Player(STREAM, frames(*LOG[:2], last), b"").run()

    assert player.following.response == last["response"]


def test_a_resume_is_asked_for_by_the_id_and_the_last_number():
    log = LogAddress("/responses", query=(("beta", "true"),), headers={"openai-beta": "x"})
    player = Player(STREAM, frames(*LOG[:2]), LOST, STREAM, frames(*LOG[2:]), b"", log=log, stall_seconds=7.0).run()

    assert [step for step in player.taken if isinstance(step, Request)][1] == Request(
        method="GET",
        path=f"/responses/{RESPONSE_ID}",
        query=(("beta", "true"), ("stream", "true"), ("starting_after", "1")),
        headers={"openai-beta": "x"},
        wants_stream=True,
        answer_seconds=7.0,
    )


def test_an_answer_to_the_first_request_that_is_no_stream_is_refused(server):
    server.plan.append(reply(body={"id": "resp_1"}))
    with Client(app=server) as client, pytest.raises(ProtocolError):
        client.create_response(**HELLO, stream=True)

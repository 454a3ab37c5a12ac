"""One call, played by hand: what it sends, when it tries again, and what it gives."""

import itertools
from dataclasses import replace

import pytest

from antiphon.client.call import (
    Arriving,
    Close,
    Opened,
    Patience,
    Piece,
    Read,
    Reply,
    Request,
    Result,
    Wait,
    call,
    content,
    raw_call,
    segment,
)
from antiphon.client.follow import Following
from antiphon.errors import ApiError, ConnectionFailed, NotFound, ProtocolError, RateLimited, ServerError, Timeout

GET = Request("GET", "/models")
POST = Request("POST", "/responses", body=b"{}")
NOON = 1735732800.0  # 2025-01-01 12:00 UTC


def patience(**changes):
    return Patience(**{"now": lambda: NOON, "chance": lambda: 0.0} | changes)


def reply(status=200, body=b'{"id": "x"}', **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, {"content-type": "application/json"} | named, body)


def play(request, *answers, **changes):
    """The steps that a call takes when the server answers so, and the last output."""
    bounds = patience(**changes)
    steps = call(request, patience=bounds, following=lambda request: Following(request, log=None, patience=bounds))
    coming, taken, step = iter(answers), [], next(steps)
    while True:
        taken.append(step)
        if isinstance(step, Wait):
            step = steps.send(None)
        elif isinstance(step, (Result, Opened)):
            return taken
        else:
            answer = next(coming)
            step = steps.throw(answer) if isinstance(answer, Exception) else steps.send(answer)


def test_a_call_sends_its_request_and_gives_the_decoded_answer():
    assert play(GET, reply()) == [GET, Result({"id": "x"})]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 529])
def test_what_may_pass_is_tried_again(status):
    assert play(POST, reply(status), reply()) == [POST, Wait(0.5), POST, Result({"id": "x"})]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 415, 422])
def test_what_will_not_pass_is_raised_at_once(status):
    with pytest.raises(ApiError) as caught:
        play(GET, reply(status))

    assert caught.value.status == status


def test_the_server_may_ask_for_another_attempt():
    assert play(POST, reply(409, x_should_retry="true"), reply())[-1] == Result({"id": "x"})


def test_the_server_may_forbid_another_attempt():
    with pytest.raises(ServerError):
        play(GET, reply(500, x_should_retry="false"))


def test_the_attempts_are_counted():
    answers = itertools.repeat(reply(503))
    with pytest.raises(ServerError):
        play(GET, *itertools.islice(answers, 3), max_retries=2)


def test_the_last_failure_is_the_one_that_is_raised():
    with pytest.raises(RateLimited):
        play(GET, reply(500), ConnectionFailed(), reply(429))


def test_the_pauses_double_up_to_a_limit():
    taken = play(GET, *[reply(500)] * 6, reply(), max_retries=6)

    assert [step.seconds for step in taken if isinstance(step, Wait)] == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]


def test_chance_takes_up_to_a_quarter_off_a_pause():
    assert play(GET, reply(500), reply(), chance=lambda: 1.0)[1] == Wait(0.375)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after_ms": "250", "retry_after": "9"}, 0.25),
        ({"retry_after": "7"}, 7.0),
        ({"retry_after": "Wed, 01 Jan 2025 12:00:30 GMT"}, 30.0),
        ({"retry_after": "Wed, 01 Jan 2025 11:00:00 GMT"}, 0.5),
        ({"retry_after": "0"}, 0.5),
        ({"retry_after": "soon"}, 0.5),
        ({"retry_after": "Wed, 01 Jan 2025 12:00:30 +99999999999999999999"}, 0.5),
        ({"retry_after_ms": "nan"}, 0.5),
        ({"retry_after_ms": "soon", "retry_after": "7"}, 7.0),
        ({"retry_after_ms": "soon", "retry_after": "Wed, 01 Jan 2025 12:00:30 GMT"}, 30.0),
    ],
)
def test_the_server_says_how_long_to_wait(headers, seconds):
    assert play(GET, reply(429, **headers), reply())[1] == Wait(seconds)


def test_a_server_that_asks_for_too_long_a_wait_is_not_waited_for():
    with pytest.raises(RateLimited):
        play(GET, reply(429, retry_after="121"))


@pytest.mark.parametrize("failure", [ConnectionFailed(), Timeout(), ConnectionFailed(sent=False)])
def test_a_lost_answer_to_what_can_be_repeated_is_asked_for_again(failure):
    assert play(GET, failure, reply()) == [GET, Wait(0.5), GET, Result({"id": "x"})]


@pytest.mark.parametrize("failure", [ConnectionFailed(), Timeout()])
def test_a_post_that_may_have_been_carried_out_is_not_sent_again(failure):
    with pytest.raises(type(failure)):
        play(POST, failure)


def test_a_post_that_never_left_is_sent_again():
    assert play(POST, ConnectionFailed(sent=False), reply())[-1] == Result({"id": "x"})


def test_a_post_under_an_idempotency_key_is_sent_again():
    request = Request("POST", "/responses", headers={"idempotency-key": "k"}, body=b"{}")

    assert play(request, ConnectionFailed(), reply()) == [request, Wait(0.5), request, Result({"id": "x"})]


def test_an_error_carries_what_the_server_said():
    body = b'{"error": {"message": "No such thing.", "type": "invalid_request_error", "param": "id", "code": "gone"}}'
    with pytest.raises(NotFound) as caught:
        play(GET, reply(404, body, x_request_id="req_1"))

    error = caught.value
    assert (error.message, error.param, error.code, error.request_id) == ("No such thing.", "id", "gone", "req_1")
    assert error.headers["x-request-id"] == "req_1"


def test_an_error_page_that_is_no_json_is_quoted():
    with pytest.raises(ServerError, match="Bad gateway"):
        play(GET, reply(502, b"<h1>Bad gateway</h1>", content_type="text/html"), max_retries=0)


def test_an_event_stream_is_opened_also_when_nobody_asked_for_one():
    assert isinstance(play(GET, reply(200, None, content_type="text/event-stream"))[1], Opened)


def test_an_answer_that_should_have_been_a_stream_is_refused():
    request = Request("GET", "/responses/resp_1", wants_stream=True)
    with pytest.raises(ProtocolError, match="application/json instead of a stream"):
        play(request, reply())


def test_bytes_that_are_no_json_are_given_out_as_they_come():
    opened = reply(200, None, content_type="audio/mpeg")
    steps = call(GET, patience=patience(), following=lambda request: pytest.fail("it is no stream"))

    assert [next(steps), steps.send(opened), steps.send(b"a"), next(steps), next(steps), steps.send(b"")] == [
        GET,
        Read(120.0),
        Arriving(opened),
        Piece(b"a"),
        Read(120.0),
        Close(),
    ]


@pytest.mark.parametrize("heard", [[], [b"a"]])
def test_an_answer_that_breaks_off_is_closed(heard):
    steps = call(GET, patience=patience(), following=lambda request: pytest.fail("it is no stream"))
    next(steps)
    step = steps.send(reply(200, None, content_type="audio/mpeg"))
    for data in heard:
        steps.send(data)
        step = [next(steps), next(steps)][-1]

    assert isinstance(step, Read)
    assert steps.throw(ConnectionFailed()) == Close()
    with pytest.raises(ConnectionFailed):
        next(steps)


def test_a_raw_call_asks_for_the_whole_answer_and_gives_any_status():
    steps = raw_call(POST, patience=patience())

    assert next(steps) == replace(POST, whole=True)
    assert steps.send(reply(404)) == Result(reply(404))


def test_a_raw_call_without_an_answer_fails():
    steps = raw_call(POST, patience=patience())
    next(steps)
    with pytest.raises(ConnectionFailed):
        steps.throw(ConnectionFailed())


@pytest.mark.parametrize(
    ("kind", "body", "value"),
    [
        ("application/json; charset=utf-8", b"[1]", [1]),
        ("application/problem+json", b"{}", {}),
        ("audio/mpeg", b"\x00\x01", b"\x00\x01"),
        ("text/plain", b"hello", b"hello"),
        ("application/json", b"", None),
        ("", b"", None),
    ],
)
def test_an_answer_is_given_by_its_kind(kind, body, value):
    assert content(Reply(200, {"content-type": kind}, body)) == value


def test_json_that_is_none_is_an_error_of_the_server():
    with pytest.raises(ProtocolError):
        content(reply(200, b"{"))


@pytest.mark.parametrize(
    ("value", "escaped"),
    [
        ("resp_1", "resp_1"),
        ("a/b", "a%2Fb"),
        ("..", "%2E%2E"),
        (".", "%2E"),
        ("a..b", "a..b"),
        ("?x=1#y", "%3Fx%3D1%23y"),
        ("ü %2F", "%C3%BC%20%252F"),
        ("{id}", "%7Bid%7D"),
    ],
)
def test_a_value_stays_one_segment_of_the_path(value, escaped):
    assert segment(value) == escaped

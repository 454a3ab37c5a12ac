"""Callers that do not play by the rules: what they get is a refusal, and nobody else notices.

Bodies and parameters that are merely wrong are in test_errors.py, limits of size and time in test_limits.py, model
servers that lie in test_hostile_models.py.
"""

from __future__ import annotations

import asyncio
import json
import re
import select
import socket
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from antiphon.server.connection import patient
from antiphon.settings import Settings
from tests.servers.antiphon import QUICK, App, antiphon, complaining, faults
from tests.servers.chat import ChatServer
from tests.servers.running import serve

HOST = b"host: localhost\r\n"
POST = b"POST /v1/responses HTTP/1.1\r\ncontent-type: application/json\r\n" + HOST
BODY = b'{"model": "text", "input": "Hi"}'
LENGTH = b"content-length: %d\r\n" % len(BODY)
CHUNKED = b"transfer-encoding: chunked\r\n"
WHOLE = POST + LENGTH + b"\r\n" + BODY
MODELS = b"GET /v1/models HTTP/1.1\r\n" + HOST
LAST = b"connection: close\r\n"


@contextmanager
def guarded(*, request_seconds=0.5, **limits):
    """A node behind connections of the kind that `antiphon serve` has; yields where it listens."""
    settings = {**QUICK, "database": "sqlite://", "request_seconds": request_seconds}
    with ExitStack() as stack:
        complaints = stack.enter_context(complaining())
        base = stack.enter_context(serve(ChatServer()))
        app = App(Settings(**settings, upstream=f"{base}/v1"))
        url = stack.enter_context(serve(app, lifespan="on", http=patient(request_seconds, **limits)))
        yield urlsplit(url)
    assert not [*complaints, *(fault for answer in app.answers for fault in faults(answer))]


@pytest.fixture(scope="module")
def door():
    with guarded() as where:
        yield where


async def said(where, *pieces, half=False):
    """All that is answered to these bytes, until the server hangs up."""
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    answer = b""
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if half:
            writer.write_eof()
        while read := await reader.read(65536):
            answer += read
    except ConnectionError:  # it hung up on what it was still being told
        pass
    finally:
        writer.close()
    return answer


def statuses(answer):
    return [int(status) for status in re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", answer)]


def error(answer):
    """What the last answer says is wrong."""
    return json.loads(answer.rpartition(b"\r\n\r\n")[2])["error"]["message"]


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(POST + LENGTH + CHUNKED + b"\r\n0\r\n\r\n", id="both lengths"),
        pytest.param(POST + CHUNKED + LENGTH + b"\r\n0\r\n\r\n", id="both lengths the other way round"),
        pytest.param(POST + LENGTH + b"content-length: 3\r\n\r\n" + BODY, id="two lengths"),
        pytest.param(POST + b"content-length: -1\r\n\r\n" + BODY, id="negative length"),
        pytest.param(POST + b"content-length: +5\r\n\r\n" + BODY, id="signed length"),
        pytest.param(POST + b"content-length: 0x5\r\n\r\n" + BODY, id="hexadecimal length"),
        pytest.param(POST + b"content-length: " + b"9" * 30 + b"\r\n\r\n" + BODY, id="length of no number"),
        pytest.param(POST + b"content-length : 5\r\n\r\n" + BODY, id="space before the colon"),
        pytest.param(POST + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n", id="chunked not last"),
        pytest.param(POST + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n", id="nearly chunked"),
        pytest.param(POST + CHUNKED + b"\r\nffffffffffffffffff\r\n", id="chunk of no size"),
        pytest.param(POST + CHUNKED + b"\r\n-1\r\n", id="chunk of negative size"),
        pytest.param(POST + CHUNKED + b"\r\n2\n{}\n0\n\n", id="chunk with other line ends"),
        pytest.param(POST + CHUNKED + b"\r\n2\r\n{}{}\r\n0\r\n\r\n", id="chunk longer than it says"),
        pytest.param(MODELS + b"x-a: b\r\n c\r\n\r\n", id="folded header"),
        pytest.param(MODELS + b"x-a: b\0c\r\n\r\n", id="NUL in a header"),
        pytest.param(MODELS + b"x-a: b\rc\r\n\r\n", id="CR in a header"),
        pytest.param(MODELS + b"\x00: b\r\n\r\n", id="header of no name"),
        pytest.param(b"GET /v1/\xff\xfe HTTP/1.1\r\n" + HOST + b"\r\n", id="bytes in the path"),
        pytest.param(b"GET /v1/ x HTTP/1.1\r\n" + HOST + b"\r\n", id="space in the path"),
        pytest.param(b"CONNECT inside.example:443 HTTP/1.1\r\n" + HOST + b"\r\n", id="CONNECT"),
        pytest.param(b"GET http://inside.example HTTP/1.1\r\n" + HOST + b"\r\n", id="proxy"),
        pytest.param(b"BREW /v1/models HTTP/1.1\r\n" + HOST + b"\r\n", id="unknown method"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="HTTP/2"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="TLS"),
    ],
)
async def test_what_is_no_request_is_refused_and_the_connection_ends(door, sent):
    answer = await said(door, sent)

    assert statuses(answer) == [400]
    assert error(answer) == "Invalid HTTP request received."


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([MODELS, *[b"x-a: b\r\n" * 8000] * 4], id="headers"),
        pytest.param([MODELS, b"x-a: ", *[b"b" * 65536] * 4], id="one header"),
        pytest.param([b"GET /v1/", *[b"b" * 65536] * 4], id="path"),
        pytest.param([b"\r\n" * 32768] * 6, id="empty lines"),
        pytest.param([POST + CHUNKED + b"\r\n2;", *[b"x" * 65536] * 4], id="chunk extension"),
        pytest.param([POST + CHUNKED + b"\r\n2\r\n{}\r\n0\r\nx-a: ", *[b"b" * 65536] * 4], id="trailer"),
    ],
)
async def test_a_head_without_end_is_not_kept(door, pieces):
    assert statuses(await said(door, *pieces)) in ([431], [400], [])  # it may hang up on what still comes


async def test_a_head_that_is_too_large_is_told(door):
    """To who has nothing more to send: on others it hangs up."""
    answer = await said(door, b"\r\n" * 32769)

    assert statuses(answer) == [431]
    assert error(answer) == "The head of the request is larger than 65536 bytes."


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([b"P"], id="head"),
        pytest.param([POST + LENGTH], id="headers"),
        pytest.param([POST + LENGTH + b"\r\n" + BODY[:5]], id="body"),
        pytest.param([POST + CHUNKED + b"\r\n5\r\n{"], id="chunk"),
        pytest.param([MODELS + b"\r\n", b"GET /"], id="next head"),
    ],
)
async def test_who_goes_silent_is_not_waited_for(door, pieces):
    """The test's own limit of time is what would end it else."""
    assert statuses(await said(door, *pieces)) in ([], [408], [200])


async def test_many_who_go_silent_leave_room_for_the_others(door):
    waiting = [asyncio.create_task(said(door, POST + LENGTH + b"\r\n{")) for _ in range(100)]

    assert statuses(await said(door, MODELS + LAST + b"\r\n")) == [200]
    assert {tuple(statuses(answer)) for answer in await asyncio.gather(*waiting)} == {(408,)}


@pytest.mark.parametrize("sent", [POST + LENGTH + b"\r\n" + BODY[:5], WHOLE[: len(POST)]])
async def test_who_hangs_up_in_the_middle_is_gone(door, sent):
    assert statuses(await said(door, sent, half=True)) in ([], [400])


async def test_a_caller_who_reads_nothing_does_not_hold_his_connection_for_ever():
    asked = b'{"model": "text", "input": "Hi", "instructions": "%s"}' % (b"x" * 20_000_000)
    with guarded(request_seconds=20, unread_seconds=0.1) as where, socket.socket() as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await asyncio.to_thread(caller.connect, (where.hostname, where.port))
        await asyncio.to_thread(caller.sendall, POST + b"content-length: %d\r\n\r\n" % len(asked) + asked)
        broken = select.poll()
        broken.register(caller, 0)

        def hears_of_it():
            """Who sends on is told; who only does not read is not."""
            while not broken.poll(20):
                try:
                    caller.send(b"\r\n")
                except OSError:
                    break

        await asyncio.to_thread(hears_of_it)


async def test_requests_in_one_piece_are_answered_in_their_order(door):
    answer = await said(door, (MODELS + b"\r\n") * 3 + b"GET /v1/nothing HTTP/1.1\r\n" + HOST + LAST + b"\r\n")

    assert statuses(answer) == [200, 200, 200, 404]


async def test_what_follows_a_body_is_the_next_request_and_nothing_else(door):
    """A length that two parties understand in two ways would let one caller speak for another."""
    inner = b"GET /v1/hidden HTTP/1.1\r\n" + HOST + b"\r\n"
    answer = await said(
        door,
        MODELS + b"content-length: %d\r\n\r\n" % len(inner) + inner,
        b"GET /v1/plain HTTP/1.1\r\n" + HOST + LAST + b"\r\n",
    )

    assert statuses(answer) == [200, 404]
    assert b"/v1/hidden" not in answer


async def test_nothing_is_said_in_place_of_an_answer_that_is_on_its_way(door):
    """Garbage behind a whole request would be refused with what looks like that request's answer."""
    assert statuses(await said(door, WHOLE + b"garbage\r\n\r\n")) in ([], [200])


async def test_a_trailer_is_no_header(door):
    """What lets a caller in has to come before the body."""
    chunk = b"%x\r\n%s\r\n" % (len(BODY), BODY)
    trailers = b"0\r\nx-request-id: mine\r\norigin: https://evil.example\r\n\r\n"
    answer = await said(door, POST + CHUNKED + LAST + b"\r\n" + chunk, trailers)

    assert statuses(answer) == [200]
    assert b"mine" not in answer


@pytest.mark.parametrize("head", [POST + LENGTH, MODELS])
async def test_an_upgrade_to_what_is_not_there_is_no_upgrade(door, head):
    upgrade = b"connection: upgrade, close\r\nupgrade: h2c\r\n\r\n"

    assert statuses(await said(door, head + upgrade))[0] in (200, 400)


async def test_a_websocket_begins_with_a_get(door):
    upgrade = b"connection: upgrade, close\r\nupgrade: websocket\r\n\r\n"

    assert statuses(await said(door, POST + LENGTH + upgrade + BODY)) == [400]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/%2e%2e/v1/models",
        "/v1/../v1/models",
        "/v1//models",
        "//v1/models",
        "/v1/models/../responses",
        "/v1/responses/%2e%2e/conversations",
        "/v1/responses/resp_x%2finput_items",
        "/v1/responses/%2fetc%2fpasswd",
        "/v1/responses/..%5c..%5c",
        "/v1/responses/resp_x;cancel",
        "/v1/responses/resp_x%3fstream=true",
        "/v1/responses/resp_x%23",
        "/v1/responses/resp_%0d%0aset-cookie:%20a=b",
        "/v1/conversations/conv_%0d%0a%0d%0a",
        "/v1/responses/%252e%252e",
        "/v1/responses/" + "a/" * 20000,
        "/v1/responses/" + "%2e" * 15000,
        "/V1/RESPONSES/resp_x",
        "/metrics/../v1/models/%2e%2e",
        "/openapi.json/",
    ],
)
async def test_a_path_means_what_it_says(door, path):
    """Nothing is taken out of it, and nothing of it gets into a header."""
    answer = await said(door, b"GET " + path.encode() + b" HTTP/1.1\r\n" + HOST + LAST + b"\r\n")

    assert statuses(answer)[0] in (400, 404)
    head = answer.partition(b"\r\n\r\n")[0].lower()
    assert b"set-cookie" not in head
    assert answer.count(b"HTTP/1.1") == 1 + path.count("HTTP/1.1")


@pytest.mark.parametrize("method", [b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"PATCH", b"DELETE"])
@pytest.mark.parametrize("path", [b"/v1/models", b"/v1/responses", b"/openapi.json", b"/"])
async def test_a_method_that_is_not_there_does_nothing(door, method, path):
    """And repeats nothing of the request, as TRACE would."""
    answer = await said(door, method + b" " + path + b" HTTP/1.1\r\nx-secret: whisper\r\n" + HOST + LAST + b"\r\n")

    assert statuses(answer)[0] in (404, 405) or (method == b"HEAD" and statuses(answer) == [200])
    assert b"whisper" not in answer
    assert method != b"HEAD" or answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "header",
    [
        b"expect: 100-continue",
        b"if-none-match: *",
        b'if-match: "nothing"',
        b"if-modified-since: Fri, 01 Jan 2100 00:00:00 GMT",
        b"if-unmodified-since: Thu, 01 Jan 1970 00:00:00 GMT",
        b"range: bytes=0-1",
        b"accept-encoding: gzip;q=nan, *;q=0",
        b"accept: image/png",
        b"x-http-method-override: DELETE",
        b"x-forwarded-host: evil.example\r\nforwarded: host=evil.example;proto=https",
        b"x-original-url: /metrics\r\nx-rewrite-url: /metrics",
        b"cookie: " + b"a=b; " * 5000,
    ],
)
async def test_a_header_that_means_nothing_here_changes_nothing(door, header):
    answer = await said(door, POST + LENGTH + LAST + header + b"\r\n\r\n" + BODY)

    assert statuses(answer) in ([200], [100, 200])
    assert b'"status":"completed"' in answer
    assert b"evil.example" not in answer


@pytest.mark.parametrize("expected", [b"expect: 100-continue", b"expect: 200-ok", b"expect: " + b"x" * 5000])
async def test_who_waits_to_be_asked_for_his_body_and_never_sends_it_is_not_waited_for(door, expected):
    assert statuses(await said(door, POST + LENGTH + expected + b"\r\n\r\n")) in ([408], [100, 408], [417])


async def test_of_two_keys_none_is_right():
    """One party may have looked at the first, and the other takes the last."""
    keys = {"alice": "sk-alice-0123456789abcdef"}
    right, wrong = b"authorization: Bearer sk-alice-0123456789abcdef\r\n", b"authorization: Bearer sk-wrong\r\n"
    with antiphon(api_keys=keys) as server:
        where = urlsplit(server.url)
        for headers, status in ((right, 200), (right + wrong, 401), (wrong + right, 401), (right + right, 401)):
            assert statuses(await said(where, MODELS + headers + LAST + b"\r\n")) == [status], headers


@pytest.mark.parametrize(
    "query", ["a=b&" * 10_000, "limit=1&" * 7_000, "metadata[k]=v&" * 4_000, "&" * 60_000, "%" * 60_000]
)
async def test_a_query_of_thousands_is_an_answer_like_any_other(door, query):
    answer = await said(door, b"GET /v1/responses?" + query.encode() + b" HTTP/1.1\r\n" + HOST + LAST + b"\r\n")

    assert statuses(answer)[0] in (200, 400)
    assert len(answer) < 20_000


SPLIT = "a\r\nset-cookie: stolen=1\r\n\r\nHTTP/1.1 200 OK"


async def test_no_text_of_a_caller_becomes_a_header():
    with antiphon() as server:
        async with server.http() as http:
            prompt = (await http.post("/prompts", json={"template": {"instructions": "{{who}}"}})).json()
            asked: list[dict[str, Any]] = [
                {"metadata": {SPLIT[:60]: SPLIT}},
                {"user": SPLIT, "safety_identifier": SPLIT[:60], "prompt_cache_key": SPLIT[:60]},
                {"prompt": {"id": prompt["id"], "variables": {"who": SPLIT}}},
                {"previous_response_id": "resp_" + SPLIT},
                {"conversation": "conv_" + SPLIT},
                {"tools": [{"type": SPLIT}]},
                {"tools": [{"type": "mcp", "server_label": SPLIT, "server_url": "https://mcp.example"}]},
                {"tools": [{"type": "function", "name": SPLIT, "parameters": {}, "strict": False}]},
                {"model": "echo" + SPLIT},
                {"model": SPLIT},
            ]
            for fields in asked:
                for stream in (False, True):
                    answer = await http.post(
                        "/responses", json={"model": "echo", "input": SPLIT, "stream": stream, **fields}
                    )
                    assert answer.status_code < 500
                    assert "set-cookie" not in answer.headers
                    assert "stolen" not in str(answer.headers)
            for header in ("x-request-id", "x-client-request-id", "idempotency-key"):
                answer = await http.post(
                    "/responses", json={"model": "text", "input": "Hi"}, headers={header: "a\tset-cookie: b"}
                )
                assert "set-cookie" not in str(answer.headers)


DEEP = json.loads('{"a":' * 60 + "1" + "}" * 60)


@pytest.mark.parametrize(
    "fields",
    [
        {"metadata": {f"k{number}": "v" for number in range(100_000)}},
        {"metadata": {"k": "x" * 5_000_000}},
        {"input": [{"role": "user", "content": "x" * 5_000_000}], "tools": [{"type": "x" * 1_000_000}]},
        {"tools": [{"type": "function", "name": "f", "strict": True, "parameters": DEEP}]},
        {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"pattern": "(a+)+$" * 1000}}}},
        {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"$ref": "http://127.0.0.1:9/inside"}}}},
        {"include": ["x"] * 100_000},
        {"temperature": -(10**300)},
        {"max_tool_calls": 10**30},
    ],
    ids=lambda fields: "-".join(fields),
)  # fmt: skip
async def test_a_body_of_enormous_parts_gets_an_answer_like_any_other(http, fields):
    answer = await http.post("/responses", json={"model": "text", "input": "Hi", **fields})

    assert answer.status_code in (200, 400)
    assert len(answer.headers.get("antiphon-unavailable-tools", "")) < 1000


@pytest.fixture(scope="module")
def server():
    with antiphon() as server:
        yield server


@pytest.fixture
async def http(server):
    async with server.http() as http:
        yield http

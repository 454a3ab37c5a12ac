"""The connections to model servers: what they read, when they are used again, and when they are given up.

Servers that lie are in test_hostile_models.py.
"""

import asyncio
import gzip
import socket
import ssl
import zlib
from contextlib import asynccontextmanager
from typing import Any

import pytest

from antiphon.engine.models import http
from antiphon.engine.models.http import Broken, Server, Unreachable
from tests.test_tls import certificate  # noqa: F401  # a fixture

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n\r\n"
WHOLE = OK + b"content-length: 2\r\n\r\nHi"


@asynccontextmanager
async def serving(*answers, tls=None, **options):
    """A server that answers each request on a connection with the next of these: bytes, or a function of reader and
    writer. A connection is closed behind the last one. Yields a client of it and the list of the connections.
    """
    connections: list[Any] = []

    async def serve(reader, writer):
        connections.append(asyncio.current_task())
        try:
            for answer in answers:
                await reader.readuntil(b"\r\n\r\n")
                if callable(answer):
                    await answer(reader, writer)
                else:
                    writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    scheme = "http" if tls is None else "https"
    settings = {"headers": {}, "connect_seconds": 5.0, "idle_seconds": 5.0, **options}
    client = Server(f"{scheme}://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1", **settings)
    try:
        yield client, connections
    finally:
        await client.close()
        listening.close()
        if connections:
            await asyncio.gather(*connections)


async def pieces_of(answer):
    while piece := await answer.read():
        yield piece


async def body_of(answer):
    """The whole body; the answer is left then."""
    try:
        return b"".join([piece async for piece in pieces_of(answer)])
    finally:
        answer.leave()


async def asked(client, body=None):
    return await body_of(await client.ask("POST", "/responses", body))


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        pytest.param(WHOLE, b"Hi", id="by length"),
        pytest.param(OK + CHUNKED + b"1;a=b\r\nH\r\n1 \r\ni\r\n0\r\nx: y\r\n\r\n", b"Hi", id="chunks"),
        pytest.param(OK + b"\r\nHi", b"Hi", id="to the end"),
        pytest.param(OK.replace(b"\r\n", b"\n") + b"content-length: 2\n\nHi", b"Hi", id="bare line ends"),
        pytest.param(b"HTTP/1.0 200 OK\r\n\r\nHi", b"Hi", id="HTTP/1.0"),
        pytest.param(b"HTTP/1.1 100 Continue\r\na: b\r\n\r\n" + WHOLE, b"Hi", id="behind an interim answer"),
        pytest.param(b"HTTP/1.1 204 Nothing\r\n\r\n", b"", id="nothing"),
    ],
)  # fmt: skip
async def test_every_form_of_a_body_is_read(answer, body):
    async with serving(answer) as (client, _):
        assert await asked(client) == body


async def test_the_head_is_told():
    head = b"HTTP/1.1 429 Later\r\nRetry-After: 3\r\nContent-Type: A/b; c\r\ncontent-length: 0\r\n\r\n"
    async with serving(b"HTTP/1.1 102 Soon\r\na: b\r\n\r\n" + head) as (client, _):
        answer = await client.ask("GET", "/models")

        assert (answer.status, answer.content_type, answer.headers["retry-after"]) == (429, "a/b", "3")
        assert "a" not in answer.headers
        assert await body_of(answer) == b""


async def test_a_request_says_what_a_server_needs_to_know():
    seen = []

    async def serve(reader, writer):
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        seen.append(await reader.readexactly(2))
        writer.write(WHOLE)
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    client = Server(f"http://127.0.0.1:{port}/v1", headers={"x-key": "k"}, connect_seconds=5, idle_seconds=5)
    assert await body_of(await client.ask("POST", "/../a b", b"{}", headers={"traceparent": "t"})) == b"Hi"
    await client.close()
    listening.close()

    line, *headers = seen[0].decode().split("\r\n")[:-2]
    assert line == "POST /a%20b HTTP/1.1"
    assert set(headers) >= {f"host: 127.0.0.1:{port}", "x-key: k", "traceparent: t", "content-length: 2"}
    assert seen[1] == b"{}"


async def test_a_connection_is_used_again():
    async with serving(WHOLE, WHOLE, WHOLE) as (client, connections):
        assert [await asked(client) for _ in range(3)] == [b"Hi"] * 3
        assert len(connections) == 1


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(WHOLE + WHOLE, id="more than it was asked"),
        pytest.param(WHOLE.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"), id="it says so"),
        pytest.param(b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nHi", id="HTTP/1.0"),
    ],
)
async def test_a_connection_is_not_used_again_behind(answer):
    async with serving(answer, answer) as (client, connections):
        assert [await asked(client) for _ in range(2)] == [b"Hi"] * 2
        assert len(connections) == 2


async def test_an_answer_that_is_left_before_its_end_closes_its_connection():
    closed = asyncio.Event()

    async def endless(reader, writer):
        writer.write(OK + b"\r\nfirst")
        assert await reader.read() == b""
        closed.set()

    async with serving(endless) as (client, _):
        answer = await client.ask("POST", "/responses")
        assert await answer.read() == b"first"
        answer.leave()
        async with asyncio.timeout(5):
            await closed.wait()


async def test_what_an_idle_connection_says_ends_it():
    """Many servers say 408 there, and would close it under the next request."""
    spoke = asyncio.Event()

    async def twice(reader, writer):
        writer.write(WHOLE)
        await writer.drain()
        await left.wait()
        writer.write(b"HTTP/1.1 408 Too late\r\ncontent-length: 0\r\n\r\n")
        assert await reader.read() == b""
        spoke.set()

    left = asyncio.Event()
    async with serving(twice) as (client, connections):
        assert await asked(client) == b"Hi"
        left.set()
        async with asyncio.timeout(5):
            await spoke.wait()
        assert len(connections) == 1


async def test_an_idle_connection_is_closed_after_a_while(monkeypatch):
    monkeypatch.setattr(http, "KEPT_SECONDS", 0.01)
    closed = asyncio.Event()

    async def last(reader, writer):
        writer.write(WHOLE)
        assert await reader.read() == b""
        closed.set()

    async with serving(last) as (client, _):
        assert await asked(client) == b"Hi"
        async with asyncio.timeout(5):
            await closed.wait()


async def test_what_came_before_a_break_is_read_first():
    async def breaks(reader, writer):
        writer.write(OK + b"content-length: 9\r\n\r\nHi")

    async with serving(breaks) as (client, _):
        answer = await client.ask("POST", "/responses")
        assert await answer.read() == b"Hi"
        with pytest.raises(Broken):
            await answer.read()
        answer.leave()


async def test_a_new_connection_that_is_closed_at_once_is_not_tried_again():
    async def dies(reader, writer):
        writer.transport.abort()

    async with serving(dies) as (client, connections):
        with pytest.raises(Broken):
            await asked(client)
        assert len(connections) == 1


async def test_nobody_reads_for_who_does_not_read():
    """A store that stands still stops the model, and fills no memory."""
    stuck = asyncio.Event()
    sent = 0

    async def floods(reader, writer):
        nonlocal sent
        writer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        writer.write(OK + b"\r\n")
        try:
            while True:
                writer.write(b"x" * (1 << 16))
                sent += 1 << 16
                async with asyncio.timeout(0.5):
                    await writer.drain()
        except TimeoutError:
            stuck.set()

    async with serving(floods) as (client, _):
        answer = await client.ask("POST", "/responses")
        async with asyncio.timeout(20):
            await stuck.wait()
        assert len(await answer.read()) < 1 << 20
        assert sent < 64 << 20
        answer.leave()


async def test_a_silence_counts_only_while_somebody_waits():
    async def slow(reader, writer):
        writer.write(OK + b"content-length: 4\r\n\r\nHi")
        await late.wait()
        writer.write(b"Ho")

    late = asyncio.Event()
    async with serving(slow, idle_seconds=0.1) as (client, _):
        answer = await client.ask("POST", "/responses")
        assert await answer.read() == b"Hi"
        asyncio.get_running_loop().call_later(0.3, late.set)  # the reader has better things to do for so long
        await late.wait()
        assert await body_of(answer) == b"Ho"


async def test_each_piece_begins_a_new_silence(monkeypatch):
    """The clock is put forward while the reader waits."""
    loop, ahead = asyncio.get_running_loop(), 0.0
    time = loop.time
    monkeypatch.setattr(loop, "time", lambda: time() + ahead)
    pieces: asyncio.Queue[bytes] = asyncio.Queue()

    async def slow(reader, writer):
        writer.write(OK + CHUNKED)
        while True:
            writer.write(await pieces.get())

    async with serving(slow, idle_seconds=100.0) as (client, connections):
        answer = await client.ask("POST", "/responses")
        for _ in range(3):  # 180 seconds in all
            reading = asyncio.create_task(answer.read())
            await asyncio.sleep(0)
            ahead += 60.0
            pieces.put_nowait(b"2\r\nHi\r\n")
            assert await reading == b"Hi"
        reading = asyncio.create_task(answer.read())
        await asyncio.sleep(0)
        ahead += 60.0
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not reading.done()
        ahead += 60.0
        with pytest.raises(TimeoutError):
            await reading
        answer.leave()
        connections[0].cancel()
        connections.clear()


@pytest.mark.parametrize("begun", [b"", OK, OK + b"\r\n"])
async def test_a_silent_server_is_given_up(begun):
    async def silent(reader, writer):
        writer.write(begun)
        await reader.read()

    async with serving(silent, idle_seconds=0.1) as (client, _):
        with pytest.raises(TimeoutError):
            await asked(client)


async def test_a_large_request_is_heard_by_who_reads_slowly():
    heard = bytearray()

    async def slow(reader, writer):
        while len(heard) < 5_000_000:
            heard.extend(await reader.read(100_000))
        writer.write(WHOLE)

    async with serving(slow, WHOLE) as (client, connections):
        assert await asked(client, b"x" * 5_000_000) == b"Hi"
        assert await asked(client) == b"Hi"
        assert len(connections) == 1
    assert bytes(heard) == b"x" * 5_000_000


async def test_an_answer_before_the_end_of_a_large_request_is_heard():
    async def refuses(reader, writer):
        writer.write(b"HTTP/1.1 413 Too large\r\ncontent-length: 2\r\n\r\nNo")
        await reader.read()  # which it must not wait for
        writer.close()

    async with serving(refuses) as (client, _):
        answer = await client.ask("POST", "/responses", b"x" * 50_000_000)
        assert answer.status == 413
        assert await body_of(answer) == b"No"


async def test_a_request_that_was_answered_is_sent_no_further():
    answered, closed = asyncio.Event(), asyncio.Event()
    heard = 0

    async def refuses(reader, writer):
        nonlocal heard
        writer.write(b"HTTP/1.1 413 Too large\r\ncontent-length: 2\r\n\r\nNo")
        await answered.wait()
        while data := await reader.read(1 << 20):
            heard += len(data)
        closed.set()

    async with serving(refuses) as (client, _):
        assert await asked(client, b"x" * 50_000_000) == b"No"
        answered.set()
        async with asyncio.timeout(5):
            await closed.wait()
    assert heard < 25_000_000


async def test_what_a_server_says_of_its_connection_counts_in_the_middle_of_a_request_too(monkeypatch):
    monkeypatch.setattr(http, "_WRITE_BYTES_MAX", 20_000_000)
    closed = asyncio.Event()

    async def last(reader, writer):
        await reader.readexactly(20_000_000)  # then the client writes the rest, and waits until it is sent
        writer.write(WHOLE.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
        while await reader.read(1 << 20):
            pass
        closed.set()

    async with serving(last) as (client, _):
        assert await asked(client, b"x" * 40_000_000) == b"Hi"
        async with asyncio.timeout(5):
            await closed.wait()


async def test_an_answer_without_a_length_is_whole_when_the_server_closes_and_not_before():
    async def endless(reader, writer):
        writer.write(OK + b"\r\nfirst")
        await reader.read()

    async with serving(endless) as (client, _):
        answer = await client.ask("POST", "/responses")
        assert await answer.read() == b"first"
        await client.close()
        with pytest.raises(Broken):
            await answer.read()
        answer.leave()


@pytest.mark.parametrize("length", [b"", b"content-length: 9\r\n"])
async def test_an_answer_ends_when_the_server_closes_though_it_did_not_hear_the_whole_request(length):
    async def refuses(reader, writer):
        writer.write(b"HTTP/1.1 413 Too large\r\n" + length + b"\r\nNo")
        writer.write_eof()
        await ended.wait()

    ended = asyncio.Event()
    async with serving(refuses) as (client, _):
        answer = await client.ask("POST", "/responses", b"x" * 50_000_000)
        assert await answer.read() == b"No"
        if length:
            with pytest.raises(Broken):
                await answer.read()
        else:
            assert await answer.read() == b""
        answer.leave()
        ended.set()


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\0"])
async def test_no_header_can_hold_another(value):
    async with serving(WHOLE) as (client, connections):
        with pytest.raises(ValueError, match="'x-key'"):
            await client.ask("GET", "/models", headers={"x-key": value})
        assert not connections
    with pytest.raises(ValueError, match="'x-key'"):
        Server("http://127.0.0.1:1", headers={"x-key": value}, connect_seconds=5, idle_seconds=5)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_packed_body_is_unpacked_for_who_asked_for_it(coding):
    text = b"Hello. " * 1_000_000
    packed = gzip.compress(text) if coding == "gzip" else zlib.compress(text)
    head = OK + f"content-encoding: {coding}\r\ncontent-length: {len(packed)}\r\n\r\n".encode()
    async with serving(head + packed, WHOLE, unpacks=True) as (client, _):
        answer = await client.ask("POST", "/responses")
        pieces = [piece async for piece in pieces_of(answer)]
        answer.leave()
        assert b"".join(pieces) == text
        assert max(map(len, pieces)) <= 1 << 20
        assert await asked(client) == b"Hi"


async def test_a_packed_body_that_is_none_breaks():
    async with serving(OK + b"content-encoding: gzip\r\ncontent-length: 2\r\n\r\nHi", unpacks=True) as (client, _):
        with pytest.raises(Broken):
            await asked(client)


async def test_what_follows_a_packed_body_is_not_kept():
    body = gzip.compress(b"Hi")

    async def goes_on(reader, writer):
        writer.write(OK + b"content-encoding: gzip\r\n\r\n" + body)
        await heard.wait()
        writer.write(b"x")
        await reader.read()

    heard = asyncio.Event()
    async with serving(goes_on, unpacks=True) as (client, _):
        answer = await client.ask("POST", "/responses")
        assert await answer.read() == b"Hi"
        heard.set()
        with pytest.raises(Broken):
            await answer.read()
        answer.leave()


async def test_a_server_by_tls_is_asked_if_its_certificate_is_trusted(certificate, monkeypatch):  # noqa: F811
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    async with serving(WHOLE, WHOLE, tls=tls) as (client, _):
        with pytest.raises(Unreachable):
            await asked(client)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
    async with serving(WHOLE, WHOLE, tls=tls) as (client, connections):
        assert [await asked(client) for _ in range(2)] == [b"Hi"] * 2
        assert len(connections) == 1
    async with serving(OK + b"\r\nHi", tls=tls) as (client, _):
        assert await asked(client) == b"Hi"


@pytest.mark.parametrize("host", ["nowhere.invalid", "a..b", "127.0.0.1:1"])
async def test_a_server_that_is_not_there_is_out_of_reach(host):
    client = Server(f"http://{host}/v1", headers={}, connect_seconds=5, idle_seconds=5)
    with pytest.raises(Unreachable):
        await client.ask("GET", "/models")
    await client.close()


async def test_a_server_that_does_not_accept_is_out_of_reach_in_time():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        held = [socket.socket() for _ in range(4)]
        for each in held:  # until its queue is full
            each.setblocking(False)
            each.connect_ex(listening.getsockname())
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        client = Server(url, headers={}, connect_seconds=0.2, idle_seconds=5)
        with pytest.raises(Unreachable):
            await client.ask("GET", "/models")
        await client.close()
        for each in held:
            each.close()

"""Model servers that lie: without an end, packed, elsewhere, or nothing at all. A turn fails, and nothing else does."""

import asyncio
import gzip
from contextlib import asynccontextmanager

import pytest

from antiphon.engine.model import Finish, Text
from antiphon.engine.models.chat_completions import ChatCompletions
from antiphon.engine.models.responses import Responses
from antiphon.errors import ModelError
from tests.servers.antiphon import antiphon
from tests.servers.chat import ChatServer
from tests.servers.running import serve

CHUNKED = b"transfer-encoding: chunked\r\n"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
JSON = STREAM.replace(b"text/event-stream", b"application/json")
CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
WAYS = pytest.mark.parametrize("way", [ChatCompletions, Responses])


@asynccontextmanager
async def lying(*pieces, endless=b"", reads=True):
    """A model server that answers everything with these bytes, the last of them without an end.

    reads: it hears the request out first. Yields its base URL.
    """

    async def answer(reader, writer):
        try:
            if reads:
                await reader.readuntil(b"\r\n\r\n")
            writer.write(b"".join(pieces))
            await writer.drain()
            while endless:
                writer.write(endless)
                await writer.drain()
                await asyncio.sleep(0)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()


async def turned(way, url, *, instructions="", **options):
    """The pieces of one turn."""
    model = way(url, **{"idle_seconds": 0.5, **options})
    model.connection.answer_bytes_max = 30 << 20
    request = {"model": "any", "instructions": instructions}
    try:
        asked = model.turn(request, [{"type": "message", "role": "user", "content": "Hi"}])
        return [delta async for deltas in asked for delta in deltas]
    finally:
        await model.close()


@WAYS
@pytest.mark.parametrize(
    ("pieces", "endless", "told"),
    [
        pytest.param([STREAM, b"\r\n"], b":" + b" " * 99_998 + b"\n", "does not end its answer", id="comments"),
        pytest.param([STREAM, b"\r\n"], b"event: x\n" * 9999, "does not end its answer", id="no data"),
        pytest.param([STREAM, b"\r\n"], b"data: []" + b" " * 9999, "too much at once", id="a line"),
        pytest.param([STREAM, b"\r\n"], b"data: \n" * 9999, "does not end its answer", id="lines of a message"),
        pytest.param([JSON, b"\r\n["], b"1," * 9999, "too much at once", id="JSON"),
        pytest.param([STREAM], b"x-a: b\r\n" * 99, "broke off", id="headers"),
        pytest.param([STREAM, b"x-a: "], b"b" * 9999, "broke off", id="a header"),
        pytest.param([], b"HTTP/1.1 100 Continue\r\n\r\n", "broke off", id="interim answers"),
        pytest.param([], b"\r\n" * 9999, None, id="empty lines"),
        pytest.param([b"HTTP/1.1 500 No\r\n\r\n"], b"no" * 9999, None, id="a failure"),
    ],
)  # fmt: skip
async def test_an_answer_without_an_end_is_given_up(way, pieces, endless, told):
    async with lying(*pieces, endless=endless) as url:
        with pytest.raises(ModelError, match=told):
            await turned(way, url)


@WAYS
async def test_an_answer_that_was_not_to_be_packed_is_not_unpacked(way):
    """A few kilobytes would be gigabytes, and nobody asked for them."""
    bomb = gzip.compress(b": nothing\n" * 10_000_000)
    async with lying(STREAM, b"content-encoding: gzip\r\n\r\n", bomb) as url:
        with pytest.raises(ModelError, match=r"packed its answer \(gzip\), and was asked not to"):
            await turned(way, url)


@WAYS
async def test_a_packed_answer_that_was_asked_for_is_bounded_when_it_is_unpacked(way):
    bomb = gzip.compress((b":" + b" " * 999_998 + b"\n") * 100)
    async with lying(STREAM, b"content-encoding: gzip\r\n\r\n", bomb) as url:
        with pytest.raises(ModelError, match="does not end its answer"):
            await turned(way, url, headers={"accept-encoding": "gzip"})


@WAYS
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(way, status):
    """Not to where only this server can reach, and our key goes nowhere else."""
    with serve(inside := ChatServer()) as secret:
        head = f"HTTP/1.1 {status} Moved\r\nlocation: {secret}/v1/chat/completions\r\ncontent-length: 0\r\n\r\n"
        async with lying(head.encode()) as url:
            with pytest.raises(ModelError, match=f"has no .* there \\(status {status}\\)"):
                await turned(way, url, api_key="sk-ours")

    assert inside.requests == []


@WAYS
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(STREAM.replace(b"text/event-stream", b"text/html") + b"\r\n<p>Hello", id="a page"),
        pytest.param(STREAM.replace(b"text/event-stream", b"image/png") + b"\r\n\x89PNG\r\n", id="a picture"),
        pytest.param(STREAM.replace(b"text/event-stream", b"\xff\xfe") + b"\r\nwhat", id="no type"),
        pytest.param(JSON + b"\r\n[]", id="another JSON"),
        pytest.param(JSON + b'\r\n{"object": "' + b"\xff" + b'"}', id="broken characters"),
        pytest.param(JSON + b"\r\n" + b"[" * 100_000, id="deep JSON"),
        pytest.param(JSON + b"content-length: 1000\r\n\r\n{}", id="less than it says"),
        pytest.param(STREAM + b"\r\ndata: \xff\xfe\n\n", id="a chunk of broken characters"),
        pytest.param(STREAM + b'\r\ndata: "\\ud800"\n\n', id="half a character"),
        pytest.param(STREAM + b"\r\ndata: " + b'{"a":' * 100_000 + b"\n\n", id="a deep chunk"),
        pytest.param(STREAM + b"\r\n", id="nothing"),
        pytest.param(STREAM + CHUNKED + b"\r\nzz\r\n", id="chunk of no size"),
        pytest.param(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", id="upgrade"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", id="no content"),
        pytest.param(b"HTTP/1.1 999 What\r\ncontent-length: 0\r\n\r\n", id="unknown status"),
        pytest.param(b"HTTP/1.1 500 No\r\ncontent-length: 9\r\n\r\n\xff\xfe[[[", id="broken failure"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="another protocol"),
        pytest.param(b"\x15\x03\x01\x00\x02\x02\x46", id="TLS"),
    ],
)
async def test_what_is_no_answer_is_a_failure_of_the_model(way, answer):
    async with lying(answer) as url:
        with pytest.raises(ModelError) as failed:
            await turned(way, url)

    assert failed.value.status >= 500


async def test_an_answer_before_the_request_was_read_is_an_answer():
    async with lying(STREAM, b"connection: close\r\n\r\n", CHUNK, reads=False) as url:
        assert await turned(ChatCompletions, url) == [Text("Hi"), Finish("stop")]


async def test_a_refusal_before_a_large_request_was_read_is_a_failure():
    """It may close the socket on what is still being sent: the refusal is then gone."""
    refusal = b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n"
    async with lying(refusal, reads=False) as url:
        with pytest.raises(ModelError):
            await turned(ChatCompletions, url, instructions="x" * 20_000_000)


@pytest.mark.parametrize("path", ["models", "tokens"])
async def test_a_question_aside_does_not_wait_for_ever_either(path):
    """Each drop comes in time, and the whole never."""
    async with lying(JSON, b"\r\n", endless=b" ") as url:
        model = ChatCompletions(url, idle_seconds=0.3)
        try:
            if path == "models":
                with pytest.raises(ModelError):
                    await model.models()
            else:
                told = await model.count_tokens({"model": "any"}, [])
                assert not told.exact
        finally:
            await model.close()


async def test_a_node_goes_on_when_its_model_server_lies():
    async with lying(STREAM, b"\r\n", endless=b"data: []" + b" " * 9999) as url:
        with antiphon(upstream=url) as server:
            async with server.http() as http:
                answer = await http.post("/responses", json={"model": "any", "input": "Hi"})
                listed = await http.get("/responses")

    assert answer.status_code == 502
    assert "sent a malformed" in answer.json()["error"]["message"] or "too much" in answer.json()["error"]["message"]
    assert [response["status"] for response in listed.json()["data"]] == ["failed"]

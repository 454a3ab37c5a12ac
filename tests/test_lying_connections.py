"""Model servers that lie below the level of an answer: to a server as a process of its own, whose memory is looked at.

One table: what the model server sends, and how the response ends. Whatever it is, it ends within its time, it is told
as what it was, the process stays small, and the next caller gets a right answer.
"""

import gzip
import json
import re
import socketserver
import threading
from collections.abc import Callable
from contextlib import contextmanager
from functools import cache
from itertools import chain, repeat
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from tests.servers.antiphon import Process

RESPONSE_SECONDS = 2.0
GROWTH_BYTES_MAX = 128 << 20
# The HTTP library makes objects of all the heads that one read brings, before anybody can look at the first of them.
GROWTH_OF_HEADS_BYTES_MAX = 384 << 20

OK = b"HTTP/1.1 200 OK\r\n"
EVENTS = b"content-type: text/event-stream\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n"
STREAM = OK + EVENTS + b"\r\n"
HUGE = b"content-length: 10737418240\r\n"


def frame(text: str, finish: str = "stop") -> bytes:
    chunk = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def whole(text: str) -> bytes:
    return frame(text) + b"data: [DONE]\n\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def answer(text: str) -> bytes:
    """A right one, on a connection that may be used again."""
    return IN_CHUNKS + chunk(whole(text)) + b"0\r\n\r\n"


def endless(piece: bytes, *, first: bytes = b"") -> chain[bytes]:
    return chain([first], repeat(piece * (65536 // len(piece) + 1)))


class Drops:
    """A byte, and a byte, and a byte: each comes before anybody could call the server silent."""

    def __init__(self, first: bytes, drop: bytes) -> None:
        self.first, self.drop = first, drop


@cache
def bomb() -> bytes:
    """Some hundred kilobytes that would be a hundred megabytes."""
    return gzip.compress(b": nothing\n" * 10_000_000, 1)


JSON = OK + b"content-type: application/json\r\n\r\n"
IN_CHUNKS = OK + EVENTS + CHUNKED + b"\r\n"
UTF_16 = OK + b"content-type: text/event-stream; charset=utf-16\r\n\r\n"
PACKED_CHUNKS = OK + EVENTS + b"transfer-encoding: gzip, chunked\r\n\r\n"
UPGRADE = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"
TOO_LONG = "took longer than 2 seconds"
BROKE_OFF = "broke off"
TOO_MUCH = "too much at once"
NO_END = "does not end its answer|broke off|too much at once|silent for too long|" + TOO_LONG  # which limit is first
ANY = "."
LIES: dict[str, tuple[Callable[[], Any], str]] = {
    "10 GB of comments": (lambda: endless(b": nothing\n", first=OK + EVENTS + HUGE + b"\r\n"), NO_END),
    "10 GB of empty lines": (lambda: endless(b"\n", first=OK + EVENTS + HUGE + b"\r\n"), NO_END),
    "10 GB in one chunk": (lambda: endless(b":\n", first=IN_CHUNKS + b"280000000\r\n"), NO_END),
    "a line without an end": (lambda: endless(b"x", first=STREAM + b"data: "), TOO_MUCH),
    "a message without an end": (lambda: endless(b"data: x\n", first=STREAM), NO_END),
    "JSON without an end": (lambda: endless(b"[", first=JSON), TOO_MUCH),
    "a failure without an end": (lambda: endless(b"no", first=b"HTTP/1.1 500 No\r\n\r\n"), "500"),
    "headers without an end": (lambda: endless(b"x-a: b\r\n", first=OK), BROKE_OFF),
    "a header without an end": (lambda: endless(b"b", first=OK + b"x-a: "), BROKE_OFF),
    "a status without an end": (lambda: endless(b"b", first=b"HTTP/1.1 200 "), BROKE_OFF),
    "interim answers without an end": (lambda: endless(b"HTTP/1.1 103 Early Hints\r\nlink: <a>\r\n\r\n"), NO_END),
    "chunk extensions without an end": (lambda: endless(b"x", first=IN_CHUNKS + b"5;a="), NO_END),
    "a chunk size without an end": (lambda: endless(b"0", first=IN_CHUNKS), NO_END),
    "small chunks without an end": (lambda: endless(b"1\r\n:\r\n", first=IN_CHUNKS), NO_END),
    "trailers without an end": (lambda: endless(b"x-a: b\r\n", first=IN_CHUNKS + b"0\r\n"), NO_END),
    "drops of a head": (lambda: Drops(OK + b"x-a: ", b"b"), TOO_LONG),
    "drops of comments": (lambda: Drops(STREAM, b":\n"), TOO_LONG),
    "drops of a line": (lambda: Drops(STREAM + b"data: ", b" "), TOO_LONG),
    "drops of JSON": (lambda: Drops(JSON, b" "), TOO_LONG),
    "a bomb": (lambda: [OK + EVENTS + b"content-encoding: gzip\r\n\r\n", bomb()], r"packed its answer \(gzip\)"),
    "a bomb without a name": (lambda: [STREAM, bomb()], "malformed|broke off|too much"),
    "a bomb in its transfer": (lambda: [PACKED_CHUNKS, chunk(bomb()), b"0\r\n\r\n"], ANY),
    "a page": (lambda: [OK + b"content-type: text/html\r\n\r\n<p>Sign in", b""], "a web page"),
    "another character set": (lambda: [UTF_16, whole("Hi").decode().encode("utf-16")], ANY),
    "cut in a chunk": (lambda: [IN_CHUNKS + b"100\r\n", frame("Hi", "")], BROKE_OFF),
    "shorter than it says": (lambda: [OK + EVENTS + HUGE + b"\r\n", frame("Hi", "")], BROKE_OFF),
    "a length below nothing": (lambda: [OK + EVENTS + b"content-length: -5\r\n\r\n", whole("Hi")], BROKE_OFF),
    "two lengths": (lambda: [OK + EVENTS + b"content-length: 5\r\ncontent-length: 50\r\n\r\n", whole("Hi")], BROKE_OFF),
    "an upgrade": (lambda: [UPGRADE, whole("Hi")], ANY),
    "another protocol": (lambda: [b"SSH-2.0-OpenSSH_9.2\r\n"], BROKE_OFF),
    "nothing at all": (list, BROKE_OFF),
}  # fmt: skip

RIGHT: dict[str, Callable[[], Any]] = {
    "right": lambda: [answer("Right")],
    "right, and another's": lambda: [answer("Right") + answer("Of another")],
    "HTTP/1.0": lambda: [b"HTTP/1.0 200 OK\r\n" + EVENTS + b"\r\n" + whole("Right")],
    "chunk extensions": lambda: [IN_CHUNKS + chunk(whole("Right")).replace(b"\r\n", b";a=b\r\n", 1), b"0\r\n\r\n"],
    "interim answers": lambda: [b"HTTP/1.1 103 Early Hints\r\nlink: <a>\r\n\r\n" * 3, answer("Right")],
}  # fmt: skip


class Liar(socketserver.StreamRequestHandler):
    """Answers as the model's name wants it; hangs up behind it, unless it is a right answer."""

    server: "Lying"

    def handle(self) -> None:
        while body := self._asked():
            name = body["model"]
            self.server.seen.append(name)
            said = self.server.said[name]()
            try:
                if isinstance(said, Drops):
                    self._drop(said)
                else:
                    for piece in said:
                        self.wfile.write(piece)
            except OSError:  # we were left, as we should be
                return
            if not name.startswith("right"):
                return

    def _asked(self):
        head = {}
        while (line := self.rfile.readline()) not in (b"", b"\r\n"):
            name, _, value = line.partition(b":")
            head[name.lower()] = value
        return json.loads(self.rfile.read(int(head[b"content-length"]))) if b"content-length" in head else None

    def _drop(self, said: Drops) -> None:
        self.wfile.write(said.first)
        while not self.server.over.wait(0.05):
            self.wfile.write(said.drop)


class Lying(socketserver.ThreadingTCPServer):
    daemon_threads = allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Liar)
        self.seen: list[str] = []
        self.over = threading.Event()
        self.said = {**{name: said for name, (said, _) in LIES.items()}, **RIGHT}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def lying():
    server = Lying()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A server, and the model server that it asks."""
    bomb()  # it is not made while somebody waits for it
    with lying() as upstream:
        database = tmp_path_factory.mktemp("lying")
        server = Process(upstream.url, database, "--response-seconds", str(RESPONSE_SECONDS))
        try:
            yield server, upstream
        finally:
            server.close()


@pytest.fixture
async def http(asked):
    async with asked[0].http() as http:
        yield http


def peak_bytes(pid: int, *, anew: bool = False) -> int:
    """The largest that the process has been, from now on if it is to begin anew."""
    if anew:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


async def ended(http, name):
    """The response as its last event has it."""
    body = {"model": name, "input": "Hi", "stream": True}
    async with http.stream("POST", "/responses", json=body) as answer:
        lines = [line async for line in answer.aiter_lines() if line.startswith("data: ")]
    return json.loads(lines[-1][6:])["response"]


@pytest.mark.parametrize("name", LIES)
async def test_a_lie_ends_in_time_and_in_little_memory_and_is_told(asked, http, name):
    server, upstream = asked
    before = peak_bytes(server.pid, anew=True)
    began = monotonic()
    response = await ended(http, name)

    assert response["status"] == "failed"
    assert response["error"]["code"] == "server_error"
    assert re.search(LIES[name][1], response["error"]["message"]), response["error"]
    assert upstream.url.removeprefix("http://") not in response["error"]["message"]
    assert monotonic() - began < 10 * RESPONSE_SECONDS
    heads = name == "interim answers without an end"
    assert peak_bytes(server.pid) - before < (GROWTH_OF_HEADS_BYTES_MAX if heads else GROWTH_BYTES_MAX)
    assert (await ended(http, "right"))["status"] == "completed"


@pytest.mark.parametrize("name", RIGHT)
async def test_what_is_only_unusual_is_an_answer(http, name):
    response = await ended(http, name)

    assert response["status"] == "completed", response["error"]
    assert response["output"][0]["content"][0]["text"] == "Right"


async def test_what_nobody_asked_for_is_nobodys_answer(http):
    """A second answer on the same connection would be taken for that of the next request."""
    for name in ("right, and another's", "right", "right, and another's", "right"):
        response = await ended(http, name)

        assert response["output"][0]["content"][0]["text"] == "Right"

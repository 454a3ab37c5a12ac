"""Callers that do not play by the rules of WebSockets: their connection ends, memory stays, and nobody else notices."""

import asyncio
import base64
import json
import os
import re
import struct
import zlib
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.servers.antiphon import Process
from tests.servers.chat import ChatServer
from tests.servers.running import serve

CREATE = json.dumps({"type": "response.create", "model": "text:Hello", "input": "Hi"}).encode()
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
MESSAGE_BYTES_MAX = 1 << 20
GROWTH_BYTES_MAX = 48 << 20


def frame(opcode: int, data: bytes = b"", *, end: bool = True, packed: bool = False, masked: bool = True) -> bytes:
    """A frame as a client sends it; its mask is of zeros, which is allowed."""
    head = bytes([opcode | (0x80 if end else 0) | (0x40 if packed else 0)])
    mark = 0x80 if masked else 0
    if len(data) < 126:
        head += bytes([mark | len(data)])
    elif len(data) < 1 << 16:
        head += bytes([mark | 126]) + struct.pack(">H", len(data))
    else:
        head += bytes([mark | 127]) + struct.pack(">Q", len(data))
    return head + (b"\0\0\0\0" if masked else b"") + data


def packed(data: bytes) -> bytes:
    packer = zlib.compressobj(9, wbits=-12)
    return (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A process of its own, whose memory can be looked at."""
    with serve(ChatServer()) as upstream:
        database = tmp_path_factory.mktemp("frames")
        server = Process(upstream, database, "--max-body-bytes", str(MESSAGE_BYTES_MAX))
        try:
            yield server
        finally:
            server.close()


@asynccontextmanager
async def connected(server, *, packs=False):
    """The two ends of a connection behind its handshake. packs: messages may be packed."""
    where = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port, limit=1 << 26)
    key = base64.b64encode(os.urandom(16)).decode()
    extension = "sec-websocket-extensions: permessage-deflate; client_max_window_bits\r\n" if packs else ""
    writer.write(
        f"GET /v1/responses HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        f"sec-websocket-key: {key}\r\nsec-websocket-version: 13\r\n"
        f"{extension}\r\n".encode()
    )
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert (b"permessage-deflate" in head) == packs
    try:
        yield reader, writer
    finally:
        writer.transport.abort()  # also of what the server will not read


async def ended(reader):
    """The code that the server closes the connection with; None if that was lost with what it did not read."""
    said = b""
    try:
        while data := await reader.read(1 << 16):
            said += data
    except ConnectionError:
        pass
    closing = said.rfind(b"\x88")
    return None if closing < 0 else struct.unpack(">H", said[closing + 2 : closing + 4])[0]


def peak_bytes(pid, *, anew=False):
    if anew:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


async def is_served(server):
    async with connected(server) as (reader, writer):
        writer.write(frame(TEXT, CREATE))
        said = b""
        while b"response.completed" not in said:
            said += await reader.read(1 << 16) or pytest.fail("the connection ended")
    return True


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        pytest.param(frame(TEXT, b"\xff\xfe"), 1007, id="broken characters"),
        pytest.param(frame(TEXT, b'{"a": "\xed\xa0\x80"}'), 1007, id="half a character"),
        pytest.param(frame(TEXT, b"\xc3", end=False) + frame(0, b"("), 1007, id="a character in two wrong pieces"),
        pytest.param(frame(TEXT, CREATE, masked=False), 1002, id="no mask"),
        pytest.param(frame(0, b"x"), 1002, id="a piece of nothing"),
        pytest.param(frame(TEXT, b"{", end=False) + frame(TEXT, b"}"), 1002, id="a message inside of another"),
        pytest.param(frame(PING, b"x" * 126), 1002, id="a long ping"),
        pytest.param(frame(PING, b"x", end=False), 1002, id="a ping in pieces"),
        pytest.param(frame(3, b"x"), 1002, id="an unknown kind"),
        pytest.param(b"\xb1\x81\0\0\0\0x", 1002, id="reserved bits"),
        pytest.param(frame(CLOSE, b"x"), 1002, id="half a code"),
        pytest.param(frame(CLOSE, b"\x03\xe8\xff"), 1007, id="a reason of broken characters"),
        pytest.param(frame(TEXT, b"x" * (MESSAGE_BYTES_MAX + 1)), 1009, id="a large frame"),
        pytest.param(b"\x81\xff" + b"\x7f" + b"\xff" * 7 + b"\0\0\0\0", 1009, id="a frame without an end"),
        pytest.param(b"\x81\xff" + b"\xff" * 8 + b"\0\0\0\0", 1009, id="a frame of no size"),
        pytest.param(frame(TEXT, packed(b" " * 100_000_000), packed=True), 1009, id="a bomb"),
        pytest.param(
            frame(TEXT, b"x" * 600_000, end=False) + frame(0, b"x" * 600_000), 1009, id="a large message in pieces"
        ),
        pytest.param(frame(TEXT, b"\xff\xff\xff", packed=True), 1002, id="packed badly"),
    ],
)
async def test_what_is_no_message_ends_its_connection(server, sent, code):
    before = peak_bytes(server.pid, anew=True)
    async with connected(server, packs=True) as (reader, writer):
        writer.write(sent)

        assert await ended(reader) in ([code] if len(sent) < 1 << 16 else [code, None])
    assert peak_bytes(server.pid) - before < GROWTH_BYTES_MAX
    assert await is_served(server)


async def test_pieces_weigh_no_more_than_what_they_say(server):
    pieces = frame(0, b" ", end=False) * 10_000
    before = peak_bytes(server.pid, anew=True)
    async with connected(server) as (reader, writer):
        writer.write(frame(TEXT, b"", end=False))
        for _ in range(30):
            writer.write(pieces)
            await writer.drain()
        writer.write(frame(0, CREATE))
        said = b""
        while b"response.completed" not in said:
            said += await reader.read(1 << 16) or pytest.fail("the connection ended")

    assert peak_bytes(server.pid) - before < 10 << 20  # 17 MB, if each were kept apart


async def test_who_reads_no_answers_to_his_pings_is_not_read(server):
    pings = frame(PING, b"x" * 125) * 5_000
    before = peak_bytes(server.pid, anew=True)
    async with connected(server) as (reader, writer):
        reader._transport.pause_reading()
        sent = 0
        for _ in range(200):  # 130 MB, if they were taken
            writer.write(pings)
            try:
                await asyncio.wait_for(writer.drain(), 2)
            except TimeoutError:
                break
            sent += len(pings)
        reader._transport.resume_reading()

        assert sent < 64 << 20
        assert await reader.readexactly(127) == b"\x8a\x7d" + b"x" * 125
    assert peak_bytes(server.pid) - before < GROWTH_BYTES_MAX
    assert await is_served(server)


async def test_pings_are_answered_while_an_answer_is_on_its_way(server):
    async with connected(server) as (reader, writer):
        writer.write(frame(TEXT, CREATE[: len(CREATE) // 2], end=False))
        writer.write(frame(PING, b"?") + frame(PONG, b"!") + frame(0, CREATE[len(CREATE) // 2 :]))
        said = b""
        while b"response.completed" not in said:
            said += await reader.read(1 << 16) or pytest.fail("the connection ended")

    assert said.startswith(b"\x8a\x01?")


async def test_a_message_of_bytes_is_a_message(server):
    async with connected(server) as (reader, writer):
        writer.write(frame(BINARY, CREATE))
        said = b""
        while b"response.completed" not in said:
            said += await reader.read(1 << 16) or pytest.fail("the connection ended")


HALF = b"{" + b" " * 199_999


@pytest.mark.parametrize(
    ("half", "rest"),
    [
        pytest.param(frame(TEXT, HALF, end=False), frame(0, b"}"), id="pieces"),
        pytest.param(frame(TEXT, HALF + b"}")[:-1], b"}", id="half a frame"),
    ],
)
async def test_what_is_not_whole_yet_is_counted_and_sent_away_when_there_is_no_room(tmp_path, half, rest):
    with serve(ChatServer()) as upstream:
        server = Process(upstream, tmp_path, "--max-body-bytes", "400000", "--max-held-bytes", "1")
        try:
            async with connected(server) as (reader, writer), connected(server) as (other, sending):
                writer.write(half)
                while await held_bytes(server) < len(HALF):
                    pass
                sending.write(half)
                assert await ended(other) == 1013

                writer.write(rest)
                assert b"response.create" in await reader.read(1 << 16)  # it tells what a message has to be
            while await held_bytes(server):
                pass
        finally:
            server.close()


async def held_bytes(server):
    async with httpx2.AsyncClient() as http:
        page = (await http.get(server.url.removesuffix("/v1") + "/metrics")).text
    found = re.search(r"^antiphon_held_bytes (\S+)$", page, re.MULTILINE)
    assert found
    return float(found[1])

"""The decoder takes every legal form in any pieces; the encoder's one form is among them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.errors import ProtocolError
from antiphon.protocol.sse import Decoder, Message, encode

EVENTS = [
    {"type": "response.created", "response": {"id": "resp_1", "output": []}, "sequence_number": 0},
    {"type": "response.output_text.delta", "delta": "a\nb\u2028c ☃", "sequence_number": 1},
    {"type": "error", "message": "data: x\r\n\r\n", "sequence_number": 2},
]


def decode(stream: bytes, cuts: list[int] | None = None) -> list[Message]:
    decoder = Decoder()
    places = [0, *sorted(cuts or []), len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(places)]
    return [message for piece in pieces for message in decoder.feed(piece)] + decoder.close()


def test_a_frame_is_the_type_and_the_json_on_one_line():
    assert encode(EVENTS[0]) == (
        b"event: response.created\n"
        b'data: {"type":"response.created","response":{"id":"resp_1","output":[]},"sequence_number":0}\n\n'
    )


def test_what_is_encoded_is_decoded():
    messages = decode(b"".join(map(encode, EVENTS)))

    assert [message.event for message in messages] == [event["type"] for event in EVENTS]
    assert [encode(event).split(b"data: ", 1)[1][:-2] for event in EVENTS] == [message.data for message in messages]


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: a\n\n", [("message", b"a", "")]),
        (b"data:a\n\n", [("message", b"a", "")]),
        (b"data:  a\n\n", [("message", b" a", "")]),
        (b"data\n\n", [("message", b"", "")]),
        (b"data: a\r\n\r\n", [("message", b"a", "")]),
        (b"data: a\r\r", [("message", b"a", "")]),
        (b"data: a\r\n\ndata: b\n\r\n", [("message", b"a", ""), ("message", b"b", "")]),
        (b"data: a\ndata: b\n\n", [("message", b"a\nb", "")]),
        (b"data: a\n\n\n\ndata: b\n\n", [("message", b"a", ""), ("message", b"b", "")]),
        (b": comment\n\ndata: a\n:x\ndata: b\n\n", [("message", b"a\nb", "")]),
        (b"event: x\n\ndata: a\n\n", [("message", b"a", "")]),
        (b"event: x\ndata: a\n\ndata: b\n\n", [("x", b"a", ""), ("message", b"b", "")]),
        (b"id: 7\ndata: a\n\ndata: b\n\n", [("message", b"a", "7"), ("message", b"b", "7")]),
        (b"id: 7\0\nretry: 5\nunknown: z\ndata: a\n\n", [("message", b"a", "")]),
        (b"\xef\xbb\xbfdata: a\n\n", [("message", b"a", "")]),
        (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", []),
        (b"data: a\n", [("message", b"a", "")]),
        (b"data: a", [("message", b"a", "")]),
        (b"", []),
    ],
)
def test_every_legal_form_is_understood(stream: bytes, expected: list[tuple[str, bytes, str]]):
    assert decode(stream) == expected
    assert decode(stream, list(range(len(stream)))) == expected


LINES = st.sampled_from(
    [b"data: a", b"data:", b"data", b"event: e", b": c", b"id: 1", b"", b"\xef\xbb\xbf", b"data: \xe2\x98\x83"]
)
ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])


@given(st.lists(st.tuples(LINES, ENDS), max_size=20), st.lists(st.integers(0, 200), max_size=30))
def test_any_chunking_decodes_alike(lines: list[tuple[bytes, bytes]], cuts: list[int]):
    stream = b"".join(line + end for line, end in lines)

    assert decode(stream, [cut for cut in cuts if cut < len(stream)]) == decode(stream)


def test_a_message_comes_with_its_last_byte_and_not_later():
    decoder = Decoder()

    assert decoder.feed(b"data: a\r") == []
    assert decoder.feed(b"\n\r") == [("message", b"a", "")]
    assert decoder.feed(b"\n") == []


@pytest.mark.parametrize("stream", [b"data: " + b"x" * 100, b"data: xxxx\n" * 30])
def test_what_is_too_long_is_refused(stream: bytes):
    decoder = Decoder(limit_bytes=64)

    with pytest.raises(ProtocolError, match="longer than 64 bytes"):
        decoder.feed(stream)

"""Server-sent events as bytes: `encode` for the one form that we send, `Decoder` for every form that is legal.

A frame is `event: <type>`, `data: <JSON on one line>` and an empty line; the number stands last in the JSON.
Source: the HTML standard, "Server-sent events", and the recorded streams of the API.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec

from antiphon.errors import ProtocolError

KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"

_encode_json = msgspec.json.Encoder().encode
_encode_lines = msgspec.json.Encoder().encode_lines


class _Heads(dict[str, bytes]):
    """The first line of a frame and the name of the second, by event type."""

    def __missing__(self, type: str) -> bytes:
        head = self[type] = b"event: " + type.encode() + b"\ndata: "
        return head


_HEADS = _Heads()


def encode(event: Mapping[str, Any]) -> bytes:
    """The event's frame, as it is."""
    return _HEADS[event["type"]] + _encode_json(event) + b"\n\n"


def encode_alike(type: str, events: Sequence[Mapping[str, Any]]) -> bytes:
    """The frames of events that all have this type, in half the time: JSON on one line holds no line end."""
    head = _HEADS[type]
    return head + _encode_lines(events)[:-1].replace(b"\n", b"\n\n" + head) + b"\n\n"


class Message(NamedTuple):
    """One dispatched message; `event` is "message" and `id` is "" where the stream named none."""

    event: str
    data: bytes
    id: str


_message = partial(tuple.__new__, Message)  # without the Python function that a NamedTuple is made by


class Decoder:
    """Takes a stream in pieces of any size and gives its messages as soon as their last byte is there.

    limit_bytes: no line and no message may be longer; ProtocolError beyond it.
    """

    def __init__(self, *, limit_bytes: int = 64 << 20) -> None:
        self._limit_bytes = limit_bytes
        self._start = b""  # the first bytes, until they are known not to be a byte order mark
        self._started = False
        self._after_cr = False  # a LF that comes next belongs to the CR before it
        self._line: list[bytes] = []  # pieces of the line that is not ended yet
        self._line_bytes = 0
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._event = ""
        self._id = ""

    def feed(self, data: bytes) -> list[Message]:
        """The messages that end in `data`."""
        if not self._started:
            data = self._without_mark(data)
        if self._after_cr and data:
            self._after_cr = False
            if data[0] == 10:
                data = data[1:]
        if b"\r" in data:
            self._after_cr = data[-1] == 13
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if b"\n" not in data:
            self._keep(data)
            return []
        lines = data.split(b"\n")
        if self._line:
            lines[0] = b"".join([*self._line, lines[0]])
            self._line.clear()
            self._line_bytes = 0
        self._keep(lines.pop())
        return self._take(lines)

    def close(self) -> list[Message]:
        """What the end of the stream leaves: a last message whose empty line never came, as some servers do."""
        lines = [b"".join(self._line), b""] if self._line else [b""]
        self._line.clear()
        self._line_bytes = 0
        return self._take(lines)

    def _without_mark(self, data: bytes) -> bytes:
        """Drop a UTF-8 byte order mark from the very beginning, however it is cut."""
        data = self._start + data
        if len(data) < 3 and b"\xef\xbb\xbf".startswith(data):
            self._start = data
            return b""
        self._started = True
        return data.removeprefix(b"\xef\xbb\xbf")

    def _keep(self, piece: bytes) -> None:
        if piece:
            self._line.append(piece)
            self._line_bytes += len(piece)
            if self._line_bytes > self._limit_bytes:
                raise ProtocolError(f"A line of the event stream is longer than {self._limit_bytes} bytes.")

    def _take(self, lines: list[bytes]) -> list[Message]:
        messages = []
        for line in lines:
            if not line:
                if self._data:
                    data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
                    messages.append(_message((self._event or "message", data, self._id)))
                    self._data.clear()
                    self._data_bytes = 0
                self._event = ""
                continue
            if line[:6] == b"data: ":  # nearly every line there is
                self._add(line[6:])
                continue
            name, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if name == b"data":
                self._add(value)
            elif name == b"event":
                self._event = value.decode("utf-8", "replace")
            elif name == b"id" and b"\0" not in value:
                self._id = value.decode("utf-8", "replace")
            # Anything else is a comment (an empty name), `retry`, or unknown: ignored, as the standard says.
        return messages

    def _add(self, value: bytes) -> None:
        self._data.append(value)
        self._data_bytes += len(value)
        if self._data_bytes > self._limit_bytes:
            raise ProtocolError(f"A message of the event stream is longer than {self._limit_bytes} bytes.")

"""What is sent piece by piece: files, read from the disk while they are sent, and the multipart forms around them."""

from __future__ import annotations

import io
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from antiphon.client.forms import pairs, text
from antiphon.errors import InvalidRequest

CHUNK_BYTES = 256 * 1024
UNNAMED = "upload"  # a file needs a name, or servers take it for a text
BINARY = "application/octet-stream"


@dataclass(frozen=True)
class Content:
    """The bytes of one piece, or where they are."""

    source: bytes | os.PathLike[str] | IO[bytes]
    size: int | None  # None if only reading it tells
    start: int | None = None  # where an open file was when it was given; None if it cannot be wound back

    @property
    def repeatable(self) -> bool:
        return self.start is not None or isinstance(self.source, (bytes, os.PathLike))

    def chunks(self) -> Iterator[bytes]:
        if isinstance(self.source, bytes):
            yield self.source
            return
        left = self.size
        with self._opened() as opened:
            while chunk := opened.read(CHUNK_BYTES if left is None else min(left, CHUNK_BYTES)):
                left = None if left is None else left - len(chunk)
                yield chunk
        if left:  # it was promised to the server; what has been added meanwhile was not
            raise InvalidRequest(f"{_name(self.source)} became shorter while it was sent.")

    @contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        assert not isinstance(self.source, bytes), "bytes are no file"
        if isinstance(self.source, os.PathLike):
            with open(self.source, "rb") as file:
                yield file
            return
        if self.start is not None:
            self.source.seek(self.start)
        yield self.source  # it stays open: who opened it closes it


@dataclass(frozen=True)
class File:
    """A file as a field of a form."""

    content: Content
    name: str
    kind: str  # its content type


class Upload:
    """A body that is never held as a whole. It can be iterated again if all of its files can be read again."""

    def __init__(self, pieces: Sequence[Content]) -> None:
        self._pieces = pieces
        self._begun = False

    @property
    def size(self) -> int | None:
        sizes = [piece.size for piece in self._pieces]
        return None if None in sizes else sum(size or 0 for size in sizes)

    @property
    def repeatable(self) -> bool:
        return not self._begun or all(piece.repeatable for piece in self._pieces)

    def __iter__(self) -> Iterator[bytes]:
        if not self.repeatable:
            raise InvalidRequest("A file that cannot be wound back would have to be sent a second time.")
        self._begun = True
        try:
            for piece in self._pieces:
                yield from piece.chunks()
        except OSError as error:
            raise InvalidRequest(f"A file could not be read while it was sent: {error}") from error


def file(value: Any) -> File | None:
    """The value as a file: a path, bytes, an open file, or a tuple (name, one of these[, content type]).

    None if it is something else; a string is a text, never a path. Raises InvalidRequest if it cannot be read.
    """
    name, kind = None, None
    if isinstance(value, tuple) and len(value) in (2, 3) and _is_content(value[1]):
        name, value, kind = value[0], value[1], value[2] if len(value) == 3 else None
    if not _is_content(value):
        return None
    name = name or _name(value)
    return File(content(value), name, kind or _kind(name))


def content(value: Any) -> Content:
    if isinstance(value, (bytes, bytearray, memoryview)):
        data = bytes(value)
        return Content(data, len(data))
    if isinstance(value, io.TextIOBase):
        raise InvalidRequest(f"{_name(value)} is open as text; a file is sent as it is: open it in the mode 'rb'.")
    try:
        if isinstance(value, os.PathLike):
            with open(value, "rb") as opened:  # whoever may not read it hears so before anything is sent
                return Content(value, os.fstat(opened.fileno()).st_size)
        return _open_file(value)
    except OSError as error:
        place = os.fspath(value) if isinstance(value, os.PathLike) else _name(value)
        raise InvalidRequest(f"{place} cannot be read: {error.strerror or error}.") from error


def _open_file(opened: IO[bytes]) -> Content:
    seekable = getattr(opened, "seekable", None)
    if seekable is None or not seekable():
        return Content(opened, None)
    start = opened.tell()
    end = opened.seek(0, os.SEEK_END)
    opened.seek(start)
    return Content(opened, end - start, start)


def multipart(fields: Mapping[str, Any], kinds: Mapping[str, str]) -> tuple[str, Upload]:
    """The form's content type, and the form.

    kinds: content types of fields that are no files; one of application/json is sent as JSON.
    """
    boundary = secrets.token_hex(16)
    pieces: list[Content] = []
    for name, value in _parts(fields, kinds):
        if isinstance(value, File):
            head = f'; name="{_quoted(name)}"; filename="{_quoted(value.name)}"\r\nContent-Type: {_line(value.kind)}'
            body = value.content
        else:
            head = f'; name="{_quoted(name)}"' + (f"\r\nContent-Type: {kinds[name]}" if name in kinds else "")
            body = content(text(value).encode())
        start = f"--{boundary}\r\nContent-Disposition: form-data{head}\r\n\r\n"
        pieces += [content(start.encode(errors="replace")), body, content(b"\r\n")]
    pieces.append(content(f"--{boundary}--\r\n".encode()))
    return f"multipart/form-data; boundary={boundary}", Upload(pieces)


def _parts(fields: Mapping[str, Any], kinds: Mapping[str, str]) -> Iterable[tuple[str, Any]]:
    for name, value in fields.items():
        if kinds.get(name) == "application/json":
            yield name, json.dumps(value)
        else:
            yield from ((each, leaf) for each, leaf in pairs(name, value) if leaf is not None)


def _is_content(value: Any) -> bool:
    return isinstance(value, (bytes, bytearray, memoryview, os.PathLike)) or callable(getattr(value, "read", None))


def _name(value: Any) -> str:
    """What a path or an open file is called."""
    name = value if isinstance(value, os.PathLike) else getattr(value, "name", None)
    return os.path.basename(os.fspath(name)) if isinstance(name, (str, os.PathLike)) else UNNAMED


def _kind(name: str) -> str:
    import mimetypes  # reads the system's tables

    return mimetypes.guess_type(name)[0] or BINARY


def _quoted(name: str) -> str:
    """The name as browsers write it. Source: the HTML standard, "multipart/form-data encoding algorithm"."""
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def _line(value: str) -> str:
    return value.replace("\r", " ").replace("\n", " ")

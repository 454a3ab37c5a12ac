"""Portable records as a file: lines of JSON, the first of which says what it is, and the last one that it is whole.

Each line ends with a checksum of everything up to it. So a reader takes in nothing that was changed, and can say where.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Any, BinaryIO, TypeAlias

import msgspec

from antiphon.errors import StoreError
from antiphon.store.portable import Record, decode_hook, encode_hook

VERSION = 1  # of the form; a new kind of record, or a new field, needs another

_HEADER_BYTES_MAX = 4096
_SUM = b',"sum":"%s"}\n'
_SUM_DIGITS = 16
_SUM_BYTES = len(_SUM) - 2 + _SUM_DIGITS


class Header(msgspec.Struct, frozen=True, tag_field="record", tag="antiphon"):
    """The first line."""

    version: int
    exported_at: float


class End(msgspec.Struct, frozen=True, tag_field="record", tag="end"):
    """The last line: how many records there were of each kind."""

    counts: dict[str, int]


_Line: TypeAlias = Record | Header | End


def kind_of(record: type[msgspec.Struct]) -> str:
    """What a kind of record is called."""
    return str(record.__struct_config__.tag)


class Encoder:
    """Makes the lines of one file, to be asked for in their order."""

    def __init__(self) -> None:
        self._json = msgspec.json.Encoder(enc_hook=encode_hook)
        self._sum = sha256()
        self.counts: Counter[str] = Counter()

    def header(self, *, now: float) -> bytes:
        return self._line(Header(VERSION, now))

    def lines(self, records: Iterable[Record]) -> bytes:
        return b"".join(map(self._counted, records))

    def end(self) -> bytes:
        return self._line(End(dict(self.counts)))

    def _counted(self, record: Record) -> bytes:
        self.counts[kind_of(type(record))] += 1
        return self._line(record)

    def _line(self, line: _Line) -> bytes:
        body = self._json.encode(line)
        self._sum.update(body)
        return body[:-1] + _SUM % _digits(self._sum)


class Decoder:
    """Reads the records of one file. Raises StoreError, which names the line, for one that is not as it was written."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        self._json = msgspec.json.Decoder(_Line, dec_hook=decode_hook)
        self._sum = sha256()
        self._number = 0
        self.counts: Counter[str] = Counter()

    def records(self) -> Iterator[Record]:
        self._read_header()
        while not isinstance(line := self._read(self._file.readline()), End):
            if isinstance(line, Header):
                raise self._refusal("another export begins here; import one after the other")
            self.counts[kind_of(type(line))] += 1
            yield line
        if line.counts != self.counts:
            raise self._refusal("the counts are not those of the lines before")
        if self._file.readline(1):
            self._number += 1
            raise self._refusal("something stands behind the end")

    def _read_header(self) -> None:
        first = self._file.readline(_HEADER_BYTES_MAX)
        try:
            version = msgspec.json.decode(first, type=Header).version
        except msgspec.MsgspecError as error:
            raise StoreError(f"{self._name} is not an export of Antiphon.") from error
        if version != VERSION:
            raise StoreError(
                f"{self._name} was written by another Antiphon (its form is {version}; this one knows {VERSION}). "
                "Import it with that one, or export again with this one."
            )
        self._read(first)

    def _read(self, line: bytes) -> _Line:
        self._number += 1
        if not line.endswith(b"\n"):
            raise self._refusal("the file ends here, but not with its last line: it was cut off")
        body = line[:-_SUM_BYTES] + b"}"
        self._sum.update(body)
        if line[-_SUM_BYTES:] != _SUM % _digits(self._sum):
            raise self._refusal("this, or the order of the lines, is not what was written: it was changed")
        try:
            decoded: _Line = self._json.decode(body)
            return decoded
        except msgspec.ValidationError as error:
            raise self._refusal(str(error)) from error

    def _refusal(self, reason: str) -> StoreError:
        return StoreError(
            f"{self._name}, line {self._number}: {reason}. Nothing from here on was imported; "
            "to complete what came before, import the whole file again."
        )


def _digits(sum: Any) -> bytes:
    digits: str = sum.hexdigest()
    return digits[:_SUM_DIGITS].encode("ascii")

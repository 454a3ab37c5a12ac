"""The index: a compiled document in one file, from which each operation and schema is read alone.

The file is one line of JSON that says where each entry lies, then the entries. It lives in the user's cache
directory and may be lost, damaged or unwritable at any time: then it is made again, which takes up to a second.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Raise it with every change of what compiling makes, so that older caches are not read.
INDEX_VERSION = 3

SILENT_SECONDS_MAX = 1.0  # whoever waits longer is told why
UNUSED_SECONDS_MAX = 90 * 86400.0
_USED_EACH_SECONDS = 86400.0  # how exactly it is known when an index was used last

_NAME = re.compile(r"spec-[0-9a-f]+-(\d+)\.index")
_UNFINISHED = ".spec-"
_MAGIC = b"antiphon index %d\n" % INDEX_VERSION


class Index:
    """The entries of a compiled document, parsed when they are asked for."""

    def __init__(self, data: bytes) -> None:
        """Raises ValueError if `data` is not a whole index of this version."""
        if not data.startswith(_MAGIC):
            raise ValueError("not an index of this version")
        line_end = data.index(b"\n", len(_MAGIC))
        head = json.loads(data[len(_MAGIC) : line_end])
        self._data = data
        self._start = line_end + 1
        if zlib.crc32(memoryview(data)[self._start :]) != head["crc32"]:
            raise ValueError("a damaged index")
        self.about: dict[str, Any] = head["about"]
        self.operations: dict[str, list[Any]] = head["operations"]  # id: [start, end, name, method, path]
        self.schemas: dict[str, list[int]] = head["schemas"]  # name: [start, end]
        self._schemas: dict[str, dict[str, Any]] = {}

    def operation(self, operation_id: str) -> dict[str, Any]:
        start, end, *_ = self.operations[operation_id]
        return self._entry(start, end)

    def schema(self, name: str) -> dict[str, Any]:
        return self._named(name)["schema"]  # type: ignore[no-any-return]

    def references(self, name: str) -> list[str]:
        """The names that a named schema itself refers to."""
        return self._named(name)["refs"]  # type: ignore[no-any-return]

    def _named(self, name: str) -> dict[str, Any]:
        entry = self._schemas.get(name)
        if entry is None:
            entry = self._schemas[name] = self._entry(*self.schemas[name])
        return entry

    def _entry(self, start: int, end: int) -> dict[str, Any]:
        return json.loads(self._data[self._start + start : self._start + end])  # type: ignore[no-any-return]


def encoded(entries: dict[str, Any]) -> bytes:
    """The index file of what `compile.compiled` made."""
    blobs: list[bytes] = []
    position = 0

    def placed(entry: Any) -> list[Any]:
        nonlocal position
        blob = json.dumps(entry, separators=(",", ":"), default=str).encode()
        blobs.append(blob)
        position += len(blob)
        return [position - len(blob), position]

    head = {
        "about": entries["about"],
        "operations": {
            key: [*placed(entry), entry["name"], entry["method"], entry["path"]]
            for key, entry in entries["operations"].items()
        },
        "schemas": {key: placed(entry) for key, entry in entries["schemas"].items()},
    }
    data = b"".join(blobs)
    head["crc32"] = zlib.crc32(data)
    return _MAGIC + json.dumps(head, separators=(",", ":"), default=str).encode() + b"\n" + data


def cached(
    key: str, make: Callable[[], dict[str, Any]], *, location: str, silent_seconds: float = SILENT_SECONDS_MAX
) -> Index:
    """The index of that key from the user's cache, or a new one, which is left there for the next start.

    location: of the document, for those who wait. A new one takes the place of those that are of no more use.
    """
    path = directory() / f"spec-{key}-{INDEX_VERSION}.index"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        index = Index(path.read_bytes())
        _mark_used(path)
        return index
    told = f"antiphon: reads the API description {location}, once: what it says is kept in {path.parent}"
    with _told_when_slow(told, silent_seconds):
        data = encoded(make())
    with contextlib.suppress(OSError):
        _write(path, data)
        _remove_unused(path)
    return Index(data)


def directory() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("antiphon"))


@contextlib.contextmanager
def _told_when_slow(message: str, seconds: float) -> Iterator[None]:
    """Say on stderr what is being done, if it takes longer than that."""
    import threading

    timer = threading.Timer(seconds, _say, [message])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _say(message: str) -> None:
    if sys.stderr is not None:  # as it is where it was closed
        sys.stderr.write(f"{message}\n")


def _mark_used(path: Path) -> None:
    """Let the file's time of change tell when it was used last; the time of access is not kept everywhere."""
    with contextlib.suppress(OSError):
        if time.time() - path.stat().st_mtime > _USED_EACH_SECONDS:
            os.utime(path)


def _remove_unused(kept: Path) -> None:
    """Remove the indexes that older versions of Antiphon have left, and what nobody has used for a long time.

    Other processes may do the same, or read what is removed: they have it in memory, or make it again.
    """
    for path in kept.parent.iterdir():
        name = _NAME.fullmatch(path.name)
        if path != kept and (name or path.name.startswith(_UNFINISHED)):
            with contextlib.suppress(OSError):
                is_old = name is not None and int(name[1]) < INDEX_VERSION
                if is_old or time.time() - path.stat().st_mtime > UNUSED_SECONDS_MAX:
                    path.unlink()


def _write(path: Path, data: bytes) -> None:
    """Put the file in place whole or not at all; of several writers the last one wins, with the same bytes."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _temporary(path.parent) as (file, name):
        with os.fdopen(file, "wb") as stream:
            stream.write(data)
        os.replace(name, path)


@contextlib.contextmanager
def _temporary(parent: Path) -> Iterator[tuple[int, str]]:
    import tempfile

    file, name = tempfile.mkstemp(dir=parent, prefix=_UNFINISHED)  # mkstemp makes it with mode 0600
    try:
        yield file, name
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)

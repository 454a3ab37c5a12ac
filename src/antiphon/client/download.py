"""An answer that is neither JSON nor events: bytes, that are read when they are used and need not be held.

Iterate it once for its pieces, or `read` it, or `save` it to a file. Until then, or until it is closed, it keeps its
connection. What breaks off is a ConnectionFailed.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from antiphon.client.call import Piece, Reply
from antiphon.client.wire import AsyncWire, Wire


class _Arrived:
    """What is known before the first byte."""

    _reply: Reply

    @property
    def status(self) -> int:
        return self._reply.status

    @property
    def headers(self) -> Mapping[str, str]:
        """By their lower-case names."""
        return self._reply.headers

    @property
    def media_type(self) -> str:
        return self._reply.media_type


class Download(_Arrived):
    """An iterator of bytes, and a context manager that closes it."""

    def __init__(self, wire: Wire, reply: Reply) -> None:
        self._wire = wire
        self._reply = reply

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        output = self._wire.output()
        if output is None:
            raise StopIteration
        assert isinstance(output, Piece), "an answer of bytes gives out bytes"
        return output.data

    def __enter__(self) -> Download:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self) -> bytes:
        """All that is left."""
        return b"".join(self)

    def save(self, path: str | os.PathLike[str]) -> int:
        """Write all that is left to a file; the number of bytes. The file is there when it is whole, or not at all.

        What is no regular file, like a pipe or /dev/null, is written into.
        """
        with self, _written(path) as file:
            return sum(file.write(piece) for piece in self)

    def close(self) -> None:
        self._wire.close()


class AsyncDownload(_Arrived):
    """An async iterator of bytes, and an async context manager that closes it."""

    def __init__(self, wire: AsyncWire, reply: Reply) -> None:
        self._wire = wire
        self._reply = reply

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        output = await self._wire.output()
        if output is None:
            raise StopAsyncIteration
        assert isinstance(output, Piece), "an answer of bytes gives out bytes"
        return output.data

    async def __aenter__(self) -> AsyncDownload:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def read(self) -> bytes:
        """All that is left."""
        return b"".join([piece async for piece in self])

    async def save(self, path: str | os.PathLike[str]) -> int:
        """Write all that is left to a file; the number of bytes. The file is there when it is whole, or not at all.

        What is no regular file, like a pipe or /dev/null, is written into.
        """
        import asyncio  # takes 15 ms, which whoever does not await can do without

        size = 0
        async with self:
            with ExitStack() as stack:
                file = await asyncio.to_thread(stack.enter_context, _written(path))  # a pipe may keep it waiting
                async for piece in self:
                    size += await asyncio.to_thread(file.write, piece)
        return size

    async def close(self) -> None:
        await self._wire.close()


@contextmanager
def _written(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file that takes its name when it is whole; a link still leads to it. What is no regular file is opened."""
    target = Path(path)
    if target.exists() and not target.is_file():
        with target.open("wb") as file:
            yield file
        return
    target = Path(os.path.realpath(target))
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with unfinished.open("wb") as file:
            yield file
        unfinished.replace(target)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise

"""A log shown to one caller: as server-sent events while it grows, or as one object when it is closed.

Raw ASGI, one send for each batch. `send` never tells that the caller has gone, so a task listens for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, field

from starlette.types import Receive, Scope, Send

from antiphon.errors import NotFound
from antiphon.log import Log
from antiphon.protocol import sse, view
from antiphon.store.base import Segment

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


@dataclass(frozen=True)
class Reader:
    """One caller's reading of a log.

    watched: holds while somebody waits for the response; at_end: what is done when the caller has all, or has gone.
    growing: whether the log may not be closed yet; only then is there anything to wait for.
    """

    log: Log
    tenant: str
    response_id: str
    watched: Callable[[], AbstractContextManager[None]] = nullcontext
    at_end: Callable[[], Awaitable[None]] | None = None
    growing: bool = True


@dataclass(frozen=True)
class EventStream:
    """An ASGI answer: the events of a log from one number on.

    see: the bits of what the caller may see; padded: whether deltas carry their padding.
    """

    reader: Reader
    see: int
    padded: bool = True
    after: int = -1
    keepalive_seconds: float = 15.0
    done: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [*_HEADERS, *((name.encode(), value.encode()) for name, value in self.headers.items())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async with reading(self.reader, receive):
            await self._send_events(send)
        if self.done:
            await send({"type": "http.response.body", "body": sse.DONE, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_events(self, send: Send) -> None:
        after = self.after
        loop = asyncio.get_running_loop()
        silent_since = loop.time()
        try:
            async for segments in self.reader.log.follow(self.reader.tenant, self.reader.response_id, after=self.after):
                if segments:
                    body = visible(segments, after=after, see=self.see, padded=self.padded)
                    after = segments[-1].last
                elif loop.time() - silent_since >= self.keepalive_seconds:
                    body = sse.KEEP_ALIVE
                else:
                    continue
                await send({"type": "http.response.body", "body": body, "more_body": True})
                silent_since = loop.time()
        except NotFound:
            pass  # deleted meanwhile: there is nothing more to show


def visible(segments: Sequence[Segment], *, after: int, see: int, padded: bool) -> bytes:
    """The frames of the events behind `after`, as a caller sees them."""
    frames = b"".join([segment.frames for segment in segments])
    if segments[0].first <= after:
        frames = view.drop_frames(frames, after + 1 - segments[0].first)
    mask = 0
    for segment in segments:
        mask |= segment.mask
    if padded and not mask & ~see:
        return frames
    return view.show_frames(frames, mask=mask, see=see, padded=padded)


@dataclass(frozen=True)
class Whole:
    """An ASGI answer: what `then` makes of a log, once that is closed."""

    reader: Reader
    then: Callable[[], Awaitable[Callable[[Scope, Receive, Send], Awaitable[None]]]]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with reading(self.reader, receive):
            async for _ in self.reader.log.follow(self.reader.tenant, self.reader.response_id):
                pass
            answer = await self.then()
            await answer(scope, receive, send)


@asynccontextmanager
async def reading(reader: Reader, receive: Receive) -> AsyncIterator[None]:
    """Hold the reader's watch, and leave the block quietly as soon as the caller has gone."""
    if not reader.growing:
        yield
        return
    async with AsyncExitStack() as stack:
        if reader.at_end is not None:
            stack.push_async_callback(reader.at_end)
        stack.enter_context(reader.watched())
        await stack.enter_async_context(_until_disconnected(receive))
        yield


@asynccontextmanager
async def _until_disconnected(receive: Receive) -> AsyncIterator[None]:
    """Leave the block when the caller goes away: the way asyncio.timeout leaves it when time is up."""
    task = asyncio.current_task()
    assert task is not None
    gone = False

    async def listen() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    listener = asyncio.create_task(listen())
    try:
        yield
    except asyncio.CancelledError:
        if not gone or task.uncancel() > 0:
            raise
    finally:
        listener.cancel()

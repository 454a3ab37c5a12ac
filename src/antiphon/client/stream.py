"""The events of one call, for the caller: iterate, look at `response` at any time, leave when you like.

Both resume by themselves when the connection breaks; StreamBroken is raised when that does not succeed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any

from antiphon.client.call import Event, Opened
from antiphon.client.follow import Following
from antiphon.client.wire import AsyncWire, Wire

Check = Callable[[Any], None]  # compares an event with the description, and raises or warns


class _Said:
    """What a stream has said so far."""

    _following: Following | None

    @property
    def response(self) -> dict[str, Any] | None:
        """The Response as said so far.

        None before the first event. A stream that was begun in the middle (`starting_after`) has it with the last.
        """
        return self._following.response if self._following else None

    @property
    def response_id(self) -> str | None:
        return self._following.response_id if self._following else None

    @property
    def sequence_number(self) -> int:
        """The number of the last event that was given out, -1 before the first: `starting_after` for the rest."""
        return self._following.sequence_number if self._following else -1


class Stream(_Said):
    """An iterator of events, and a context manager that closes it."""

    def __init__(self, wire: Wire, following: Following, check: Check | None = None) -> None:
        self._wire = wire
        self._following = following
        self._check = check

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        output = self._wire.output()
        if output is None:
            raise StopIteration
        assert isinstance(output, Event), "an opened stream gives out events"
        if self._check:
            self._check(output.data)
        return output.data

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def text(self) -> Iterator[str]:
        """The pieces of the answer's text, as they come."""
        return (event["delta"] for event in self if _is_text(event))

    def until_done(self) -> dict[str, Any] | None:
        """The final Response, after all events that are left."""
        for _ in self:
            pass
        return self.response

    def close(self) -> None:
        """Leave the stream; the server is told by the closed connection."""
        self._wire.close()


class AsyncStream(_Said):
    """An async iterator of events, and an async context manager that closes it.

    The request is sent when it is first awaited, entered or iterated; `await` gives the opened stream itself.
    """

    def __init__(self, wire: AsyncWire, following: Following | None = None, check: Check | None = None) -> None:
        self._wire = wire
        self._following = following
        self._check = check

    def __await__(self) -> Generator[Any, None, AsyncStream]:
        return self._open().__await__()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        if self._following is None:
            await self._open()
        output = await self._wire.output()
        if output is None:
            raise StopAsyncIteration
        assert isinstance(output, Event), "an opened stream gives out events"
        if self._check:
            self._check(output.data)
        return output.data

    async def __aenter__(self) -> AsyncStream:
        return await self._open()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def text(self) -> AsyncIterator[str]:
        """The pieces of the answer's text, as they come."""
        return (event["delta"] async for event in self if _is_text(event))

    async def until_done(self) -> dict[str, Any] | None:
        """The final Response, after all events that are left."""
        async for _ in self:
            pass
        return self.response

    async def close(self) -> None:
        """Leave the stream; the server is told by the closed connection."""
        await self._wire.close()

    async def _open(self) -> AsyncStream:
        if self._following is None:
            output = await self._wire.output()
            assert isinstance(output, Opened), "a call for a stream opens one, or raises"
            self._following = output.following
        return self


def _is_text(event: Any) -> bool:
    return isinstance(event, dict) and event.get("type") == "response.output_text.delta"

"""What calls take and give beside the values of a document, as type checkers see it: stubs are built on these."""

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from os import PathLike
from typing import Any, Generic, Literal, Protocol, Self, TypeAlias, TypeVar, overload

from antiphon.client.pages import AsyncPage, ComingPage, Page
from antiphon.client.stream import AsyncStream, Stream

Event = TypeVar("Event", covariant=True)
Outcome = TypeVar("Outcome", covariant=True)
Item = TypeVar("Item")

class Readable(Protocol):
    """An open file, or anything else that gives bytes."""

    def read(self, size: int, /) -> bytes: ...

FileContent: TypeAlias = PathLike[str] | bytes | bytearray | memoryview | Readable
File: TypeAlias = FileContent | tuple[str | None, FileContent] | tuple[str | None, FileContent, str | None]

class Events(Stream, Generic[Event, Outcome]):
    """The events of a stream, and what they add up to."""

    def __iter__(self) -> Iterator[Event]: ...
    def __next__(self) -> Event: ...
    def __enter__(self) -> Self: ...
    @property
    def response(self) -> Outcome | None: ...  # type: ignore[override]
    def until_done(self) -> Outcome | None: ...  # type: ignore[override]

class AsyncEvents(AsyncStream, Generic[Event, Outcome]):
    """The same for programs with an event loop."""

    def __await__(self) -> Generator[Any, None, Self]: ...
    def __aiter__(self) -> AsyncIterator[Event]: ...
    async def __anext__(self) -> Event: ...
    async def __aenter__(self) -> Self: ...
    @property
    def response(self) -> Outcome | None: ...  # type: ignore[override]
    async def until_done(self) -> Outcome | None: ...  # type: ignore[override]

class Listed(Page, Generic[Item]):
    """A page of a list, and the way to what follows."""

    @overload
    def __getitem__(self, key: Literal["data"], /) -> list[Item]: ...
    @overload
    def __getitem__(self, key: str, /) -> Any: ...
    def all(self) -> Iterator[Item]: ...
    def pages(self) -> Iterator[Self]: ...
    def next(self) -> Self | None: ...

class AsyncListed(AsyncPage, Generic[Item]):
    """The same for programs with an event loop."""

    @overload
    def __getitem__(self, key: Literal["data"], /) -> list[Item]: ...
    @overload
    def __getitem__(self, key: str, /) -> Any: ...
    def all(self) -> AsyncGenerator[Item]: ...
    def pages(self) -> AsyncGenerator[Self]: ...
    async def next(self) -> Self | None: ...

class ComingListed(ComingPage, Generic[Item]):
    """The call for a page that is still to be awaited."""

    def all(self) -> AsyncGenerator[Item]: ...
    def __await__(self) -> Generator[Any, Any, AsyncListed[Item]]: ...

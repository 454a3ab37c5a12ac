"""Lists that come page by page: an answer that also knows how to ask for what follows it.

Which operations are lists, and by which cursor they go on, is read from the API description, never from their names.
A page asks by the same call that it came from; how that call is carried out is not known here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from antiphon.errors import ProtocolError
from antiphon.spec.sealing import in_place

if TYPE_CHECKING:
    from antiphon.spec import Operation, Schema

Call = Callable[..., Any]

_NO_PAGE = "the server's answer is no page of a list."


@dataclass(frozen=True)
class Cursor:
    """How a list goes on: what a page says under `key` is sent as `parameter` for the page that follows."""

    parameter: str
    key: str | None  # None: the pages do not say it
    item: int | None = None  # where the pages do not say it: the id of this item, the last one being -1

    def described(self, parameters: set[str], keys: set[str]) -> bool:
        return self.parameter in parameters and (self.key is None or self.key in keys)

    def place(self, page: Mapping[str, Any], items: Sequence[Any]) -> str | int | None:
        """What to send for the page that follows; None if this one does not tell."""
        said = page.get(self.key) if self.key is not None else None
        if not said and self.item is not None and items and isinstance(items[self.item], dict):
            said = items[self.item].get("id")
        return said if said and isinstance(said, (str, int)) else None


# The ways of a description to go on, the surest first: a list has the first of which it describes both sides.
FORWARD = (
    Cursor("page", "next_page"),
    Cursor("after", "next"),
    Cursor("after", "last_id", item=-1),
    Cursor("after", None, item=-1),
)
# The way of a caller who asked for what stands before an item.
BACKWARD = Cursor("before", "first_id", item=0)


@dataclass(frozen=True)
class Listing:
    """What the description says of an operation that gives a list."""

    operation_id: str
    items: str  # the key of an answer that holds them
    forward: Cursor | None  # None: the description has no way to ask for more
    backward: Cursor | None

    def cursor(self, arguments: Mapping[str, Any]) -> Cursor | None:
        before, after = arguments.get("before"), arguments.get("after")
        return self.backward if self.backward and before is not None and after is None else self.forward


def listing(operation: Operation) -> Listing | None:
    """How the operation gives its list; None if it gives none.

    A list is what a GET answers with a JSON object that has an array `data`, or that can be gone on with and has a
    single array.
    """
    if operation.method != "GET":
        return None
    if operation not in _LISTINGS:  # reading the schemas takes longer than a small call should
        _LISTINGS[operation] = _described(operation)
    return _LISTINGS[operation]


_LISTINGS: WeakKeyDictionary[Operation, Listing | None] = WeakKeyDictionary()


def _described(operation: Operation) -> Listing | None:
    keys, arrays = _answer_keys(operation)
    parameters = {each.name for each in operation.parameters if each.location == "query"}
    forward = next((each for each in FORWARD if each.described(parameters, keys)), None)
    backward = BACKWARD if BACKWARD.described(parameters, keys) else None
    if "data" not in arrays and (forward is None or len(arrays) != 1):
        return None
    return Listing(operation.id, "data" if "data" in arrays else arrays[0], forward, backward)


def _answer_keys(operation: Operation) -> tuple[set[str], list[str]]:
    """The keys that good answers of the operation may have, and those that hold an array."""
    keys: set[str] = set()
    arrays: dict[str, None] = {}
    for schema in _good_answers(operation):
        for node in in_place(schema.raw, schema.named):
            for name, value in node.get("properties", {}).items():
                keys.add(name)
                if any(each.get("type") == "array" for each in in_place(value, schema.named)):
                    arrays[name] = None
    return keys, list(arrays)


def _good_answers(operation: Operation) -> Iterator[Schema]:
    for status, answer in operation.answers.items():
        if status.startswith("2"):
            yield from (schema for kind, schema in answer.media.items() if kind.startswith("application/json"))


class _Page(dict[str, Any]):
    """What both kinds of page are: the answer itself, and how it was asked for."""

    def __init__(self, answer: Mapping[str, Any], found: Listing, arguments: Mapping[str, Any], call: Call) -> None:
        super().__init__(answer)
        self._listing = found
        self._arguments = arguments
        self._call = call
        self._cursor = found.cursor(arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        """What is copied or stored is the answer alone."""
        return dict, (dict(self),)

    @property
    def has_next(self) -> bool:
        """Whether the server says that there is more; where it does not say, whether there is a way to ask for it."""
        said = self.get("has_more")
        return self._place() is not None if said is None else bool(said)

    def _items(self) -> list[Any]:
        items = self.get(self._listing.items)
        if items is None:
            return []
        if not isinstance(items, list):
            raise self._senseless(f"{self._listing.items!r} of the answer is no list.")
        return items

    def _place(self) -> str | int | None:
        """What stands for the end of this page, in the request for the next."""
        return self._cursor.place(self, self._items()) if self._cursor else None

    def _onward(self) -> dict[str, Any] | None:
        """The arguments that ask for the next page; None if this is the last."""
        if not self.has_next:
            return None
        if self._cursor is None:
            raise self._senseless("there is more, but the API description has no parameter to ask for it.")
        place = self._place()
        if place is None:
            key = repr(self._cursor.key) if self._cursor.key else "item with an id"
            raise self._senseless(f"the server says that there is more, but gives no {key} to go on from.")
        return {**self._arguments, self._cursor.parameter: place}

    def _goes_on(self, seen: set[Any]) -> bool:
        """Whether this page is a new one after those that ended at the places in `seen`.

        Raises ProtocolError if it leads back to one of them: followed in a circle, a list has no end.
        """
        place = self._place()
        if self._cursor is None or place not in seen or not (self._items() or self.has_next):
            return True
        if self.get("has_more") is None:
            return False  # nothing was promised: a server without pages gives its only one again
        raise self._senseless(
            f"the list does not go on: {self._cursor.parameter}={place!r} has been asked for, "
            "and the server gave a page that leads there again."
        )

    def _senseless(self, why: str) -> ProtocolError:
        return ProtocolError(f"{self._listing.operation_id}: {why}")


class Page(_Page):
    """A page of a list: the answer as a dict, which can be followed to the end of the list.

        for file in client.list_files(limit=100).all():
            print(file["filename"])

    The pages that follow are asked for with the same arguments and only when they are reached: `limit` stays the
    size of a page. With `before` and without `after`, the list is followed backwards, page by page.
    """

    def all(self) -> Iterator[Any]:
        """The items of this page and of all that follow."""
        for page in self.pages():
            yield from page._items()

    def pages(self) -> Iterator[Page]:
        """This page and all that follow. Raises ProtocolError when the server's pages lead nowhere or in a circle."""
        seen: set[Any] = set()
        page: Page | None = self
        while page is not None:
            yield page
            page = page._next(seen)

    def next(self) -> Page | None:
        """The next page, or None if this is the last."""
        return self._next(set())

    def _next(self, seen: set[Any]) -> Page | None:
        arguments = self._onward()
        if arguments is None:
            return None
        seen.add(self._place())
        page = self._call(self._listing.operation_id, **arguments)
        if not isinstance(page, Page):
            raise self._senseless(_NO_PAGE)
        return page if page._goes_on(seen) else None


class AsyncPage(_Page):
    """A page of a list, as `Page` is one: what follows is awaited."""

    async def all(self) -> AsyncIterator[Any]:
        """The items of this page and of all that follow."""
        async for page in self.pages():
            for item in page._items():
                yield item

    async def pages(self) -> AsyncIterator[AsyncPage]:
        """This page and all that follow. Raises ProtocolError when the server's pages lead nowhere or in a circle."""
        seen: set[Any] = set()
        page: AsyncPage | None = self
        while page is not None:
            yield page
            page = await page._next(seen)

    async def next(self) -> AsyncPage | None:
        """The next page, or None if this is the last."""
        return await self._next(set())

    async def _next(self, seen: set[Any]) -> AsyncPage | None:
        arguments = self._onward()
        if arguments is None:
            return None
        seen.add(self._place())
        page = await self._call(self._listing.operation_id, **arguments)
        if not isinstance(page, AsyncPage):
            raise self._senseless(_NO_PAGE)
        return page if page._goes_on(seen) else None


class ComingPage(Coroutine[Any, Any, Any]):
    """The call for a page: await it, or go straight through the list.

        async for file in client.list_files(limit=100).all():
            print(file["filename"])

    Whatever takes a coroutine takes it too, such as `asyncio.create_task`.
    """

    def __init__(self, coming: Coroutine[Any, Any, Any]) -> None:
        self._coming = coming

    async def all(self) -> AsyncIterator[Any]:
        """The items of this page and of all that follow."""
        page = await self
        async for item in page.all():
            yield item

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coming.__await__()

    # A task drives a coroutine by these.

    def send(self, value: Any) -> Any:
        return self._coming.send(value)

    def throw(self, *error: Any) -> Any:
        return self._coming.throw(*error)

    def close(self) -> None:
        self._coming.close()


def page_of(operation: Operation, arguments: Mapping[str, Any], answer: Any, call: Call) -> Any:
    """The answer as a page, if it is one of a list, else as it is.

    call: `Client.call`; what follows is asked for by it.
    """
    found = listing(operation)
    return answer if found is None or not isinstance(answer, dict) else Page(answer, found, arguments, call)


def coming_page_of(
    operation: Operation, arguments: Mapping[str, Any], coming: Coroutine[Any, Any, Any], call: Call
) -> Coroutine[Any, Any, Any]:
    """The same for an answer that is still to be awaited.

    call: `AsyncClient.call`.
    """
    found = listing(operation)
    return coming if found is None else ComingPage(_turned(coming, found, arguments, call))


async def _turned(coming: Coroutine[Any, Any, Any], found: Listing, arguments: Mapping[str, Any], call: Call) -> Any:
    answer = await coming
    return AsyncPage(answer, found, arguments, call) if isinstance(answer, dict) else answer

"""Straight into an ASGI application in the same process, as a real server would call it.

Answers stream as they are made, the application hears when its client has gone, and its lifespan is run: startup
before the first request, shutdown when the transport is closed. Knows nothing of what is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, MutableMapping
from concurrent.futures import Future
from typing import Any, TypeVar

import httpx2

from antiphon.errors import AntiphonError

Message = MutableMapping[str, Any]
App = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]
T = TypeVar("T")

MESSAGES_AHEAD_MAX = 16  # what an application may send before its client reads, as a socket's buffer would let it
GRACE_SECONDS = 5.0  # what an application has to end its requests in when the transport is closed

_log = logging.getLogger(__name__)


class ASGITransport(httpx2.AsyncBaseTransport):
    """Hands requests to an application in the running event loop."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._lifespan = Lifespan(app)
        self._exchanges: set[Exchange] = set()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        state = await self._lifespan.started()
        exchange = Exchange(request, await request.aread(), state)
        self._exchanges.add(exchange)
        exchange.run(self._app, on_end=self._exchanges.discard)
        try:
            start = await exchange.received()
        except BaseException:
            exchange.leave()
            raise
        return httpx2.Response(start["status"], headers=list(start.get("headers", ())), stream=_Body(exchange))

    async def aclose(self) -> None:
        exchanges = list(self._exchanges)
        for exchange in exchanges:
            exchange.leave()
        for exchange in exchanges:
            await exchange.ended()
        await self._lifespan.stop()


class Exchange:
    """One request to the application, and what it sends."""

    def __init__(self, request: httpx2.Request, body: bytes, state: dict[str, Any]) -> None:
        self._timeouts = request.extensions.get("timeout", {})
        self._scope = _scope(request, state)
        self._request: Message | None = {"type": "http.request", "body": body, "more_body": False}
        self._messages: asyncio.Queue[Message | BaseException] = asyncio.Queue(MESSAGES_AHEAD_MAX)
        self._over = asyncio.Event()  # all was sent, or the client has gone: then the application hears "disconnect"
        self._begun = False
        self._task: asyncio.Task[None] | None = None

    def run(self, app: App, *, on_end: Callable[[Exchange], None]) -> None:
        self._task = asyncio.create_task(self._run(app))
        self._task.add_done_callback(lambda _: on_end(self))

    async def received(self) -> Message:
        """The next message of the application. Raises httpx2.ReadTimeout, or ReadError if the application failed."""
        try:
            async with asyncio.timeout(self._timeouts.get("read")):
                message = await self._messages.get()
        except TimeoutError as error:
            raise httpx2.ReadTimeout("The application did not answer in time.") from error
        if isinstance(message, BaseException):
            raise httpx2.ReadError("The application failed in the middle of its answer.") from message
        return message

    def leave(self) -> None:
        """The client has gone: say so, and let the application's sends pass."""
        self._over.set()
        while not self._messages.empty():
            self._messages.get_nowait()
        self._messages.put_nowait(ConnectionAbortedError("the client has left"))  # for whoever still reads

    async def ended(self) -> None:
        """Wait for the application to end this request; after a while, end it."""
        assert self._task is not None, "only what runs can end"
        await asyncio.wait([self._task], timeout=GRACE_SECONDS)
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self, app: App) -> None:
        try:
            await app(self._scope, self._receive, self._send)
            failure: Exception = RuntimeError("the application ended before its answer")
        except Exception as error:
            _log.exception("the application failed")
            failure = error
        if not self._over.is_set():
            await self._fail(failure)

    async def _fail(self, failure: Exception) -> None:
        if self._begun:
            await self._messages.put(failure)
            return
        await self._send({"type": "http.response.start", "status": 500, "headers": [(b"content-type", b"text/plain")]})
        await self._send({"type": "http.response.body", "body": b"Internal Server Error"})

    async def _receive(self) -> Message:
        request, self._request = self._request, None
        if request is not None:
            return request
        await self._over.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self._over.is_set():
            return  # as with a real server, sending to a client that has gone raises nothing
        self._begun = True
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            await self._messages.put(message)
            self._over.set()
        else:
            await self._messages.put(message)


class _Body(httpx2.AsyncByteStream):
    """The answer's body, as the application sends it."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            more = True
            while more:
                message = await self._exchange.received()
                more = message.get("more_body", False)
                if message.get("body"):
                    yield bytes(message["body"])
        finally:
            self._exchange.leave()

    async def aclose(self) -> None:
        self._exchange.leave()


class Lifespan:
    """The application's startup and shutdown, both in one task as frameworks expect."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._state: dict[str, Any] = {}
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._from_app: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._startup: asyncio.Task[Message] | None = None

    async def started(self) -> dict[str, Any]:
        """What the application left for its requests at startup. Raises AntiphonError if it did not start."""
        if self._startup is None:
            self._task = asyncio.create_task(self._run())
            self._startup = asyncio.create_task(self._said("lifespan.startup"))
        outcome = await asyncio.shield(self._startup)  # a request that is given up does not end it for the others
        if outcome["type"] == "lifespan.startup.failed":
            raise AntiphonError(f"The application did not start: {outcome.get('message') or 'no reason given'}")
        return dict(self._state)

    async def stop(self) -> None:
        if self._task is None:
            return
        if not self._task.done():
            await self._said("lifespan.shutdown")
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _said(self, event: str) -> Message:
        await self._to_app.put({"type": event})
        return await self._from_app.get()

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self._state}
        try:
            await self._app(scope, self._to_app.get, self._from_app.put)
        except Exception as error:
            # An application without a lifespan raises: the protocol's way to say that it has none.
            _log.debug("the application has no lifespan: %r", error)
        finally:
            self._from_app.put_nowait({"type": "lifespan.ended"})


class LoopTransport(httpx2.BaseTransport):
    """The same for synchronous callers: the application runs in an event loop of its own, in a thread of its own."""

    def __init__(self, app: App) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run_loop, name="antiphon-app", daemon=True)
        self._thread.start()
        self._transport = ASGITransport(app)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        request.read()
        answer = self.wait_for(self._transport.handle_async_request(request))
        return httpx2.Response(answer.status_code, headers=answer.headers, stream=_LoopBody(self, answer))

    def wait_for(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """What the coroutine gives, run in the application's loop."""
        future = self.begin(coroutine)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def begin(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run the coroutine in the application's loop."""
        if self._loop.is_closed():
            coroutine.close()
            raise httpx2.CloseError("The client is closed.")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def close(self) -> None:
        if self._loop.is_closed():
            return
        self.wait_for(self._transport.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())


class _LoopBody(httpx2.SyncByteStream):
    """The answer's body, each piece fetched from the other thread."""

    def __init__(self, transport: LoopTransport, answer: httpx2.Response) -> None:
        self._transport = transport
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        pieces = self._answer.aiter_raw()
        try:
            while piece := self._transport.wait_for(_next(pieces)):
                yield piece
        finally:
            self.close()

    def close(self) -> None:
        # Not waited for: a forgotten stream is closed by the garbage collector, which may run in the other thread.
        with contextlib.suppress(httpx2.CloseError):
            self._transport.begin(self._answer.aclose())


async def _next(pieces: AsyncIterator[bytes]) -> bytes:
    return await anext(pieces, b"")


def _scope(request: httpx2.Request, state: dict[str, Any]) -> dict[str, Any]:
    url = request.url
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": url.scheme,
        "path": url.path,
        "raw_path": url.raw_path.partition(b"?")[0],
        "query_string": url.query,
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "server": (url.host, url.port or 80),
        "client": ("127.0.0.1", 0),
        "state": state,
    }

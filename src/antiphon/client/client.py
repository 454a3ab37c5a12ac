"""Client and AsyncClient: every operation of an API description as a method, in two thin drivers of the same calls.

Making one costs no more than reading the compiled description: no key is asked for, no connection made, and what
speaks HTTP is not even imported before the first call.
"""

from __future__ import annotations

import abc
import functools
import os
import threading
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast
from urllib.parse import urlsplit

from antiphon.errors import UnknownOperation
from antiphon.spec import Document

if TYPE_CHECKING:
    import httpx2

    from antiphon.client.asgi import App
    from antiphon.client.call import Patience, Steps
    from antiphon.client.stream import AsyncStream
    from antiphon.client.wire import AsyncWire, Site
    from antiphon.spec import Operation

Http = TypeVar("Http")


@functools.cache
def _packaged() -> Document:
    return Document.load()


class _Client(abc.ABC, Generic[Http]):
    """What both clients are: an API description, a place to send to, and patience."""

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        spec: str | os.PathLike[str] | Document | None = None,
        app: App | None = None,
        timeout: float = 600.0,
        max_retries: int = 2,
        stall_seconds: float = 120.0,
        resume_seconds: float = 300.0,
        default_headers: Mapping[str, str] | None = None,
        http_client: Http | None = None,
    ) -> None:
        self.document = spec if isinstance(spec, Document) else Document.load(spec) if spec else _packaged()
        self.timeout = timeout
        self.max_retries = max_retries
        self.stall_seconds = stall_seconds
        self.resume_seconds = resume_seconds
        self._base_url = base_url
        self._api_key = api_key
        self._app = app
        self._default_headers = {name.lower(): value for name, value in (default_headers or {}).items()}
        self._http = http_client
        self._http_is_ours = http_client is None
        self._making = threading.Lock()

    @property
    def operations(self) -> tuple[str, ...]:
        """The names of all methods, each one operation of the API description."""
        from antiphon.spec.names import method_name

        return tuple(sorted(method_name(operation_id) for operation_id in self.document.operations))

    @abc.abstractmethod
    def call(self, operation: str, /, **arguments: Any) -> Any:
        """Call an operation by its operationId, or any other spelling of its name."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):  # none of ours: Python itself asks, and is not to load anything for it
            raise AttributeError(name)
        try:
            operation = self.document.operation(name)
        except UnknownOperation as error:
            raise AttributeError(error.message, name=name, obj=self) from error
        return self._method(operation)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.operations]

    def _method(self, operation: Operation) -> Callable[..., Any]:
        from antiphon.client.manual import page

        def method(**arguments: Any) -> Any:
            return self.call(operation.id, **arguments)

        method.__name__ = method.__qualname__ = operation.name
        method.__doc__ = page(operation)
        return method

    @functools.cached_property
    def _site(self) -> Site:
        """Where to and as whom. The environment speaks only for the network, never for an application at hand."""
        import importlib.metadata

        from antiphon.client.wire import Site

        environment = os.environ if self._app is None else {}
        if self._app is None:
            base_url = self._base_url or environment.get("OPENAI_BASE_URL") or self.document.server_url
        else:
            base_url = self._base_url or "http://localhost" + urlsplit(self.document.server_url).path
        headers = {"user-agent": f"antiphon/{importlib.metadata.version('antiphon')}"}
        api_key = self._api_key or environment.get("OPENAI_API_KEY")
        if api_key:
            headers["authorization"] = f"Bearer {api_key}"
        return Site(base_url=base_url, headers=headers | self._default_headers, timeout_seconds=self.timeout)

    @property
    def _patience(self) -> Patience:
        from antiphon.client.call import Patience

        return Patience(
            max_retries=self.max_retries, stall_seconds=self.stall_seconds, resume_seconds=self.resume_seconds
        )

    def _steps(self, operation: str, arguments: Mapping[str, Any]) -> tuple[Steps, bool]:
        """The steps of a call, and whether it is one for a stream."""
        from antiphon.client.call import call
        from antiphon.client.follow import Following
        from antiphon.client.request import prepare

        prepared = prepare(self.document.operation(operation), arguments)
        patience = self._patience
        following = functools.partial(Following, log=prepared.log, patience=patience)
        return call(prepared.request, patience=patience, following=following), prepared.request.wants_stream


class Client(_Client["httpx2.Client"]):
    """The API's operations as methods, for programs without an event loop.

        with Client() as client:
            response = client.create_response(model="gpt-5", input="Say one fact about tides.")
            for event in client.get_response(response_id=response["id"], stream=True):
                print(event["type"])

    Answers are plain dicts; a call with `stream=True` gives a Stream as soon as its answer begins.

    base_url: default OPENAI_BASE_URL, else the server that the API description names.
    api_key: default OPENAI_API_KEY, read at the first call.
    spec: another API description: a path, a URL or a Document.
    app: an ASGI application to call in this process, without a network.
    timeout: seconds that a server may be silent before it answers.
    max_retries: how often a call is sent again after a failure that may pass.
    stall_seconds: how long a stream may be silent, keep-alive comments included, before it is resumed.
    resume_seconds: how long to try to resume a stream since its last event.
    http_client: an httpx2 client to send with; it is not closed with this one.
    """

    def call(self, operation: str, /, **arguments: Any) -> Any:
        from antiphon.client.call import Opened, Result
        from antiphon.client.stream import Stream
        from antiphon.client.wire import Wire

        steps, _ = self._steps(operation, arguments)
        wire = Wire(steps, self._connected(), self._site)
        output = wire.output()
        if isinstance(output, Opened):
            return Stream(wire, output.following)
        return cast("Result", output).value

    def close(self) -> None:
        """Close the connections; an application called in this process is shut down."""
        if self._http is not None and self._http_is_ours:
            self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connected(self) -> httpx2.Client:
        with self._making:
            if self._http is None:
                import httpx2

                self._http = httpx2.Client(transport=self._transport())
        return self._http

    def _transport(self) -> httpx2.BaseTransport | None:
        if self._app is None:
            return None
        from antiphon.client.asgi import LoopTransport

        return LoopTransport(self._app)


class AsyncClient(_Client["httpx2.AsyncClient"]):
    """The API's operations as methods that are awaited; the arguments are those of `Client`.

        async with AsyncClient() as client:
            response = await client.create_response(model="gpt-5", input="Say one fact about tides.")
            async for event in client.get_response(response_id=response["id"], stream=True):
                print(event["type"])

    A call with `stream=True` gives an AsyncStream: iterate it at once, enter it, or await it to have it opened.
    """

    def call(self, operation: str, /, **arguments: Any) -> Coroutine[Any, Any, Any] | AsyncStream:
        from antiphon.client.stream import AsyncStream
        from antiphon.client.wire import AsyncWire

        steps, wants_stream = self._steps(operation, arguments)
        wire = AsyncWire(steps, self._connected(), self._site)
        return AsyncStream(wire) if wants_stream else _result(wire)

    async def close(self) -> None:
        """Close the connections; an application called in this process is shut down."""
        if self._http is not None and self._http_is_ours:
            await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _connected(self) -> httpx2.AsyncClient:
        if self._http is None:
            import httpx2

            self._http = httpx2.AsyncClient(transport=self._transport())
        return self._http

    def _transport(self) -> httpx2.AsyncBaseTransport | None:
        if self._app is None:
            return None
        from antiphon.client.asgi import ASGITransport

        return ASGITransport(self._app)


async def _result(wire: AsyncWire) -> Any:
    from antiphon.client.call import Opened, Result
    from antiphon.client.stream import AsyncStream

    output = await wire.output()
    if isinstance(output, Opened):
        return AsyncStream(wire, output.following)
    return cast("Result", output).value

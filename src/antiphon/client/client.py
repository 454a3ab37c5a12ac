"""Client and AsyncClient: every operation of an API description as a method, in two thin drivers of the same calls.

Making one costs no more than reading the compiled description: no key is asked for, no connection made, and what
speaks HTTP is not even imported before the first call.
"""

from __future__ import annotations

import abc
import copy
import dataclasses
import functools
import os
import threading
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from antiphon.client.methods import Methods
from antiphon.client.options import ENVIRONMENT, Changes, Choices, Options
from antiphon.errors import BadSetting
from antiphon.spec import Document

if TYPE_CHECKING:
    from typing import Self, Unpack

    import httpx2

    from antiphon.client.asgi import App
    from antiphon.client.call import Request, Steps
    from antiphon.client.check import Check
    from antiphon.client.follow import Following
    from antiphon.client.raw import AsyncRaw, Raw, RawAnswer
    from antiphon.client.stream import AsyncStream, Stream
    from antiphon.client.wire import AsyncWire, Site
    from antiphon.spec import Operation

if TYPE_CHECKING:
    from antiphon.client.operations import AsyncOperations, Operations
else:
    Operations = AsyncOperations = object  # they are types and nothing else

Http = TypeVar("Http")


@functools.cache
def _packaged() -> Document:
    return Document.load()


def _can_http2() -> bool:
    import importlib.util

    if importlib.util.find_spec("h2") is None:
        raise BadSetting("http2 needs the package h2: install antiphon[http2].")
    return True


class _Pool(Generic[Http]):
    """The connections of a client and of all that were made from it by `with_options`."""

    def __init__(self, make: Callable[[], Http], given: Http | None) -> None:
        self.made: Http | None = None
        self._make = make
        self._given = given
        self._making = threading.Lock()

    def http(self) -> Http:
        if self._given is not None:
            return self._given
        with self._making:
            if self.made is None:
                self.made = self._make()
        return self.made


def _patience(name: str) -> property:
    def get(client: _Client[Any]) -> Any:
        return getattr(client.options, name)

    def put(client: _Client[Any], value: Any) -> None:
        changed: dict[str, Any] = {name: value}
        client.options = dataclasses.replace(client.options, **changed)

    return property(get, put, doc="For the calls to come; see the options.")


class _Client(Methods, Generic[Http]):
    """What both clients are: an API description, options and connections."""

    max_retries = _patience("max_retries")
    stall_seconds = _patience("stall_seconds")
    resume_seconds = _patience("resume_seconds")

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        spec: str | os.PathLike[str] | Document | None = None,
        app: App | None = None,
        http_client: Http | None = None,
        proxy: str | httpx2.Proxy | None = None,
        http2: bool = False,
        **options: Unpack[Choices],
    ) -> None:
        self.document = spec if isinstance(spec, Document) else Document.load(spec) if spec else _packaged()
        self.options = Options(base_url, api_key, **options)
        self._app = app
        self._proxy = proxy
        self._http2 = http2 and _can_http2()
        self._pool = _Pool(self._make_http, http_client)
        self._pool_is_ours = True
        self._sites: dict[Operation, Site] = {}

    def with_options(self, *, headers: Mapping[str, str | None] | None = None, **changes: Unpack[Changes]) -> Self:
        """A client with some options changed, over the same connections; closing it leaves them open.

        headers: added to the default headers; one that is None is taken away.
        Streams that are open go on as they were begun: none is resumed with another key or at another place.
        """
        made = copy.copy(self)
        made.options = dataclasses.replace(self.options, **changes).with_headers(headers or {})
        made._pool_is_ours = False
        made._sites = {}
        made.__dict__.pop("raw", None)  # it calls by the options of the client it was made for
        return made

    @abc.abstractmethod
    def _make_http(self) -> Http:
        """What sends the requests."""

    def _site(self, operation: Operation) -> Site:
        """Where to and as whom, for this operation."""
        site = self._sites.get(operation)
        if site is None:
            site = self._sites[operation] = self.options.site(
                self.document, operation, environment=self._environment, in_process=self._app is not None
            )
        return site

    @functools.cached_property
    def _environment(self) -> dict[str, str]:
        """What the environment says of OpenAI when it is first needed, so that no later call is another's."""
        return {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}

    def _check(self, operation: Operation) -> Check | None:
        mode = self.options.validate_responses
        if not mode:
            return None
        from antiphon.client.check import Check

        return Check(operation, warn=mode == "warn")

    def _steps(self, operation: Operation, arguments: Mapping[str, Any], check: Check | None) -> tuple[Steps, bool]:
        """The steps of a call, and whether it is one for a stream."""
        from antiphon.client.call import call
        from antiphon.client.request import prepare

        prepared = prepare(operation, arguments)
        patience = self.options.patience()

        def following(request: Request) -> Following:
            from antiphon.client.follow import Following  # most calls have no stream

            return Following(request, log=prepared.log, patience=patience)

        steps = call(prepared.request, patience=patience, following=following, check=check.answer if check else None)
        return steps, prepared.request.wants_stream

    def _raw_steps(self, operation: Operation, arguments: Mapping[str, Any]) -> Steps:
        from antiphon.client.call import raw_call
        from antiphon.client.request import prepare

        return raw_call(prepare(operation, arguments).request, patience=self.options.patience())

    def _http_options(self, transport: Any = None) -> dict[str, Any]:
        from http.cookiejar import CookieJar, DefaultCookiePolicy

        import httpx2

        return {
            "transport": transport,
            "proxy": self._proxy,
            "http2": self._http2,
            # As many calls as a program likes to have open at once.
            "limits": httpx2.Limits(max_connections=1000, max_keepalive_connections=100),
            # Clients with other keys share the connections, so nothing that tells one from the other stays there.
            "cookies": CookieJar(DefaultCookiePolicy(allowed_domains=())),
        }


class Client(_Client["httpx2.Client"], Operations):
    """The API's operations as methods, for programs without an event loop.

        with Client() as client:
            response = client.create_response(model="gpt-5", input="Say one fact about tides.")
            for event in client.get_response(response_id=response["id"], stream=True):
                print(event["type"])

    Answers are plain dicts; a call with `stream=True` gives a Stream as soon as its answer begins, and an answer that
    is neither JSON nor events is a Download.

    base_url: default OPENAI_BASE_URL, else the server that the API description names for the operation, or for all.
        InvalidRequest is raised for one that is no http or https URL.
    api_key: the token or key of operations that ask for one; default OPENAI_API_KEY. Without it a call is sent without.
    spec: another API description: a path, a URL or a Document.
    app: an ASGI application to call in this process, without a network.
    http_client: an httpx2 client to send with; it is not closed with this one.
    proxy, http2: for the connections, as httpx2 takes them; HTTP/2 needs antiphon[http2], else BadSetting is raised.

    The variables OPENAI_* are read at the first call, and are only for descriptions whose server is api.openai.com, be
    it called or another in its place: none of OpenAI's keys goes to another vendor's API. Where the description says
    that anyone may call, no credential is sent.

    Options, that `with_options` can change:

    api_key_header: the header of a bearer token, "api-key" for Azure; default Authorization, with "Bearer".
    credentials: by the names of the description's security schemes, where an operation wants several or a password:
        {"key": "k", "login": ("user", "password")}.
    server_variables: for the variables in the URL of the description's server.
    admin_key: for the operations that want an administrator's; default OPENAI_ADMIN_KEY, else the API key.
    organization, project: default OPENAI_ORG_ID and OPENAI_PROJECT_ID.
    default_headers, default_query: sent with every request, like Azure's {"api-version": ...}.
    timeout: seconds that a server may be silent before it answers, or an httpx2.Timeout; None: as long as it likes.
    max_retries: how often a call is sent again after a failure that may pass.
    stall_seconds: how long a stream may be silent, keep-alive comments included, before it is resumed.
    resume_seconds: how long to try to resume a stream since its last event.
    validate_responses: compare answers and events with the description: True raises InvalidAnswer, "warn" warns.
    on_request: is given each httpx2.Request before it is sent, and may return another; its
        `extensions["operation"]` is the operationId, None where a stream is resumed.
    on_response: is given each httpx2.Response when its head has come, before its body is read.
    """

    def call(self, operation: str, /, **arguments: Any) -> Any:
        from antiphon.client.call import Arriving, Opened, Result
        from antiphon.client.wire import Wire

        described = self.document.operation(operation)
        check = self._check(described)
        steps, _ = self._steps(described, arguments, check)
        wire = Wire(steps, self._pool.http(), self._site(described))
        output = wire.output()
        if isinstance(output, Opened):
            from antiphon.client.stream import Stream

            return Stream(wire, output.following, check.event if check else None)
        elif isinstance(output, Arriving):
            from antiphon.client.download import Download

            return Download(wire, output.reply)
        from antiphon.client.pages import page_of

        return page_of(described, arguments, cast("Result", output).value, self.call)

    def follow(self, response_id: str, *, starting_after: int | None = None, **arguments: Any) -> Stream:
        """The events of a response from the first, or from behind `starting_after`; those to come are waited for."""
        arguments |= {"response_id": response_id, "starting_after": starting_after, "stream": True}
        return cast("Stream", self.call("getResponse", **arguments))

    @functools.cached_property
    def raw(self) -> Raw:
        """The same operations, for their answers as they are: `client.raw.get_response(...).headers`."""
        from antiphon.client.raw import Raw

        return Raw(self.document, self._raw_call)

    def close(self) -> None:
        """Close the connections; an application called in this process is shut down."""
        if self._pool.made is not None and self._pool_is_ours:
            self._pool.made.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _raw_call(self, operation: str, arguments: Mapping[str, Any]) -> RawAnswer:
        from antiphon.client.raw import answer
        from antiphon.client.wire import Wire

        described = self.document.operation(operation)
        return answer(Wire(self._raw_steps(described, arguments), self._pool.http(), self._site(described)).output())

    def _make_http(self) -> httpx2.Client:
        import httpx2

        if self._app is None:
            return httpx2.Client(**self._http_options())
        from antiphon.client.asgi import LoopTransport

        return httpx2.Client(**self._http_options(LoopTransport(self._app)))


class AsyncClient(_Client["httpx2.AsyncClient"], AsyncOperations):
    """The API's operations as methods that are awaited; the arguments are those of `Client`.

        async with AsyncClient() as client:
            response = await client.create_response(model="gpt-5", input="Say one fact about tides.")
            async for event in client.get_response(response_id=response["id"], stream=True):
                print(event["type"])

    A call with `stream=True` gives an AsyncStream: iterate it at once, enter it, or await it to have it opened. Hooks
    may be coroutine functions.
    """

    def call(self, operation: str, /, **arguments: Any) -> Coroutine[Any, Any, Any] | AsyncStream:
        from antiphon.client.pages import coming_page_of
        from antiphon.client.stream import AsyncStream
        from antiphon.client.wire import AsyncWire

        described = self.document.operation(operation)
        check = self._check(described)
        steps, wants_stream = self._steps(described, arguments, check)
        wire = AsyncWire(steps, self._pool.http(), self._site(described))
        if wants_stream:
            return AsyncStream(wire, check=check.event if check else None)
        return coming_page_of(described, arguments, _result(wire, check), self.call)

    def follow(self, response_id: str, *, starting_after: int | None = None, **arguments: Any) -> AsyncStream:
        """The events of a response from the first, or from behind `starting_after`; those to come are waited for."""
        arguments |= {"response_id": response_id, "starting_after": starting_after, "stream": True}
        return cast("AsyncStream", self.call("getResponse", **arguments))

    @functools.cached_property
    def raw(self) -> AsyncRaw:
        """The same operations, for their answers as they are: `(await client.raw.get_response(...)).headers`."""
        from antiphon.client.raw import AsyncRaw

        return AsyncRaw(self.document, self._raw_call)

    async def close(self) -> None:
        """Close the connections; an application called in this process is shut down."""
        if self._pool.made is not None and self._pool_is_ours:
            await self._pool.made.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _raw_call(self, operation: str, arguments: Mapping[str, Any]) -> Coroutine[Any, Any, RawAnswer]:
        from antiphon.client.wire import AsyncWire

        described = self.document.operation(operation)
        steps = self._raw_steps(described, arguments)
        return _raw_answer(AsyncWire(steps, self._pool.http(), self._site(described)))

    def _make_http(self) -> httpx2.AsyncClient:
        import httpx2

        if self._app is None:
            return httpx2.AsyncClient(**self._http_options())
        from antiphon.client.asgi import ASGITransport

        return httpx2.AsyncClient(**self._http_options(ASGITransport(self._app)))


async def _result(wire: AsyncWire, check: Check | None) -> Any:
    from antiphon.client.call import Arriving, Opened, Result
    from antiphon.client.download import AsyncDownload
    from antiphon.client.stream import AsyncStream

    output = await wire.output()
    if isinstance(output, Opened):
        return AsyncStream(wire, output.following, check.event if check else None)
    elif isinstance(output, Arriving):
        return AsyncDownload(wire, output.reply)
    return cast("Result", output).value


async def _raw_answer(wire: AsyncWire) -> RawAnswer:
    from antiphon.client.raw import answer

    return answer(await wire.output())

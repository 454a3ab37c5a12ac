"""Carries the steps of a call out over httpx2: the only place where the client meets sockets and time.

`Wire` and `AsyncWire` are the same program twice. Each belongs to one call and holds at most one open answer. asyncio
takes 15 ms to import, so only what awaits imports it.
"""

from __future__ import annotations

import contextlib
import inspect
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import httpx2

from antiphon.client.call import (
    EVENTS,
    Arriving,
    Close,
    Event,
    Opened,
    Output,
    Piece,
    Read,
    Reply,
    Request,
    Result,
    Steps,
    Wait,
    is_json,
)
from antiphon.client.upload import Upload
from antiphon.errors import ConnectionFailed, InvalidRequest, Timeout

CONNECT_SECONDS_MAX = 5.0

_REDIRECTS_MAX = 20
_OUTPUTS = (Result, Opened, Event, Arriving, Piece)
_NEVER_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)
_NOT_SENDABLE = (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError, httpx2.InvalidURL)


@dataclass(frozen=True)
class Site:
    """Where the requests go, and what goes with each of them."""

    base_url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  # a key may be in it
    query: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # and in this
    timeout: float | httpx2.Timeout | None = 600.0  # seconds of silence
    follow_redirects: bool = True
    private: frozenset[str] = frozenset()  # headers that are for this site and for no other that a redirect leads to
    on_request: Callable[[httpx2.Request], Any] | None = None
    on_response: Callable[[httpx2.Response], Any] | None = None

    def request(self, step: Request, http: httpx2.Client | httpx2.AsyncClient) -> httpx2.Request:
        pairs = (*self.query, *step.query)
        query = f"?{urlencode(pairs)}" if pairs else ""
        headers = {**self.headers, **step.headers}
        if "cookie" in self.headers and "cookie" in step.headers:
            headers["cookie"] = f"{self.headers['cookie']}; {step.headers['cookie']}"
        if step.wants_stream:
            headers["accept-encoding"] = "identity"  # whoever compresses on the way would hold events back
        body: Any = step.body
        if isinstance(body, Upload):
            if body.size is not None:
                headers["content-length"] = str(body.size)
            body = _InThread(body) if isinstance(http, httpx2.AsyncClient) else body
        with translated():
            return http.build_request(
                step.method,
                self.base_url.rstrip("/") + step.path + query,
                headers=headers,
                content=body,
                extensions={"timeout": self._phases(step.answer_seconds), "operation": step.operation},
            )

    def redirected(self, answer: httpx2.Response) -> httpx2.Request | None:
        """The request that a redirect asks for; None if the answer is none, or one that may not be followed."""
        request = answer.next_request if self.follow_redirects else None
        if request is not None and _origin(request.url) != _origin(answer.request.url):
            for name in self.private:
                request.headers.pop(name, None)
        return request

    def _phases(self, answer_seconds: float | None) -> dict[str, float | None]:
        """How long each phase of a request may be silent."""
        if isinstance(self.timeout, httpx2.Timeout):
            phases: dict[str, float | None] = dict(self.timeout.as_dict())
        else:
            bounds = [each for each in (self.timeout, answer_seconds, CONNECT_SECONDS_MAX) if each is not None]
            phases = {"connect": min(bounds), "pool": min(bounds), "read": self.timeout, "write": self.timeout}
        if answer_seconds is not None:
            phases["read"] = answer_seconds
        return phases


class _InThread:
    """An upload for the event loop: its files are read in a thread."""

    def __init__(self, upload: Upload) -> None:
        self._upload = upload

    async def __aiter__(self) -> AsyncIterator[bytes]:
        import asyncio

        chunks = iter(self._upload)
        while chunk := await asyncio.to_thread(next, chunks, b""):
            yield chunk


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Let httpx2's errors out as our own."""
    try:
        yield
    except _NOT_SENDABLE as error:
        raise InvalidRequest(f"The request cannot be sent: {error}") from error
    except httpx2.RequestError as error:
        kind = Timeout if isinstance(error, httpx2.TimeoutException) else ConnectionFailed
        message = str(error) or (kind.__doc__ or "").partition("\n")[0]
        if isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout)):
            message = f"{_place(error.request.url)} cannot be reached: {message}"
        raise kind(message, sent=not isinstance(error, _NEVER_SENT)) from error
    except httpx2.StreamError as error:
        raise ConnectionFailed("The answer was closed.") from error


class _Program:
    """Runs the steps of a call, whoever carries them out."""

    def __init__(self, steps: Steps) -> None:
        self._steps: Steps | None = steps  # None when the caller has left
        self._step: Any = None  # the one that is being carried out
        self._lost: ConnectionFailed | None = None

    def next(self, came: Any, failure: ConnectionFailed | None) -> Any:
        """The next step, or None at the end of the call."""
        self._step = None
        if self._steps is not None:
            with contextlib.suppress(StopIteration):
                self._step = self._steps.send(came) if failure is None else self._steps.throw(failure)
        return self._step

    def taken(self, failure: ConnectionFailed) -> ConnectionFailed:
        """The failure of a step, for the call to deal with; one that the call itself raised goes out."""
        if self._step is None:
            raise failure
        return failure

    def interrupted(self) -> None:
        """A cancel or a signal came while a step was carried out: the answer went with it, the call may go on."""
        if isinstance(self._step, (Request, Read)):
            self._lost = ConnectionFailed("The answer was given up while it was read.")

    def resumption(self) -> tuple[None, ConnectionFailed | None]:
        """What to go on with."""
        lost, self._lost = self._lost, None
        return None, lost

    def end(self) -> None:
        if self._steps is not None:
            self._steps.close()
        self._steps = self._lost = None


class Wire:
    """The steps of one call over a connection, in the caller's thread."""

    def __init__(self, steps: Steps, http: httpx2.Client, site: Site) -> None:
        self._program = _Program(steps)
        self._http = http
        self._site = site
        self._answer: httpx2.Response | None = None
        self._chunks: Iterator[bytes] = iter(())
        self._patience: float | None = None  # what the transport holds to: that of the first read

    def output(self) -> Output | None:
        """What the call gives out next; None at its end."""
        came, failure = self._program.resumption()
        while True:
            try:
                step = self._program.next(came, failure)
                if step is None or isinstance(step, _OUTPUTS):
                    return step
                came, failure = self._carry_out(step), None
            except ConnectionFailed as error:
                came, failure = None, self._program.taken(error)
            except BaseException:
                self._program.interrupted()
                self._close_answer()
                raise

    def close(self) -> None:
        self._program.end()
        self._close_answer()

    def _carry_out(self, step: Request | Read | Close | Wait) -> Any:
        if isinstance(step, Read):
            return self._read(step)
        elif isinstance(step, Request):
            return self._send(step)
        elif isinstance(step, Wait):
            return time.sleep(step.seconds)
        return self._close_answer()

    def _send(self, step: Request) -> Reply:
        request = self._site.request(step, self._http)
        if self._site.on_request:
            request = self._site.on_request(request) or request
        with translated():
            answer = self._http.send(request, stream=True, follow_redirects=False)
            for _ in range(_REDIRECTS_MAX):
                if (further := self._site.redirected(answer)) is None:
                    break
                answer.close()
                answer = self._http.send(further, stream=True, follow_redirects=False)
            try:
                if self._site.on_response:
                    self._site.on_response(answer)
                if _is_whole(answer, step):
                    return _reply(answer, answer.read())
            except BaseException:
                answer.close()
                raise
        self._answer, self._chunks, self._patience = answer, answer.iter_bytes(), None
        return _reply(answer, None)

    def _read(self, step: Read) -> bytes:
        if self._answer is None:
            raise ConnectionFailed("The answer was closed.")
        _be_patient(self._answer, step.seconds)
        self._patience = self._patience or step.seconds
        hurry = _cut_off(self._answer, step.seconds) if step.seconds < self._patience else contextlib.nullcontext()
        with translated(), hurry:
            return next(self._chunks, b"")

    def _close_answer(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            with contextlib.suppress(ConnectionFailed), translated():
                answer.close()


class AsyncWire:
    """The steps of one call over a connection, in the running event loop."""

    def __init__(self, steps: Steps, http: httpx2.AsyncClient, site: Site) -> None:
        self._program = _Program(steps)
        self._http = http
        self._site = site
        self._answer: httpx2.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None

    async def output(self) -> Output | None:
        """What the call gives out next; None at its end."""
        came, failure = self._program.resumption()
        while True:
            try:
                step = self._program.next(came, failure)
                if step is None or isinstance(step, _OUTPUTS):
                    return step
                came, failure = await self._carry_out(step), None
            except ConnectionFailed as error:
                came, failure = None, self._program.taken(error)
            except BaseException:
                self._program.interrupted()
                await self._close_answer()
                raise

    async def close(self) -> None:
        self._program.end()
        await self._close_answer()

    async def _carry_out(self, step: Request | Read | Close | Wait) -> Any:
        if isinstance(step, Read):
            return await self._read(step)
        elif isinstance(step, Request):
            return await self._send(step)
        elif isinstance(step, Wait):
            import asyncio

            return await asyncio.sleep(step.seconds)
        return await self._close_answer()

    async def _send(self, step: Request) -> Reply:
        request = self._site.request(step, self._http)
        if self._site.on_request:
            request = await _awaited(self._site.on_request(request)) or request
        with translated():
            answer = await self._http.send(request, stream=True, follow_redirects=False)
            for _ in range(_REDIRECTS_MAX):
                if (further := self._site.redirected(answer)) is None:
                    break
                await answer.aclose()
                answer = await self._http.send(further, stream=True, follow_redirects=False)
            try:
                if self._site.on_response:
                    await _awaited(self._site.on_response(answer))
                if _is_whole(answer, step):
                    return _reply(answer, await answer.aread())
            except BaseException:
                await answer.aclose()
                raise
        self._answer, self._chunks = answer, answer.aiter_bytes()
        return _reply(answer, None)

    async def _read(self, step: Read) -> bytes:
        import asyncio

        answer, chunks = self._answer, self._chunks
        if answer is None or chunks is None:
            raise ConnectionFailed("The answer was closed.")
        _be_patient(answer, None)
        try:
            with translated():
                async with asyncio.timeout(step.seconds):
                    return await anext(chunks, b"")
        except TimeoutError as error:
            raise Timeout("The stream fell silent.") from error

    async def _close_answer(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            with contextlib.suppress(ConnectionFailed), translated():
                await answer.aclose()


def _place(url: httpx2.URL) -> str:
    return url.host if url.port is None else f"{url.host}:{url.port}"


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _is_whole(answer: httpx2.Response, step: Request) -> bool:
    """Whether the answer is read at once: what is to be decoded is; events and files are read as they are used."""
    kind = str(answer.headers.get("content-type", "")).partition(";")[0].strip().lower()
    if kind == EVENTS and answer.status_code < 300:
        return step.whole
    return step.whole or step.wants_stream or answer.status_code >= 300 or is_json(kind)


async def _awaited(value: Any) -> Any:
    """What a hook gives, be it a coroutine function or not."""
    return await value if inspect.isawaitable(value) else value


def _reply(answer: httpx2.Response, body: bytes | None) -> Reply:
    return Reply(answer.status_code, {name.lower(): value for name, value in answer.headers.items()}, body)


@contextlib.contextmanager
def _cut_off(answer: httpx2.Response, seconds: float) -> Iterator[None]:
    """End a read after so many seconds, by the socket's end, where the transport holds to a longer patience.

    Over HTTP/2 it does not, and the socket is that of other answers too.
    """
    stream = answer.extensions.get("network_stream") if answer.http_version != "HTTP/2" else None
    found = stream.get_extra_info("socket") if stream is not None else None
    if found is None:
        yield
        return
    timer = threading.Timer(seconds, _end, [found])
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # from here on the socket may be another call's


def _end(found: socket.socket) -> None:
    with contextlib.suppress(OSError):
        found.shutdown(socket.SHUT_RDWR)


def _be_patient(answer: httpx2.Response, seconds: float | None) -> None:
    """How long reads may be silent. Transports look it up when they begin to read the body, and then hold to it."""
    answer.request.extensions["timeout"]["read"] = seconds

"""Connection: HTTP to one model server, in whatever form it is asked. Knows paths and errors, and no model.

A socket is closed, or free for the next request, as soon as the block that asked is left.
"""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Protocol
from urllib.parse import urlsplit

import aiohttp
import msgspec

from antiphon.engine.model import Delta
from antiphon.engine.models.failures import failure_of
from antiphon.errors import ModelError

log = logging.getLogger(__name__)

_FAILURE_BYTES_MAX = 64 << 10  # of a failing answer: enough for any message
_READ_BUFFER_BYTES = 256 << 10
_WRITE_BYTES_MAX = 1 << 20
_STALE_MAX = 4  # idle connections in a row that the server may have closed without our knowing it
_SECRET_CHARACTERS_MIN = 6
_END_SECONDS = 0.05  # how long the end of the body may take after [DONE]; a connection that is not at its end is closed


class Reader(Protocol):
    """Makes pieces of an answer out of what its server sends, in the form of one API."""

    done: bool  # the end was read: nothing can follow
    failure: ModelError | None  # what makes no sense; what came before it was given

    def feed(self, data: bytes) -> list[Delta]:
        """The pieces that these bytes complete."""

    def whole(self, body: bytes) -> list[Delta]:
        """The pieces of an answer that came as one JSON object."""

    def close(self) -> list[Delta]:
        """The last pieces, when the server has sent everything. Raises ModelError if they do not make an end."""


class Connection:
    """A model server at `base_url`, e.g. http://127.0.0.1:8000/v1.

    api: how it is asked, for messages; headers: sent with every request; connect_seconds: until the socket is open;
    idle_seconds: the longest silence of the server, before and within its answer; bytes_max: of an answer that is read
    whole; answer_bytes_max: of any answer; models_seconds: how long the list of models is taken as it was.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api: str = "Chat Completions",
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        connect_seconds: float = 10.0,
        idle_seconds: float = 300.0,
        bytes_max: int = 8 << 20,
        answer_bytes_max: int = 256 << 20,  # more than what any response may say takes, in any form
        models_seconds: float = 30.0,
    ) -> None:
        self.api_key = api_key
        self._api = api
        self.bytes_max = bytes_max
        self.answer_bytes_max = answer_bytes_max
        host = urlsplit(base_url).hostname or ""
        self.is_openai = host.endswith((".openai.com", ".azure.com"))
        self.base_url = base_url.rstrip("/")
        key = {"authorization": f"Bearer {api_key}"} if api_key else {}
        given_headers = {name.lower(): value for name, value in (headers or {}).items()}
        self._headers = {"content-type": "application/json", "accept-encoding": "identity", **key, **given_headers}
        # Any header may be a key, such as Azure's `api-key`; what is shorter than a key would only spoil messages.
        keys = (api_key or "", *given_headers.values())
        self.secrets = tuple(each for each in keys if len(each) >= _SECRET_CHARACTERS_MIN)
        # The headers given may allow packed answers. Else one that is packed all the same is not unpacked: a few bytes
        # can stand for gigabytes.
        self._unpacks = self._headers["accept-encoding"] != "identity"
        self._idle_seconds = idle_seconds
        self._timeout = aiohttp.ClientTimeout(total=None, connect=connect_seconds, sock_read=idle_seconds)
        self._models_seconds = models_seconds
        self._models: tuple[float, list[dict[str, Any]]] | None = None
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A successful answer to a request. path: behind the base URL. Raises ModelError, in the block too."""
        with _translated():
            answer = await self._send(method, path, body)
            try:
                coding = answer.headers.get("content-encoding", "identity").lower()
                if coding != "identity" and not self._unpacks:
                    raise ModelError(f"The model's server packed its answer ({coding[:20]}), and was asked not to.")
                if answer.status != 200:
                    failing = await self.read(answer, bytes_max=_FAILURE_BYTES_MAX, cut=True)
                    raise failure_of(
                        answer.status, failing, api=self._api, headers=answer.headers, secrets=self.secrets
                    )
                yield answer
            finally:
                if not answer.content.at_eof():
                    answer.close()
                answer.release()

    async def outcome(self, method: str, path: str, body: Mapping[str, Any]) -> tuple[int, bytes]:
        """The status and the body of the answer to a request, whatever it is. Raises ModelError if there is none."""
        with _translated():
            async with asyncio.timeout(self._idle_seconds):
                answer = await self._send(method, path, body)
                try:
                    return answer.status, await self.read(answer, bytes_max=_FAILURE_BYTES_MAX, cut=True)
                finally:
                    answer.close()

    async def json(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The JSON of a successful answer. Raises ModelError, too for an answer that is no JSON, or comes in drops."""
        with _translated():
            async with asyncio.timeout(self._idle_seconds), self.request(method, path, body) as answer:
                raw = await self.read(answer)
        try:
            return msgspec.json.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ModelError("The model's server sent an answer that cannot be read.") from error

    async def turn(self, path: str, body: Mapping[str, Any], reader: Reader) -> AsyncGenerator[list[Delta]]:
        """The pieces of an answer, as the reader of its form makes them out of what comes."""
        async with self.request("POST", path, body) as answer:
            if answer.content_type == "application/json":  # a server that does not stream
                yield reader.whole(await self.read(answer))
                return
            _not_a_page(answer)
            async for data in self.pieces(answer):
                deltas = reader.feed(data)
                if deltas:
                    yield deltas
                if reader.failure is not None:
                    raise reader.failure
                if reader.done:
                    await _reach_end(answer)
                    break
            deltas = reader.close()
            if deltas:
                yield deltas

    def pieces(self, answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """The body as it comes. Raises ModelError for one that has no end, whether or not it says anything."""
        return _Pieces(answer.content, self.answer_bytes_max)

    async def read(self, answer: aiohttp.ClientResponse, *, bytes_max: int | None = None, cut: bool = False) -> bytes:
        """The whole body; with `cut`, its beginning if it is longer than `bytes_max`."""
        bytes_max = bytes_max or self.bytes_max
        body = bytearray()
        async for data in answer.content.iter_any():
            body += data
            if len(body) > bytes_max:
                if cut:
                    break
                raise ModelError(f"The model's server sent too much at once, more than {bytes_max} bytes.")
        return bytes(body)

    async def models(self) -> list[dict[str, Any]]:
        """The models that the server lists, as Model objects of the API."""
        now = asyncio.get_running_loop().time()
        if self._models is None or now - self._models[0] > self._models_seconds:
            self._models = (now, _model_objects(await self.json("GET", "/models")))
        return self._models[1]

    async def close(self) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    async def _send(self, method: str, path: str, body: Mapping[str, Any] | None) -> aiohttp.ClientResponse:
        data = None if body is None else msgspec.json.encode(body)
        url = self.base_url + path
        for attempt in range(_STALE_MAX + 1):
            way: dict[str, bool] = {}
            try:
                async with asyncio.timeout(self._idle_seconds):  # the head, which may come in drops, or never end
                    return await self._opened_session().request(
                        method, url, data=_carried(data), allow_redirects=False, trace_request_ctx=way
                    )
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                # The server has just closed this idle connection; nothing was answered, so another may be tried. One
                # that hangs up on a new connection has perhaps died of the request, and is not to do so again.
                if attempt == _STALE_MAX or "idle" not in way:
                    raise
        raise AssertionError("unreachable")

    def _opened_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),  # how many turns run at once is not decided here
                auto_decompress=self._unpacks,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=self._headers,
                read_bufsize=_READ_BUFFER_BYTES,
                timeout=self._timeout,
                trace_configs=[_tracing()],
            )
        return self._session


def _carried(data: bytes | None) -> bytes | io.BytesIO | None:
    """What aiohttp sends in pieces if it is large: as bytes it would be one write, for which everything else waits."""
    return data if data is None or len(data) <= _WRITE_BYTES_MAX else io.BytesIO(data)


class _Pieces:
    """What aiohttp reads, in its own pieces, up to a limit. A generator would cost more, at each piece and its end."""

    def __init__(self, content: aiohttp.StreamReader, bytes_max: int) -> None:
        self._content = content
        self._left = self._bytes_max = bytes_max

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        data = await self._content.readany()
        if not data:
            raise StopAsyncIteration
        self._left -= len(data)
        if self._left < 0:
            raise ModelError(f"The model's server does not end its answer, after {self._bytes_max} bytes.")
        return data


def _tracing() -> aiohttp.TraceConfig:
    """Tells `trace_request_ctx` of each request whether its connection had been idle before."""

    async def reused(_session: Any, request: Any, _params: Any) -> None:
        request.trace_request_ctx["idle"] = True

    tracing = aiohttp.TraceConfig()
    tracing.on_connection_reuseconn.append(reused)
    return tracing


def _not_a_page(answer: aiohttp.ClientResponse) -> None:
    """Raise ModelError for what a wrong address often gives."""
    if answer.content_type == "text/html":
        raise ModelError("The model's server answered with a web page instead of a stream of events.")


async def _reach_end(answer: aiohttp.ClientResponse) -> None:
    """Read the end of the body, so that the connection can be used again."""
    with suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(_END_SECONDS):
            async for _ in answer.content.iter_any():
                pass


@contextmanager
def _translated() -> Iterator[None]:
    """Turn what the HTTP library raises into ModelError. The caller is not told where the server is; the log is."""
    try:
        yield
    except (aiohttp.ClientError, OSError) as error:
        log.warning("The model's server failed", extra={"error": repr(error)})
        if isinstance(error, (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError)):
            raise ModelError("The model's server cannot be reached.", status=503, passing=True) from error
        if isinstance(error, TimeoutError):
            raise ModelError("The model's server was silent for too long.", status=504) from error
        raise ModelError("The model's server broke off in the middle of its answer.", passing=True) from error


def _model_objects(body: Any) -> list[dict[str, Any]]:
    try:
        return [
            {
                "id": str(model["id"]),
                "object": "model",
                "created": int(model.get("created") or 0),
                "owned_by": str(model.get("owned_by") or "unknown"),
            }
            for model in body["data"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError("The model's server sent a list of models that cannot be read.") from error

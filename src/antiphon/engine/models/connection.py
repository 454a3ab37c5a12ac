"""Connection: HTTP to one model server, in whatever form it is asked. Knows paths and errors, and no model.

A socket is closed, or free for the next request, as soon as the block that asked is left.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec

from antiphon.engine.model import PASSED_ON, Delta
from antiphon.engine.models.failures import failure_of
from antiphon.engine.models.http import Exchange, Server, Unreachable
from antiphon.errors import ModelError

log = logging.getLogger(__name__)

_FAILURE_BYTES_MAX = 64 << 10  # of a failing answer: enough for any message
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
        parts = urlsplit(base_url)
        host = parts.hostname or ""
        self._place = parts.netloc.rpartition("@")[2]  # as the log names it
        self.is_openai = host.endswith((".openai.com", ".azure.com"))
        self.base_url = base_url.rstrip("/")
        key = {"authorization": f"Bearer {api_key}"} if api_key else {}
        given_headers = {name.lower(): value for name, value in (headers or {}).items()}
        headers = {"content-type": "application/json", "accept-encoding": "identity", **key, **given_headers}
        # Any header may be a key, such as Azure's `api-key`; what is shorter than a key would only spoil messages.
        keys = (api_key or "", *given_headers.values())
        self.secrets = tuple(each for each in keys if len(each) >= _SECRET_CHARACTERS_MIN)
        # The headers given may allow packed answers. Else one that is packed all the same is not unpacked: a few bytes
        # can stand for gigabytes.
        self._unpacks = headers["accept-encoding"] != "identity"
        self._idle_seconds = idle_seconds
        self._server = Server(
            self.base_url,
            headers=headers,
            connect_seconds=connect_seconds,
            idle_seconds=idle_seconds,
            unpacks=self._unpacks,
        )
        self._models_seconds = models_seconds
        self._models: tuple[float, list[dict[str, Any]]] | None = None

    @asynccontextmanager
    async def request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> AsyncIterator[Exchange]:
        """A successful answer to a request. path: behind the base URL. Raises ModelError, in the block too."""
        with self._translated():
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
                answer.leave()

    async def outcome(self, method: str, path: str, body: Mapping[str, Any]) -> tuple[int, bytes]:
        """The status and the body of the answer to a request, whatever it is. Raises ModelError if there is none."""
        with self._translated():
            async with asyncio.timeout(self._idle_seconds):
                answer = await self._send(method, path, body)
                try:
                    return answer.status, await self.read(answer, bytes_max=_FAILURE_BYTES_MAX, cut=True)
                finally:
                    answer.leave()

    async def json(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The JSON of a successful answer. Raises ModelError, too for an answer that is no JSON, or comes in drops."""
        with self._translated():
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

    def pieces(self, answer: Exchange) -> AsyncIterator[bytes]:
        """The body as it comes. Raises ModelError for one that has no end, whether or not it says anything."""
        return _Pieces(answer, self.answer_bytes_max)

    async def read(self, answer: Exchange, *, bytes_max: int | None = None, cut: bool = False) -> bytes:
        """The whole body; with `cut`, its beginning if it is longer than `bytes_max`."""
        bytes_max = bytes_max or self.bytes_max
        body = bytearray()
        while data := await answer.read():
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
        await self._server.close()

    async def _send(self, method: str, path: str, body: Mapping[str, Any] | None) -> Exchange:
        data = None if body is None else msgspec.json.encode(body)
        return await self._server.ask(method, path, data, headers=PASSED_ON.get())

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn what the HTTP library raises into ModelError. The caller is not told where the server is; the log is."""
        try:
            yield
        except OSError as error:
            log.warning("The model's server failed", extra={"server": self._place, "error": repr(error)})
            if isinstance(error, Unreachable):
                raise ModelError("The model's server cannot be reached.", status=503, passing=True) from error
            if isinstance(error, TimeoutError):
                raise ModelError("The model's server was silent for too long.", status=504) from error
            raise ModelError("The model's server broke off in the middle of its answer.", passing=True) from error


class _Pieces:
    """What comes, up to a limit. A generator would cost more, at each piece and its end."""

    def __init__(self, answer: Exchange, bytes_max: int) -> None:
        self._answer = answer
        self._left = self._bytes_max = bytes_max

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        data = await self._answer.read()
        if not data:
            raise StopAsyncIteration
        self._left -= len(data)
        if self._left < 0:
            raise ModelError(f"The model's server does not end its answer, after {self._bytes_max} bytes.")
        return data


def _not_a_page(answer: Exchange) -> None:
    """Raise ModelError for what a wrong address often gives."""
    if answer.content_type == "text/html":
        raise ModelError("The model's server answered with a web page instead of a stream of events.")


async def _reach_end(answer: Exchange) -> None:
    """Read the end of the body, so that the connection can be used again."""
    if answer.at_end:  # nearly always it comes with the last piece
        return
    with suppress(OSError):
        async with asyncio.timeout(_END_SECONDS):
            while await answer.read():
                pass


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

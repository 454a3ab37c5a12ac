"""ChatCompletions: asks any server that speaks OpenAI's Chat Completions (vLLM, llama.cpp, Ollama, OpenAI itself).

Always by a stream, so that a socket that is closed stops the model, and always with usage. All that the two APIs say
differently is in chat_request.py and chat_reader.py; this file only carries.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

from antiphon.engine.model import Delta
from antiphon.engine.models.chat_reader import ChatReader
from antiphon.engine.models.chat_request import chat_body
from antiphon.engine.models.failures import failure_of
from antiphon.errors import ModelError

log = logging.getLogger(__name__)

_FAILURE_BYTES_MAX = 64 << 10  # of a failing answer: enough for any message
_READ_BUFFER_BYTES = 256 << 10
_END_SECONDS = 0.05  # how long the end of the body may take after [DONE]; a connection that is not at its end is closed


class ChatCompletions:
    """A model server at `base_url`, e.g. http://127.0.0.1:8000/v1.

    connect_seconds: until the socket is open; idle_seconds: the longest silence of the server, before and within its
    answer; models_seconds: how long the list of models is taken as it was.
    """

    continues_prefix = False

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        connect_seconds: float = 10.0,
        idle_seconds: float = 300.0,
        event_bytes_max: int = 8 << 20,
        models_seconds: float = 30.0,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._api_key = api_key
        self._timeout = aiohttp.ClientTimeout(total=None, connect=connect_seconds, sock_read=idle_seconds)
        self._event_bytes_max = event_bytes_max
        self._models_seconds = models_seconds
        self._models: tuple[float, list[dict[str, Any]]] | None = None
        self._session: aiohttp.ClientSession | None = None
        # OpenAI's reasoning models refuse max_tokens; most other servers know only that.
        host = urlsplit(base_url).hostname or ""
        self._limit_field = "max_completion_tokens" if host.endswith((".openai.com", ".azure.com")) else "max_tokens"

    def turn(self, request: Mapping[str, Any], context: Sequence[Mapping[str, Any]]) -> AsyncGenerator[list[Delta]]:
        return self.ask(chat_body(request, context, limit_field=self._limit_field))

    async def ask(self, body: Mapping[str, Any]) -> AsyncGenerator[list[Delta]]:
        """One turn, for a body of the Chat Completions form."""
        reader = ChatReader(event_bytes_max=self._event_bytes_max, secret=self._api_key)
        async with self._request("POST", "/chat/completions", body) as answer:
            if answer.content_type == "application/json":  # a server that does not stream
                yield reader.whole(await self._read(answer, bytes_max=self._event_bytes_max))
                return
            if answer.content_type == "text/html":
                raise ModelError("The model's server answered with a web page instead of a stream of events.")
            async for data in answer.content.iter_any():
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

    async def models(self) -> list[dict[str, Any]]:
        now = asyncio.get_running_loop().time()
        if self._models is None or now - self._models[0] > self._models_seconds:
            async with self._request("GET", "/models") as answer:
                body = await self._read(answer, bytes_max=self._event_bytes_max)
            self._models = (now, _model_objects(body))
        return self._models[1]

    async def close(self) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    @asynccontextmanager
    async def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A successful answer to a request; its socket is free again, or closed, when the block is left."""
        with _translated():
            answer = await self._send(method, path, body)
            try:
                if answer.status != 200:
                    failing = await self._read(answer, bytes_max=_FAILURE_BYTES_MAX, cut=True)
                    raise failure_of(answer.status, failing, secret=self._api_key)
                yield answer
            finally:
                if not answer.content.at_eof():
                    answer.close()
                answer.release()

    async def _send(self, method: str, path: str, body: Mapping[str, Any] | None) -> aiohttp.ClientResponse:
        data = None if body is None else msgspec.json.encode(body)
        for last in (False, True):
            try:
                return await self._opened_session().request(
                    method, self._base_url + path, data=data, allow_redirects=False
                )
            except aiohttp.ServerDisconnectedError:
                # The server has just closed this idle connection; nothing was answered, so a new one may be tried.
                if last:
                    raise
        raise AssertionError("unreachable")

    def _opened_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
            if self._api_key:
                headers["Authorization"] = f"Bearer {self._api_key}"
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),  # how many turns run at once is not decided here
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=headers,
                read_bufsize=_READ_BUFFER_BYTES,
                timeout=self._timeout,
            )
        return self._session

    async def _read(self, answer: aiohttp.ClientResponse, *, bytes_max: int, cut: bool = False) -> bytes:
        body = bytearray()
        async for data in answer.content.iter_any():
            body += data
            if len(body) > bytes_max:
                if cut:
                    break
                raise ModelError(f"The model's server sent too much at once, more than {bytes_max} bytes.")
        return bytes(body)


@contextmanager
def _translated() -> Iterator[None]:
    """Turn what the HTTP library raises into ModelError. The caller is not told where the server is; the log is."""
    try:
        yield
    except (aiohttp.ClientError, OSError) as error:
        log.warning("The model's server failed", extra={"error": repr(error)})
        if isinstance(error, (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError)):
            raise ModelError("The model's server cannot be reached.", status=503) from error
        if isinstance(error, TimeoutError):
            raise ModelError("The model's server was silent for too long.", status=504) from error
        raise ModelError("The model's server broke off in the middle of its answer.") from error


async def _reach_end(answer: aiohttp.ClientResponse) -> None:
    """Read the end of the body, so that the connection can be used again."""
    with suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(_END_SECONDS):
            async for _ in answer.content.iter_any():
                pass


def _model_objects(body: bytes) -> list[dict[str, Any]]:
    try:
        models = msgspec.json.decode(body)["data"]
        return [
            {
                "id": str(model["id"]),
                "object": "model",
                "created": int(model.get("created") or 0),
                "owned_by": str(model.get("owned_by") or "unknown"),
            }
            for model in models
        ]
    except (msgspec.DecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError("The model's server sent a list of models that cannot be read.") from error

"""Responses over one WebSocket: each message begins a response, whose events come back as messages.

A message `{"type": "response.create", ...}` is a create body; its `stream_id`, if it has one, names a lane: the
responses of one lane come one after the other, those of several lanes side by side. The connection keeps the latest
response of each lane, so that it can be continued though it is not stored.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect

from antiphon.errors import ApiError, BadRequest, NotFound, RateLimited, ServerError
from antiphon.protocol import view
from antiphon.server.access import tenant_of
from antiphon.server.call import Api, json_answer
from antiphon.server.create import Begun, begin
from antiphon.server.request import check_body, decode_json
from antiphon.server.stream import visible

LANES_MAX = 32
WAITING_MAX = 32  # creates that one lane may have in hand

_STREAM_ID = re.compile(r"[A-Za-z0-9_.-]{1,256}")

_encode = msgspec.json.Encoder().encode


async def serve_socket(api: Api, socket: WebSocket) -> None:
    """One connection from its handshake to its end."""
    try:
        tenant = tenant_of(socket.headers, keys=api.keys, loopback_only=api.loopback_only)
    except ApiError as refusal:
        await socket.send_denial_response(json_answer(refusal.wire(), status=refusal.status))
        return
    await socket.accept()
    connection = _Connection(api, tenant, socket)
    try:
        async with connection.open(), asyncio.timeout(api.limits.socket_seconds):
            while True:
                await connection.take(await socket.receive())
    except WebSocketDisconnect:
        pass
    except TimeoutError:
        limit = ApiError(
            "This connection has reached its time limit. Open a new one to continue.",
            code="websocket_connection_limit_reached",
            status=400,
        )
        await connection.say_error(limit)
        await socket.close(1000)


class _Connection:
    def __init__(self, api: Api, tenant: str, socket: WebSocket) -> None:
        self._api = api
        self._tenant = tenant
        self._socket = socket
        self._lanes: dict[str | None, asyncio.Queue[dict[str, Any]]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._kept: dict[str | None, str] = {}  # of each lane, the latest response if it is in memory

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """While this holds, lanes run; then they are stopped, and what was in memory is forgotten."""
        try:
            yield
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for lane in list(self._kept):
                await self._forget(lane)

    async def take(self, message: Mapping[str, Any]) -> None:
        """One message of the client's: a create goes into its lane, anything else is an error."""
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        lane: str | None = None
        try:
            raw = message.get("text") or message.get("bytes") or ""
            event = decode_json(
                raw.encode() if isinstance(raw, str) else raw, max_depth=self._api.limits.max_json_depth
            )
            lane, body = _create(event)
            if lane not in self._lanes:
                self._begin_lane(lane)
            self._lanes[lane].put_nowait(body)
        except asyncio.QueueFull:
            await self.say_error(RateLimited("Too many creates wait in this lane.", code="rate_limit_exceeded"), lane)
        except ApiError as error:
            await self.say_error(error, lane)

    def _begin_lane(self, lane: str | None) -> None:
        if len(self._lanes) >= LANES_MAX:
            raise BadRequest(f"A connection has at most {LANES_MAX} stream ids.", param="stream_id")
        self._lanes[lane] = asyncio.Queue(WAITING_MAX)
        self._tasks.append(asyncio.create_task(self._run(lane), name=f"lane {lane}"))

    async def _run(self, lane: str | None) -> None:
        while True:
            body = await self._lanes[lane].get()
            try:
                await self._answer(lane, body)
            except ApiError as error:
                await self._drop(body.get("previous_response_id"))
                await self.say_error(error, lane)
            except WebSocketDisconnect:
                return
            except Exception:
                await self.say_error(ServerError("The server had an error while processing your request."), lane)
                raise

    async def _answer(self, lane: str | None, body: dict[str, Any]) -> None:
        check_body(self._api.document.operation("createResponse"), body)
        if body.get("background"):
            raise BadRequest(
                "Background responses cannot be created over a WebSocket.",
                code="unsupported_parameter",
                param="background",
            )
        begun = await begin(self._api, self._tenant, body, kept=self._kept.values())
        async with AsyncExitStack() as stack:
            if begun.log is self._api.memory:
                stack.push_async_callback(self._keep, lane, begun.id)
            stack.enter_context(begun.log.following(self._tenant, begun.id))
            await self._send_events(lane, begun)
        if (await self._status(begun)) == "failed":
            await self._drop(body.get("previous_response_id"))

    async def _send_events(self, lane: str | None, begun: Begun) -> None:
        padded = (begun.body.get("stream_options") or {}).get("include_obfuscation") is not False
        show = partial(visible, see=view.allowed(begun.body.get("include") or ()), padded=padded)
        after = -1
        async for segments in begun.log.follow(self._tenant, begun.id):
            if segments:
                for frame in show(segments, after=after).split(b"\n\n")[:-1]:
                    await self._send(frame[frame.index(b"\ndata: ") + 7 :], lane)
                after = segments[-1].last

    async def _status(self, begun: Begun) -> str:
        return (await begun.log.store.get(self._tenant, begun.id)).status

    async def _keep(self, lane: str | None, response_id: str) -> None:
        """The lane's latest response in memory takes the place of the one before."""
        await self._forget(lane)
        self._kept[lane] = response_id

    async def _drop(self, response_id: str | None) -> None:
        """A response whose continuation failed cannot be continued any more."""
        for lane, kept in list(self._kept.items()):
            if kept == response_id:
                await self._forget(lane)

    async def _forget(self, lane: str | None) -> None:
        kept = self._kept.pop(lane, None)
        if kept is not None:
            try:
                await self._api.memory.delete(self._tenant, kept)
            except NotFound:
                pass

    async def say_error(self, error: ApiError, lane: str | None = None) -> None:
        wire: dict[str, Any] = {"type": "error", "status": error.status, **error.wire()}
        wire["error"]["code"] = error.code or error.type  # never null here, says Open Responses
        if error.headers:
            wire["error"]["headers"] = error.headers
        await self._send(_encode(wire), lane)

    async def _send(self, event: bytes, lane: str | None) -> None:
        if lane is not None:
            event = b'{"stream_id":' + _encode(lane) + b"," + event[1:]
        await self._socket.send_text(event.decode())


def _create(event: Any) -> tuple[str | None, dict[str, Any]]:
    """The lane and the body of a create. Raises BadRequest for any other message."""
    type = event.get("type") if isinstance(event, dict) else None
    if type != "response.create":
        raise BadRequest(
            f"Invalid value: '{type}'. Supported values are: 'response.create'.", code="invalid_value", param="type"
        )
    lane = event.get("stream_id")
    if lane is not None and not (isinstance(lane, str) and _STREAM_ID.fullmatch(lane)):
        raise BadRequest(
            "Invalid 'stream_id': expected 1 to 256 letters, digits, '_', '.' and '-'.",
            code="invalid_value",
            param="stream_id",
        )
    body = {name: value for name, value in event.items() if name not in ("type", "stream_id", "stream")}
    return lane, {**body, "stream": True}

"""Responses over one WebSocket: each message begins a response, whose events come back as messages.

A message `{"type": "response.create", ...}` is a create body; its `stream_id`, if it has one, names a lane: the
responses of one lane come one after the other, those of several lanes side by side. The connection keeps the latest
response of each lane, as far as there is room, so that it can be continued though it is not stored.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect

from antiphon.budget import Hold
from antiphon.errors import ApiError, BadRequest, NotFound, RateLimited
from antiphon.protocol import view
from antiphon.server.access import Caller
from antiphon.server.call import Api, json_answer
from antiphon.server.create import Begun, begin
from antiphon.server.failures import told
from antiphon.server.request import check_body, decode_json
from antiphon.server.stream import visible

logger = logging.getLogger(__name__)

LANES_MAX = 32  # that are at work at once
CREATES_MAX = 32  # that one lane may have in hand
KEPT_MAX = 32  # responses in memory; the lane that was used least lately loses its own first

_STREAM_ID = re.compile(r"[A-Za-z0-9_.-]{1,256}")

_encode = msgspec.json.Encoder().encode


async def serve_socket(api: Api, socket: WebSocket) -> None:
    """One connection from its handshake to its end."""
    try:
        caller = await api.access.caller(socket.headers)
        with api.limiter.stream(caller):
            await _converse(api, caller, socket)
    except ApiError as refusal:
        await socket.send_denial_response(json_answer(refusal.wire(), status=refusal.status))


async def _converse(api: Api, caller: Caller, socket: WebSocket) -> None:
    await socket.accept()
    connection = _Connection(api, caller, socket)
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
        with suppress(WebSocketDisconnect):
            await connection.say_error(limit)
            await socket.close(1000)


class _Create(NamedTuple):
    body: dict[str, Any]
    size: int  # of the message, in bytes
    hold: Hold


class _Connection:
    def __init__(self, api: Api, caller: Caller, socket: WebSocket) -> None:
        self._api = api
        self._caller = caller
        self._tenant = caller.tenant
        self._socket = socket
        self._lanes: dict[str | None, deque[_Create]] = {}  # what each has in hand; an idle one is not here
        self._tasks: set[asyncio.Task[None]] = set()
        self._bytes = 0  # of all creates in hand
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
            for creates in self._lanes.values():  # of tasks that had not even begun
                _let_go(creates)
            for lane in list(self._kept):
                await self._forget(lane)

    async def take(self, message: Mapping[str, Any]) -> None:
        """One message of the client's: a create goes into its lane, anything else is an error."""
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        lane: str | None = None
        hold = self._api.limiter.budget.hold()
        try:
            text = message.get("text")
            raw = message.get("bytes") or b"" if text is None else text.encode()
            lane, body = _read(decode_json(raw, max_depth=self._api.limits.max_json_depth, hold=hold))
            self._put(lane, _Create(body, len(raw), hold))
        except ApiError as error:
            hold.close()
            await self.say_error(error, lane)

    def _put(self, lane: str | None, create: _Create) -> None:
        """Give a create to its lane, which works as long as it has any in hand. Raises RateLimited."""
        creates = self._lanes.get(lane)
        if creates is None and len(self._lanes) >= LANES_MAX:
            raise _too_many(f"{LANES_MAX} stream ids are at work on this connection")
        if creates is not None and len(creates) >= CREATES_MAX:
            raise _too_many(f"{CREATES_MAX} creates wait in this lane")
        if self._lanes and self._bytes + create.size > self._api.limits.max_body_bytes:
            raise _too_many("Too many bytes wait on this connection")
        create.hold.add(create.size)
        self._bytes += create.size
        if creates is not None:
            creates.append(create)
            return
        creates = self._lanes[lane] = deque([create])
        task = asyncio.create_task(self._run(lane, creates), name=f"lane {lane}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, lane: str | None, creates: deque[_Create]) -> None:
        try:
            while creates:
                await self._carry_out(lane, creates[0])
                done = creates.popleft()
                self._bytes -= done.size
                done.hold.close()
        except WebSocketDisconnect:
            pass  # the connection learns that for itself
        finally:
            _let_go(self._lanes.pop(lane))

    async def _carry_out(self, lane: str | None, create: _Create) -> None:
        """Answer a create, with an error if need be: the lane goes on."""
        try:
            await self._answer(lane, create)
        except WebSocketDisconnect:
            raise
        except Exception as error:
            await self._drop(create.body.get("previous_response_id"))
            await self.say_error(told(error), lane)

    async def _answer(self, lane: str | None, create: _Create) -> None:
        body = create.body
        check_body(self._api.document.operation("createResponse"), body)
        if body.get("background"):
            raise BadRequest(
                "Background responses cannot be created over a WebSocket.",
                code="unsupported_parameter",
                param="background",
            )
        begun = await self._begin(lane, create)
        async with AsyncExitStack() as stack:
            if begun.log is self._api.memory:
                stack.push_async_callback(self._keep, lane, begun.id)
            stack.enter_context(begun.log.following(self._tenant, begun.id))
            await self._send_events(lane, begun)
        if (await self._status(begun)) == "failed":
            await self._drop(body.get("previous_response_id"))

    async def _begin(self, lane: str | None, create: _Create) -> Begun:
        admission = self._api.limiter.admit(self._caller, create.body, size=create.size)
        admission = replace(admission, hold=create.hold)
        beginning = asyncio.create_task(
            begin(self._api, self._tenant, create.body, kept=self._kept.values(), admission=admission)
        )
        try:
            return await asyncio.shield(beginning)
        except asyncio.CancelledError:
            # The caller hung up. What is committed is put to work all the same: else its claim would hold it for
            # nothing; and what is in memory is noted, to be forgotten.
            with suppress(ApiError):
                begun = await beginning
                if begun.log is self._api.memory:
                    await self._keep(lane, begun.id)
            raise

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
        if len(self._kept) > KEPT_MAX:
            await self._forget(next(iter(self._kept)))

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
        try:
            await self._socket.send_text(event.decode())
        except RuntimeError as closed:  # another lane was the first to find the connection closed
            raise WebSocketDisconnect(1006) from closed


def _let_go(creates: Iterable[_Create]) -> None:
    for create in creates:
        create.hold.close()


def _too_many(what: str) -> RateLimited:
    return RateLimited(f"{what}. Please try again when one has ended.", code="rate_limit_exceeded")


def _read(event: Any) -> tuple[str | None, dict[str, Any]]:
    """The lane and the body of a create. Raises BadRequest for any other message."""
    type = event.get("type") if isinstance(event, dict) else None
    if not isinstance(type, str):
        raise BadRequest(
            "Invalid message: expected an object whose 'type' is 'response.create'.", code="invalid_value", param="type"
        )
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

"""What every operation of the server is given: the Api that it belongs to, and the Call that came in."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from antiphon.budget import Hold
from antiphon.errors import BadRequest
from antiphon.log import Log
from antiphon.seals import Seals
from antiphon.server.access import Access, Caller
from antiphon.server.limits import Admission, Limiter, Limits
from antiphon.server.metrics import Metrics
from antiphon.spec.document import Document
from antiphon.store.base import Claim

PIECE_BYTES = 256 << 10

encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Api:
    """What the operations work with.

    log keeps the stored responses; memory those with `store=false`, for as long as their request lasts.
    """

    document: Document
    log: Log
    memory: Log
    run: Callable[[Log, Claim], None]  # begins to work on a foreground response, here
    place: Callable[[], AbstractContextManager[None]]  # held until `run` is called; RateLimited if there is none
    models: Callable[[], Awaitable[list[dict[str, Any]]]]
    count_tokens: Callable[
        [str, Mapping[str, Any], Sequence[Mapping[str, Any]]], Awaitable[int]
    ]  # (tenant, request, context)
    runs_hosted_tools: Callable[[str], Awaitable[bool]]  # whether this model's server does
    seals: Seals
    readiness: Callable[[], Awaitable[str | None]]  # what is still missing, None when ready
    new_id: Callable[..., str]  # (prefix, chain=None)
    access: Access
    limiter: Limiter
    metrics: Metrics
    gauges: Callable[[], Awaitable[Mapping[str, float]]]  # see metrics.GAUGES
    sse_done: bool = False
    strict_tools: bool = False  # hosted tools that are not here are refused
    now: Callable[[], float] = time.time

    @property
    def limits(self) -> Limits:
        return self.limiter.limits


@dataclass(frozen=True)
class Call:
    """One request, checked: who calls, with which parameters and which body."""

    caller: Caller
    parameters: Mapping[str, Any]  # by name, converted as the document says
    body: Any = None
    body_bytes: int = 0
    idempotency_key: str | None = None
    admission: Admission | None = None  # of a call that begins a response

    @property
    def tenant(self) -> str:
        return self.caller.tenant


Operation = Callable[[Api, Call], Awaitable[ASGIApp]]


def checked_id(id: str, *, name: str, prefix: str) -> str:
    """The id, if it can be one of its kind. Raises BadRequest.

    name: where it was given; prefix: what every id of the kind begins with.
    """
    if not id.startswith(prefix):
        raise BadRequest(
            f"Invalid '{name}': '{id}'. Expected an ID that begins with '{prefix}'.",
            code="invalid_id_prefix",
            param=name,
        )
    return id


class Answer(Response):
    """An answer that is whole. A large one is sent as its caller reads it, and counts until he has."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = memoryview(self.body)
        if len(body) <= PIECE_BYTES:
            await super().__call__(scope, receive, send)
            return
        hold: Hold | None = scope["antiphon"].hold
        if hold is not None:
            # What only reads can be asked again; anything else has been done, and is told.
            (hold.add if scope["method"] == "GET" else hold.count)(len(body))
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for at in range(0, len(body), PIECE_BYTES):
            piece = bytes(body[at : at + PIECE_BYTES])
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def json_answer(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer with a JSON body; bytes are taken as JSON that is ready."""
    content = value if isinstance(value, bytes) else encode(value)
    return Answer(content, status, headers, media_type="application/json")

"""One call as a generator: it yields steps to be carried out and takes what came of them.

It holds no socket, no clock and no sleep, so a test plays the server by hand. `wire.py` carries the steps out:

    step      carried out by                  comes back
    Request   sending it, reading the head    Reply; a ConnectionFailed is thrown in
    Read      reading the open answer         bytes, none at its end; a ConnectionFailed is thrown in
    Close     closing the open answer         nothing
    Wait      sleeping                        nothing
    Result    giving it to the caller         nothing; likewise Opened and Event, Arriving and Piece
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from antiphon.errors import AntiphonError, ApiError, ConnectionFailed, ProtocolError

if TYPE_CHECKING:
    from antiphon.client.follow import Following
    from antiphon.client.upload import Upload


EVENTS = "text/event-stream"


def segment(value: object) -> str:
    """The value as one segment of a path: it can neither end the segment nor climb out of it."""
    escaped = quote(str(value), safe="")
    return escaped.replace(".", "%2E") if escaped in (".", "..") else escaped


@dataclass(frozen=True)
class Request:
    """What is to be sent. The path is percent-escaped and relative to the base URL."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)  # by their lower-case names
    body: bytes | Upload | None = None
    wants_stream: bool = False
    whole: bool = False  # the answer is to be read to its end, whatever it is
    answer_seconds: float | None = None  # how long it may stay silent before the head of the answer; None: the default
    operation: str | None = None  # the operationId, for hooks; None for what a call asks by itself

    @property
    def repeatable(self) -> bool:
        """Whether sending it twice does what sending it once does."""
        return self.method != "POST" or "idempotency-key" in self.headers

    @property
    def sendable(self) -> bool:
        """Whether all of its body can be read, perhaps again."""
        return self.body is None or isinstance(self.body, bytes) or self.body.repeatable


@dataclass(frozen=True)
class Reply:
    """An answer: whole, or with `body` None, one that is still to be read: an event stream, or bytes of a file."""

    status: int
    headers: Mapping[str, str]  # by their lower-case names
    body: bytes | None

    @property
    def media_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


@dataclass(frozen=True)
class Read:
    """The next bytes of the open answer; silence for so long is a ConnectionFailed."""

    seconds: float


@dataclass(frozen=True)
class Close:
    """The open answer is done with."""


@dataclass(frozen=True)
class Wait:
    seconds: float


@dataclass(frozen=True)
class Result:
    """The value of a plain call."""

    value: Any


@dataclass(frozen=True)
class Opened:
    """The call is a stream, and its answer has begun."""

    following: Following


@dataclass(frozen=True)
class Arriving:
    """The answer is neither JSON nor events, and its bytes follow as Pieces."""

    reply: Reply


@dataclass(frozen=True)
class Piece:
    """The next bytes of an answer."""

    data: bytes


@dataclass(frozen=True)
class Event:
    """The next event of a stream."""

    data: Any


Output = Result | Opened | Event | Arriving | Piece
Steps = Generator[Request | Read | Close | Wait | Output, Any, None]


@dataclass(frozen=True)
class Patience:
    """How often and how long a call tries, and the clock and the chance that it goes by."""

    max_retries: int = 2
    stall_seconds: float = 120.0
    resume_seconds: float = 300.0
    backoff_seconds_min: float = 0.5
    backoff_seconds_max: float = 8.0
    retry_after_seconds_max: float = 120.0  # a server that asks for more is not waited for
    now: Callable[[], float] = time.time
    chance: Callable[[], float] = random.random


def call(
    request: Request,
    *,
    patience: Patience,
    following: Callable[[Request], Following],
    check: Callable[[Reply, Any], None] | None = None,
) -> Steps:
    """The steps of one call; they end with a Result, or with Opened and then Events, or with Arriving and then Pieces.

    check: compares an answer with the description, and raises or warns.
    Raises ApiError for an answer of 300 and above, ConnectionFailed where there was none, StreamBroken.
    """
    reply = accepted((yield from _answer(request, patience)))
    if reply.body is not None:
        if request.wants_stream:
            kind = reply.media_type or "no content type"
            raise ProtocolError(f"The server answered with {kind} instead of a stream.")
        value = content(reply)
        if check:
            check(reply, value)
        yield Result(value)
    elif reply.media_type == EVENTS:
        stream = following(request)
        yield Opened(stream)
        yield from stream.steps()
    else:
        yield from _pieces(reply, patience)


def raw_call(request: Request, *, patience: Patience) -> Steps:
    """The steps of a call for the answer as it is, with any status; they end with a Result, the Reply."""
    yield Result((yield from _answer(replace(request, whole=True), patience)))


def _pieces(reply: Reply, patience: Patience) -> Steps:
    """Hand out the bytes of an open answer; one that has none is the Result None."""
    try:
        data = yield Read(patience.stall_seconds)
        yield Arriving(reply) if data else Result(None)
        while data:
            yield Piece(data)
            data = yield Read(patience.stall_seconds)
    except ConnectionFailed:
        yield Close()
        raise
    yield Close()


def _answer(request: Request, patience: Patience) -> Generator[Request | Wait, Any, Reply]:
    """The reply to the request, sent as often as it is worth it; it may be an error all the same."""
    for attempt in itertools.count():
        reply: Reply | None = None
        try:
            reply = yield request
            return accepted(reply)
        except (ApiError, ConnectionFailed) as failure:
            seconds = pause(failure, attempt, patience)
            if attempt >= patience.max_retries or not worth_repeating(failure, request) or seconds is None:
                if reply is None:
                    raise
                return reply
        yield Wait(seconds)
    raise AssertionError("the attempts are counted without end")


def accepted(reply: Reply) -> Reply:
    """The reply, unless it is an error, or a redirect that was not followed."""
    if reply.status < 300:
        return reply
    try:
        body: Any = decode_json(reply.body or b"")
    except ValueError:
        body = (reply.body or b"").decode("utf-8", "replace")
    request_id = reply.headers.get("x-request-id")
    raise ApiError.of(reply.status, body, request_id=request_id, headers=reply.headers)


def content(reply: Reply) -> Any:
    """The answer as the caller gets it: JSON decoded, None where there is nothing, else the bytes."""
    if not reply.body:
        return None
    if not is_json(reply.media_type):
        return reply.body
    try:
        return decode_json(reply.body)
    except ValueError as error:
        raise ProtocolError(f"The answer is not the JSON that it says it is: {error}") from error


def is_json(media_type: str) -> bool:
    return media_type == "application/json" or media_type.endswith("+json")


def worth_repeating(failure: ApiError | ConnectionFailed, request: Request) -> bool:
    """Whether the same request may be sent again, and might fare better.

    A POST whose answer was lost may have been carried out: it is repeated only under an Idempotency-Key, since a
    second run costs what the first did.
    """
    if not request.sendable:
        return False
    if isinstance(failure, ConnectionFailed):
        return request.repeatable or not failure.sent
    advice = failure.headers.get("x-should-retry")
    if advice in ("true", "false"):
        return advice == "true"
    return failure.status in (408, 429) or failure.status >= 500


def pause(failure: AntiphonError, attempt: int, patience: Patience) -> float | None:
    """Seconds to wait before the next attempt; None if the server asks for more than is bearable."""
    asked = _asked_seconds(failure.headers, patience.now) if isinstance(failure, ApiError) else None
    if asked is not None and asked > 0:
        return asked if asked <= patience.retry_after_seconds_max else None
    most = min(patience.backoff_seconds_min * 2.0**attempt, patience.backoff_seconds_max)
    return most * (1 - 0.25 * patience.chance())


def _asked_seconds(headers: Mapping[str, str], now: Callable[[], float]) -> float | None:
    """What `retry-after-ms` or Retry-After asks for, the latter in seconds or as a date (RFC 9110, 10.2.3)."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    asked = headers.get("retry-after", "")
    seconds = _number(asked)
    return _seconds_until(asked, now) if seconds is None else seconds


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _seconds_until(date: str, now: Callable[[], float]) -> float | None:
    from email.utils import parsedate_to_datetime

    try:
        then = parsedate_to_datetime(date)
    except (ValueError, OverflowError):
        return None
    return (then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp() - now()


def decode_json(data: bytes) -> Any:
    import msgspec

    return msgspec.json.decode(data)

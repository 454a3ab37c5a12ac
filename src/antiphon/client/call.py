"""One call as a generator: it yields steps to be carried out and takes what came of them.

It holds no socket, no clock and no sleep, so a test plays the server by hand. `wire.py` carries the steps out:

    step      carried out by                  comes back
    Request   sending it, reading the head    Reply; a ConnectionFailed is thrown in
    Read      reading the open answer         bytes, none at its end; a ConnectionFailed is thrown in
    Close     closing the open answer         nothing
    Wait      sleeping                        nothing
    Result    giving it to the caller         nothing; likewise Opened and Event
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from antiphon.errors import AntiphonError, ApiError, ConnectionFailed, ProtocolError

if TYPE_CHECKING:
    from antiphon.client.follow import Following


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
    body: bytes | None = None
    wants_stream: bool = False
    answer_seconds: float | None = None  # how long it may stay silent before the head of the answer; None: the default

    @property
    def repeatable(self) -> bool:
        """Whether sending it twice does what sending it once does."""
        return self.method != "POST" or "idempotency-key" in self.headers


@dataclass(frozen=True)
class Reply:
    """An answer: whole, or with `body` None, an event stream that is still to be read."""

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
class Event:
    """The next event of a stream."""

    data: Any


Output = Result | Opened | Event
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


def call(request: Request, *, patience: Patience, following: Callable[[Request], Following]) -> Steps:
    """The steps of one call; they end with a Result, or with Opened and then Events.

    Raises ApiError for an answer of 400 and above, ConnectionFailed where there was none, StreamBroken.
    """
    reply = yield from _answer(request, patience)
    if reply.body is None:
        stream = following(request)
        yield Opened(stream)
        yield from stream.steps()
    elif request.wants_stream:
        raise ProtocolError(f"The server answered with {reply.media_type or 'no content type'} instead of a stream.")
    else:
        yield Result(content(reply))


def _answer(request: Request, patience: Patience) -> Generator[Request | Wait, Any, Reply]:
    for attempt in itertools.count():
        try:
            return accepted((yield request))
        except (ApiError, ConnectionFailed) as failure:
            seconds = pause(failure, attempt, patience)
            if attempt >= patience.max_retries or not worth_repeating(failure, request) or seconds is None:
                raise
        yield Wait(seconds)
    raise AssertionError("the attempts are counted without end")


def accepted(reply: Reply) -> Reply:
    """The reply, unless it is an error."""
    if reply.status < 400:
        return reply
    try:
        body: Any = _decode_json(reply.body or b"")
    except ValueError:
        body = (reply.body or b"").decode("utf-8", "replace")
    request_id = reply.headers.get("x-request-id")
    raise ApiError.of(reply.status, body, request_id=request_id, headers=reply.headers)


def content(reply: Reply) -> Any:
    """The answer as the caller gets it: JSON decoded, None where there is nothing, else the bytes."""
    if not reply.body:
        return None
    if reply.media_type != "application/json" and not reply.media_type.endswith("+json"):
        return reply.body
    try:
        return _decode_json(reply.body)
    except ValueError as error:
        raise ProtocolError(f"The answer is not the JSON that it says it is: {error}") from error


def worth_repeating(failure: ApiError | ConnectionFailed, request: Request) -> bool:
    """Whether the same request may be sent again, and might fare better.

    A POST whose answer was lost may have been carried out: it is repeated only under an Idempotency-Key, since a
    second run costs what the first did.
    """
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
    try:
        if "retry-after-ms" in headers:
            return float(headers["retry-after-ms"]) / 1000
        return float(headers["retry-after"])
    except KeyError:
        return None
    except ValueError:
        return _seconds_until(headers.get("retry-after", ""), now)


def _seconds_until(date: str, now: Callable[[], float]) -> float | None:
    from email.utils import parsedate_to_datetime

    try:
        then = parsedate_to_datetime(date)
    except ValueError:
        return None
    return (then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp() - now()


def _decode_json(data: bytes) -> Any:
    import msgspec

    return msgspec.json.decode(data)

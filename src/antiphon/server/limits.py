"""What a caller may use: how much at once, how much per minute. Counted per key, in this process.

What is over a limit is refused before anything is done for it, with the API's own words: 429 with `retry-after` and the
`x-ratelimit-*` headers for what comes back with time, 400 for what is too large at any time.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from antiphon.budget import Budget, Hold
from antiphon.errors import BadRequest, RateLimited
from antiphon.server.access import Caller

BYTES_PER_TOKEN = 4  # about; what a response really used is settled at its end
RESERVATIONS_MAX = 10_000
RATE_HEADERS = tuple(
    f"x-ratelimit-{what}-{kind}" for kind in ("requests", "tokens") for what in ("limit", "remaining", "reset")
)


@dataclass(frozen=True)
class Limits:
    """All limits of calls; 0 of those per minute is none. A key may have values of its own: see `store.keys.LIMITS`."""

    max_body_bytes: int = 32 << 20
    max_held_bytes: int = 512 << 20
    max_json_depth: int = 64
    max_input_items: int = 10_000
    max_context_items: int = 20_000
    max_context_bytes: int = 64 << 20
    max_streams: int = 4096
    max_streams_per_key: int = 2048
    max_queued_per_key: int = 1000
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    request_seconds: float = 120.0  # how long a body may take to come
    keepalive_seconds: float = 15.0  # how long a stream is silent
    socket_seconds: float = 3600.0  # how long a WebSocket stays open


class Bucket:
    """So much per minute, refilled evenly. It may be in debt: what was used is known only afterwards."""

    def __init__(self, per_minute: int, now: float) -> None:
        self.per_minute = per_minute
        self._level = float(per_minute)
        self._at = now

    def level(self, now: float) -> float:
        self._level = min(float(self.per_minute), self._level + (now - self._at) * self.per_minute / 60)
        self._at = now
        return self._level

    def take(self, amount: float) -> None:
        self._level -= amount

    def seconds_until(self, level: float, now: float) -> float:
        """How long it takes until so much is there."""
        return max(0.0, (level - self.level(now)) * 60 / self.per_minute)


class _Use:
    """What one key uses."""

    def __init__(self) -> None:
        self.streams = 0
        self.buckets: dict[str, Bucket] = {}

    def bucket(self, kind: str, per_minute: int, now: float) -> Bucket:
        bucket = self.buckets.get(kind)
        if bucket is None or bucket.per_minute != per_minute:  # new, or the key has another limit now
            bucket = self.buckets[kind] = Bucket(per_minute, now)
        return bucket


@dataclass(frozen=True, slots=True)
class Admission:
    """The permission to begin a response. headers: what its answer tells of the limits.

    retention_days: for how long the response is kept, if its key has a value of its own.
    """

    headers: Mapping[str, str]
    began: Callable[[str], None]  # told the response's id, so that its real usage can be settled
    retention_days: int | None = None
    hold: Hold | None = None  # of its body


class Limiter:
    """The limits, and what has been used of them."""

    def __init__(self, limits: Limits, *, now: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits
        self.streams = 0  # open now, of all keys
        self.budget = Budget(max(limits.max_held_bytes, limits.max_body_bytes))
        self._now = now
        self._working: dict[str, Hold] = {}  # of bodies, by the response that is worked on here
        self._uses: dict[str, _Use] = {}  # by key, of those that were let in: there are no more than keys
        self._reserved: OrderedDict[str, tuple[Bucket, int]] = OrderedDict()  # by the response that it is for

    @contextmanager
    def stream(self, caller: Caller) -> Iterator[None]:
        """One more stream, for as long as this holds. Raises RateLimited."""
        use = self._use(caller)
        if use.streams >= self._limit(caller, "max_streams_per_key") or self.streams >= self.limits.max_streams:
            whose = "this server has" if self.streams >= self.limits.max_streams else "this API key has"
            raise RateLimited(
                f"Too many streams are open: {whose} reached its limit. Close one, or try again in a moment.",
                code="rate_limit_exceeded",
                headers={"retry-after": "1"},
            )
        use.streams += 1
        self.streams += 1
        try:
            yield
        finally:
            use.streams -= 1
            self.streams -= 1

    def check_queue(self, caller: Caller, queued: int) -> None:
        """Raise RateLimited if one more background response is too many, for a tenant with so many open ones."""
        limit = self._limit(caller, "max_queued_per_key")
        if queued >= limit:
            raise RateLimited(
                f"Too many background responses are open: limit {limit}. Please try again when some have ended.",
                code="rate_limit_exceeded",
                headers={"retry-after": "10"},
            )

    def admit(self, caller: Caller, body: Mapping[str, Any], *, size: int) -> Admission:
        """Count one more request to a model. Raises BadRequest or RateLimited, with nothing counted.

        size: the bytes of the body, from which its tokens are estimated; together with `max_output_tokens` they are
        reserved until it is known what the response has used.
        """
        self._check_items(body)
        now, use = self._now(), self._use(caller)
        wanted: list[tuple[str, Bucket, int]] = []
        if per_minute := self._limit(caller, "requests_per_minute"):
            wanted.append(("requests", use.bucket("requests", per_minute, now), 1))
        if per_minute := self._limit(caller, "tokens_per_minute"):
            tokens = size // BYTES_PER_TOKEN + (body.get("max_output_tokens") or 0)
            # More than the limit would never be let in.
            wanted.append(("tokens", use.bucket("tokens", per_minute, now), min(tokens, per_minute)))
        for kind, bucket, amount in wanted:
            if bucket.level(now) < amount:
                raise _over(kind, bucket, amount, now, body.get("model"), self._headers(wanted, now))
        for _, bucket, amount in wanted:
            bucket.take(amount)
        reserved = next(((bucket, amount) for kind, bucket, amount in wanted if kind == "tokens"), None)

        def began(response_id: str) -> None:
            if reserved is not None:
                self._reserved[response_id] = reserved
                if len(self._reserved) > RESERVATIONS_MAX:  # worked on elsewhere, or for long: its estimate stays
                    self._reserved.popitem(last=False)

        return Admission(self._headers(wanted, now), began, caller.limits.get("retention_days"))

    def work_on(self, response_id: str, hold: Hold) -> None:
        """What a body holds is held from now on by its response, which is worked on here, until that is settled."""
        self._working[response_id] = hold.hand_over()

    def settle(self, response_id: str, tokens: int | None) -> None:
        """Put what a response has used in the place of what was reserved for it; if it is unknown, that stays."""
        if hold := self._working.pop(response_id, None):
            hold.close()
        reserved = self._reserved.pop(response_id, None)
        if reserved is not None and tokens is not None:
            bucket, amount = reserved
            bucket.take(tokens - amount)

    def _use(self, caller: Caller) -> _Use:
        use = self._uses.get(caller.key)
        if use is None:
            use = self._uses[caller.key] = _Use()
        return use

    def _limit(self, caller: Caller, name: str) -> int:
        own = caller.limits.get(name)
        return int(getattr(self.limits, name)) if own is None else own

    def _check_items(self, body: Mapping[str, Any]) -> None:
        given, limit = body.get("input"), self.limits.max_input_items
        if isinstance(given, list) and len(given) > limit:
            raise BadRequest(
                f"Invalid 'input': array too long. Expected an array with maximum length {limit}, "
                f"but got an array with length {len(given)} instead.",
                code="array_above_max_length",
                param="input",
            )

    @staticmethod
    def _headers(wanted: list[tuple[str, Bucket, int]], now: float) -> dict[str, str]:
        """Those of RATE_HEADERS that have something to tell."""
        headers = {}
        for kind, bucket, _ in wanted:
            headers[f"x-ratelimit-limit-{kind}"] = str(bucket.per_minute)
            headers[f"x-ratelimit-remaining-{kind}"] = str(max(0, int(bucket.level(now))))
            headers[f"x-ratelimit-reset-{kind}"] = duration(bucket.seconds_until(bucket.per_minute, now))
        return headers


def check_context(limits: Limits, count: int) -> None:
    """Raise BadRequest for a context of so many items, if that is too many."""
    if count > limits.max_context_items:
        raise _too_long(f"{count} items", limits.max_context_items)


def check_context_bytes(limits: Limits, size: int) -> None:
    """Raise BadRequest if what is continued is too large."""
    if size > limits.max_context_bytes:
        raise _too_long(f"{size} bytes come before it", limits.max_context_bytes)


def _too_long(found: str, limit: int) -> BadRequest:
    return BadRequest(
        f"Your input exceeds the context of this server: {found}, at most {limit}. "
        "Begin a new conversation, or compact this one.",
        code="context_length_exceeded",
        param="input",
    )


def _over(
    kind: str, bucket: Bucket, amount: int, now: float, model: str | None, headers: Mapping[str, str]
) -> RateLimited:
    wait = bucket.seconds_until(amount, now)
    short = {"requests": "RPM", "tokens": "TPM"}[kind]
    used = bucket.per_minute - math.floor(bucket.level(now))
    return RateLimited(
        f"Rate limit reached for {model or 'this model'} on {kind} per min ({short}): Limit {bucket.per_minute}, "
        f"Used {used}, Requested {amount}. Please try again in {duration(wait)}.",
        type=kind,
        code="rate_limit_exceeded",
        headers={**headers, "retry-after": str(max(1, math.ceil(wait)))},
    )


def duration(seconds: float) -> str:
    """A time as the rate-limit headers have it: 0s, 120ms, 6.57s, 1m30s."""
    if seconds < 0.0005:
        return "0s"
    if seconds < 1:
        return f"{max(1, round(seconds * 1000))}ms"
    minutes, rest = divmod(round(seconds, 2), 60)
    return f"{minutes:.0f}m{rest:g}s" if minutes else f"{rest:g}s"

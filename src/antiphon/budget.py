"""Budget: the memory that requests, what they continue and what is said take in this process, all together.

It counts texts as they come and as they are kept. What Python makes of them takes up to a few times as much.
"""

from __future__ import annotations

import sys

from antiphon.errors import RateLimited

_SPARED_BYTES = 1 << 20  # a response that has said no more than this goes on, however much the others hold
_FOR_OUTPUT = 4  # the last fourth of all is for what is said: who sends large requests cuts nobody short


class Budget:
    """bytes_max: all together. New requests get three quarters of it; one has room while there is no other."""

    def __init__(self, bytes_max: int = sys.maxsize) -> None:
        self.bytes = 0
        self.bytes_max = bytes_max

    def hold(self) -> Hold:
        """Nothing yet."""
        return Hold(self)

    @property
    def new_bytes_max(self) -> int:
        """How much there may be for one more request to have room."""
        return self.bytes_max - self.bytes_max // _FOR_OUTPUT


class Hold:
    """The bytes of one request or response, counted from when they come for as long as they are in memory."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._bytes = 0

    def add(self, size: int) -> None:
        """Count so many more. Raises RateLimited if all together are too many then."""
        is_alone = self._budget.bytes == self._bytes
        if self._budget.bytes + size > self._budget.new_bytes_max and not is_alone:
            raise RateLimited(
                "Too many large requests are being worked on. Please try again in a moment.",
                code="rate_limit_exceeded",
                headers={"retry-after": "1"},
            )
        self.count(size)

    def count(self, size: int) -> None:
        """Count so many more, that are here already."""
        self._bytes += size
        self._budget.bytes += size

    def say(self, size: int) -> bool:
        """Count so many more that a response has said, and tell whether it may say more."""
        self.count(size)
        return self._bytes <= _SPARED_BYTES or self._budget.bytes <= self._budget.bytes_max

    def hand_over(self) -> Hold:
        """What there is, to be held by somebody else from now on."""
        hold = Hold(self._budget)
        hold._bytes, self._bytes = self._bytes, 0
        return hold

    def close(self) -> None:
        self._budget.bytes -= self._bytes
        self._bytes = 0

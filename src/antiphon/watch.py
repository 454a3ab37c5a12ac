"""Watch: what workers tell whoever counts or traces what they do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from antiphon.log import Entry
from antiphon.store.base import Claim


class Watch(Protocol):
    """Who wants to know what workers do. Called for every batch of every response: it must cost next to nothing."""

    def begun(self, claim: Claim) -> None: ...

    def appended(self, events: int, seconds: float) -> None:
        """So many entries were committed together, in that time."""

    def ended(self, status: str, last: Sequence[Entry]) -> None:
        """last: what was appended last."""


class Unwatched:
    """Nobody does."""

    def begun(self, claim: Claim) -> None: ...

    def appended(self, events: int, seconds: float) -> None: ...

    def ended(self, status: str, last: Sequence[Entry]) -> None: ...

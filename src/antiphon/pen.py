"""Pen: writes what one response says into its log, a few pieces at a time where nobody waits for each of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from antiphon.budget import Hold
from antiphon.log import Entry, Log, Work
from antiphon.store.base import Claim

HOLD_SECONDS = 0.05
HELD_MAX = 16  # entries: what comes in larger pieces needs no holding, and limits of a response see what it says


class Pen:
    """Appends to the log of one response.

    Who creates a response in the foreground, and not as a stream, is told its id with all that it has said: nobody else
    waits for the pieces. They are held for a moment, and share a commit; while it is under way the model is read once
    more at most.
    hold: counts what is said. appended: told how many entries were committed together, and in which time.
    """

    def __init__(
        self, log: Log, claim: Claim, work: Work, *, hold: Hold, appended: Callable[[int, float], None]
    ) -> None:
        self.said_bytes = 0
        self.has_room = True  # in the memory that all responses share
        self.last: Sequence[Entry] = ()  # what was appended last
        self._log = log
        self._claim = claim
        self._work = work
        self._hold = hold
        self._appended = appended
        self._holds = not (claim.background or work.request.get("stream"))
        self._held: list[Entry] = []
        self._timer: asyncio.TimerHandle | None = None
        self._appending: asyncio.Task[None] | None = None

    async def write(self, entries: Sequence[Entry]) -> None:
        """Append the entries now or, if more may come and nobody waits for them, within a moment. Raises LeaseLost."""
        self._held += entries
        if not self._holds or self._work.transcript.closed or len(self._held) > HELD_MAX:
            await self.flush()
            return
        await self._settled()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(HOLD_SECONDS, self._due)

    async def flush(self) -> None:
        """Append what is held."""
        self._stop_timer()
        await self._settled()
        if self._held:
            await self._append()

    async def close(self) -> None:
        """Give up what is held: it was written, or the log is another's now."""
        self._stop_timer()
        if self._appending is not None:
            self._appending.cancel()
            await asyncio.gather(self._appending, return_exceptions=True)
            self._appending = None  # whose error holds all of this

    def _due(self) -> None:
        self._timer = None
        self._appending = asyncio.create_task(self._append())

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _settled(self) -> None:
        if self._appending is not None:
            await asyncio.shield(self._appending)  # who is stopped meanwhile may want to flush
            self._appending = None

    async def _append(self) -> None:
        self.last, self._held = self._held, []
        since = time.perf_counter()
        size = await self._log.append(self._claim, self._work.transcript, self.last, request=self._work.request)
        self.said_bytes += size
        self.has_room = self._hold.say(size)
        self._appended(len(self.last), time.perf_counter() - since)

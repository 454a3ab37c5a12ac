"""Worker: claim -> answer -> append -> ring. The only file that knows both the engine and the store.

A response is read from the model, committed and rung for in one task, one batch after the other: while a batch is being
committed the model's socket is not read, so a slow store slows the model and what waits is bounded by the socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

from antiphon.budget import Budget, Hold
from antiphon.engine.answer import answer
from antiphon.engine.model import TENANT, Model
from antiphon.errors import LeaseLost, ModelError, NotFound, RateLimited, StoreError
from antiphon.log import CLAIMS, WORK, Entry, Log, Work, is_damage
from antiphon.pen import Pen
from antiphon.protocol.endings import close_failed, close_incomplete
from antiphon.protocol.transcript import Transcript
from antiphon.seals import Seals
from antiphon.store.base import Claim
from antiphon.watch import Unwatched, Watch

logger = logging.getLogger(__name__)

_LEFT_BEHIND_MAX = 16
_POSTPONED_MAX = 64  # at once; with more of them nothing new is taken
_POSTPONED_TIMES_MAX = 15  # of one response: for ten minutes altogether
_PAUSE_FACTOR_MAX = 60
_DAMAGED = "What is stored of the response is damaged, so it cannot go on."
_OUR_FAULT = "The server had an error while processing your request. Sorry about that!"


class Worker:
    """Runs responses: those that this process has accepted, and up to `background_max` that wait in the store.

    new_id: makes an id with a prefix, tied to the response whose id is given; seals: for what callers get encrypted;
    pause_seconds: how long a background response waits at first for a model's server that is out of reach.
    output_bytes_max, response_seconds_max: a response that says more, or takes longer, is ended.
    watch: told of all that happens; spent: told a response's id, and its tokens if they are known.
    budget: what all responses of the process may hold in memory; one that says more than there is room for is ended.
    """

    def __init__(
        self,
        model: Model,
        *,
        new_id: Callable[[str, str], str],
        seals: Seals,
        background_max: int = 4,
        foreground_max: int = 256,
        max_attempts: int = 3,
        renew_seconds: float = 3.0,
        pause_seconds: float = 1.0,
        output_bytes_max: int = 64 << 20,
        response_seconds_max: float = 3600.0,
        watch: Watch | None = None,
        spent: Callable[[str, int | None], None] = lambda response_id, tokens: None,
        budget: Budget | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._model = model
        self._new_id = new_id
        self._seals = seals
        self._background_max = background_max
        self._foreground_max = foreground_max
        self._max_attempts = max_attempts
        self._renew_seconds = renew_seconds
        self._output_bytes_max = output_bytes_max
        self._response_seconds_max = response_seconds_max
        self._watch = watch or Unwatched()
        self._spent = spent
        self._budget = budget or Budget()
        self._pause_seconds = pause_seconds
        self._now = now
        self._running: dict[asyncio.Task[None], tuple[Log, Claim]] = {}
        self._postponed = 0  # of those that run: they wait for a model's server that is out of reach
        self._coming = 0  # foreground responses that have a place and are being created
        self._logs: list[Log] = []  # whose waiting responses are taken
        self._claiming: list[asyncio.Task[None]] = []
        self._renewing: list[asyncio.Task[None]] = []
        self._renewed: dict[Log, float] = {}  # when each log's leases were renewed last
        self._ending: set[asyncio.Task[Any]] = set()  # those that are closing their log themselves
        self._stopping = False
        self._stop_asked = asyncio.Event()

    @property
    def busy(self) -> int:
        """How many responses are worked on now."""
        return len(self._running)

    def start(self, log: Log, *, claims: bool) -> None:
        """Look after a log: renew the leases of what runs here and, with `claims`, take what waits in its store."""
        self._renewing.append(asyncio.create_task(self._keep_leases(log)))
        if claims:
            self._logs.append(log)
            self._claiming.append(asyncio.create_task(self._keep_claiming(log)))

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """A place for one more foreground response, held until it runs. Raises RateLimited if there is none."""
        if self._stopping or self._foreground() + self._coming >= self._foreground_max:
            raise RateLimited(
                "Too many responses are being worked on. Please try again in a moment.",
                code="rate_limit_exceeded",
                headers={"retry-after": "1"},
            )
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1

    def run(self, log: Log, claim: Claim) -> None:
        """Begin to work on a response that has been claimed."""
        for task, (of, held) in self._running.items():
            if of is log and held.response_id == claim.response_id:
                task.cancel()  # its lease ran out, on a machine that slept, and here it comes again
        task = asyncio.create_task(self._work(log, claim), name=f"answer {claim.response_id}")
        self._running[task] = (log, claim)
        task.add_done_callback(self._ended)

    async def stop(self, *, seconds: float) -> None:
        """Take no more work, let what runs end within `seconds`, and hand back the rest."""
        self._stopping = True
        self._stop_asked.set()
        for log in self._logs:
            log.bell.ring(WORK)
        await asyncio.gather(*self._claiming)
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)
        while self._running:
            unfinished = dict(self._running)
            await _cancel(unfinished)
            handed_back = [log.store.release(claim) for log, claim in unfinished.values()]
            for failure in await asyncio.gather(*handed_back, return_exceptions=True):
                if isinstance(failure, Exception):
                    logger.error("a response could not be handed back", exc_info=failure)
        await _cancel(self._renewing)

    async def _keep_claiming(self, log: Log) -> None:
        with log.bell.listen(WORK) as rung:
            while not self._stopping:
                rung.clear()
                if not await self._tried(self._claim, log):
                    await self._recovery(log)
                await rung.wait()

    async def _keep_leases(self, log: Log) -> None:
        renewed = time.monotonic()
        with log.bell.listen(CLAIMS) as rung:
            while True:
                rang = await rung.wait()
                rung.clear()  # before the renewal: what rings during it, such as a cancel of ours, is for the next
                # A poll may come a moment early, and the next one would be late: a cancel may wait for this.
                if rang or time.monotonic() - renewed >= 0.9 * self._renew_seconds:
                    renewed = time.monotonic()
                    await self._tried(self._renew, log)
                    await self._tried(Log.end_overdue_turns, log)

    async def _recovery(self, log: Log) -> None:
        """Return half a lease after the store is well again, or at a stop.

        Nobody could renew a lease meanwhile, and who lives does so first: what he works on is not to be begun anew.
        """
        well = False
        while not (well or self._stopping):
            well = await self._tried(_check, log)
            await self._pause(log.lease_seconds / 2)

    async def _pause(self, seconds: float) -> None:
        """Return after that time, or at a stop."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop_asked.wait()

    async def _tried(self, act: Callable[[Log], Awaitable[None]], log: Log) -> bool:
        """Whether it was done."""
        done = False
        try:
            with log.outage.trying(act.__name__):
                await act(log)
                done = True
        except Exception:  # whatever it was, the next round may succeed, and there must be a next round
            logger.exception("%s failed and is tried again", act.__name__)
        return done

    def _ended(self, task: asyncio.Task[None]) -> None:
        log, claim = self._running.pop(task)
        if claim.background:
            log.bell.ring(WORK)  # there is room for another
        error = None if task.cancelled() else task.exception()
        if isinstance(error, StoreError):
            logger.warning("a response is left until the database is well: %s", error, extra=_facts(claim))
        elif error is not None:
            logger.error("the work on a response failed", exc_info=error, extra=_facts(claim))

    async def _claim(self, log: Log) -> None:
        """Take what waits, as far as there is room; what a dead process left in the foreground always has some."""
        if self._now() - self._renewed.get(log, 0.0) > log.lease_seconds / 2:
            await self._renew(log)  # first: after a sleep of the machine all leases look lost, our own too
        whole = True
        while whole:  # those of the foreground take no room, so there may be more of the background
            room = self._room()
            limit = room if room > 0 else _LEFT_BEHIND_MAX
            claims = await log.store.claim(limit=limit, lease_seconds=log.lease_seconds, background=room > 0)
            for claim in claims:
                self.run(log, claim)
            whole = len(claims) == limit and self._foreground() < self._foreground_max

    def _foreground(self) -> int:
        return sum(not claim.background for _, claim in self._running.values())

    def _room(self) -> int:
        """How many more background responses may be begun."""
        if self._postponed >= _POSTPONED_MAX:
            return 0
        background = sum(claim.background for _, claim in self._running.values())
        return self._background_max - background + self._postponed

    async def _renew(self, log: Log) -> None:
        """Keep the leases; stop what was lost, and cancel what nobody waits for."""
        began = self._now()
        tasks = {
            claim.response_id: (task, claim)
            for task, (of, claim) in self._running.items()
            if of is log and task not in self._ending
        }
        if not tasks:
            self._renewed[log] = began
            return
        renewal = await log.store.renew(
            [claim for _, claim in tasks.values()], lease_seconds=log.lease_seconds, grace_seconds=log.grace_seconds
        )
        self._renewed[log] = began  # not before: while the store fails, our own leases are lost one by one
        for response_id in renewal.lost:
            task, _ = tasks[response_id]
            if task not in self._ending:  # by now it may have taken the lease itself
                task.cancel()
        for response_id in renewal.unfollowed:
            claim = tasks[response_id][1]
            if not log.is_followed(claim.tenant, response_id):
                with contextlib.suppress(NotFound):
                    await log.cancel(claim.tenant, response_id)

    async def _work(self, log: Log, claim: Claim) -> None:
        began, status = time.monotonic(), "lost"  # cancelled, deleted, or another worker's now
        last: Sequence[Entry] = ()
        hold = self._budget.hold()
        self._watch.begun(claim)  # first: what is logged may belong to a trace that this begins
        logger.info("response begun", extra=_facts(claim))
        try:
            status, last = await self._answer(log, claim, hold)
        except (LeaseLost, NotFound):
            pass
        except asyncio.CancelledError:
            status = "handed back" if self._stopping else "lost"
            raise
        except StoreError:
            status = "left"  # for whoever finds the database well again
            raise
        except Exception:
            status = "failed"
            logger.exception("a response failed by a fault of ours", extra=_facts(claim))
            await self._end(log, claim, partial(close_failed, message=_OUR_FAULT))
        finally:
            seconds = round(time.monotonic() - began, 3)
            logger.info("response ended", extra={**_facts(claim), "status": status, "seconds": seconds})
            self._watch.ended(status, last)
            hold.close()
            self._spent(claim.response_id, _tokens(last))

    async def _answer(self, log: Log, claim: Claim, hold: Hold) -> tuple[str, Sequence[Entry]]:
        """The status of the response in the end, and what was appended last."""
        if claim.tries > self._max_attempts:  # not read before: that may be what fails again and again
            message = f"The response was begun {self._max_attempts} times and never came to its end."
            await self._end(log, claim, partial(close_failed, message=message), anyhow=True)
            return "failed", ()
        try:
            work = await log.work(claim)
        except Exception as error:
            if not is_damage(error):
                raise
            await self._end(log, claim, partial(close_failed, message=_DAMAGED))
            return "failed", ()
        hold.count(work.bytes)
        postponed = sum(note.kind == "postponed" for note in work.notes)
        entries = answer(
            work.transcript,
            {**work.request, TENANT: claim.tenant},
            work.context,
            self._model,
            now=self._now,
            new_id=lambda prefix: self._new_id(prefix, claim.response_id),
            notes=work.notes,
            waits=claim.background and postponed < _POSTPONED_TIMES_MAX,
            seals=self._seals.of(claim.tenant),
        )
        try:
            return await self._append(log, claim, work, entries, hold)
        except ModelError as failure:
            note = work.transcript.note("postponed", why=failure.message)
            await log.append(claim, work.transcript, [note], request=work.request)
            await self._postpone(log, claim, times=postponed)
            return "postponed", ()

    async def _postpone(self, log: Log, claim: Claim, *, times: int) -> None:
        """Hand a response back after a pause, which is longer each time. Until then it is ours, but takes no place."""
        self._postponed += 1
        log.bell.ring(WORK)  # another may be begun
        try:
            await self._pause(self._pause_seconds * min(2**times, _PAUSE_FACTOR_MAX))
        finally:
            self._postponed -= 1
        await log.store.release(claim)
        log.bell.ring(WORK)

    async def _append(
        self, log: Log, claim: Claim, work: Work, entries: AsyncGenerator[list[Entry]], hold: Hold
    ) -> tuple[str, Sequence[Entry]]:
        """Append all that is said, as far as the limits allow."""
        patience = asyncio.timeout(self._response_seconds_max)
        pen = Pen(log, claim, work, hold=hold, appended=self._watch.appended)
        try:
            async with patience, aclosing(entries):  # whatever happens, the model's socket is closed at once
                async for batch in entries:
                    await pen.write(batch)
                    is_full = pen.said_bytes > self._output_bytes_max or not pen.has_room
                    if is_full and not work.transcript.closed:
                        break
            if not work.transcript.closed:
                await pen.write(close_incomplete(work.transcript, reason="max_output_tokens"))
        except TimeoutError:
            if not patience.expired():
                raise
            await pen.flush()
            message = f"The response took longer than {self._response_seconds_max:g} seconds."
            await self._end(log, claim, partial(close_failed, message=message))
            return "failed", ()
        finally:
            # A cancelled task holds its error, and that this frame; a task in it would keep all of it, until the
            # collector comes.
            del patience
            await pen.close()
        return work.transcript.status, pen.last

    async def _end(
        self, log: Log, claim: Claim, write: Callable[[Transcript], Sequence[Entry]], *, anyhow: bool = False
    ) -> None:
        """Close a log that is worked on here, in whatever state it is; the claim that this takes is no loss."""
        task = asyncio.current_task()
        assert task is not None
        self._ending.add(task)
        try:
            await log.end(claim.tenant, claim.response_id, write, anyhow=anyhow)
        finally:
            self._ending.discard(task)


def _tokens(last: Sequence[Entry]) -> int | None:
    """What a response has used, if its end tells."""
    usages = [entry["response"]["usage"] for entry in last if isinstance(entry, dict) and "response" in entry]
    return usages[-1]["total_tokens"] if usages and usages[-1] else None


def _facts(claim: Claim) -> dict[str, Any]:
    """What a line of the log says of a response."""
    return {"response_id": claim.response_id, "tries": claim.tries}


async def _check(log: Log) -> None:
    await log.store.check()


async def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

"""Worker: claim -> answer -> append -> ring. The only file that knows both the engine and the store.

A response is read from the model, committed and rung for in one task, one batch after the other: while a batch is being
committed the model's socket is not read, so a slow store slows the model and what waits is bounded by the socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing
from functools import partial
from typing import Any

from antiphon.engine.answer import answer
from antiphon.engine.model import TENANT, Model
from antiphon.errors import LeaseLost, NotFound, RateLimited, StoreError
from antiphon.log import CLAIMS, WORK, Log
from antiphon.protocol.endings import close_failed
from antiphon.seals import Seals
from antiphon.store.base import Claim

logger = logging.getLogger(__name__)

_LEFT_BEHIND_MAX = 16
_OUR_FAULT = "The server had an error while processing your request. Sorry about that!"


class Worker:
    """Runs responses: those that this process has accepted, and up to `background_max` that wait in the store.

    new_id: makes an id with a prefix, tied to the response whose id is given; seals: for what callers get encrypted.
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
        now: Callable[[], float] = time.time,
    ) -> None:
        self._model = model
        self._new_id = new_id
        self._seals = seals
        self._background_max = background_max
        self._foreground_max = foreground_max
        self._max_attempts = max_attempts
        self._renew_seconds = renew_seconds
        self._now = now
        self._running: dict[asyncio.Task[None], tuple[Log, Claim]] = {}
        self._coming = 0  # foreground responses that have a place and are being created
        self._logs: list[Log] = []  # whose waiting responses are taken
        self._claiming: list[asyncio.Task[None]] = []
        self._renewing: list[asyncio.Task[None]] = []
        self._renewed: dict[Log, float] = {}  # when each log's leases were renewed last
        self._stopping = False

    def start(self, log: Log, *, claims: bool) -> None:
        """Look after a log: renew the leases of what runs here and, with `claims`, take what waits in its store."""
        self._renewing.append(asyncio.create_task(self._keep_leases(log)))
        if claims:
            self._logs.append(log)
            self._claiming.append(asyncio.create_task(self._keep_claiming(log)))

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """A place for one more foreground response, held until it runs. Raises RateLimited if there is none."""
        foreground = sum(not claim.background for _, claim in self._running.values())
        if self._stopping or foreground + self._coming >= self._foreground_max:
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
                await self._tried(self._claim, log)
                await rung.wait()

    async def _keep_leases(self, log: Log) -> None:
        renewed = time.monotonic()
        with log.bell.listen(CLAIMS) as rung:
            while True:
                rang = await rung.wait()
                rung.clear()  # before the renewal: what rings during it, such as a cancel of ours, is for the next
                if rang or time.monotonic() - renewed >= self._renew_seconds:
                    renewed = time.monotonic()
                    await self._tried(self._renew, log)

    async def _tried(self, act: Callable[[Log], Awaitable[None]], log: Log) -> None:
        try:
            await act(log)
        except Exception:  # whatever it was, the next round may succeed, and there must be a next round
            logger.exception("%s failed and is tried again", act.__name__)

    def _ended(self, task: asyncio.Task[None]) -> None:
        log, claim = self._running.pop(task)
        if claim.background:
            log.bell.ring(WORK)  # there is room for another
        if not task.cancelled() and (error := task.exception()):
            logger.error("the work on a response failed", exc_info=error, extra=_facts(claim))

    async def _claim(self, log: Log) -> None:
        """Take what waits, as far as there is room; what a dead process left in the foreground always has some."""
        if self._now() - self._renewed.get(log, 0.0) > log.lease_seconds / 2:
            await self._renew(log)  # first: after a sleep of the machine all leases look lost, our own too
        room = self._background_max - sum(claim.background for _, claim in self._running.values())
        claims = await log.store.claim(
            limit=room if room > 0 else _LEFT_BEHIND_MAX, lease_seconds=log.lease_seconds, background=room > 0
        )
        for claim in claims:
            self.run(log, claim)

    async def _renew(self, log: Log) -> None:
        """Keep the leases; stop what was lost, and cancel what nobody waits for."""
        self._renewed[log] = self._now()
        tasks = {claim.response_id: (task, claim) for task, (of, claim) in self._running.items() if of is log}
        if not tasks:
            return
        renewal = await log.store.renew(
            [claim for _, claim in tasks.values()], lease_seconds=log.lease_seconds, grace_seconds=log.grace_seconds
        )
        for response_id in renewal.lost:
            tasks[response_id][0].cancel()
        for response_id in renewal.unfollowed:
            claim = tasks[response_id][1]
            if not log.is_followed(claim.tenant, response_id):
                with contextlib.suppress(NotFound):
                    await log.cancel(claim.tenant, response_id)

    async def _work(self, log: Log, claim: Claim) -> None:
        began, status = time.monotonic(), "lost"  # cancelled, deleted, or another worker's now
        logger.info("response begun", extra=_facts(claim))
        try:
            status = await self._answer(log, claim)
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
            await log.end(claim.tenant, claim.response_id, partial(close_failed, message=_OUR_FAULT))
        finally:
            seconds = round(time.monotonic() - began, 3)
            logger.info("response ended", extra={**_facts(claim), "status": status, "seconds": seconds})

    async def _answer(self, log: Log, claim: Claim) -> str:
        work = await log.work(claim)
        if claim.tries > self._max_attempts:
            message = f"The response was begun {self._max_attempts} times and never came to its end."
            await log.append(
                claim, work.transcript, close_failed(work.transcript, message=message), request=work.request
            )
            return "failed"
        entries = answer(
            work.transcript,
            {**work.request, TENANT: claim.tenant},
            work.context,
            self._model,
            now=self._now,
            new_id=lambda prefix: self._new_id(prefix, claim.response_id),
            notes=work.notes,
            seals=self._seals.of(claim.tenant),
        )
        async with aclosing(entries):  # whatever happens, the model's socket is closed at once
            async for batch in entries:
                await log.append(claim, work.transcript, batch, request=work.request)
        return work.transcript.status


def _facts(claim: Claim) -> dict[str, Any]:
    """What a line of the log says of a response."""
    return {"response_id": claim.response_id, "attempt": claim.attempt}


async def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

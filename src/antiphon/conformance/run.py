"""Runs schedules against a site: all responses to their points, then the fault, then everything must come right."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import httpx2

from antiphon.conformance.official import Official, installed
from antiphon.conformance.schedule import Schedule
from antiphon.conformance.site import Node, Site
from antiphon.conformance.trial import Trial
from antiphon.conformance.upstream import Upstream

_SHORT_PAUSE_SECONDS = (0.05, 1.0)  # shorter than any lease


@dataclass(frozen=True)
class Finding:
    """Something that does not hold. cell: of the response that it was seen at."""

    schedule: Schedule
    cell: str
    problem: str

    def __str__(self) -> str:
        return f"{self.schedule}\n  {self.cell}: {self.problem}"


class Suite:
    """Enter it with a site whose nodes are not started, and an upstream that is: leaving it kills the nodes."""

    def __init__(self, site: Site, upstream: Upstream, *, api_key: str = "sk-conformance") -> None:
        self._site = site
        self._upstream = upstream
        self._api_key = api_key
        self._official: Official | None = None
        self._stack = AsyncExitStack()
        self._count = 0

    async def __aenter__(self) -> Suite:
        site = self._site
        self._http = await self._stack.enter_async_context(
            httpx2.AsyncClient(
                verify=any(node.base_url.startswith("https:") for node in site.nodes),
                timeout=httpx2.Timeout(site.settle_seconds, pool=None),
                limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
                headers={"authorization": f"Bearer {self._api_key}"},
            )
        )
        self._stack.callback(site.close)
        if installed():
            official = Official(site.nodes[0].base_url, api_key=self._api_key)
            self._official = await self._stack.enter_async_context(official)
        try:
            await site.start(self._http)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def faults(self) -> tuple[str, ...]:
        """What can be done to the site."""
        return self._site.faults

    async def run(self, schedule: Schedule) -> list[Finding]:
        """What is wrong after this schedule."""
        chance = random.Random(schedule.seed)
        self._count += 1
        trials = [
            Trial(
                cell,
                f"{schedule.seed}-{self._count}-{number}",
                site=self._site,
                upstream=self._upstream,
                http=self._http,
                official=self._official,
                chance=random.Random(chance.random()),
            )
            for number, cell in enumerate(schedule.cells)
        ]
        found = await _each(schedule, [trial for trial in trials if trial.cell.point != "before"], Trial.reach)
        # Last: their point is gone as soon as the others have theirs.
        found += await _each(schedule, [trial for trial in trials if trial.cell.point == "before"], Trial.reach)
        for trial in trials:
            trial.strike(moving=schedule.moving)
        async with AsyncExitStack() as damage:
            for fault in schedule.faults:
                await asyncio.sleep(schedule.delay_seconds)
                await self._hit(fault, trials, chance, damage)
            return found + await _each(schedule, trials, Trial.problems)

    async def left_running(self) -> list[str]:
        """The responses that the model still works for when all is over, although nobody has them."""
        try:
            async with asyncio.timeout(self._site.settle_seconds):
                await self._upstream.until(lambda: all(ask.over for ask in self._upstream.asks))
        except TimeoutError:
            pass
        return [f"{ask.key}@{ask.point} on node {ask.node}" for ask in self._upstream.asks if not ask.over]

    async def _hit(self, fault: str, trials: list[Trial], chance: random.Random, damage: AsyncExitStack) -> None:
        nodes = self._site.nodes
        if fault == "cut":
            for trial in trials:
                trial.cut()
        elif fault == "kill-server":
            await self._kill(nodes[0], chance)
        elif fault == "kill-worker":
            await self._kill(self._worker(chance, nodes[1:]), chance)
        elif fault == "pause":
            await self._pause(self._worker(chance, nodes), chance)
        else:
            await damage.enter_async_context(self._site.outside[fault]())

    def _worker(self, chance: random.Random, nodes: Sequence[Node]) -> Node:
        """One of these nodes that runs a response, if any does."""
        at_work = {ask.node for ask in self._upstream.asks if not ask.over}
        working = [node for node in nodes if self._site.nodes.index(node) in at_work]
        return chance.choice(working or nodes)

    async def _kill(self, node: Node, chance: random.Random) -> None:
        """Its replacement comes at once, or when the others have what it ran."""
        taken_over = self._taken_over(node)
        node.kill()
        if len(self._site.nodes) > 1 and chance.random() < 0.5:
            await self._wait(taken_over, self._site.pause_seconds)
        node.start()
        await node.answers(self._http, seconds=self._site.start_seconds)

    async def _pause(self, node: Node, chance: random.Random) -> None:
        """For a moment, or until the others have what it ran: then it must find out that it has lost it."""
        taken_over = self._taken_over(node)
        node.pause()
        try:
            if len(self._site.nodes) > 1 and chance.random() < 0.5:
                await self._wait(taken_over, self._site.pause_seconds)
            else:
                await asyncio.sleep(chance.uniform(*_SHORT_PAUSE_SECONDS))
        finally:
            node.resume()

    def _taken_over(self, node: Node) -> Callable[[], bool]:
        """Whether another node has asked the model for all that this one runs now."""
        number = self._site.nodes.index(node)
        keys = {ask.key for ask in self._upstream.asks if ask.node == number and not ask.over}
        return lambda: all(self._upstream.of(key)[-1].node != number for key in keys)

    async def _wait(self, seen: Callable[[], bool], seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._upstream.until(seen)
        except TimeoutError:
            pass  # some need not be asked for again, such as a finished call


async def _each(
    schedule: Schedule, trials: list[Trial], step: Callable[[Trial], Awaitable[list[str]]]
) -> list[Finding]:
    results = await asyncio.gather(*(step(trial) for trial in trials))
    return [
        Finding(schedule, str(trial.cell), problem)
        for trial, problems in zip(trials, results, strict=True)
        for problem in problems
    ]

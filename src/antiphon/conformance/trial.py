"""One response, taken to its point, hit there, and looked at afterwards."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx2

from antiphon.conformance import checks
from antiphon.conformance.official import Official
from antiphon.conformance.schedule import Cell
from antiphon.conformance.site import Site
from antiphon.conformance.upstream import MODEL, TOOL, Upstream, mark
from antiphon.conformance.watcher import Watcher

_EARLY_SECONDS_MAX = 0.02  # after the request was begun: the first event is on its way, or is not
_RETRY_SECONDS = 0.1
_MALFORMED = (LookupError, TypeError, ValueError, AttributeError)  # of an answer that was taken for what it should be

Json = dict[str, Any]


class Trial:
    """official: what else reads the whole log; None if it is not installed."""

    def __init__(
        self,
        cell: Cell,
        key: str,
        *,
        site: Site,
        upstream: Upstream,
        http: httpx2.AsyncClient,
        official: Official | None,
        chance: random.Random,
    ) -> None:
        self.cell = cell
        self.key = key
        self._site, self._upstream, self._http, self._chance = site, upstream, http, chance
        self._official = official
        self._author = Watcher(http, self._any_url)  # of a response that is streamed
        self._answering: asyncio.Task[Json | None] | None = None  # the create of any other
        self._observer: Watcher | None = None  # a second client

    async def reach(self) -> list[str]:
        """Begin the response, and return when it is at its point, or why it does not get there."""
        try:
            async with asyncio.timeout(self._site.settle_seconds):
                await self._begin()
                await self._reach()
            return []
        except (TimeoutError, httpx2.HTTPError, *_MALFORMED) as error:
            return [f"did not get to its point: {error!r}, {self._standing()}"]

    def strike(self, *, moving: bool) -> None:
        """The fault comes now: who is at the end goes for it."""
        if moving or self.cell.point == "terminal":
            self._upstream.release(self.key)

    def cut(self) -> None:
        """Hang up."""
        if self._answering is not None and not self._answering.done():
            self._answering.cancel()
            self._answering = None
        self._author.cut()

    async def problems(self) -> list[str]:
        """Let everything go on, and say what is wrong with the outcome."""
        try:
            async with asyncio.timeout(self._site.settle_seconds):
                return [problem async for problem in self._outcome()]
        except TimeoutError:
            return [f"not settled after {self._site.settle_seconds:g} s: {self._standing()}"]
        except _MALFORMED as error:
            return [f"what was answered has not the form of the API: {error!r}"]
        finally:
            self.cut()
            if self._observer is not None:
                self._observer.cut()

    async def _begin(self) -> None:
        url = self._site.nodes[0].base_url
        body = await self._body(url)
        if self.cell.streams:
            options = {"stream": True, "stream_options": {"include_obfuscation": False}}
            self._author.create(url, {**body, **options})
        else:
            self._answering = asyncio.create_task(self._create(url, body))

    async def _reach(self) -> None:
        if self.cell.point == "before":
            await asyncio.sleep(self._chance.uniform(0, _EARLY_SECONDS_MAX))
            return
        if self.cell.point == "created" and self.cell.mode != "plain":
            await self._named()
            return
        await self._upstream.until(lambda: any(ask.stopped for ask in self._upstream.of(self.key)))
        response_id = await self._named()
        if response_id is None:
            return
        self._observer = Watcher(self._http, self._any_url, response_id)
        self._observer.follow()
        if self.cell.point in ("text", "arguments", "called", "terminal"):
            for watcher in self._watchers():
                await watcher.until(partial(watcher.saw, "response.output_item.added"))

    async def _body(self, url: str) -> Json:
        body: Json = {"model": MODEL, "input": mark(self.key, self.cell.point), "store": True}
        if self.cell.background:
            body["background"] = True
        if self.cell.point in ("arguments", "called"):
            body["tools"] = [TOOL]
        if self.cell.point != "between":
            return body
        first = {"model": MODEL, "input": mark(self.key, "call"), "tools": [TOOL]}
        answer = await self._http.post(f"{url}/responses", json=first)
        answer.raise_for_status()
        response = answer.json()
        (call,) = (item for item in response["output"] if item["type"] == "function_call")
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": mark(self.key, "between")}
        return {**body, "input": [output], "tools": [TOOL], "previous_response_id": response["id"]}

    async def _create(self, url: str, body: Json) -> Json | None:
        """The answer to a create that is not streamed; None if there was none that tells of a response."""
        try:
            answer = await self._http.post(f"{url}/responses", json=body)
        except httpx2.HTTPError:
            return None
        return answer.json() if answer.status_code == 200 else None

    async def _named(self) -> str | None:
        """The response's id, as soon as its clients know it; None if they will not."""
        if self.cell.streams:
            await self._author.until(lambda: self._author.response_id is not None)
            return self._author.response_id
        if self.cell.mode == "plain":
            return None
        answer = await self._answer()
        return answer["id"] if answer else None

    async def _answer(self) -> Json | None:
        """The answer to the create, when it is there; None if it never comes."""
        if self._answering is None:
            return None
        await asyncio.wait({self._answering})
        return None if self._answering.cancelled() else self._answering.result()

    async def _outcome(self) -> Any:
        response_id = await self._named()
        waits = self._answering is not None and not self._answering.done()
        # What no client knows of, none can come back to: unless it is in the background, it may not run on.
        if response_id is not None or waits or self.cell.background:
            self._upstream.release(self.key)
        if response_id is not None:
            await self._come_back(response_id)
        answer = await self._answer()
        if response_id is None and answer is not None:
            response_id = answer["id"]
        if response_id is not None:
            for problem in await self._looked_at(response_id, answer):
                yield problem
        await self._upstream.until(lambda: not self._upstream.running(self.key))

    async def _come_back(self, response_id: str) -> None:
        """Whoever was cut off follows the rest to its end."""
        self._author.response_id = response_id
        for watcher in self._watchers():
            watcher.follow()
            await watcher.finished()

    async def _looked_at(self, response_id: str, answer: Json | None) -> list[str]:
        log = Watcher(self._http, self._any_url, response_id)
        log.follow()
        await log.finished()
        if log.gone:
            return [f"{response_id} was shown, and is unknown now"]
        response = await self._get(response_id)
        found = list(self._compare(log, response, answer))
        if self._official is not None:
            found += await self._official.problems(response_id, response)
        return found

    def _compare(self, log: Watcher, response: Json, answer: Json | None) -> Iterator[str]:
        yield from checks.of_log(log.seen)
        for watcher in (*self._watchers(), log):
            yield from watcher.problems
            yield from checks.of_client(watcher.seen, log.seen)
        yield from checks.of_answer(response, log.seen)
        if answer is not None and not self.cell.background:
            yield from checks.of_answer(answer, log.seen)
        yield from checks.of_ending(response, self.cell.point)

    async def _get(self, response_id: str) -> Json:
        while True:
            try:
                answer = await self._http.get(f"{self._any_url()}/responses/{response_id}")
                if answer.status_code < 500:
                    response: Json = answer.json()
                    return response
            except httpx2.HTTPError:
                pass  # not up again yet
            await asyncio.sleep(_RETRY_SECONDS)

    def _any_url(self) -> str:
        return self._chance.choice(self._site.nodes).base_url

    def _watchers(self) -> list[Watcher]:
        return [self._author] if self._observer is None else [self._author, self._observer]

    def _standing(self) -> str:
        """Where everything is, for a person who has to find out why it does not go on."""
        asks = [f"node {ask.node}: {'over' if ask.over else 'running'}" for ask in self._upstream.of(self.key)]
        seen = [f"{len(watcher.seen)} events to {watcher.types[-1:]}" for watcher in self._watchers()]
        return f"{self._author.response_id}, clients saw {seen}, the model was asked by {asks}"

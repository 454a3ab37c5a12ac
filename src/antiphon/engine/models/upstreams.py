"""Upstreams: several models' servers as one Model, and which of them is asked for which model.

A name is looked for among the aliases, then the names, then the patterns of all servers in their order, then in the
lists of those that take what they list themselves; the server with `*` has what is left. The response keeps the name
that its caller asked for: what an alias stands for is nobody else's affair.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from antiphon.engine.model import Delta, Model, TokenCount
from antiphon.engine.models.failures import model_not_found
from antiphon.errors import ModelError

log = logging.getLogger(__name__)

_PAUSE_SECONDS = 0.25  # before the first retry; twice as long before each other
_WAIT_SECONDS_MAX = 2.0  # a server that wants more is left alone, and the caller is told
_LIST_SECONDS = 5.0  # for one server to list its models: the others' are not to wait for it longer
_SILENT = "The model's server was silent for too long."
_SILENT_SECONDS = 30.0  # how long one that took longer is not asked for its list again


@dataclass(frozen=True)
class Route:
    """A server, and what it is asked for.

    models: names and patterns; none for those that it lists itself, and "*" for whatever no other has.
    aliases: its name of a model, by the callers'; retries: before it has said anything; max_parallel: turns at once.
    """

    name: str
    model: Model
    models: Sequence[str] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    retries: int = 2
    max_parallel: int | None = None


class Upstreams:
    """The servers of these routes."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = tuple(routes)
        self._listed: dict[str, frozenset[str]] = {}  # what a server has listed last, by its name
        self._silent_until: dict[str, float] = {}  # by the event loop's clock
        self._places: dict[str, AbstractAsyncContextManager[Any]] = {
            route.name: nullcontext() if route.max_parallel is None else asyncio.Semaphore(route.max_parallel)
            for route in self._routes
        }

    async def turn(
        self, request: Mapping[str, Any], context: Sequence[Mapping[str, Any]]
    ) -> AsyncGenerator[list[Delta]]:
        route, request = await self._routed(request)
        async with self._places[route.name]:
            for attempt in range(route.retries + 1):
                said = False
                try:
                    async with aclosing(route.model.turn(request, context)) as turn:
                        async for deltas in turn:
                            said = True
                            yield deltas
                    return
                except ModelError as failure:
                    pause = _pause(failure, attempt)
                    if said or pause is None or attempt == route.retries:
                        raise
                    if not _is_logged(failure):
                        log.warning("an upstream is asked again", extra=_facts(route, failure))
                await asyncio.sleep(pause)

    async def continues_prefix(self, request: Mapping[str, Any], context: Sequence[Mapping[str, Any]]) -> bool:
        route, request = await self._routed(request)
        return await route.model.continues_prefix(request, context)

    async def count_tokens(self, request: Mapping[str, Any], context: Sequence[Mapping[str, Any]]) -> TokenCount:
        route, request = await self._routed(request)
        return await route.model.count_tokens(request, context)

    async def runs_hosted_tools(self, model: str) -> bool:
        try:
            route, request = await self._routed({"model": model})
        except ModelError:
            return False
        return await route.model.runs_hosted_tools(request["model"])

    async def models(self) -> list[dict[str, Any]]:
        """The models of all servers, aliases too, each name once; a server that is down has none."""
        listed = await asyncio.gather(*map(self._list, self._routes), return_exceptions=True)
        down = [failure for failure in listed if isinstance(failure, BaseException)]
        if len(down) == len(self._routes):
            raise down[0]
        models: dict[str, dict[str, Any]] = {}
        for route, found in zip(self._routes, listed, strict=True):
            for model in () if isinstance(found, BaseException) else _offered(route, found):
                models.setdefault(model["id"], model)
        return list(models.values())

    async def close(self) -> None:
        await asyncio.gather(*(route.model.close() for route in self._routes))

    async def _routed(self, request: Mapping[str, Any]) -> tuple[Route, Mapping[str, Any]]:
        """The server to ask, and the request under its own name of the model. Raises ModelError if there is none."""
        name = request["model"]
        for each in self._routes:
            if name in each.aliases:
                return each, {**request, "model": each.aliases[name]}
        route = self._by_models(name) or await self._by_lists(name) or self._with("*")
        if route is None:
            raise model_not_found(name)
        return route, request

    def _by_models(self, name: str) -> Route | None:
        if (named := self._with(name)) is not None:
            return named
        patterns = ((pattern, route) for route in self._routes for pattern in route.models if pattern != "*")
        return next((route for pattern, route in patterns if fnmatchcase(name, pattern)), None)

    def _with(self, name: str) -> Route | None:
        return next((route for route in self._routes if name in route.models), None)

    async def _by_lists(self, name: str) -> Route | None:
        failure: ModelError | None = None
        for route in self._routes:
            if route.models:
                continue
            try:
                await self._list(route)
            except ModelError as down:
                if route.name not in self._listed:
                    failure = down
            if name in self._listed.get(route.name, ()):
                return route
        if failure is not None and self._with("*") is None:
            raise failure  # it may well have this model: nobody can say that there is none
        return None

    async def _list(self, route: Route) -> list[dict[str, Any]]:
        now = asyncio.get_running_loop().time()
        if now < self._silent_until.get(route.name, 0.0):  # who asks for another server's model is not to wait again
            raise ModelError(_SILENT, status=504)
        try:
            async with asyncio.timeout(_LIST_SECONDS):
                models = await route.model.models()
        except (ModelError, TimeoutError) as error:
            if not _is_logged(error):
                log.warning("an upstream does not list its models", extra=_facts(route, error))
            if isinstance(error, TimeoutError):
                self._silent_until[route.name] = now + _LIST_SECONDS + _SILENT_SECONDS
                raise ModelError(_SILENT, status=504) from error
            raise
        self._listed[route.name] = frozenset(model["id"] for model in models)
        return models


def _offered(route: Route, listed: Iterable[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """Of what a server lists, what it is asked for, and its aliases."""
    by_name = {model["id"]: model for model in listed}
    for name, model in by_name.items():
        if not route.models or any(name == pattern or fnmatchcase(name, pattern) for pattern in route.models):
            yield model
    for alias, name in route.aliases.items():
        made = by_name.get(name, {"object": "model", "created": 0, "owned_by": route.name})
        yield {**made, "id": alias}


def _is_logged(failure: Exception) -> bool:
    """Whether its connection has told it already, which knows the address and what exactly went wrong."""
    return isinstance(failure, ModelError) and isinstance(failure.__cause__, OSError)


def _facts(route: Route, failure: Exception) -> dict[str, str]:
    return {"upstream": route.name, "why": str(failure)}


def _pause(failure: ModelError, attempt: int) -> float | None:
    """How long to wait before the server is asked again; None if that would not help, or not soon."""
    if not failure.passing:
        return None
    pause: float = _PAUSE_SECONDS * 2**attempt
    try:
        if "retry-after-ms" in failure.headers:
            pause = float(failure.headers["retry-after-ms"]) / 1000
        elif "retry-after" in failure.headers:
            pause = float(failure.headers["retry-after"])
    except ValueError:  # a date
        return None
    return pause if pause <= _WAIT_SECONDS_MAX else None

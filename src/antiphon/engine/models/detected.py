"""Detected: a server whose protocol nobody has named. It is asked once, and the answer is remembered.

The question is an empty `POST /responses`: without input no server can answer it, so it costs no tokens, and whoever
knows the path says what is missing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from antiphon.engine.model import Delta, TokenCount
from antiphon.engine.models.chat_completions import ChatCompletions
from antiphon.engine.models.responses import Responses
from antiphon.errors import ModelError

log = logging.getLogger(__name__)

_KNOWS_IT = frozenset({400, 422})
_DOES_NOT = frozenset({404, 405, 501})


class Detected:
    """The server that both of these ask."""

    def __init__(self, responses: Responses, chat: ChatCompletions) -> None:
        self._responses = responses
        self._chat = chat
        self._known: Responses | ChatCompletions | None = None
        self._asking = asyncio.Lock()

    async def turn(
        self, request: Mapping[str, Any], context: Sequence[Mapping[str, Any]]
    ) -> AsyncGenerator[list[Delta]]:
        model = await self._model()
        async with aclosing(model.turn(request, context)) as turn:
            async for deltas in turn:
                yield deltas

    async def continues_prefix(self, request: Mapping[str, Any], context: Sequence[Mapping[str, Any]]) -> bool:
        return await (await self._model()).continues_prefix(request, context)

    async def count_tokens(self, request: Mapping[str, Any], context: Sequence[Mapping[str, Any]]) -> TokenCount:
        try:
            model = await self._model()
        except ModelError:
            model = self._chat  # which estimates
        return await model.count_tokens(request, context)

    async def runs_hosted_tools(self, model: str) -> bool:
        try:
            return await self._model() is self._responses
        except ModelError:
            return False

    async def models(self) -> list[dict[str, Any]]:
        return await self._chat.models()

    async def close(self) -> None:
        await self._responses.close()
        await self._chat.close()

    async def _model(self) -> Responses | ChatCompletions:
        async with self._asking:
            if self._known is not None:
                return self._known
            status, body = await self._responses.connection.outcome("POST", "/responses", {})
            # It may miss the model of no name. LM Studio, before it knew the path, said of it that there is none: 200.
            misses = (status == 404 and b"model" in body) or (status == 200 and b"Unexpected endpoint" not in body)
            if status in _KNOWS_IT or misses:
                self._known = self._responses
            elif status in _DOES_NOT or status == 200:
                self._known = self._chat
            else:  # a key refused, a server that is ill: the turn will tell, and the next one asks again
                return self._chat
            log.info("an upstream's protocol is known", extra={"protocol": type(self._known).__name__})
            return self._known

"""Responses: asks a server that speaks the Responses API itself (OpenAI, vLLM, Ollama, LM Studio, another Antiphon).

It keeps nothing: the context is always sent whole, under our numbering and our ids. Its events are carried through, so
that everything it can do that we cannot, such as tools that it runs itself, reaches our caller.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from antiphon.engine.model import TENANT, Delta, TokenCount
from antiphon.engine.models.connection import Connection
from antiphon.engine.models.responses_reader import ResponsesReader
from antiphon.engine.models.responses_request import responses_body, without_encrypted
from antiphon.engine.models.token_counts import cache_salt, estimate, is_about_model
from antiphon.errors import ModelError

_COUNTED = (
    "model", "input", "instructions", "tools", "tool_choice", "parallel_tool_calls", "reasoning", "text", "truncation",
)  # fmt: skip


class Responses:
    """A server at `base_url`, e.g. https://api.openai.com/v1. The rest is as for ChatCompletions."""

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        connect_seconds: float = 10.0,
        idle_seconds: float = 300.0,
        event_bytes_max: int = 8 << 20,
        models_seconds: float = 30.0,
        cache_secret: str | None = None,
    ) -> None:
        self.connection = Connection(
            base_url,
            api="Responses API",
            api_key=api_key,
            headers=headers,
            connect_seconds=connect_seconds,
            idle_seconds=idle_seconds,
            bytes_max=event_bytes_max,
            models_seconds=models_seconds,
        )
        self._cache_secret = cache_secret
        self._plain: set[str] = set()  # models that know no encrypted reasoning
        self._counts = True  # until the server says that it does not

    async def turn(
        self, request: Mapping[str, Any], context: Sequence[Mapping[str, Any]]
    ) -> AsyncGenerator[list[Delta]]:
        body = self._body(request, context)
        if request["model"] not in self._plain:
            said = False
            try:
                async with aclosing(self._ask(body)) as turn:
                    async for deltas in turn:
                        said = True
                        yield deltas
                return
            except ModelError as failure:
                if said or not _is_about_encryption(failure):
                    raise
                if failure.code != "invalid_encrypted_content":  # that is about this context, not about the model
                    self._plain.add(request["model"])
        async with aclosing(self._ask(without_encrypted(body))) as turn:
            async for deltas in turn:
                yield deltas

    async def continues_prefix(self, request: Mapping[str, Any], context: Sequence[Mapping[str, Any]]) -> bool:
        return False

    async def count_tokens(self, request: Mapping[str, Any], context: Sequence[Mapping[str, Any]]) -> TokenCount:
        body = without_encrypted(self._body(request, context))
        if self._counts:
            counted = {name: body[name] for name in _COUNTED if name in body}
            try:
                told = await self.connection.json("POST", "/responses/input_tokens", counted)
                return TokenCount(int(told["input_tokens"]), exact=True)
            except ModelError as failure:
                if is_about_model(failure, request["model"]):
                    raise
                self._counts = failure.passing or failure.status not in (404, 405, 502)
            except (KeyError, TypeError, ValueError):
                self._counts = False
        return estimate(body)

    async def runs_hosted_tools(self, model: str) -> bool:
        return True

    async def models(self) -> list[dict[str, Any]]:
        return await self.connection.models()

    async def close(self) -> None:
        await self.connection.close()

    def _ask(self, body: Mapping[str, Any]) -> AsyncGenerator[list[Delta]]:
        reader = ResponsesReader(event_bytes_max=self.connection.bytes_max, secrets=self.connection.secrets)
        return self.connection.turn("/responses", body, reader)

    def _body(self, request: Mapping[str, Any], context: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        body = responses_body(request, context, keeps_ids=not self.connection.is_openai)
        if self._cache_secret is not None:
            body["cache_salt"] = cache_salt(self._cache_secret, request.get(TENANT, ""))
        return body


def _is_about_encryption(failure: ModelError) -> bool:
    """Whether the server does not want the encrypted reasoning that it was asked for, or was sent."""
    if failure.status != 400:
        return False
    told = f"{failure.code} {failure.param} {failure.message}".lower()
    return "encrypted" in told or (failure.param or "").startswith("include")

"""ChatCompletions: asks any server that speaks OpenAI's Chat Completions (vLLM, llama.cpp, Ollama, OpenAI itself).

Always by a stream, so that a socket that is closed stops the model, and always with usage. All that the two APIs say
differently is in chat_request.py and chat_reader.py; this file only carries.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from antiphon.engine.model import TENANT, Delta, TokenCount
from antiphon.engine.models.chat_reader import ChatReader
from antiphon.engine.models.chat_request import chat_body, is_unconstrained, is_unfinished, unfinished_message
from antiphon.engine.models.connection import Connection
from antiphon.engine.models.token_counts import ChatCounter, cache_salt


class ChatCompletions:
    """A model server at `base_url`, e.g. http://127.0.0.1:8000/v1.

    continues_prefix: the server goes on with an unfinished message at the end of the context, and tells with each piece
    what it has cost so far (vLLM, SGLang); cache_secret: tenants do not share the server's prefix cache, whose salt is
    made of it (vLLM). The others: see Connection.
    """

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
        continues_prefix: bool = False,
        cache_secret: str | None = None,
    ) -> None:
        self._continues_prefix = continues_prefix
        self.connection = Connection(
            base_url,
            api_key=api_key,
            headers=headers,
            connect_seconds=connect_seconds,
            idle_seconds=idle_seconds,
            bytes_max=event_bytes_max,
            models_seconds=models_seconds,
        )
        self._cache_secret = cache_secret
        self._counter = ChatCounter(self.connection)
        # OpenAI's reasoning models refuse max_tokens; most other servers know only that.
        self._limit_field = "max_completion_tokens" if self.connection.is_openai else "max_tokens"

    def turn(self, request: Mapping[str, Any], context: Sequence[Mapping[str, Any]]) -> AsyncGenerator[list[Delta]]:
        return self.ask(self._body(request, context))

    def ask(self, body: Mapping[str, Any]) -> AsyncGenerator[list[Delta]]:
        """One turn, for a body of the Chat Completions form."""
        reader = ChatReader(event_bytes_max=self.connection.bytes_max, secrets=self.connection.secrets)
        return self.connection.turn("/chat/completions", body, reader)

    async def continues_prefix(self, request: Mapping[str, Any], context: Sequence[Mapping[str, Any]]) -> bool:
        return self._continues_prefix and is_unconstrained(self._body(request, context))

    async def count_tokens(self, request: Mapping[str, Any], context: Sequence[Mapping[str, Any]]) -> TokenCount:
        return await self.count(self._body(request, context))

    async def count(self, body: Mapping[str, Any]) -> TokenCount:
        """The tokens of a body of the Chat Completions form."""
        return await self._counter.count(body)

    async def runs_hosted_tools(self, model: str) -> bool:
        return False

    async def models(self) -> list[dict[str, Any]]:
        return await self.connection.models()

    async def close(self) -> None:
        await self.connection.close()

    def _body(self, request: Mapping[str, Any], context: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        body = chat_body(request, context, limit_field=self._limit_field)
        if self._continues_prefix:
            body["stream_options"] = {**body["stream_options"], "continuous_usage_stats": True}
            if is_unfinished(context):
                body["messages"][-1] = unfinished_message(context)
                body |= {"continue_final_message": True, "add_generation_prompt": False}
        if self._cache_secret is not None:
            body["cache_salt"] = cache_salt(self._cache_secret, request.get(TENANT, ""))
        return body

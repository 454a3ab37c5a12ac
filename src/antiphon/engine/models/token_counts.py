"""How long a request is in tokens: asked of the model's server where it can tell, otherwise estimated.

vLLM counts messages (`/tokenize`), llama.cpp renders them (`/apply-template`) and counts the text. Which of the two a
server is shows in its first answer, and is remembered.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Mapping
from typing import Any

import msgspec

from antiphon.engine.model import TokenCount
from antiphon.engine.models.connection import Connection
from antiphon.errors import ModelError

log = logging.getLogger(__name__)

_CHARACTERS_PER_TOKEN = 4
_TOKENS_PER_MESSAGE = 4  # what a chat template puts around each
_TOKENS_PER_IMAGE = 800  # the size of a common picture; its data says nothing about it
_RENDERED = (
    "messages", "tools", "tool_choice", "parallel_tool_calls", "response_format", "add_generation_prompt",
    "continue_final_message",
)  # fmt: skip


class ChatCounter:
    """Counts the tokens of a Chat Completions body on the server that would answer it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._cannot = False  # the server has said so

    async def count(self, body: Mapping[str, Any]) -> TokenCount:
        if not self._cannot:
            try:
                count = await self._asked(body)
            except ModelError as failure:
                if is_about_model(failure, body["model"]):
                    raise
                log.info("The model's server does not count tokens", extra={"error": failure.message})
                count = None
                # What is wrong with this request says nothing of the next.
                self._cannot = not failure.passing and (failure.status in (404, 405) or failure.status >= 500)
            if count is not None:
                return TokenCount(count, exact=True)
        return estimate(body)

    async def _asked(self, body: Mapping[str, Any]) -> int | None:
        rendered = {name: body[name] for name in _RENDERED if name in body}
        # Both stand beside /v1. llama.cpp takes the messages for an empty text and gives no count.
        told = await self._connection.json("POST", "/../tokenize", {"model": body["model"], **rendered})
        if isinstance(told, dict) and isinstance(told.get("count"), int):
            return int(told["count"])
        prompt = await self._connection.json("POST", "/../apply-template", rendered)
        try:
            text = {"content": prompt["prompt"], "add_special": True, "parse_special": True}
            return len((await self._connection.json("POST", "/../tokenize", text))["tokens"])
        except (KeyError, TypeError) as error:  # some servers answer 200 whatever they are asked
            raise ModelError("The model's server does not count tokens.") from error


def is_about_model(failure: ModelError, name: str) -> bool:
    """Whether the server does not have this model; many say in the same way that they do not have this path."""
    return failure.code == "model_not_found" and failure.status < 500 and name in failure.message


def estimate(body: Mapping[str, Any]) -> TokenCount:
    """A guess by the number of characters, for a body of either API."""
    content = body.get("messages") or body.get("input") or ()
    characters = sum(_characters(body.get(name)) for name in ("instructions", "tools", "response_format", "text"))
    images = 0
    for message in content:
        text, pictures = _without_data(message)
        characters += _characters(text)
        images += pictures
    tokens = characters // _CHARACTERS_PER_TOKEN + _TOKENS_PER_MESSAGE * (len(content) + 1) + _TOKENS_PER_IMAGE * images
    return TokenCount(tokens, exact=False)


def cache_salt(secret: str, tenant: str) -> str:
    """What parts one tenant's prefixes from another's in a cache that all of them use; it tells nobody who that is."""
    return hmac.new(secret.encode(), tenant.encode(), hashlib.sha256).hexdigest()


def _characters(value: Any) -> int:
    """The length of a text; of anything else that is said, that of its JSON."""
    if not value:
        return 0
    return len(value) if isinstance(value, str) else len(msgspec.json.encode(value).decode())


def _without_data(message: Mapping[str, Any]) -> tuple[str, int]:
    """All that a message says, and how many pictures it shows."""
    content = message.get("content") or message.get("output") or ""
    said = "".join(str(message.get(name) or "") for name in ("name", "arguments", "input"))
    said += "".join(msgspec.json.encode(call).decode() for call in message.get("tool_calls") or ())
    if isinstance(content, str):
        return said + content, 0
    content = [content] if isinstance(content, dict) else content  # a screenshot
    pictures = sum("image" in str(part.get("type")) or part.get("type") == "computer_screenshot" for part in content)
    texts = ("text", "refusal", "stdout", "stderr")
    return said + "".join(str(part.get(name) or "") for part in content for name in texts), pictures

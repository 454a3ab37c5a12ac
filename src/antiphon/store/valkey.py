"""The bell of many nodes by way of Valkey, or Redis: publish and subscribe.

For when there are so many rings that the database should not carry them.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from valkey.asyncio import Valkey

from antiphon.store.shared_bell import SharedBell

CHANNEL = "antiphon"
MESSAGE_BYTES_MAX = 1 << 20
CONNECT_SECONDS = 5.0


class ValkeyBell(SharedBell):
    """A `Bell` for all nodes that know the server at `url`: valkey://, valkeys://, redis:// or rediss://."""

    def __init__(self, url: str, poll_seconds: float) -> None:
        super().__init__(poll_seconds, message_bytes_max=MESSAGE_BYTES_MAX)
        self._url = url
        self._client: Any = None
        self._subscription: Any = None
        self._listening: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        url = self._url.replace("redis", "valkey", 1) if self._url.startswith("redis") else self._url
        self._client = Valkey.from_url(url, socket_connect_timeout=CONNECT_SECONDS, decode_responses=True)
        self._subscription = self._client.pubsub(ignore_subscribe_messages=True)
        await self._subscription.subscribe(CHANNEL)
        self._listening = asyncio.create_task(self._listen())

    async def send(self, message: str) -> None:
        await self._client.publish(CHANNEL, message)

    async def disconnect(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._listening
        for each in (self._subscription, self._client):
            if each is not None:
                with contextlib.suppress(Exception):
                    await each.aclose()
        self._listening = self._subscription = self._client = None

    async def _listen(self) -> None:
        try:
            async for message in self._subscription.listen():
                self.hear(message["data"])
        except Exception as error:
            self.lose(error)

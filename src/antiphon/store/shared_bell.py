"""A bell that other nodes hear, too: the local one, and something that carries its rings.

What carries is of no importance to anybody: a ring that is lost, or cannot be sent for a while, costs only latency.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Iterator, Sequence

from antiphon.store.bell import LocalBell

logger = logging.getLogger(__name__)

RING_INTERVAL_SECONDS = 0.005  # rings within it leave together, each topic once
WAITING_TOPICS_MAX = 10_000  # while nothing can be sent; who is not told then looks by himself
AGAIN_SECONDS_MAX = 2.0
CLOSE_SECONDS = 1.0


class SharedBell(LocalBell):
    """The part that is the same whatever carries the rings.

    message_bytes_max: no message is longer.
    """

    def __init__(self, poll_seconds: float, *, message_bytes_max: int) -> None:
        super().__init__(poll_seconds)
        self._message_bytes_max = message_bytes_max
        self._node = secrets.token_hex(8)  # our own rings come back to us, too
        self._waiting: dict[str, None] = {}
        self._wanted = asyncio.Event()
        self._carrying: asyncio.Task[None] | None = None
        self._lost: Exception | None = None
        self.connected = False
        self._closing = False

    async def open(self) -> None:
        """Begin to carry rings; returns when the first try to connect has succeeded or failed."""
        tried = asyncio.Event()
        self._carrying = asyncio.create_task(self._carry(tried), name="antiphon-bell")
        await tried.wait()

    async def aclose(self) -> None:
        """Send what waits, stop carrying, and wake everybody here once more."""
        if self._carrying is not None:
            self._closing = True
            self._wanted.set()
            await asyncio.wait([self._carrying], timeout=CLOSE_SECONDS)
            self._carrying.cancel()
            await asyncio.wait([self._carrying])
        self.close()

    def ring(self, topic: str) -> None:
        super().ring(topic)
        if len(self._waiting) < WAITING_TOPICS_MAX:
            self._waiting[topic] = None
            self._wanted.set()

    async def connect(self) -> None:
        """Connect, and have every message that comes given to `hear`. Raises if that cannot be done."""
        raise NotImplementedError

    async def send(self, message: str) -> None:
        """Send a message to all nodes. Raises if the connection is lost."""
        raise NotImplementedError

    async def disconnect(self) -> None:
        """Let go of the connection, in whatever state it is."""
        raise NotImplementedError

    def hear(self, message: str) -> None:
        """Ring what another node has rung."""
        node, *topics = message.split("\n")
        if node != self._node:
            for topic in topics:
                super().ring(topic)

    def lose(self, error: Exception) -> None:
        """Say that the connection is lost; what waits is sent by the next one."""
        self._lost = error
        self._wanted.set()

    async def _carry(self, tried: asyncio.Event) -> None:
        pause = 0.0
        while not self._closing:
            try:
                self._lost = None
                await self.connect()
                self.connected = True
                tried.set()
                pause = 0.0
                for topic in list(self._listeners):
                    super().ring(topic)  # what others have rung meanwhile is lost
                await self._send_all()
            except Exception as error:
                if not pause:
                    logger.warning("nodes do not hear each other for now, and look by themselves: %s", error)
                tried.set()
                pause = min(max(pause * 2, 0.05), AGAIN_SECONDS_MAX)
                await asyncio.sleep(pause)
            finally:
                self.connected = False
                await self.disconnect()

    async def _send_all(self) -> None:
        """Send what waits, again and again. Raises if the connection is lost."""
        while not (self._closing and not self._waiting):
            await self._wanted.wait()
            if self._lost is not None:
                raise self._lost
            self._wanted.clear()
            topics, self._waiting = list(self._waiting), {}
            try:
                for message in self._messages(topics):
                    await self.send(message)
            except Exception:
                self._waiting = {**dict.fromkeys(topics), **self._waiting}
                self._wanted.set()
                raise
            await asyncio.sleep(0 if self._closing else RING_INTERVAL_SECONDS)

    def _messages(self, topics: Sequence[str]) -> Iterator[str]:
        lines, size = [self._node], len(self._node)
        for topic in topics:
            length = 1 + len(topic.encode())
            if size + length > self._message_bytes_max and len(lines) > 1:
                yield "\n".join(lines)
                lines, size = [self._node], len(self._node)
            lines.append(topic)
            size += length
        if len(lines) > 1:
            yield "\n".join(lines)

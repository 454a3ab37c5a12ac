"""The bell of one process: it wakes those who wait in the same event loop."""

from __future__ import annotations

import asyncio


class LocalBell:
    """A `Bell`. One timer serves all listeners: once per `poll_seconds` it rings each of them with False."""

    def __init__(self, poll_seconds: float) -> None:
        self._poll_seconds = poll_seconds
        self._listeners: dict[str, set[LocalListener]] = {}
        self._timer: asyncio.TimerHandle | None = None  # runs while somebody listens
        self._closed = False
        self.rings = 0

    def ring(self, topic: str) -> None:
        self.rings += 1  # heard or not: who comes next must not take a read from before it for a fresh one
        for listener in self._listeners.get(topic, ()):
            listener.hear(True)

    def listen(self, topic: str) -> LocalListener:
        return LocalListener(self, topic)

    def close(self) -> None:
        """Stop the timer, and wake everybody once more, so that nobody waits for it in vain."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._ring_all()

    def enter(self, listener: LocalListener) -> None:
        self._listeners.setdefault(listener.topic, set()).add(listener)
        if self._timer is None and not self._closed:
            self._start_timer()

    def leave(self, listener: LocalListener) -> None:
        listeners = self._listeners[listener.topic]
        listeners.discard(listener)
        if not listeners:
            del self._listeners[listener.topic]
        if not self._listeners and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start_timer(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._poll_seconds, self._tick)

    def _tick(self) -> None:
        self._start_timer()
        self._ring_all()

    def _ring_all(self) -> None:
        self.rings += 1
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.hear(False)


class LocalListener:
    """A `Listener`: what it heard stays heard until `clear()`."""

    __slots__ = ("_bell", "_heard", "_loop", "_waiter", "topic")

    def __init__(self, bell: LocalBell, topic: str) -> None:
        self.topic = topic
        self._bell = bell
        self._heard: bool | None = None  # True for a ring, False for a poll
        self._loop = asyncio.get_running_loop()  # asked once: that takes a system call before Python 3.12
        self._waiter: asyncio.Future[None] | None = None

    def __enter__(self) -> LocalListener:
        self._bell.enter(self)
        return self

    def __exit__(self, *exc: object) -> None:
        self._bell.leave(self)

    def clear(self) -> int:
        self._heard = None
        return self._bell.rings

    async def wait(self) -> bool:
        if self._heard is None:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        # A ring and a clear() may both have come since it woke: then it was a ring that woke it.
        return self._heard is not False

    def hear(self, ring: bool) -> None:
        self._heard = self._heard or ring
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

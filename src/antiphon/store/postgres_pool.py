"""Connections that are lent out one at a time, as many as needed up to a limit.

asyncpg's own pool puts a task, a shield and two timers between a call and its statement, which cost as much as the
statement does. What they guard against is left to who uses this one: a connection that may be broken is terminated
before it is given back.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

import asyncpg

from antiphon.errors import StoreError

IDLE_SECONDS_MAX = 60.0  # an idle connection older than this may have been cut without a word, and is not needed


class _Idle(NamedTuple):
    connection: asyncpg.Connection
    since: float


class Pool:
    """connect: makes a connection."""

    def __init__(self, connect: Callable[[], Awaitable[asyncpg.Connection]], connections_max: int) -> None:
        self._connect = connect
        self._connections_max = connections_max
        self._places = asyncio.Semaphore(connections_max)
        self._idle: list[_Idle] = []  # the one that was used last is at the end, and is used next
        self._lent: set[asyncpg.Connection] = set()
        self._closed = False

    @contextlib.asynccontextmanager
    async def lend(self, within: float) -> AsyncIterator[asyncpg.Connection]:
        """A connection, to be had within so many seconds; else TimeoutError. One that is left inside a transaction is
        not used again.
        """
        connection = None if self._places.locked() else self._unused()
        if connection is None:
            connection = await self._waited_for(within)
        else:
            await self._places.acquire()  # at once
        self._lent.add(connection)
        try:
            yield connection
        finally:
            self._lent.discard(connection)
            self._take_back(connection)
            self._places.release()

    def expire(self) -> None:
        """Let go of all that are idle, as they are probably lost."""
        idle, self._idle = self._idle, []
        for each in idle:
            each.connection.terminate()

    async def close(self, within: float) -> None:
        """Close all of them; what is still lent after so many seconds is cut off."""
        self._closed = True
        with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            async with asyncio.timeout(within):
                for _ in range(self._connections_max):
                    await self._places.acquire()
                while self._idle:
                    await self._idle.pop().connection.close()
        self.expire()
        for connection in self._lent:
            connection.terminate()

    async def _waited_for(self, within: float) -> asyncpg.Connection:
        self._check_open()
        async with asyncio.timeout(within):
            await self._places.acquire()
            try:
                self._check_open()  # still: it may have been closed over those that were waited for
                return self._unused() or await self._connect()
            except BaseException:
                self._places.release()
                raise

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("The store is closed.", passing=False)

    def _unused(self) -> asyncpg.Connection | None:
        """The idle connection that was used last, if it is as it was left."""
        too_old = time.monotonic() - IDLE_SECONDS_MAX
        while self._idle:
            connection, since = self._idle.pop()
            if since >= too_old and not connection.is_closed():
                return connection
            connection.terminate()
        return None

    def _take_back(self, connection: asyncpg.Connection) -> None:
        now = time.monotonic()
        if connection.is_closed():
            pass
        elif self._closed or connection.is_in_transaction():
            connection.terminate()
        else:
            self._idle.append(_Idle(connection, now))
        while self._idle and self._idle[0].since < now - IDLE_SECONDS_MAX:
            self._idle.pop(0).connection.terminate()

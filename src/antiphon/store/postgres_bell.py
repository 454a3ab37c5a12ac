"""The bell of nodes that share a PostgreSQL database: LISTEN and NOTIFY, on a connection of its own.

A NOTIFY takes a lock on the whole database until its transaction has ended. So rings leave after the commits that they
tell of, many in one message, and in a transaction that waits for no disk.
"""

from __future__ import annotations

from typing import Any

import asyncpg

from antiphon.store.postgres_database import set_session
from antiphon.store.shared_bell import SharedBell

CHANNEL = "antiphon"
PAYLOAD_BYTES_MAX = 7_999  # PostgreSQL's own limit
CONNECT_SECONDS = 5.0


class PostgresBell(SharedBell):
    """A `Bell` for all nodes on the database at `url`."""

    def __init__(self, url: str, poll_seconds: float) -> None:
        super().__init__(poll_seconds, message_bytes_max=PAYLOAD_BYTES_MAX)
        self._url = url
        self._connection: Any = None

    async def connect(self) -> None:
        self._connection = await asyncpg.connect(
            self._url,
            timeout=CONNECT_SECONDS,
            command_timeout=CONNECT_SECONDS,
            server_settings={"application_name": "antiphon bell"},
        )
        await set_session(self._connection, {"synchronous_commit": "off"})
        gone = ConnectionError("the connection to the database is lost")
        self._connection.add_termination_listener(lambda _connection: self.lose(gone))
        await self._connection.add_listener(CHANNEL, lambda _connection, _pid, _channel, message: self.hear(message))

    async def send(self, message: str) -> None:
        await self._connection.execute("SELECT pg_notify($1, $2)", CHANNEL, message)

    async def disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()  # nothing is to be finished

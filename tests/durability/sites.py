"""Antiphon as the suite kills it: one node on SQLite, and three on PostgreSQL with a Valkey between them."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import IO

from antiphon.conformance import Node, Site, Suite, Upstream
from tests.servers import postgres, valkey

# The whole matrix may be at work at once, and what happens by itself happens soon.
_FLAGS = ("--log-level", "warning", "--poll-seconds", "0.1", "--orphan-grace-seconds", "4", "--workers", "32")
_LEASES = ("--lease-seconds", "1", "--lease-renew-seconds", "0.1")
_PAUSE_SECONDS = 3.0  # longer than a lease, and shorter than it and the grace
_SETTLE_SECONDS = 40.0


@asynccontextmanager
async def sqlite(directory: Path, *flags: str, settle_seconds: float = _SETTLE_SECONDS) -> AsyncIterator[Suite]:
    """flags: of the server, in place of what it has here."""
    async with Upstream() as upstream, AsyncExitStack() as stack:
        log = stack.enter_context((directory / "log").open("ab"))
        node = _node(upstream, 0, log, "--database", f"sqlite:///{directory / 'antiphon.db'}", *flags)
        site = Site([node], pause_seconds=_PAUSE_SECONDS, settle_seconds=settle_seconds)
        yield await stack.enter_async_context(Suite(site, upstream))


@asynccontextmanager
async def many_nodes(directory: Path) -> AsyncIterator[Suite]:
    """One node that only serves, and two that also work."""
    async with Upstream() as upstream, AsyncExitStack() as stack:
        log = stack.enter_context((directory / "log").open("ab"))
        database = await asyncio.to_thread(stack.enter_context, postgres.server())
        bells = stack.enter_context(valkey.server())
        flags = ("--database", database.url(), "--bell", bells.url, *_LEASES)
        nodes = [
            _node(upstream, 0, log, *flags, "--workers", "0"),
            _node(upstream, 1, log, *flags),
            _node(upstream, 2, log, *flags),
        ]

        @asynccontextmanager
        async def restarted_database() -> AsyncIterator[None]:
            await asyncio.to_thread(database.kill)
            await asyncio.to_thread(database.start)
            yield

        @asynccontextmanager
        async def no_bell() -> AsyncIterator[None]:
            bells.kill()
            yield
            await asyncio.to_thread(bells.start)

        outside = {"database": restarted_database, "bell": no_bell}
        site = Site(nodes, outside, pause_seconds=_PAUSE_SECONDS, settle_seconds=_SETTLE_SECONDS)
        yield await stack.enter_async_context(Suite(site, upstream))


SITES = {"sqlite": sqlite, "postgres": many_nodes}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _node(upstream: Upstream, number: int, log: IO[bytes], *flags: str) -> Node:
    port = str(free_port())
    asks = ("--upstream", upstream.url(number))
    command = [sys.executable, "-m", "antiphon", "serve", "--port", port, *asks, *_FLAGS, *flags]
    return Node(f"http://127.0.0.1:{port}/v1", command, log=log)

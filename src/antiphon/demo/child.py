"""A server in a child process, which can be killed and started again on the same file."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2

from antiphon.errors import AntiphonError

START_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 15.0
POLL_SECONDS = 0.05


class Server:
    """`antiphon serve` on a free port, with its database in a directory."""

    def __init__(self, directory: Path, *settings: str) -> None:
        self.port = _free_port()
        self.base_url = f"http://127.0.0.1:{self.port}/v1"
        self.database = directory / "antiphon.db"
        self._directory = directory
        self._settings = settings
        self._log = directory / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process that runs now, or ran last."""
        assert self._process is not None, "the server was not started"
        return self._process

    def start(self) -> None:
        """Start it and return when it answers. The model may still be loading: the first response waits for it."""
        command = [sys.executable, "-m", "antiphon", "serve", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--database", f"sqlite:///{self.database}", *self._settings]
        # The user's own settings are for the user's own server.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ANTIPHON_")}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self._directory, env=environment, stderr=log)
        self._wait_until_it_answers()

    def kill(self) -> None:
        """End it as a power cut would: no chance to finish anything."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it in good order, or by force when that takes too long."""
        if self._process is None or self._process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.kill()

    def last_words(self) -> str:
        try:
            return "\n".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])
        except OSError:
            return "(none)"

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_SECONDS_MAX
        with httpx2.Client() as client:
            while time.monotonic() < deadline:
                if self.process.poll() is not None:
                    raise AntiphonError(f"The server ended with exit code {self.process.returncode}.")
                try:
                    client.get(f"http://127.0.0.1:{self.port}/healthz").raise_for_status()
                    return
                except httpx2.TransportError:
                    time.sleep(POLL_SECONDS)
        raise AntiphonError(f"The server did not answer in {START_SECONDS_MAX:g} seconds.")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

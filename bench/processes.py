"""The processes of a run: started, told apart by what they cost, and ended by their ids."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).parent.parent
START_SECONDS_MAX = 60
_URL = re.compile(r"http://\S+")


@dataclass(frozen=True)
class Serving:
    """A server that runs. url: its base, with the /v1; started: when its process was asked for, time.monotonic()."""

    pid: int
    url: str
    started: float


def announce(listening: socket.socket) -> None:
    """Tell `serving` that the server listens, and where."""
    print(f"Serves http://127.0.0.1:{listening.getsockname()[1]}/v1", file=sys.stderr, flush=True)


@contextmanager
def serving(arguments: Sequence[str], *, cwd: Path = ROOT) -> Iterator[Serving]:
    """A server run by `python ARGUMENTS`, once it has written its URL to stderr."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANTIPHON_")}
    with tempfile.NamedTemporaryFile() as said:  # a file, as a pipe that nobody reads would fill
        started = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stderr=said
        )
        try:
            yield Serving(process.pid, _url(process, Path(said.name), started), started)
        finally:
            process.kill()  # nothing in it is of use any more, and an orderly end waits for callers
            process.wait()


@contextmanager
def antiphon(upstream: str, database: str, *options: str) -> Iterator[Serving]:
    """A server of this build on this database, with the model server as its upstream.

    options: flags of `antiphon serve`; without any it is as it comes.
    """
    with tempfile.TemporaryDirectory(prefix="antiphon-bench-") as directory:
        arguments = ["-m", "antiphon", "serve", "--port", "0", "--upstream", upstream, "--database", database]
        with serving([*arguments, *options], cwd=Path(directory)) as server:
            yield server


def cpu_seconds(pid: int) -> float:
    """What a process, its threads and its children have used so far."""
    return sum(_cpu_seconds(process) for process in _family(pid))


def rss_bytes(pid: int) -> int:
    """The memory of a process and its children."""
    return sum(process.memory_info().rss for process in _family(pid))


def written_bytes(pid: int) -> int:
    """What a process has given to the disk so far."""
    return int(psutil.Process(pid).io_counters().write_bytes)


def _family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def _cpu_seconds(process: psutil.Process) -> float:
    """In nanoseconds where the kernel counts them for each thread; it forgets those that have ended."""
    counts = list(Path(f"/proc/{process.pid}/task").glob("*/schedstat"))
    if not counts:
        times = process.cpu_times()
        return float(times.user + times.system)
    return sum(int(count.read_text().split()[0]) for count in counts) / 1e9


def _url(process: subprocess.Popen[bytes], said: Path, started: float) -> str:
    while time.monotonic() < started + START_SECONDS_MAX:
        if found := _URL.search(text := said.read_text()):
            return found[0]
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended at its start:\n{text}")
        time.sleep(0.002)
    raise RuntimeError(f"{process.args!r} has not begun to serve within {START_SECONDS_MAX} s:\n{said.read_text()}")

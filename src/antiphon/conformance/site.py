"""The server that is measured, as its operator sees it: processes that can be killed, and what is beside them.

A node with no command is one that somebody else runs: it cannot be killed, only left by its clients.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import IO

import httpx2

_POLL_SECONDS = 0.05


class NotAnswering(Exception):
    """The server did not answer in time after its start."""


class Node:
    """One process of the server, in a group of its own so that its children share its fate."""

    def __init__(self, base_url: str, start: str | Sequence[str] = (), *, log: IO[bytes] | None = None) -> None:
        self.base_url = base_url.rstrip("/")
        self._command = shlex.split(start) if isinstance(start, str) else list(start)
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def can_be_killed(self) -> bool:
        return bool(self._command)

    def start(self) -> None:
        if self._command:
            out = self._log or subprocess.DEVNULL
            self._process = subprocess.Popen(self._command, stdout=out, stderr=out, start_new_session=True)

    async def answers(self, http: httpx2.AsyncClient, *, seconds: float) -> None:
        """Wait until it answers anything at all. Raises NotAnswering."""
        try:
            async with asyncio.timeout(seconds):
                while not await self._answers(http):  # noqa: ASYNC110  # nothing of another process can be awaited
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise NotAnswering(f"{self.base_url} did not answer in {seconds:g} s.") from None

    async def _answers(self, http: httpx2.AsyncClient) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise NotAnswering(f"{shlex.join(self._command)} ended with exit code {self._process.returncode}.")
        try:
            await http.get(f"{self.base_url}/models")
            return True
        except httpx2.HTTPError:
            return False

    def kill(self) -> None:
        """As a power cut does it: nothing is said, nothing is finished."""
        self._send(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """As a machine that is suspended: it does nothing, and its connections stay."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        self._send(signal.SIGCONT)

    def _send(self, sign: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, sign)


@dataclass(frozen=True)
class Site:
    """All nodes of the server; clients talk to the first, and come back on any.

    outside: what else can be done to it, by the fault's name: entered it is done, left it is mended.
    pause_seconds: how long a node is paused, unless another takes its work over before. Longer than its lease; and
        shorter than that and the grace of a response that nobody follows: of the clients of a paused node nobody knows.
    settle_seconds: by then whatever was hit has ended. start_seconds: by then a node that was started answers.
    """

    nodes: Sequence[Node]
    outside: Mapping[str, Callable[[], AbstractAsyncContextManager[None]]] = field(default_factory=dict)
    pause_seconds: float = 12.0
    settle_seconds: float = 60.0
    start_seconds: float = 60.0

    @property
    def faults(self) -> tuple[str, ...]:
        """What can be done here."""
        own = ("kill-server", "kill-worker", "pause") if all(node.can_be_killed for node in self.nodes) else ()
        # With one node the worker is the server.
        return (*(each for each in own if len(self.nodes) > 1 or each != "kill-worker"), *self.outside, "cut")

    async def start(self, http: httpx2.AsyncClient) -> None:
        for node in self.nodes:
            node.start()
        await asyncio.gather(*(node.answers(http, seconds=self.start_seconds) for node in self.nodes))

    def close(self) -> None:
        for node in self.nodes:
            node.kill()

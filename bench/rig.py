"""Rig: the processes that a scenario measures with, and how it measures in turns."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.connection import Answer, Connection
from bench.databases import Databases, databases
from bench.floors import hold
from bench.load import faults_of, first_number
from bench.processes import ROOT, Serving, antiphon, serving

Result = dict[str, Any]


@dataclass(frozen=True)
class Rig:
    """A model server, the floors before it, where servers keep what they say, and how many rounds to take.

    held: the directory that the floors send from. relay: the second floor.
    """

    model_server: Serving
    floors: Serving
    relay: Serving
    databases: Databases
    held: Path
    quick: bool

    @property
    def rounds(self) -> int:
        return 2 if self.quick else 3

    def pick(self, quick: Any, thorough: Any) -> Any:
        """The size of something: small when there is little time."""
        return quick if self.quick else thorough

    @contextmanager
    def antiphon(
        self, database: str | None = None, *, upstream: str | None = None, options: Sequence[str] = ()
    ) -> Iterator[Serving]:
        """A server of this build: on a new database unless one is named."""
        with ExitStack() as stack:
            database = database or stack.enter_context(self.databases.new())
            yield stack.enter_context(antiphon(upstream or self.model_server.url, database, *options))

    def hold(self, name: str, pieces: Sequence[bytes]) -> str:
        """Let the floors send these pieces; gives the path."""
        name = f"{name}-{len(list(self.held.iterdir()))}"  # never one again: the floors keep what they have read
        hold(self.held / name, pieces)
        return f"/held/{name}"

    def in_turns(self, *jobs: Callable[[], Result], rounds: int | None = None) -> list[list[Result]]:
        """The results of each job. A B A B: what disturbs the machine for a while disturbs all of them."""
        taken = [[job() for job in jobs] for _ in range(rounds or self.rounds)]
        return [list(results) for results in zip(*taken, strict=True)]


@contextmanager
def rig(*, quick: bool, database: str = "sqlite") -> Iterator[Rig]:
    with tempfile.TemporaryDirectory(prefix="antiphon-bench-") as directory:
        held = Path(directory)
        with (
            databases(database) as kept,
            serving(["-m", "bench.model_server"]) as model_server,
            serving(["-m", "bench.floors", model_server.url, directory]) as floors,
            serving(["-m", "bench.relay", model_server.url]) as relay,
        ):
            yield Rig(model_server, floors, relay, kept, held, quick)


def load(job: str, server: Serving, **arguments: Any) -> Result:
    """Have a load process carry out a job against a server. Raises RuntimeError if an answer is not as it must be."""
    whole = {"job": job, "url": server.url, "pid": server.pid, **arguments}
    done = subprocess.run(
        [sys.executable, "-m", "bench.load"], cwd=ROOT, input=json.dumps(whole), capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"the load process failed at {job}:\n{done.stderr}")
    result: Result = json.loads(done.stdout)
    if result["faults"]:
        raise RuntimeError(f"{job} at {server.url}: {result['faults'][0]}")
    return result


def converse(server: Serving, body: dict[str, Any], *, turns: int) -> list[str]:
    """A conversation in which each create continues the one before it; gives the ids."""

    async def talk() -> list[str]:
        connection = await Connection.to(server.url)
        ids: list[str] = []
        for _ in range(turns):
            previous = {"previous_response_id": ids[-1]} if ids else {}
            said = json.dumps({**body, **previous}).encode()
            answer = await connection.ask("POST", server.url + "/responses", said)
            _check([answer])
            ids.append(json.loads(answer.body)["id"])
        connection.close()
        return ids

    return asyncio.run(talk())


def pieces_of(server: Serving, path: str) -> list[bytes]:
    """One answer, in the pieces in which it was sent."""

    async def ask() -> list[bytes]:
        connection = await Connection.to(server.url)
        answer = await connection.ask("GET", server.url + path)
        connection.close()
        _check([answer], first=first_number(path))
        return answer.pieces

    return asyncio.run(ask())


def _check(answers: Sequence[Answer], *, first: int = 0) -> None:
    if faults := faults_of(answers, first=first):
        raise RuntimeError(faults[0])


def per(results: Sequence[Result], what: str) -> list[float]:
    """The CPU seconds for each event, or request, of some results."""
    return [result["cpu_seconds"] / result[what] for result in results]


def total(results: Sequence[Result], what: str) -> int:
    return sum(result[what] for result in results)

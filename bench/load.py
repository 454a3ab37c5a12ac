"""The load: a process that reads one job as JSON from stdin, carries it out and writes its result as JSON to stdout.

It reads the clock of the measured process itself, in the moment in which it counts, and checks every answer after that.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from statistics import median
from typing import Any

import uvloop

from bench.connection import Answer, Connection
from bench.processes import cpu_seconds, rss_bytes, written_bytes

_STAMP = re.compile(rb'"(?:delta|content)":"@(\d+)')
_NUMBER = re.compile(rb'"sequence_number":(\d+)}\n\n|"sequence_number":(\d+),"obfuscation":"\w*"}\n\n')
_AFTER = re.compile(r"starting_after=(\d+)")
_ID = re.compile(rb'"id":"(resp_\w+)"')
_SETTLE_SECONDS = 1.0  # in which a server may finish what it has put off


class Counting:
    """What all streams together have brought so far."""

    def __init__(self, *, stamped: bool) -> None:
        self.events = 0
        self.pieces = 0
        self.latencies: list[float] = []
        self._stamped = stamped

    def take(self, piece: bytes) -> None:
        self.pieces += 1
        self.events += piece.count(b"\n\n")
        if self._stamped:
            now = time.monotonic_ns()
            self.latencies += [(now - int(stamp)) / 1e9 for stamp in _STAMP.findall(piece)]


async def stream(url: str, pid: int, body: dict[str, Any], streams: int, seconds: float) -> dict[str, Any]:
    """Many streams at once, looked at for some seconds in which all of them run; then followed to their end."""
    counting = Counting(stamped="-stamped" in body["model"])
    begun, encoded = asyncio.Event(), json.dumps(body).encode()
    running = 0

    async def one() -> Answer:
        connection = await Connection.to(url)
        first = True

        def take(piece: bytes) -> None:
            nonlocal running, first
            counting.take(piece)
            if first:
                first = False
                running += 1
                if running == streams:
                    begun.set()

        try:
            return await connection.ask("POST", url + "/responses", encoded, on_piece=take)
        finally:
            connection.close()

    tasks = [asyncio.create_task(one()) for _ in range(streams)]
    await asyncio.wait([asyncio.create_task(begun.wait()), *tasks], return_when=asyncio.FIRST_COMPLETED)
    await asyncio.sleep(0.2)  # until nothing of the beginning is left to do
    counting.latencies.clear()
    events, pieces, cpu, since = counting.events, counting.pieces, cpu_seconds(pid), time.monotonic()
    await asyncio.sleep(seconds)
    result = {
        "events": counting.events - events,
        "sends": counting.pieces - pieces,
        "cpu_seconds": cpu_seconds(pid) - cpu,
        "seconds": time.monotonic() - since,
        "latencies": _percentiles(counting.latencies),
        "steady": not any(task.done() for task in tasks),
    }
    return {**result, "faults": faults_of([await task for task in tasks])}


async def repeat(
    url: str, pid: int, requests: Sequence[Sequence[Any]], count: int, concurrency: int = 1, settle: bool = False
) -> dict[str, Any]:
    """Requests one after the other on each of some connections, from the first to the last answer.

    requests: method, path and body of each, taken in turns. settle: what the server does in the second after it counts.
    """
    encoded = [(method, url + path, json.dumps(body).encode() if body else b"") for method, path, body in requests]
    waiting = iter([encoded[number % len(encoded)] for number in range(count)])
    answers: list[Answer] = []
    connections = [await Connection.to(url) for _ in range(concurrency)]

    async def some(connection: Connection) -> None:
        for method, target, body in waiting:
            answers.append(await connection.ask(method, target, body))

    cpu, written, since = cpu_seconds(pid), written_bytes(pid), time.monotonic()
    await asyncio.gather(*(some(connection) for connection in connections))
    seconds = time.monotonic() - since
    if settle:
        await asyncio.sleep(_SETTLE_SECONDS)
    result = {"cpu_seconds": cpu_seconds(pid) - cpu, "seconds": seconds, "written": written_bytes(pid) - written}
    for connection in connections:
        connection.close()
    return {
        **result,
        "count": len(answers),
        "events": sum(answer.body.count(b"\n\n") for answer in answers),
        "sends": sum(len(answer.pieces) for answer in answers),
        "first_seconds": median(answer.first_seconds for answer in answers),
        "ids": [found[1].decode() for answer in answers if (found := _ID.search(answer.body))],
        "faults": faults_of(answers, first=first_number(requests[0][1])),
    }


async def wait(url: str, pid: int, path: str, followers: int, seconds: float = _SETTLE_SECONDS) -> dict[str, Any]:
    """Followers of one log, in which nothing happens, or slowly: what the server's memory grows by, and its work."""
    counting = Counting(stamped=False)

    async def one() -> asyncio.Task[Answer]:
        connection, heard = await Connection.to(url), asyncio.Event()

        def take(piece: bytes) -> None:
            counting.take(piece)
            heard.set()

        task = asyncio.create_task(connection.ask("GET", url + path, on_piece=take))
        await asyncio.wait([task, asyncio.create_task(heard.wait())], return_when=asyncio.FIRST_COMPLETED)
        return task

    tasks = [await one() for _ in range(20)]  # the first ones bring things that are made once
    await asyncio.sleep(_SETTLE_SECONDS)
    before = rss_bytes(pid)
    tasks += [await one() for _ in range(followers)]
    events, cpu = counting.events, cpu_seconds(pid)
    await asyncio.sleep(seconds)
    result = {
        "bytes": rss_bytes(pid) - before,
        "events": counting.events - events,
        "cpu_seconds": cpu_seconds(pid) - cpu,
    }
    return {**result, "faults": ["A follower was sent away."] if any(task.done() for task in tasks) else []}


def faults_of(answers: Sequence[Answer], *, first: int = 0) -> list[str]:
    """What is wrong with the first answer with which anything is: a figure of something else says nothing.

    first: the number with which a stream must begin.
    """
    for answer in answers:
        if fault := _fault(answer, first):
            return [fault]
    return []


def first_number(path: str) -> int:
    """The number with which a stream from there must begin."""
    after = _AFTER.search(path)
    return int(after[1]) + 1 if after else 0


def _fault(answer: Answer, first: int) -> str | None:
    body = answer.body
    if answer.status != 200:
        return f"status {answer.status}: {body[:300]!r}"
    if body.startswith(b"event: "):
        numbers = [int(number or padded) for number, padded in _NUMBER.findall(body)]
        if numbers != list(range(first, first + len(numbers))) or len(numbers) != body.count(b"\n\n"):
            return f"the events are not numbered without a hole: {numbers[:10]} ... {numbers[-10:]}"
        if not body.rpartition(b"\n\nevent: ")[2].startswith(b"response.completed\n"):
            return f"the stream does not end with response.completed: {body[-300:]!r}"
    elif body.startswith(b"data: ") and not body.endswith(b"data: [DONE]\n\n"):
        return f"the relayed stream does not end with [DONE]: {body[-300:]!r}"
    elif b'"object":"response"' in body and re.search(rb'"status": ?"(?:failed|incomplete|cancelled)"', body):
        return f"the response was not completed: {body[:300]!r}"
    return None


def _percentiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {"p50": ordered[len(ordered) // 2], "p99": ordered[len(ordered) * 99 // 100]} if ordered else {}


JOBS: dict[str, Callable[..., Coroutine[Any, Any, dict[str, Any]]]] = {
    "stream": stream,
    "repeat": repeat,
    "wait": wait,
}

if __name__ == "__main__":
    job = json.load(sys.stdin)
    print(json.dumps(uvloop.run(JOBS[job.pop("job")](**job))))

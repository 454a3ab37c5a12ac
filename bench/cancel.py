"""Cancel: how soon the model stops. Measured from the answer to the cancel to the end of the model server's socket."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import ExitStack

from bench.connection import Connection
from bench.figures import Figure, Target, figure
from bench.model_server import Answering, Plan
from bench.rig import Rig

_CLOSE_SECONDS_MAX = 10


class _Watched(Answering):
    """A connection of the model server whose end is noted."""

    ended: asyncio.Queue[float]

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.ended.put_nowait(time.monotonic())


_NO_WORK = ("--workers", "0")
_NO_BELL = ("--bell", "redis://127.0.0.1:1")  # nobody listens there: nodes do not hear each other


def cancel(rig: Rig) -> list[Figure]:
    """One response after the other, each cancelled in the middle of its stream; on PostgreSQL by another node."""
    name = "from the answer to the closed upstream socket"
    figures = _figures(rig, name, [()], Plan(100_000, 50), Target(100))
    if rig.databases.server is not None:  # the model is silent: else the worker hears of it with the next token
        silent = Plan(100_000, 0.25)
        name += " of another node"
        figures += _figures(rig, name, [_NO_WORK, ()], silent, Target(100))
        figures += _figures(rig, f"{name}, with no bell", [(*_NO_WORK, *_NO_BELL), _NO_BELL], silent, Target(1000))
    return figures


def _figures(rig: Rig, name: str, nodes: Sequence[Sequence[str]], plan: Plan, target: Target) -> list[Figure]:
    """nodes: the flags of each; the first one is asked."""
    samples = sorted(asyncio.run(_measure(rig, rig.pick(30, 300 if plan.writes_per_second > 1 else 60), nodes, plan)))
    at = {"p50": samples[len(samples) // 2], "p99": samples[len(samples) * 99 // 100]}
    return [
        figure("cancel", f"{name}, {place}", "ms", [value], target=target, count=len(samples), counted="cancels")
        for place, value in at.items()
    ]


async def _measure(rig: Rig, count: int, nodes: Sequence[Sequence[str]], plan: Plan) -> list[float]:
    """The seconds of each; below zero where the socket was closed before the answer was here."""
    _Watched.ended = asyncio.Queue()
    listening = await asyncio.get_running_loop().create_server(_Watched, "127.0.0.1", 0)
    upstream = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
    stack = ExitStack()
    try:
        database = await asyncio.to_thread(stack.enter_context, rig.databases.new())
        servers = [
            await asyncio.to_thread(stack.enter_context, rig.antiphon(database, upstream=upstream, options=options))
            for options in nodes
        ]
        return [await _cancel_one(servers[0].url, plan) for _ in range(count)]
    finally:
        listening.close()
        await asyncio.to_thread(stack.close)


async def _cancel_one(url: str, plan: Plan) -> float:
    body = {"model": plan.model, "input": "Count.", "stream": True, "background": True}
    following, calling = await Connection.to(url), await Connection.to(url)
    heard, pieces = asyncio.Event(), []

    def take(piece: bytes) -> None:
        pieces.append(piece)
        if b".delta\n" in piece:
            heard.set()

    stream = asyncio.create_task(following.ask("POST", url + "/responses", json.dumps(body).encode(), on_piece=take))
    await heard.wait()
    while not _Watched.ended.empty():  # of what was asked besides
        _Watched.ended.get_nowait()
    response_id = json.loads(pieces[0].split(b"data: ", 1)[1].split(b"\n\n")[0])["response"]["id"]
    answer = await calling.ask("POST", f"{url}/responses/{response_id}/cancel")
    answered = time.monotonic()
    if b'"status":"cancelled"' not in answer.body:
        raise RuntimeError(f"the response was not cancelled: {answer.body[:300]!r}")
    async with asyncio.timeout(_CLOSE_SECONDS_MAX):
        ended = await _Watched.ended.get()
    await stream
    following.close()
    calling.close()
    return ended - answered

"""Cancel: how soon the model stops. Measured from the answer to the cancel to the end of the model server's socket."""

from __future__ import annotations

import asyncio
import json
import time
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


def cancel(rig: Rig) -> list[Figure]:
    """One response after the other, each cancelled in the middle of its stream."""
    samples = sorted(asyncio.run(_measure(rig, rig.pick(30, 300))))
    at = {"p50": samples[len(samples) // 2], "p99": samples[len(samples) * 99 // 100]}
    return [
        figure(
            "cancel",
            f"from the answer to the closed upstream socket, {name}",
            "ms",
            [value],
            target=Target(100),
            count=len(samples),
            counted="cancels",
        )
        for name, value in at.items()
    ]


async def _measure(rig: Rig, count: int) -> list[float]:
    """The seconds of each; below zero where the socket was closed before the answer was here."""
    _Watched.ended = asyncio.Queue()
    listening = await asyncio.get_running_loop().create_server(_Watched, "127.0.0.1", 0)
    upstream = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
    with ExitStack() as stack:
        server = await asyncio.to_thread(stack.enter_context, rig.antiphon(upstream=upstream))
        samples = [await _cancel_one(server.url) for _ in range(count)]
        listening.close()
    return samples


async def _cancel_one(url: str) -> float:
    body = {"model": Plan(100_000, 50).model, "input": "Count.", "stream": True, "background": True}
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

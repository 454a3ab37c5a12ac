"""What there is before any work: memory, and the seconds until something can be done."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AbstractContextManager
from typing import Any
from urllib.request import urlopen

from bench.connection import Answer, Connection
from bench.figures import Figure, Target, figure
from bench.model_server import Plan
from bench.processes import Serving, rss_bytes, serving
from bench.rig import Result, Rig, load, per, total

_BODY_BYTES = 10 << 20  # the longest text that the API description allows
_FILLING_SECONDS = 5.0


def followers(rig: Rig) -> list[Figure]:
    """Followers of one background response: while nothing happens, and while it is made."""
    count = rig.pick(400, 1000)
    return [_idle(rig, count), *_fed(rig, count)]


def _idle(rig: Rig, count: int) -> Figure:
    body = {"model": Plan(2, 0.001).model, "input": "Count.", "background": True}
    grown, bare = [], []
    for _ in range(1 if rig.quick else 3):  # each on a new process: memory that was used once is not given back
        with rig.antiphon() as server, _new_floors(rig) as floors:
            response_id = load("repeat", server, requests=[["POST", "/responses", body]], count=1)["ids"][0]
            path = f"/responses/{response_id}?stream=true"
            grown.append(load("wait", server, path=path, followers=count)["bytes"] / count)
            bare.append(load("wait", floors, path="/waiting", followers=count)["bytes"] / count)
    return figure(
        "followers",
        "memory for each idle one",
        "KB",
        grown,
        bare,
        floor_name="open stream",
        target=Target(25),
        count=count,
        counted="followers",
    )


def _fed(rig: Rig, count: int) -> list[Figure]:
    """Ten events a second for each."""
    body = {"model": Plan(10_000, 10).model, "input": "Count.", "background": True}
    taken = []
    for _ in range(rig.pick(1, 3)):
        with rig.antiphon() as server:
            response_id = load("repeat", server, requests=[["POST", "/responses", body]], count=1)["ids"][0]
            path = f"/responses/{response_id}?stream=true"
            taken.append(load("wait", server, path=path, followers=count, seconds=rig.pick(1, 4)))
    about: dict[str, Any] = {"count": total(taken, "events"), "counted": "events"}
    memory, cpu = [each["bytes"] / count for each in taken], per(taken, "events")
    return [
        figure("followers", "memory for each while events come", "KB", memory, target=Target(30), **about),
        figure("followers", f"CPU per event sent to one of {count:,}", "us", cpu, target=Target(12), **about),
    ]


def full(rig: Rig) -> list[Figure]:
    """A server at its limits, all at once: bodies, streams, and the tail of what is being said."""
    streams, bodies = rig.pick(200, 1000), rig.pick(4, 12)
    room = str((bodies * _BODY_BYTES + (4 << 20)) * 4 // 3)  # requests get three quarters
    limits = ("--max-held-bytes", room, "--max-streams", str(streams), "--foreground-limit", str(streams))
    with rig.antiphon(options=limits) as server:
        size = asyncio.run(_filled(server, bodies, streams))
    # Two and a half times the bodies, 100 KB for each response, twice the tail, what waits for the disk, and the rest.
    target = 80 + 2.5 * bodies * _BODY_BYTES / 1e6 + 0.1 * streams + 2 * 8.4 + 8.4
    name = f"memory with {bodies} bodies of 10 MiB and {streams:,} streams"
    return [figure("full", name, "MB", [size], target=Target(round(target)))]


async def _filled(server: Serving, bodies: int, streams: int) -> int:
    """The memory of a server that refuses more of everything."""
    model = Plan(10_000, 1).model  # slowly: what is said takes room from the next request
    body = {"model": model, "stream": True, "input": [{"role": "user", "content": "x" * (_BODY_BYTES - 200)}]}
    large, small = json.dumps(body).encode(), json.dumps({**body, "input": "Count."}).encode()
    held = [await _begun(server, large) for _ in range(bodies)]
    await _check_refused(server, large)
    held += [await _begun(server, small) for _ in range(streams - bodies)]
    await _check_refused(server, small)
    await asyncio.sleep(_FILLING_SECONDS)
    if any(task.done() for task in held):
        raise RuntimeError("A stream was sent away, or ended.")
    return rss_bytes(server.pid)


async def _begun(server: Serving, body: bytes) -> asyncio.Task[Answer]:
    """A stream, from its first event on."""
    connection, heard = await Connection.to(server.url), asyncio.Event()
    asking = connection.ask("POST", server.url + "/responses", body, on_piece=lambda _: heard.set())
    task, hearing = asyncio.create_task(asking), asyncio.create_task(heard.wait())
    await asyncio.wait([task, hearing], return_when=asyncio.FIRST_COMPLETED)
    return task


async def _check_refused(server: Serving, body: bytes) -> None:
    answer = await (await Connection.to(server.url)).ask("POST", server.url + "/responses", body)
    if answer.status != 429:
        raise RuntimeError(f"A full server answers {answer.status}.")


def start(rig: Rig) -> list[Figure]:
    """From the start of the process to its first 200, with the API description in the cache; and its memory then."""
    with rig.antiphon():
        pass  # fills the cache
    ours, floors = rig.in_turns(lambda: _started(rig.antiphon()), lambda: _started(_new_floors(rig)))
    return [
        _footprint("start", "to the first 200", "s", "seconds", ours, floors, Target(0.8), "bare relay"),
        _footprint(
            "start", "memory of a server without a model", "MB", "bytes", ours, floors, Target(80), "bare relay"
        ),
    ]


def _new_floors(rig: Rig) -> AbstractContextManager[Serving]:
    return serving(["-m", "bench.floors", rig.model_server.url, str(rig.held)])


def _started(starting: AbstractContextManager[Serving]) -> Result:
    with starting as server:
        with urlopen(server.url.removesuffix("/v1") + "/healthz") as answer:
            assert answer.status == 200
        return {"seconds": time.monotonic() - server.started, "bytes": rss_bytes(server.pid)}


def _footprint(
    scenario: str,
    name: str,
    unit: str,
    key: str,
    ours: list[Result],
    floors: list[Result],
    target: Target,
    floor_name: str,
) -> Figure:
    samples, bare = ([each[key] for each in results] for results in (ours, floors))
    return figure(scenario, name, unit, samples, bare, floor_name=floor_name, target=target)

"""Calls that give one object: get, create, delete, and creates at the end of a long conversation."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from bench.databases import compact
from bench.figures import Figure, Target, figure
from bench.model_server import Plan
from bench.processes import Serving
from bench.rig import Result, Rig, converse, load, per, pieces_of, total

SMALL = {"model": Plan(8, 1000, batch=8).model, "input": "Say something short."}


def get(rig: Rig) -> list[Figure]:
    """A stored response of 256 tokens, read again and again, on connections that are kept; also after compaction."""
    create = ["POST", "/responses", {**SMALL, "model": Plan(256, 1000, batch=256).model}]
    with rig.databases.new() as database:
        with rig.antiphon(database) as server:
            path = "/responses/" + load("repeat", server, requests=[create], count=1)["ids"][0]
            fresh = _got(rig, server, path, "a stored response, CPU")
        asyncio.run(compact(database))
        with rig.antiphon(database) as server:
            return [fresh, _got(rig, server, path, "a compacted response, CPU")]


def _got(rig: Rig, server: Serving, path: str, name: str) -> Figure:
    held = rig.hold("response", pieces_of(server, path))
    count = rig.pick(600, 4000)
    ours, floors = rig.in_turns(
        partial(load, "repeat", server, requests=[["GET", path, None]], count=count, concurrency=8),
        partial(load, "repeat", rig.floors, requests=[["GET", held, None]], count=count, concurrency=8),
    )
    return cpu("get", name, ours, floors, floor_name="raw bytes", target=Target(100))


def create(rig: Rig) -> list[Figure]:
    """A plain create: stored, asked of the model, and given when it is whole; one at a time, and many at once."""
    figures = []
    with rig.antiphon() as server:
        for concurrency, target in ((1, Target()), (32, Target(600))):
            job = {"requests": [["POST", "/responses", SMALL]], "count": rig.pick(200, 600), "concurrency": concurrency}
            ours, bare, framework = rig.in_turns(
                *(partial(load, "repeat", each, **job) for each in (server, rig.floors, rig.relay))
            )
            name = f"a small response, plain, {concurrency} at a time, CPU"
            figures.append(cpu("create", name, ours, bare, floor_name="bare relay", target=target))
            figures.append(cpu("create", name, ours, framework, floor_name="Starlette + aiohttp"))
    return figures


def delete(rig: Rig) -> list[Figure]:
    """Responses of eight tokens, erased; what is put off for a moment counts."""
    count = rig.pick(100, 500)
    held = rig.hold("deleted", [b'{"id":"resp_0","object":"response","deleted":true}'])
    with rig.antiphon() as server:

        def erase() -> Result:
            made = load("repeat", server, requests=[["POST", "/responses", SMALL]], count=count, concurrency=8)
            requests = [["DELETE", f"/responses/{response_id}", None] for response_id in made["ids"]]
            return load("repeat", server, requests=requests, count=count, concurrency=8, settle=True)

        answer = partial(load, "repeat", rig.floors, requests=[["DELETE", held, None]], count=count, concurrency=8)
        ours, floors = rig.in_turns(erase, answer)
    return [cpu("delete", "a stored response, CPU", ours, floors, floor_name="raw bytes", target=Target(250))]


def chain(rig: Rig) -> list[Figure]:
    """A create at the end of a long conversation, beside the second turn of the same one."""
    figures = []
    with rig.antiphon() as server:
        ids = converse(server, SMALL, turns=rig.pick(200, 1000) - 1)
        for turns in (100, len(ids) + 1):
            figures += _late(rig, server, ids, turns)
    return figures


def _late(rig: Rig, server: Serving, ids: list[str], turns: int) -> list[Figure]:
    count = rig.pick(8, 20)
    late, early = rig.in_turns(_continued(server, ids[turns - 2], count), _continued(server, ids[0], count))
    name = f"turn {turns:,} against turn 2"
    further_items = 2 * (turns - 2)  # each turn adds what was asked and what was answered
    each = [(more - less) / further_items for more, less in zip(per(late, "count"), per(early, "count"), strict=True)]
    figures = [
        cpu("chain", f"a create, {name}, CPU", late, early, floor_name="turn 2"),
        figure(
            "chain",
            f"{name}, CPU per context item",
            "us",
            each,
            target=Target(5),
            count=further_items,
            counted="items",
        ),
    ]
    if rig.databases.server is None:  # PostgreSQL writes in processes of its own
        figures.append(
            figure(
                "chain",
                f"{name}, written to the disk",
                "KB",
                [each["written"] / each["count"] for each in late],
                [each["written"] / each["count"] for each in early],
                floor_name="turn 2",
                target=Target(ratio=1.1),
                count=total(late, "count"),
                counted="requests",
            )
        )
    return figures


def _continued(server: Serving, response_id: str, count: int) -> partial[Result]:
    body: dict[str, Any] = {**SMALL, "previous_response_id": response_id}
    return partial(load, "repeat", server, requests=[["POST", "/responses", body]], count=count)


def cpu(scenario: str, name: str, ours: list[Result], floors: list[Result], **more: Any) -> Figure:
    """What a request takes, beside a floor."""
    return figure(
        scenario,
        name,
        "us",
        per(ours, "count"),
        per(floors, "count"),
        count=total(ours, "count"),
        counted="requests",
        **more,
    )

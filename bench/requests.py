"""Calls that give one object: get, create, delete, and creates at the end of a long conversation."""

from __future__ import annotations

from functools import partial
from typing import Any

from bench.figures import Figure, Target, figure
from bench.model_server import Plan
from bench.processes import Serving
from bench.rig import Result, Rig, converse, load, per, pieces_of, total

_SMALL = {"model": Plan(8, 1000, batch=8).model, "input": "Say something short."}


def get(rig: Rig) -> list[Figure]:
    """A stored response of 256 tokens, read again and again, on connections that are kept."""
    create = ["POST", "/responses", {**_SMALL, "model": Plan(256, 1000, batch=256).model}]
    with rig.antiphon() as server:
        path = "/responses/" + load("repeat", server, requests=[create], count=1)["ids"][0]
        held = rig.hold("response", pieces_of(server, path))
        count = rig.pick(600, 4000)
        ours, floors = rig.in_turns(
            partial(load, "repeat", server, requests=[["GET", path, None]], count=count, concurrency=8),
            partial(load, "repeat", rig.floors, requests=[["GET", held, None]], count=count, concurrency=8),
        )
    return [_cpu("get", "a stored response, CPU", ours, floors, floor_name="raw bytes", target=Target(60))]


def create(rig: Rig) -> list[Figure]:
    """A plain create: stored, asked of the model, and given when it is whole."""
    requests = [["POST", "/responses", _SMALL]]
    with rig.antiphon() as server:
        ours, floors = rig.in_turns(
            *(
                partial(load, "repeat", each, requests=requests, count=rig.pick(150, 600), concurrency=8)
                for each in (server, rig.floors)
            )
        )
    return [_cpu("create", "a small response, plain, CPU", ours, floors, floor_name="bare relay")]


def delete(rig: Rig) -> list[Figure]:
    """Responses of eight tokens, erased; what is put off for a moment counts."""
    count = rig.pick(100, 500)
    held = rig.hold("deleted", [b'{"id":"resp_0","object":"response","deleted":true}'])
    with rig.antiphon() as server:

        def erase() -> Result:
            made = load("repeat", server, requests=[["POST", "/responses", _SMALL]], count=count, concurrency=8)
            requests = [["DELETE", f"/responses/{response_id}", None] for response_id in made["ids"]]
            return load("repeat", server, requests=requests, count=count, concurrency=8, settle=True)

        answer = partial(load, "repeat", rig.floors, requests=[["DELETE", held, None]], count=count, concurrency=8)
        ours, floors = rig.in_turns(erase, answer)
    return [_cpu("delete", "a stored response, CPU", ours, floors, floor_name="raw bytes", target=Target(250))]


def chain(rig: Rig) -> list[Figure]:
    """A create at the end of a long conversation, beside the second turn of the same one."""
    turns, count = rig.pick(200, 1000), rig.pick(8, 20)
    with rig.antiphon() as server:
        ids = converse(server, _SMALL, turns=turns - 1)
        late, early = rig.in_turns(_continued(server, ids[-1], count), _continued(server, ids[0], count))
        name = f"turn {turns:,} against turn 2"
        further_items = 2 * (turns - 2)  # each turn adds what was asked and what was answered
        return [
            _cpu("chain", f"a create, {name}, CPU", late, early, floor_name="turn 2"),
            figure(
                "chain",
                f"{name}, CPU per context item",
                "us",
                [
                    (more - less) / further_items
                    for more, less in zip(per(late, "count"), per(early, "count"), strict=True)
                ],
                target=Target(5),
                count=further_items,
                counted="items",
            ),
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
            ),
        ]


def _continued(server: Serving, response_id: str, count: int) -> partial[Result]:
    body: dict[str, Any] = {**_SMALL, "previous_response_id": response_id}
    return partial(load, "repeat", server, requests=[["POST", "/responses", body]], count=count)


def _cpu(scenario: str, name: str, ours: list[Result], floors: list[Result], **more: Any) -> Figure:
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

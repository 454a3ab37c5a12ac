"""Two nodes on one PostgreSQL, beside one: what they get done together, and what an event costs the database."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from bench.figures import Figure, Target, figure
from bench.model_server import Plan
from bench.processes import Serving
from bench.rig import Result, Rig, load, per

_BODY = {"model": Plan(256, 1000, batch=16).model, "input": "Count.", "stream": True}


def nodes(rig: Rig) -> list[Figure]:
    """Streamed responses of 256 tokens, 32 at a time on each node. Only cores that are free can show a gain."""
    if rig.databases.server is None:
        raise RuntimeError("SQLite is for one node; this needs --database postgresql")
    with ExitStack() as stack:
        database = stack.enter_context(rig.databases.new())
        first, second = (stack.enter_context(rig.antiphon(database)) for _ in range(2))
        both, one = rig.in_turns(lambda: _busy(rig, first, second), lambda: _busy(rig, first))
    figures = [
        figure(
            "nodes",
            "1,000 events a second, by two nodes (target: 1.7x or more, given the cores)",
            "x",
            [each["events"] / each["seconds"] / 1000 for each in both],
            [each["events"] / each["seconds"] / 1000 for each in one],
            floor_name="one node",
        ),
        _per_event("CPU of the nodes per event", both, one),
    ]
    if rig.databases.pid is not None:
        database_both, database_one = (
            [{**each, "cpu_seconds": each["database_seconds"]} for each in results] for results in (both, one)
        )
        figures.append(_per_event("CPU of the database per event", database_both, database_one))
    return figures


def _busy(rig: Rig, *servers: Serving) -> Result:
    """What some nodes get done at once."""
    count = rig.pick(64, 256)
    since = rig.databases.cpu_seconds() or 0.0

    def one(server: Serving) -> Result:
        return load("repeat", server, requests=[["POST", "/responses", _BODY]], count=count, concurrency=32)

    with ThreadPoolExecutor() as pool:
        results = list(pool.map(one, servers))
    return {
        "events": sum(each["events"] for each in results),
        "cpu_seconds": sum(each["cpu_seconds"] for each in results),
        "seconds": max(each["seconds"] for each in results),
        "database_seconds": (rig.databases.cpu_seconds() or 0.0) - since,
    }


def _per_event(name: str, both: list[Result], one: list[Result]) -> Figure:
    return figure(
        "nodes",
        f"{name}, two nodes",
        "us",
        per(both, "events"),
        per(one, "events"),
        floor_name="one node",
        target=Target(ratio=1.2),
        count=sum(each["events"] for each in both),
        counted="events",
    )

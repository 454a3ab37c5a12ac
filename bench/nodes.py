"""Two nodes on one PostgreSQL, beside one: what they get done together, and what an event costs the database."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from bench.figures import Figure, Target, figure
from bench.model_server import Plan
from bench.processes import Serving
from bench.quota import held_to
from bench.rig import Result, Rig, load, per

_BODY = {"model": Plan(256, 1000, batch=16).model, "input": "Count.", "stream": True}
_SHARE = 0.15  # of a core for each node: what is left of two is enough for the database, the models and the load


def nodes(rig: Rig) -> list[Figure]:
    """Streamed responses of 256 tokens, 32 at a time on each node: with all cores, and each held to a share of one."""
    if rig.databases.server is None:
        raise RuntimeError("SQLite is for one node; this needs --database postgresql")
    with ExitStack() as stack:
        database = stack.enter_context(rig.databases.new())
        first, second = (stack.enter_context(rig.antiphon(database)) for _ in range(2))
        both, one = rig.in_turns(lambda: _busy(rig, first, second), lambda: _busy(rig, first))
        figures = [_gain("1,000 events a second, by two nodes that share the cores with their load", both, one)]
        figures += _costs(rig, both, one)
        if all(stack.enter_context(held_to(_SHARE, node.pid)) for node in (first, second)):
            both, one = rig.in_turns(lambda: _busy(rig, first, second), lambda: _busy(rig, first))
            held = f"two nodes that have {_SHARE:.0%} of a core each"
            figures.append(_gain(f"1,000 events a second, by {held} (target: 1.7x or more)", both, one))
            figures += _costs(rig, both, one, among=held)
    return figures


def _gain(name: str, both: list[Result], one: list[Result]) -> Figure:
    per_second = [[each["events"] / each["seconds"] / 1000 for each in results] for results in (both, one)]
    return figure("nodes", name, "x", *per_second, floor_name="one node")


def _costs(rig: Rig, both: list[Result], one: list[Result], *, among: str = "two nodes") -> list[Figure]:
    """What an event costs the nodes, and the database if it was started here."""
    figures = [_per_event(f"CPU of the nodes per event, {among}", both, one)]
    if rig.databases.pid is not None:
        of_database = (
            [{**each, "cpu_seconds": each["database_seconds"]} for each in results] for results in (both, one)
        )
        figures.append(_per_event(f"CPU of the database per event, {among}", *of_database))
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
        name,
        "us",
        per(both, "events"),
        per(one, "events"),
        floor_name="one node",
        target=Target(ratio=1.2),
        count=sum(each["events"] for each in both),
        counted="events",
    )

"""Streams: relayed while they are made, and replayed."""

from __future__ import annotations

from functools import partial

from bench.figures import Figure, Target, figure
from bench.model_server import Plan
from bench.processes import Serving
from bench.rig import Result, Rig, load, per, pieces_of, total

_BEGIN_SECONDS = 0.5  # for which streams last longer than they are looked at,
_BEGIN_EACH_SECONDS = 0.003  # and for each of them: beginning takes a while, and the last has to be seen too


def live(rig: Rig) -> list[Figure]:
    """Each token comes alone and is committed and shown before the next: the system's calls decide."""
    with rig.antiphon() as server:
        ours, floors = _streams(rig, server, streams=50, per_second=100, seconds=rig.pick(1, 5))
    return [
        figure(
            "live",
            "relay with log, 50 streams x 100 tokens/s, CPU per event",
            "us",
            per(ours, "events"),
            per(floors, "events"),
            floor_name="bare relay",
            target=Target(50, 3.3),
            count=total(ours, "events"),
            counted="events",
        ),
        figure("live", "events in one send", "x", [each["events"] / each["sends"] for each in ours]),
    ]


def latency(rig: Rig) -> list[Figure]:
    """From the model server's write to the reading of the event, both in the other processes."""
    with rig.antiphon() as server:
        ours, floors = _streams(rig, server, streams=200, per_second=50, seconds=rig.pick(1, 5), stamped=True)
    return [
        figure(
            "latency",
            f"200 streams x 50 tokens/s, {percentile}",
            "ms",
            [each["latencies"][percentile] for each in ours],
            [each["latencies"][percentile] for each in floors],
            floor_name="bare relay",
            target=Target(limit),
            count=total(ours, "events"),
            counted="events",
        )
        for percentile, limit in (("p50", 4), ("p99", 25))
    ] + [
        figure(
            "latency",
            "200 streams x 50 tokens/s, CPU per event",
            "us",
            per(ours, "events"),
            per(floors, "events"),
            floor_name="bare relay",
            count=total(ours, "events"),
            counted="events",
        )
    ]


def burst(rig: Rig) -> list[Figure]:
    """Many tokens come in one read: the work on each event decides."""
    plan = Plan(256, 1000, batch=256)
    whole = [["POST", "/responses", {"model": plan.model, "input": "Count.", "stream": True}]]
    with rig.antiphon() as server:
        ours, floors = _streams(rig, server, streams=4, per_second=20, batch=256, seconds=rig.pick(0.5, 3))
        wholes, relayed = rig.in_turns(
            *(
                partial(load, "repeat", each, requests=whole, count=rig.pick(24, 200), concurrency=4)
                for each in (server, rig.floors)
            )
        )
    return [
        figure(
            "burst",
            "relay with log, reads of 256 tokens, CPU per event",
            "us",
            per(ours, "events"),
            per(floors, "events"),
            floor_name="bare relay",
            target=Target(6),
            count=total(ours, "events"),
            counted="events",
        ),
        figure(
            "burst",
            "a whole response of 256 tokens at once, CPU per event",
            "us",
            per(wholes, "events"),
            per(relayed, "events"),
            floor_name="bare relay",
            count=total(wholes, "events"),
            counted="events",
        ),
    ]


def replay(rig: Rig) -> list[Figure]:
    """Stored responses streamed again, beside the sending of the same bytes in the same pieces."""
    figures = []
    with rig.antiphon() as server:
        for events, writes_per_second, count in ((256, 200, 200), (10_000, rig.pick(8000, 500), 10)):
            # A response of one text has eight events beside its deltas.
            body = {"model": Plan(events - 8, writes_per_second).model, "input": "Count.", "stream": True}
            made = load("repeat", server, requests=[["POST", "/responses", body]], count=1)
            path = f"/responses/{made['ids'][0]}?stream=true"
            figures += [
                _replay(rig, server, path, "obfuscated", count=count),
                _replay(rig, server, path + "&include_obfuscation=false", "not obfuscated", count=count),
            ]
    return figures


def _streams(
    rig: Rig, server: Serving, *, streams: int, per_second: float, seconds: float, batch: int = 1, stamped: bool = False
) -> tuple[list[Result], list[Result]]:
    """What the streams cost Antiphon, and the bare relay, while all of them run."""
    tokens = int(per_second * batch * (seconds + _BEGIN_SECONDS + streams * _BEGIN_EACH_SECONDS))
    body = {"model": Plan(tokens, per_second, batch, stamped).model, "input": "Count.", "stream": True}
    ours, floors = rig.in_turns(
        *(partial(load, "stream", each, body=body, streams=streams, seconds=seconds) for each in (server, rig.floors))
    )
    if not all(result["steady"] for result in (*ours, *floors)):
        raise RuntimeError("Streams ended before they had been measured: this machine is too slow for this load.")
    return ours, floors


def _replay(rig: Rig, server: Serving, path: str, how: str, *, count: int) -> Figure:
    pieces = pieces_of(server, path)
    held = rig.hold("replay", pieces)
    ours, floors = rig.in_turns(
        partial(load, "repeat", server, requests=[["GET", path, None]], count=count, concurrency=4),
        partial(load, "repeat", rig.floors, requests=[["GET", held, None]], count=count, concurrency=4),
    )
    events = ours[0]["events"] // count
    return figure(
        "replay",
        f"{events:,} events, sends: {len(pieces)}, {how}, CPU per event",
        "us",
        per(ours, "events"),
        per(floors, "events"),
        floor_name="raw bytes",
        target=Target(1),
        count=total(ours, "events"),
        counted="events",
    )

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
        ours, bare, framework = paced(
            rig, server, rig.floors, rig.relay, streams=50, per_second=100, seconds=rig.pick(1, 5)
        )
    name = "relay with log, 50 streams x 100 tokens/s, CPU per event"
    return [
        _events("live", name, ours, bare, "bare relay", Target(50, 3.3)),
        _events("live", name, ours, framework, "Starlette + aiohttp"),
        figure("live", "events in one send", "x", [each["events"] / each["sends"] for each in ours]),
    ]


def latency(rig: Rig) -> list[Figure]:
    """From the model server's write to the reading of the event, both in the other processes."""
    with rig.antiphon() as server:
        ours, bare = paced(rig, server, rig.floors, streams=200, per_second=50, seconds=rig.pick(1, 5), stamped=True)
    name = "200 streams x 50 tokens/s"
    return [
        *(
            figure(
                "latency",
                f"{name}, {percentile}",
                "ms",
                [each["latencies"][percentile] for each in ours],
                [each["latencies"][percentile] for each in bare],
                floor_name="bare relay",
                target=Target(limit),
                count=total(ours, "events"),
                counted="events",
            )
            for percentile, limit in (("p50", 4), ("p99", 25))
        ),
        _events("latency", f"{name}, CPU per event", ours, bare, "bare relay"),
        figure(
            "latency",
            f"{name}, of a core",
            "%",
            per(ours, "seconds"),
            per(bare, "seconds"),
            floor_name="bare relay",
            target=Target(50),
        ),
    ]


def burst(rig: Rig) -> list[Figure]:
    """Many tokens come in one read: the work on each event decides."""
    with rig.antiphon() as server:
        ours, bare = paced(rig, server, rig.floors, streams=4, per_second=20, batch=256, seconds=rig.pick(0.5, 3))
    return [_events("burst", "relay with log, reads of 256 tokens, CPU per event", ours, bare, "bare relay", Target(6))]


def stream(rig: Rig) -> list[Figure]:
    """Whole responses from create to end, the tokens as fast as they come: one at a time, and many at once."""
    body = {"model": Plan(256, 1000, batch=256).model, "input": "Count.", "stream": True}
    figures = []
    with rig.antiphon(options=["--foreground-limit", "512"]) as server:  # as it comes it turns the 257th away
        for concurrency, target in ((1, Target()), (32, Target(8)), (256, Target())):
            count = max(2 * concurrency, rig.pick(32, 192))
            job = {"requests": [["POST", "/responses", body]], "count": count, "concurrency": concurrency}
            ours, bare, framework = rig.in_turns(
                *(partial(load, "repeat", each, **job) for each in (server, rig.floors, rig.relay))
            )
            name = f"a response of 256 tokens, {concurrency} at a time, CPU per event"
            figures.append(_events("stream", name, ours, bare, "bare relay", target))
            figures.append(_events("stream", name, ours, framework, "Starlette + aiohttp"))
    return figures


def replay(rig: Rig) -> list[Figure]:
    """Stored responses streamed again, beside the sending of the same bytes in the same pieces."""
    figures = []
    with rig.antiphon() as server:
        for events, writes_per_second, count in ((256, 200, 200), (10_000, rig.pick(8000, 500), 10)):
            # A response of one text has eight events beside its deltas.
            body = {"model": Plan(events - 8, writes_per_second).model, "input": "Count.", "stream": True}
            made = load("repeat", server, requests=[["POST", "/responses", body]], count=1)
            path = f"/responses/{made['ids'][0]}?stream=true"
            middle = f"{path}&starting_after={events // 2}"
            figures += [
                _replay(rig, server, path, f"{events:,} events, obfuscated", count=count),
                _replay(
                    rig, server, path + "&include_obfuscation=false", f"{events:,} events, not obfuscated", count=count
                ),
                _replay(rig, server, middle, f"{events:,} events, resumed in the middle", count=count),
                _first(rig, server, path, f"{events:,} events, to the first one"),
                _first(rig, server, middle, f"{events:,} events, resumed in the middle, to the first one"),
            ]
    return figures


def paced(
    rig: Rig,
    *servers: Serving,
    streams: int,
    per_second: float,
    seconds: float,
    batch: int = 1,
    stamped: bool = False,
) -> list[list[Result]]:
    """What the streams cost each of the servers while all of them run."""
    tokens = int(per_second * batch * (seconds + _BEGIN_SECONDS + streams * _BEGIN_EACH_SECONDS))
    body = {"model": Plan(tokens, per_second, batch, stamped).model, "input": "Count.", "stream": True}
    taken = rig.in_turns(
        *(partial(load, "stream", each, body=body, streams=streams, seconds=seconds) for each in servers)
    )
    if not all(result["steady"] for results in taken for result in results):
        raise RuntimeError("Streams ended before they had been measured: this machine is too slow for this load.")
    return taken


def _replay(rig: Rig, server: Serving, path: str, name: str, *, count: int) -> Figure:
    pieces = pieces_of(server, path)
    held = f"{rig.hold('replay', pieces)}?{path.partition('?')[2]}"  # the floor need not know, who checks it does
    ours, floors = rig.in_turns(
        partial(load, "repeat", server, requests=[["GET", path, None]], count=count, concurrency=4),
        partial(load, "repeat", rig.floors, requests=[["GET", held, None]], count=count, concurrency=4),
    )
    return _events("replay", f"{name}, sends: {len(pieces)}, CPU per event", ours, floors, "raw bytes", Target(1))


def _first(rig: Rig, server: Serving, path: str, name: str) -> Figure:
    (taken,) = rig.in_turns(partial(load, "repeat", server, requests=[["GET", path, None]], count=10))
    return figure(
        "replay", name, "ms", [each["first_seconds"] for each in taken], target=Target(3), count=total(taken, "count"),
        counted="replays",
    )  # fmt: skip


def _events(
    scenario: str,
    name: str,
    ours: list[Result],
    floors: list[Result],
    floor_name: str,
    target: Target = Target(),  # noqa: B008 a value
) -> Figure:
    """What an event takes, beside a floor."""
    return figure(
        scenario,
        name,
        "us",
        per(ours, "events"),
        per(floors, "events"),
        floor_name=floor_name,
        target=target,
        count=total(ours, "events"),
        counted="events",
    )

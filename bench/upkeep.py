"""What callers feel while a server erases what has expired: streams, beside those of one that has nothing to erase."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack

from bench.databases import store_of
from bench.figures import Figure, Target, figure
from bench.rig import Rig, total
from bench.scale import filled
from bench.streaming import paced

_EXPIRED_EACH_SECOND_MAX = 100  # by the pace that maintenance keeps, which is far less
_SECONDS_BESIDE = 30  # of filling, of starts and of what stands between the rounds


def upkeep(rig: Rig) -> list[Figure]:
    """50 streams at 20 tokens/s, so that the cores are not the limit, while responses of 256 tokens are erased."""
    seconds = rig.pick(1, 5)
    backlog = int(_EXPIRED_EACH_SECOND_MAX * (2 * rig.rounds * (seconds + 2) + _SECONDS_BESIDE))
    with ExitStack() as stack:
        databases = [stack.enter_context(rig.databases.new()) for _ in range(2)]
        for database, number in zip(databases, (backlog, 0), strict=True):
            asyncio.run(filled(rig, database, number, turns=0, spare=0, expires_at=time.time() + 1))
        with ExitStack() as running:
            servers = [running.enter_context(rig.antiphon(database)) for database in databases]
            erasing, resting = paced(rig, *servers, streams=50, per_second=20, seconds=seconds, stamped=True)
        if not asyncio.run(_is_left(databases[0])):
            raise RuntimeError("Everything was erased before the end: this machine is faster than was thought.")
    return [
        figure(
            "upkeep",
            f"50 streams x 20 tokens/s, while responses are erased, {percentile}",
            "ms",
            [each["latencies"][percentile] for each in erasing],
            [each["latencies"][percentile] for each in resting],
            floor_name="nothing to erase",
            target=Target(ratio=limit),
            count=total(erasing, "events"),
            counted="events",
        )
        for percentile, limit in (("p50", 1.2), ("p99", 2))
    ]


async def _is_left(database: str) -> bool:
    store = store_of(database)
    await store.open()
    left = await store.upkeep.expire(limit=1)
    await store.close()
    return bool(left)

"""What stays of finished responses: on the disk, once they are compacted, and in the memory of the server."""

from __future__ import annotations

import asyncio

from bench.databases import compact, store_of, used_bytes
from bench.figures import Figure, Target, figure
from bench.model_server import Plan
from bench.processes import rss_bytes
from bench.rig import Rig, load

_TOKENS = 256


def disk(rig: Rig) -> list[Figure]:
    """Responses of English, made by a server and compacted when it has ended: pages in use, for each of them."""
    count = rig.pick(100, 1000)
    create = ["POST", "/responses", {"model": Plan(_TOKENS, 1000, _TOKENS, words=True).model, "input": "Say much."}]
    sizes, loose = [], []
    for _ in range(rig.pick(1, 3)):
        with rig.databases.new() as database:
            with rig.antiphon(database) as server:
                empty = used_bytes(database)
                load("repeat", server, requests=[create], count=count, concurrency=8)
            asyncio.run(_settle(database))
            loose.append((used_bytes(database) - empty) / count)
            asyncio.run(compact(database))
            sizes.append((used_bytes(database) - empty) / count)
    return [
        figure(
            "disk",
            f"a response of {_TOKENS} tokens, compacted, with its request",
            "KB",
            sizes,
            loose,
            floor_name="as written",
            target=Target(5),
            count=count,
            counted="responses",
        )
    ]


def memory(rig: Rig) -> list[Figure]:
    """A server that has made many responses, beside itself when it had made a quarter of them."""
    whole = rig.pick(2_000, 20_000)
    create = ["POST", "/responses", {"model": Plan(8, 1000, batch=8).model, "input": "Say something short."}]
    grown = []
    with rig.antiphon() as server:
        for _ in range(4):
            load("repeat", server, requests=[create], count=whole // 4, concurrency=8, settle=True)
            grown.append(rss_bytes(server.pid))
    return [
        figure(
            "memory",
            f"of a server that has made {whole:,} responses",
            "MB",
            grown[-1:],
            grown[:1],
            floor_name=f"after {whole // 4:,}",
            target=Target(ratio=1.1),
            count=whole,
            counted="responses",
        )
    ]


async def _settle(database: str) -> None:
    """Let all be in the database's own pages: who closes it last moves them there."""
    store = store_of(database)
    await store.open()
    await store.close()

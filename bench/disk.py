"""What stays on the disk of a finished response, once it is compacted."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import apsw

from antiphon.store.sqlite import SqliteStore
from bench.figures import Figure, Target, figure
from bench.model_server import Plan
from bench.rig import Rig, load

_TOKENS = 256
_SIZE_TARGET_KB = 5


def disk(rig: Rig) -> list[Figure]:
    """Responses of English, made by a server and compacted when it has ended: pages in use, for each of them."""
    count = rig.pick(100, 1000)
    create = ["POST", "/responses", {"model": Plan(_TOKENS, 1000, _TOKENS, words=True).model, "input": "Say much."}]
    sizes, loose = [], []
    for _ in range(rig.pick(1, 3)):
        with tempfile.TemporaryDirectory(prefix="antiphon-bench-") as directory:
            with rig.antiphon(keep=directory) as server:
                empty = _used_bytes(directory)
                load("repeat", server, requests=[create], count=count, concurrency=8)
            asyncio.run(_settled(directory, compact=False))
            loose.append((_used_bytes(directory) - empty) / count)
            asyncio.run(_settled(directory, compact=True))
            sizes.append((_used_bytes(directory) - empty) / count)
    return [
        figure(
            "disk",
            f"a response of {_TOKENS} tokens, compacted, with its request",
            "KB",
            sizes,
            loose,
            floor_name="as written",
            target=Target(_SIZE_TARGET_KB),
            count=count,
            counted="responses",
        )
    ]


async def _settled(directory: str, *, compact: bool) -> None:
    """Let all be in the file, compacted or not."""
    store = SqliteStore(f"{directory}/bench.db")
    await store.open()
    while compact and await store.upkeep.compact(settled_seconds=-1):
        pass
    await store.erased()
    await store.close()


def _used_bytes(directory: str) -> int:
    """The pages that hold something: free ones are used again by the next responses."""
    connection = apsw.Connection(str(Path(directory) / "bench.db"))
    pages = [connection.pragma(name) for name in ("page_count", "freelist_count", "page_size")]
    connection.close()
    count, free, size = (int(str(value)) for value in pages)
    return (count - free) * size

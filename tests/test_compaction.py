"""Finished logs are made small in idle time, and nobody who reads them notices."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import apsw
import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon import maintenance
from antiphon.log import Log
from antiphon.protocol import view
from antiphon.protocol.tails import with_tails, without_tails
from antiphon.protocol.transcript import Transcript
from antiphon.segments import ending_of, segment_of
from antiphon.server.skeleton import skeleton
from antiphon.store import sqlite_upkeep
from antiphon.store.bell import LocalBell
from antiphon.store.follow import Tail
from antiphon.store.sqlite import SqliteStore
from tests.contracts.store import ending, item, new, numbers, running, segment, turn
from tests.contracts.upkeep import compacted
from tests.servers.antiphon import antiphon, creating, replayed

TOOLS = [{"type": "function", "name": "f", "description": "text " * 500, "parameters": {}, "strict": False}]
ASKED: dict[str, dict[str, Any]] = {
    "text:Ünder way — 汉字 🌊, and on": {},
    "tools": {"tools": TOOLS},
    "reasoning": {"include": ["reasoning.encrypted_content"]},
    "break:3": {},
    "error:500": {},
    "text:Later": {"background": True},
}


async def compacted_file(path: Path) -> None:
    store = SqliteStore(str(path))
    await store.open(exclusive=False)
    await compacted(store)
    await store.close()


async def seen(http: httpx2.AsyncClient, response_id: str) -> list[Any]:
    """All that a caller can learn of a response."""
    path = f"/responses/{response_id}"
    include = {"include[]": ["reasoning.encrypted_content", "message.output_text.logprobs"]}
    return [
        (await http.get(path)).content,
        (await http.get(path, params=include)).content,
        (await http.get(f"{path}/input_items")).content,
        await replayed(http, response_id),
        await replayed(http, response_id, include_obfuscation="false"),
        *[await replayed(http, response_id, starting_after=after) for after in range(0, 12, 3)],
    ]


async def test_whoever_reads_a_response_does_not_notice_that_it_is_compacted(tmp_path: Path) -> None:
    with antiphon(tmp_path, tail_bytes=0) as server:
        async with server.http() as http:
            made = []
            for model, body in ASKED.items():
                async with creating(http, model, **body) as stream:
                    await stream.rest()
                made.append(stream.response_id)
            before = [await seen(http, response_id) for response_id in made]
            listed = (await http.get("/responses")).content

            await compacted_file(tmp_path / "antiphon.db")

            assert [await seen(http, response_id) for response_id in made] == before
            assert (await http.get("/responses")).content == listed
            rows = apsw.Connection(str(tmp_path / "antiphon.db")).execute("SELECT count(*) FROM segments")
            assert rows.fetchall() == [(len(made),)]


@given(st.lists(st.text(), min_size=1), st.integers(0, 200_000))
def test_tails_are_put_back_as_they_were(deltas: list[str], first: int) -> None:
    frames = view.frames(
        [
            {"type": "response.output_text.delta", "delta": delta, "sequence_number": number}
            for number, delta in enumerate(deltas, first)
        ]
    )

    short = without_tails(frames, first=first)

    assert short is not None
    assert with_tails(short, first=first) == frames
    assert b"obfuscation" not in short.replace("".join(deltas).encode(), b"")


@given(st.binary(), st.integers(0, 99))
def test_tails_of_whatever_else_are_put_back_or_left(frames: bytes, first: int) -> None:
    short = without_tails(frames, first=first)

    assert short is None or with_tails(short, first=first) == frames


@pytest.fixture
async def store(tmp_path: Path) -> Any:
    store = SqliteStore(str(tmp_path / "antiphon.db"))
    await store.open()
    yield store
    await store.close()


async def test_a_response_that_was_deleted_meanwhile_is_not_brought_back(store: SqliteStore) -> None:
    await turn(store, "a")
    stretch = await store._read_aside(sqlite_upkeep._next_stretch, 1)
    await store.delete("alice", "a")
    claim = await running(store, "b")  # gets the number that the row had
    await store.append(claim, [segment(1)], ending=ending(item("o1")))

    await store._write(sqlite_upkeep.replace, stretch)

    assert await numbers(store, "b") == [0, 1]
    assert (await store.get("alice", "b")).response == ending().response
    assert await compacted(store) == 1


async def test_readers_go_on_while_logs_are_compacted(store: SqliteStore) -> None:
    for id in ("a", "b", "c"):
        claim = await running(store, id)
        for first in range(1, 900, 3):
            await store.append(claim, [segment(first, 3, text=f"{id} " * 150)])
        await store.append(claim, [], ending=ending())

    async def read() -> None:
        for _ in range(30):
            for id in ("a", "b", "c"):
                assert await numbers(store, id) == list(range(901))
                await asyncio.sleep(0)

    reading = asyncio.create_task(read())
    while await store.upkeep.compact(settled_seconds=0):
        pass
    await reading


async def test_the_idle_loop_erases_compacts_and_survives_a_failure(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(maintenance, "IDLE_SECONDS", 0.01)
    bell = LocalBell(1.0)
    log = Log(store, tail=Tail(bytes_max=1 << 20), bell=bell)
    await turn(store, "a")
    claim = await running(store, "old", expires_at=1.0)
    await store.append(claim, [segment(1)], ending=ending())

    maintaining = asyncio.create_task(maintenance.maintain(log, Failing(store.upkeep)))
    connection = apsw.Connection(str(store._path))
    while connection.execute("SELECT id, closed FROM responses").fetchall() != [("a", 2)]:  # noqa: ASYNC110
        await asyncio.sleep(0)
    maintaining.cancel()
    bell.close()

    assert "maintenance failed and is tried again" in caplog.text


class Failing:
    """An upkeep whose first call fails, as on a full disk."""

    def __init__(self, upkeep: Any) -> None:
        self._upkeep = upkeep
        self._failed = False

    def __getattr__(self, name: str) -> Any:
        if not self._failed:
            self._failed = True
            raise OSError("disk full")
        return getattr(self._upkeep, name)


async def test_a_response_of_256_tokens_takes_5_kb_and_what_was_asked(tmp_path: Path) -> None:
    """Pages in use, divided by the responses: what is free is used again by the next ones."""
    chance, text = random.Random(5), (Path(__file__).parent.parent / "docs" / "performance.md").read_text("utf-8")
    store = SqliteStore(str(tmp_path / "small.db"))
    await store.open()
    connection = apsw.Connection(str(tmp_path / "small.db"))

    def used() -> int:
        pages = connection.pragma("page_count") - connection.pragma("freelist_count")
        return int(pages * connection.pragma("page_size"))

    await store.erased()
    before = used()
    for number in range(60):
        place = chance.randrange(len(text) - 1024)
        tokens = [text[at : at + 4] for at in range(place, place + 1024, 4)]  # as long as tokens of English are
        await answered(store, f"resp_{number:048}", tokens)
    await compacted(store)
    await store.erased()

    assert (used() - before) / 60 <= 5000


async def answered(store: SqliteStore, id: str, tokens: list[str]) -> None:
    """A response as the server keeps it, token by token."""
    transcript = Transcript(skeleton({"model": "m", "input": "?"}, id=id, created_at=1000))
    said = [transcript.write("response.created"), transcript.write("response.in_progress")]
    given = item(f"msg_in_{id}", "Tell me something.")
    claim = await store.create("alice", new(id, segment=segment_of(said), items=[given]), lease_seconds=60)
    assert claim is not None
    message: dict[str, Any] = {"id": f"msg_{id}", "type": "message", "role": "assistant", "content": []}
    part: dict[str, Any] = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    at = {"output_index": 0, "item_id": message["id"], "content_index": 0}
    text = "".join(tokens)
    done = {**message, "status": "completed", "content": [{**part, "text": text}]}
    write = transcript.write
    await store.append(
        claim,
        [
            segment_of(
                [
                    write("response.output_item.added", output_index=0, item={**message, "status": "in_progress"}),
                    write("response.content_part.added", **at, part=part),
                ]
            )
        ],
    )
    deltas = [write("response.output_text.delta", **at, delta=token, logprobs=[]) for token in tokens]
    await store.append(claim, [segment_of([each]) for each in deltas])
    usage = {"input_tokens": 9, "output_tokens": 256, "total_tokens": 265}
    last = [
        write("response.output_text.done", **at, text=text, logprobs=[]),
        write("response.content_part.done", **at, part=done["content"][0]),
        write("response.output_item.done", output_index=0, item=done),
        write("response.completed", usage=usage),
    ]
    await store.append(claim, [segment_of(last)], ending=ending_of(transcript, {}))

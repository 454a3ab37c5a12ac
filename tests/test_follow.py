"""Logs, workers and followers without HTTP: what only a clock, a second node or a broken model shows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from antiphon.engine.model import Delta, Finish, Text
from antiphon.log import Log
from antiphon.protocol.transcript import Transcript
from antiphon.seals import Seals
from antiphon.server.skeleton import skeleton
from antiphon.store.base import Claim, Segment
from antiphon.store.bell import LocalBell
from antiphon.store.follow import Tail
from antiphon.store.sqlite import SqliteStore
from antiphon.worker import Worker

ITEM = {"id": "msg_in", "type": "message", "role": "user", "content": [], "status": "completed"}


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Gated:
    """A model that says a word and then waits; or one with a fault that nobody foresaw."""

    continues_prefix = False

    def __init__(self, fault: Exception | None = None) -> None:
        self.asked: asyncio.Queue[str] = asyncio.Queue()  # the models of the turns begun
        self.gate = asyncio.Event()
        self._fault = fault

    async def turn(
        self, request: Mapping[str, Any], context: Sequence[Mapping[str, Any]]
    ) -> AsyncGenerator[list[Delta]]:
        self.asked.put_nowait(request["model"])
        if self._fault is not None:
            raise self._fault
        yield [Text("so")]
        await self.gate.wait()
        yield [Finish("stop")]

    async def models(self) -> list[dict[str, Any]]:
        return []

    async def close(self) -> None: ...


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(clock: Clock, tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(str(tmp_path / "x.db"), now=clock)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def bell() -> AsyncIterator[LocalBell]:
    bell = LocalBell(0.02)
    yield bell
    bell.close()


def log_on(store: SqliteStore, bell: LocalBell) -> Log:
    return Log(store, tail=Tail(bytes_max=1 << 20), bell=bell, grace_seconds=10_000)


def worker_of(model: Any, clock: Clock) -> Worker:
    seals = Seals(["a secret of the tests of followers"])
    return Worker(model, new_id=lambda prefix, response_id: f"{prefix}_{response_id}", seals=seals, now=clock)


async def create(log: Log, response_id: str, *, background: bool = False) -> Claim | None:
    body = {"model": "m", "background": background}
    transcript = Transcript(skeleton(body, id=response_id, created_at=1))
    events = [transcript.write("response.created")]
    return await log.create(
        "alice",
        transcript,
        events,
        request=body,
        items=[{**ITEM, "id": f"msg_{response_id}"}],
        before=(),
        previous=None,
        claim=not background,
    )


async def followed(log: Log, response_id: str) -> list[Segment]:
    return [segment async for segments in log.follow("alice", response_id) for segment in segments]


async def test_a_follower_finds_what_another_node_has_written_though_nobody_rings(
    store: SqliteStore, bell: LocalBell
) -> None:
    here, there = log_on(store, bell), log_on(store, LocalBell(60))
    await create(here, "resp_1")
    follower = asyncio.create_task(followed(here, "resp_1"))
    await asyncio.sleep(0)

    await there.cancel("alice", "resp_1")

    segments = await follower
    assert segments[0].first == 0
    assert segments[-1].last == (await there.fold("alice", "resp_1")).sequence_number


async def test_a_fault_that_nobody_foresaw_ends_the_response_as_failed(
    store: SqliteStore, bell: LocalBell, clock: Clock
) -> None:
    log, worker = log_on(store, bell), worker_of(Gated(ValueError("what")), clock)
    claim = await create(log, "resp_1")
    assert claim is not None
    worker.run(log, claim)

    await followed(log, "resp_1")

    response = (await log.fold("alice", "resp_1")).response
    assert response["status"] == "failed"
    assert "what" not in response["error"]["message"]


async def test_after_a_sleep_of_the_machine_its_own_responses_are_not_taken_from_it(
    store: SqliteStore, bell: LocalBell, clock: Clock
) -> None:
    model = Gated()
    log, worker = log_on(store, bell), worker_of(model, clock)
    worker.start(log, claims=True)
    claim = await create(log, "resp_1")
    assert claim is not None
    worker.run(log, claim)
    await create(log, "resp_2", background=True)
    for _ in range(2):
        await model.asked.get()

    clock.now += 3600
    await create(log, "resp_3", background=True)
    await model.asked.get()
    attempts = [(await store.get("alice", response_id)).attempt for response_id in ("resp_1", "resp_2", "resp_3")]
    model.gate.set()
    for response_id in ("resp_1", "resp_2", "resp_3"):
        await followed(log, response_id)
    await worker.stop(seconds=10)

    assert attempts == [1, 1, 1]
    assert model.asked.empty()

"""What one response says is committed piece by piece, or together where nobody waits for the pieces."""

import asyncio

import pytest

from antiphon import pen
from antiphon.budget import Budget
from antiphon.log import Log
from antiphon.pen import Pen
from antiphon.protocol.transcript import Transcript
from antiphon.server.skeleton import skeleton
from antiphon.store.bell import LocalBell
from antiphon.store.follow import Tail
from antiphon.store.sqlite import SqliteStore

ID = "resp_1"


class SlowStore(SqliteStore):
    """A store in memory that appends when it may."""

    def __init__(self):
        super().__init__(None)
        self.asked, self.may = asyncio.Event(), asyncio.Event()
        self.may.set()

    async def append(self, *args, **named):
        self.asked.set()
        await self.may.wait()
        await super().append(*args, **named)


@pytest.fixture
async def log():
    store = SlowStore()
    await store.open()
    bell = LocalBell(60.0)
    yield Log(store, tail=Tail(bytes_max=1 << 20), bell=bell)
    bell.close()
    await store.close()


async def begun(log, **request):
    """A response that has begun; gives a pen for it and its transcript."""
    body = {"model": "m", "input": "Hi", **request}
    transcript = Transcript(skeleton(body, id=ID, created_at=1))
    events = [transcript.write("response.created"), transcript.write("response.in_progress")]
    claim = await log.create(
        "default", transcript, events, request=body, items=[], before=[], previous=None, claim=True
    )  # fmt: skip
    work = await log.work(claim)
    return Pen(log, claim, work, hold=Budget().hold(), appended=lambda entries, seconds: None), work.transcript


def pieces(transcript):
    """Two pieces and the end, one batch of events after the other."""
    item = {"id": "msg_1", "type": "message", "status": "completed", "content": [], "role": "assistant"}
    yield [transcript.write("response.output_item.added", output_index=0, item={**item, "status": "in_progress"})]
    yield [transcript.write("response.output_item.done", output_index=0, item=item)]
    yield [transcript.write("response.completed", completed_at=2, usage=None, service_tier="default")]


async def kept(log):
    """The first number of each segment of the log."""
    return [segment.first for segment in (await log.store.read("default", ID, after=-1)).segments]


async def test_the_pieces_of_a_plain_response_share_a_commit(log, monkeypatch):
    monkeypatch.setattr(pen, "HOLD_SECONDS", 60.0)
    writing, transcript = await begun(log)
    for entries in pieces(transcript):
        await writing.write(entries)
    await writing.close()

    assert await kept(log) == [0, 2]
    assert [event["type"] for event in writing.last] == [
        "response.output_item.added",
        "response.output_item.done",
        "response.completed",
    ]
    assert (await log.store.get("default", ID)).closed


@pytest.mark.parametrize("request_", [{"stream": True}, {"background": True}])
async def test_each_piece_is_committed_where_somebody_may_wait_for_it(log, monkeypatch, request_):
    monkeypatch.setattr(pen, "HOLD_SECONDS", 60.0)
    writing, transcript = await begun(log, **request_)
    for number, entries in enumerate(pieces(transcript)):
        await writing.write(entries)
        assert (await kept(log))[-1] == 2 + number
    await writing.close()


async def test_what_is_held_is_committed_when_nothing_follows(log, monkeypatch):
    """The model may be silent for long, and somebody may have found the response."""
    monkeypatch.setattr(pen, "HOLD_SECONDS", 0.01)
    writing, transcript = await begun(log)
    said = pieces(transcript)
    await writing.write(next(said))
    async for segments in log.follow("default", ID, after=1):
        assert segments[-1].last == 2
        break
    for entries in said:
        await writing.write(entries)
    await writing.close()

    assert (await log.store.get("default", ID)).closed


async def test_what_is_held_is_committed_on_demand(log, monkeypatch):
    monkeypatch.setattr(pen, "HOLD_SECONDS", 60.0)
    writing, transcript = await begun(log)
    await writing.write(next(pieces(transcript)))
    assert await kept(log) == [0]
    await writing.flush()
    await writing.close()

    assert await kept(log) == [0, 2]


async def test_who_is_stopped_while_the_timer_commits_can_still_flush(log, monkeypatch):
    """A response that takes too long is ended behind all that it has said."""
    monkeypatch.setattr(pen, "HOLD_SECONDS", 0.0)
    writing, transcript = await begun(log)
    said = pieces(transcript)
    log.store.may.clear()
    await writing.write(next(said))
    await log.store.asked.wait()
    stopped = asyncio.create_task(writing.write(next(said)))
    await asyncio.sleep(0)  # it waits for the commit
    stopped.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopped
    log.store.may.set()
    await writing.flush()
    await writing.close()

    assert await kept(log) == [0, 2, 3]


async def test_no_more_than_a_few_pieces_are_held(log, monkeypatch):
    monkeypatch.setattr(pen, "HOLD_SECONDS", 60.0)
    monkeypatch.setattr(pen, "HELD_MAX", 1)
    writing, transcript = await begun(log)
    said = pieces(transcript)
    await writing.write(next(said))
    assert await kept(log) == [0]
    await writing.write(next(said))
    await writing.close()

    assert await kept(log) == [0, 2]
    assert writing.said_bytes > 0

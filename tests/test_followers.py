"""Followers of one log on two nodes: they see every event once and in order, and ask the store together.

One node writes, the other hears of it by its bell alone. The store answers after a while, as one across a network does.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.errors import NotFound, StoreError
from antiphon.store.base import Claim, Ending, NewResponse, Page, Segment
from antiphon.store.bell import LocalBell
from antiphon.store.follow import Reads, Tail, follow
from antiphon.store.sqlite import SqliteStore


class FarStore(SqliteStore):
    """A store in memory that takes some turns of the event loop for a read, before it looks and after it."""

    def __init__(self, *, turns: int) -> None:
        super().__init__(None)
        self.reads = 0
        self.fault: StoreError | None = None
        self._turns = turns

    async def read(self, tenant: str, response_id: str, *, after: int, limit_bytes: int = 1 << 20) -> Page:
        self.reads += 1
        await passing(self._turns)
        if self.fault is not None:
            raise self.fault
        page = await super().read(tenant, response_id, after=after, limit_bytes=limit_bytes)
        await passing(self._turns)
        return page


class Node:
    """One process: its tail, its bell, and those who follow there."""

    def __init__(self, store: SqliteStore, *, tail_bytes: int = 1 << 20) -> None:
        self.tail = Tail(bytes_max=tail_bytes)
        self.bell = LocalBell(3600)
        self._reads = Reads(store)

    def follow(self, *, after: int = -1) -> AsyncIterator[tuple[Segment, ...]]:
        return follow(self._reads, self.tail, self.bell, "alice", "resp_1", after=after)

    def poll(self) -> None:
        self.bell._ring_all()


class Follower:
    """Sees a log from a number on, and takes some turns of the event loop for each page."""

    def __init__(self, node: Node, *, after: int = -1, turns: int = 0) -> None:
        self.after = after
        self.seen: list[int] = []
        self.polls = 0
        self.task = asyncio.create_task(self._follow(node.follow(after=after), turns))

    @property
    def behind(self) -> list[int]:
        """What it has seen, without what the first segment holds before its place."""
        return [number for number in self.seen if number > self.after]

    async def _follow(self, pages: AsyncIterator[tuple[Segment, ...]], turns: int) -> None:
        async for segments in pages:
            self.polls += not segments
            self.seen += [number for each in segments for number in range(each.first, each.last + 1)]
            await passing(turns)


class Writing:
    """The one log, and who writes it."""

    def __init__(self, store: SqliteStore, claim: Claim, node: Node) -> None:
        self.last = 0
        self._store, self._claim, self._node = store, claim, node

    async def append(self, *, heard_by: Sequence[Node] = (), count: int = 1, closing: bool = False) -> None:
        new = segment(self.last + 1, count)
        ending = Ending("completed", b"{}") if closing else None
        await self._store.append(self._claim, [new], ending=ending)
        self.last = new.last
        self._node.tail.extend("alice", "resp_1", [new], closed=closing)
        for node in heard_by:
            node.bell.ring("resp_1")


def segment(first: int, count: int = 1) -> Segment:
    return Segment(first, count, b"".join(b'event: e\ndata: {"n":%d}\n\n' % (first + each) for each in range(count)))


async def passing(turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


async def begun(store: SqliteStore, node: Node) -> Writing:
    await store.open()
    new = NewResponse("resp_1", "m", 1, background=False, request=b"{}", items=[], segment=segment(0))
    claim = await store.create("alice", new, lease_seconds=10)
    assert claim is not None
    node.tail.extend("alice", "resp_1", [new.segment], closed=False)
    return Writing(store, claim, node)


STEP = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 3)),
    st.tuples(st.just("append unheard"), st.integers(1, 3)),
    st.tuples(st.just("ring for nothing"), st.sampled_from([0, 1])),
    st.tuples(st.just("poll"), st.sampled_from([0, 1])),
    st.tuples(st.just("join"), st.tuples(st.sampled_from([0, 1]), st.integers(-1, 12), st.integers(0, 3))),
    st.tuples(st.just("leave"), st.integers(0, 5)),
    st.tuples(st.just("run"), st.integers(1, 6)),
)
SPEED = st.integers(0, 3)
TAIL_BYTES = st.sampled_from([0, 100, 1 << 20])


async def follow_through(steps: Sequence[tuple[str, Any]], turns: int, tail_bytes: int, *, polled: bool) -> None:
    """Carry out the steps, then close the log; everybody sees all that is behind where he began.

    polled: rings may be lost, as every node polls once at the end. Else everybody is up to date without that.
    """
    store = FarStore(turns=turns)
    nodes = [Node(store, tail_bytes=tail_bytes) for _ in range(2)]
    writing = await begun(store, nodes[0])
    followers: list[Follower] = []
    for act, how in steps:
        if act == "append" or (act == "append unheard" and not polled):
            await writing.append(heard_by=nodes, count=how)
        elif act == "append unheard":
            await writing.append(count=how)
        elif act == "ring for nothing":
            nodes[how].bell.ring("resp_1")
        elif act == "poll" and polled:
            nodes[how].poll()
        elif act == "join":
            node, after, pace = how
            followers.append(Follower(nodes[node], after=after, turns=pace))
        elif act == "leave" and followers:
            left = followers.pop(how % len(followers))
            left.task.cancel()
            await asyncio.wait([left.task])
            assert left.behind == list(range(left.after + 1, left.after + 1 + len(left.behind)))
        elif act == "run":
            await passing(how)
    if not polled:
        await passing(60)
        assert all(follower.seen[-1:] == [writing.last] for follower in followers if follower.after < writing.last)
    await writing.append(heard_by=() if polled else nodes, closing=True)
    await passing(30)
    if polled:
        for node in nodes:
            node.poll()

    async with asyncio.timeout(10):
        await asyncio.gather(*(follower.task for follower in followers))
    for follower in followers:
        assert follower.behind == list(range(follower.after + 1, writing.last + 1))
    for node in nodes:
        node.bell.close()
    await store.close()


@given(st.lists(STEP, max_size=25), SPEED, TAIL_BYTES)
def test_everybody_sees_every_event_once_and_in_order_whatever_rings_are_lost(
    steps: list[tuple[str, Any]], turns: int, tail_bytes: int
) -> None:
    asyncio.run(follow_through(steps, turns, tail_bytes, polled=True))


@given(st.lists(STEP, max_size=25), SPEED, TAIL_BYTES)
def test_while_no_ring_is_lost_nobody_needs_a_poll(steps: list[tuple[str, Any]], turns: int, tail_bytes: int) -> None:
    asyncio.run(follow_through(steps, turns, tail_bytes, polled=False))


@pytest.fixture
async def store() -> AsyncIterator[FarStore]:
    store = FarStore(turns=2)
    yield store
    await store.close()


async def test_the_followers_on_another_node_ask_the_store_once_for_each_ring(store: FarStore) -> None:
    here, there = Node(store), Node(store)
    writing = await begun(store, here)
    followers = [Follower(there, turns=number % 2) for number in range(100)]
    await passing(20)
    assert store.reads == 1

    for _ in range(10):
        await writing.append(heard_by=[there])
        await passing(20)
    await writing.append(heard_by=[there], closing=True)
    await asyncio.gather(*(follower.task for follower in followers))

    assert store.reads == 12
    assert all(follower.seen == list(range(12)) for follower in followers)


async def test_an_answer_from_before_a_ring_is_not_taken_after_it() -> None:
    store = FarStore(turns=20)
    here, there = Node(store), Node(store)
    writing = await begun(store, here)
    quick, slow = Follower(there), Follower(there, turns=50)
    await passing(60)  # both have seen the beginning, and one of them has still to do with it

    await writing.append(heard_by=[there])
    await passing(25)  # the quick one has asked, the store has looked and has not answered yet
    await writing.append(heard_by=[there])
    await passing(200)

    assert quick.seen == slow.seen == [0, 1, 2]
    for follower in (quick, slow):
        follower.task.cancel()
    await asyncio.wait([quick.task, slow.task])
    await store.close()


async def test_a_poll_is_one_question_for_all_followers_of_a_response(store: FarStore) -> None:
    node = Node(store)
    await begun(store, node)
    followers = [Follower(node) for _ in range(100)]
    await passing(20)
    before = store.reads

    node.poll()
    await passing(20)

    assert store.reads == before + 1
    assert [follower.polls for follower in followers] == [1] * 100
    for follower in followers:
        follower.task.cancel()


async def test_the_first_events_of_a_long_log_do_not_wait_for_the_rest(store: FarStore) -> None:
    here, there = Node(store), Node(store)
    writing = await begun(store, here)
    for number in range(40):
        await writing.append(count=1000, closing=number == 39)

    sizes = [sum(len(each.frames) for each in segments) async for segments in there.follow()]

    assert sum(sizes) > 1_000_000
    assert max(sizes) < 300_000


async def test_who_asked_may_go_and_the_others_get_the_answer(store: FarStore) -> None:
    here, there = Node(store), Node(store)
    writing = await begun(store, here)
    first, *others = (Follower(there) for _ in range(3))
    await passing(20)
    await writing.append(heard_by=[there], closing=True)
    await passing(2)
    assert store.reads == 2  # and it is under way

    first.task.cancel()
    await asyncio.gather(*(other.task for other in others))

    assert store.reads == 2
    assert [other.seen for other in others] == [[0, 1], [0, 1]]


async def test_an_answer_from_before_a_ring_that_nobody_heard_is_not_taken_after_it() -> None:
    store = FarStore(turns=20)
    here, there = Node(store), Node(store)
    writing = await begun(store, here)
    gone = Follower(there)
    await passing(30)  # the store has looked and has not answered yet
    gone.task.cancel()
    await asyncio.wait([gone.task])
    await writing.append(heard_by=[there])

    follower = Follower(there)
    await passing(100)

    assert follower.seen == [0, 1]
    follower.task.cancel()
    await asyncio.wait([follower.task])
    await store.close()


async def test_the_error_of_a_read_that_everybody_has_left_is_nobodys(store: FarStore) -> None:
    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context["message"]))
    here, there = Node(store), Node(store)
    await begun(store, here)
    store.fault = StoreError("The database is away.")
    follower = Follower(there)
    await passing(2)
    assert store.reads == 1  # and it is under way

    follower.task.cancel()
    await asyncio.wait([follower.task])
    await passing(20)
    gc.collect()

    assert not complaints


async def test_an_error_holds_nobody_who_has_heard_of_it(store: FarStore) -> None:
    """A cycle would keep all that they have in hand, until the collector comes."""
    await store.open()
    reads, hands = Reads(store), weakref.WeakSet[Node]()

    async def hears() -> None:
        in_hand = Node(store)
        hands.add(in_hand)
        with contextlib.suppress(NotFound):
            await reads.read("alice", "resp_1", after=-1, heard=0)

    gc.disable()
    try:
        await asyncio.gather(*(asyncio.create_task(hears()) for _ in range(3)))
        await passing(2)
        assert not hands
    finally:
        gc.enable()


async def test_a_store_that_fails_for_a_while_is_asked_again_at_the_next_poll(store: FarStore) -> None:
    here, there = Node(store), Node(store)
    writing = await begun(store, here)
    followers = [Follower(there) for _ in range(3)]
    await passing(20)
    store.fault = StoreError("The database is away.")
    await writing.append(heard_by=[there], closing=True)
    await passing(20)

    store.fault = None
    there.poll()
    await asyncio.gather(*(follower.task for follower in followers))

    assert [follower.seen for follower in followers] == [[0, 1]] * 3


async def test_all_of_them_hear_that_a_response_is_deleted(store: FarStore) -> None:
    here, there = Node(store), Node(store)
    await begun(store, here)
    followers = [Follower(there) for _ in range(3)]
    await passing(20)

    await store.delete("alice", "resp_1")
    there.bell.ring("resp_1")
    outcomes = await asyncio.gather(*(follower.task for follower in followers), return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [NotFound] * 3

"""What every store promises. A test module makes a subclass, named Test..., with a fixture `store` that is open."""

from __future__ import annotations

import asyncio
import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from antiphon.errors import BadRequest, Conflict, LeaseLost, NotFound
from antiphon.store.base import (
    Claim,
    Ending,
    Idempotency,
    Item,
    NewConversation,
    NewResponse,
    Note,
    Page,
    Segment,
    Store,
)

_unused = itertools.count()


def segment(first: int, count: int = 1, *, text: str = "", mask: int = 0) -> Segment:
    frames = b"".join(b"event: e\ndata: %d %s\n\n" % (number, text.encode()) for number in range(first, first + count))
    return Segment(first, count, frames, mask)


def new(id: str, *, items: Sequence[Item] = (), background: bool = False, **fields: Any) -> NewResponse:
    created = segment(0, 2 if background else 1)
    values = {"model": "m", "created_at": 1000, "request": b'{"model":"m"}', "segment": created, **fields}
    return NewResponse(id=id, background=background, items=items, **values)


def item(id: str, text: str = "") -> Item:
    return Item(id, b'{"id":"%s","text":"%s"}' % (id.encode(), text.encode()))


def ending(*items: Item, status: str = "completed") -> Ending:
    return Ending(status, b'{"status":"%s"}' % status.encode(), items)


async def running(store: Store, id: str = "resp_1", *, tenant: str = "alice", **fields: Any) -> Claim:
    claim = await store.create(tenant, new(id, **fields), lease_seconds=60)
    assert claim is not None
    return claim


async def turn(store: Store, id: str, *, previous: str | None = None, tenant: str = "alice") -> None:
    """A finished response that was given one item and said one."""
    claim = await running(store, id, tenant=tenant, previous=previous, items=[item(f"in_{id}")])
    await store.append(claim, [segment(1)], ending=ending(item(f"out_{id}")))


async def ids(store: Store, id: str, *, output: bool = False) -> list[str]:
    return [item.id for item in await store.context("alice", id, output=output)]


async def numbers(store: Store, id: str = "resp_1") -> list[int]:
    page = await store.read("alice", id, after=-1, limit_bytes=1 << 30)
    return [number for segment in page.segments for number in range(segment.first, segment.last + 1)]


class Writing:
    """Creating and appending."""

    async def test_a_created_response_has_its_row_and_its_first_events(self, store: Store) -> None:
        made = new("resp_1", background=True, metadata=b'{"k":"v"}', created_at=1234, request=b'{"a":1}')

        assert await store.create("alice", made) is None

        stored = await store.get("alice", "resp_1")
        assert (stored.id, stored.tenant, stored.model, stored.created_at) == ("resp_1", "alice", "m", 1234)
        assert (stored.request, stored.metadata, stored.response) == (b'{"a":1}', b'{"k":"v"}', None)
        assert (stored.background, stored.closed, stored.attempt, stored.previous) == (True, False, 0, None)
        page = await store.read("alice", "resp_1", after=-1)
        assert page.segments == (segment(0, 2),)
        assert not page.closed

    async def test_a_create_can_claim_at_once(self, store: Store) -> None:
        claim = await store.create("alice", new("resp_1"), lease_seconds=60)

        assert claim is not None
        assert (claim.tenant, claim.response_id, claim.attempt, claim.tries) == ("alice", "resp_1", 1, 1)
        assert (await store.get("alice", "resp_1")).attempt == 1

    async def test_an_id_is_given_once(self, store: Store) -> None:
        await running(store)

        with pytest.raises(Conflict):
            await store.create("alice", new("resp_1", items=[item("i1")]))

        assert await ids(store, "resp_1") == []

    async def test_an_unknown_previous_response_is_refused_in_the_words_of_the_api(self, store: Store) -> None:
        with pytest.raises(BadRequest) as refusal:
            await store.create("alice", new("resp_1", previous="resp_0"))

        assert refusal.value.message == "Previous response with id 'resp_0' not found."
        assert refusal.value.code == "previous_response_not_found"
        assert refusal.value.param == "previous_response_id"
        with pytest.raises(NotFound):
            await store.get("alice", "resp_1")

    async def test_what_was_appended_is_read_as_it_was(self, store: Store) -> None:
        claim = await running(store)

        await store.append(claim, [segment(1, 3, mask=5), segment(4)])
        await store.append(claim, [segment(5, 2)])

        page = await store.read("alice", "resp_1", after=-1)
        assert page.segments == (segment(0), segment(1, 3, mask=5), segment(4), segment(5, 2))

    async def test_the_first_append_makes_a_queued_response_in_progress(self, store: Store) -> None:
        await store.create("alice", new("resp_1", background=True))
        queued = await store.get("alice", "resp_1")
        (claim,) = await store.claim(limit=1, lease_seconds=60)

        await store.append(claim, [segment(2)])

        assert queued.status == "queued"
        assert (await store.get("alice", "resp_1")).status == "in_progress"

    async def test_a_foreground_response_is_in_progress_from_the_start(self, store: Store) -> None:
        await running(store)

        assert (await store.get("alice", "resp_1")).status == "in_progress"

    async def test_an_ending_closes_the_log_together_with_its_last_events(self, store: Store) -> None:
        claim = await running(store, items=[item("i1")])

        await store.append(claim, [segment(1)], notes=[Note(1, "done")], ending=ending(item("o1"), status="incomplete"))

        stored = await store.get("alice", "resp_1")
        assert (stored.closed, stored.status, stored.response) == (True, "incomplete", b'{"status":"incomplete"}')
        assert (await store.read("alice", "resp_1", after=-1)).closed
        assert await numbers(store) == [0, 1]
        assert await store.notes("alice", "resp_1") == [Note(1, "done")]
        assert await ids(store, "resp_1", output=True) == ["i1", "o1"]

    async def test_a_closed_log_takes_nothing_more(self, store: Store) -> None:
        claim = await running(store)
        await store.append(claim, [segment(1)], ending=ending())

        with pytest.raises(LeaseLost):
            await store.append(claim, [segment(2)], notes=[Note(2, "late")])
        with pytest.raises(LeaseLost):
            await store.append(claim, [], ending=ending(item("o1")))

        assert await numbers(store) == [0, 1]
        assert await store.notes("alice", "resp_1") == []
        assert await ids(store, "resp_1", output=True) == []

    async def test_a_log_can_be_closed_without_a_further_event(self, store: Store) -> None:
        claim = await running(store)

        await store.append(claim, [], ending=ending())

        assert (await store.read("alice", "resp_1", after=-1)).closed

    async def test_notes_are_kept_in_the_order_of_their_writing(self, store: Store) -> None:
        claim = await running(store)

        await store.append(claim, [segment(1)], notes=[Note(0, "turn", b'{"n":1}'), Note(1, "usage")])
        await store.append(claim, [], notes=[Note(1, "turn")])

        assert await store.notes("alice", "resp_1") == [Note(0, "turn", b'{"n":1}'), Note(1, "usage"), Note(1, "turn")]

    async def test_many_logs_grow_side_by_side(self, store: Store) -> None:
        claims = [await running(store, f"resp_{number}") for number in range(40)]

        for first in range(1, 6):
            await asyncio.gather(*(store.append(claim, [segment(first)]) for claim in claims))

        for claim in claims:
            assert await numbers(store, claim.response_id) == [0, 1, 2, 3, 4, 5]


class Fencing:
    """One writer at a time."""

    async def test_a_stale_worker_cannot_append(self, store: Store) -> None:
        stale = await running(store)
        await store.seize("alice", "resp_1", lease_seconds=60)

        for attempt in (
            store.append(stale, [segment(1)]),
            store.append(stale, [], notes=[Note(0, "late")]),
            store.append(stale, [segment(1)], notes=[Note(0, "late")], ending=ending(item("o1"))),
            store.append(stale, [], ending=ending()),
        ):
            with pytest.raises(LeaseLost):
                await attempt

        assert await numbers(store) == [0]
        assert await store.notes("alice", "resp_1") == []
        assert not (await store.get("alice", "resp_1")).closed

    async def test_a_number_is_written_once(self, store: Store) -> None:
        claim = await running(store)
        await store.append(claim, [segment(1, 2)])

        with pytest.raises(LeaseLost):
            await store.append(claim, [segment(1, 2, text="other")])

        assert (await store.read("alice", "resp_1", after=0)).segments == (segment(1, 2),)

    async def test_an_append_that_meets_a_written_number_leaves_nothing_behind(self, store: Store) -> None:
        claim = await running(store)
        await store.append(claim, [segment(2)])

        with pytest.raises(LeaseLost):
            await store.append(claim, [segment(1), segment(2)], notes=[Note(1, "late")], ending=ending())

        assert await numbers(store) == [0, 2]
        assert await store.notes("alice", "resp_1") == []

    async def test_a_refused_append_does_not_disturb_the_others(self, store: Store) -> None:
        claims = [await running(store, f"resp_{number}") for number in range(20)]
        await store.seize("alice", "resp_7", lease_seconds=60)

        results = await asyncio.gather(*(store.append(claim, [segment(1)]) for claim in claims), return_exceptions=True)

        assert [type(result) for result in results] == [type(None)] * 7 + [LeaseLost] + [type(None)] * 12
        for number in range(20):
            assert await numbers(store, f"resp_{number}") == ([0] if number == 7 else [0, 1])

    async def test_either_the_seizure_or_the_append_comes_first(self, store: Store) -> None:
        for round in range(20):
            id = f"resp_{round}"
            worker = await running(store, id)
            append = store.append(worker, [segment(1)], ending=ending())
            seize = store.seize("alice", id, lease_seconds=60)

            racers = (append, seize) if round % 2 else (seize, append)
            results = await asyncio.gather(*racers, return_exceptions=True)

            appended, seized = results if round % 2 else reversed(results)
            if isinstance(appended, LeaseLost):
                assert isinstance(seized, Claim)
                await store.append(seized, [segment(1)], ending=ending(status="cancelled"))
                assert (await store.get("alice", id)).status == "cancelled"
            else:
                assert seized is None
                assert (await store.get("alice", id)).status == "completed"
            assert await numbers(store, id) == [0, 1]

    async def test_an_append_to_a_deleted_response_is_refused(self, store: Store) -> None:
        claim = await running(store)
        await store.delete("alice", "resp_1")

        with pytest.raises(LeaseLost):
            await store.append(claim, [segment(1)])

    async def test_a_seizure_of_a_closed_log_gives_nothing(self, store: Store) -> None:
        await turn(store, "resp_1")

        assert await store.seize("alice", "resp_1", lease_seconds=60) is None

    async def test_a_seizure_does_not_count_as_a_try(self, store: Store) -> None:
        await running(store)

        seized = await store.seize("alice", "resp_1", lease_seconds=60)

        assert seized is not None
        assert (seized.attempt, seized.tries) == (2, 1)


class Claiming:
    """Who works on what."""

    async def test_background_responses_are_claimed_oldest_first(self, store: Store) -> None:
        for id, created_at in (("b", 20), ("a", 10), ("d", 30), ("c", 20)):
            await store.create("alice", new(id, background=True, created_at=created_at))

        first = await store.claim(limit=2, lease_seconds=60)
        rest = await store.claim(limit=9, lease_seconds=60)

        assert [claim.response_id for claim in first] == ["a", "b"]
        assert [claim.response_id for claim in rest] == ["c", "d"]
        assert all(claim.background and claim.attempt == 1 and claim.tries == 1 for claim in first + rest)

    async def test_tenants_take_turns(self, store: Store) -> None:
        """However few are claimed at once: a worker that takes one at a time asks anew for each."""
        for number in range(20):
            await store.create("alice", new(f"a{number:02}", background=True, created_at=number))
        for number in range(3):
            await store.create("bob", new(f"b{number}", background=True, created_at=1000 + number))
        await store.create("carol", new("c0", background=True, created_at=2000))

        together = await store.claim(limit=4, lease_seconds=60)
        singly = [claim for _ in range(6) for claim in await store.claim(limit=1, lease_seconds=60)]
        late = await store.create("carol", new("c1", background=True, created_at=3000))
        then = await store.claim(limit=2, lease_seconds=60)

        assert {claim.response_id for claim in together} == {"a00", "b0", "c0", "a01"}
        assert [claim.response_id for claim in singly] == ["b1", "a02", "b2", "a03", "a04", "a05"]
        assert late is None
        assert {claim.response_id for claim in then} == {"c1", "a06"}

    async def test_two_workers_never_claim_the_same(self, store: Store) -> None:
        for number in range(20):
            await store.create("alice", new(f"resp_{number}", background=True))

        taken = await asyncio.gather(*(store.claim(limit=3, lease_seconds=60) for _ in range(10)))

        responses = [claim.response_id for claims in taken for claim in claims]
        assert len(responses) == len(set(responses)) == 20

    async def test_what_is_held_is_not_claimed(self, store: Store) -> None:
        await store.create("alice", new("resp_1", background=True), lease_seconds=60)

        assert await store.claim(limit=9, lease_seconds=60) == []

    async def test_a_lease_that_ran_out_is_claimed_by_another(self, store: Store) -> None:
        await store.create("alice", new("resp_1", background=True), lease_seconds=0)

        (second,) = await store.claim(limit=9, lease_seconds=0)
        (third,) = await store.claim(limit=9, lease_seconds=60)

        assert (second.attempt, second.tries) == (2, 2)
        assert (third.attempt, third.tries) == (3, 3)
        with pytest.raises(LeaseLost):
            await store.append(second, [segment(2)])
        await store.append(third, [segment(2)])

    async def test_a_foreground_response_comes_only_when_its_lease_has_run_out(self, store: Store) -> None:
        await store.create("alice", new("resp_1"))
        await store.create("alice", new("resp_2"), lease_seconds=60)
        await store.create("alice", new("resp_3"), lease_seconds=0)

        claims = await store.claim(limit=9, lease_seconds=60)

        assert [(claim.response_id, claim.background) for claim in claims] == [("resp_3", False)]

    async def test_a_closed_response_is_not_claimed(self, store: Store) -> None:
        claim = await store.create("alice", new("resp_1", background=True), lease_seconds=0)
        assert claim is not None
        await store.append(claim, [], ending=ending())

        assert await store.claim(limit=9, lease_seconds=60) == []

    async def test_a_released_response_is_claimable_at_once_and_the_try_does_not_count(self, store: Store) -> None:
        held = await running(store, background=True)

        await store.release(held)

        (claim,) = await store.claim(limit=9, lease_seconds=60)
        assert claim.tries == 1
        assert claim.attempt > held.attempt

    async def test_a_released_claim_is_lost_at_once(self, store: Store) -> None:
        held = await running(store)
        await store.release(held)

        with pytest.raises(LeaseLost):
            await store.append(held, [segment(1)])

    async def test_releasing_a_lost_claim_does_nothing(self, store: Store) -> None:
        stale = await running(store)
        holder = await store.seize("alice", "resp_1", lease_seconds=60)
        assert holder is not None

        await store.release(stale)

        assert await store.claim(limit=9, lease_seconds=60) == []
        await store.append(holder, [segment(1)])

    async def test_a_renewed_lease_holds(self, store: Store) -> None:
        claim = await store.create("alice", new("resp_1", background=True), lease_seconds=0)
        assert claim is not None

        renewal = await store.renew([claim], lease_seconds=60, grace_seconds=60)

        assert (renewal.lost, renewal.unfollowed) == (frozenset(), frozenset())
        assert await store.claim(limit=9, lease_seconds=60) == []

    async def test_a_renewal_says_what_was_lost(self, store: Store) -> None:
        seized, closed, deleted, kept = [await running(store, id) for id in ("seized", "closed", "deleted", "kept")]
        await store.seize("alice", "seized", lease_seconds=60)
        await store.append(closed, [], ending=ending())
        await store.delete("alice", "deleted")

        renewal = await store.renew([seized, closed, deleted, kept], lease_seconds=60, grace_seconds=60)

        assert renewal.lost == {"seized", "closed", "deleted"}

    async def test_a_renewal_says_which_foreground_responses_nobody_follows(self, store: Store) -> None:
        claims = [await running(store, id) for id in ("followed", "unfollowed")]
        claims.append(await running(store, "background", background=True))
        await store.mark_followed("alice", "followed", seconds=60)

        # A negative grace asks as if time had passed.
        renewal = await store.renew(claims, lease_seconds=60, grace_seconds=-30)

        assert renewal.unfollowed == {"unfollowed"}
        assert renewal.lost == frozenset()

    async def test_the_grace_starts_with_the_create(self, store: Store) -> None:
        claim = await running(store)

        renewal = await store.renew([claim], lease_seconds=60, grace_seconds=30)

        assert renewal.unfollowed == frozenset()

    async def test_a_shorter_follow_does_not_end_a_longer_one(self, store: Store) -> None:
        await running(store)
        await store.mark_followed("alice", "resp_1", seconds=100)
        before = (await store.get("alice", "resp_1")).followed_until

        await store.mark_followed("alice", "resp_1", seconds=1)

        assert (await store.get("alice", "resp_1")).followed_until == before


class Reading:
    """Pages of a log."""

    async def test_a_page_begins_with_the_segment_that_holds_the_next_number(self, store: Store) -> None:
        claim = await running(store)
        await store.append(claim, [segment(1, 3), segment(4, 3), segment(7)])

        firsts = {}
        for after in range(-1, 9):
            page = await store.read("alice", "resp_1", after=after)
            firsts[after] = [segment.first for segment in page.segments]

        assert firsts == {
            -1: [0, 1, 4, 7], 0: [1, 4, 7], 1: [1, 4, 7], 2: [1, 4, 7], 3: [4, 7],
            4: [4, 7], 5: [4, 7], 6: [7], 7: [], 8: [],
        }  # fmt: skip

    async def test_a_long_log_comes_in_pages(self, store: Store) -> None:
        claim = await running(store)
        await store.append(claim, [segment(first, text="x" * 100) for first in range(1, 50)], ending=ending())

        after = -1
        pages: list[Page] = []
        while not pages or not pages[-1].closed:
            pages.append(await store.read("alice", "resp_1", after=after, limit_bytes=1000))
            after = pages[-1].segments[-1].last

        assert 4 < len(pages) < 20
        assert [segment.first for page in pages for segment in page.segments] == list(range(50))
        assert [page.more for page in pages] == [True] * (len(pages) - 1) + [False]

    async def test_a_page_holds_a_segment_even_if_it_is_larger_than_the_limit(self, store: Store) -> None:
        claim = await running(store)
        await store.append(claim, [segment(1, text="x" * 5000), segment(2)], ending=ending())

        page = await store.read("alice", "resp_1", after=0, limit_bytes=10)

        assert [segment.first for segment in page.segments] == [1]
        assert not page.closed

    async def test_a_page_is_closed_only_with_the_last_segment(self, store: Store) -> None:
        claim = await running(store)
        before = await store.read("alice", "resp_1", after=-1)
        await store.append(claim, [segment(1)], ending=ending())

        assert not before.closed
        assert not before.more
        assert (await store.read("alice", "resp_1", after=0)).closed
        assert (await store.read("alice", "resp_1", after=1)).closed
        assert (await store.read("alice", "resp_1", after=99)) == (await store.read("alice", "resp_1", after=1))

    async def test_a_large_page_can_be_read_at_once(self, store: Store) -> None:
        claim = await running(store)
        await store.append(claim, [segment(first, text="x" * 300_000) for first in range(1, 11)], ending=ending())

        page = await store.read("alice", "resp_1", after=-1, limit_bytes=100 << 20)

        assert len(page.segments) == 11
        assert page.closed

    # The store is shared by the examples: each uses an id of its own.
    @settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
    @given(counts=st.lists(st.integers(1, 5), max_size=12), after=st.integers(-1, 40), limit=st.integers(1, 400))
    async def test_reading_gives_what_was_appended(
        self, store: Store, counts: list[int], after: int, limit: int
    ) -> None:
        id = f"resp_{next(_unused)}"
        claim = await running(store, id)
        written = [segment(0)]
        for count in counts:
            written.append(segment(written[-1].last + 1, count))
            await store.append(claim, [written[-1]])
        await store.append(claim, [], ending=ending())

        read: list[Segment] = []
        closed, seen = False, after
        while not closed:
            page = await store.read("alice", id, after=seen, limit_bytes=limit)
            read += page.segments
            closed, seen = page.closed, read[-1].last if read else seen

        assert read == [segment for segment in written if segment.last > after]


class Context:
    """What a response is given to see."""

    async def test_the_context_is_what_the_ancestors_were_given_and_said(self, store: Store) -> None:
        await turn(store, "a")
        await turn(store, "b", previous="a")
        await turn(store, "c", previous="b")

        assert await ids(store, "c") == ["in_a", "out_a", "in_b", "out_b", "in_c"]
        assert await ids(store, "c", output=True) == ["in_a", "out_a", "in_b", "out_b", "in_c", "out_c"]
        assert (await store.get("alice", "c")).previous == "b"

    async def test_several_items_keep_their_order(self, store: Store) -> None:
        claim = await running(store, "a", items=[item("z"), item("y"), item("x")])
        await store.append(claim, [], ending=ending(item("q"), item("p")))
        await store.create("alice", new("b", previous="a", items=[item("c"), item("b")]))

        assert await ids(store, "b") == ["z", "y", "x", "q", "p", "c", "b"]

    async def test_a_fork_sees_only_its_own_ancestors(self, store: Store) -> None:
        await turn(store, "root")
        await turn(store, "left", previous="root")
        await turn(store, "right", previous="root")

        assert await ids(store, "left") == ["in_root", "out_root", "in_left"]
        assert await ids(store, "right") == ["in_root", "out_root", "in_right"]

    async def test_an_item_that_is_sent_again_is_the_same_item(self, store: Store) -> None:
        await turn(store, "a")
        again = [item("in_a"), item("out_a"), item("new")]
        await store.create("alice", new("b", previous="a", items=again))

        assert await ids(store, "b") == ["in_a", "out_a", "new"]

    async def test_an_id_with_another_body_is_another_item(self, store: Store) -> None:
        await turn(store, "a")
        await store.create("alice", new("b", previous="a", items=[item("in_a", "changed")]))

        assert await store.context("alice", "b") == [item("in_a"), item("out_a"), item("in_a", "changed")]

    async def test_an_item_given_twice_in_one_input_comes_once(self, store: Store) -> None:
        await store.create("alice", new("a", items=[item("x"), item("y"), item("x")]))

        assert await ids(store, "a") == ["x", "y"]

    async def test_a_response_without_items_has_an_empty_context(self, store: Store) -> None:
        await running(store)

        assert await store.context("alice", "resp_1") == []

    async def test_a_chain_may_be_a_thousand_turns_long(self, store: Store) -> None:
        previous = None
        for number in range(1000):
            await store.create("alice", new(f"resp_{number}", previous=previous, items=[item(f"i{number}")]))
            previous = f"resp_{number}"

        assert await ids(store, "resp_999") == [f"i{number}" for number in range(1000)]


class Deleting:
    """Erasing."""

    async def test_a_deleted_response_is_unknown(self, store: Store) -> None:
        await turn(store, "a")

        await store.delete("alice", "a")

        for question in (
            store.get("alice", "a"),
            store.read("alice", "a", after=-1),
            store.notes("alice", "a"),
            store.context("alice", "a"),
            store.delete("alice", "a"),
        ):
            with pytest.raises(NotFound, match=r"Response with id 'a' not found\."):
                await question

    async def test_descendants_continue_what_the_deleted_response_continued(self, store: Store) -> None:
        await turn(store, "a")
        await turn(store, "b", previous="a")
        await turn(store, "c", previous="b")
        await turn(store, "d", previous="b")

        await store.delete("alice", "b")

        assert await ids(store, "c") == ["in_a", "out_a", "in_c"]
        assert await ids(store, "d") == ["in_a", "out_a", "in_d"]
        assert (await store.get("alice", "c")).previous == "a"
        await turn(store, "e", previous="c")
        assert await ids(store, "e") == ["in_a", "out_a", "in_c", "out_c", "in_e"]

    async def test_the_descendants_of_a_deleted_first_response_begin_the_chain(self, store: Store) -> None:
        await turn(store, "a")
        await turn(store, "b", previous="a")

        await store.delete("alice", "a")

        assert await ids(store, "b") == ["in_b"]
        assert (await store.get("alice", "b")).previous is None
        with pytest.raises(BadRequest):
            await store.create("alice", new("c", previous="a"))

    async def test_an_item_that_another_response_refers_to_stays(self, store: Store) -> None:
        await turn(store, "a")
        await store.create("alice", new("b", items=[item("in_a"), item("out_a"), item("own")]))

        await store.delete("alice", "a")

        assert await ids(store, "b") == ["in_a", "out_a", "own"]

    async def test_a_running_response_can_be_deleted(self, store: Store) -> None:
        claim = await running(store)
        await store.append(claim, [segment(1)], notes=[Note(1, "turn")])

        await store.delete("alice", "resp_1")

        assert (await store.renew([claim], lease_seconds=60, grace_seconds=60)).lost == {"resp_1"}
        assert await store.claim(limit=9, lease_seconds=60) == []

    async def test_a_deleted_id_can_be_used_again_and_nothing_of_the_old_log_is_there(self, store: Store) -> None:
        claim = await running(store)
        await store.append(claim, [segment(1)], notes=[Note(1, "turn")], ending=ending(item("o1")))
        await store.delete("alice", "resp_1")

        await running(store)

        assert await numbers(store) == [0]
        assert await store.notes("alice", "resp_1") == []
        assert await ids(store, "resp_1", output=True) == []


OF_A_TENANT: dict[str, Callable[[Store, str], Any]] = {
    "seize": lambda store, tenant: store.seize(tenant, "resp_1", lease_seconds=60),
    "get": lambda store, tenant: store.get(tenant, "resp_1"),
    "read": lambda store, tenant: store.read(tenant, "resp_1", after=-1),
    "notes": lambda store, tenant: store.notes(tenant, "resp_1"),
    "context": lambda store, tenant: store.context(tenant, "resp_1"),
    "delete": lambda store, tenant: store.delete(tenant, "resp_1"),
    "mark_followed": lambda store, tenant: store.mark_followed(tenant, "resp_1", seconds=60),
    "create": lambda store, tenant: store.create(tenant, new("resp_2", previous="resp_1")),
    "check_key": lambda store, tenant: store.check_key(tenant, Idempotency("key_1", b"2", 60)),
    "find_items": lambda store, tenant: store.find_items(tenant, ["in_1", "kept_1"]),
    "list_responses": lambda store, tenant: store.list_responses(tenant, limit=9),
    "count_background": lambda store, tenant: store.count_background(tenant),
    "create_conversation": lambda store, tenant: store.create_conversation(tenant, NewConversation("conv_1", 1)),
    "get_conversation": lambda store, tenant: store.get_conversation(tenant, "conv_1"),
    "update_conversation": lambda store, tenant: store.update_conversation(tenant, "conv_1", metadata=b'{"a":"b"}'),
    "delete_conversation": lambda store, tenant: store.delete_conversation(tenant, "conv_1"),
    "add_items": lambda store, tenant: store.add_items(tenant, "conv_1", [item("kept_2")]),
    "list_items": lambda store, tenant: store.list_items(tenant, "conv_1", limit=9),
    "conversation_bytes": lambda store, tenant: store.conversation_bytes(tenant, "conv_1"),
    "get_item": lambda store, tenant: store.get_item(tenant, "conv_1", "kept_1"),
    "delete_item": lambda store, tenant: store.delete_item(tenant, "conv_1", "kept_1"),
    "put_prompt": lambda store, tenant: store.put_prompt(tenant, "pmpt_1", b"{}"),
    "get_prompt": lambda store, tenant: store.get_prompt(tenant, "pmpt_1"),
    "list_prompts": lambda store, tenant: store.list_prompts(tenant, limit=9),
    "delete_prompt": lambda store, tenant: store.delete_prompt(tenant, "pmpt_1"),
}

# What these give who has nothing; the others refuse.
OF_NOBODY: dict[str, Any] = {
    "mark_followed": None,
    "check_key": None,
    "find_items": {},
    "list_responses": ([], False),
    "count_background": 0,
    "list_prompts": ([], False),
}

OF_A_CLAIM: dict[str, Callable[[Store, Claim], Any]] = {
    "release": lambda store, claim: store.release(claim),
    "append": lambda store, claim: store.append(claim, [segment(1)]),
    "renew": lambda store, claim: store.renew([claim], lease_seconds=60, grace_seconds=60),
}


class Tenants:
    """What another tenant owns is as unknown as what never was."""

    def test_every_method_is_asked(self) -> None:
        methods = {name for name, _ in inspect.getmembers(Store, inspect.isfunction) if not name.startswith("_")}

        of_all = {"open", "close", "check", "claim", "overdue_turns", "backlog"}
        assert methods - of_all == OF_A_TENANT.keys() | OF_A_CLAIM.keys()

    @pytest.mark.parametrize("method", OF_A_TENANT)
    async def test_what_another_tenant_owns_is_unknown_and_stays_as_it_is(self, store: Store, method: str) -> None:
        await running(store, items=[item("in_1")], idempotency=Idempotency("key_1", b"1", 60))
        await store.create_conversation("alice", NewConversation("conv_1", 1, items=[item("kept_1")]))
        await store.put_prompt("alice", "pmpt_1", b'{"model":"m"}')

        async def owned() -> list[Any]:
            return [
                await store.get("alice", "resp_1"),
                await store.get_conversation("alice", "conv_1"),
                await store.list_items("alice", "conv_1", limit=9),
                await store.get_prompt("alice", "pmpt_1"),
            ]

        before = await owned()
        if method in OF_NOBODY:
            assert await OF_A_TENANT[method](store, "mallory") == OF_NOBODY[method]
        elif method in ("create_conversation", "put_prompt"):  # mallory may have the same ids
            await OF_A_TENANT[method](store, "mallory")
        else:
            with pytest.raises(BadRequest if method == "create" else NotFound, match=r"with id '\w+_1' not found\."):
                await OF_A_TENANT[method](store, "mallory")

        assert await owned() == before

    @pytest.mark.parametrize("method", OF_A_CLAIM)
    async def test_a_claim_with_another_tenant_holds_nothing(self, store: Store, method: str) -> None:
        mine = await running(store)
        forged = Claim("mallory", "resp_1", mine.attempt, mine.lease_ends)
        before = await store.get("alice", "resp_1")

        if method == "append":
            with pytest.raises(LeaseLost):
                await OF_A_CLAIM[method](store, forged)
        else:
            result = await OF_A_CLAIM[method](store, forged)
            assert result is None or result.lost == {"resp_1"}

        assert await store.get("alice", "resp_1") == before
        await store.append(mine, [segment(1)])

    async def test_open_background_responses_are_counted_for_their_tenant_and_for_all(self, store: Store) -> None:
        await store.create("alice", new("resp_1", background=True))
        await store.create("alice", new("resp_2", background=True))
        await store.create("bob", new("resp_1", background=True))
        await store.create("bob", new("resp_2"), lease_seconds=60)
        counts = [await store.count_background(tenant) for tenant in ("alice", "bob", "mallory")]
        assert (counts, await store.backlog()) == ([2, 1, 0], 3)

        claim = await store.seize("alice", "resp_1", lease_seconds=60)
        assert claim is not None
        await store.append(claim, [segment(2)], ending=ending())
        await store.delete("bob", "resp_1")
        assert (await store.count_background("alice"), await store.backlog()) == (1, 1)

    async def test_a_claim_tells_whose_response_it_is(self, store: Store) -> None:
        await store.create("bob", new("resp_1", background=True))

        (claim,) = await store.claim(limit=9, lease_seconds=60)

        assert claim.tenant == "bob"

    async def test_two_tenants_may_use_the_same_ids(self, store: Store) -> None:
        await turn(store, "resp_1")
        await store.create("bob", new("resp_1", items=[item("in_resp_1")]))

        await store.delete("alice", "resp_1")

        assert await store.context("bob", "resp_1") == [item("in_resp_1")]
        assert await store.context("bob", "resp_1", output=True) == [item("in_resp_1")]


class StoreContract(Writing, Fencing, Claiming, Reading, Context, Deleting, Tenants):
    """All of it."""

    async def test_closing_twice_does_no_harm(self, store: Store) -> None:
        await store.close()
        await store.close()

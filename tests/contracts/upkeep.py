"""What every store promises of its upkeep. A subclass has a fixture `store` that is open, with a clock of our days."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from antiphon.errors import BadRequest, NotFound
from antiphon.protocol import view
from antiphon.store.base import Ending, Note, Segment, Tokens
from antiphon.store.upkeep import Used
from tests.contracts.conversations import keyed
from tests.contracts.store import ending, ids, item, new, numbers, running, segment, turn

PAST, FUTURE = 1.0, 1e12


def frames(first: int, deltas: list[str]) -> Segment:
    """Frames as the protocol makes them."""
    return Segment(first, len(deltas), view.frames([delta(number, text) for number, text in enumerate(deltas, first)]))


def delta(number: int, text: str) -> dict[str, Any]:
    return {"type": "response.output_text.delta", "item_id": "msg_1", "delta": text, "sequence_number": number}


def bytes_of(segments: tuple[Segment, ...], *, after: int) -> bytes:
    """The frames above `after`, as a reader cuts them out."""
    joined = b"".join(each.frames for each in segments)
    return view.drop_frames(joined, after + 1 - segments[0].first) if segments else b""


async def compacted(store: Any) -> int:
    """Compact all there is; gives in how many steps."""
    steps = 0
    while await store.upkeep.compact(settled_seconds=0):
        steps += 1
    return steps


class Expiring:
    """Responses whose time is over."""

    async def test_an_expired_response_is_unknown_before_it_is_erased(self, store: Any) -> None:
        claim = await running(store, "a", expires_at=PAST)
        await store.append(claim, [segment(1)], ending=ending(item("o1")))

        for question in (
            store.get("alice", "a"),
            store.read("alice", "a", after=-1),
            store.notes("alice", "a"),
            store.context("alice", "a"),
            store.seize("alice", "a", lease_seconds=60),
            store.delete("alice", "a"),
        ):
            with pytest.raises(NotFound, match=r"Response with id 'a' not found\."):
                await question
        with pytest.raises(BadRequest, match="Previous response with id 'a' not found"):
            await store.create("alice", new("b", previous="a"))
        assert await store.list_responses("alice", limit=9) == ([], False)
        assert await store.find_items("alice", ["o1"]) == {}

    async def test_an_open_response_goes_on_beyond_its_time(self, store: Any) -> None:
        claim = await running(store, "a", expires_at=PAST)

        erased = await store.upkeep.expire(limit=9)
        await store.append(claim, [segment(1)])

        assert erased == []
        assert await numbers(store, "a") == [0, 1]
        await store.append(claim, [segment(2)], ending=ending())
        assert await store.upkeep.expire(limit=9) == [("alice", "a")]

    async def test_what_has_expired_is_erased_in_batches_and_all_else_stays(self, store: Any) -> None:
        for number in range(5):
            claim = await running(store, f"old_{number}", expires_at=PAST + number)
            await store.append(claim, [segment(1)], ending=ending())
        claim = await running(store, "young", expires_at=FUTURE)
        await store.append(claim, [segment(1)], ending=ending())
        await turn(store, "kept")

        batches = [await store.upkeep.expire(limit=2) for _ in range(4)]

        assert batches == [
            [("alice", "old_0"), ("alice", "old_1")],
            [("alice", "old_2"), ("alice", "old_3")],
            [("alice", "old_4")],
            [],
        ]
        assert [each.id for each in (await store.list_responses("alice", limit=9))[0]] == ["kept", "young"]

    async def test_an_id_whose_response_was_erased_can_be_used_again(self, store: Any) -> None:
        claim = await running(store, "a", expires_at=PAST)
        await store.append(claim, [segment(1)], ending=ending())
        await store.upkeep.expire(limit=9)

        await running(store, "a")

        assert await numbers(store, "a") == [0]

    async def test_the_key_of_an_expired_create_is_free(self, store: Any) -> None:
        claim = await store.create("alice", keyed("a", expires_at=PAST), lease_seconds=60)
        await store.append(claim, [segment(1)], ending=ending(item("o1")))

        await store.create("alice", keyed("b"))

        assert await numbers(store, "b") == [0]


class Compacting:
    """Finished logs, made small."""

    async def test_a_compacted_response_reads_the_same(self, store: Any) -> None:
        claim = await running(store, "a", items=[item("i1", "x" * 500)], request=b'{"model":"m","tools":[]}')
        await store.append(claim, [frames(1, ["Hello", " there"])], notes=[Note(2, "turn", b'{"n":1}')])
        final = Ending("completed", b'{"id":"a","output":[%b]}' % item("o1", "Hello").body, [item("o1", "Hello")], 3)
        await store.append(claim, [frames(3, ["!"])], ending=final)
        before = [
            await store.get("alice", "a"),
            await store.notes("alice", "a"),
            await store.context("alice", "a", output=True),
            await store.find_items("alice", ["i1", "o1"]),
        ]
        page = await store.read("alice", "a", after=-1)

        assert await compacted(store) == 1

        after = [
            await store.get("alice", "a"),
            await store.notes("alice", "a"),
            await store.context("alice", "a", output=True),
            await store.find_items("alice", ["i1", "o1"]),
        ]
        (whole,) = (await store.read("alice", "a", after=-1)).segments
        assert after == before
        assert (whole.first, whole.count) == (0, 4)
        assert whole.frames == bytes_of(page.segments, after=-1)
        assert (await store.list_responses("alice", limit=9))[0] == [before[0]]

    @settings(deadline=None, max_examples=30, suppress_health_check=list(HealthCheck))
    @given(batches=st.lists(st.lists(st.text(max_size=40), min_size=1, max_size=9), min_size=1, max_size=9))
    async def test_any_log_is_replayed_byte_for_byte_from_any_number(
        self, store: Any, batches: list[list[str]]
    ) -> None:
        claim = await running(store, "a", segment=frames(0, [""]))
        first = 1
        for batch in batches:
            await store.append(claim, [frames(first, batch)])
            first += len(batch)
        await store.append(claim, [], ending=ending(item("o1")))
        whole = bytes_of((await store.read("alice", "a", after=-1)).segments, after=-1)

        await compacted(store)

        for after in range(-1, first):
            page = await store.read("alice", "a", after=after)
            assert page.closed
            assert bytes_of(page.segments, after=after) == view.drop_frames(whole, after + 1)
        await store.delete("alice", "a")

    async def test_a_long_log_is_compacted_by_stretches_and_reads_the_same_after_each(self, store: Any) -> None:
        claim = await running(store, "a", segment=frames(0, [""]))
        for first in range(1, 4000, 10):
            await store.append(claim, [frames(first, [f"some words {n} " * 5 for n in range(first, first + 10)])])
        await store.append(claim, [], ending=ending(item("o1")))

        async def replay() -> tuple[bytes, int]:
            after, whole, segments, closed = -1, b"", 0, False
            while not closed:
                page = await store.read("alice", "a", after=after)
                whole += bytes_of(page.segments, after=after)
                after, closed = page.segments[-1].last, page.closed
                segments += len(page.segments)
            return whole, segments

        before, loose = await replay()
        steps = 0
        while await store.upkeep.compact(settled_seconds=0):
            steps += 1
            assert (await replay())[0] == before

        assert loose == 401
        assert (await replay())[1] == steps > 2

    async def test_an_open_log_is_left_alone(self, store: Any) -> None:
        claim = await running(store, "a")
        await store.append(claim, [segment(1)])

        assert await compacted(store) == 0

    async def test_a_young_response_is_left_alone(self, store: Any) -> None:
        await turn(store, "a")

        assert not await store.upkeep.compact(settled_seconds=1e12)
        assert await store.upkeep.compact(settled_seconds=60)
        assert not await store.upkeep.compact(settled_seconds=60)

    async def test_the_masks_of_a_log_are_kept_together(self, store: Any) -> None:
        claim = await running(store, "a")
        await store.append(claim, [segment(1, mask=1), segment(2, mask=4)], ending=ending())

        await compacted(store)

        assert [each.mask for each in (await store.read("alice", "a", after=-1)).segments] == [5]

    async def test_frames_of_another_make_are_kept_as_they_are(self, store: Any) -> None:
        claim = await running(store, "a")
        strange = [
            b'data: {"sequence_number":7}\n\n',  # a wrong number
            b'data: {"sequence_number":2,"obfuscation":"xyz"}\n\n',  # another padding
            b"data: \x0e\r\x01\x02\n\n",
        ]
        for number, frame in enumerate(strange, 1):
            await store.append(claim, [Segment(number, 1, frame)])
        await store.append(claim, [], ending=ending())

        await compacted(store)

        assert bytes_of((await store.read("alice", "a", after=0)).segments, after=0) == b"".join(strange)

    async def test_a_compacted_response_can_be_continued_and_deleted(self, store: Any) -> None:
        await turn(store, "a")
        await turn(store, "b", previous="a")
        await compacted(store)

        await turn(store, "c", previous="b")
        await store.delete("alice", "a")

        assert await ids(store, "c", output=True) == ["in_b", "out_b", "in_c", "out_c"]
        with pytest.raises(NotFound):
            await store.read("alice", "a", after=-1)
        assert await numbers(store, "b") == [0, 1]

    async def test_items_that_another_response_has_said_as_well_stay_readable(self, store: Any) -> None:
        shared = item("shared", "what both have")
        for id in ("a", "b"):
            claim = await running(store, id)
            response = b'{"id":"%b","output":[%b]}' % (id.encode(), shared.body)
            await store.append(claim, [segment(1)], ending=Ending("completed", response, [shared]))
        await compacted(store)

        await store.delete("alice", "a")

        assert (await store.get("alice", "b")).response == response


class Usage:
    """What was used, in sums."""

    async def test_what_has_ended_is_counted_and_stays_when_it_is_erased(self, store: Any) -> None:
        for id, tenant, model, day in (
            ("a", "alice", "small", 0),
            ("b", "alice", "large", 1),
            ("c", "alice", "small", 1),
            ("d", "bob", "small", 1),
        ):
            made = new(id, model=model, created_at=86_400 * day + 5)
            claim = await store.create(tenant, made, lease_seconds=60)
            tokens = Tokens(input=10, cached=4, output=3, reasoning=1)
            await store.append(claim, [segment(1)], ending=Ending("completed", b"{}", (), tokens=tokens))
        await running(store, "open")
        await store.delete("alice", "a")

        def used(tenant: str, model: str | None, day: str | None, count: int) -> Used:
            return Used(tenant, model, day, count, Tokens(10 * count, 4 * count, 3 * count, count))

        assert await store.upkeep.usage() == [used("alice", None, None, 3), used("bob", None, None, 1)]
        assert await store.upkeep.usage(tenant="bob") == [used("bob", None, None, 1)]
        assert await store.upkeep.usage(by="model", tenant="alice") == [
            used("alice", "large", None, 1),
            used("alice", "small", None, 2),
        ]
        assert await store.upkeep.usage(by="day", tenant="alice") == [
            used("alice", None, "1970-01-01", 1),
            used("alice", None, "1970-01-02", 2),
        ]
        assert await store.upkeep.usage(since=86_400) == [used("alice", None, None, 2), used("bob", None, None, 1)]
        assert await store.upkeep.usage(until=86_400) == [used("alice", None, None, 1)]
        assert await store.upkeep.usage(tenant="nobody") == []


class UpkeepContract(Expiring, Compacting, Usage):
    """All of it."""

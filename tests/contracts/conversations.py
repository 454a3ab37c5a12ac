"""What every store promises of conversations, idempotency keys, lists and prompts. Beside `StoreContract`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from antiphon.errors import BadRequest, Conflict, LeaseLost, NotFound, Repeated
from antiphon.store.base import Claim, Conversation, Idempotency, Item, NewConversation, Overdue, Store
from tests.contracts.store import ending, ids, item, new, running, segment, turn


def said(id: str, status: str) -> Item:
    """An item with a status."""
    return Item(id, b'{"id":"%s","status":"%s"}' % (id.encode(), status.encode()))


async def conversation(store: Store, id: str = "conv_1", *items: Item) -> None:
    await store.create_conversation("alice", NewConversation(id, 1000, b'{"topic":"tides"}', items))


async def kept(store: Store, id: str = "conv_1") -> list[str]:
    """The ids of a conversation's items."""
    items, more = await store.list_items("alice", id, limit=1000, descending=False)
    assert not more
    return [item.id for item in items]


async def talking(store: Store, id: str, *, lease_seconds: float | None = 60, **fields: Any) -> Claim | None:
    """A turn of conv_1 that is given one item."""
    made = new(id, conversation="conv_1", items=[item(f"in_{id}")], **fields)
    return await store.create("alice", made, lease_seconds=lease_seconds)


async def claimed(store: Store, **options: Any) -> list[str]:
    claims = await store.claim(limit=9, lease_seconds=60, **options)
    return [claim.response_id for claim in claims]


async def end(store: Store, claim: Claim | None, *items: Item, status: str = "completed") -> None:
    assert claim is not None
    await store.append(claim, [segment(1)], ending=ending(*items, status=status))


class Conversations:
    """Lists of items that outlive responses."""

    async def test_a_conversation_is_what_it_was_made_of(self, store: Store) -> None:
        await conversation(store, "conv_1", item("a"), item("b"))

        assert await store.get_conversation("alice", "conv_1") == Conversation("conv_1", 1000, b'{"topic":"tides"}')
        assert await store.list_items("alice", "conv_1", limit=9) == ([item("b"), item("a")], False)

    async def test_an_id_is_given_to_one_conversation(self, store: Store) -> None:
        await conversation(store, "conv_1", item("a"))

        with pytest.raises(Conflict):
            await conversation(store, "conv_1", item("b"))

        assert await kept(store) == ["a"]

    async def test_its_metadata_can_be_replaced(self, store: Store) -> None:
        await conversation(store)

        changed = await store.update_conversation("alice", "conv_1", metadata=b'{"a":"b"}')

        assert changed == Conversation("conv_1", 1000, b'{"a":"b"}')
        assert await store.get_conversation("alice", "conv_1") == changed

    async def test_its_size_is_that_of_its_items(self, store: Store) -> None:
        await conversation(store)
        assert await store.conversation_bytes("alice", "conv_1") == 0
        items = [item("z", "é"), item("y")]
        await store.add_items("alice", "conv_1", items)

        assert await store.conversation_bytes("alice", "conv_1") == sum(len(each.body) for each in items)
        with pytest.raises(NotFound):
            await store.conversation_bytes("bob", "conv_1")

    async def test_items_come_at_the_end_in_their_order(self, store: Store) -> None:
        await conversation(store, "conv_1", item("z"))

        await store.add_items("alice", "conv_1", [item("y"), item("x")])
        await store.add_items("alice", "conv_1", [item("a")])

        assert await kept(store) == ["z", "y", "x", "a"]

    async def test_an_equal_item_again_is_the_same_item(self, store: Store) -> None:
        await conversation(store, "conv_1", item("a"), item("a"), item("b"))

        await store.add_items("alice", "conv_1", [item("a"), item("c"), item("c")])

        assert await kept(store) == ["a", "b", "c"]

    async def test_an_id_with_another_content_is_refused_and_nothing_is_added(self, store: Store) -> None:
        await conversation(store, "conv_1", item("a"))

        for items in ([item("b"), item("a", "changed")], [item("c"), item("c", "changed")]):
            with pytest.raises(BadRequest, match=r"Duplicate item found with id \w") as refusal:
                await store.add_items("alice", "conv_1", items)
            assert refusal.value.param == "items"
        with pytest.raises(BadRequest):
            await conversation(store, "conv_2", item("c"), item("c", "changed"))

        assert await kept(store) == ["a"]
        with pytest.raises(NotFound):
            await store.get_conversation("alice", "conv_2")

    async def test_two_conversations_may_hold_items_of_the_same_id(self, store: Store) -> None:
        await conversation(store, "conv_1", item("a"))
        await conversation(store, "conv_2", item("a", "other"))

        assert await store.get_item("alice", "conv_1", "a") == item("a")
        assert await store.get_item("alice", "conv_2", "a") == item("a", "other")

    @pytest.mark.parametrize("descending", [False, True])
    @pytest.mark.parametrize("limit", [1, 2, 3, 7])
    async def test_the_pages_together_are_all_items_once(self, store: Store, descending: bool, limit: int) -> None:
        await conversation(store, "conv_1", *(item(f"i{number}") for number in range(6)))

        seen: list[str] = []
        more = True
        while more:
            after = seen[-1] if seen else None
            page, more = await store.list_items("alice", "conv_1", limit=limit, after=after, descending=descending)
            assert 0 < len(page) <= limit
            seen += [item.id for item in page]

        assert seen == sorted(seen, reverse=descending)
        assert len(seen) == 6

    async def test_an_erased_item_is_unknown_and_the_others_stay(self, store: Store) -> None:
        await conversation(store, "conv_1", item("a"), item("b"), item("c"))

        left = await store.delete_item("alice", "conv_1", "c")
        await store.add_items("alice", "conv_1", [item("d")])

        assert left.id == "conv_1"
        assert await kept(store) == ["a", "b", "d"]
        for question in (
            store.get_item("alice", "conv_1", "c"),
            store.delete_item("alice", "conv_1", "c"),
            store.list_items("alice", "conv_1", limit=1, after="c"),
        ):
            with pytest.raises(NotFound, match=r"Item with id 'c' not found\."):
                await question

    async def test_an_erased_conversation_is_unknown(self, store: Store) -> None:
        await conversation(store, "conv_1", item("a"))

        await store.delete_conversation("alice", "conv_1")

        for question in (
            store.get_conversation("alice", "conv_1"),
            store.update_conversation("alice", "conv_1", metadata=b"{}"),
            store.delete_conversation("alice", "conv_1"),
            store.add_items("alice", "conv_1", [item("b")]),
            store.list_items("alice", "conv_1", limit=1),
            store.get_item("alice", "conv_1", "a"),
            store.delete_item("alice", "conv_1", "a"),
            store.create("alice", new("resp_1", conversation="conv_1")),
        ):
            with pytest.raises(NotFound, match=r"Conversation with id 'conv_1' not found\."):
                await question
        await conversation(store, "conv_1")
        assert await kept(store) == []

    async def test_an_item_is_found_wherever_it_is_kept(self, store: Store) -> None:
        await turn(store, "resp_1")
        await conversation(store, "conv_1", item("a"))

        found = await store.find_items("alice", ["in_resp_1", "out_resp_1", "a", "nothing"])

        assert found == {id: item(id) for id in ("in_resp_1", "out_resp_1", "a")}
        assert await store.find_items("alice", []) == {}


class Turns:
    """Responses that are turns of a conversation."""

    async def test_a_turn_names_its_conversation(self, store: Store) -> None:
        await conversation(store)
        await end(store, await talking(store, "a"))
        await running(store, "b", previous="a")

        assert (await store.get("alice", "a")).conversation == "conv_1"
        assert (await store.get("alice", "b")).conversation is None

    async def test_a_turn_sees_the_items_and_adds_its_own_when_it_has_ended(self, store: Store) -> None:
        await conversation(store, "conv_1", item("x"))

        claim = await talking(store, "a")
        during = await kept(store)
        await end(store, claim, item("out_a"))
        await end(store, await talking(store, "b"), item("out_b"), status="incomplete")

        assert during == ["x"]
        assert await kept(store) == ["x", "in_a", "out_a", "in_b", "out_b"]
        assert await ids(store, "a", output=True) == ["x", "in_a", "out_a"]
        assert await ids(store, "b", output=True) == ["x", "in_a", "out_a", "in_b", "out_b"]

    @pytest.mark.parametrize("status", ["failed", "cancelled"])
    async def test_a_turn_that_came_to_nothing_adds_nothing(self, store: Store, status: str) -> None:
        await conversation(store, "conv_1", item("x"))

        await end(store, await talking(store, "a"), item("out_a"), status=status)

        assert await kept(store) == ["x"]

    async def test_what_a_turn_adds_is_completed_unless_it_has_failed(self, store: Store) -> None:
        await conversation(store)

        cut, failed, bare = said("cut", "incomplete"), said("failed", "failed"), item("bare")
        await end(store, await talking(store, "a"), cut, failed, bare, status="incomplete")

        items, _ = await store.list_items("alice", "conv_1", limit=9, descending=False)
        assert items == [item("in_a"), said("cut", "completed"), failed, bare]
        assert (await store.context("alice", "a", output=True))[1] == cut

    async def test_a_turn_sees_nothing_that_came_after_its_claim(self, store: Store) -> None:
        await conversation(store, "conv_1", item("x"))
        claim = await talking(store, "a", lease_seconds=0)

        await store.add_items("alice", "conv_1", [item("late")])
        (again,) = await store.claim(limit=1, lease_seconds=60)

        assert claim is not None
        assert await ids(store, "a") == ["x", "in_a"]
        await end(store, again, item("out_a"))
        assert await ids(store, "a", output=True) == ["x", "in_a", "out_a"]
        assert await kept(store) == ["x", "late", "in_a", "out_a"]

    async def test_who_continues_a_turn_sees_what_it_saw(self, store: Store) -> None:
        await conversation(store, "conv_1", item("x"))
        await end(store, await talking(store, "a"), item("out_a"))
        await store.add_items("alice", "conv_1", [item("late")])

        await turn(store, "b", previous="a")

        assert await ids(store, "b") == ["x", "in_a", "out_a", "in_b"]
        assert await kept(store) == ["x", "in_a", "out_a", "late"]

    async def test_who_continues_an_erased_turn_still_sees_what_came_before_it(self, store: Store) -> None:
        await conversation(store, "conv_1", item("x"))
        await end(store, await talking(store, "a"), item("out_a"))
        await turn(store, "b", previous="a")
        await turn(store, "c", previous="b")

        await store.delete("alice", "a")
        await store.delete("alice", "b")

        assert await ids(store, "c") == ["x", "in_c"]
        assert (await store.get("alice", "c")).conversation is None
        assert await kept(store) == ["x", "in_a", "out_a"]

    async def test_an_item_sent_again_comes_once(self, store: Store) -> None:
        await conversation(store, "conv_1", item("x"), said("y", "completed"))

        again = [said("y", "incomplete"), item("x"), item("z")]
        claim = await store.create("alice", new("a", conversation="conv_1", items=again), lease_seconds=60)
        await end(store, claim)

        assert await kept(store) == ["x", "y", "z"]

    async def test_an_input_that_contradicts_the_conversation_is_refused(self, store: Store) -> None:
        await conversation(store, "conv_1", item("x"))

        with pytest.raises(BadRequest, match="Duplicate item found with id x") as refusal:
            await store.create("alice", new("a", conversation="conv_1", items=[item("x", "changed")]))

        assert refusal.value.param == "input"
        with pytest.raises(NotFound):
            await store.get("alice", "a")

    async def test_a_turn_waits_for_the_earlier_ones(self, store: Store) -> None:
        await conversation(store)
        first = await talking(store, "a")
        second = await talking(store, "b")
        third = await talking(store, "c", lease_seconds=None, background=True)
        waiting = await claimed(store)

        await end(store, first, item("out_a"))
        (b,) = await store.claim(limit=9, lease_seconds=60, background=False)
        then = await claimed(store)
        await end(store, b, item("out_b"))

        assert (second, third, waiting, then) == (None, None, [], [])
        assert (b.response_id, b.attempt, b.tries, b.background) == ("b", 1, 1, False)
        assert await claimed(store) == ["c"]
        assert await ids(store, "c") == ["in_a", "out_a", "in_b", "out_b", "in_c"]

    async def test_turns_of_two_conversations_do_not_wait_for_each_other(self, store: Store) -> None:
        await conversation(store)
        await conversation(store, "conv_2")
        await talking(store, "a")

        assert await store.create("alice", new("b", conversation="conv_2"), lease_seconds=60) is not None
        assert await store.create("alice", new("c"), lease_seconds=60) is not None

    async def test_a_turn_created_without_a_claim_goes_first(self, store: Store) -> None:
        await conversation(store)
        await talking(store, "a", lease_seconds=None, background=True)

        assert await talking(store, "b") is None
        assert await claimed(store) == ["a"]

    async def test_a_foreground_turn_is_overdue_while_it_waits_for_too_long(self, store: Store) -> None:
        await conversation(store)
        first = await talking(store, "a")
        await talking(store, "b")
        await talking(store, "c", lease_seconds=None, background=True)
        ages = 1e12  # longer than since these were created

        assert await store.overdue_turns(wait_seconds=ages, grace_seconds=60) == []
        assert await store.overdue_turns(wait_seconds=60, grace_seconds=60) == [Overdue("alice", "b", followed=True)]
        assert await store.overdue_turns(wait_seconds=ages, grace_seconds=-1) == [Overdue("alice", "b", followed=False)]

        await end(store, first, item("out_a"))
        assert await store.overdue_turns(wait_seconds=60, grace_seconds=-1) == []

    async def test_a_turn_whose_worker_died_goes_before_the_next(self, store: Store) -> None:
        await conversation(store)
        await talking(store, "a", lease_seconds=0)
        await talking(store, "b")

        assert await claimed(store) == ["a"]
        assert await claimed(store) == []

    @pytest.mark.parametrize("way", ["cancel", "delete"])
    async def test_a_turn_that_is_stopped_lets_the_next_one_go(self, store: Store, way: str) -> None:
        await conversation(store)
        await talking(store, "running")
        for id in ("waiting", "next"):
            await talking(store, id)

        for id in ("waiting", "running"):
            if way == "delete":
                await store.delete("alice", id)
            else:
                await end(store, await store.seize("alice", id, lease_seconds=60), status="cancelled")
            assert await claimed(store) == (["next"] if id == "running" else [])

        assert await ids(store, "next") == ["in_next"]

    async def test_a_turn_that_was_stopped_while_it_waited_sees_what_was_there_then(self, store: Store) -> None:
        await conversation(store, "conv_1", item("x"))
        await talking(store, "a")
        await talking(store, "b")
        await end(store, await store.seize("alice", "b", lease_seconds=60), status="cancelled")

        await store.add_items("alice", "conv_1", [item("late")])

        assert await ids(store, "b") == ["x", "in_b"]

    async def test_turns_end_well_when_the_conversation_is_erased_meanwhile(self, store: Store) -> None:
        await conversation(store, "conv_1", item("x"))
        first = await talking(store, "a")
        await talking(store, "b")

        await store.delete_conversation("alice", "conv_1")
        await conversation(store, "conv_1", item("other"))
        await end(store, first, item("out_a"))
        (second,) = await store.claim(limit=9, lease_seconds=60)
        await end(store, second)

        assert await kept(store) == ["other"]
        assert await ids(store, "a", output=True) == ["in_a", "out_a"]
        assert await ids(store, "b") == ["in_b"]
        assert (await store.get("alice", "a")).conversation is None

    async def test_an_item_erased_from_the_conversation_is_not_seen_any_more(self, store: Store) -> None:
        await conversation(store, "conv_1", item("x"), item("y"))
        await end(store, await talking(store, "a"))

        await store.delete_item("alice", "conv_1", "x")

        assert await ids(store, "a") == ["y", "in_a"]

    async def test_a_conversation_keeps_its_items_when_its_responses_are_erased(self, store: Store) -> None:
        await conversation(store)
        await end(store, await talking(store, "a"), item("out_a"))

        await store.delete("alice", "a")

        assert await kept(store) == ["in_a", "out_a"]
        assert await store.find_items("alice", ["out_a"]) == {"out_a": item("out_a")}

    async def test_a_stale_worker_ends_no_turn(self, store: Store) -> None:
        await conversation(store)
        stale = await talking(store, "a", lease_seconds=0)
        await talking(store, "b")
        await claimed(store)

        with pytest.raises(LeaseLost):
            await end(store, stale, item("out_a"))

        assert await kept(store) == []
        assert await claimed(store) == []

    async def test_no_turn_is_lost_among_many_at_once(self, store: Store) -> None:
        await conversation(store)
        created = await asyncio.gather(*(talking(store, f"r{number:02}") for number in range(20)))
        running = [claim for claim in created if claim is not None]
        order: list[str] = []
        while running:
            (claim,) = running
            order.append(claim.response_id)
            await end(store, claim, item(f"out_{claim.response_id}"))
            running = await store.claim(limit=9, lease_seconds=60)

        assert order == sorted(order)
        assert await kept(store) == [f"{kind}_{id}" for id in order for kind in ("in", "out")]
        assert len(order) == 20


def keyed(id: str, *, key: str = "k", fingerprint: bytes = b"1", seconds: float = 60, **fields: Any) -> Any:
    return new(id, idempotency=Idempotency(key, fingerprint, seconds), **fields)


class Keys:
    """Creates that are sent again."""

    async def test_the_same_create_again_is_the_same_response(self, store: Store) -> None:
        await store.create("alice", keyed("a"))

        with pytest.raises(Repeated) as repeated:
            await store.create("alice", keyed("b"))

        assert repeated.value.response_id == "a"
        with pytest.raises(NotFound):
            await store.get("alice", "b")

    async def test_a_key_with_another_body_is_refused(self, store: Store) -> None:
        await store.create("alice", keyed("a"))

        with pytest.raises(Conflict) as refusal:
            await store.create("alice", keyed("b", fingerprint=b"2"))

        assert refusal.value.headers == {"x-should-retry": "false"}
        assert "'k'" in refusal.value.message

    async def test_a_key_can_be_asked_for_without_a_create(self, store: Store) -> None:
        await store.create("alice", keyed("a"))

        with pytest.raises(Repeated) as repeated:
            await store.check_key("alice", Idempotency("k", b"1", 60))
        with pytest.raises(Conflict):
            await store.check_key("alice", Idempotency("k", b"2", 60))
        await store.check_key("alice", Idempotency("other", b"1", 60))
        await store.check_key("bob", Idempotency("k", b"1", 60))

        assert repeated.value.response_id == "a"

    async def test_another_key_and_another_tenant_are_free(self, store: Store) -> None:
        await store.create("alice", keyed("a"))

        await store.create("alice", keyed("b", key="other"))
        await store.create("bob", keyed("c", fingerprint=b"2"))

    async def test_of_many_at_once_one_is_made(self, store: Store) -> None:
        creates = [store.create("alice", keyed(f"r{number}")) for number in range(10)]

        results = await asyncio.gather(*creates, return_exceptions=True)

        assert [type(result) for result in results] == [type(None)] + [Repeated] * 9
        assert {result.response_id for result in results if isinstance(result, Repeated)} == {"r0"}

    async def test_a_key_whose_time_is_over_is_free(self, store: Store) -> None:
        await store.create("alice", keyed("a", seconds=-1))

        await store.create("alice", keyed("b", fingerprint=b"2"))

        with pytest.raises(Repeated):
            await store.create("alice", keyed("c", fingerprint=b"2"))

    async def test_a_response_that_failed_before_it_said_anything_lets_go_of_its_key(self, store: Store) -> None:
        for id, items in (("a", []), ("b", [item("out_b")])):
            await end(store, await store.create("alice", keyed(id), lease_seconds=60), *items, status="failed")

        with pytest.raises(Repeated) as repeated:
            await store.create("alice", keyed("c"))
        assert repeated.value.response_id == "b"

    async def test_an_erased_response_lets_go_of_its_key(self, store: Store) -> None:
        await store.create("alice", keyed("a"))

        await store.delete("alice", "a")

        await store.create("alice", keyed("b", fingerprint=b"2"))

    async def test_a_repeat_is_known_even_if_what_it_continued_is_gone(self, store: Store) -> None:
        await turn(store, "first")
        await store.create("alice", keyed("a", previous="first"))
        await store.delete("alice", "first")

        with pytest.raises(Repeated):
            await store.create("alice", keyed("b", previous="first"))

    async def test_a_create_that_was_refused_takes_no_key(self, store: Store) -> None:
        with pytest.raises(BadRequest):
            await store.create("alice", keyed("a", previous="nothing"))

        await store.create("alice", keyed("a", fingerprint=b"2"))


class Listing:
    """Pages of responses."""

    async def responses(self, store: Store, **options: Any) -> list[str]:
        page, _ = await store.list_responses("alice", **{"limit": 100, **options})
        return [stored.id for stored in page]

    async def test_responses_are_listed_in_the_order_of_their_creation(self, store: Store) -> None:
        for id, created_at in (("c", 30), ("a", 10), ("b", 20)):
            await turn(store, id)
            await store.create("bob", new(id, created_at=created_at))

        assert await self.responses(store) == ["b", "a", "c"]
        assert await self.responses(store, descending=False) == ["c", "a", "b"]

    async def test_a_listed_response_is_the_stored_one(self, store: Store) -> None:
        await conversation(store)
        await end(store, await talking(store, "a", metadata=b'{"k":"v"}'), item("out_a"))

        page, more = await store.list_responses("alice", limit=1)

        assert page == [await store.get("alice", "a")]
        assert page[0].response == b'{"status":"completed"}'
        assert not more

    @pytest.mark.parametrize("descending", [False, True])
    @pytest.mark.parametrize("limit", [1, 2, 3, 7])
    async def test_the_pages_together_are_all_responses_once(self, store: Store, descending: bool, limit: int) -> None:
        for number in range(6):
            await store.create("alice", new(f"r{number}"))

        seen: list[str] = []
        more = True
        while more:
            after = seen[-1] if seen else None
            page, more = await store.list_responses("alice", limit=limit, after=after, descending=descending)
            assert 0 < len(page) <= limit
            seen += [stored.id for stored in page]

        assert seen == sorted(seen, reverse=descending)
        assert len(seen) == 6

    async def test_an_unknown_place_is_refused(self, store: Store) -> None:
        with pytest.raises(NotFound, match=r"Response with id 'a' not found\."):
            await store.list_responses("alice", limit=9, after="a")

    async def test_responses_can_be_chosen_by_status(self, store: Store) -> None:
        await turn(store, "done")
        await store.create("alice", new("queued", background=True))
        await store.create("alice", new("running"))
        await end(store, await running(store, "failed"), status="failed")

        chosen = {status: await self.responses(store, status=status) for status in ("queued", "in_progress", "failed")}

        assert chosen == {"queued": ["queued"], "in_progress": ["running"], "failed": ["failed"]}

    async def test_responses_can_be_chosen_by_model(self, store: Store) -> None:
        for id, model in (("a", "m"), ("b", "n"), ("c", "m")):
            await store.create("alice", new(id, model=model))

        assert await self.responses(store, model="m") == ["c", "a"]

    async def test_responses_can_be_chosen_by_metadata(self, store: Store) -> None:
        metadata = {
            "a": b'{"topic":"tides","k":"1"}',
            "b": b'{"topic":"tides"}',
            "c": b'{"topic":"moon","a.b\\"c":"\\u00fc"}',
            "d": b"{}",
        }
        for id, pairs in metadata.items():
            await store.create("alice", new(id, metadata=pairs))

        assert await self.responses(store, metadata={"topic": "tides"}) == ["b", "a"]
        assert await self.responses(store, metadata={"topic": "tides", "k": "1"}) == ["a"]
        assert await self.responses(store, metadata={'a.b"c': "ü"}) == ["c"]
        assert await self.responses(store, metadata={"topic": "tides", "k": "2"}) == []
        assert await self.responses(store, metadata={}) == ["d", "c", "b", "a"]


class Prompts:
    """Templates by version."""

    async def test_versions_are_counted_from_one(self, store: Store) -> None:
        made = [await store.put_prompt("alice", "p", body) for body in (b"1", b"2", b"3")]

        assert [prompt.version for prompt in made] == [1, 2, 3]
        assert await store.get_prompt("alice", "p") == made[2]
        assert [await store.get_prompt("alice", "p", version) for version in (1, 2, 3)] == made

    async def test_what_is_not_there_is_named(self, store: Store) -> None:
        await store.put_prompt("alice", "p", b"1")

        with pytest.raises(NotFound, match=r"Prompt with id 'q' not found\."):
            await store.get_prompt("alice", "q", 2)
        with pytest.raises(NotFound, match=r"Prompt with id 'p' and version '2' not found\."):
            await store.get_prompt("alice", "p", 2)
        with pytest.raises(NotFound, match=r"Prompt with id 'q' not found\."):
            await store.delete_prompt("alice", "q")
        with pytest.raises(NotFound, match=r"Prompt with id 'q' not found\."):
            await store.list_prompts("alice", limit=9, after="q")

    async def test_each_prompt_is_listed_once_in_its_newest_version(self, store: Store) -> None:
        for id in ("b", "a", "c", "b"):
            await store.put_prompt("alice", id, id.encode())

        pages = [
            await store.list_prompts("alice", limit=2),
            await store.list_prompts("alice", limit=2, after="a"),
            await store.list_prompts("alice", limit=9, after="b", descending=False),
        ]

        assert [([(each.id, each.version) for each in page], more) for page, more in pages] == [
            ([("c", 1), ("a", 1)], True),
            ([("b", 2)], False),
            ([("a", 1), ("c", 1)], False),
        ]

    async def test_an_erased_prompt_is_gone_with_all_its_versions(self, store: Store) -> None:
        for body in (b"1", b"2"):
            await store.put_prompt("alice", "p", body)

        await store.delete_prompt("alice", "p")

        with pytest.raises(NotFound):
            await store.get_prompt("alice", "p", 1)
        assert await store.list_prompts("alice", limit=9) == ([], False)
        assert (await store.put_prompt("alice", "p", b"3")).version == 1


class ConversationContract(Conversations, Turns, Keys, Listing, Prompts):
    """All of it."""

"""What every store promises that can be moved. A subclass has the fixtures `store` and `other`: two that are empty."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from antiphon.errors import LeaseLost, NotFound, Repeated, StoreError
from antiphon.store.base import Claim, Idempotency, Item, NewConversation, Note, Segment
from antiphon.store.portable import Record, Response
from tests.contracts.store import ending, item, new, running, segment, turn

KEY = Idempotency("key-1", b"\xff\x00fingerprint", 3600)
NO_TEXT = b"\xff\xfe not UTF-8 \x00"


async def dumped(store: Any) -> list[Record]:
    return [record async for batch in store.dump() for record in batch]


async def given(records: Sequence[Record], *, by: int = 7, fail_after: int | None = None) -> AsyncIterator[Any]:
    """The records in small batches, as of a file that cannot be read after so many."""
    for start in range(0, len(records), by):
        if fail_after is not None and start >= fail_after:
            raise ConnectionError
        yield records[start : start + by]


async def talk(store: Any, id: str, *, tenant: str = "alice", **fields: Any) -> Claim | None:
    made = new(id, conversation="conv_1", items=[item(f"in_{id}")], **fields)
    claim: Claim | None = await store.create(tenant, made, lease_seconds=60)
    return claim


async def fill(store: Any) -> None:
    """Something of everything, for two tenants that use the same ids."""
    for tenant in ("alice", "bob"):
        await turn(store, "resp_1", tenant=tenant)
        await turn(store, "resp_2", tenant=tenant, previous="resp_1")
        await turn(store, "resp_3", tenant=tenant, previous="resp_2")
        await store.delete(tenant, "resp_2")
        items = [item("i1", tenant), item("i1", "another text"), item("in_resp_1"), Item("i2", NO_TEXT)]
        claim = await running(
            store, "resp_4", tenant=tenant, items=items, idempotency=KEY, metadata=b'{"k":"\xc3\xa9"}'
        )
        await store.append(claim, [segment(1, 3, mask=5), Segment(4, 1, NO_TEXT)], notes=[Note(0, "a", b"1")])
        await store.append(
            claim, [segment(5)], notes=[Note(4, "a", b"1"), Note(5, "b", b"2")], ending=ending(item("o"))
        )
        await store.create_conversation(tenant, NewConversation("conv_1", 1000, b"{}", [item("c1"), item("c2")]))
        await store.create_conversation(tenant, NewConversation("conv_2", 1001))
        for id in ("resp_5", "resp_6"):
            await store.append(await talk(store, id, tenant=tenant), [segment(1)], ending=ending(item(f"out_{id}")))
        await store.delete_item(tenant, "conv_1", "c2")
        await turn(store, "resp_7", tenant=tenant, previous="resp_5")
        await store.delete(tenant, "resp_5")
        await store.put_prompt(tenant, "pmpt_1", b'{"version":1}')
        await store.put_prompt(tenant, "pmpt_2", b"{}")
        await store.put_prompt(tenant, "pmpt_1", b'{"version":2}')


async def seen(store: Any, tenant: str) -> dict[str, Any]:
    """All that a tenant can get out of a store."""
    responses, _ = await store.list_responses(tenant, limit=100, descending=False)
    conversations: dict[str, Any] = {}
    for id in ("conv_1", "conv_2"):
        row = await store.get_conversation(tenant, id)
        conversations[id] = (row, await store.list_items(tenant, id, limit=100))
    return {
        "responses": responses,
        "logs": [await store.read(tenant, each.id, after=-1, limit_bytes=1 << 30) for each in responses],
        "notes": [await store.notes(tenant, each.id) for each in responses],
        "contexts": [await store.context(tenant, each.id, output=True) for each in responses],
        "found": await store.find_items(tenant, ["i1", "o", "c1", "in_resp_1", "in_resp_5", "out_resp_2", "i2"]),
        "conversations": conversations,
        "prompts": await store.list_prompts(tenant, limit=100),
        "first version": await store.get_prompt(tenant, "pmpt_1", 1),
    }


class PortableContract:
    """Moving everything from one store to another."""

    async def test_the_other_store_gives_what_this_one_gives(self, store: Any, other: Any) -> None:
        await fill(store)

        await other.load(store.dump())

        for tenant in ("alice", "bob"):
            assert await seen(other, tenant) == await seen(store, tenant)
        assert await dumped(other) == await dumped(store)

    async def test_what_was_added_is_counted(self, store: Any, other: Any) -> None:
        await fill(store)
        records = await dumped(store)

        added = await other.load(given(records))

        assert added == Counter(type(record) for record in records)

    async def test_the_same_again_changes_nothing(self, store: Any, other: Any) -> None:
        await fill(store)
        records = await dumped(store)
        await other.load(given(records))

        added = await other.load(given(records))

        assert added.total() == 0
        assert await dumped(other) == records

    @pytest.mark.parametrize("cut", [1, 8, 15, 22, 36, 50, 64])
    async def test_what_was_interrupted_is_completed(self, store: Any, other: Any, cut: int) -> None:
        await fill(store)
        records = await dumped(store)
        with pytest.raises(ConnectionError):
            await other.load(given(records, fail_after=cut))
        for response in (await other.list_responses("alice", limit=100))[0]:  # what is there is whole
            page = await other.read("alice", response.id, after=-1)
            assert page == await store.read("alice", response.id, after=-1)

        await other.load(given(records))

        assert await dumped(other) == records

    async def test_what_was_made_meanwhile_stays(self, store: Any, other: Any) -> None:
        await turn(store, "resp_1")
        await turn(other, "resp_2")

        await other.load(store.dump())

        assert [each.id for each in (await other.list_responses("alice", limit=9))[0]] == ["resp_1", "resp_2"]

    async def test_a_dump_is_of_one_moment(self, store: Any) -> None:
        await fill(store)
        await store.add_items("alice", "conv_2", [item(f"c{number}") for number in range(600)])  # more than one batch
        before = await dumped(store)
        reading = store.dump()
        begun = await anext(reading)

        await store.delete("alice", "resp_1")
        await turn(store, "resp_8")
        records = [*begun, *[record async for batch in reading for record in batch]]

        assert len(begun) < len(before)
        assert records == before
        assert await dumped(store) != before

    async def test_an_abandoned_dump_is_in_nobodys_way(self, store: Any) -> None:
        await fill(store)
        reading = store.dump()
        await anext(reading)
        await reading.aclose()

        await turn(store, "resp_8")

        assert await store.get("alice", "resp_8")

    async def test_an_open_response_goes_on_in_the_other_store(self, store: Any, other: Any) -> None:
        claim = await running(store, items=[item("i1")])
        await store.append(claim, [segment(1)], notes=[Note(1, "turn")])

        await other.load(store.dump())

        with pytest.raises(LeaseLost):
            await other.append(claim, [segment(2)])
        (again,) = await other.claim(limit=9, lease_seconds=60)
        assert (again.tries, again.background) == (2, False)
        await other.append(again, [segment(2)], ending=ending())
        assert (await other.read("alice", "resp_1", after=-1)).closed
        await store.append(claim, [segment(2)])  # here nothing has changed

    async def test_what_waited_still_waits(self, store: Any, other: Any) -> None:
        await store.create("alice", new("resp_1", background=True))

        await other.load(store.dump())

        assert (await other.get("alice", "resp_1")).status == "queued"
        (claim,) = await other.claim(limit=9, lease_seconds=60)
        assert (claim.response_id, claim.tries, claim.background) == ("resp_1", 1, True)

    async def test_turns_of_a_conversation_keep_their_order(self, store: Any, other: Any) -> None:
        await store.create_conversation("alice", NewConversation("conv_1", 1000, b"{}", [item("c1")]))
        await talk(store, "resp_1")
        await talk(store, "resp_2")

        await other.load(store.dump())

        (first,) = await other.claim(limit=9, lease_seconds=60)
        await other.append(first, [segment(1)], ending=ending(item("o")))
        (second,) = await other.claim(limit=9, lease_seconds=60)
        assert [first.response_id, second.response_id] == ["resp_1", "resp_2"]
        told = [each.id for each in await other.context("alice", "resp_2")]
        assert told == ["c1", "in_resp_1", "o", "in_resp_2"]

    async def test_a_turn_of_a_deleted_conversation_can_still_run(self, store: Any, other: Any) -> None:
        await store.create_conversation("alice", NewConversation("conv_1", 1000))
        await talk(store, "resp_1")
        await talk(store, "resp_2")
        await store.delete_conversation("alice", "conv_1")

        await other.load(store.dump())

        claims = await other.claim(limit=9, lease_seconds=60)
        assert sorted(claim.response_id for claim in claims) == ["resp_1", "resp_2"]

    async def test_an_idempotency_key_still_holds(self, store: Any, other: Any) -> None:
        await fill(store)

        await other.load(store.dump())

        with pytest.raises(Repeated) as repeated:
            await other.create("alice", new("resp_9", idempotency=KEY))
        assert repeated.value.response_id == "resp_4"

    async def test_a_deletion_in_the_other_store_erases_what_came_with_it(self, store: Any, other: Any) -> None:
        await turn(store, "resp_1")
        await other.load(store.dump())

        await other.delete("alice", "resp_1")

        with pytest.raises(NotFound):
            await other.get("alice", "resp_1")
        assert await other.find_items("alice", ["in_resp_1", "out_resp_1"]) == {}
        assert await dumped(other) == [record for record in await dumped(other) if not isinstance(record, Response)]

    @pytest.mark.parametrize("missing", ["in_resp_3", "resp_1"])
    async def test_a_record_that_names_what_is_not_there_is_refused(self, store: Any, other: Any, missing: str) -> None:
        await fill(store)
        records = [record for record in await dumped(store) if getattr(record, "id", None) != missing]

        with pytest.raises(StoreError, match=f"'{missing}', which does not come before it"):
            await other.load(given(records))
        await turn(other, "resp_9")  # nothing was left behind that is in the way

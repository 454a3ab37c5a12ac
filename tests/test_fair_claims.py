"""Whose turn it is: one tenant's many waiting responses keep nobody else's waiting."""

import pytest

from antiphon.store.sqlite import SqliteStore
from tests.contracts.store import new


@pytest.fixture
async def store():
    store = SqliteStore(None)
    await store.open()
    yield store
    await store.close()


async def waiting(store, tenant, count):
    for number in range(count):
        await store.create(tenant, new(f"resp_{tenant}_{number}", background=True))


async def claimed(store, limit=1):
    return [claim.response_id for claim in await store.claim(limit=limit, lease_seconds=600)]


async def test_tenants_are_served_in_turn_and_each_ones_oldest_first(store):
    await waiting(store, "alice", 50)
    await waiting(store, "bob", 2)
    await waiting(store, "carol", 1)
    served = [response_id for _ in range(7) for response_id in await claimed(store)]

    assert sorted(served[:3]) == ["resp_alice_0", "resp_bob_0", "resp_carol_0"]
    assert sorted(served[3:5]) == ["resp_alice_1", "resp_bob_1"]
    assert served[5:] == ["resp_alice_2", "resp_alice_3"]


async def test_it_is_the_turn_of_whoever_comes_new(store):
    await waiting(store, "alice", 50)
    await claimed(store, 10)
    await waiting(store, "bob", 3)

    assert await claimed(store) == ["resp_bob_0"]
    assert await claimed(store) == ["resp_alice_10"]
    assert await claimed(store) == ["resp_bob_1"]


async def test_of_several_at_once_each_tenant_has_its_share(store):
    await waiting(store, "alice", 50)
    await waiting(store, "bob", 50)
    tenants = [response_id.split("_")[1] for response_id in await claimed(store, 6)]

    assert sorted(tenants) == ["alice"] * 3 + ["bob"] * 3


async def test_who_is_alone_gets_all(store):
    await waiting(store, "alice", 5)

    assert await claimed(store, 9) == [f"resp_alice_{number}" for number in range(5)]
    assert await claimed(store, 9) == []

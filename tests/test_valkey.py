"""The bell of many nodes by way of Valkey."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from antiphon.store.shared_bell import SharedBell
from antiphon.store.valkey import ValkeyBell
from tests.contracts.shared_bell import Make, SharedBellContract, outlives_its_server
from tests.servers import valkey


@pytest.fixture(scope="module")
def server() -> Iterator[valkey.ValkeyServer]:
    with valkey.server() as own:
        yield own


class TestValkeyBell(SharedBellContract):
    @pytest.fixture
    def new(self, server: valkey.ValkeyServer) -> Callable[[float], SharedBell]:
        return lambda poll_seconds: ValkeyBell(server.url, poll_seconds)

    async def test_a_lost_server_costs_latency_only(self, make: Make, server: valkey.ValkeyServer) -> None:
        await outlives_its_server(make, server)

    async def test_the_names_of_redis_are_understood(self, server: valkey.ValkeyServer) -> None:
        bell = ValkeyBell(server.url.replace("valkey", "redis"), 3600)
        await bell.open()

        assert bell.connected
        await bell.aclose()

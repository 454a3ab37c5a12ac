"""What every bell of many nodes promises, beside `BellContract`.

A test module makes a subclass, named Test..., with a fixture `make`: it makes a bell that is open, as a node does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from antiphon.store.shared_bell import SharedBell
from tests.contracts.bell import BellContract

Make = Callable[..., Awaitable[SharedBell]]


class SharedBellContract(BellContract):
    @pytest.fixture
    async def make(self, new: Callable[..., SharedBell]) -> AsyncIterator[Make]:
        made: list[SharedBell] = []

        async def make(poll_seconds: float = 3600) -> SharedBell:
            made.append(new(poll_seconds))
            await made[-1].open()
            return made[-1]

        yield make
        for bell in made:
            await bell.aclose()

    @pytest.fixture
    async def bell(self, make: Make) -> SharedBell:
        return await make()

    @pytest.fixture
    async def soon(self, make: Make) -> SharedBell:
        return await make(0.002)

    async def test_a_ring_is_heard_on_every_node(self, make: Make) -> None:
        nodes = [await make() for _ in range(3)]
        listeners = [node.listen("resp_1") for node in nodes]
        for listener in listeners:
            listener.__enter__()

        nodes[0].ring("resp_1")

        assert await asyncio.gather(*(listener.wait() for listener in listeners)) == [True, True, True]

    async def test_a_node_does_not_hear_its_own_ring_twice(self, make: Make) -> None:
        one, two = await make(), await make()
        with one.listen("a") as here, one.listen("b") as answer, two.listen("a") as there:
            one.ring("a")
            await here.wait()
            here.clear()
            await there.wait()
            two.ring("b")
            await answer.wait()  # behind our own ring, if that came back

            waiting = asyncio.ensure_future(here.wait())
            await asyncio.sleep(0)
            assert not waiting.done()
            waiting.cancel()

    async def test_more_rings_than_fit_into_a_message_are_all_heard(self, make: Make) -> None:
        one, two = await make(), await make()
        topics = [f"resp_{number:048}" for number in range(1000)]
        listeners = [two.listen(topic) for topic in topics]
        for listener in listeners:
            listener.__enter__()

        for topic in topics:
            one.ring(topic)

        assert all(await asyncio.gather(*(listener.wait() for listener in listeners)))

    async def test_what_rang_last_is_sent_before_closing(self, make: Make) -> None:
        one, two = await make(), await make()
        with two.listen("work") as listener:
            one.ring("work")
            await one.aclose()

            assert await listener.wait()


async def outlives_its_server(make: Make, server: Any) -> None:
    """A lost server costs latency only: rings are heard on the own node, and on all when it is back."""
    one, two = await make(), await make()
    with one.listen("a") as here, two.listen("a") as there:
        server.kill()
        one.ring("a")
        assert await here.wait()
        server.start()
        assert await there.wait()

        there.clear()
        await until_heard(one, two)


async def until_heard(one: SharedBell, two: SharedBell) -> None:
    """Ring until the other node hears: the two reconnect each in its time."""
    with two.listen("b") as there:
        hearing = asyncio.ensure_future(there.wait())
        while not hearing.done():
            one.ring("b")
            await asyncio.wait([hearing], timeout=0.05)
        assert await hearing

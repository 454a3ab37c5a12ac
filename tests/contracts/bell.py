"""What every bell promises. A test module makes a subclass, named Test..., with the fixtures `bell` and `soon`.

`bell` polls rarely, so that nothing but a ring wakes; `soon` polls every few milliseconds.
"""

from __future__ import annotations

import asyncio

import pytest

from antiphon.store.base import Bell


class BellContract:
    async def test_a_ring_wakes_the_listeners_of_its_topic(self, bell: Bell) -> None:
        with bell.listen("a") as one, bell.listen("a") as two:
            waiting = asyncio.gather(one.wait(), two.wait())
            await asyncio.sleep(0)
            bell.ring("a")

            assert list(await waiting) == [True, True]

    async def test_a_ring_of_another_topic_does_not_wake(self, bell: Bell) -> None:
        with bell.listen("a") as a, bell.listen("b") as b:
            waiting = asyncio.ensure_future(a.wait())
            bell.ring("b")

            assert await b.wait()
            assert not waiting.done()
            waiting.cancel()

    async def test_a_ring_between_clear_and_wait_is_not_lost(self, bell: Bell) -> None:
        with bell.listen("a") as listener:
            listener.clear()
            bell.ring("a")

            assert await listener.wait()

    async def test_what_rang_before_clear_is_forgotten(self, bell: Bell) -> None:
        with bell.listen("a") as listener:
            bell.ring("a")
            listener.clear()
            waiting = asyncio.ensure_future(listener.wait())
            await asyncio.sleep(0)

            assert not waiting.done()
            bell.ring("a")
            assert await waiting

    async def test_many_rings_are_as_good_as_one(self, bell: Bell) -> None:
        with bell.listen("a") as listener:
            for _ in range(5):
                bell.ring("a")

            assert await listener.wait()

    async def test_a_ring_that_nobody_hears_does_no_harm(self, bell: Bell) -> None:
        bell.ring("a")

        with bell.listen("a") as listener:
            waiting = asyncio.ensure_future(listener.wait())
            await asyncio.sleep(0)
            assert not waiting.done()
            waiting.cancel()

    async def test_the_poll_interval_wakes_by_itself(self, soon: Bell) -> None:
        with soon.listen("a") as one, soon.listen("b") as two:
            assert list(await asyncio.gather(one.wait(), two.wait())) == [False, False]
            one.clear()
            assert await one.wait() is False

    async def test_a_cancelled_wait_leaves_the_listener_usable(self, bell: Bell) -> None:
        with bell.listen("a") as listener:
            waiting = asyncio.ensure_future(listener.wait())
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            listener.clear()
            bell.ring("a")

            assert await listener.wait()

    async def test_listeners_may_come_and_go_while_it_rings(self, bell: Bell) -> None:
        heard = []

        async def listen_once(number: int) -> None:
            with bell.listen("a") as listener:
                heard.append(await listener.wait())

        tasks = [asyncio.ensure_future(listen_once(number)) for number in range(50)]
        await asyncio.sleep(0)
        bell.ring("a")
        with bell.listen("a"):
            bell.ring("a")
        await asyncio.gather(*tasks)

        assert heard == [True] * 50

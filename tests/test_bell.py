"""The bell of one process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from antiphon.store.bell import LocalBell
from tests.contracts.bell import BellContract


class TestLocalBell(BellContract):
    @pytest.fixture
    def bell(self) -> Iterator[LocalBell]:
        bell = LocalBell(poll_seconds=3600)
        yield bell
        bell.close()

    @pytest.fixture
    def soon(self) -> Iterator[LocalBell]:
        bell = LocalBell(poll_seconds=0.002)
        yield bell
        bell.close()

    async def test_closing_wakes_who_waits(self, bell: LocalBell) -> None:
        with bell.listen("a") as listener:
            waiting = asyncio.ensure_future(listener.wait())
            await asyncio.sleep(0)

            bell.close()

            assert await waiting is False

    async def test_nothing_is_kept_of_a_topic_that_nobody_listens_to(self, bell: LocalBell) -> None:
        for number in range(100):
            with bell.listen(f"resp_{number}"):
                bell.ring(f"resp_{number}")

        assert not bell._listeners

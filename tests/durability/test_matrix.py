"""Every way of asking, at every point, under every fault: what was shown is kept, and all comes right."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from antiphon.conformance import MODES, POINTS, Suite, matrix
from tests.durability.sites import SITES

WHOLE = len(MODES) * len(POINTS)


@pytest.fixture(params=SITES)
async def suite(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Suite]:
    async with SITES[request.param](tmp_path) as suite:
        yield suite


@pytest.mark.timeout(300)  # hundreds of responses, and dozens of processes that start
async def test_nothing_is_lost_and_nothing_runs_on(suite: Suite) -> None:
    found = [finding for schedule in matrix(suite.faults, at_once=WHOLE) for finding in await suite.run(schedule)]

    assert not found, "\n".join(map(str, found))
    assert not await suite.left_running()

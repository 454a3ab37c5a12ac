"""What a server does while nobody waits for it: it erases what has expired and compacts what is finished.

A little at a time, with pauses in proportion to what it took: that measures the disk and everybody else's work, too, so
a busy server is left alone. What is begun is over in some milliseconds, and whatever is left over waits for the next
round.
"""

from __future__ import annotations

import asyncio
import logging
import time

from antiphon.log import Log
from antiphon.store.upkeep import Upkeep

logger = logging.getLogger(__name__)

IDLE_SECONDS = 5.0  # between looks when there was nothing to do
SETTLED_SECONDS = 60.0  # a response's age before it is compacted: what is read or deleted soon is cheaper as it is
EXPIRED_MAX = 2  # erased in one transaction
SHARE = 0.04  # of the time at most


async def maintain(log: Log, upkeep: Upkeep) -> None:
    """Keep a store small, for ever."""
    while True:
        began, found = time.monotonic(), False
        try:
            with log.outage.trying("maintain"):
                found = await step(log, upkeep)
        except Exception:  # whatever it was, there must be a next time
            logger.exception("maintenance failed and is tried again")
        spent = time.monotonic() - began
        await asyncio.sleep(spent * (1 / SHARE - 1) if found else IDLE_SECONDS)


async def step(log: Log, upkeep: Upkeep) -> bool:
    """Do a little of what there is to do; False if there was nothing."""
    expired = await upkeep.expire(limit=EXPIRED_MAX)
    for tenant, response_id in expired:
        log.forget(tenant, response_id)
    return bool(expired) or await upkeep.compact(settled_seconds=SETTLED_SECONDS)

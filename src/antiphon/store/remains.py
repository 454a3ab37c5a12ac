"""remains(): what can still be read of a log, some of which is damaged."""

from __future__ import annotations

from antiphon.errors import StoreError
from antiphon.store.base import Page, Segment, Store

_STRETCH_MAX = 1 << 20  # numbers that no segment reaches over


async def remains(store: Store, tenant: str, response_id: str) -> tuple[list[Segment], int]:
    """The segments that can be read, in order, and the number of the log's last event; -1 if it has none.

    Raises NotFound, and StoreError where nothing can be read and no end is in sight.
    """
    segments: list[Segment] = []
    last = -1
    while True:
        try:
            page = await _next(store, tenant, response_id, after=last)
        except StoreError:
            last = await _behind(store, tenant, response_id, after=last)
            continue
        if not page.segments:
            return segments, last
        segments += page.segments
        last = page.segments[-1].last


async def _next(store: Store, tenant: str, response_id: str, *, after: int) -> Page:
    """One segment, as one that cannot be read spoils the whole page that it is in."""
    return await store.read(tenant, response_id, after=after, limit_bytes=1)


async def _behind(store: Store, tenant: str, response_id: str, *, after: int) -> int:
    """The last number of a segment that holds the one behind `after`, and cannot be read: found by trying."""
    bad, good = after, after + 1
    while not await _can_read(store, tenant, response_id, after=good):
        bad, good = good, good + 2 * (good - after)
        if good - after > _STRETCH_MAX:
            raise StoreError("The log is damaged, and its end cannot be found.", passing=False)
    while good - bad > 1:
        middle = (bad + good) // 2
        if await _can_read(store, tenant, response_id, after=middle):
            good = middle
        else:
            bad = middle
    return good


async def _can_read(store: Store, tenant: str, response_id: str, *, after: int) -> bool:
    try:
        await _next(store, tenant, response_id, after=after)
    except StoreError:
        return False
    return True

"""follow(): the one way to read a log, from any number, while it is written and for as long as it is kept.

Above every store. The tail, what this process wrote last, only saves reads: a follower that it cannot serve reads the
store. Nothing here knows what an event means.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Sequence
from functools import partial

from antiphon.errors import StoreError
from antiphon.store.base import Bell, Page, Segment, Store

STORE_SECONDS_MAX = 60.0  # for so long a follower waits for a store that cannot be read
PAGE_BYTES = 256 << 10  # read at once: a larger page costs more for each event, and the first one comes later
_TAIL_OF_ONE_BYTES_MAX = 1 << 20


class Tail:
    """The last segments that this process committed, of each response it wrote to lately; a bounded cache of the log.

    bytes_max: the frames held, of all responses together; the response written to least lately goes first.
    """

    def __init__(self, *, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._logs: OrderedDict[tuple[str, str], _Log] = OrderedDict()

    def extend(self, tenant: str, response_id: str, segments: Sequence[Segment], *, closed: bool) -> None:
        """Add what has just been committed."""
        key = (tenant, response_id)
        log = self._logs.get(key)
        if log is None:
            log = self._logs[key] = _Log()
        else:
            self._logs.move_to_end(key)
        if log.segments and segments and segments[0].first != log.segments[-1].last + 1:
            self._bytes -= log.clear()  # another worker wrote in between
        log.closed = log.closed or closed
        for segment in segments:
            log.segments.append(segment)
            log.bytes += len(segment.frames)
            self._bytes += len(segment.frames)
        while log.bytes > _TAIL_OF_ONE_BYTES_MAX:
            self._bytes -= log.drop_first()
        while self._bytes > self._bytes_max and len(self._logs) > 1:
            self._bytes -= self._logs.popitem(last=False)[1].bytes

    def read(self, tenant: str, response_id: str, *, after: int) -> Page | None:
        """All segments above `after` that there are now, or None where only the store can tell."""
        log = self._logs.get((tenant, response_id))
        if log is None or not log.segments or log.segments[0].first > after + 1:
            return None
        if log.segments[0].first > after:
            if log.closed and len(log.segments) > 1:
                log.join()  # it does not grow any more, and is replayed from its beginning
            return Page(tuple(log.segments), log.closed)
        fresh: list[Segment] = []
        for segment in reversed(log.segments):
            if segment.first + segment.count - 1 <= after:
                break
            fresh.append(segment)
        fresh.reverse()
        return Page(tuple(fresh), log.closed)

    def is_closed(self, tenant: str, response_id: str) -> bool:
        """Whether it is known to be closed; what is not here is not known."""
        log = self._logs.get((tenant, response_id))
        return log is not None and log.closed

    def forget(self, tenant: str, response_id: str) -> None:
        """Drop a response that is deleted."""
        log = self._logs.pop((tenant, response_id), None)
        if log is not None:
            self._bytes -= log.bytes


class _Log:
    """What the tail holds of one log: consecutive segments up to the last one."""

    __slots__ = ("bytes", "closed", "segments")

    def __init__(self) -> None:
        self.segments: deque[Segment] = deque()
        self.bytes = 0
        self.closed = False

    def drop_first(self) -> int:
        size = len(self.segments.popleft().frames)
        self.bytes -= size
        return size

    def join(self) -> None:
        """Make all segments one."""
        mask = 0
        for segment in self.segments:
            mask |= segment.mask
        first, last = self.segments[0].first, self.segments[-1].last
        frames = b"".join([segment.frames for segment in self.segments])
        self.segments = deque([Segment(first, last - first + 1, frames, mask)])

    def clear(self) -> int:
        size, self.bytes = self.bytes, 0
        self.segments.clear()
        return size


class Reads:
    """Reading logs from a store: those who ask the same, while nothing has rung, share one question and its answer.

    A ring wakes all followers of a response on this node, and most of them are at the same place.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._under_way: dict[tuple[str, str, int, int], asyncio.Task[Page]] = {}

    async def read(self, tenant: str, response_id: str, *, after: int, heard: int) -> Page:
        """What `Store.read` gives. heard: what the reader's `Listener.clear()` gave."""
        key = (tenant, response_id, after, heard)
        reading = self._under_way.get(key)
        if reading is None:
            page = self._store.read(tenant, response_id, after=after, limit_bytes=PAGE_BYTES)
            reading = self._under_way[key] = asyncio.create_task(page)
            reading.add_done_callback(partial(self._end, key))
        try:
            return await asyncio.shield(reading)  # a follower that goes leaves it to the others
        finally:
            del reading  # it holds its error, and that this frame with all who wait for it

    def _end(self, key: tuple[str, str, int, int], reading: asyncio.Task[Page]) -> None:
        del self._under_way[key]
        if not reading.cancelled():
            reading.exception()  # all of them may have gone: then its error is nobody's


async def follow(
    reads: Reads, tail: Tail, bell: Bell, tenant: str, response_id: str, *, after: int = -1
) -> AsyncIterator[tuple[Segment, ...]]:
    """Yield the segments of a log in order, waiting for new ones until it is closed.

    after: the last sequence_number already seen; -1 begins at the beginning. The first segment may begin before it.
    Yields an empty tuple whenever the poll interval passes without news, so that the caller can show that it lives.
    An `after` at or past the end of a closed log yields nothing. Raises NotFound if the response is unknown, or is
    deleted meanwhile, and StoreError if the store cannot be read for longer than a follower waits.
    Source: GET /responses/{response_id}, `starting_after`.
    """
    rang = True
    failing_since: float | None = None
    with bell.listen(response_id) as rung:
        while True:
            heard = rung.clear()  # before the read: a ring that comes in between must not be lost
            # When nobody rings, the store is asked: another node may have written, and its ring been lost. So it is
            # when the tail has no news: then it was another node that rang.
            page = tail.read(tenant, response_id, after=after) if rang else None
            if page is None or not (page.closed or page.segments):
                try:
                    page = await reads.read(tenant, response_id, after=after, heard=heard)
                    failing_since = None
                except StoreError as error:
                    failing_since = failing_since or time.monotonic()
                    if not error.passing or time.monotonic() - failing_since > STORE_SECONDS_MAX:
                        raise
                    page = Page((), closed=False)  # when the store is well again, there may be news
            if page.segments:
                after = max(after, page.segments[-1].last)
                yield page.segments
            if page.closed:
                return
            rang = page.more or await rung.wait()
            if not rang:
                yield ()

"""Group commit: one connection on which all appends of this node are committed, in as few transactions as possible.

It takes all that waits and commits it together. When idle it commits at once; under load it waits a little after each
commit, as the round trip costs more than the rows. If the connection is lost, it goes on with another one; what was
committed without our hearing of it is found by its attempt and number, so nothing is written twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import astuple
from typing import Any, NamedTuple

import asyncpg

from antiphon.errors import AntiphonError, LeaseLost, StoreError
from antiphon.store import postgres_conversations as conversations
from antiphon.store.base import Claim, Ending, Note, Segment
from antiphon.store.postgres_database import (
    COLLISIONS_MAX,
    SQL,
    Collided,
    Database,
    is_lost,
    pauses,
    translated,
)
from antiphon.store.postgres_rows import Link, link

logger = logging.getLogger(__name__)

COMMIT_INTERVAL_SECONDS = 0.003
WAITING_BYTES_MAX = 8 << 20
CLOSE_PAUSE_SECONDS_MAX = 0.2  # who closes does not wait for a database that does not come back soon

# Each row of a batch is looked up by its key. The planner cannot know that all that is given is found, and would rather
# read all open responses of all nodes.
_PLANS = {"enable_hashjoin": "off", "enable_mergejoin": "off"}

_OUTPUT = 1
_TO_BE_CONTINUED = ("completed", "incomplete")  # such a turn becomes a part of its conversation


class Append(NamedTuple):
    """What is to be added to one log, or not at all."""

    claim: Claim
    segments: Sequence[Segment]
    notes: Sequence[Note]
    ending: Ending | None
    future: asyncio.Future[None]
    size: int

    @property
    def plain(self) -> bool:
        """Whether it is one segment and nothing else, as nearly all are."""
        return len(self.segments) == 1 and not self.notes and self.ending is None


class Mark(NamedTuple):
    """That somebody follows a response."""

    tenant: str
    response_id: str
    seconds: float
    future: asyncio.Future[None]


class _Torn(Exception):
    """An append was refused after a part of it was written: the transaction must not be committed."""


class Writer:
    """The connection and its queue.

    append_seconds: how long an append is tried again while the database cannot be reached.
    """

    def __init__(self, database: Database, *, append_seconds: float) -> None:
        self._database = database
        self._append_seconds = append_seconds
        self._connection: asyncpg.Connection | None = None
        self._appends: list[Append] = []
        self._marks: list[Mark] = []
        self._wanted = asyncio.Event()
        self._room = asyncio.Event()
        self._closed = False
        self.waiting_bytes = 0
        self._running = asyncio.create_task(self._run(), name="antiphon-writer")

    def append(
        self, claim: Claim, segments: Sequence[Segment], notes: Sequence[Note], ending: Ending | None
    ) -> asyncio.Future[None]:
        """Done once it is committed; LeaseLost if it was refused."""
        size = sum(len(segment.frames) for segment in segments)
        append = Append(claim, segments, notes, ending, self._future(), size)
        self.waiting_bytes += size
        self._appends.append(append)
        return append.future

    def mark(self, tenant: str, response_id: str, seconds: float) -> asyncio.Future[None]:
        """Done once the mark is committed."""
        mark = Mark(tenant, response_id, seconds, self._future())
        self._marks.append(mark)
        return mark.future

    @property
    def full(self) -> bool:
        return self.waiting_bytes >= WAITING_BYTES_MAX

    async def room(self) -> None:
        """Return when there is room for more bytes: a slow database slows those who write, and fills no memory."""
        while self.full:
            self._room.clear()
            await self._room.wait()

    async def close(self) -> None:
        """Commit what waits, and end."""
        self._closed = True
        self._wanted.set()
        await self._running
        if self._connection is not None:
            await self._connection.close()

    def _future(self) -> asyncio.Future[None]:
        if self._closed:
            raise StoreError("The store is closed.", passing=False)
        self._wanted.set()
        return asyncio.get_running_loop().create_future()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        committed = 0.0
        while not (self._closed and not self._appends and not self._marks):
            await self._wanted.wait()
            await asyncio.sleep(max(0.0, committed + COMMIT_INTERVAL_SECONDS - loop.time()))
            if not self._closed:
                self._wanted.clear()
            marks, self._marks = self._marks, []
            appends, self._appends = self._appends, []
            try:
                results = await self._committed(appends, marks)
            except Exception as error:  # nothing ends this task: who waits for it would wait for ever
                logger.error("the writer failed: %s", error, exc_info=not isinstance(error, asyncpg.PostgresError))
                results = [translated(error)] * len(appends)
            committed = loop.time()
            _deliver([mark.future for mark in marks], [None] * len(marks))
            _deliver([append.future for append in appends], results)
            self.waiting_bytes -= sum(append.size for append in appends)
            if not self.full:
                self._room.set()

    async def _committed(self, appends: Sequence[Append], marks: Sequence[Mark]) -> list[Exception | None]:
        """The outcome of each append; tried again when the connection is lost."""
        loop = asyncio.get_running_loop()
        deadline: float | None = None
        uncertain = False
        for pause in pauses():
            try:
                if self._connection is None or self._connection.is_closed():
                    self._connection = await self._database.connect(**_PLANS)
                if marks:
                    await _mark(self._connection, marks)
                return await _carried_out(self._connection, appends, uncertain=uncertain)
            except Exception as error:
                if not is_lost(error):
                    raise
                if self._connection is not None:
                    self._connection.terminate()
                uncertain = True
                deadline = deadline or loop.time() + self._append_seconds
                if loop.time() + pause > deadline or (self._closed and pause > CLOSE_PAUSE_SECONDS_MAX):
                    logger.error("appends are given up: the database cannot be reached: %s", error)
                    failure = StoreError(f"The database cannot be reached: {error or type(error).__name__}")
                    return [failure] * len(appends)
                await asyncio.sleep(pause)
        raise AssertionError("pauses end never")


def _deliver(futures: Sequence[asyncio.Future[None]], results: Sequence[Exception | None]) -> None:
    for future, result in zip(futures, results, strict=True):
        if future.done():  # cancelled: what was committed stays committed
            continue
        if result is None:
            future.set_result(None)
        else:
            future.set_exception(result)


async def _mark(connection: Any, marks: Sequence[Mark]) -> None:
    columns = [list(column) for column in zip(*(mark[:3] for mark in marks), strict=True)]
    try:
        await connection.execute(SQL["mark_followed"], *columns)
    except asyncpg.PostgresError as error:
        if is_lost(error):
            raise
        logger.warning("followers could not be marked: %s", error)  # they are again, soon


async def _carried_out(connection: Any, appends: Sequence[Append], *, uncertain: bool) -> list[Exception | None]:
    """The outcome of each append. One that is refused, or fails, does not disturb the others.

    uncertain: they may have been committed before, without our hearing of it.
    """
    if uncertain:
        return await _carried_out_once(connection, appends)
    if not appends:
        return []
    try:
        if all(append.plain for append in appends):
            return await _append_segments(connection, appends)
        async with connection.transaction():
            return await _together(connection, appends)
    except Exception as error:
        if is_lost(error):
            raise
        return [(await _alone(connection, append)) for append in appends]


async def _carried_out_once(connection: Any, appends: Sequence[Append]) -> list[Exception | None]:
    """The same for appends that may have been committed already."""
    rest = [append for append in appends if not await _is_stored(connection, append)]
    outcomes = dict(zip(map(id, rest), await _carried_out(connection, rest, uncertain=False), strict=True))
    for append in rest:
        # What we had sent over the lost connection may have been carried out only now, and been in our own way.
        if isinstance(outcomes[id(append)], LeaseLost) and await _is_stored(connection, append):
            outcomes[id(append)] = None
    return [outcomes.get(id(append)) for append in appends]


async def _alone(connection: Any, append: Append) -> Exception | None:
    failure: Exception = StoreError()
    for _ in range(COLLISIONS_MAX):
        try:
            async with connection.transaction():
                (result,) = await _together(connection, [append])
                return result
        except (Collided, asyncpg.DeadlockDetectedError, asyncpg.SerializationError) as collision:
            failure = StoreError("The database is too busy with the same rows.")
            failure.__cause__ = collision
        except Exception as error:
            if is_lost(error):
                raise
            return _refusal(error)
    return failure


def _refusal(error: Exception) -> Exception:
    if isinstance(error, _Torn):
        return LeaseLost()
    return error if isinstance(error, AntiphonError) else translated(error)


async def _append_segments(connection: Any, appends: Sequence[Append]) -> list[Exception | None]:
    """Append one segment to each of many logs."""
    refused = await connection.fetch(
        SQL["append_segments"], *_columns([_row(append.claim, append.segments[0]) for append in appends])
    )
    results: list[Exception | None] = [None] * len(appends)
    for (place,) in refused:
        results[place - 1] = LeaseLost()
    return results


def _row(claim: Claim, segment: Segment) -> tuple[Any, ...]:
    first = segment.first
    last = first + segment.count - 1
    return (claim.tenant, claim.response_id, claim.attempt, first, last, segment.mask, segment.frames)


def _columns(rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return list(zip(*rows, strict=True))


async def _together(connection: Any, appends: Sequence[Append]) -> list[Exception | None]:
    """The outcome of each, inside one transaction. Raises _Torn if one is refused of which a part was written."""
    lost: set[int] = set()
    segments = [(place, _row(each.claim, segment)) for place, each in enumerate(appends) for segment in each.segments]
    written = await _write(connection, "append_segments", segments, lost)
    notes = [
        (place, (each.claim.tenant, each.claim.response_id, each.claim.attempt, note.after, note.kind, note.body))
        for place, each in enumerate(appends)
        for note in each.notes
        if place not in lost
    ]
    written |= await _write(connection, "append_notes", notes, lost)
    endings = [(place, each) for place, each in enumerate(appends) if each.ending is not None and place not in lost]
    if endings:
        ended = await _end(connection, [each for _, each in endings])
        lost |= {place for number, (place, _) in enumerate(endings) if number not in ended}
    if lost & written:
        raise _Torn
    return [LeaseLost() if place in lost else None for place in range(len(appends))]


async def _write(
    connection: Any, statement: str, rows: Sequence[tuple[int, tuple[Any, ...]]], lost: set[int]
) -> set[int]:
    """Write rows, each for the append at a place; gives the places that were written for, and adds the lost ones."""
    if not rows:
        return set()
    refused = {place - 1 for (place,) in await connection.fetch(SQL[statement], *_columns([row for _, row in rows]))}
    lost |= {rows[number][0] for number in refused}
    return {place for number, (place, _) in enumerate(rows) if number not in refused}


async def _end(connection: Any, appends: Sequence[Append]) -> set[int]:
    """Close the logs; gives the places of those that were closed."""
    rows = []
    for append in appends:
        claim, ending = append.claim, append.ending
        assert ending is not None
        key = (claim.tenant, claim.response_id, claim.attempt)
        rows.append((*key, ending.status, ending.response, ending.mask, *astuple(ending.tokens)))
    links: list[Link] = []
    turns: dict[int, Sequence[Any] | None] = {}
    failed: list[int] = []
    closed = await connection.fetch(SQL["end"], *_columns(rows))
    for place, row, is_turn in closed:
        claim, ending = appends[place - 1].claim, appends[place - 1].ending
        assert ending is not None
        links += [Link(row, _OUTPUT, number, claim.tenant, item) for number, item in enumerate(ending.items)]
        if is_turn:
            turns[row] = ending.items if ending.status in _TO_BE_CONTINUED else None
        if ending.status == "failed" and not ending.items:
            failed.append(row)
    await link(connection, links)
    if turns:
        await conversations.end_turns(connection, turns)
    if failed:
        await connection.execute(SQL["delete_keys"], failed)
    return {place - 1 for place, _, _ in closed}


async def _is_stored(connection: Any, append: Append) -> bool:
    """Whether this append was committed: all of it was, or nothing."""
    claim = append.claim
    key = (claim.tenant, claim.response_id, claim.attempt)
    await connection.execute(SQL["settle"], claim.tenant, claim.response_id)
    if append.ending is not None:
        row = await connection.fetchrow(SQL["ended"], *key)
    elif append.segments:
        row = await connection.fetchrow(SQL["appended"], *key, append.segments[0].first)
    elif append.notes:
        note = append.notes[0]
        row = await connection.fetchrow(SQL["noted"], *key, note.after, note.kind, note.body)
    else:
        return False
    return row is not None

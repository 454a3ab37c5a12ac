"""Group commit: one thread that owns a connection, and carries out operations in as few transactions as possible.

It takes all operations that wait, commits them together and hands all results back to the event loop in one call. When
idle it commits at once; under load it waits a little after each commit, as the commit is what costs, not the operation.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

import apsw

from antiphon.errors import AntiphonError, StoreError
from antiphon.store.sqlite_checkpoint import Checkpointer
from antiphon.store.sqlite_file import Files

COMMIT_INTERVAL_SECONDS = 0.003
WAITING_BYTES_MAX = 8 << 20
CHECKPOINT_PAGES = 4000  # 16 MB: a page that is written again and again is moved once for all of it
ERASE_DELAY_SECONDS = 0.4  # deletions within it share one truncation of the write-ahead log
ERASE_RETRY_SECONDS = 0.05  # a reader was in the way

# The disk, or another process, is in the way; all other errors come again.
_PASSING = (
    apsw.FullError,
    apsw.IOError,
    apsw.ReadOnlyError,
    apsw.CantOpenError,
    apsw.BusyError,
    apsw.LockedError,
    apsw.NoMemError,
)


class Operation(NamedTuple):
    """A function to be called with a cursor, inside a transaction, and the arguments behind it."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    together: Callable[[apsw.Cursor, Sequence[tuple[Any, ...]]], None] | None = None
    """Carries out several such operations, given their arguments, at less cost; raises if one of them would refuse."""
    erases: bool = False  # what it deletes is to vanish from the write-ahead log soon


class _Waiting(NamedTuple):
    operation: Operation
    future: asyncio.Future[Any]
    size: int


def carry_out(cursor: apsw.Cursor, operations: Sequence[Operation]) -> list[Any]:
    """Commit the operations; gives, for each, its result or its error.

    An operation that refuses, with one of our errors and before its first change, does not disturb the others. After
    any other failure the transaction is rolled back, and each operation gets one of its own.
    """
    error: Exception = StoreError()
    for way in (_together, _one_by_one):
        try:
            cursor.execute("BEGIN IMMEDIATE")
        except apsw.Error as caught:  # no fault of any operation, and to wait for a lock takes long
            return [failed(_bare(caught))] * len(operations)
        try:
            results = way(cursor, operations)
            cursor.execute("COMMIT")
            return results
        except Exception as caught:
            error = _bare(caught)
            if not cursor.connection.get_autocommit():
                cursor.execute("ROLLBACK")
    if len(operations) > 1:
        return [carry_out(cursor, [operation])[0] for operation in operations]
    return [failed(error) if isinstance(error, apsw.Error) else error]


def _together(cursor: apsw.Cursor, operations: Sequence[Operation]) -> list[Any]:
    """Neighbours of one kind are carried out together: fewer statements, and fewer turns of waiting for the GIL."""
    results: list[Any] = []
    for together, group in groupby(operations, key=attrgetter("together")):
        if together is None:
            results += _one_by_one(cursor, group)
        else:
            arguments = [operation.arguments for operation in group]
            together(cursor, arguments)
            results += [None] * len(arguments)
    return results


def _one_by_one(cursor: apsw.Cursor, operations: Iterable[Operation]) -> list[Any]:
    results: list[Any] = []
    for operation in operations:
        before = cursor.connection.total_changes()
        try:
            results.append(operation.function(cursor, *operation.arguments))
        except AntiphonError as refusal:
            if cursor.connection.total_changes() != before:
                raise
            results.append(_bare(refusal))
    return results


def _bare(error: Exception) -> Exception:
    """The error without its traceback, which would make a cycle: its frames hold the error, or their callers' do.

    Whoever gets it at last would be kept with all that he has in hand, a whole prompt, until the collector comes.
    """
    if not isinstance(error, (AntiphonError, apsw.Error)):  # a fault of ours: where it happened is to be known
        error.add_note("In the store:\n" + "".join(traceback.format_tb(error.__traceback__)))
    return error.with_traceback(None)


def failed(error: Exception) -> StoreError:
    """What the store says of an error of the database that it did not expect."""
    translated = StoreError(f"The database failed: {error}", passing=isinstance(error, _PASSING))
    translated.__cause__ = error
    return translated


def _is_full(result: Any) -> bool:
    return isinstance(result, StoreError) and isinstance(result.__cause__, apsw.FullError)


class Writer:
    """The thread and its queue. All methods belong to the event loop that it was made in."""

    def __init__(self, connection: apsw.Connection, checkpointer: Checkpointer, files: Files) -> None:
        self._connection = connection
        self._files = files
        self._connection.set_wal_hook(self._note_log_pages)
        self._log_pages = 0  # in the write-ahead log
        self._move_at = CHECKPOINT_PAGES
        self._checkpointer = checkpointer
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._closed = False
        self._room = asyncio.Event()
        self._emptied = asyncio.Event()
        self.waiting_bytes = 0
        self._thread = threading.Thread(target=self._run, name="antiphon-writer", daemon=True)
        self._thread.start()

    def submit(self, operation: Operation, *, size: int = 0) -> asyncio.Future[Any]:
        """The operation's result, once it is committed."""
        if self._closed:
            raise StoreError("The store is closed.", passing=False)
        future = self._loop.create_future()
        self.waiting_bytes += size
        self._queue.put(_Waiting(operation, future, size))
        return future

    async def erased(self) -> None:
        """Return when nothing that was deleted before is in the write-ahead log any more."""
        await self.submit(Operation(lambda _cursor: None, (), erases=True))
        await self._emptied.wait()

    @property
    def full(self) -> bool:
        return self.waiting_bytes >= WAITING_BYTES_MAX

    async def room(self) -> None:
        """Return when there is room for more bytes: a slow disk slows those who write, and fills no memory."""
        while self.full:
            self._room.clear()
            await self._room.wait()

    async def close(self) -> None:
        """Commit what waits, erase what is deleted, and end the thread and its connection."""
        self._closed = True
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _deliver(self, batch: Sequence[_Waiting], results: Sequence[Any]) -> None:
        for waiting, result in zip(batch, results, strict=True):
            self.waiting_bytes -= waiting.size
            future = waiting.future
            if future.done():  # cancelled: what was committed stays committed
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
        if not self.full:
            self._room.set()

    def _run(self) -> None:
        cursor = self._connection.cursor()
        committed = 0.0
        erase_at: float | None = None
        closing = False
        while not closing:
            batch, closing = self._gather(committed + COMMIT_INTERVAL_SECONDS, erase_at)
            if batch:
                results = self._carried_out(cursor, batch)
                committed = time.monotonic()
                if any(waiting.operation.erases for waiting in batch):
                    erase_at = erase_at or committed + ERASE_DELAY_SECONDS
                    self._tell(self._emptied.clear)
                self._tell(self._deliver, batch, results)
                if any(map(_is_full, results)):
                    self._checkpointer.empty()  # what is in the write-ahead log many times takes less room in the file
                self._move_log()
            if erase_at is not None and (closing or time.monotonic() >= erase_at):
                if self._checkpointer.empty():
                    erase_at = None
                    self._tell(self._emptied.set)
                else:
                    erase_at = time.monotonic() + ERASE_RETRY_SECONDS
        self._connection.close()
        self._checkpointer.close()

    def _carried_out(self, cursor: apsw.Cursor, batch: Sequence[_Waiting]) -> list[Any]:
        """The results of a batch. Nothing ends this thread: who waits for it would wait for ever."""
        try:
            self._files.check()
            results = carry_out(cursor, [waiting.operation for waiting in batch])
            self._files.check()  # again: only what is in the files that are there now is acknowledged
            return results
        except StoreError as error:
            return [error] * len(batch)
        except Exception as error:
            with contextlib.suppress(apsw.Error):
                if not self._connection.get_autocommit():
                    cursor.execute("ROLLBACK")
            return [StoreError(f"The database failed: {error}")] * len(batch)

    def _move_log(self) -> None:
        """Move the write-ahead log when it has grown; each try costs as much as is left in it.

        While somebody reads an old state it cannot begin anew, and would be tried in vain after each commit.
        """
        if self._log_pages < CHECKPOINT_PAGES:
            self._move_at = CHECKPOINT_PAGES
        elif self._log_pages >= self._move_at:
            self._move_at = self._log_pages + CHECKPOINT_PAGES
            self._checkpointer.move()

    def _note_log_pages(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        self._log_pages = pages
        return apsw.SQLITE_OK

    def _tell(self, function: Callable[..., object], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
            self._loop.call_soon_threadsafe(function, *arguments)

    def _gather(self, earliest: float, until: float | None) -> tuple[list[_Waiting], bool]:
        """All that waits, and whether it is the last; nothing if nothing comes until then."""
        batch: list[_Waiting] = []
        with contextlib.suppress(Empty):
            waiting = self._queue.get(timeout=None if until is None else max(0.0, until - time.monotonic()))
            pause = earliest - time.monotonic()
            if pause > 0:
                time.sleep(pause)
            while waiting is not None:
                batch.append(waiting)
                waiting = self._queue.get_nowait()
            return batch, True
        return batch, False

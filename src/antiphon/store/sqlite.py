"""The store as a SQLite file, or, without a path, in memory.

Writes go through one thread with group commit; small reads run inline on a connection of the event loop's own, which
costs a tenth of a thread's round trip. One server process owns the file, so at its start no lease can be alive.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeVar, cast

import apsw

from antiphon.errors import StoreError
from antiphon.store import sqlite_conversations as conversations
from antiphon.store import sqlite_export as export
from antiphon.store import sqlite_prompts as prompts
from antiphon.store import sqlite_reads as reads
from antiphon.store import sqlite_writes as writes
from antiphon.store.base import (
    Claim,
    Conversation,
    Ending,
    Idempotency,
    Item,
    NewConversation,
    NewResponse,
    Note,
    Overdue,
    Page,
    PromptVersion,
    Renewal,
    Segment,
    Stored,
)
from antiphon.store.portable import Record
from antiphon.store.sqlite_checkpoint import Checkpointer
from antiphon.store.sqlite_file import Files, Ownership, connect, connect_memory, open_file, translating
from antiphon.store.sqlite_keys import SqliteKeys
from antiphon.store.sqlite_upkeep import SqliteUpkeep
from antiphon.store.writer import Operation, Writer, carry_out, failed

T = TypeVar("T")

APPEND_PAUSE_SECONDS = 0.02  # before the second try, and twice as long before each further one
APPEND_PAUSE_SECONDS_MAX = 1.0
INLINE_BYTES_MAX = 1 << 20  # larger pages are read by a thread
UNPACKED_INLINE_BYTES_MAX = 1 << 17  # larger pages of compacted logs are unpacked by a thread
INLINE_ANCESTORS_MAX = 50  # and so are longer contexts, those of conversations and pages of a list


class SqliteStore:
    """A `Store` in the file at `path`, or in memory if that is None.

    durability: "full": what was acknowledged survives a power cut; "process": a killed process only, and is cheaper.
    append_seconds: how long appends wait for a disk that takes nothing.
    """

    def __init__(
        self,
        path: str | None,
        *,
        durability: Literal["full", "process"] = "full",
        append_seconds: float = 60.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._durability = durability
        self._append_seconds = append_seconds
        self._now = now
        self._served: dict[str, int] = {}  # which tenant's response was claimed when, counted from the first
        self._damaged: set[int] = set()  # rows that cannot be claimed
        self._ownership: Ownership | None = None
        self._reader: apsw.Connection | None = None
        self._writer: Writer | None = None  # None also in memory, where writes run inline
        self._files: Files | None = None
        self._aside: ThreadPoolExecutor | None = None
        self._aside_reader: apsw.Connection | None = None

    async def open(self, *, exclusive: bool = True, makes: bool = True) -> None:
        """Open the file, or make it if there is none.

        exclusive: as the one server process of this file: a second one is refused, and all leases end. Short commands
        beside a server open it without.
        makes: else a file that is not there is refused. Raises StoreError.
        """
        if self._path is None:
            self._reader = connect_memory(now=self._now)
            return
        connection, self._ownership = await asyncio.to_thread(
            open_file, self._path, durability=self._durability, exclusive=exclusive, makes=makes, now=self._now
        )
        try:
            with translating(self._path):
                checkpointer = Checkpointer(self._path)
                checkpointer.empty()  # what was deleted just before a crash
                self._reader = connect(self._path, durability=self._durability, now=self._now)
            self._files = Files(self._path)
            self._writer = Writer(connection, checkpointer, self._files)
        except BaseException:
            connection.close()
            await self.close()  # the lock is let go of, so that it can be tried again
            raise

    async def close(self) -> None:
        if self._aside is not None:
            self._aside.shutdown()
        for reader in (self._aside_reader, self._reader):
            if reader is not None:
                reader.close()
        self._aside = self._aside_reader = self._reader = None
        if self._writer is not None:
            writer, self._writer = self._writer, None
            await writer.close()
        if self._ownership is not None:
            self._ownership.release()
            self._ownership = None

    async def create(self, tenant: str, new: NewResponse, *, lease_seconds: float | None = None) -> Claim | None:
        size = len(new.request) + sum(len(item.body) for item in new.items)
        return await self._write(writes.create, tenant, new, self._now(), lease_seconds, size=size)

    async def check_key(self, tenant: str, idempotency: Idempotency) -> None:
        self._inline(writes.check_key, tenant, idempotency, self._now())

    async def claim(self, *, limit: int, lease_seconds: float, background: bool = True) -> list[Claim]:
        known = (self._served, self._damaged)
        return await self._write(writes.claim, limit, self._now(), lease_seconds, background, *known)

    async def seize(self, tenant: str, response_id: str, *, lease_seconds: float) -> Claim | None:
        return await self._write(writes.seize, tenant, response_id, self._now(), lease_seconds)

    async def renew(self, claims: Sequence[Claim], *, lease_seconds: float, grace_seconds: float) -> Renewal:
        return await self._write(writes.renew, claims, self._now(), lease_seconds, grace_seconds)

    async def overdue_turns(self, *, wait_seconds: float, grace_seconds: float) -> list[Overdue]:
        return self._inline(conversations.overdue_turns, self._now() - wait_seconds, self._now() - grace_seconds)

    async def release(self, claim: Claim) -> None:
        await self._write(writes.release, claim)

    async def append(
        self, claim: Claim, segments: Sequence[Segment], *, notes: Sequence[Note] = (), ending: Ending | None = None
    ) -> None:
        try:
            await self._append(claim, segments, notes, ending)
        except StoreError as error:
            if not error.passing or self._path is None:
                raise
            await self._append_again(claim, segments, notes, ending)

    async def _append_again(
        self, claim: Claim, segments: Sequence[Segment], notes: Sequence[Note], ending: Ending | None
    ) -> None:
        """Append what the disk did not take, when it does: what failed was rolled back, and is nowhere."""
        deadline = time.monotonic() + self._append_seconds
        pause = APPEND_PAUSE_SECONDS
        while True:
            await asyncio.sleep(pause)
            try:
                await self._append(claim, segments, notes, ending)
                return
            except StoreError as error:
                if not error.passing or time.monotonic() + pause > deadline:
                    raise
            pause = min(2 * pause, APPEND_PAUSE_SECONDS_MAX)

    async def _append(
        self, claim: Claim, segments: Sequence[Segment], notes: Sequence[Note], ending: Ending | None
    ) -> None:
        if len(segments) == 1 and not notes and ending is None:  # nearly always: one statement, a piece of a stream
            await self._append_segment(writes.bindings_of(claim, segments[0]), len(segments[0].frames))
        else:
            size = sum(len(segment.frames) for segment in segments)
            await self._write(writes.append, claim, segments, notes, ending, size=size)

    async def get(self, tenant: str, response_id: str) -> Stored:
        return self._inline(reads.get, tenant, response_id)

    async def read(self, tenant: str, response_id: str, *, after: int, limit_bytes: int = 1 << 20) -> Page:
        if limit_bytes > INLINE_BYTES_MAX:
            kept = await self._read_aside(reads.read, tenant, response_id, after, limit_bytes)
        else:
            kept = self._inline(reads.read, tenant, response_id, after, limit_bytes)
        if kept.response is not None and kept.size > UNPACKED_INLINE_BYTES_MAX:
            return await asyncio.to_thread(kept.plain)
        return kept.plain()

    async def notes(self, tenant: str, response_id: str) -> list[Note]:
        return self._inline(reads.notes, tenant, response_id)

    async def context(self, tenant: str, response_id: str, *, output: bool = False) -> list[Item]:
        ancestors, of_conversation = self._inline(reads.extent, tenant, response_id)
        if ancestors > INLINE_ANCESTORS_MAX or of_conversation:
            return await self._read_aside(reads.context, tenant, response_id, output)
        return self._inline(reads.context, tenant, response_id, output)

    async def mark_followed(self, tenant: str, response_id: str, *, seconds: float) -> None:
        await self._write(writes.mark_followed, tenant, response_id, self._now() + seconds)

    async def delete(self, tenant: str, response_id: str) -> bool:
        return await self._write(writes.delete, tenant, response_id, erases=True)

    async def find_items(self, tenant: str, ids: Sequence[str]) -> dict[str, Item]:
        return self._inline(reads.find_items, tenant, ids)

    async def list_responses(
        self,
        tenant: str,
        *,
        limit: int,
        after: str | None = None,
        descending: bool = True,
        status: str | None = None,
        model: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> tuple[list[Stored], bool]:
        return await self._read_aside(reads.list_responses, tenant, limit, after, descending, status, model, metadata)

    async def count_background(self, tenant: str) -> int:
        return self._inline(reads.count_background, tenant)

    async def backlog(self) -> int:
        return self._inline(reads.count_background, None)

    async def create_conversation(self, tenant: str, new: NewConversation) -> None:
        await self._write(conversations.create, tenant, new)

    async def get_conversation(self, tenant: str, conversation_id: str) -> Conversation:
        return self._inline(conversations.get, tenant, conversation_id)

    async def update_conversation(self, tenant: str, conversation_id: str, *, metadata: bytes) -> Conversation:
        return await self._write(conversations.update, tenant, conversation_id, metadata)

    async def delete_conversation(self, tenant: str, conversation_id: str) -> None:
        await self._write(conversations.delete, tenant, conversation_id, erases=True)

    async def add_items(self, tenant: str, conversation_id: str, items: Sequence[Item]) -> None:
        await self._write(conversations.add_items, tenant, conversation_id, items)

    async def list_items(
        self, tenant: str, conversation_id: str, *, limit: int, after: str | None = None, descending: bool = True
    ) -> tuple[list[Item], bool]:
        return await self._read_aside(conversations.list_items, tenant, conversation_id, limit, after, descending)

    async def conversation_bytes(self, tenant: str, conversation_id: str) -> int:
        return await self._read_aside(conversations.conversation_bytes, tenant, conversation_id)

    async def get_item(self, tenant: str, conversation_id: str, item_id: str) -> Item:
        return self._inline(conversations.get_item, tenant, conversation_id, item_id)

    async def delete_item(self, tenant: str, conversation_id: str, item_id: str) -> Conversation:
        return await self._write(conversations.delete_item, tenant, conversation_id, item_id, erases=True)

    async def put_prompt(self, tenant: str, prompt_id: str, body: bytes) -> PromptVersion:
        return await self._write(prompts.put, tenant, prompt_id, body, self._now())

    async def get_prompt(self, tenant: str, prompt_id: str, version: int | None = None) -> PromptVersion:
        return self._inline(prompts.get, tenant, prompt_id, version)

    async def list_prompts(
        self, tenant: str, *, limit: int, after: str | None = None, descending: bool = True
    ) -> tuple[list[PromptVersion], bool]:
        return await self._read_aside(prompts.list_page, tenant, limit, after, descending)

    async def delete_prompt(self, tenant: str, prompt_id: str) -> None:
        await self._write(prompts.delete, tenant, prompt_id, erases=True)

    @property
    def keys(self) -> SqliteKeys:
        """The API keys of the database."""
        return SqliteKeys(self._inline, self._write)

    def dump(self) -> AsyncGenerator[Sequence[Record], None]:
        path, reader = self._path, self._opened()
        if path is None:
            snapshot = export.copied(reader)
            return export.dump(lambda: snapshot, None)
        return export.dump(lambda: connect(path, durability=self._durability), path)

    async def load(self, batches: AsyncIterable[Sequence[Record]]) -> Counter[type[Record]]:
        path, reader = self._path, self._opened()
        if path is None:
            return await export.load_inline(reader, batches)
        return await export.load(lambda: connect(path, durability=self._durability), path, batches)

    @property
    def upkeep(self) -> SqliteUpkeep:
        """What is done in idle time, and what was used."""
        return SqliteUpkeep(self._read_aside, self._write, self._now)

    async def check(self) -> None:
        await self._write(_write_something)

    async def erased(self) -> None:
        """Return when what has been deleted is in none of the files any more: within a second, if no reader is slow."""
        if self._writer is not None:
            await self._writer.erased()

    async def _append_segment(self, bindings: tuple[Any, ...], size: int) -> None:
        writer = self._writer
        if writer is None:
            self._inline(writes.append_segment, *bindings)
            return
        if writer.full:
            await writer.room()
        await writer.submit(Operation(writes.append_segment, bindings, together=writes.append_segments), size=size)

    async def _write(self, function: Callable[..., T], *arguments: Any, size: int = 0, erases: bool = False) -> T:
        operation = Operation(function, arguments, erases=erases)
        writer = self._writer
        if writer is None:
            (result,) = carry_out(self._opened().cursor(), [operation])
            if isinstance(result, Exception):
                raise result
            return cast("T", result)
        if size and writer.full:
            await writer.room()
        return cast("T", await writer.submit(operation, size=size))

    def _inline(self, function: Callable[..., T], *arguments: Any) -> T:
        """What the function makes of a cursor on the event loop's own connection."""
        try:
            return function(self._opened().cursor(), *arguments)
        except apsw.Error as error:
            raise failed(error) from error

    async def _read_aside(self, function: Callable[..., T], *arguments: Any) -> T:
        """The same by a thread, so that the event loop goes on meanwhile."""
        if self._path is None:
            return self._inline(function, *arguments)
        self._opened()
        if self._aside is None or self._aside_reader is None:
            if self._files is not None:
                self._files.check()  # or it would read another database
            self._aside = ThreadPoolExecutor(1, thread_name_prefix="antiphon-reader")
            self._aside_reader = connect(self._path, durability=self._durability, now=self._now)
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._aside, function, self._aside_reader.cursor(), *arguments)
        except apsw.Error as error:
            raise failed(error) from error

    def _opened(self) -> apsw.Connection:
        if self._reader is None:
            raise StoreError("The store is not open.", passing=False)
        return self._reader


def _write_something(cursor: apsw.Cursor) -> None:
    """Change nothing, in a way that has to be written to the disk all the same."""
    ((version,),) = cursor.execute("PRAGMA user_version").fetchall()
    cursor.execute(f"PRAGMA user_version = {version}")

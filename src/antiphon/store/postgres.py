"""The store in PostgreSQL, for any number of nodes.

Appends and marks of followers go through one connection with group commit; everything else takes a connection of a
pool. The clock of leases and graces is the database's. What is deleted is gone for every query when the call returns;
its bytes leave the database's files with the VACUUM that follows, by itself or by the administrator's command, and the
write-ahead log when that is recycled.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping, Sequence
from typing import Literal

from antiphon.errors import StoreError
from antiphon.store import postgres_conversations as conversations
from antiphon.store import postgres_export as export
from antiphon.store import postgres_prompts as prompts
from antiphon.store import postgres_reads as reads
from antiphon.store import postgres_writes as writes
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
from antiphon.store.postgres_database import AGAIN_SECONDS_MAX, Database, pauses
from antiphon.store.postgres_keys import PostgresKeys
from antiphon.store.postgres_upkeep import PostgresUpkeep
from antiphon.store.postgres_writer import Writer


class PostgresStore:
    """A `Store` in the PostgreSQL database at `url`.

    durability: "process": a power cut or crash of the database itself may take the last moments, and a commit is
    cheaper; "full" is what the database is set to. connections_max: in the pool; the writer has one more.
    call_seconds, append_seconds: how long calls and appends wait for a database that cannot be reached.
    """

    def __init__(
        self,
        url: str,
        *,
        durability: Literal["full", "process"] = "full",
        connections_max: int = 10,
        call_seconds: float = 5.0,
        append_seconds: float = 60.0,
    ) -> None:
        self._database = Database(
            url, connections_max=connections_max, call_seconds=call_seconds, durability=durability
        )
        self._append_seconds = append_seconds
        self._writer: Writer | None = None
        self._lines = _Lines()

    async def open(self) -> None:
        await self._database.open()
        self._writer = Writer(self._database, append_seconds=self._append_seconds)

    async def close(self) -> None:
        if self._writer is not None:
            writer, self._writer = self._writer, None
            await writer.close()
        await self._database.close()

    async def check(self) -> None:
        await self._database.run(reads.check)

    async def create(self, tenant: str, new: NewResponse, *, lease_seconds: float | None = None) -> Claim | None:
        key = None if new.idempotency is None else new.idempotency.key
        async with self._lines.waiting(("conversation", tenant, new.conversation), ("key", tenant, key)):
            return await self._database.change(writes.create, tenant, new, lease_seconds, done=writes.created)

    async def check_key(self, tenant: str, idempotency: Idempotency) -> None:
        await self._database.run(writes.check_key, tenant, idempotency)

    async def claim(self, *, limit: int, lease_seconds: float, background: bool = True) -> list[Claim]:
        # Once only: when a database comes back, a claim that has waited must not be before the renewals.
        within = lease_seconds / 4
        return await self._database.run_once(writes.claim, limit, lease_seconds, background, within=within)

    async def seize(self, tenant: str, response_id: str, *, lease_seconds: float) -> Claim | None:
        return await self._database.run(writes.seize, tenant, response_id, lease_seconds)

    async def renew(self, claims: Sequence[Claim], *, lease_seconds: float, grace_seconds: float) -> Renewal:
        return await self._database.run(writes.renew, claims, lease_seconds, grace_seconds)

    async def overdue_turns(self, *, wait_seconds: float, grace_seconds: float) -> list[Overdue]:
        return await self._database.run(conversations.overdue_turns, wait_seconds, grace_seconds)

    async def release(self, claim: Claim) -> None:
        await self._database.run(writes.release, claim)

    async def append(
        self, claim: Claim, segments: Sequence[Segment], *, notes: Sequence[Note] = (), ending: Ending | None = None
    ) -> None:
        deadline = time.monotonic() + self._append_seconds - AGAIN_SECONDS_MAX
        for pause in pauses():
            try:
                await self._append(claim, segments, notes, ending)
                return
            except StoreError as error:  # what the database did not take was rolled back, and is nowhere
                # Where it was out of reach, the writer has tried for as long.
                if not error.passing or time.monotonic() + pause > deadline:
                    raise
            await asyncio.sleep(pause)

    async def _append(
        self, claim: Claim, segments: Sequence[Segment], notes: Sequence[Note], ending: Ending | None
    ) -> None:
        writer = self._opened()
        if writer.full:
            await writer.room()
        await writer.append(claim, segments, notes, ending)

    async def get(self, tenant: str, response_id: str) -> Stored:
        return await self._database.run(reads.get, tenant, response_id)

    async def read(self, tenant: str, response_id: str, *, after: int, limit_bytes: int = 1 << 20) -> Page:
        return await self._database.run(reads.read, tenant, response_id, after, limit_bytes)

    async def notes(self, tenant: str, response_id: str) -> list[Note]:
        return await self._database.run(reads.notes, tenant, response_id)

    async def context(self, tenant: str, response_id: str, *, output: bool = False) -> list[Item]:
        return await self._database.run(reads.context, tenant, response_id, output)

    async def find_items(self, tenant: str, ids: Sequence[str]) -> dict[str, Item]:
        return await self._database.run(reads.find_items, tenant, ids)

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
        filters = (status, model, metadata)
        return await self._database.run(reads.list_responses, tenant, limit, after, descending, *filters)

    async def mark_followed(self, tenant: str, response_id: str, *, seconds: float) -> None:
        await self._opened().mark(tenant, response_id, seconds)

    async def delete(self, tenant: str, response_id: str) -> bool:
        return await self._database.change(writes.delete, tenant, response_id, done=writes.deleted)

    async def count_background(self, tenant: str) -> int:
        return await self._database.run(reads.count_background, tenant)

    async def backlog(self) -> int:
        return await self._database.run(reads.count_background, None)

    async def create_conversation(self, tenant: str, new: NewConversation) -> None:
        await self._database.change(conversations.create, tenant, new, done=conversations.created)

    async def get_conversation(self, tenant: str, conversation_id: str) -> Conversation:
        return await self._database.run(conversations.get, tenant, conversation_id)

    async def update_conversation(self, tenant: str, conversation_id: str, *, metadata: bytes) -> Conversation:
        return await self._database.run(conversations.update, tenant, conversation_id, metadata)

    async def delete_conversation(self, tenant: str, conversation_id: str) -> None:
        await self._database.change(conversations.delete, tenant, conversation_id, done=conversations.deleted)

    async def add_items(self, tenant: str, conversation_id: str, items: Sequence[Item]) -> None:
        async with self._lines.waiting(("conversation", tenant, conversation_id)):
            await self._database.change(conversations.add_items, tenant, conversation_id, items)

    async def list_items(
        self, tenant: str, conversation_id: str, *, limit: int, after: str | None = None, descending: bool = True
    ) -> tuple[list[Item], bool]:
        where = (tenant, conversation_id, limit, after, descending)
        return await self._database.run(conversations.list_items, *where)

    async def conversation_bytes(self, tenant: str, conversation_id: str) -> int:
        return await self._database.run(conversations.conversation_bytes, tenant, conversation_id)

    async def get_item(self, tenant: str, conversation_id: str, item_id: str) -> Item:
        return await self._database.run(conversations.get_item, tenant, conversation_id, item_id)

    async def delete_item(self, tenant: str, conversation_id: str, item_id: str) -> Conversation:
        where = (tenant, conversation_id, item_id)
        return await self._database.change(conversations.delete_item, *where, done=conversations.item_deleted)

    async def put_prompt(self, tenant: str, prompt_id: str, body: bytes) -> PromptVersion:
        return await self._database.change(prompts.put, tenant, prompt_id, body, done=prompts.was_put)

    async def get_prompt(self, tenant: str, prompt_id: str, version: int | None = None) -> PromptVersion:
        return await self._database.run(prompts.get, tenant, prompt_id, version)

    async def list_prompts(
        self, tenant: str, *, limit: int, after: str | None = None, descending: bool = True
    ) -> tuple[list[PromptVersion], bool]:
        return await self._database.run(prompts.list_page, tenant, limit, after, descending)

    async def delete_prompt(self, tenant: str, prompt_id: str) -> None:
        await self._database.change(prompts.delete, tenant, prompt_id, done=prompts.deleted)

    @property
    def keys(self) -> PostgresKeys:
        """The API keys of the database."""
        return PostgresKeys(self._database)

    @property
    def upkeep(self) -> PostgresUpkeep:
        """What is done in idle time, and what was used."""
        return PostgresUpkeep(self._database)

    async def secret(self, name: str) -> str:
        """A random secret of 64 hexadecimal digits that all nodes share, made when the first one asks for it."""
        return await self._database.run(reads.secret, name, secrets.token_hex(32))

    def dump(self) -> AsyncGenerator[Sequence[Record], None]:
        return export.dump(self._database)

    async def load(self, batches: AsyncIterable[Sequence[Record]]) -> Counter[type[Record]]:
        return await export.load(self._database, batches)

    def _opened(self) -> Writer:
        if self._writer is None:
            raise StoreError("The store is not open.", passing=False)
        return self._writer


class _Lines:
    """Who wants the same thing stands in line, in the order of coming.

    The database would serialise them as well, but in no order, and each would hold a connection while it waits.
    """

    def __init__(self) -> None:
        self._locks: dict[tuple[str, str, str], asyncio.Lock] = {}
        self._waiting: Counter[tuple[str, str, str]] = Counter()

    @contextlib.asynccontextmanager
    async def waiting(self, *wanted: tuple[str, str, str | None]) -> AsyncIterator[None]:
        """Hold what is wanted; a name of None is nothing to wait for."""
        async with contextlib.AsyncExitStack() as stack:
            for kind, tenant, name in wanted:
                if name is not None:
                    await stack.enter_async_context(self._held((kind, tenant, name)))
            yield

    @contextlib.asynccontextmanager
    async def _held(self, key: tuple[str, str, str]) -> AsyncIterator[None]:
        lock = self._locks.setdefault(key, asyncio.Lock())
        self._waiting[key] += 1
        try:
            async with lock:
                yield
        finally:
            self._waiting[key] -= 1
            if not self._waiting[key]:
                del self._waiting[key], self._locks[key]

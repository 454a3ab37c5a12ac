"""Log: a store, its tail and its bell as one thing, in the terms of events. Writers and readers both go through it.

Everything that turns a log into a Transcript is here; so is the one way to close a log from outside. Knows the store
and the protocol; not HTTP, not models.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from antiphon.errors import Gap, LeaseLost, NotFound, ProtocolError, StoreError
from antiphon.protocol import endings
from antiphon.protocol.transcript import TERMINAL, Note, Transcript
from antiphon.segments import UNREADABLE, Event, ending_of, events_of, read, segment_of, stored_item
from antiphon.store import base
from antiphon.store.follow import Reads, Tail, follow
from antiphon.store.outage import Outage
from antiphon.store.remains import remains

logger = logging.getLogger(__name__)

Entry = Event | Note

CLAIMS = "claims"  # the bell's topic: some worker may have lost a claim
WORK = "work"  # the bell's topic: a response waits for a worker

_ALL = (1 << 31) - 2
_LEFT_SECONDS = 3600.0  # between tries to end a response whose end cannot be written

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def _never(_tenant: str, _created_at: int, _days: float | None) -> None:
    """No response expires."""


@dataclass(frozen=True)
class Work:
    """What it takes to go on with a response, from wherever its log stands."""

    transcript: Transcript
    request: Mapping[str, Any]  # the create body, without `input`
    context: Sequence[Mapping[str, Any]]  # all that the model must see, oldest first
    notes: Sequence[Note] = ()
    bytes: int = 0  # of a context that was read for it


@dataclass(frozen=True)
class Context:
    """Items that are kept, oldest first, and how many bytes they are."""

    items: list[dict[str, Any]]
    bytes: int


class Log:
    """The logs of one store, written and read as events.

    lease_seconds: how long a claim holds without being renewed; grace_seconds: how long a foreground response that
    nobody follows goes on; turn_wait_seconds: how long one waits for an earlier turn of its conversation;
    expires_at: the time from which on a response of a tenant, created then, is unknown; told the days of its key, if
    that has any of its own.
    """

    def __init__(
        self,
        store: base.Store,
        *,
        tail: Tail,
        bell: base.Bell,
        lease_seconds: float = 10.0,
        grace_seconds: float = 5.0,
        turn_wait_seconds: float = 300.0,
        expires_at: Callable[[str, int, float | None], float | None] = _never,
    ) -> None:
        self.store = store
        self.bell = bell
        self.lease_seconds = lease_seconds
        self.grace_seconds = grace_seconds
        self.turn_wait_seconds = turn_wait_seconds
        self._expires_at = expires_at
        self._tail = tail
        self._reads = Reads(store)
        self.outage = Outage()
        self._followers: Counter[tuple[str, str]] = Counter()
        self._begun: dict[base.Claim, Work] = {}  # created here and not worked on yet: no need to read it again

    async def create(
        self,
        tenant: str,
        transcript: Transcript,
        events: Sequence[Event],
        *,
        request: Mapping[str, Any],
        items: Sequence[Mapping[str, Any]],
        before: Sequence[Mapping[str, Any]],
        previous: str | None,
        claim: bool,
        conversation: str | None = None,
        idempotency: base.Idempotency | None = None,
        retention_days: float | None = None,
    ) -> base.Claim | None:
        """Commit a new response with its first events and its input; with `claim`, take it at once and give the Claim.

        transcript: what the events have said; with `claim`, the worker's from now on.
        items: the input; before: what the model sees before it, unless that is the items of a conversation.
        retention_days: for how long it is kept, if not for what `expires_at` says of its tenant.
        A turn of a conversation that must wait for an earlier one is not claimed: a worker takes it when it may begin.
        Raises what `Store.create` raises.
        """
        response = events[0]["response"]
        segment = segment_of(events)
        new = base.NewResponse(
            id=response["id"],
            model=response["model"],
            created_at=response["created_at"],
            background=response["background"],
            request=_encode(request),
            items=[stored_item(item) for item in items],
            segment=segment,
            previous=previous,
            metadata=_encode(response["metadata"]),
            expires_at=self._expires_at(tenant, response["created_at"], retention_days),
            conversation=conversation,
            idempotency=idempotency,
        )
        claimed = await self.store.create(tenant, new, lease_seconds=self.lease_seconds if claim else None)
        self._tail.extend(tenant, new.id, [segment], closed=False)
        if claimed is None:
            self.bell.ring(WORK)
        elif conversation is None:
            self._begun[claimed] = Work(transcript, request, [*before, *items])
        return claimed

    async def work(self, claim: base.Claim) -> Work:
        """What a worker needs to go on with the response that it has claimed. Raises NotFound."""
        begun = self._begun.pop(claim, None)
        if begun is not None:
            return begun
        tenant, response_id = claim.tenant, claim.response_id
        transcript = await self.fold(tenant, response_id)
        request = _decode((await self.store.get(tenant, response_id)).request)
        context = await self.context(tenant, response_id)
        return Work(transcript, request, context.items, await self.notes(tenant, response_id), context.bytes)

    async def append(
        self, claim: base.Claim, transcript: Transcript, batch: Sequence[Entry], *, request: Mapping[str, Any]
    ) -> int:
        """Commit what the transcript has just said, then let followers see it; a terminal event closes the log.

        request: the create body: the final response is kept as its caller may see it. Gives how many bytes the events
        are. Raises LeaseLost with nothing written.
        """
        events = [entry for entry in batch if isinstance(entry, dict)]
        notes: list[base.Note] = []
        if len(events) < len(batch):
            notes = [base.Note(note.after, note.kind, _encode(note.fields)) for note in batch if isinstance(note, Note)]
        segments = [segment_of(events)] if events else []
        ending = ending_of(transcript, request) if events and events[-1]["type"] in TERMINAL else None
        await self.store.append(claim, segments, notes=notes, ending=ending)
        if segments:
            self._tail.extend(claim.tenant, claim.response_id, segments, closed=ending is not None)
            self.bell.ring(claim.response_id)
        if ending is not None and events[-1]["response"].get("conversation"):
            self.bell.ring(WORK)  # the next turn may begin
        return sum([len(segment.frames) for segment in segments])

    def follow(self, tenant: str, response_id: str, *, after: int = -1) -> AsyncIterator[tuple[base.Segment, ...]]:
        """The segments of the log from `after` on, as they come, until it is closed: see `store.follow`."""
        return follow(self._reads, self._tail, self.bell, tenant, response_id, after=after)

    async def fold(self, tenant: str, response_id: str) -> Transcript:
        """The log as a Transcript, with what its notes say. Raises NotFound, and ProtocolError for a damaged log."""
        transcript = Transcript()
        closed = False
        while not closed:
            page = await self.store.read(tenant, response_id, after=transcript.sequence_number)
            for segment in page.segments:
                read(segment, transcript)
            closed = page.closed or not page.segments
        if transcript.sequence_number < 0:
            raise Gap("The log has no beginning.")
        if transcript.begun and not transcript.closed:
            endings.heed(transcript, await self.notes(tenant, response_id))
        return transcript

    async def notes(self, tenant: str, response_id: str) -> list[Note]:
        """The log's private notes. Raises NotFound."""
        stored = await self.store.notes(tenant, response_id)
        return [Note(note.after, note.kind, _decode(note.body)) for note in stored]

    async def context(self, tenant: str, response_id: str, *, output: bool = False) -> Context:
        """The items of this response and its ancestors: see `Store.context`. Raises NotFound."""
        return _context(await self.store.context(tenant, response_id, output=output))

    async def find_items(self, tenant: str, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Those of the ids that are stored, with their items."""
        return {id: _decode(item.body) for id, item in (await self.store.find_items(tenant, ids)).items()}

    async def create_conversation(
        self,
        tenant: str,
        *,
        id: str,
        created_at: int,
        metadata: Mapping[str, Any],
        items: Sequence[Mapping[str, Any]],
    ) -> base.Conversation:
        """Commit a new conversation with its first items. Raises BadRequest for two items that share an id."""
        new = base.NewConversation(id, created_at, _encode(metadata), [stored_item(item) for item in items])
        await self.store.create_conversation(tenant, new)
        return base.Conversation(id, created_at, new.metadata)

    async def add_items(self, tenant: str, conversation_id: str, items: Sequence[Mapping[str, Any]]) -> None:
        """Add items to the end of a conversation: see `Store.add_items`."""
        await self.store.add_items(tenant, conversation_id, [stored_item(item) for item in items])

    async def list_items(
        self, tenant: str, conversation_id: str, *, limit: int, after: str | None = None, descending: bool = True
    ) -> tuple[list[dict[str, Any]], bool]:
        """A page of a conversation's items, and whether there are more: see `Store.list_items`."""
        items, more = await self.store.list_items(
            tenant, conversation_id, limit=limit, after=after, descending=descending
        )
        return [_decode(item.body) for item in items], more

    async def conversation_items(self, tenant: str, conversation_id: str) -> Context:
        """All items of a conversation as it stands. Raises NotFound."""
        items, _more = await self.store.list_items(tenant, conversation_id, limit=_ALL, descending=False)
        return _context(items)

    async def cancel(self, tenant: str, response_id: str) -> None:
        """Close the log as cancelled, keeping what was said; a closed one stays as it is. Raises NotFound."""
        await self.end(tenant, response_id, endings.close_cancelled)

    async def end_overdue_turns(self) -> None:
        """Fail the turns that have waited too long for an earlier one, and cancel those that nobody waits for any more.

        No worker has them yet, so every node may do it; of two that do, one finds the log closed.
        """
        # Followers on other nodes are heard of within a lease, however short the grace.
        grace_seconds = max(self.grace_seconds, self.lease_seconds)
        for turn in await self.store.overdue_turns(wait_seconds=self.turn_wait_seconds, grace_seconds=grace_seconds):
            if not turn.followed and self.is_followed(turn.tenant, turn.response_id):
                continue  # only its mark comes late
            write = _close_overdue if turn.followed else endings.close_cancelled
            with contextlib.suppress(NotFound, LeaseLost):
                await self._close(turn.tenant, turn.response_id, write)

    async def end(
        self, tenant: str, response_id: str, write: Callable[[Transcript], Sequence[Entry]], *, anyhow: bool = False
    ) -> None:
        """Take the claim from whoever has it and close the log with what `write` writes.

        anyhow: with what can be read now, even if the rest could be read later. Of a damaged log it is never more.
        A closed log stays as it is. Raises NotFound.
        """
        try:
            await self._close(tenant, response_id, write, anyhow=anyhow)
        except LeaseLost:
            # Somebody else closes it at the same time. To seize it again could go on for ever between the two of us.
            async for _ in self.follow(tenant, response_id):
                pass

    async def _close(
        self, tenant: str, response_id: str, write: Callable[[Transcript], Sequence[Entry]], *, anyhow: bool = False
    ) -> None:
        claim = await self.store.seize(tenant, response_id, lease_seconds=self.lease_seconds)
        if claim is None:
            return
        self.bell.ring(CLAIMS)  # its worker stops now, not at its next event
        try:
            transcript, request = await self._to_be_closed(tenant, response_id, anyhow=anyhow)
            await self.append(claim, transcript, write(transcript), request=request)
        except Exception as error:
            if is_damage(error):  # it cannot be ended either: whoever claims it next would fare no better
                with contextlib.suppress(StoreError):
                    await self.store.renew([claim], lease_seconds=_LEFT_SECONDS, grace_seconds=0.0)
            raise

    async def _to_be_closed(
        self, tenant: str, response_id: str, *, anyhow: bool
    ) -> tuple[Transcript, Mapping[str, Any]]:
        """What was said, and the create body; of a damaged log, what can be read of it."""
        try:
            transcript = await self.fold(tenant, response_id)
            return transcript, _decode((await self.store.get(tenant, response_id)).request)
        except Exception as error:
            if not (anyhow or is_damage(error)):
                raise
            logger.exception("a log is damaged", extra={"response_id": response_id})
            return await self._salvage(tenant, response_id), {}

    async def _salvage(self, tenant: str, response_id: str) -> Transcript:
        """What can be read of a damaged log, to be ended behind its last event."""
        segments, last = await remains(self.store, tenant, response_id)
        events: list[Event] = []
        for segment in segments:
            with contextlib.suppress(*UNREADABLE):
                events += events_of(segment)
        notes: list[Note] = []
        with contextlib.suppress(StoreError, *UNREADABLE):
            notes = await self.notes(tenant, response_id)
        row = await self.store.get(tenant, response_id)
        known = {"id": row.id, "created_at": row.created_at, "model": row.model, "background": row.background}
        return endings.salvage(known, events, notes, last=last)

    def forget(self, tenant: str, response_id: str) -> None:
        """Let go of what is remembered of a response that was erased."""
        self._tail.forget(tenant, response_id)

    async def delete(self, tenant: str, response_id: str) -> None:
        """Erase the response, running or not. Raises NotFound."""
        was_open = await self.store.delete(tenant, response_id)
        self._tail.forget(tenant, response_id)
        if was_open:  # else nobody waits for it, on any node
            self.bell.ring(CLAIMS)
            self.bell.ring(WORK)  # another turn of its conversation may have waited for it
            self.bell.ring(response_id)

    @contextlib.contextmanager
    def following(self, tenant: str, response_id: str) -> Iterator[None]:
        """While this holds, somebody waits for this foreground response; the last one to go starts its grace."""
        key = (tenant, response_id)
        self._followers[key] += 1
        try:
            yield
        finally:
            self._followers[key] -= 1
            if not self._followers[key]:
                del self._followers[key]
                if not self._tail.is_closed(*key):
                    asyncio.get_running_loop().call_later(self.grace_seconds, self._end_of_grace, key)

    def _end_of_grace(self, key: tuple[str, str]) -> None:
        if not self._tail.is_closed(*key):
            self.bell.ring(CLAIMS)

    def is_followed(self, tenant: str, response_id: str) -> bool:
        """Whether somebody waits for it on this node."""
        return (tenant, response_id) in self._followers

    async def keep_followed(self, every_seconds: float) -> None:
        """Tell the store, again and again, whom somebody waits for here, so that every node knows."""
        while True:
            await asyncio.sleep(every_seconds)
            try:
                with self.outage.trying("mark followers"):  # at once: they share a commit
                    await asyncio.gather(*(self.store.mark_followed(*key, seconds=0.0) for key in self._followers))
            except Exception:  # whatever it was, there must be a next time
                logger.exception("followers could not be marked")


def _context(items: Sequence[base.Item]) -> Context:
    return Context([_decode(item.body) for item in items], sum(len(item.body) for item in items))


def is_damage(error: Exception) -> bool:
    """Whether what is stored is at fault, and will be at the next try."""
    if isinstance(error, StoreError):
        return not error.passing
    return isinstance(error, ProtocolError | msgspec.DecodeError)


def _close_overdue(transcript: Transcript) -> list[Entry]:
    fault: dict[str, Any] = {
        "message": "The response has waited too long for an earlier one of its conversation to end. Please try again.",
        "type": "invalid_request_error",
        "code": "conversation_locked",
        "param": "conversation",
    }
    return [*endings.close_failed(transcript, **fault), transcript.note("failed", status=400, error=fault)]

"""Log: a store, its tail and its bell as one thing, in the terms of events. Writers and readers both go through it.

Everything that turns events into segments, or a log into a Transcript, is here; so is the one way to close a log from
outside. Knows the store and the protocol; not HTTP, not models.
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

from antiphon.errors import Gap, LeaseLost, NotFound, ProtocolError
from antiphon.protocol import endings, view
from antiphon.protocol.transcript import TERMINAL, Note, Transcript
from antiphon.store import base
from antiphon.store.follow import Tail, follow

logger = logging.getLogger(__name__)

Event = dict[str, Any]
Entry = Event | Note

CLAIMS = "claims"  # the bell's topic: some worker may have lost a claim
WORK = "work"  # the bell's topic: a response waits for a worker

_ALL = (1 << 31) - 2

_UNREADABLE = (msgspec.DecodeError, LookupError, TypeError, ValueError, AttributeError)

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.decode


def _never(_tenant: str, _created_at: int) -> None:
    """No response expires."""


@dataclass(frozen=True)
class Work:
    """What it takes to go on with a response, from wherever its log stands."""

    transcript: Transcript
    request: Mapping[str, Any]  # the create body, without `input`
    context: Sequence[Mapping[str, Any]]  # all that the model must see, oldest first
    notes: Sequence[Note] = ()


class Log:
    """The logs of one store, written and read as events.

    lease_seconds: how long a claim holds without being renewed; grace_seconds: how long a foreground response that
    nobody follows goes on; turn_wait_seconds: how long one waits for an earlier turn of its conversation;
    expires_at: the time from which on a response of a tenant, created then, is unknown.
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
        expires_at: Callable[[str, int], float | None] = _never,
    ) -> None:
        self.store = store
        self.bell = bell
        self.lease_seconds = lease_seconds
        self.grace_seconds = grace_seconds
        self.turn_wait_seconds = turn_wait_seconds
        self._expires_at = expires_at
        self._tail = tail
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
    ) -> base.Claim | None:
        """Commit a new response with its first events and its input; with `claim`, take it at once and give the Claim.

        transcript: what the events have said; with `claim`, the worker's from now on.
        items: the input; before: what the model sees before it, unless that is the items of a conversation.
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
            expires_at=self._expires_at(tenant, response["created_at"]),
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
        return Work(
            await self.fold(tenant, response_id),
            _decode((await self.store.get(tenant, response_id)).request),
            await self.context(tenant, response_id),
            await self.notes(tenant, response_id),
        )

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
        return follow(self.store, self._tail, self.bell, tenant, response_id, after=after)

    async def fold(self, tenant: str, response_id: str) -> Transcript:
        """The log as a Transcript, with what its notes say. Raises NotFound, and ProtocolError for a damaged log."""
        transcript = Transcript()
        closed = False
        while not closed:
            page = await self.store.read(tenant, response_id, after=transcript.sequence_number)
            for segment in page.segments:
                _read(segment, transcript)
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

    async def context(self, tenant: str, response_id: str, *, output: bool = False) -> list[dict[str, Any]]:
        """The items of this response and its ancestors: see `Store.context`. Raises NotFound."""
        return [_decode(item.body) for item in await self.store.context(tenant, response_id, output=output)]

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

    async def conversation_items(self, tenant: str, conversation_id: str) -> list[dict[str, Any]]:
        """All items of a conversation as it stands, oldest first. Raises NotFound."""
        items, _more = await self.list_items(tenant, conversation_id, limit=_ALL, descending=False)
        return items

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

    async def end(self, tenant: str, response_id: str, write: Callable[[Transcript], Sequence[Entry]]) -> None:
        """Take the claim from whoever has it and close the log with what `write` writes.

        A closed log stays as it is. Raises NotFound.
        """
        try:
            await self._close(tenant, response_id, write)
        except LeaseLost:
            # Somebody else closes it at the same time. To seize it again could go on for ever between the two of us.
            async for _ in self.follow(tenant, response_id):
                pass

    async def _close(self, tenant: str, response_id: str, write: Callable[[Transcript], Sequence[Entry]]) -> None:
        claim = await self.store.seize(tenant, response_id, lease_seconds=self.lease_seconds)
        if claim is None:
            return
        self.bell.ring(CLAIMS)  # its worker stops now, not at its next event
        try:
            transcript = await self.fold(tenant, response_id)
            request = _decode((await self.store.get(tenant, response_id)).request)
        except (ProtocolError, msgspec.DecodeError):  # damaged: nobody can go on with it, and it must come to an end
            logger.exception("a log is damaged", extra={"response_id": response_id})
            transcript, request = await self._salvage(tenant, response_id), {}
        await self.append(claim, transcript, write(transcript), request=request)

    async def _salvage(self, tenant: str, response_id: str) -> Transcript:
        """What can be read of a damaged log, to be ended behind its last event."""
        events: list[Event] = []
        last, closed = -1, False
        while not closed:
            page = await self.store.read(tenant, response_id, after=last)
            for segment in page.segments:
                last = segment.last
                with contextlib.suppress(*_UNREADABLE):
                    events += events_of(segment)
            closed = page.closed or not page.segments
        row = await self.store.get(tenant, response_id)
        known = {"id": row.id, "created_at": row.created_at, "model": row.model, "background": row.background}
        return endings.salvage(known, events, await self.notes(tenant, response_id), last=last)

    def forget(self, tenant: str, response_id: str) -> None:
        """Let go of what is remembered of a response that was erased."""
        self._tail.forget(tenant, response_id)

    async def delete(self, tenant: str, response_id: str) -> None:
        """Erase the response, running or not. Raises NotFound."""
        await self.store.delete(tenant, response_id)
        if not self._tail.is_closed(tenant, response_id):
            self.bell.ring(CLAIMS)
            self.bell.ring(WORK)  # another turn of its conversation may have waited for it
        self._tail.forget(tenant, response_id)
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
            marks = [self.store.mark_followed(*key, seconds=0.0) for key in self._followers]
            for failure in await asyncio.gather(*marks, return_exceptions=True):  # at once: they share a commit
                if isinstance(failure, Exception):
                    logger.error("a follower could not be marked", exc_info=failure)


def _close_overdue(transcript: Transcript) -> list[Entry]:
    fault: dict[str, Any] = {
        "message": "The response has waited too long for an earlier one of its conversation to end. Please try again.",
        "type": "invalid_request_error",
        "code": "conversation_locked",
        "param": "conversation",
    }
    return [*endings.close_failed(transcript, **fault), transcript.note("failed", status=400, error=fault)]


def _read(segment: base.Segment, transcript: Transcript) -> None:
    try:
        for event in events_of(segment):
            if event["sequence_number"] > transcript.sequence_number:
                transcript.read(event)
    except _UNREADABLE as error:
        raise ProtocolError("A segment of the log cannot be read.") from error
    if transcript.sequence_number < segment.last:  # or it would be read again and again
        raise Gap(f"A segment of the log ends at {transcript.sequence_number}, not at {segment.last}.")


def segment_of(events: Sequence[Event]) -> base.Segment:
    """Consecutive events as one segment of frames."""
    mask = 0
    for event in events:
        mask |= view.mask(event)
    first = events[0]["sequence_number"]
    return base.Segment(first, len(events), view.frames(events), mask)


def events_of(segment: base.Segment) -> Iterator[Event]:
    """The events of a segment, decoded."""
    for frame in segment.frames.split(b"\n\n")[:-1]:
        yield _decode(frame[frame.index(b"\ndata: ") + 7 :])


def ending_of(transcript: Transcript, request: Mapping[str, Any]) -> base.Ending:
    """What is stored with the terminal event: the response as the create's `include` shows it.

    Who asks for more later gets it from the log; the mask tells whether there is more.
    """
    response = transcript.response
    mask = view.mask({"response": response})
    see = view.allowed(request.get("include") or ())
    return base.Ending(
        status=response["status"],
        response=_encode(view.show_response(response, see) if mask & ~see else response),
        items=[stored_item(item) for item in response["output"]],
        mask=mask,
        tokens=_tokens(response["usage"] or {}),
    )


def _tokens(usage: Mapping[str, Any]) -> base.Tokens:
    return base.Tokens(
        input=usage.get("input_tokens", 0),
        cached=(usage.get("input_tokens_details") or {}).get("cached_tokens", 0),
        output=usage.get("output_tokens", 0),
        reasoning=(usage.get("output_tokens_details") or {}).get("reasoning_tokens", 0),
    )


def stored_item(item: Mapping[str, Any]) -> base.Item:
    return base.Item(item["id"], _encode(item))

"""What a store of logs must do: the Protocols and the values that pass through them.

A store keeps, per tenant and response: a row, its input items, a log of segments of ready frames, private notes, and,
once the log is closed, the final response and its output items. Beside them stand conversations, each with items of its
own, and prompt templates. It does not know what an event means: frames, masks, notes and items are bytes and numbers to
it, but for the `status` of an item that goes into a conversation.

Every call takes the tenant, or a Claim that holds it: what another tenant owns is exactly as unknown as what never was.
Times are seconds since the epoch, by the store's own clock, so that a node with a wrong clock does no harm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

# These are made for every event of every stream, and Items for all that a model sees: a Struct takes a sixth of a
# frozen dataclass's time.


class Segment(msgspec.Struct, frozen=True, gc=False):
    """Some consecutive frames of one log, in order."""

    first: int  # the sequence_number of the first frame
    count: int
    frames: bytes  # the frames, one behind the other; each ends with an empty line
    mask: int = 0  # what it holds that some callers may not see, one bit a kind; opaque here

    @property
    def last(self) -> int:
        return self.first + self.count - 1


class Page(msgspec.Struct, frozen=True, gc=False):
    """A stretch of a log. With `closed`, nothing comes behind its last segment, now or ever."""

    segments: tuple[Segment, ...]
    closed: bool
    more: bool = False  # the page was full: there is no ring to wait for


@dataclass(frozen=True, slots=True)
class Note:
    """A private entry of the log, beside the numbered events: what recovery needs and the public events cannot say."""

    after: int  # the sequence_number of the last event before it
    kind: str
    body: bytes = b"{}"  # JSON


class Item(msgspec.Struct, frozen=True, gc=False):
    """One context item, as JSON. The `id` is also inside the body."""

    id: str
    body: bytes

    def completed(self) -> Item:
        """The item as a conversation keeps it: with the status `completed`, unless it has none or has failed."""
        item = msgspec.json.decode(self.body)
        if item.get("status", "completed") in ("completed", "failed"):
            return self
        return Item(self.id, msgspec.json.encode({**item, "status": "completed"}))


@dataclass(frozen=True, slots=True)
class Idempotency:
    """What makes a create that is sent again the same create."""

    key: str  # unique in its tenant
    fingerprint: bytes  # of the body: who uses the key for another one is refused
    seconds: float  # how long the key is remembered


@dataclass(frozen=True, slots=True)
class NewResponse:
    """What a create commits, in one transaction: the row, its input, the first events."""

    id: str
    model: str
    created_at: int
    background: bool
    request: bytes  # what the worker needs to know, JSON
    items: Sequence[Item]  # the input, in order
    segment: Segment  # event 0, and for background also response.queued
    previous: str | None = None  # the response that this one continues
    metadata: bytes = b"{}"  # JSON
    expires_at: float | None = None  # unknown from then on, as if it had been deleted; but never while it is open
    conversation: str | None = None  # the conversation that this one is a turn of
    idempotency: Idempotency | None = None


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a response has used."""

    input: int = 0
    cached: int = 0  # of the input
    output: int = 0
    reasoning: int = 0  # of the output


@dataclass(frozen=True, slots=True)
class Ending:
    """What is committed together with the terminal event, and closes the log."""

    status: str
    response: bytes  # the final Response object, JSON, as a GET gives it
    items: Sequence[Item] = ()  # its output, in order
    mask: int = 0  # what the response holds that some callers may not see; opaque here
    tokens: Tokens = Tokens()  # kept when the response is erased: see upkeep.py


@dataclass(frozen=True, slots=True)
class Stored:
    """A response's row."""

    id: str
    tenant: str
    status: str  # "queued", "in_progress", or the final status
    model: str
    created_at: int
    background: bool
    closed: bool
    attempt: int  # the number of the last claim; 0 before the first
    request: bytes
    response: bytes | None  # the final Response object; None while the log is open
    previous: str | None  # the response that it continues now: if that was deleted, the one that this had continued
    followed_until: float
    metadata: bytes = b"{}"
    mask: int = 0  # of the final response
    conversation: str | None = None  # the conversation that it is a turn of; None also if that was deleted


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to write one response's log, until the lease ends."""

    tenant: str
    response_id: str
    attempt: int  # 1 for the first worker, higher for each that takes over, never used twice; checked by every append
    lease_ends: float
    background: bool = field(default=False, compare=False)
    tries: int = field(default=1, compare=False)  # how many workers began it, this one too; orderly releases left out


@dataclass(frozen=True, slots=True)
class Renewal:
    """What a worker learns when it renews its leases."""

    lost: frozenset[str]  # the response ids that it may no longer write
    unfollowed: frozenset[str]  # of the others: foreground responses that nobody has followed for the grace given


@dataclass(frozen=True, slots=True)
class Overdue:
    """A turn that has waited for an earlier one of its conversation for too long."""

    tenant: str
    response_id: str
    followed: bool  # somebody still waits for it


@dataclass(frozen=True, slots=True)
class NewConversation:
    """A conversation to be made, with its first items."""

    id: str
    created_at: int
    metadata: bytes = b"{}"
    items: Sequence[Item] = ()


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation's row; its items are asked for by page."""

    id: str
    created_at: int
    metadata: bytes


@dataclass(frozen=True, slots=True)
class PromptVersion:
    """One version of a prompt template."""

    id: str
    version: int  # 1 for the first
    created_at: int  # of this version
    body: bytes  # the template, JSON


class Store(Protocol):
    """The log, kept. Every implementation passes `tests/contracts/store.py`."""

    async def open(self) -> None:
        """Make the store usable: connect, migrate. Raises StoreError with what to do, e.g. for a newer database."""

    async def close(self) -> None:
        """Finish what was begun and let go of the database. Closing twice does no harm."""

    async def check(self) -> None:
        """Return if something can be written now. Raises StoreError."""

    async def create(self, tenant: str, new: NewResponse, *, lease_seconds: float | None = None) -> Claim | None:
        """Commit a new response as attempt 0; with `lease_seconds` also claim it, as attempt 1, and give the Claim.

        An item whose id and body equal a stored one of the tenant is that item and is not stored again.
        Turns of one conversation are serialised: while an earlier one is open, nothing is claimed and None is given;
        the response, also a foreground one, is claimable once the earlier ones are closed.
        Raises Repeated if the idempotency key is known with this fingerprint, Conflict if with another one or if the
        tenant has that id already, BadRequest if `previous` is not there (any more) or an input item contradicts one of
        the conversation, NotFound if the conversation is not there.
        """

    async def check_key(self, tenant: str, idempotency: Idempotency) -> None:
        """Raise what `create` would raise for this key: Repeated, or Conflict; nothing if the key is free."""

    async def claim(self, *, limit: int, lease_seconds: float, background: bool = True) -> list[Claim]:
        """Take up to `limit` open responses that no worker holds, oldest first, each with its attempt raised by one.

        background: background responses too; else only those that a foreground worker has left behind.
        Foreground responses come only when a lease has run out: their first worker is the process that accepted them;
        or when they had to wait for their turn in a conversation. The first claim of a turn fixes which items of the
        conversation it sees: those that are there then.
        One that was tried often already is given too: its worker reads `tries` and closes it.
        """

    async def seize(self, tenant: str, response_id: str, *, lease_seconds: float) -> Claim | None:
        """Take the claim from whoever holds it (attempt + 1), to close the log; None if it is closed already.

        Raises NotFound.
        """

    async def renew(self, claims: Sequence[Claim], *, lease_seconds: float, grace_seconds: float) -> Renewal:
        """Extend the leases of the claims that still hold.

        A foreground response is unfollowed `grace_seconds` after the end of its last follower's time, its create or its
        last claim, whichever came last.
        """

    async def overdue_turns(self, *, wait_seconds: float, grace_seconds: float) -> list[Overdue]:
        """The foreground turns that still wait for an earlier one of their conversation, and should no longer.

        They were created more than `wait_seconds` ago, or nobody has followed them for `grace_seconds`.
        """

    async def release(self, claim: Claim) -> None:
        """Hand an unfinished response back, claimable at once; it does not count among the tries.

        The claim is lost at once: nothing more can be appended with it. If it was lost before, nothing happens.
        """

    async def append(
        self, claim: Claim, segments: Sequence[Segment], *, notes: Sequence[Note] = (), ending: Ending | None = None
    ) -> None:
        """Commit the segments, notes and ending in one transaction. Returns when they are as durable as the store is.

        The first append of an attempt makes a queued response in_progress. `ending` closes the log for good. One that
        is completed or incomplete also adds the response's input and output to its conversation, if that is still
        there; one that failed without any item lets go of the idempotency key.
        Raises LeaseLost, with nothing written, if the claim no longer holds, the log is closed or the response is gone,
        or if a segment begins at a number where one began already: another worker's went first.
        """

    async def get(self, tenant: str, response_id: str) -> Stored:
        """The response's row. Raises NotFound."""

    async def read(self, tenant: str, response_id: str, *, after: int, limit_bytes: int = 1 << 20) -> Page:
        """The segments that hold numbers above `after`, in order, up to about `limit_bytes` (at least one if any).

        The first may begin at or before `after`. Raises NotFound.
        """

    async def notes(self, tenant: str, response_id: str) -> list[Note]:
        """The private notes of the log, in the order of their writing. Raises NotFound."""

    async def context(self, tenant: str, response_id: str, *, output: bool = False) -> list[Item]:
        """The items that the model sees for this response, oldest first: what its ancestors were given and said, then
        its own input and, with `output`, its own output. No item twice. Raises NotFound.

        Before a turn of a conversation come the items of the conversation as they were when it was claimed.
        What was deleted is left out. The same number of statements whatever the depth.
        """

    async def find_items(self, tenant: str, ids: Sequence[str]) -> dict[str, Item]:
        """Those of the ids that are stored, of responses or of conversations, with their items."""

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
        """A page of the responses in the order of their creation, and whether there are more behind it.

        after: the id of the last one already seen. status, model, metadata: only those that have them; each pair of
        `metadata` must be there. Raises NotFound if `after` is not there.
        """

    async def count_background(self, tenant: str) -> int:
        """How many background responses of the tenant are open."""

    async def backlog(self) -> int:
        """How many background responses are open, of all tenants."""

    async def mark_followed(self, tenant: str, response_id: str, *, seconds: float) -> None:
        """Note that somebody follows this response now and for the `seconds` to come (`followed_until`).

        Nothing happens if it is closed or unknown: who follows learns that by reading.
        """

    async def delete(self, tenant: str, response_id: str) -> bool:
        """Erase the response: row, log, notes, and the items that nothing else refers to. Raises NotFound.

        Gives whether it was open, or may have been. Responses that continue it stay, and continue what it continued.
        Its idempotency key is free again, and what it has added to a conversation stays there.
        """

    async def create_conversation(self, tenant: str, new: NewConversation) -> None:
        """Commit a new conversation. Raises BadRequest for two items that share an id, Conflict if the id is taken."""

    async def get_conversation(self, tenant: str, conversation_id: str) -> Conversation:
        """The conversation's row. Raises NotFound."""

    async def update_conversation(self, tenant: str, conversation_id: str, *, metadata: bytes) -> Conversation:
        """Replace the metadata. Raises NotFound."""

    async def delete_conversation(self, tenant: str, conversation_id: str) -> None:
        """Erase the conversation and its items. Raises NotFound.

        Its responses stay, without what they saw of it; those that run go on.
        """

    async def add_items(self, tenant: str, conversation_id: str, items: Sequence[Item]) -> None:
        """Add items to the end. One that is there already, equal, stays where it is.

        Raises NotFound, or BadRequest, with nothing added, if an id is there with another content.
        """

    async def list_items(
        self, tenant: str, conversation_id: str, *, limit: int, after: str | None = None, descending: bool = True
    ) -> tuple[list[Item], bool]:
        """A page of the conversation's items in their order, and whether there are more behind it.

        after: the id of the last one already seen. Raises NotFound if it, or the conversation, is not there.
        """

    async def conversation_bytes(self, tenant: str, conversation_id: str) -> int:
        """How many bytes the bodies of the conversation's items are. Raises NotFound."""

    async def get_item(self, tenant: str, conversation_id: str, item_id: str) -> Item:
        """One item of the conversation. Raises NotFound."""

    async def delete_item(self, tenant: str, conversation_id: str, item_id: str) -> Conversation:
        """Erase one item of the conversation; gives the conversation's row. Raises NotFound."""

    async def put_prompt(self, tenant: str, prompt_id: str, body: bytes) -> PromptVersion:
        """Keep a template: the first version of a new id, or one more of a known one."""

    async def get_prompt(self, tenant: str, prompt_id: str, version: int | None = None) -> PromptVersion:
        """A version of a template, without `version` the newest. Raises NotFound."""

    async def list_prompts(
        self, tenant: str, *, limit: int, after: str | None = None, descending: bool = True
    ) -> tuple[list[PromptVersion], bool]:
        """A page of the templates, each in its newest version, in the order of their first ones; and whether there are
        more behind it. Raises NotFound if `after` is not there.
        """

    async def delete_prompt(self, tenant: str, prompt_id: str) -> None:
        """Erase a template with all its versions. Raises NotFound."""


class Bell(Protocol):
    """Wakes those who wait for a topic, on this node or on any. A hint: rings may be lost or doubled.

    Topics: a response's id (its log has grown or closed), `claims` (a worker may have lost one),
    `work` (a response waits for a worker). Every implementation passes `tests/contracts/bell.py`.
    """

    def ring(self, topic: str) -> None:
        """Wake the listeners of the topic. Never blocks, never raises."""

    def listen(self, topic: str) -> Listener:
        """A listener, entered by `with`; it hears what rings from then on."""


class Listener(Protocol):
    """One waiter on one topic. Also rung by itself once per poll interval, so that a lost ring costs only time."""

    def __enter__(self) -> Listener: ...

    def __exit__(self, *exc: object) -> None: ...

    def clear(self) -> int:
        """Forget rings up to now. Call it before reading the store: a ring that comes in between must not be lost.

        Gives a number that is the same for two listeners of a topic only if it has not rung between their calls.
        """

    async def wait(self) -> bool:
        """Return when it rings: True for a ring, False when only the poll interval has passed."""

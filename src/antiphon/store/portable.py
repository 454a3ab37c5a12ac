"""What a store keeps, as records that any other store can take in: for moving from one to another, and for files.

Records name each other by tenant and id, never by the numbers of a database. They come in an order in which each finds
what it names: secrets, API keys, usage, conversations, their items, prompts, the items of responses, and then the
responses in the order of their creation, each followed by its log and its notes. Bytes are kept as they are. Everything
is in it but leases: who wrote a log in one store does not write it in another.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Any, Protocol, TypeAlias

import msgspec

BATCH_RECORDS = 256
BATCH_BYTES = 1 << 20


class Exact(bytes):
    """Bytes that come back as they were. In JSON they are the text that they encode, or base64 if they do not."""


class _Record(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", tag=str.lower, forbid_unknown_fields=True):
    pass


class Secret(_Record, frozen=True, kw_only=True):
    """What the content that was handed out encrypted can be opened with."""

    name: str
    value: str


class ApiKey(_Record, frozen=True, kw_only=True, tag="api_key"):
    """An API key: not its text, which nobody has but its owner."""

    id: str
    tenant: str
    name: str
    digest: Exact
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    used_at: float | None
    limits: str  # JSON


class Usage(_Record, frozen=True, kw_only=True):
    """What so many responses have used that were created in one second and do not differ in it."""

    tenant: str
    model: str
    created_at: int
    status: str
    input: int
    cached: int
    output: int
    reasoning: int
    times: int


class Conversation(_Record, frozen=True, kw_only=True):
    tenant: str
    id: str
    created_at: int
    metadata: Exact


class Kept(_Record, frozen=True, kw_only=True, tag="conversation_item"):
    """An item of a conversation. They come in their order."""

    tenant: str
    conversation: str
    id: str
    body: Exact


class Prompt(_Record, frozen=True, kw_only=True):
    """One version of a prompt template."""

    tenant: str
    id: str
    version: int
    created_at: int
    body: Exact


class Item(_Record, frozen=True, kw_only=True):
    """An item that responses were given or said. Several with one id differ in their bodies."""

    tenant: str
    id: str
    body: Exact


class Link(msgspec.Struct, frozen=True):
    """An item, as a response refers to it."""

    id: str
    sha256: str  # of the body

    @classmethod
    def of(cls, id: str, body: bytes) -> Link:
        return cls(id, sha256(body).hexdigest())


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """The conversation that a response is a turn of, and what it sees of it."""

    conversation: str
    begun: bool  # what it sees is fixed: nothing behind `seen`
    seen: str | None  # the last item that it sees, or None if it sees none
    open: bool
    inherited: bool  # it continued a turn that was deleted, and still sees what that one saw


class Idempotency(msgspec.Struct, frozen=True, kw_only=True):
    """The idempotency key that a response was made with."""

    key: str
    fingerprint: Exact
    expires_at: float


class Response(_Record, frozen=True, kw_only=True):
    """A response without its log. With `closed`, nothing comes behind the segments that follow."""

    tenant: str
    id: str
    model: str
    created_at: int
    background: bool
    closed: bool
    attempt: int
    tries: int
    followed_until: float
    expires_at: float | None
    status: str | None  # once it is closed
    mask: int
    previous: str | None
    metadata: Exact
    request: Exact
    response: Exact | None  # the final object, once it is closed
    given: tuple[Link, ...]
    said: tuple[Link, ...]
    turn: Turn | None
    idempotency: Idempotency | None


class Segment(_Record, frozen=True, kw_only=True):
    """A piece of the log of the response before it."""

    first: int
    count: int
    mask: int
    frames: Exact


class Note(_Record, frozen=True, kw_only=True):
    """A private entry of the log of the response before it."""

    after: int
    kind: str
    body: Exact


Record: TypeAlias = Secret | ApiKey | Usage | Conversation | Kept | Prompt | Item | Response | Segment | Note


class Portable(Protocol):
    """A store that can be moved. Every implementation passes `tests/contracts/portable.py`."""

    def dump(self) -> AsyncGenerator[Sequence[Record], None]:
        """Everything that the store keeps at one moment, by batches, beside whatever else it does.

        What is needed for it is let go of when the iterator is closed.
        """

    async def load(self, batches: AsyncIterable[Sequence[Record]]) -> Counter[type[Record]]:
        """Take in what a `dump` gave; gives how many records of each kind were not there before.

        What is there already stays as it is, so the same dump again changes nothing, and one that was interrupted is
        completed. A response is taken in with all its parts or not at all. One that is open can be claimed at once.
        Raises StoreError if a record names what did not come before it, or if there is another secret already.
        """


def is_part(record: Record) -> bool:
    """Whether it belongs to the response before it."""
    return isinstance(record, Segment | Note)


def batches(records: Iterable[Record]) -> Iterator[list[Record]]:
    """The records in batches of bounded size."""
    batch = _Batch()
    for record in records:
        if batch.add(record):
            yield batch.taken()
    if batch.records:
        yield batch.records


async def batches_of(records: AsyncIterable[Record]) -> AsyncGenerator[list[Record], None]:
    """The same of records that have to be waited for."""
    batch = _Batch()
    async for record in records:
        if batch.add(record):
            yield batch.taken()
    if batch.records:
        yield batch.records


class _Batch:
    def __init__(self) -> None:
        self.records: list[Record] = []
        self._size = 0

    def add(self, record: Record) -> bool:
        """Whether it is large enough now."""
        self.records.append(record)
        self._size += size_of(record)
        return self._size >= BATCH_BYTES or len(self.records) >= BATCH_RECORDS

    def taken(self) -> list[Record]:
        records, self.records, self._size = self.records, [], 0
        return records


def encode_hook(value: Any) -> Any:
    """How bytes look in JSON."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode("ascii")}


def decode_hook(_type: type, value: Any) -> Exact:
    """The bytes that looked like this. Raises ValueError."""
    if isinstance(value, str):
        return Exact(value.encode("utf-8"))
    if isinstance(value, dict) and isinstance(value.get("base64"), str):
        return Exact(base64.b64decode(value["base64"], validate=True))
    raise ValueError("Expected a text, or an object with `base64`")


def size_of(record: Record) -> int:
    """About how many bytes it holds."""
    match record:
        case Segment(frames=body) | Item(body=body) | Kept(body=body) | Note(body=body) | Prompt(body=body):
            return len(body)
        case Response(request=request, response=response):
            return len(request) + len(response or b"")
    return 0

"""API keys as a store keeps them: whose they are, until when they hold, and what they may use.

A key is a tenant's, or an admin's: that one belongs to no tenant, and so opens nothing that is one's.

A key is a random text of 256 bits. The store has its SHA-256 alone, from which nobody gets the key back: a salt and a
slow hash protect what people make up and use twice, and nobody finds 256 random bits by trying. So a look-up is one
digest and one row.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

PREFIX = "sk-antiphon-"
ID_PREFIX = "key_"
ADMIN = ""
"""In the place of the tenant, the mark of an admin key: what is a tenant's has an owner with a name."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key without its text. Times are seconds since the epoch."""

    id: str
    tenant: str  # or ADMIN
    name: str
    digest: bytes
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None  # from when on it is refused; may lie ahead
    used_at: float | None = None  # about when it was last used
    limits: Mapping[str, int] = field(default_factory=dict)  # where it differs from the server's: see LIMITS

    def holds(self, now: float) -> bool:
        """Whether it lets anybody in at that time."""
        return all(end is None or now < end for end in (self.expires_at, self.revoked_at))


LIMITS = ("requests_per_minute", "tokens_per_minute", "max_streams_per_key", "max_queued_per_key", "retention_days")
"""The settings that a key may have a value of its own for."""


class Keys(Protocol):
    """The keys of a database. Serves the server itself and its administrator, so no call takes a tenant."""

    async def add(self, key: Key) -> None:
        """Keep a new key."""

    async def find(self, digest: bytes) -> Key | None:
        """The key with this digest, whether it holds or not."""

    async def every(self) -> list[Key]:
        """All keys, the oldest first."""

    async def exist(self) -> bool:
        """Whether there ever was one."""

    async def revoke(self, key_id: str, *, at: float) -> Key:
        """Refuse a key from that time on; one that is refused earlier stays so. Raises NotFound."""

    async def mark_used(self, key_id: str, *, at: float) -> None:
        """Note when it was used."""


def digest_of(text: str) -> bytes:
    """What a key is known by. Comparing digests tells nothing to who measures the time: nobody can choose them."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def key_of(row: Sequence[Any]) -> Key:
    """A key as a database's row has it, with its limits as JSON."""
    return Key(*row[:-1], limits=msgspec.json.decode(row[-1]))  # type: ignore[misc]  # which is the last field


def new_key(tenant: str, **facts: Any) -> tuple[Key, str]:
    """A new key and its text, which nobody can tell again. facts: the rest of the Key."""
    text = PREFIX + secrets.token_urlsafe(32)
    return Key(ID_PREFIX + secrets.token_hex(12), tenant, digest=digest_of(text), **facts), text

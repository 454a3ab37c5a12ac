"""What a store does for itself while nobody waits: erase what has expired, compact what is finished; and what was used.

Beside the `Store`, as no caller of the API asks for any of it: no call takes the tenant of one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal, Protocol

from antiphon.store.base import Tokens


@dataclass(frozen=True, slots=True)
class Used:
    """The tokens of some responses together."""

    tenant: str
    model: str | None  # None: of all models
    day: str | None  # UTC, as 2026-11-22; None: of all days
    responses: int
    tokens: Tokens


@dataclass(frozen=True, slots=True)
class Found:
    """Where a text was found that should be nowhere."""

    place: str  # a column of a table, or a file
    where: str  # in it


class Upkeep(Protocol):
    """The upkeep of a database. Every implementation passes `tests/contracts/upkeep.py`."""

    async def expire(self, *, limit: int) -> list[tuple[str, str]]:
        """Erase up to `limit` closed responses whose time is over, as `Store.delete` does; gives tenants and ids.

        To every other call they are unknown from `expires_at` on, erased or not. One that is open then goes on, and is
        unknown once it is closed.
        """

    async def compact(self, *, settled_seconds: float) -> bool:
        """Make some of a finished log smaller on the disk; False if there is nothing to do.

        It takes the oldest response that was created at least `settled_seconds` ago, and a stretch of its log that is
        done in a moment. What `Store` gives stays byte for byte the same, in fewer and larger segments.
        """

    async def usage(
        self,
        *,
        tenant: str | None = None,
        since: float | None = None,
        until: float | None = None,
        by: Literal["model", "day"] | None = None,
    ) -> list[Used]:
        """What was used, a sum for each tenant and, with `by`, each model or day, in this order.

        since, until: of responses created from the one time on and before the other. Responses count when they have
        ended, deleted ones too.
        """


def forms_of(text: str) -> list[bytes]:
    """The bytes that a text may be kept as: as it is, in JSON, in JSON that is a string in JSON, and in ASCII."""
    once, ascii = (json.dumps(text, ensure_ascii=ascii)[1:-1] for ascii in (False, True))
    twice = (json.dumps(each, ensure_ascii=False)[1:-1] for each in (once, ascii))
    forms = (text, once, ascii, *twice)
    return list(dict.fromkeys(form.encode() for form in forms))

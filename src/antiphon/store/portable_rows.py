"""Portable records from the rows of a database, whichever it is. Columns come in the order of a record's fields."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from antiphon.store import portable
from antiphon.store.base import Segment
from antiphon.store.packing import plain_response, unpack_segment
from antiphon.store.portable import Exact, Link

K = TypeVar("K", bound=msgspec.Struct)

GIVEN, SAID = 0, 1  # how a response refers to an item


def made(kind: type[K], columns: Iterable[Any]) -> K:
    """A record, or a part of one."""
    values = [Exact(column) if isinstance(column, bytes) else column for column in columns]
    return kind(**dict(zip(kind.__struct_fields__, values, strict=True)))


def turn_of(columns: Sequence[Any]) -> portable.Turn:
    conversation, begun, seen, open, inherited = columns
    return made(portable.Turn, (conversation, bool(begun), seen, bool(open), bool(inherited)))


def response_of(
    columns: Sequence[Any],
    links: Iterable[tuple[int, str, bytes]],
    turn: portable.Turn | None,
    idempotency: portable.Idempotency | None,
) -> portable.Response:
    """A response of its columns up to the final object, which may be packed.

    links: of each item whether it was given or said, its id and body.
    """
    tenant, id, model, created_at, background, closed, *rest, request, response = columns
    found: tuple[list[Link], list[Link]] = ([], [])
    said: list[bytes] = []
    for output, item_id, body in links:
        found[output].append(Link.of(item_id, body))
        if output == SAID:
            said.append(body)
    response = plain_response(request, response, said)
    values = (tenant, id, model, created_at, bool(background), bool(closed), *rest, request, response)
    return made(portable.Response, (*values, tuple(found[GIVEN]), tuple(found[SAID]), turn, idempotency))


def segment_of(columns: Sequence[Any], response: portable.Response) -> portable.Segment:
    """A piece of the response's log, which may be packed."""
    first, count, mask, kept = columns
    frames = unpack_segment(Segment(first, count, kept, mask), response.response or b"").frames
    return made(portable.Segment, (first, count, mask, frames))


def columns_of(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__struct_fields__}

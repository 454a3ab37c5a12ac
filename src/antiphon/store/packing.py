"""What is finished, made small: the final object of a response, and its log in few large segments.

Each is compressed against what is kept of the response anyway: the final object against the request, which it echoes,
and the items that it holds; the log against the final object, which all its snapshots resemble. So what they share is
kept once, and goes when the response goes: nothing of one response is ever packed together with another's.

Plain JSON and plain frames begin with a printable character, what is packed with a control character: so the two can
stand side by side, and a reader need not know how far a log has been compacted.
"""

from __future__ import annotations

import contextlib
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from antiphon.errors import StoreError
from antiphon.protocol.tails import with_tails, without_tails
from antiphon.store.base import Segment, Stored

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PIECE_BYTES = 128 << 10
"""The frames of a packed segment, before they are packed: whoever wants one of them pays for all."""

_LEVEL = 9  # 0.4 ms for a log of 256 tokens; level 12 takes four times that and gains 1 %
_DEFLATE_BYTES_MAX = 32 << 10  # how far back deflate looks
_DEFLATED, _PLAIN, _TAILLESS = b"\x01", b"\x02", b"\x03"  # how what is packed was made


def is_packed(kept: bytes) -> bool:
    return kept[:1] in (_DEFLATED, _PLAIN, _TAILLESS)


def dictionary_of(request: bytes, items: Iterable[bytes]) -> bytes:
    """What the final object of a response is packed against."""
    return request + b"".join(items)


def pack(data: bytes, dictionary: bytes) -> bytes:
    """Deflated where that reaches far enough: zstd takes four times as long to begin, and gains nothing here."""
    if len(dictionary) + len(data) > _DEFLATE_BYTES_MAX:
        return _PLAIN + _compressed(data, dictionary)
    deflating = zlib.compressobj(9, wbits=-15, zdict=dictionary)
    return _DEFLATED + deflating.compress(data) + deflating.flush()


def unpack(kept: bytes, dictionary: bytes) -> bytes:
    """What was packed; what is not packed as it is. Raises StoreError for what is damaged."""
    with _telling_damage():
        if kept[:1] == _DEFLATED:
            return zlib.decompressobj(-15, zdict=dictionary).decompress(kept[1:])
        return _decompressed(kept, dictionary) if is_packed(kept) else kept


def plain_response(request: bytes, response: bytes | None, said: Iterable[bytes]) -> bytes | None:
    """The final object as it was. said: the items that it holds, which are looked at if it is packed."""
    if response is None or not is_packed(response):
        return response
    return unpack(response, dictionary_of(request, said))


def stored_of(tenant: str, row: Sequence[Any], said: Iterable[bytes]) -> Stored:
    """A response as a database's row has it. said: as in `plain_response`."""
    id, status, model, created_at, background, closed, attempt, request, response, previous, *rest = row
    followed_until, metadata, mask, conversation = rest
    return Stored(
        id=id,
        tenant=tenant,
        status=status,
        model=model,
        created_at=created_at,
        background=bool(background),
        closed=bool(closed),
        attempt=attempt,
        request=request,
        response=plain_response(request, response, said),
        previous=previous,
        followed_until=followed_until,
        metadata=metadata,
        mask=mask,
        conversation=conversation,
    )


def pack_segments(segments: Sequence[Segment], response: bytes) -> Segment:
    """Consecutive segments as one, packed; its mask is that of all of them.

    response: the final object, which is needed again to unpack it.
    """
    first, mask = segments[0].first, 0
    for segment in segments:
        mask |= segment.mask
    frames = b"".join([segment.frames for segment in segments])
    short = without_tails(frames, first=first)
    kept = _PLAIN + _compressed(frames, response) if short is None else _TAILLESS + _compressed(short, response)
    return Segment(first, segments[-1].last - first + 1, kept, mask)


def unpack_segment(segment: Segment, response: bytes) -> Segment:
    """The segment with plain frames; one that is not packed as it is. Raises StoreError for what is damaged."""
    kept = segment.frames
    if not is_packed(kept):
        return segment
    with _telling_damage():
        frames = _decompressed(kept, response)
        if kept[:1] == _TAILLESS:
            frames = with_tails(frames, first=segment.first)
    return Segment(segment.first, segment.count, frames, segment.mask)


def size_of(frames: bytes) -> int:
    """About how large the frames are when they are unpacked, at the cost of looking at some bytes."""
    if not is_packed(frames):
        return len(frames)
    with contextlib.suppress(zstd.ZstdError):  # damaged: whoever unpacks it is told
        return zstd.get_frame_info(frames[1:32]).decompressed_size or len(frames)
    return len(frames)


@contextlib.contextmanager
def _telling_damage() -> Iterator[None]:
    try:
        yield
    except (zlib.error, zstd.ZstdError, LookupError, ValueError) as error:
        raise StoreError(f"What is stored is damaged: {error}", passing=False) from error


def _compressed(data: bytes, dictionary: bytes) -> bytes:
    return zstd.compress(data, _LEVEL, zstd_dict=_prefix(dictionary))


def _decompressed(kept: bytes, dictionary: bytes) -> bytes:
    return zstd.decompress(kept[1:], zstd_dict=_prefix(dictionary))


def _prefix(dictionary: bytes) -> tuple[zstd.ZstdDict, int] | None:
    # Bytes to look back into, not a dictionary in zstd's own form: that would be digested first, for each anew.
    return zstd.ZstdDict(dictionary, is_raw=True).as_prefix if len(dictionary) >= 8 else None

"""What the end of a frame follows from: its number, and the length of its padding.

A frame ends with its sequence number and, if it is a delta, with a padding out of a fixed table. A log that is put away
has the lengths alone, one byte a frame. That is worth more than any compression of what looks random.
"""

from __future__ import annotations

import re

from antiphon.protocol.view import PADDINGS

_TAIL = re.compile(rb'"sequence_number":[0-9]+(?:,"obfuscation":"([A-Za-z0-9]{0,15})")?\}\n\n')
_CUT = b"\x0e"  # stands where a tail was; JSON escapes it, so it is in no frame
_END_OF_MARKS = b"\r"
_NO_PADDING = 0x20  # the mark of a frame without padding; each further one is a length from 0 up

# By mark, and modulo 64 by number: what stands behind the number.
_AFTER_NUMBER = {
    _NO_PADDING: [b"}\n\n"] * 64,
    **{
        _NO_PADDING + 1 + length: [b',"obfuscation":"%b"}\n\n' % padding.encode() for padding in paddings]
        for length, paddings in enumerate(PADDINGS)
    },
}


def without_tails(frames: bytes, *, first: int) -> bytes | None:
    """Consecutive frames, the first of which has this number, without their tails; None if these could not be put back.

    Frames that this code did not make may be numbered or padded in another way.
    """
    if _CUT in frames:
        return None
    lengths = [None if tail[1] is None else len(tail[1]) for tail in _TAIL.finditer(frames)]
    marks = bytes(_NO_PADDING if length is None else _NO_PADDING + 1 + length for length in lengths)
    short = marks + _END_OF_MARKS + _TAIL.sub(_CUT, frames)
    return short if with_tails(short, first=first) == frames else None


def with_tails(short: bytes, *, first: int) -> bytes:
    """The frames as they were."""
    marks, _, cut = short.partition(_END_OF_MARKS)
    bodies = cut.split(_CUT)
    pieces = [b""] * (2 * len(marks) + 1)
    pieces[::2] = bodies
    pieces[1::2] = [
        b'"sequence_number":%d%b' % (number, _AFTER_NUMBER[mark][number & 63])
        for number, mark in enumerate(marks, first)
    ]
    return b"".join(pieces)

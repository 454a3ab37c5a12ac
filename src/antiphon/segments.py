"""Events as a store keeps them: frames in segments, items and endings as JSON, and back. Above every store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from antiphon.errors import Gap, ProtocolError
from antiphon.protocol import view
from antiphon.protocol.transcript import Transcript
from antiphon.store import base

Event = dict[str, Any]

UNREADABLE = (msgspec.DecodeError, LookupError, TypeError, ValueError, AttributeError)

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.decode


def read(segment: base.Segment, transcript: Transcript) -> None:
    """Fold the events of a segment that the transcript has not seen. Raises ProtocolError for a damaged one."""
    try:
        for event in events_of(segment):
            if event["sequence_number"] > transcript.sequence_number:
                transcript.read(event)
    except UNREADABLE as error:
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

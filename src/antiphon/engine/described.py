"""What the API description has against an event that a model's server made: that has to be known before it is said.

What callers go by is the packaged description, whichever the server was started with.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from antiphon.errors import IllegalEvent
from antiphon.protocol.fold import part_logprobs
from antiphon.spec.document import Document
from antiphon.spec.validation import Schema

_PLACE = {"item_id": "", "output_index": 0, "content_index": 0, "sequence_number": 0}
_TEXT = {"type": "output_text", "annotations": [], "logprobs": [], "text": ""}


def check(event: Mapping[str, Any]) -> None:
    """Raise IllegalEvent for an event that is not as the description has it."""
    schema = _schema(event["type"])
    if not schema.valid(event):
        raise IllegalEvent(next((problem.message for problem in schema.problems(event)), "It is not as described."))


def readable_logprobs(said: Any) -> list[dict[str, Any]]:
    """The logprobs of a text, or none where they make no sense: the text counts all the same."""
    if not said:
        return []
    try:
        check({"type": "response.output_text.delta", **_PLACE, "delta": "", "logprobs": said})
        part = {**_TEXT, "logprobs": part_logprobs(said)}
        check({"type": "response.content_part.done", **_PLACE, "part": part})
    except IllegalEvent:
        return []
    return said  # type: ignore[no-any-return]


@cache
def _schema(type: str) -> Schema:
    return _document().event_schema(type)


@cache
def _document() -> Document:
    return Document.load()

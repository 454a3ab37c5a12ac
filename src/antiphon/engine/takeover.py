"""Takeover: what the next worker makes of a model turn that another one has begun and not ended.

Where the turn has said nothing but text, and the model's server can go on in the middle of one, the same item is
continued: no client sees a seam. Otherwise what is open is closed and the turn begins anew at the next indexes, unless
it holds a finished call: its caller may have begun to carry that out, so nothing of it is said again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from antiphon.engine.model import Delta, Model, Usage
from antiphon.errors import ModelError
from antiphon.protocol.context import is_client_call
from antiphon.protocol.endings import close_item, heed
from antiphon.protocol.transcript import Note, Transcript

Json = Mapping[str, Any]
Entry = dict[str, Any] | Note

_ASK_SECONDS = 10.0  # for all that must be known before the rest can be asked for


@dataclass(frozen=True)
class Prefix:
    """A message that is open in the log, and that the model goes on with.

    items: what the model is shown of its turn, the message last; tokens: theirs, which its output begins with;
    input_tokens: of what comes before them, where the model's server has counted.
    """

    output_index: int
    items: Sequence[Json]
    tokens: int
    input_tokens: int | None

    def usage(self, told: Usage) -> Usage:
        """What the turn has cost: to the model's server the prefix is input, to the caller it is output."""
        input_tokens = max(told.input_tokens - self.tokens, 0)
        cached_tokens = min(told.cached_tokens, input_tokens)
        return Usage(input_tokens, told.output_tokens + self.tokens, cached_tokens, told.reasoning_tokens)

    @property
    def usage_so_far(self) -> list[Delta]:
        """What was read and said before, as the model's server would tell it; nothing if it has not counted."""
        return [] if self.input_tokens is None else [Usage(self.input_tokens + self.tokens, 0)]

    def rest_of(self, request: Json) -> Json | None:
        """The request with what is left of its `max_output_tokens`; None if nothing is."""
        limit = request.get("max_output_tokens")
        if limit is None:
            return request
        return {**request, "max_output_tokens": limit - self.tokens} if limit > self.tokens else None


async def open_prefix(
    transcript: Transcript, notes: Sequence[Note], request: Json, context: Sequence[Json], model: Model
) -> Prefix | None:
    """The message that the turn was in the middle of, if it can be continued."""
    heed(transcript, notes)
    turn = _turn(transcript, notes)
    if not turn or not _is_open_text(transcript, turn[-1]):
        return None
    items = [transcript.item(index) for index in turn]
    if any(item["type"] != "reasoning" for item in items[:-1]) or transcript.open_items != (turn[-1],):
        return None
    # Without any text there is nothing to go on with: the turn begins anew, in the same item.
    shown = [_shown(item) for item in items] if items[-1]["content"][0]["text"] else []
    try:
        async with asyncio.timeout(_ASK_SECONDS):
            if not await model.continues_prefix(request, context):
                return None
            before = await model.count_tokens(request, context)
            with_them = await model.count_tokens(request, [*context, *shown])
    except (ModelError, TimeoutError):  # the turn itself will tell why
        return None
    return Prefix(
        turn[-1],
        shown,
        max(with_them.input_tokens - before.input_tokens, 0) if shown else 0,
        before.input_tokens if before.exact and with_them.exact else None,
    )


def leave_turn(transcript: Transcript, notes: Sequence[Note]) -> list[Entry]:
    """Close what a dead worker left open, and take its turn out of the output; finished calls stay, and what is
    finished beside them."""
    turn = _turn(transcript, notes)
    unfinished = transcript.open_items
    entries: list[Entry] = [event for index in unfinished for event in close_item(transcript, index, completed=False)]
    superseded = list(turn)
    if has_finished_call(transcript):  # then only what is cut, now or by somebody who died before he had noted it
        cut = {index for index in turn if transcript.item(index).get("status") == "incomplete"}
        superseded = sorted(cut.union(unfinished))
    for index in superseded:
        transcript.supersede(index)
    if superseded and not has_finished_call(transcript):
        transcript.usage = None  # it was spent on what counts no more
    if superseded:
        entries.append(transcript.note("superseded", output_indexes=superseded))
    return entries


def has_finished_call(transcript: Transcript) -> bool:
    return any(is_client_call(item) and item["status"] == "completed" for item in transcript.output)


def _turn(transcript: Transcript, notes: Sequence[Note]) -> range:
    """The items of the turn that was begun last."""
    first = max((note.fields["output_index"] for note in notes if note.kind == "turn"), default=0)
    return range(first, transcript.next_output_index)


def _is_open_text(transcript: Transcript, output_index: int) -> bool:
    """Whether it is a message that holds one text, and the text goes on."""
    item = transcript.item(output_index)
    if item["type"] != "message" or not transcript.is_open(output_index, 0):
        return False
    parts = item["content"]
    return len(parts) == 1 and parts[0]["type"] == "output_text" and not transcript.is_finished(output_index, 0)


def _shown(item: Json) -> Json:
    """The item as one that a model can be asked to go on with: see Model.turn."""
    return {**item, "status": "incomplete"} if item["type"] == "message" else item

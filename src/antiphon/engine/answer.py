"""answer(): asks the model and writes what it says into the response's log, to the log's end.

Begins where the log stands: after a worker has died, the next one calls it with what was said so far. The unit of
recovery is the model turn; the notes `turn` and `superseded` tell the next worker where one began and what counts no
more.
Knows neither the store nor the server: it gives batches of events and notes, and whoever runs it appends them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from antiphon.engine.compaction import Seals, compact, is_due, say_compaction, seal_reasoning, shown, summarize
from antiphon.engine.model import Delta, Model, Usage
from antiphon.engine.tools.toolbox import Toolbox
from antiphon.engine.truncation import shortened
from antiphon.engine.turn import Turn, is_summarized
from antiphon.errors import ModelError
from antiphon.protocol.context import is_client_call, without_unpaired_calls
from antiphon.protocol.endings import close_failed, close_item, supersede_noted
from antiphon.protocol.transcript import Note, Transcript

Entry = dict[str, Any] | Note

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


async def answer(
    transcript: Transcript,
    request: Mapping[str, Any],
    context: Sequence[Mapping[str, Any]],
    model: Model,
    *,
    seals: Seals,
    now: Callable[[], float],
    new_id: Callable[[str], str],
    notes: Sequence[Note] = (),
) -> AsyncGenerator[list[Entry]]:
    """Yield the rest of a response's log in batches, up to and with its terminal event.

    transcript: what was said so far; it is written on.
    request: the create body, without `input`; context: all items that the model must see, oldest first.
    seals: for what callers get encrypted: reasoning, and summaries of the context.
    new_id: makes an id with the prefix given: "msg", "rs", "fc", or "call" for a call_id.
    notes: those of the log, for a response that another worker has begun.
    Closing the generator closes the model's socket, and leaves the log open.
    """
    begun: list[Entry] = [] if transcript.begun else [transcript.write("response.in_progress")]
    begun += _leave_unfinished_turn(transcript, notes)
    if _has_finished_call(transcript):
        yield [*begun, _complete(transcript, usage=None, now=now)]
        return
    if transcript.next_output_index:  # the first turn begins at 0, which needs no saying
        begun.append(transcript.note("turn", output_index=transcript.next_output_index))
    if begun:
        yield begun
    turn = Turn(
        transcript,
        new_id=new_id,
        call_ids=_call_ids(transcript, context),
        toolbox=Toolbox(request, context),
        summarized=is_summarized(request),
        seal=lambda item: seal_reasoning(item, seals),
    )
    try:
        context = without_unpaired_calls(shown(context, seals))
        if request.get("compaction_trigger"):
            summary = await summarize(model, request, context)
            said = say_compaction(transcript, summary, id=new_id("cmp"), seals=seals)
            yield [*said, _complete(transcript, usage=summary.usage, now=now)]
            return
        async with aclosing(_asked(model, request, context)) as pieces:
            async for deltas in pieces:
                events: list[Entry] = [*turn.take(deltas)]
                if events:
                    yield events
                if turn.failure is not None:
                    raise turn.failure
        if turn.finish is None:
            raise ModelError("The model's server ended its answer without saying why.")
    except ModelError as failure:
        yield _fail(transcript, failure, usage=turn.usage)
        return
    events = [*turn.end()]
    if turn.failure is not None:
        yield [*events, *_fail(transcript, turn.failure, usage=turn.usage)]
        return
    if is_due(request, turn.usage):
        yield events  # what was said is shown while the summary is written
        said, turn.usage = await compact(transcript, request, context, model, turn.usage, new_id=new_id, seals=seals)
        events = [*said]
    yield [*events, _end(transcript, turn, now=now)]


async def _asked(
    model: Model, request: Mapping[str, Any], context: Sequence[Mapping[str, Any]]
) -> AsyncGenerator[list[Delta]]:
    """One turn; with `truncation: "auto"` begun again with less of the context while that is too long."""
    while True:
        answered = False
        try:
            async with aclosing(model.turn(request, context)) as said:
                async for deltas in said:
                    answered = True
                    yield deltas
            return
        except ModelError as failure:
            too_long = failure.code == "context_length_exceeded" and request.get("truncation") == "auto"
            shorter = shortened(context) if too_long and not answered else None
            if shorter is None:
                raise
            context = shorter


def usage_object(usage: Usage | None) -> dict[str, Any] | None:
    """The `usage` of a Response; None where the model's server did not tell."""
    if usage is None:
        return None
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _leave_unfinished_turn(transcript: Transcript, notes: Sequence[Note]) -> list[Entry]:
    """Close what a dead worker left open, and take its turn out of the output.

    Finished calls stay, with the finished items beside them: their caller may have begun to carry them out, and must
    not be given them again.
    """
    supersede_noted(transcript, notes)
    first = max((note.fields["output_index"] for note in notes if note.kind == "turn"), default=0)
    turn = range(first, transcript.next_output_index)
    unfinished = transcript.open_items
    entries: list[Entry] = [event for index in unfinished for event in close_item(transcript, index, completed=False)]
    superseded = list(unfinished if _has_finished_call(transcript) else turn)
    for index in superseded:
        transcript.supersede(index)
    if superseded:
        entries.append(transcript.note("superseded", output_indexes=superseded))
    return entries


def _has_finished_call(transcript: Transcript) -> bool:
    return any(is_client_call(item) and item["status"] == "completed" for item in transcript.output)


def _call_ids(transcript: Transcript, context: Iterable[Mapping[str, Any]]) -> set[str]:
    """The call_ids that are taken: a second call of the same id could not be told from the first."""
    said = (transcript.item(index) for index in range(transcript.next_output_index))
    return {item["call_id"] for item in (*context, *said) if item.get("call_id")}


def _end(transcript: Transcript, turn: Turn, *, now: Callable[[], float]) -> dict[str, Any]:
    assert turn.finish is not None
    reason = _INCOMPLETE.get(turn.finish.reason)
    if reason is None:
        return _complete(transcript, usage=turn.usage, now=now)
    return transcript.write(
        "response.incomplete",
        incomplete_details={"reason": reason},
        usage=usage_object(turn.usage),
        service_tier="default",
    )


def _complete(transcript: Transcript, *, usage: Usage | None, now: Callable[[], float]) -> dict[str, Any]:
    return transcript.write(
        "response.completed", completed_at=int(now()), usage=usage_object(usage), service_tier="default"
    )


def _fail(transcript: Transcript, failure: ModelError, *, usage: Usage | None) -> list[Entry]:
    fault: dict[str, Any] = {
        "message": failure.message,
        "type": failure.type,
        "code": failure.code,
        "param": failure.param,
    }
    events: list[Entry] = [*close_failed(transcript, **fault, usage=usage_object(usage))]
    headers = {"headers": failure.headers} if failure.headers else {}
    return [*events, transcript.note("failed", status=failure.status, error=fault, **headers)]

"""answer(): asks the model and writes what it says into the response's log, to the log's end.

Begins where the log stands: after a worker has died, the next one calls it with what was said so far. The unit of
recovery is the model turn: see takeover.py. The notes `turn` and `superseded` tell the next worker where one began and
what counts no more, `usage` tells whoever ends the log what the turn had cost by then.
Knows neither the store nor the server: it gives batches of events and notes, and whoever runs it appends them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from antiphon.engine.compaction import Seals, compact, is_due, say_compaction, seal_reasoning, shown, summarize
from antiphon.engine.model import Delta, Finish, Model, Usage
from antiphon.engine.takeover import Prefix, has_finished_call, leave_turn, open_prefix
from antiphon.engine.tools.toolbox import Toolbox
from antiphon.engine.truncation import shortened
from antiphon.engine.turn import Turn, is_summarized
from antiphon.errors import ModelError
from antiphon.protocol.context import without_unpaired_calls
from antiphon.protocol.endings import close_failed, note_usage
from antiphon.protocol.transcript import Note, Transcript

Entry = dict[str, Any] | Note

_NOTE_SECONDS = 1.0  # so old may the usage be that a response has which is cancelled

_OUT_OF_REACH = frozenset({429, 502, 503, 504, 529})

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
    waits: bool = False,
) -> AsyncGenerator[list[Entry]]:
    """Yield the rest of a response's log in batches, up to and with its terminal event.

    transcript: what was said so far; it is written on.
    request: the create body, without `input`; context: all items that the model must see, oldest first.
    seals: for what callers get encrypted: reasoning, and summaries of the context.
    new_id: makes an id with the prefix given: "msg", "rs", "fc", or "call" for a call_id.
    notes: those of the log, for a response that another worker has begun; waits: nobody is in a hurry.
    Raises ModelError, with the log left open, if it waits and the model's server has said nothing but may soon.
    Closing the generator closes the model's socket, and leaves the log open.
    """
    begun: list[Entry] = [] if transcript.begun else [transcript.write("response.in_progress")]
    try:
        seen = without_unpaired_calls(shown(context, seals))
    except ModelError as failure:
        yield [*begun, *_fail(transcript, failure, usage=None)]
        return
    prefix = await open_prefix(transcript, notes, request, seen, model)
    if prefix is None:
        begun += leave_turn(transcript, notes)
        if has_finished_call(transcript):
            yield [*begun, _complete(transcript, usage=transcript.usage, now=now)]
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
        prefix=prefix,
    )
    begun_at = transcript.sequence_number
    noted_at = float("-inf")  # when the usage so far was noted last
    try:
        if request.get("compaction_trigger"):
            summary = await summarize(model, request, seen)
            said = say_compaction(transcript, summary, id=new_id("cmp"), seals=seals)
            yield [*said, _complete(transcript, usage=_told(summary.usage), now=now)]
            return
        asked = _asked(model, request, seen) if prefix is None else _asked_for_rest(model, request, seen, prefix)
        async with aclosing(asked) as pieces:
            async for deltas in pieces:
                events: list[Entry] = [*turn.take(deltas)]
                if turn.usage is not None and turn.finish is None and now() - noted_at >= _NOTE_SECONDS:
                    noted_at = now()
                    events.append(note_usage(transcript, usage_object(turn.usage)))
                if events:
                    yield events
                if turn.failure is not None:
                    raise turn.failure
        if turn.finish is None:
            raise ModelError("The model's server ended its answer without saying why.")
    except ModelError as failure:
        if waits and _is_out_of_reach(failure) and transcript.sequence_number == begun_at:
            raise
        yield _fail(transcript, failure, usage=turn.usage)
        return
    events = [*turn.end()]
    if turn.failure is not None:
        yield [*events, *_fail(transcript, turn.failure, usage=turn.usage)]
        return
    # Behind an answer that was cut nothing may follow: it would count as begun anew. So that waits for the next turn.
    if turn.finish.reason not in _INCOMPLETE and is_due(request, turn.usage):
        yield events  # what was said is shown while the summary is written
        said, turn.usage = await compact(transcript, request, seen, model, turn.usage, new_id=new_id, seals=seals)
        events = [*said]
    yield [*events, _end(transcript, turn, now=now)]


async def _asked_for_rest(
    model: Model, request: Mapping[str, Any], context: Sequence[Mapping[str, Any]], prefix: Prefix
) -> AsyncGenerator[list[Delta]]:
    """What comes behind a prefix; nothing if that was as much as the caller wants, or as the model can hold."""
    rest = prefix.rest_of(request)
    if rest is not None:
        answered = False
        try:
            async with aclosing(_asked(model, rest, [*context, *prefix.items])) as said:
                async for deltas in said:
                    answered = True
                    yield deltas
            return
        except ModelError as failure:
            if answered or failure.code != "context_length_exceeded":
                raise
    yield [*prefix.usage_so_far, Finish("length")]


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


def _is_out_of_reach(failure: ModelError) -> bool:
    """Whether the model's server is down or has too much to do, and not at odds with this request."""
    return failure.passing and failure.status in _OUT_OF_REACH


def usage_object(usage: Usage) -> dict[str, Any]:
    """The `usage` of a Response."""
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _told(usage: Usage | None) -> dict[str, Any] | None:
    """None where the model's server did not tell."""
    return None if usage is None else usage_object(usage)


def _call_ids(transcript: Transcript, context: Iterable[Mapping[str, Any]]) -> set[str]:
    """The call_ids that are taken: a second call of the same id could not be told from the first."""
    said = (transcript.item(index) for index in range(transcript.next_output_index))
    return {item["call_id"] for item in (*context, *said) if item.get("call_id")}


def _end(transcript: Transcript, turn: Turn, *, now: Callable[[], float]) -> dict[str, Any]:
    assert turn.finish is not None
    reason = _INCOMPLETE.get(turn.finish.reason)
    if reason is None:
        return _complete(transcript, usage=_told(turn.usage), now=now)
    return transcript.write(
        "response.incomplete",
        incomplete_details={"reason": reason},
        usage=_told(turn.usage),
        service_tier="default",
    )


def _complete(transcript: Transcript, *, usage: Mapping[str, Any] | None, now: Callable[[], float]) -> dict[str, Any]:
    return transcript.write("response.completed", completed_at=int(now()), usage=usage, service_tier="default")


def _fail(transcript: Transcript, failure: ModelError, *, usage: Usage | None) -> list[Entry]:
    fault: dict[str, Any] = {
        "message": failure.message,
        "type": failure.type,
        "code": failure.code,
        "param": failure.param,
    }
    events: list[Entry] = [*close_failed(transcript, **fault, usage=_told(usage))]
    headers = {"headers": failure.headers} if failure.headers else {}
    return [*events, transcript.note("failed", status=failure.status, error=fault, **headers)]

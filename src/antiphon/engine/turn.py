"""Turn: makes the pieces of one model turn into events, in the order that the API keeps.

Items never overlap. Once a function call is open, what belongs to any other item waits until that call is known to be
complete, or until the turn ends: servers may mix the pieces of parallel calls, the API does not.
Source: the order of events per item in the recorded streams of the API.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from antiphon.engine.model import Call, Delta, Finish, Reasoning, Refusal, Text, Usage
from antiphon.protocol.endings import close_item, close_part
from antiphon.protocol.transcript import Transcript

Event = dict[str, Any]

_SAID: dict[type[Delta], tuple[str, str]] = {  # the item and the part that a piece of text belongs to
    Text: ("message", "output_text"),
    Refusal: ("message", "refusal"),
    Reasoning: ("reasoning", "reasoning_text"),
}
_PARTS: dict[str, dict[str, Any]] = {
    "output_text": {"type": "output_text", "annotations": [], "logprobs": [], "text": ""},
    "refusal": {"type": "refusal", "refusal": ""},
    "reasoning_text": {"type": "reasoning_text", "text": ""},
}
_DELTAS = {"refusal": "response.refusal.delta", "reasoning_text": "response.reasoning_text.delta"}


class Turn:
    """The events of one turn. `take` what the model says, then `end` it.

    new_id: makes an id with the prefix given; call_ids: those that may not be used again.
    """

    def __init__(self, transcript: Transcript, *, new_id: Callable[[str], str], call_ids: Iterable[str] = ()) -> None:
        self.finish: Finish | None = None
        self.usage: Usage | None = None
        self._transcript = transcript
        self._new_id = new_id
        self._call_ids = set(call_ids)
        self._answered = False  # a message or a call was begun
        self._item = ""  # the type of the open item; "" while none is open
        self._part = ""  # the type of its open part
        self._call = -1  # the index of the open call
        self._closed_calls: set[int] = set()
        self._place: dict[str, Any] = {}  # item_id, output_index and content_index of the open part or item
        self._waiting: dict[
            int, list[Delta]
        ] = {}  # by the call's index, -1 for text; in the order of their first pieces

    def take(self, deltas: list[Delta]) -> list[Event]:
        """The events that these pieces make."""
        events: list[Event] = []
        run: list[str] = []  # of text without logprobs: nearly every piece there is
        for delta in deltas:
            if type(delta) is Text and self._part == "output_text" and delta.logprobs is None:
                run.append(delta.text)
                continue
            if run:
                events += self._run(run)
                run = []
            if type(delta) is Finish:
                self.finish = delta
            elif type(delta) is Usage:
                self.usage = delta
            else:
                self._say(delta, events)
        if run:
            events += self._run(run)
        return events

    def end(self) -> list[Event]:
        """Close what is open: as completed, unless the model was cut short."""
        cut = self.finish is not None and self.finish.reason in ("length", "content_filter")
        events: list[Event] = []
        while self._waiting:
            self._close(events, completed=not cut or self._is_call_complete())
            for delta in self._waiting.pop(next(iter(self._waiting))):
                self._say(delta, events)
        if not self._answered and not cut:
            self._open("message", "output_text", events)  # a caller may rely on an answer to be there
        self._close(events, completed=not cut)
        return events

    def _say(self, delta: Delta, events: list[Event]) -> None:
        if isinstance(delta, Call) and delta.index in self._closed_calls:
            return  # its arguments were complete: only white space can follow
        if self._item == "function_call" and not (isinstance(delta, Call) and delta.index == self._call):
            if self._waiting or not self._is_call_complete():
                key = delta.index if isinstance(delta, Call) else -1
                self._waiting.setdefault(key, []).append(delta)
                return
            self._close(events, completed=True)
        if isinstance(delta, Call):
            self._say_call(delta, events)
        else:
            item, part = _SAID[type(delta)]
            if self._part != part:
                self._open(item, part, events)
            events.append(self._text(delta))

    def _say_call(self, delta: Call, events: list[Event]) -> None:
        if self._item != "function_call":
            self._open_call(delta, events)
        if delta.arguments:
            events.append(
                self._transcript.write("response.function_call_arguments.delta", **self._place, delta=delta.arguments)
            )

    def _run(self, texts: list[str]) -> list[Event]:
        return self._transcript.write_run("response.output_text.delta", texts, **self._place, logprobs=[])

    def _text(self, delta: Any) -> Event:
        if type(delta) is Text:
            return self._transcript.write(
                "response.output_text.delta", **self._place, delta=delta.text, logprobs=delta.logprobs or []
            )
        return self._transcript.write(_DELTAS[self._part], **self._place, delta=delta.text)

    def _open(self, item: str, part: str, events: list[Event]) -> None:
        """Open a part, and its item unless it is the open one."""
        if self._item == item:
            content = self._transcript.item(self._place["output_index"])["content"]
            events += close_part(self._transcript, self._place, content[-1])
            self._place = {**self._place, "content_index": len(content)}
        else:
            self._close(events, completed=True)
            if item == "message":
                self._add(events, type=item, prefix="msg", status="in_progress", content=[], role="assistant")
                self._answered = True
            else:
                self._add(events, type=item, prefix="rs", summary=[], content=[])
            self._place["content_index"] = 0
        self._part = part
        events.append(self._transcript.write("response.content_part.added", **self._place, part=_PARTS[part]))

    def _open_call(self, delta: Call, events: list[Event]) -> None:
        self._close(events, completed=True)
        call_id = delta.call_id
        if not call_id or call_id in self._call_ids:  # some servers count from call_0 in every answer
            call_id = self._new_id("call")
        self._call_ids.add(call_id)
        self._add(
            events,
            type="function_call",
            prefix="fc",
            status="in_progress",
            arguments="",
            call_id=call_id,
            name=delta.name,
        )
        self._call = delta.index
        self._answered = True

    def _add(self, events: list[Event], *, type: str, prefix: str, **fields: Any) -> None:
        index = self._transcript.next_output_index
        item = {"id": self._new_id(prefix), "type": type, **fields}
        events.append(self._transcript.write("response.output_item.added", output_index=index, item=item))
        self._item = type
        self._place = {"item_id": item["id"], "output_index": index}

    def _close(self, events: list[Event], *, completed: bool) -> None:
        if not self._item:
            return
        index = self._place["output_index"]
        if self._item == "function_call":
            self._closed_calls.add(self._call)
            if completed and not self._transcript.item(index)["arguments"]:  # callers parse them, so "" will not do
                events.append(
                    self._transcript.write("response.function_call_arguments.delta", **self._place, delta="{}")
                )
        events += close_item(self._transcript, index, completed=completed)
        self._item = self._part = ""

    def _is_call_complete(self) -> bool:
        """Whether a call is open whose arguments are a whole JSON object."""
        if self._item != "function_call":
            return False
        arguments = self._transcript.item(self._place["output_index"])["arguments"]
        try:
            return isinstance(msgspec.json.decode(arguments), dict)
        except (msgspec.DecodeError, RecursionError):
            return False

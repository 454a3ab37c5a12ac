"""Turn: makes the pieces of one model turn into events, in the order that the API keeps.

Items never overlap. Once a call is open, what belongs to any other item waits until that call is known to be complete,
or until the turn ends: servers may mix the pieces of parallel calls, the API does not. What a call becomes is its
tool's affair.
Source: the order of events per item in the recorded streams of the API.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from antiphon.engine.carried import BEGUN_PARTS, Carrier
from antiphon.engine.model import Call, Carried, Delta, Finish, Reasoning, Refusal, Text, Usage
from antiphon.engine.takeover import Prefix
from antiphon.engine.tools.tool import ToolCall
from antiphon.engine.tools.toolbox import Toolbox
from antiphon.errors import ModelError
from antiphon.protocol.endings import close_item, close_part
from antiphon.protocol.ids import PREFIXES
from antiphon.protocol.transcript import Transcript

Event = dict[str, Any]

_SAID: dict[type[Delta], tuple[str, str]] = {  # the item and the part that a piece of text belongs to
    Text: ("message", "output_text"),
    Refusal: ("message", "refusal"),
    Reasoning: ("reasoning", "reasoning_text"),
}
_DELTAS = {
    "refusal": "response.refusal.delta",
    "reasoning_text": "response.reasoning_text.delta",
    "summary_text": "response.reasoning_summary_text.delta",
}


def is_summarized(request: Mapping[str, Any]) -> bool:
    """Whether the caller asks for a summary of the reasoning: gets what the model's server shows of it as that."""
    reasoning = request.get("reasoning") or {}
    return (reasoning.get("summary") or reasoning.get("generate_summary")) is not None


class Turn:
    """The events of one turn. `take` what the model says, then `end` it; a `failure` ends it too, and it takes no more.

    new_id: makes an id with the prefix given; call_ids: those that may not be used again; toolbox: what the model may
    call; summarized: the model's reasoning is shown as its summary and not as raw text; seal: makes the encrypted
    content of a reasoning item; prefix: the open message that the turn begins in, and whose one text goes on.
    """

    def __init__(
        self,
        transcript: Transcript,
        *,
        new_id: Callable[[str], str],
        call_ids: Iterable[str] = (),
        toolbox: Toolbox | None = None,
        summarized: bool = False,
        seal: Callable[[Mapping[str, Any]], str] | None = None,
        prefix: Prefix | None = None,
    ) -> None:
        self.finish: Finish | None = None
        self.usage: Usage | None = None
        self.failure: ModelError | None = None
        self._transcript = transcript
        self._new_id = new_id
        self._call_ids = set(call_ids)
        self._seal = seal
        self._carrier = Carrier(transcript, new_id=new_id, call_ids=self._call_ids, seal=seal)
        self._toolbox = toolbox or Toolbox({})
        self._said = {**_SAID, Reasoning: ("reasoning", "summary_text")} if summarized else _SAID
        self._answered = False  # a message or a call was begun
        self._item = ""  # the type of the open item; "" while none is open
        self._part = ""  # the type of its open part
        self._call: ToolCall | None = None  # the open call
        self._call_index = -1
        self._closed_calls: set[int] = set()
        self._place: dict[str, Any] = {}  # item_id, output_index and the part's index, of the open part
        self._waiting: dict[
            int, list[Delta]
        ] = {}  # by the call's index, -1 for text; in the order of their first pieces
        self._prefix = prefix
        if prefix is not None:
            self._answered, self._item, self._part = True, "message", "output_text"
            id = transcript.item(prefix.output_index)["id"]
            self._place = {"item_id": id, "output_index": prefix.output_index, "content_index": 0}

    def take(self, deltas: list[Delta]) -> list[Event]:
        """The events that these pieces make."""
        events: list[Event] = []
        run: list[str] = []  # of text without logprobs: nearly every piece there is
        for delta in deltas:
            if type(delta) is Text and self._part == "output_text" and delta.logprobs is None:
                run.append(delta.text)
                continue
            if type(delta) is Usage:  # some servers tell it with every piece
                self.usage = delta if self._prefix is None else self._prefix.usage(delta)
                continue
            if run:
                events += self._run(run)
                run = []
            if type(delta) is Finish:
                self.finish = delta
            elif type(delta) is Carried:
                events += self._carrier.take(delta.event)
                self.failure = self._carrier.failure
            else:
                self._say(delta, events)
        if run:
            events += self._run(run)
        return events

    def end(self) -> list[Event]:
        """Close what is open: as completed, unless the model was cut short."""
        cut = self.finish is not None and self.finish.reason in ("length", "content_filter")
        events: list[Event] = []
        while self._waiting and self.failure is None:
            self._close(events, completed=not cut or self._is_call_whole())
            for delta in self._waiting.pop(next(iter(self._waiting))):
                self._say(delta, events)
        events += self._carrier.end(completed=not cut)
        if not (self._answered or self._carrier.begun or cut):
            self._open("message", "output_text", events)  # a caller may rely on an answer to be there
        self._close(events, completed=not cut)
        return events

    def _say(self, delta: Delta, events: list[Event]) -> None:
        if isinstance(delta, Call) and delta.index in self._closed_calls:
            return  # its arguments were complete: only white space can follow
        if self._call is not None and not (isinstance(delta, Call) and delta.index == self._call_index):
            if self._waiting or not self._is_call_whole():
                key = delta.index if isinstance(delta, Call) else -1
                self._waiting.setdefault(key, []).append(delta)
                return
            self._close(events, completed=True)
        if self.failure is not None:
            return
        if isinstance(delta, Call):
            self._say_call(delta, events)
        else:
            item, part = self._said[type(delta)]
            if self._part != part:
                self._open(item, part, events)
            events.append(self._text(delta))

    def _say_call(self, delta: Call, events: list[Event]) -> None:
        call = self._call or self._open_call(delta, events)
        if delta.arguments:
            events += call.take(delta.arguments)

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
                self._add(events, type=item, status="in_progress", content=[], role="assistant")
                self._answered = True
            elif part == "summary_text":
                self._add(events, type=item, summary=[])
            else:
                self._add(events, type=item, summary=[], content=[])
            self._place["summary_index" if part == "summary_text" else "content_index"] = 0
        self._part = part
        added = "reasoning_summary_part" if part == "summary_text" else "content_part"
        events.append(self._transcript.write(f"response.{added}.added", **self._place, part=BEGUN_PARTS[part]))

    def _add(self, events: list[Event], *, type: str, **fields: Any) -> None:
        index = self._transcript.next_output_index
        item = {"id": self._new_id(PREFIXES[type]), "type": type, **fields}
        events.append(self._transcript.write("response.output_item.added", output_index=index, item=item))
        self._item = type
        self._place = {"item_id": item["id"], "output_index": index}

    def _open_call(self, delta: Call, events: list[Event]) -> ToolCall:
        self._close(events, completed=True)
        call_id = delta.call_id
        if not call_id or call_id in self._call_ids:  # some servers count from call_0 in every answer
            call_id = self._new_id("call")
        self._call_ids.add(call_id)
        function = self._toolbox.function(delta.name)
        item_id = self._new_id(PREFIXES[function.call.type])
        self._call = function.call(self._transcript, function, item_id=item_id, call_id=call_id)
        self._call_index = delta.index
        self._answered = True
        events += self._call.begin()
        return self._call

    def _close(self, events: list[Event], *, completed: bool) -> None:
        if self._call is not None:
            events += self._call.end(completed=completed)
            self.failure = self._call.failure
            self._closed_calls.add(self._call_index)
            self._call = None
        elif self._item:
            index = self._place["output_index"]
            sealed = self._seal and self._item == "reasoning" and self._seal(self._transcript.item(index))
            fields = {"encrypted_content": sealed} if sealed else {}
            events += close_item(self._transcript, index, completed=completed, **fields)
        self._item = self._part = ""

    def _is_call_whole(self) -> bool:
        return self._call is not None and self._call.is_whole

"""ResponsesReader: the bytes of a Responses stream, as the pieces of a turn. No I/O.

What is about an item is carried as it is. What is about the whole response (its beginning, its end, its failure, its
usage) is said in our words: the response that our caller sees is another one.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from antiphon.engine.model import Carried, Delta, Finish, FinishReason, Usage
from antiphon.engine.models.failures import failure_in
from antiphon.errors import ModelError, ProtocolError
from antiphon.protocol.sse import Decoder

log = logging.getLogger(__name__)

Event = dict[str, Any]

_SAYS_NOTHING = frozenset({"keepalive", "response.created", "response.queued", "response.in_progress"})
_ENDS = frozenset({"response.completed", "response.incomplete", "response.done"})
_FAILS = frozenset({"response.failed", "response.cancelled"})
_CALLS = frozenset(
    {"function_call", "custom_tool_call", "local_shell_call", "shell_call", "apply_patch_call", "computer_call"}
)
_REASONS: dict[str, FinishReason] = {"max_output_tokens": "length", "content_filter": "content_filter"}

_decode = msgspec.json.Decoder(dict[str, Any]).decode


class ResponsesReader:
    """Takes what the server sends, in pieces of any size.

    What makes no sense is a `failure`, and nothing is taken after it; what came before it was said, and is given.

    event_bytes_max: no event may be longer; secrets: left out of the server's error messages.
    """

    def __init__(self, *, event_bytes_max: int = 8 << 20, secrets: Sequence[str] = ()) -> None:
        self.done = False  # the response has ended: nothing that counts can follow
        self.failure: ModelError | None = None
        self._decoder = Decoder(limit_bytes=event_bytes_max)
        self._secrets = secrets
        self._items: set[Any] = set()  # the output_index and the id of each item that was done
        self._calls = False

    def feed(self, data: bytes) -> list[Delta]:
        """The pieces that `data` completes."""
        deltas: list[Delta] = []
        try:
            for message in self._decoder.feed(data):
                if not self.done:
                    self._take(message.event, message.data, deltas)
        except ProtocolError as error:
            self.failure = ModelError(f"The model's server sent too much at once. {error.message}")
        except ModelError as failure:
            self.failure = failure
        return deltas

    def close(self) -> list[Delta]:
        """The last pieces, when the server has sent everything. Raises ModelError if that was not its whole answer."""
        deltas: list[Delta] = []
        for message in self._decoder.close():
            if not self.done:
                self._take(message.event, message.data, deltas)
        if not self.done:
            raise ModelError("The model's server broke off in the middle of its answer.", passing=True)
        return deltas

    def whole(self, body: bytes) -> list[Delta]:
        """The pieces of an answer that came as one JSON object. Raises ModelError if it is not a whole answer."""
        response = _decoded(body)
        deltas: list[Delta] = []
        self._take_event({"type": f"response.{response.get('status')}", "response": response}, deltas)
        return deltas + self.close()

    def _take(self, name: str, data: bytes, deltas: list[Delta]) -> None:
        if not data or data == b"[DONE]":
            return
        event = _decoded(data)
        event.setdefault("type", name)
        self._take_event(event, deltas)

    def _take_event(self, event: Event, deltas: list[Delta]) -> None:
        try:
            if not isinstance(event["type"], str):
                raise TypeError("its type is no text")
            self._sort(event["type"], event, deltas)
        except (AttributeError, TypeError, ValueError) as error:
            raise ModelError(f"The model's server sent a malformed event: {error}.") from error

    def _sort(self, type: str, event: Event, deltas: list[Delta]) -> None:
        if type in _SAYS_NOTHING:
            return
        if type in _ENDS:
            self._end(event, deltas)
        elif type in _FAILS or type == "error":
            deltas.extend(_usage(event.get("response")))
            raise failure_in(_error(event), secrets=self._secrets)
        else:
            if type == "response.output_item.done":
                self._note(event.get("output_index"), event.get("item"))
            deltas.append(Carried(event))

    def _end(self, event: Event, deltas: list[Delta]) -> None:
        response = event.get("response") or {}
        for index, item in enumerate(response.get("output") or ()):
            if self._items.isdisjoint((index, item.get("id") or index)):  # a server that streams only its end
                self._note(index, item)
                deltas.append(Carried({"type": "response.output_item.done", "output_index": index, "item": item}))
        reason = (response.get("incomplete_details") or {}).get("reason")
        incomplete = event["type"] == "response.incomplete"
        finish = _REASONS.get(str(reason), "length") if incomplete else "tool_calls" if self._calls else "stop"
        deltas.append(Finish(finish))
        deltas.extend(_usage(response))
        self.done = True

    def _note(self, index: Any, item: Any) -> None:
        if isinstance(item, Mapping):
            self._items.update((index, item.get("id") or index))
            self._calls = self._calls or item.get("type") in _CALLS


def _decoded(data: bytes) -> Event:
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(f"The model's server sent a malformed event: {error}.") from error


def _error(event: Event) -> Any:
    """The error object of a failed response, of a nested `error` event, or of a flat one."""
    error = event.get("error") or (event.get("response") or {}).get("error")
    if isinstance(error, Mapping):
        return error
    if event["type"] == "error":
        return {name: event.get(name) for name in ("code", "message", "param")}
    return {"message": "The model's server has given up its answer.", "code": "server_error"}


def _usage(response: Any) -> list[Usage]:
    """The usage that a response tells; none for counts that make no sense, which are no reason to fail."""
    usage = (response or {}).get("usage")
    if not usage:
        return []
    try:
        told = (
            usage.get("input_tokens"),
            usage.get("output_tokens"),
            (usage.get("input_tokens_details") or {}).get("cached_tokens"),
            (usage.get("output_tokens_details") or {}).get("reasoning_tokens"),
        )
        return [Usage(*(int(count or 0) for count in told))]
    except (AttributeError, TypeError, ValueError, OverflowError):
        log.warning("the usage of the model's server cannot be read")
        return []

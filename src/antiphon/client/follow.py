"""A stream that goes on after a break, without a gap or a repeat, and without I/O.

A Responses stream is a log of numbered events: whatever happens to the connection, the events behind the last one
can be asked for again. Events seen before are dropped, a gap in the numbers is a break like any other. Any other
event stream (Chat Completions and the like) is read as it comes and cannot be resumed; an error that it tells of is
raised.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from antiphon.client.call import (
    Close,
    Event,
    Patience,
    Read,
    Request,
    Steps,
    Wait,
    accepted,
    content,
    pause,
    segment,
    worth_repeating,
)
from antiphon.errors import ApiError, ConnectionFailed, Gap, NotFound, ProtocolError, StreamBroken
from antiphon.protocol.sse import Decoder, Message
from antiphon.protocol.transcript import TERMINAL, Transcript

LINGER_SECONDS = 1.0  # the end of the body follows the last event at once; read to it, a connection can be used again
ENDED = frozenset({"completed", "incomplete", "failed", "cancelled"})
_ERROR_STATUSES = frozenset(map(str, range(400, 600)))

Failure = ApiError | ConnectionFailed | ProtocolError


@dataclass(frozen=True)
class LogAddress:
    """Where the events of a response are read again, and how this call wants to see them."""

    path: str  # of the responses, percent-escaped: "/responses"
    query: tuple[tuple[str, str], ...] = ()  # include, include_obfuscation
    headers: Mapping[str, str] | None = None
    response_id: str | None = None  # None until the first event of a create has named it
    after: int = -1

    def request(self, response_id: str, *, after: int, answer_seconds: float) -> Request:
        return Request(
            method="GET",
            path=f"{self.path}/{segment(response_id)}",
            query=(*self.query, ("stream", "true"), ("starting_after", str(after))),
            headers=self.headers or {},
            wants_stream=True,
            answer_seconds=answer_seconds,
        )

    def snapshot(self, response_id: str) -> Request:
        return Request("GET", f"{self.path}/{segment(response_id)}", query=self.query, headers=self.headers or {})


class Following:
    """What a stream has said so far, and how it goes on after a break.

    log: None for a stream that is not the log of a response.
    response_id, sequence_number: of the response, and of the last event handed out; None and -1 before the first.
    """

    def __init__(self, request: Request, *, log: LogAddress | None, patience: Patience) -> None:
        self.response_id = log.response_id if log else None
        self.sequence_number = log.after if log else -1
        self.closed = False
        self._request = request
        self._log = log
        self._tells_errors = log is None  # in the place of an event; a log has events for what fails
        self._patience = patience
        # A create's log may never have been there for others to read; one that was retrieved has.
        self._was_found = log is not None and log.response_id is not None
        # What was not read from its beginning cannot be folded: the terminal snapshot has to do.
        self._transcript = Transcript() if log and log.after < 0 else None
        self._final: dict[str, Any] | None = None
        self._ended: dict[str, Any] | None = None  # the Response, if it is known to have ended
        self._attempt = 0  # since the last new event
        self._deadline: float | None = None

    @property
    def response(self) -> dict[str, Any] | None:
        """The Response as said so far; None before its first event, or before its last if the first was not read."""
        if self._final is not None:
            return self._final
        if self._transcript is None or self._transcript.sequence_number < 0:
            return None
        return self._transcript.response

    def steps(self) -> Steps:
        """Read the open answer, and those that replace it, to the end of the stream."""
        while True:
            try:
                yield from self._read()
                return
            except (ApiError, ConnectionFailed, ProtocolError) as failure:
                yield Close()
                if self._tells_errors and isinstance(failure, ApiError):
                    raise
                yield from self._reopen(failure)

    def _read(self) -> Steps:
        """Hand out the events of one answer. Raises ConnectionFailed if it ends before the stream does."""
        decoder, begun_at = Decoder(), self.sequence_number
        while data := (yield Read(self._patience.stall_seconds)):
            for message in decoder.feed(data):
                yield from self._take(message)
            if self.closed:
                yield from self._linger()
                return
        for message in decoder.close():
            yield from self._take(message)
        if self._log and begun_at == self.sequence_number:
            yield from self._look_for_an_end(self._log)
        if self._log and not self.closed:
            raise ConnectionFailed("The stream ended before its last event.")

    def _look_for_an_end(self, log: LogAddress) -> Steps:
        """Find out what an answer without news means: that the server broke it off, or that all had been said.

        There may be nothing behind the last event that the caller knows, and no terminal event ever, as for some
        cancelled responses. So ask for the Response: if it has ended, and what is asked for after that is empty
        again, the log ends here.
        """
        if self._ended is not None:
            self._final, self.closed = self._ended, True
        elif self.response_id is not None:
            yield Close()
            response = content(accepted((yield log.snapshot(self.response_id))))
            if isinstance(response, dict) and response.get("status") in ENDED:
                self._ended = response

    def _linger(self) -> Steps:
        try:
            while (yield Read(LINGER_SECONDS)):
                pass
        except ConnectionFailed:
            pass  # all has been said
        yield Close()

    def _take(self, message: Message) -> Generator[Event, None, None]:
        """Hand out the message's event, if it is new."""
        if self.closed:
            return
        if message.data.startswith(b"[DONE]"):
            self.closed = not self._log
            return
        event = _decoded(message)
        if self._tells_errors:
            _raise_error(message, event)
        if not self._log or not isinstance(event, dict) or self._count(event):
            yield Event(event)

    def _count(self, event: dict[str, Any]) -> bool:
        """Take the event into account; whether it is new."""
        number = event.get("sequence_number")
        if type(number) is int:  # and not True
            if number <= self.sequence_number:
                return False
            self._fold(event, number)
        elif str(event.get("type")).startswith("response."):
            # A server that does not number its events: all that is left is to read them as they come.
            self._log = self._transcript = None
        return True

    def _fold(self, event: dict[str, Any], number: int) -> None:
        if number != self.sequence_number + 1:
            raise Gap(f"Event {number} where event {self.sequence_number + 1} comes next.")
        if self._transcript is not None:
            try:
                self._transcript.read(event)
            except ProtocolError:
                # A server that breaks the order of the API still has its events heard; only the fold has to wait
                # for the last snapshot.
                self._transcript = None
        response = event.get("response")
        if isinstance(response, dict):
            id = response.get("id")
            self.response_id = self.response_id or (id if isinstance(id, str) else None)
        if str(event.get("type")) in TERMINAL:
            self._final = response if isinstance(response, dict) else None
            self.closed = True
        self.sequence_number = number
        self._attempt, self._deadline = 0, None

    def _reopen(self, failure: Failure) -> Generator[Request | Wait, Any, None]:
        """Open the log again behind the last event, as often as it takes.

        Raises StreamBroken in the end; NotFound for what was deleted since it was opened.
        """
        while True:
            request = self._continuation()
            seconds = self._pause(failure, request)
            if isinstance(failure, NotFound) and self._was_found:
                raise failure
            if request is None or seconds is None:
                raise self._broken(failure) from failure
            if seconds:
                yield Wait(seconds)
            try:
                reply = accepted((yield request))
            except (ApiError, ConnectionFailed) as again:
                failure = again
                continue
            if reply.body is None:
                return
            wrong = ProtocolError(f"The server answered a resume with {reply.media_type} instead of a stream.")
            raise self._broken(wrong) from wrong

    def _continuation(self) -> Request | None:
        """What asks for the rest; None if nothing does."""
        if self._log is None:
            return None
        if self.response_id is None:
            return self._request if self._request.repeatable else None
        seconds = self._patience.stall_seconds
        return self._log.request(self.response_id, after=self.sequence_number, answer_seconds=seconds)

    def _pause(self, failure: Failure, request: Request | None) -> float | None:
        """Seconds until the next attempt, none before the first; None to give up.

        The first goes out at once: it is more often the connection that is lost than the server.
        """
        now = self._patience.now()
        if self._deadline is None:
            self._deadline = now + self._patience.resume_seconds
        if isinstance(failure, ApiError) and request and not worth_repeating(failure, request):
            return None
        self._attempt += 1
        if self._attempt == 1 and self._patience.resume_seconds > 0:
            return 0.0
        seconds = pause(failure, self._attempt - 2, self._patience)
        return seconds if seconds is not None and now + seconds < self._deadline else None

    def _broken(self, failure: Failure) -> StreamBroken:
        message = f"The stream broke off {self._reason(failure)}: {failure}"
        return StreamBroken(message, response_id=self.response_id, sequence_number=self.sequence_number)

    def _reason(self, failure: Failure) -> str:
        """Where the stream ended, and why it goes on no more."""
        if self._log is None:
            return "and cannot be resumed, since its events have no numbers"
        if self.response_id is None and not self._request.repeatable:
            return "before its first event, and a create is sent again only with an idempotency_key"
        after = f"after event {self.sequence_number}" if self.sequence_number >= 0 else "before its first event"
        # OpenAI streams a response again only if it was made in the background, and only for some minutes.
        refused = isinstance(failure, ApiError) and failure.status in (400, 404) and self.response_id is not None
        return f"{after} and {'the server does not stream it again' if refused else 'could not be resumed'}"


def _decoded(message: Message) -> Any:
    try:
        return msgspec.json.decode(message.data)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"An event is not JSON: {error}") from error


def _raise_error(message: Message, event: Any) -> None:
    """Raise the error that a message stands for: `{"error": ...}` in any event, or an event that is named so.

    The answer's own status was said before anything went wrong, so that of the error is its code where that is one.
    """
    if isinstance(event, dict) and (event.get("error") or message.event == "error"):
        error = event.get("error") or event
        code = str(error.get("code")) if isinstance(error, dict) else ""
        raise ApiError.of(int(code) if code in _ERROR_STATUSES else 500, {"error": error})

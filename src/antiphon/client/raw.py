"""Answers as they are: the status, the headers and the undecoded body, whatever the status is."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from antiphon.client.call import Output, Result, decode_json
from antiphon.client.methods import Methods
from antiphon.errors import ProtocolError

if TYPE_CHECKING:
    from antiphon.spec import Document


@dataclass(frozen=True)
class RawAnswer:
    """One answer, read to its end."""

    status: int
    headers: Mapping[str, str]  # by their lower-case names
    body: bytes

    @property
    def request_id(self) -> str | None:
        return self.headers.get("x-request-id")

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """Raises ProtocolError if the body is no JSON."""
        try:
            return decode_json(self.body)
        except ValueError as error:
            raise ProtocolError(f"The answer is not JSON: {error}") from error


def answer(output: Output | None) -> RawAnswer:
    """What `raw_call` gives out, for its caller."""
    assert isinstance(output, Result), "a raw call ends with its result"
    reply = output.value
    return RawAnswer(reply.status, reply.headers, reply.body or b"")


class Raw(Methods):
    """The operations of a client, for their RawAnswer.

    Failures that may pass are tried again as ever, and where there is no answer ConnectionFailed is raised; but no
    status is an error here. A stream is read to its end.
    """

    def __init__(self, document: Document, call: Callable[..., RawAnswer]) -> None:
        self.document = document
        self._call = call

    def call(self, operation: str, /, **arguments: Any) -> RawAnswer:
        return self._call(operation, arguments)


class AsyncRaw(Methods):
    """The same, awaited."""

    def __init__(self, document: Document, call: Callable[..., Coroutine[Any, Any, RawAnswer]]) -> None:
        self.document = document
        self._call = call

    def call(self, operation: str, /, **arguments: Any) -> Coroutine[Any, Any, RawAnswer]:
        return self._call(operation, arguments)

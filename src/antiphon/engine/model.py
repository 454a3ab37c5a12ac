"""What a way of asking a model must do, and the pieces that its answer comes in.

A turn is one answer of the model. Its pieces come in lists, one list for each read from the model's socket, so that
many tokens that arrive together are handled together. Nothing here knows the form in which a server sent them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import msgspec

TENANT = "antiphon.tenant"  # no field of the API has such a name, so no caller can send it

PASSED_ON: ContextVar[Mapping[str, str] | None] = ContextVar("antiphon_passed_on", default=None)
"""Headers that the requests of a turn have besides: what tells the model's server which trace it is part of."""

# Structs and not dataclasses: one is made for every token, and a frozen dataclass takes six times as long.


class Text(msgspec.Struct, frozen=True, gc=False):
    """A piece of the answer's text."""

    text: str
    logprobs: list[dict[str, Any]] | None = (
        None  # {token, logprob, top_logprobs: [{token, logprob}]}, as events want it
    )


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """A piece of the model's explanation why it does not answer."""

    text: str


class Reasoning(msgspec.Struct, frozen=True, gc=False):
    """A piece of the model's raw reasoning."""

    text: str


class Call(msgspec.Struct, frozen=True, gc=False):
    """A piece of a function call. The first of each index carries the name, and the call_id if the server gave one."""

    index: int  # tells the calls of one turn apart; pieces of several calls may come mixed
    arguments: str
    name: str = ""
    call_id: str = ""


FinishReason = Literal["stop", "length", "content_filter", "tool_calls"]


class Finish(msgspec.Struct, frozen=True, gc=False):
    """The model has ended its turn. Comes once in every turn that did not fail; nothing but Usage may follow it."""

    reason: FinishReason


class Usage(msgspec.Struct, frozen=True, gc=False):
    """What the turn has cost so far, in tokens; the last one counts."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0


class Carried(msgspec.Struct, frozen=True, gc=False):
    """An event of a server that speaks the Responses API itself, below the response: of an item, a part, a delta.

    Its ids, its indexes and its number are that server's; carried.py gives it ours.
    """

    event: dict[str, Any]


Delta = Text | Refusal | Reasoning | Call | Finish | Usage | Carried


def text_of(delta: Delta) -> str:
    """What a piece adds to the answer's text; nothing for any other piece."""
    if isinstance(delta, Text):
        return delta.text
    if isinstance(delta, Carried) and delta.event["type"] == "response.output_text.delta":
        return str(delta.event["delta"])
    return ""


@dataclass(frozen=True)
class TokenCount:
    """How long the model's input is."""

    input_tokens: int
    exact: bool  # the model's own tokenizer has counted; otherwise it is an estimate


class Model(Protocol):
    """A way of asking a model. Every implementation passes `tests/contracts/model.py`."""

    async def continues_prefix(self, request: Mapping[str, Any], context: Sequence[Mapping[str, Any]]) -> bool:
        """Whether this turn can be begun in the middle of its answer: with what was said before at the end of its
        context, reasoning items and then an assistant's message with the status `incomplete`. It says the rest then.
        Raises ModelError if that cannot be told.
        """

    def turn(self, request: Mapping[str, Any], context: Sequence[Mapping[str, Any]]) -> AsyncGenerator[list[Delta]]:
        """One turn of the model that the request names.

        request: the create body, without `input`, and under TENANT whose response it is, where that is known;
        context: every item that the model must see, oldest first.
        Closing the generator, or cancelling the task that runs it, closes the model's socket at once.
        Raises ModelError, whose message may be shown to the caller.
        """

    async def count_tokens(self, request: Mapping[str, Any], context: Sequence[Mapping[str, Any]]) -> TokenCount:
        """How many tokens a turn would have as its input.

        By the model's own tokenizer where its server has that to offer; where it has not, or is out of reach, an
        estimate. Raises ModelError for what no turn could be asked, such as a model that does not exist.
        """

    async def runs_hosted_tools(self, model: str) -> bool:
        """Whether the server of this model runs the tools itself that the API's own would, such as a web search."""

    async def models(self) -> list[dict[str, Any]]:
        """The models that can be asked, as Model objects of the API. Raises ModelError."""

    async def close(self) -> None:
        """Let go of sockets and processes. Closing twice does no harm."""

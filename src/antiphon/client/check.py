"""Answers and events compared with the API description, for callers who want to know."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from antiphon.client.call import EVENTS, Reply, is_json
from antiphon.errors import InvalidAnswer

if TYPE_CHECKING:
    from antiphon.spec import Operation, Schema

_SHOWN_MAX = 5


class Check:
    """What an operation may answer. A mismatch is raised as InvalidAnswer, or only warned of."""

    def __init__(self, operation: Operation, *, warn: bool) -> None:
        self._operation = operation
        self._warn = warn

    def answer(self, reply: Reply, value: Any) -> None:
        """Compare a decoded answer; a status that is not described is a mismatch, one without a body is not."""
        described = self._operation.answers
        status = str(reply.status)
        answer = described.get(status) or described.get(f"{status[0]}XX") or described.get("default")
        if answer is None:
            self._tell(f"the status {status} is not described", value)
        elif value is not None:
            self._compare(next((answer.media[kind] for kind in answer.media if is_json(kind)), None), value, "answer")

    def event(self, event: Any) -> None:
        schemas = (answer.media[EVENTS] for answer in self._operation.answers.values() if EVENTS in answer.media)
        kind = event.get("type") if isinstance(event, dict) else None
        self._compare(next(schemas, None), event, f"event {kind}" if kind else "event")

    def _compare(self, schema: Schema | None, value: Any, what: str) -> None:
        problems = schema.problems(value) if schema else []
        if problems:
            more = f" (and {len(problems) - _SHOWN_MAX} more)" if len(problems) > _SHOWN_MAX else ""
            told = "; ".join(f"{each.param or '(top)'}: {each.message}" for each in problems[:_SHOWN_MAX])
            self._tell(f"the {what} does not match the description: {told}{more}", value, problems)

    def _tell(self, message: str, value: Any, problems: Any = ()) -> None:
        error = InvalidAnswer(f"{self._operation.id}: {message}", problems=problems, value=value)
        if not self._warn:
            raise error
        warnings.warn(error.message, stacklevel=2)

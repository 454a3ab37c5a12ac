"""How what is logged is written: a line to read, or a JSON object.

A module logs a sentence, with the facts as `extra`. What is logged while a call is served, or by the work that it
began, also has the call's `request_id`, and where there are traces the `trace_id`. Set up by the command line alone:
who embeds a server has logging of their own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextvars import ContextVar
from itertools import islice
from typing import Any

REQUEST_ID: ContextVar[str | None] = ContextVar("antiphon_request_id", default=None)
"""The call that is being served; what it begins inherits it."""

TRACE_ID: ContextVar[str | None] = ContextVar("antiphon_trace_id", default=None)
"""The trace that it is part of, if there are traces."""

FORMATS = ("text", "json")

_GIVEN = len(vars(logging.makeLogRecord({})))  # the first attributes of a record; behind them stands its `extra`
_NO_FACTS = frozenset({"message", "asctime", "color_message"})  # that other handlers, and uvicorn, put there too


def set_up(level: str, format: str) -> None:
    """Log to stderr; of other people's packages only what should worry somebody."""
    handler = logging.StreamHandler()
    handler.setFormatter(json_lines() if format == "json" else Plain())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("antiphon").setLevel(level.upper())
    # Nobody is told where a line was written, nor by which thread and process, and to find it out takes a twentieth of
    # a small create. Source: "Optimization" in the standard library's HOWTO of logging.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


class _Line(logging.Formatter):
    """What both kinds of lines have. Every response has two: the time of a second is written once."""

    _second = 0
    _written = ""

    def at(self, seconds: float, format: str, time_of: Callable[[float], time.struct_time]) -> str:
        second = int(seconds)
        if second != self._second:
            self._second, self._written = second, time.strftime(format, time_of(second))
        return self._written


class Plain(_Line):
    """A line to read, with the facts behind it: `response ended  status=completed`."""

    def format(self, record: logging.LogRecord) -> str:
        at = self.at(record.created, "%Y-%m-%d %H:%M:%S", time.localtime)
        line = f"{at},{int(record.msecs):03} {record.levelname:<7} {record.name}: {record.getMessage()}"
        for name, value in _facts(record).items():
            line += f"  {name}={value}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def json_lines() -> logging.Formatter:
    """One JSON object for each line: `event` is the sentence, the facts stand beside it."""
    import json

    import msgspec

    encode = msgspec.json.Encoder(enc_hook=str).encode

    class Json(_Line):
        def format(self, record: logging.LogRecord) -> str:
            at = self.at(record.created, "%Y-%m-%dT%H:%M:%S", time.gmtime)
            line: dict[str, Any] = {
                "timestamp": f"{at}.{int(record.created % 1 * 1e6):06}Z",
                "level": record.levelname.lower(),
                "logger": record.name,
                "event": record.getMessage(),
                **_facts(record),
            }
            if record.exc_info:
                line["exception"] = self.formatException(record.exc_info)
            try:
                return encode(line).decode()
            except UnicodeEncodeError:  # half of a surrogate pair, as in the name of a file that is no UTF-8
                return json.dumps(line, default=str)

    return Json()


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    """What came as `extra`, and the ids of the call and of the trace that the line belongs to."""
    facts = dict(islice(vars(record).items(), _GIVEN, None))
    for name in _NO_FACTS & facts.keys():
        del facts[name]
    if (request_id := REQUEST_ID.get()) is not None:
        facts["request_id"] = request_id
    if (trace_id := TRACE_ID.get()) is not None:
        facts["trace_id"] = trace_id
    return facts

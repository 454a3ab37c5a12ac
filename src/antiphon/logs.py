"""How what is logged is written: a line to read, or a JSON object.

A module logs a sentence, with the facts as `extra`. What is logged while a call is served, or by the work that it
began, also has the call's `request_id`. Set up by the command line alone: who embeds a server has logging of their own.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import Any

REQUEST_ID: ContextVar[str | None] = ContextVar("antiphon_request_id", default=None)
"""The call that is being served; what it begins inherits it."""

FORMATS = ("text", "json")


def set_up(level: str, format: str) -> None:
    """Log to stderr; of other people's packages only what should worry somebody."""
    handler = logging.StreamHandler()
    handler.addFilter(with_request_id)
    plain = Plain("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    handler.setFormatter(json_lines() if format == "json" else plain)
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("antiphon").setLevel(level.upper())
    # Nobody is told where a line was written, nor by which thread and process, and to find it out takes a twentieth of
    # a small create. Source: "Optimization" in the standard library's HOWTO of logging.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def with_request_id(record: logging.LogRecord) -> bool:
    """Let every line pass, with the id of the call that it belongs to."""
    request_id = REQUEST_ID.get()
    if request_id is not None:
        record.request_id = request_id
    return True


class Plain(logging.Formatter):
    """A line to read, with the facts that came as `extra` behind it: `response ended  status=completed`."""

    _NO_FACTS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}

    def formatMessage(self, record: logging.LogRecord) -> str:
        facts = [f"{name}={value}" for name, value in vars(record).items() if name not in self._NO_FACTS]
        return "  ".join([super().formatMessage(record), *facts])


def json_lines() -> logging.Formatter:
    """One JSON object for each line: `event` is the sentence, the facts stand beside it."""
    import msgspec
    import structlog

    def encoded(line: Any, **_: Any) -> str:
        return msgspec.json.encode(line, enc_hook=str).decode()

    stdlib = structlog.stdlib
    return stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            stdlib.add_log_level,
            stdlib.add_logger_name,
            stdlib.ExtraAdder(),
        ],
        processors=[
            stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=encoded),
        ],
    )

"""The list of all calls of the official SDK in docs/coming-from-openai.md, each with what does the same here.

The address of a call stands in its source; whoever calls that address with that method is its counterpart.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cached_property
from importlib.metadata import version
from typing import Any

from openai import OpenAI

from antiphon.spec import Document

SENDING = re.compile(r'self\._(get|post|put|patch|delete|get_api_list)\(\s*(?:path_template\(\s*)?f?"([^"]+)"')

# An address that the API description writes in another way.
OTHERWISE = {"evals.runs.cancel": "cancelEvalRun"}
# What sends nothing itself, but by other calls or not at all. The first pattern counts; one must fit.
HELPERS = (
    ("responses.stream", "`client.create_response(..., stream=True)`"),
    ("*completions.stream", "`client.create_chat_completion(..., stream=True)`"),
    ("*.parse", "none: `json.loads` of the text"),
    ("*connect", "none: a WebSocket"),
    ("beta.threads.create_and_run_stream", "`client.create_thread_and_run(..., stream=True)`"),
    ("beta.threads.runs.submit_tool_outputs_stream", "`client.submit_tool_outputs_to_run(..., stream=True)`"),
    ("beta.threads.runs.*stream", "`client.create_run(..., stream=True)`"),
    ("webhooks.*", "none: it makes no call"),
    ("*.*", "none: several calls"),
    ("close", "`client.close()`"),
    ("copy", "`client.with_options(...)`"),
    ("with_options", "`client.with_options(...)`"),
    ("is_closed", "none"),
    ("platform_headers", "none"),
    ("*", '`client.call("operationId", ...)`'),
)


def methods() -> list[tuple[str, Any]]:
    """All public methods of the SDK's client by their names, such as `responses.input_items.list`."""
    return sorted(_methods(OpenAI(api_key="none"), ""), key=lambda each: each[0])


def _methods(place: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for name in dir(type(place)):
        member = inspect.getattr_static(type(place), name)
        if name.startswith("_") or name in ("with_raw_response", "with_streaming_response"):
            continue
        if isinstance(member, (cached_property, property)):
            below = getattr(place, name)
            if type(below).__module__.startswith("openai.resources"):
                yield from _methods(below, f"{prefix}{name}.")
        elif callable(member):
            yield f"{prefix}{name}", member


def page() -> str:
    """A row for each method that has a counterpart, or is a helper, and a list of the others."""
    document = Document.load()
    here = {(each.method, _address(each.path, each.query)): each.name for each in document.operations.values()}
    rows, lacking = [], []
    for name, method in methods():
        sent = _sent(method)
        ours = document.operation(OTHERWISE[name]).name if name in OTHERWISE else here.get(sent) if sent else None
        if ours:
            rows.append(f"| `{name}` | `client.{ours}(...)` |")
        elif sent is None:
            rows.append(f"| `{name}` | {next(told for pattern, told in HELPERS if fnmatch(name, pattern))} |")
        else:
            lacking.append(f"`{name}`")
    return "\n".join(
        [
            f"All {len(rows) + len(lacking)} of version {version('openai')}, beside the description of this package:",
            "",
            "| Official SDK | Here |",
            "|---|---|",
            *rows,
            "",
            textwrap.fill(
                f"Not in that description, but with another (`Client(spec=...)`): {', '.join(lacking)}.", 118
            ),
        ]
    )


def _sent(method: Any) -> tuple[str, str] | None:
    """The method and the address of the last request that it makes."""
    source = inspect.getsource(inspect.unwrap(method))
    found = SENDING.findall(source)
    if not found:
        return None
    verb, path = found[-1]
    if verb == "get_api_list":
        named = re.search(r'method="(\w+)"', source)
        verb = named[1] if named else "get"
    path, _, query = path.partition("?")
    return verb.upper(), _address(path, [tuple(each.split("=", 1)) for each in query.split("&") if each])


def _address(path: str, query: Any) -> str:
    fixed = "&".join("=".join(pair) for pair in query)
    return re.sub(r"{[^}]*}", "{}", path) + (f"?{fixed}" if fixed else "")

"""Where an API is: the servers of a document, whose URLs may have variables in them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import DocumentError
from .names import listed


@dataclass(frozen=True)
class Variable:
    default: str
    description: str = ""
    enum: tuple[str, ...] = ()  # empty: any value


@dataclass(frozen=True)
class Server:
    url: str  # with {variables}
    description: str = ""
    variables: Mapping[str, Variable] = field(default_factory=dict)

    def url_with(self, **values: str) -> str:
        """The URL with these values for its variables, and the defaults of the others."""
        unknown = [name for name in values if name not in self.variables]
        if unknown:
            known = f"It has {listed(self.variables, word='and')}." if self.variables else "It has none."
            raise DocumentError(f"The server {self.url} has no variable '{unknown[0]}'. {known}")
        for name, value in values.items():
            allowed = self.variables[name].enum
            if allowed and value not in allowed:
                raise DocumentError(f"{name!r} of {self.url} is {listed(allowed, word='or')}, not {value!r}.")
        chosen = {name: variable.default for name, variable in self.variables.items()} | values
        # What has no value stays as it is written: a URL with a brace in it fails at once, and shows why.
        return re.sub(r"{([^{}]+)}", lambda each: chosen.get(each[1]) or each[0], self.url)


def servers(described: Any, location: str) -> Iterator[Server]:
    """The servers that are described; relative URLs are joined to that of the document, if it has one."""
    for raw in described or []:
        url = str(raw.get("url") or "/")
        if location.startswith(("http://", "https://")):
            from urllib.parse import urljoin  # not needed to read an index

            url = urljoin(location, url)
        variables = {str(name): _variable(each or {}) for name, each in (raw.get("variables") or {}).items()}
        yield Server(url.rstrip("/"), str(raw.get("description") or ""), variables)


def server_url(described: Any, location: str) -> str:
    """The URL of the first server; that of the document's own site if there is none."""
    return next(servers(described or [{}], location)).url_with()


def _variable(raw: Mapping[str, Any]) -> Variable:
    enum = tuple(str(value) for value in raw.get("enum") or ())
    default = raw.get("default")
    return Variable(
        str(default if default is not None else next(iter(enum), "")), str(raw.get("description") or ""), enum
    )

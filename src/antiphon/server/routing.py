"""Routes: who answers a method and a path."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.types import ASGIApp

from antiphon.errors import MethodNotAllowed, NotFound

Endpoint = Callable[[Request], Awaitable[ASGIApp]]

_PARAMETER = re.compile(r"\\\{(\w+)\\\}")  # in a path that is escaped already


class Routes:
    """Endpoints by path and method; a HEAD is answered like a GET."""

    def __init__(self) -> None:
        self._plain: dict[str, dict[str, Endpoint]] = {}
        self._patterns: dict[str, tuple[re.Pattern[str], dict[str, Endpoint]]] = {}

    def add(self, method: str, path: str, endpoint: Endpoint, *, rest: bool = False) -> None:
        """Let this endpoint answer a path. A `{name}` in it stands for one piece, with `rest` for all that is left."""
        methods = self._plain.setdefault(path, {})
        if "{" in path:
            del self._plain[path]
            pattern = _PARAMETER.sub(r"(?P<\1>.+)" if rest else r"(?P<\1>[^/]+)", re.escape(path))
            methods = self._patterns.setdefault(path, (re.compile(pattern, re.DOTALL), {}))[1]
        methods[method] = endpoint
        if method == "GET":
            methods["HEAD"] = endpoint

    def find(self, method: str, path: str) -> tuple[Endpoint, Mapping[str, str]]:
        """Who answers, and the parameters in the path. Raises NotFound or MethodNotAllowed."""
        methods = self._plain.get(path)
        if methods is not None and method in methods:
            return methods[method], {}
        allowed = {*(methods or ())}
        for pattern, methods in self._patterns.values():
            match = pattern.fullmatch(path)
            if match is not None:
                if method in methods:
                    return methods[method], match.groupdict()
                allowed.update(methods)
        if allowed:
            message = f"Not allowed to {method} on {path}."
            raise MethodNotAllowed(message, headers={"allow": ", ".join(sorted(allowed))})
        raise NotFound(f"Invalid URL ({method} {path})")

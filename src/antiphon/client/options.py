"""What a client is told when it is made, and may be told anew by `with_options`: where to, as whom, how patiently."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypedDict
from urllib.parse import urlsplit

from antiphon.client.forms import pairs, text

if TYPE_CHECKING:
    import httpx2

    from antiphon.client.call import Patience
    from antiphon.client.wire import Site
    from antiphon.spec import Document, Operation

ADMIN_SCHEME = "AdminApiKeyAuth"


class Choices(TypedDict, total=False):
    """The options by their names, for type checkers; `Client` says what they mean."""

    api_key_header: str
    admin_key: str | None
    organization: str | None
    project: str | None
    default_headers: Mapping[str, str] | None
    default_query: Mapping[str, Any] | None
    timeout: float | httpx2.Timeout | None
    max_retries: int
    stall_seconds: float
    resume_seconds: float
    validate_responses: bool | Literal["warn"]
    on_request: Callable[[httpx2.Request], Any] | None
    on_response: Callable[[httpx2.Response], Any] | None


class Changes(Choices, total=False):
    """What can be changed later: the options, and what is given first when a client is made."""

    base_url: str | None
    api_key: str | None


@dataclass(frozen=True)
class Options:
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    api_key_header: str = "authorization"
    admin_key: str | None = field(default=None, repr=False)
    organization: str | None = None
    project: str | None = None
    default_headers: Mapping[str, str] | None = field(default=None, repr=False)
    default_query: Mapping[str, Any] | None = field(default=None, repr=False)
    timeout: float | httpx2.Timeout | None = 600.0
    max_retries: int = 2
    stall_seconds: float = 120.0
    resume_seconds: float = 300.0
    validate_responses: bool | Literal["warn"] = False
    on_request: Callable[[httpx2.Request], Any] | None = None
    on_response: Callable[[httpx2.Response], Any] | None = None

    def with_headers(self, headers: Mapping[str, str | None]) -> Options:
        """The options with these default headers too; one that is None is taken away."""
        given = [*(self.default_headers or {}).items(), *headers.items()]
        merged = {name.lower(): value for name, value in given}
        return replace(self, default_headers={name: value for name, value in merged.items() if value is not None})

    def patience(self) -> Patience:
        from antiphon.client.call import Patience

        return Patience(
            max_retries=self.max_retries, stall_seconds=self.stall_seconds, resume_seconds=self.resume_seconds
        )

    def site(self, document: Document, *, in_process: bool, admin: bool) -> Site:
        """Where to and as whom. The environment speaks only for the network, never for an application at hand.

        admin: for operations that ask for the key of an administrator.
        """
        import importlib.metadata

        from antiphon.client.wire import Site

        environment: Mapping[str, str] = {} if in_process else os.environ
        headers = {"user-agent": f"antiphon/{importlib.metadata.version('antiphon')}"}
        headers |= self._identity(environment, admin=admin)
        headers |= {name.lower(): value for name, value in (self.default_headers or {}).items()}
        query = [
            (key, text(leaf)) for name, each in (self.default_query or {}).items() for key, leaf in pairs(name, each)
        ]
        local = "http://localhost" + urlsplit(document.server_url).path if in_process else document.server_url
        return Site(
            base_url=self.base_url or environment.get("OPENAI_BASE_URL") or local,
            headers=headers,
            query=tuple((name, text(value)) for name, value in query),
            timeout=self.timeout,
            # Only Authorization is known to httpx2 as what another server must not see.
            follow_redirects=self.api_key_header.lower() == "authorization",
            on_request=self.on_request,
            on_response=self.on_response,
        )

    def _identity(self, environment: Mapping[str, str], *, admin: bool) -> dict[str, str]:
        key = self.api_key or environment.get("OPENAI_API_KEY")
        if admin:
            key = self.admin_key or environment.get("OPENAI_ADMIN_KEY") or key
        name = self.api_key_header.lower()
        given = {
            name: f"Bearer {key}" if key and name == "authorization" else key,
            "openai-organization": self.organization or environment.get("OPENAI_ORG_ID"),
            "openai-project": self.project or environment.get("OPENAI_PROJECT_ID"),
        }
        return {name: value for name, value in given.items() if value}


def is_for_admins(operation: Operation) -> bool:
    """Whether only the key of an administrator opens this operation."""
    return bool(operation.security) and all(
        any(scheme.name == ADMIN_SCHEME for scheme in choice) for choice in operation.security
    )

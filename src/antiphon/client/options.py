"""What a client is told when it is made, and may be told anew by `with_options`: where to, as whom, how patiently."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypedDict
from urllib.parse import urlsplit

from antiphon.client.forms import pairs, text
from antiphon.errors import InvalidRequest

if TYPE_CHECKING:
    import httpx2

    from antiphon.client.call import Patience
    from antiphon.client.credentials import Credential, Proof
    from antiphon.client.wire import Site
    from antiphon.spec import Document, Operation

ADMIN_SCHEME = "AdminApiKeyAuth"
ENVIRONMENT = ("OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID")
_OPENAI = ("https", "api.openai.com")


class Choices(TypedDict, total=False):
    """The options by their names, for type checkers; `Client` says what they mean."""

    api_key_header: str
    credentials: Mapping[str, Credential] | None
    server_variables: Mapping[str, str | int] | None
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
    credentials: Mapping[str, Credential] | None = field(default=None, repr=False)
    server_variables: Mapping[str, str | int] | None = None
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

    def __post_init__(self) -> None:
        if self.base_url and not _is_http(self.base_url):
            expected = "an http or https URL like http://127.0.0.1:8000/v1"
            raise InvalidRequest(f"base_url: {self.base_url!r} is not {expected}.")

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

    def site(
        self, document: Document, operation: Operation, *, environment: Mapping[str, str], in_process: bool
    ) -> Site:
        """Where to and as whom, for this operation.

        The environment is about OpenAI, and is heard where the description says that the operation is there: no key
        in it goes to another vendor, and none to an application at hand. Raises InvalidRequest and DocumentError.
        """
        from antiphon.client.wire import Site

        described = self._described_url(document, operation)
        if in_process or not _is_openais(described):
            environment = {}
        proof = self._proof(document, operation, environment)
        own = {name.lower(): value for name, value in (self.default_headers or {}).items()}  # any may be a key
        account = self._account(environment)
        query = [
            (key, text(leaf)) for name, each in (self.default_query or {}).items() for key, leaf in pairs(name, each)
        ]
        return Site(
            base_url=self.base_url or environment.get("OPENAI_BASE_URL") or _callable_url(described, in_process),
            headers={"user-agent": _user_agent(), **account, **proof.headers, **own},
            query=(*query, *proof.query),
            timeout=self.timeout,
            follow_redirects=proof.may_follow,
            private=frozenset((*account, *own)),
            on_request=self.on_request,
            on_response=self.on_response,
        )

    def _described_url(self, document: Document, operation: Operation) -> str:
        from antiphon.spec import Server

        values = {name: str(value) for name, value in (self.server_variables or {}).items()}
        if operation.servers:  # it may lack what the others have
            server = operation.servers[0]
            values = {name: value for name, value in values.items() if name in server.variables}
        else:
            server = next(iter(document.servers), Server(document.server_url))
        return server.url_with(**values)

    def _proof(self, document: Document, operation: Operation, environment: Mapping[str, str]) -> Proof:
        from antiphon.client.credentials import check_names, chosen, proof
        from antiphon.spec import Scheme

        check_names(self.credentials or {}, document.security)
        known = dict(self.credentials or {})
        admin_key = self.admin_key or environment.get("OPENAI_ADMIN_KEY")
        if admin_key:
            known.setdefault(ADMIN_SCHEME, admin_key)
        if not document.security:  # it does not say how callers are known, and most want a token
            operation = replace(operation, security=((Scheme("", "http", "bearer"),),))
        key = self.api_key or environment.get("OPENAI_API_KEY")
        return proof(chosen(operation, known, key), bearer_header=self.api_key_header)

    def _account(self, environment: Mapping[str, str]) -> dict[str, str]:
        given = {
            "openai-organization": self.organization or environment.get("OPENAI_ORG_ID"),
            "openai-project": self.project or environment.get("OPENAI_PROJECT_ID"),
        }
        return {name: value for name, value in given.items() if value}


def _is_http(url: str) -> bool:
    try:
        split = urlsplit(url)
        return split.scheme in ("http", "https") and bool(split.hostname)
    except ValueError:
        return False


def _is_openais(url: str) -> bool:
    try:
        split = urlsplit(url)
    except ValueError:  # what is no URL is refused where it is called
        return False
    return (split.scheme, split.hostname) == _OPENAI


def _callable_url(described: str, in_process: bool) -> str:
    if in_process:
        return "http://localhost" + urlsplit(described).path
    scheme, _, place = described.partition("://")
    if scheme.lower() not in ("http", "https") or "{" in place.partition("/")[0]:
        raise InvalidRequest(f"The API description does not say where {described!r} is: `base_url` is needed.")
    return described


@functools.cache
def _user_agent() -> str:
    import importlib.metadata

    return f"antiphon/{importlib.metadata.version('antiphon')}"

"""Who calls: the credentials that were given, put where the security schemes of an operation want them."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from antiphon.errors import InvalidRequest
from antiphon.spec.names import listed, nearest

if TYPE_CHECKING:
    from antiphon.spec import Operation, Scheme

Credential = str | tuple[str, str]  # a token or key, or a user and a password

_BEARER = ("", "bearer")  # OAuth 2 and OpenID Connect name no scheme, and their tokens are sent as one
_WITHOUT_CREDENTIAL = "mutualTLS"  # the connection itself says it


@dataclass(frozen=True)
class Proof:
    """What a request carries to be let in."""

    headers: Mapping[str, str] = field(default_factory=dict)  # by their lower-case names
    query: tuple[tuple[str, str], ...] = ()

    @property
    def may_follow(self) -> bool:
        """Whether a redirect may be followed. Only Authorization is known to httpx2 as what no other may see."""
        return not self.query and self.headers.keys() <= {"authorization"}


def chosen(operation: Operation, known: Mapping[str, Credential], key: str | None) -> list[tuple[Scheme, Credential]]:
    """The credentials for the first way in that they are enough for; none where they are for none, or anyone may call.

    known: by the names of their schemes. key: for a scheme that takes one token or key, where it is asked for alone.
    Raises InvalidRequest if only a part is known of what belongs together.
    """
    for schemes in _ways_in(operation):
        if all(each.name in known for each in schemes):
            return [(each, known[each.name]) for each in schemes]
        if key and len(schemes) == 1 and schemes[0].scheme in _BEARER:
            return [(schemes[0], key)]
    for schemes in _ways_in(operation):
        absent = [each.name for each in schemes if each.name not in known]
        if len(absent) < len(schemes):
            together = listed((each.name for each in schemes), word="and")
            lacking = listed(absent, word="and")
            raise InvalidRequest(f"{operation.id} takes {together} together, and there is no credential for {lacking}.")
    return []


def proof(credentials: list[tuple[Scheme, Credential]], *, bearer_header: str = "authorization") -> Proof:
    """The credentials, each in its place. Raises InvalidRequest for one that its scheme cannot use."""
    placed = [_placed(scheme, credential, bearer_header.lower()) for scheme, credential in credentials]
    headers = {name.lower(): value for location, name, value in placed if location == "header"}
    cookies = [f"{name}={value}" for location, name, value in placed if location == "cookie"]
    if cookies:
        headers["cookie"] = "; ".join(cookies)
    return Proof(headers, tuple((name, value) for location, name, value in placed if location == "query"))


def check_names(credentials: Mapping[str, Credential], schemes: Mapping[str, Scheme]) -> None:
    """Raises InvalidRequest for a credential whose scheme the API description does not have."""
    for name in credentials:
        if name not in schemes:
            near = nearest(name, schemes) or list(schemes)
            hint = f" Did you mean {listed(near, word='or')}?" if near else ""
            raise InvalidRequest(f"The API description has no security scheme '{name}'.{hint}")


def _ways_in(operation: Operation) -> Iterator[list[Scheme]]:
    for choice in operation.security:
        schemes = [each for each in choice if each.type != _WITHOUT_CREDENTIAL]
        if schemes:
            yield schemes


def _placed(scheme: Scheme, credential: Credential, bearer_header: str) -> tuple[str, str, str]:
    """Where the credential goes, under which name, and as what."""
    if scheme.scheme == "basic":
        if isinstance(credential, str):
            raise InvalidRequest(f"The security scheme '{scheme.name}' takes a user and a password, in a tuple.")
        pair = base64.b64encode(":".join(credential).encode()).decode()
        return "header", "authorization", f"Basic {pair}"
    if not isinstance(credential, str):
        raise InvalidRequest(f"The security scheme '{scheme.name}' takes one text, not a user and a password.")
    if scheme.type == "apiKey":
        return scheme.location, scheme.parameter, credential
    if scheme.scheme not in _BEARER:
        raise InvalidRequest(f"The security scheme '{scheme.name}' is {scheme.scheme}, which is not supported here.")
    return "header", bearer_header, f"Bearer {credential}" if bearer_header == "authorization" else credential

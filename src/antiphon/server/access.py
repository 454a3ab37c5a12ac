"""Who may call: the caller behind a key or, without keys, whether the call comes from this machine itself.

Keys come from the settings and from the database; as soon as there is one in either, every call needs one. A key is a
tenant's, for the operations of the API, or an admin's, for what tells about the server as a whole. Without keys
anybody who reaches the port may do everything, so a web page must not reach it through the user's browser: the Host
header must be a loopback name (DNS rebinding), a foreign Origin is refused (cross-site requests).
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection

from antiphon.errors import Forbidden, StoreError, Unauthorized
from antiphon.store.keys import ADMIN, Key, Keys, digest_of

TENANT_WITHOUT_KEYS = "default"

KEYLESS: Mapping[str, str] = {
    "/healthz": "the process answers",
    "/readyz": "the model is there",
    "/metrics": "counters for Prometheus",
}
"""All routes that need no key if the call comes from this machine, and what they tell. From elsewhere, an admin's."""

KNOWN_SECONDS = 1.0  # how long a key is believed without asking the database again: how late a revocation comes
USED_SECONDS = 60.0  # how exactly it is known when a key was last used

_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")


@dataclass(frozen=True, slots=True, eq=False)
class Caller:
    """Who calls: the owner of what is asked for, and what its use is counted under."""

    tenant: str  # ADMIN, who owns nothing, for one that looks after the server
    key: str  # the key's id; of the settings, its name
    limits: Mapping[str, int] = field(default_factory=dict)  # where the key's differ from the server's


@dataclass(slots=True)
class _Known:
    """A key as the database had it a moment ago."""

    key: Key
    caller: Caller
    seen_at: float


class Access:
    """Decides who may call.

    keys: those of the settings, by tenant, and admin_keys, by name; kept: those of the database. loopback_only: without
    keys, refuse what a web page of another site could send, but for the origins named.
    """

    def __init__(
        self,
        keys: Mapping[str, str],
        *,
        admin_keys: Mapping[str, str] = MappingProxyType({}),
        kept: Keys | None = None,
        loopback_only: bool = True,
        origins: Collection[str] = (),
        now: Callable[[], float] = time.time,
    ) -> None:
        self._given = {digest_of(key): Caller(name, name) for name, key in keys.items()}
        self._given |= {digest_of(key): Caller(ADMIN, name) for name, key in admin_keys.items()}
        self._kept = kept
        self._loopback_only = loopback_only
        self._origins = frozenset(origins)
        self._now = now
        self._known: dict[bytes, _Known] = {}
        self._asks_for_keys = bool(self._given)
        self._asked_at = 0.0
        self._anybody = Caller(TENANT_WITHOUT_KEYS, TENANT_WITHOUT_KEYS)

    async def caller(self, headers: Headers) -> Caller:
        """The tenant who calls. Raises Unauthorized or Forbidden."""
        caller = await self._anyone(headers)
        if caller.tenant == ADMIN:
            raise Forbidden("This is an admin key: it opens what tells about the server, and no operation of the API.")
        return caller

    async def check_keyless(self, request: HTTPConnection) -> None:
        """Let a call of a keyless route pass: from this machine, or by an admin. Raises Unauthorized or Forbidden.

        What these routes tell is of all tenants, so a tenant's key does not open them.
        """
        if _is_from_here(request):
            return
        caller = await self._anyone(request.headers)
        if caller.tenant != ADMIN and caller is not self._anybody:
            raise Forbidden("This is the key of a tenant: from elsewhere, this route needs an admin key.")

    async def _anyone(self, headers: Headers) -> Caller:
        if self._asks_for_keys or await self._is_closed():
            # Two of them are one wrong key: whoever looked at the call before may have gone by either.
            return await self._caller_of(_bearer(", ".join(headers.getlist("authorization"))))
        if self._loopback_only:
            self._check_local(headers)
        return self._anybody

    async def _is_closed(self) -> bool:
        """Whether the database has a key by now; there is no way back from that."""
        now = self._now()
        if self._kept is not None and now - self._asked_at >= KNOWN_SECONDS:
            self._asked_at = now
            with suppress(StoreError):  # nobody can make a key there, either
                self._asks_for_keys = await self._kept.exist()
        return self._asks_for_keys

    async def _caller_of(self, text: str) -> Caller:
        digest = digest_of(text)
        given = self._given.get(digest)
        if given is not None:
            return given
        known, now = self._known.get(digest), self._now()
        if known is None or now - known.seen_at >= KNOWN_SECONDS:
            known = await self._look_up(digest, now)
        if known is None or not known.key.holds(now):
            raise Unauthorized(
                f"Incorrect API key provided: {_masked(text)}.",
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )
        return known.caller

    async def _look_up(self, digest: bytes, now: float) -> _Known | None:
        """The key as the database has it; one that does not hold is forgotten.

        While the database is away, what is known goes on to hold: nobody can revoke it there, either.
        """
        if self._kept is None:
            return None
        known = self._known.get(digest)
        if known is not None:
            known.seen_at = now  # meanwhile the others go on with what is known
        try:
            key = await self._kept.find(digest)
        except StoreError:
            if known is None:
                raise
            return known
        if key is None or not key.holds(now):
            self._known.pop(digest, None)
            return None
        known = self._known[digest] = _Known(key, Caller(key.tenant, key.id, key.limits), now)
        if key.used_at is None or now - key.used_at >= USED_SECONDS:
            await self._kept.mark_used(key.id, at=now)
        return known

    def _check_local(self, headers: Headers) -> None:
        host = headers.get("host", "")
        if not _is_loopback(host):
            raise Forbidden(f"The Host header is {host!r}. Without API keys, only a loopback name is served.")
        origin = headers.get("origin")
        if origin is not None and origin not in self._origins and not _is_loopback(origin.partition("://")[2]):
            raise Forbidden(f"The Origin is {origin!r}. Without API keys, no other site may call.")


def _bearer(authorization: str) -> str:
    scheme, _, given = authorization.partition(" ")
    given = given.strip()
    if scheme.lower() != "bearer" or not given:
        raise Unauthorized(
            "You didn't provide an API key. Provide it in an Authorization header: 'Authorization: Bearer YOUR_KEY'.",
            headers={"www-authenticate": "Bearer"},
        )
    return given


def _masked(key: str) -> str:
    return f"{key[:3]}***{key[-4:]}" if len(key) >= 16 else "***"


def _is_from_here(request: HTTPConnection) -> bool:
    """Whether a call comes from this machine, and not through a proxy on it."""
    if request.client is None or not _is_loopback(_bracketed(request.client.host)):
        return False
    return _is_loopback(request.headers.get("host", "")) and not any(name in request.headers for name in _FORWARDED)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


@lru_cache(maxsize=64)
def _is_loopback(host: str) -> bool:
    """Whether a Host header names this machine, with or without a port."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False

"""Who may call: the tenant behind a key or, without keys, whether the call comes from this machine itself.

Without keys anybody who reaches the port may do everything, so a web page must not reach it through the user's browser:
the Host header must be a loopback name (DNS rebinding), a foreign Origin is refused (cross-site requests).
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from antiphon.errors import Forbidden, Unauthorized

TENANT_WITHOUT_KEYS = "default"


def tenant_of(headers: Headers, *, keys: Mapping[str, str], loopback_only: bool) -> str:
    """The tenant that calls. Raises Unauthorized or Forbidden."""
    if keys:
        return _tenant_of_key(headers.get("authorization", ""), keys)
    if loopback_only:
        _check_local(headers)
    return TENANT_WITHOUT_KEYS


def _tenant_of_key(authorization: str, keys: Mapping[str, str]) -> str:
    scheme, _, given = authorization.partition(" ")
    given = given.strip()
    if scheme.lower() != "bearer" or not given:
        raise Unauthorized(
            "You didn't provide an API key. Provide it in an Authorization header: 'Authorization: Bearer YOUR_KEY'.",
            headers={"www-authenticate": "Bearer"},
        )
    found = None
    for name, key in keys.items():  # all of them, so that the time tells nothing
        if hmac.compare_digest(key.encode(), given.encode()):
            found = name
    if found is None:
        raise Unauthorized(
            f"Incorrect API key provided: {_masked(given)}.",
            code="invalid_api_key",
            headers={"www-authenticate": "Bearer"},
        )
    return found


def _masked(key: str) -> str:
    return f"{key[:3]}***{key[-4:]}" if len(key) >= 16 else "***"


def _check_local(headers: Headers) -> None:
    host = headers.get("host", "")
    if not _is_loopback(host):
        raise Forbidden(f"The Host header is {host!r}. Without API keys, only a loopback name is served.")
    origin = headers.get("origin")
    if origin is not None and not _is_loopback(origin.partition("://")[2]):
        raise Forbidden(f"The Origin is {origin!r}. Without API keys, no other site may call.")


@lru_cache(maxsize=64)
def _is_loopback(host: str) -> bool:
    """Whether a Host header names this machine, with or without a port."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False

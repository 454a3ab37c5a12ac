"""How callers say who they are: the security schemes of a document. What applies them is elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Scheme:
    """One way to say who calls."""

    name: str  # what the document calls it
    type: str  # http, apiKey, oauth2, openIdConnect or mutualTLS
    scheme: str = ""  # of http, in lower case: bearer, basic, digest ...
    location: str = ""  # of apiKey: header, query or cookie
    parameter: str = ""  # of apiKey: the name of that header, query parameter or cookie
    description: str = ""
    scopes: tuple[str, ...] = ()  # what an operation wants the caller to be allowed; empty in a document's list


def schemes(described: Mapping[str, Any]) -> dict[str, Scheme]:
    return {str(name): _scheme(str(name), raw) for name, raw in described.items()}


def _scheme(name: str, raw: Mapping[str, Any]) -> Scheme:
    is_key = raw["type"] == "apiKey"
    return Scheme(
        name=name,
        type=str(raw["type"]),
        scheme=str(raw.get("scheme") or "").lower(),
        location=str(raw["in"]) if is_key else "",
        parameter=str(raw["name"]) if is_key else "",
        description=str(raw.get("description") or ""),
    )

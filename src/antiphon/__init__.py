"""Antiphon keeps model responses: a server of the Responses API with a log for each, and a client for the whole API.

The clients are loaded when they are first named, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from antiphon.errors import (
    AntiphonError,
    ApiError,
    BadRequest,
    BadSetting,
    Conflict,
    ConnectionFailed,
    DocumentError,
    Forbidden,
    Gap,
    IllegalEvent,
    InvalidAnswer,
    InvalidRequest,
    LeaseLost,
    MethodNotAllowed,
    ModelError,
    NotFound,
    ProtocolError,
    RateLimited,
    ServerError,
    StoreError,
    StreamBroken,
    Timeout,
    TooLarge,
    Unauthorized,
    Unavailable,
    UnknownOperation,
    Unprocessable,
    UnsupportedMedia,
)

if TYPE_CHECKING:
    from antiphon.client import AsyncClient, Client

    __version__: str

__all__ = [
    "AntiphonError",
    "ApiError",
    "AsyncClient",
    "BadRequest",
    "BadSetting",
    "Client",
    "Conflict",
    "ConnectionFailed",
    "DocumentError",
    "Forbidden",
    "Gap",
    "IllegalEvent",
    "InvalidAnswer",
    "InvalidRequest",
    "LeaseLost",
    "MethodNotAllowed",
    "ModelError",
    "NotFound",
    "ProtocolError",
    "RateLimited",
    "ServerError",
    "StoreError",
    "StreamBroken",
    "Timeout",
    "TooLarge",
    "Unauthorized",
    "Unavailable",
    "UnknownOperation",
    "Unprocessable",
    "UnsupportedMedia",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in ("Client", "AsyncClient"):
        import antiphon.client

        return getattr(antiphon.client, name)
    if name == "__version__":
        import importlib.metadata

        return importlib.metadata.version("antiphon")
    raise AttributeError(f"module 'antiphon' has no attribute {name!r}")

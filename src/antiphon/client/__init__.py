"""The client: every operation of an API description as a method, checked before it is sent, streams that go on.

What calls give is here for annotations and `isinstance`; it is loaded when it is first named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from antiphon.client.client import AsyncClient, Client

if TYPE_CHECKING:
    from antiphon.client.download import AsyncDownload, Download
    from antiphon.client.pages import AsyncPage, Page
    from antiphon.client.raw import RawAnswer
    from antiphon.client.stream import AsyncStream, Stream

__all__ = [
    "AsyncClient",
    "AsyncDownload",
    "AsyncPage",
    "AsyncStream",
    "Client",
    "Download",
    "Page",
    "RawAnswer",
    "Stream",
]

_PLACES = {
    "AsyncDownload": "download",
    "AsyncPage": "pages",
    "AsyncStream": "stream",
    "Download": "download",
    "Page": "pages",
    "RawAnswer": "raw",
    "Stream": "stream",
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        import importlib

        return getattr(importlib.import_module(f"antiphon.client.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'antiphon.client' has no attribute {name!r}")

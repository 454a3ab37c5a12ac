"""A connection as HTTP speaks it: uvicorn's, but for its patience with who connects and does not ask."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


def patient(head_seconds: float) -> type[asyncio.Protocol]:
    """The protocol of connections that are closed when the head of a request takes longer than that.

    It counts from the connection, and from each request's first bytes: who sends a byte now and then holds a socket no
    longer than who sends none. Between requests uvicorn's own limit holds.
    """

    class Patient(HttpToolsProtocol):
        _patience: asyncio.TimerHandle | None = None
        _in_head = False

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._begin()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._in_head and self._patience is None:  # nearly always a head comes in one piece
                self._begin()

        def on_message_begin(self) -> None:
            self._in_head = True
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._in_head = False
            self._end()
            super().on_headers_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._end()
            super().connection_lost(exc)

        def _begin(self) -> None:
            self._patience = self.loop.call_later(head_seconds, self._lose)

        def _lose(self) -> None:
            if self.cycle is None or self.cycle.response_complete:  # else it still gets what it asked for before
                self.transport.close()

        def _end(self) -> None:
            if self._patience is not None:
                self._patience.cancel()
                self._patience = None

    return Patient

"""serve(app): a real uvicorn on a free port, in a thread of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn


class _Server(uvicorn.Server):
    """Says when it takes connections, or that it never will."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.settled = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.settled.set()

    def run_until_stopped(self, listening: socket.socket) -> None:
        try:
            asyncio.run(self.serve([listening]))
        finally:
            self.settled.set()


@contextmanager
def serve(app: Any, **options: Any) -> Iterator[str]:
    """Yields the base URL, http://127.0.0.1:<port>. `options` are uvicorn's."""
    # asyncio switches the delay of small writes off only for sockets that say what they are.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, **{"log_level": "critical", "timeout_graceful_shutdown": 1, **options})
        server = _Server(config)
        thread = threading.Thread(target=server.run_until_stopped, args=(listening,), daemon=True)
        thread.start()
        server.settled.wait()
        assert server.started, "the server did not start"
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()

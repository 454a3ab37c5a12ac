"""A client of one response that keeps every event it sees, and comes back for the rest when its stream breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx2
import msgspec

from antiphon.errors import ProtocolError
from antiphon.protocol.sse import Decoder
from antiphon.protocol.transcript import TERMINAL

_PAUSE_SECONDS = 0.1


class Watcher:
    """What one client has seen.

    any_url: a base URL to come back to, a new one for each time.
    """

    def __init__(self, http: httpx2.AsyncClient, any_url: Callable[[], str], response_id: str | None = None) -> None:
        self.response_id = response_id
        self.seen: list[bytes] = []  # the data of each event, by its number
        self.types: list[str] = []
        self.problems: list[str] = []
        self.gone = False  # the server does not know the response that it has named
        self._http = http
        self._any_url = any_url
        self._moved = asyncio.Event()
        self._following: asyncio.Task[None] | None = None

    @property
    def ended(self) -> bool:
        return any(type in TERMINAL for type in self.types)

    def saw(self, type: str) -> bool:
        return type in self.types

    def create(self, url: str, body: dict[str, Any]) -> None:
        """Ask for a response and watch its stream."""
        self._begin(self._create(url, body))

    def follow(self) -> None:
        """Watch the rest of the response's stream, however often that breaks, unless that is being done."""
        if self._following is None or self._following.done():
            self._begin(self._follow())

    def cut(self) -> None:
        """Hang up."""
        if self._following is not None:
            self._following.cancel()
            self._following = None

    async def until(self, seen: Callable[[], bool]) -> None:
        """Wait until enough was seen, or nothing more comes."""
        while not seen() and self._following is not None and not self._following.done():
            self._moved.clear()
            await self._moved.wait()

    async def finished(self) -> None:
        """Wait for the end of the stream."""
        if self._following is not None:
            await asyncio.wait({self._following})
            if not self._following.cancelled():
                self._following.result()

    def _begin(self, watching: Any) -> None:
        self._following = asyncio.create_task(watching)
        self._following.add_done_callback(lambda _: self._moved.set())

    async def _create(self, url: str, body: dict[str, Any]) -> None:
        await self._read("POST", f"{url}/responses", json=body)
        await self._follow()

    async def _follow(self) -> None:
        """Come back until the end was seen; who was never told an id cannot."""
        while self.response_id is not None and not self.ended and not self.gone:
            query: dict[str, str] = {"stream": "true", "include_obfuscation": "false"}
            if self.seen:
                query["starting_after"] = str(len(self.seen) - 1)
            await self._read("GET", f"{self._any_url()}/responses/{self.response_id}", params=query)
            if not self.ended:
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _read(self, method: str, url: str, **options: Any) -> None:
        try:
            async with self._http.stream(method, url, **options) as answer:
                self.gone = answer.status_code == 404 and method == "GET"
                if answer.status_code != 200:
                    return
                decoder = Decoder()
                async for data in answer.aiter_raw():
                    for message in decoder.feed(data):
                        self._see(message.data)
                    self._moved.set()
        except (httpx2.HTTPError, ProtocolError):
            pass  # broken, as was to be expected

    def _see(self, data: bytes) -> None:
        if data.startswith(b"[DONE]"):
            return
        event = msgspec.json.decode(data)
        number = event.get("sequence_number")
        if number != len(self.seen):
            self.problems.append(f"a client got event {number} where event {len(self.seen)} comes next")
            return
        self.seen.append(data)
        self.types.append(event["type"])
        if self.response_id is None and "response" in event:
            self.response_id = event["response"]["id"]

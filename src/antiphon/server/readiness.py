"""/readyz: whether responses can be taken now. The model must be loaded, and the database take what is written."""

from __future__ import annotations

import asyncio

from starlette.responses import Response

from antiphon.errors import StoreError
from antiphon.server.call import Api, json_answer

CHECK_SECONDS = 2.0  # a disk that takes longer is no place to send responses to


class Readyz:
    """Asks the database by a write of its own, since nothing else may write; all who ask meanwhile share it."""

    def __init__(self) -> None:
        self._checking: asyncio.Task[str | None] | None = None

    async def __call__(self, api: Api) -> Response:
        missing = await api.readiness() or await self._missing(api)
        return json_answer({"status": missing or "ready"}, status=503 if missing else 200)

    async def _missing(self, api: Api) -> str | None:
        if self._checking is None or self._checking.done():
            self._checking = asyncio.create_task(_check(api))
        done, _ = await asyncio.wait([self._checking], timeout=CHECK_SECONDS)
        return self._checking.result() if done else f"the database takes longer than {CHECK_SECONDS:g} s for a write"


async def _check(api: Api) -> str | None:
    try:
        await api.log.store.check()
    except StoreError as error:
        return error.message
    return None

"""The official SDK as a reader of logs: its stream helper refuses what does not fit together."""

from __future__ import annotations

from importlib.util import find_spec
from types import TracebackType
from typing import Any

Json = dict[str, Any]


class Official:
    """Needs the package openai; see `installed`."""

    def __init__(self, base_url: str, *, api_key: str) -> None:
        import openai

        # There is no TLS between a suite and its server as a rule, and to load its certificates takes long.
        http = openai.DefaultAsyncHttpxClient(verify=base_url.startswith("https:"))
        self._sdk = openai.AsyncOpenAI(base_url=base_url, api_key=api_key, http_client=http)

    async def __aenter__(self) -> Official:
        return self

    async def __aexit__(
        self, type: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._sdk.close()

    async def problems(self, response_id: str, response: Json) -> list[str]:
        """What the helper has against the log of a response, or makes of it otherwise."""
        try:
            async with self._sdk.responses.stream(response_id=response_id) as stream:
                await stream.until_done()
                if response.get("status") != "completed":
                    return []  # it has nothing to say of another ending
                final = await stream.get_final_response()
        except Exception as error:  # it asserts, raises RuntimeError, IndexError, or what its models raise
            return [f"the official SDK refuses the log: {error!r}"]
        found = [(item.type, getattr(item, "id", None)) for item in final.output]
        kept = [(item["type"], item.get("id")) for item in response.get("output", ())]
        return [] if found == kept else [f"the official SDK makes {found} of the log, GET gives {kept}"]


def installed() -> bool:
    return find_spec("openai") is not None

"""Calls that must type-check. Never run: a type checker reads it."""

from __future__ import annotations

from typing import Any

import antiphon
from antiphon import AsyncClient, Client, InvalidRequest, NotFound, StreamBroken
from antiphon.client.stream import AsyncStream, Stream
from antiphon.spec import Document


def use(*_: object) -> None: ...


def sync_calls(document: Document) -> None:
    with Client() as client:
        response: dict[str, Any] = client.create_response(model="m", input="hello")
        client.get_response(response_id=response["id"], include=["reasoning.encrypted_content"])
        client.call("getResponse", response_id=response["id"])
        names: tuple[str, ...] = client.operations
    Client("http://localhost/v1", "key", spec=document, timeout=5.0, max_retries=0, default_headers={"x": "y"})
    use(names, antiphon.__version__)


def sync_stream(stream: Stream) -> None:
    with stream as events:
        for event in events:
            use(event["type"], events.sequence_number)
        for piece in events.text:
            use(piece.upper())
    final: dict[str, Any] | None = stream.until_done()
    use(final, stream.response, stream.response_id)


async def async_calls(application: Any) -> None:
    async with AsyncClient(app=application, stall_seconds=30.0, resume_seconds=60.0) as client:
        response: dict[str, Any] = await client.create_response(model="m", input="hello")
        async for event in client.get_response(response_id=response["id"], stream=True):
            use(event["type"])


async def async_stream(stream: AsyncStream) -> None:
    opened: AsyncStream = await stream
    async with opened as events:
        async for event in events:
            use(event["type"])
        async for piece in events.text:
            use(piece.upper())
    final: dict[str, Any] | None = await opened.until_done()
    use(final)


def errors(client: Client) -> None:
    try:
        client.get_response(response_id="resp_1")
    except InvalidRequest as error:
        use([problem.message for problem in error.problems])
    except NotFound as error:
        use(error.status, error.code, error.request_id)
    except StreamBroken as error:
        use(error.response_id, error.sequence_number)

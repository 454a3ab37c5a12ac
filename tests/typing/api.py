"""Calls that must type-check. Never run: a type checker reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2

import antiphon
from antiphon import AsyncClient, Client, InvalidRequest, NotFound, StreamBroken
from antiphon.client.download import AsyncDownload, Download
from antiphon.client.raw import RawAnswer
from antiphon.client.stream import AsyncStream, Stream
from antiphon.spec import Document


def use(*_: object) -> None: ...


def sync_calls(document: Document) -> None:
    with Client() as client:
        response = client.create_response(model="m", input="hello")
        client.get_response(response_id=response["id"], include=["reasoning.encrypted_content"])
        client.call("getResponse", response_id=response["id"])
        names: tuple[str, ...] = client.operations
    Client("http://localhost/v1", "key", spec=document, timeout=5.0, max_retries=0, default_headers={"x": "y"})
    use(names, antiphon.__version__)


def options(client: Client, document: Document) -> None:
    def signed(request: httpx2.Request) -> httpx2.Request:
        return request

    patient: Client = client.with_options(timeout=httpx2.Timeout(5.0), max_retries=9, headers={"x-a": None})
    patient.with_options(api_key="key", base_url="http://localhost/v1", validate_responses="warn")
    Client(spec=document, proxy="http://localhost:3128", http2=True, api_key_header="api-key", on_request=signed)
    Client(default_query={"api-version": "v1"}, admin_key="key", organization="org", project="proj", timeout=None)
    answer: RawAnswer = client.raw.call("getResponse", response_id="resp_1")
    use(answer.status, answer.headers["x"], answer.request_id, answer.body, answer.json(), answer.text)
    stream: Stream = client.follow("resp_1", starting_after=3)
    use(stream.until_done())


def files(client: Client, download: Download) -> None:
    client.create_file(file=Path("tides.jsonl"), purpose="batch")
    client.create_file(file=("tides.jsonl", b"{}", "application/json"), purpose="batch")
    size: int = download.save(Path("skill.zip"))
    for piece in download:
        use(piece.hex(), size)
    whole: bytes = download.read()
    use(whole, download.media_type)


async def async_files(client: AsyncClient, download: AsyncDownload) -> None:
    async with download as pieces:
        async for piece in pieces:
            use(piece.hex())
    size: int = await download.save("skill.zip")
    answer: RawAnswer = await client.raw.call("listModels")
    stream: AsyncStream = client.with_options(max_retries=0).follow("resp_1")
    use(size, answer.status, await stream.until_done())


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
        response = await client.create_response(model="m", input="hello")
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

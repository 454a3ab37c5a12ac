"""Calls of the packaged document's operations: right ones, and wrong ones that a type checker must refuse.

Never run: mypy reads it, and tells when an error that is expected here does not come.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from antiphon import AsyncClient, Client
    from antiphon.client.download import AsyncDownload, Download
    from antiphon.client.operations import (
        ChatCompletionRequestMessage,
        CreateChatCompletionResponse,
        FunctionTool,
        InputItem,
        OpenAIFile,
        Response,
        ResponseStreamEvent,
    )


def use(*_: object) -> None: ...


def a_response(client: Client) -> None:
    response: Response = client.create_response(model="m", input="hello", temperature=0, metadata={"a": "b"})
    again: Response = client.get_response(response_id=response["id"], include=["reasoning.encrypted_content"])
    client.cancel_response(response_id=again["id"])
    client.delete_response(response_id=response["id"])
    for item in response["output"]:
        if item["type"] == "message":
            for part in item["content"]:
                use(part["text"].upper() if part["type"] == "output_text" else part["refusal"])
        elif item["type"] == "function_call":
            use(item["name"].upper(), item["arguments"].upper())
    usage = response.get("usage")
    if usage is not None:
        use(usage["input_tokens"] + usage["output_tokens"])


def a_tool_loop(client: Client) -> None:
    tool: FunctionTool = {"type": "function", "name": "add", "parameters": {"type": "object"}, "strict": False}
    said: list[InputItem] = [{"role": "user", "content": "What is 2 + 2?"}]
    response = client.create_response(model="m", input=said, tools=[tool], tool_choice="auto", reasoning=None)
    said.append({"type": "function_call_output", "call_id": "call_1", "output": "4"})
    client.create_response(model="m", input=said, previous_response_id=response["id"], idempotency_key="k")
    client.create_response(body={"model": "m", "input": "hello"}, store=False)


def a_stream(client: Client) -> None:
    with client.create_response(model="m", input="hello", stream=True) as stream:
        for event in stream:
            use(stream.sequence_number)
            told(event)
    for piece in client.get_response(response_id="resp_1", stream=True, starting_after=7).text:
        use(piece.upper())
    final = client.create_response(model="m", input="hello", stream=True).until_done()
    use(final["id"].upper() if final else None)


def told(event: ResponseStreamEvent) -> None:
    if event["type"] == "response.output_text.delta":
        use(event["delta"].upper(), event["output_index"] + 1)
    elif event["type"] == "response.completed":
        use(event["response"]["id"].upper())


def a_chat(client: Client) -> None:
    messages: list[ChatCompletionRequestMessage] = [{"role": "user", "content": "hello"}]
    completion: CreateChatCompletionResponse = client.create_chat_completion(model="m", messages=messages)
    use(completion["choices"][0]["message"]["role"])
    for chunk in client.create_chat_completion(model="m", messages=messages, stream=True):
        use(chunk["choices"][0]["delta"].get("content"))


def files(client: Client) -> None:
    file: OpenAIFile = client.create_file(file=Path("a.jsonl"), purpose="batch")
    client.create_file(file=("a.jsonl", b"{}", "application/jsonl"), purpose="user_data")
    for each in client.list_files(limit=100, order="desc").all():
        use(each["filename"].upper(), file["bytes"] + each["bytes"])
    use([each["id"] for each in client.list_files()["data"]])
    speech: Download = client.create_speech(model="tts-1", input="hello", voice="alloy")
    speech.save("hello.mp3")
    use(client.create_embedding(model="m", input=["a", "b"])["data"][0]["embedding"][0] + 1.5)


def only_known_when_it_runs(client: Client, streams: bool, body: Any, options: dict[str, Any]) -> None:
    use(client.create_response(model="m", stream=streams).anything)
    use(client.create_response(body=body))
    client.create_response(**options)


async def async_calls(client: AsyncClient) -> None:
    response: Response = await client.create_response(model="m", input="hello")
    async for event in client.get_response(response_id=response["id"], stream=True):
        told(event)
    async with client.create_response(model="m", input="hello", stream=True) as stream:
        async for piece in stream.text:
            use(piece.upper())
    final = await (await client.create_response(model="m", input="hello", stream=True)).until_done()
    use(final["id"].upper() if final else None)
    async for file in client.list_files(limit=100).all():
        use(file["filename"].upper())
    page = await client.list_files()
    use([each["id"].upper() for each in page["data"]], page.has_next)
    speech: AsyncDownload = await client.create_speech(model="tts-1", input="hello", voice="alloy")
    await speech.save("hello.mp3")


def wrong_calls(client: Client) -> None:
    client.get_response()  # type: ignore[call-overload]
    client.get_response("resp_1")  # type: ignore[call-overload]
    client.get_response(response_id=1)  # type: ignore[call-overload]
    client.get_response(response="resp_1")  # type: ignore[call-overload]
    client.get_response(response_id="resp_1", include=["everything"])  # type: ignore[list-item]
    client.delete_response(id="resp_1")  # type: ignore[call-arg]
    client.create_response(model="m", inputs="hello")  # type: ignore[call-overload]
    client.create_response(model="m", temperature="hot")  # type: ignore[call-overload]
    client.create_response(model="m", truncation="yes")  # type: ignore[call-overload]
    client.create_response(body={"modell": "m"})  # type: ignore[call-overload]
    client.create_chat_completion(model="m")  # type: ignore[call-overload]
    client.create_chat_completion(messages=[{"role": "usr", "content": "x"}], model="m")  # type: ignore[misc, list-item]
    client.create_file(file="a.jsonl", purpose="batch")  # type: ignore[call-overload]
    client.create_file(file=b"", purpose="fun")  # type: ignore[call-overload]
    client.list_files(order="up")  # type: ignore[arg-type]


def wrong_reading(client: Client) -> None:
    response = client.create_response(model="m", input="hello")
    response["text_output"]  # type: ignore[typeddict-item]
    response["output"][0]["delta"]  # type: ignore[typeddict-item]
    use(response["id"] + 1)  # type: ignore[operator]
    for event in client.create_response(model="m", stream=True):
        event["delta"]  # type: ignore[typeddict-item]
    client.create_speech(model="m", input="", voice="alloy")["data"]  # type: ignore[index]


async def wrong_async_calls(client: AsyncClient) -> None:
    client.get_response(response_id="resp_1")["id"]  # type: ignore[index]
    for _ in client.create_response(model="m", stream=True):  # type: ignore[attr-defined]
        pass
    await client.create_response(model="m", stream="yes")  # type: ignore[call-overload]

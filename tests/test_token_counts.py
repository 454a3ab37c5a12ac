"""How many tokens a request has: by the model's own tokenizer where there is one, otherwise about right."""

import json
from typing import Any

import pytest

from antiphon.engine.model import TokenCount, Usage
from antiphon.engine.models.chat_completions import ChatCompletions
from antiphon.engine.models.local import Local
from antiphon.engine.models.responses import Responses
from antiphon.errors import ModelError
from tests.contracts.model import WEATHER, said, user
from tests.servers.chat import _body
from tests.servers.responses import ResponsesServer
from tests.servers.running import serve

TALK = [
    user("What is the weather in Rome?"),
    {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": '{"city":"Rome"}'},
    {"type": "function_call_output", "call_id": "call_1", "output": "Sunny, 21 degrees."},
    user("And in Paris?"),
]


class Counting:
    """A server that counts words, in the way of vLLM or of llama.cpp, and does nothing else."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.requests: list[tuple[str, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = json.loads(await _body(receive))
        self.requests.append((scope["path"], body))
        status, answer = self._answer(scope["path"], body)
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

    def _answer(self, path: str, body: Any) -> tuple[int, Any]:
        if path == "/tokenize" and self.kind == "vllm":
            if body["model"] == "none":
                error = {"message": "The model `none` does not exist.", "type": "NotFoundError", "code": 404}
                return 404, {"error": error}
            return 200, {"count": len(json.dumps(body["messages"]).split()), "max_model_len": 4096, "tokens": []}
        if path == "/apply-template" and self.kind == "llama.cpp":
            return 200, {"prompt": " ".join(message["content"] or "" for message in body["messages"])}
        if path == "/tokenize" and self.kind == "llama.cpp":
            return 200, {"tokens": list(range(len(body.get("content", "").split())))}
        if self.kind == "openai":
            return 404, {"error": {"message": f"Invalid URL (POST {path})", "type": "invalid_request_error"}}
        if self.kind == "always 200":
            return 200, {"error": f"Unexpected endpoint or method. (POST {path})"}
        return 404, {"detail": "Not Found"}


async def test_vllm_counts_messages_and_tools():
    server = Counting("vllm")
    with serve(server) as url:
        model = ChatCompletions(url + "/v1")
        count = await model.count_tokens({"model": "m", "tools": [WEATHER]}, TALK)
        await model.close()

    assert count.exact
    assert count.input_tokens > 10
    assert [path for path, _ in server.requests] == ["/tokenize"]
    assert server.requests[0][1]["tools"][0]["function"]["name"] == "get_weather"


async def test_llama_cpp_counts_what_its_template_makes():
    server = Counting("llama.cpp")
    with serve(server) as url:
        model = ChatCompletions(url + "/v1")
        count = await model.count_tokens({"model": "m"}, [user("One two three")])
        await model.close()

    assert count == TokenCount(3, exact=True)
    assert server.requests[-1] == (
        "/tokenize",
        {"content": "One two three", "add_special": True, "parse_special": True},
    )


async def test_a_model_that_does_not_exist_has_no_tokens():
    with serve(Counting("vllm")) as url:
        model = ChatCompletions(url + "/v1")
        with pytest.raises(ModelError) as failure:
            await model.count_tokens({"model": "none"}, TALK)
        await model.close()

    assert failure.value.code == "model_not_found"


@pytest.mark.parametrize("kind", ["neither", "openai", "always 200"])
async def test_a_server_that_cannot_count_is_asked_once_and_estimated(kind):
    server = Counting(kind)
    with serve(server) as url:
        model = ChatCompletions(url + "/v1")
        first = await model.count_tokens({"model": "m"}, TALK)
        second = await model.count_tokens({"model": "m"}, TALK)
        await model.close()

    assert first == second
    assert not first.exact
    assert 15 < first.input_tokens < 80
    assert len(server.requests) <= 2
    assert len({path for path, _ in server.requests}) == len(server.requests)


async def test_a_server_that_is_away_is_estimated():
    model = ChatCompletions("http://127.0.0.1:1/v1")
    count = await model.count_tokens({"model": "m"}, TALK)

    assert not count.exact
    await model.close()


async def test_an_estimate_does_not_weigh_the_data_of_a_picture():
    with serve(Counting("neither")) as url:
        model = ChatCompletions(url + "/v1")
        image = {"type": "input_image", "image_url": "data:image/png;base64," + "A" * 100_000}
        picture = await model.count_tokens({"model": "m"}, [{"role": "user", "content": [image]}])
        await model.close()

    assert picture.input_tokens < 2000


async def test_a_responses_server_counts_by_its_own_operation():
    server = ResponsesServer(counts=42)
    with serve(server) as url:
        model = Responses(url + "/v1")
        count = await model.count_tokens({"model": "text", "tools": [WEATHER], "store": True}, TALK)
        await model.close()

    assert count == TokenCount(42, exact=True)
    assert set(server.requests[0].body) == {"model", "tools", "input"}


async def test_a_responses_server_without_it_is_asked_once_and_estimated():
    server = ResponsesServer()
    with serve(server) as url:
        model = Responses(url + "/v1")
        counts = [await model.count_tokens({"model": "text"}, TALK) for _ in range(2)]
        await model.close()

    assert not counts[0].exact
    assert len(server.requests) == 1


async def test_what_tools_have_given_back_is_estimated_too():
    shot = {"type": "computer_screenshot", "image_url": "data:image/png;base64," + "A" * 100_000}
    ends = {"type": "exit", "exit_code": 0}
    outputs: list[dict[str, Any]] = [
        {"type": "computer_call_output", "call_id": "c1", "output": shot},
        {
            "type": "shell_call_output",
            "call_id": "c2",
            "output": [{"stdout": "word " * 800, "stderr": "", "outcome": ends}],
        },
    ]
    with serve(ResponsesServer()) as url:
        model = Responses(url + "/v1")
        count = await model.count_tokens({"model": "text"}, outputs)
        await model.close()

    assert not count.exact
    assert 1600 < count.input_tokens < 3000


@pytest.mark.parametrize("more", [{}, {"tools": [WEATHER]}, {"tools": [WEATHER], "tool_choice": "required"}])
async def test_the_embedded_model_counts_what_a_turn_then_costs(more):
    pytest.importorskip("xllamacpp")
    model = Local()
    request = {"model": model.id, "instructions": "Be kind.", "max_output_tokens": 4, **more}
    count = await model.count_tokens(request, TALK)
    deltas = await said(model, request, *TALK)
    await model.close()

    assert count == TokenCount([delta for delta in deltas if isinstance(delta, Usage)][-1].input_tokens, exact=True)

"""Upstreams: which server is asked for which model, how often, and what the caller learns of it."""

import asyncio
import json
import socket
from contextlib import aclosing, contextmanager
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.engine.model import TENANT
from antiphon.engine.models.chat_completions import ChatCompletions
from antiphon.engine.models.chat_request import chat_body
from antiphon.engine.models.connection import Connection
from antiphon.engine.models.detected import Detected
from antiphon.engine.models.failures import failure_of
from antiphon.engine.models.responses import Responses
from antiphon.engine.models.upstreams import Route, Upstreams
from antiphon.errors import ModelError
from antiphon.node import node
from antiphon.settings import Settings
from tests.contracts.model import WEATHER, ModelContract, said, text_of, user
from tests.servers.api import slamming
from tests.servers.chat import ChatServer, Seen, _body
from tests.servers.responses import ResponsesServer
from tests.servers.running import serve


class Moody(ChatServer):
    """Fails so many times before it answers. The model names the mood: `moody:503:1:30` with a Retry-After."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = await _body(receive) if scope["type"] == "http" else b""
        name, *mood = (json.loads(body)["model"] if body else "").split(":")
        self.asked += bool(body)
        if name != "moody" or self.asked > int(mood[1]):
            sent = body.replace(b"moody", b"text")
            messages = iter([{"type": "http.request", "body": sent, "more_body": False}])

            async def again() -> Any:
                return next(messages, None) or await receive()

            await super().__call__(scope, again if scope["type"] == "http" else receive, send)
            return
        after = [(b"retry-after", mood[2].encode())] if mood[2:] else []
        headers = [(b"content-type", b"application/json"), *after]
        await send({"type": "http.response.start", "status": int(mood[0]), "headers": headers})
        await send({"type": "http.response.body", "body": b'{"error": {"message": "Not now.", "type": "t"}}'})


class ChatOnly(ChatServer):
    """A server that has never heard of the other path, as most of them."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or not scope["path"].endswith("/responses"):
            await super().__call__(scope, receive, send)
            return
        self.requests.append(Seen(scope, json.loads(await _body(receive))))
        await send({"type": "http.response.start", "status": 404, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": b'{"detail": "Not Found"}'})


@contextmanager
def servers(count):
    """Chat servers with the address of each."""
    made = [Moody() for _ in range(count)]
    with serve(made[0]) as first:
        if count == 1:
            yield [(made[0], first + "/v1")]
            return
        with serve(made[1]) as second:
            yield [(made[0], first + "/v1"), (made[1], second + "/v1")]


@pytest.fixture
def two():
    with servers(2) as both:
        yield both


@pytest.fixture
def one():
    with servers(1) as only:
        yield only[0]


@contextmanager
def nowhere():
    """An address at which nobody answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/v1"


def route(name, url, **options):
    return Route(name, ChatCompletions(url, models_seconds=0.0), **options)


async def asked(upstreams, both, name):
    """Which of the servers got the request, and for which model."""
    await said(upstreams, {"model": name})
    seen = [(number, seen.body["model"]) for number, (server, _) in enumerate(both) for seen in server.requests
            if seen.body]  # fmt: skip
    for server, _ in both:
        server.requests.clear()
    return seen


class TestContract(ModelContract):
    @pytest.fixture
    async def upstreams(self, two):
        upstreams = Upstreams([route("a", two[0][1], models=["nothing"]), route("b", two[1][1])])
        yield upstreams
        await upstreams.close()

    @pytest.fixture
    def asked(self, upstreams):
        return upstreams, "text"

    @pytest.fixture
    def calling(self, upstreams):
        return upstreams, "tools"


class TestContractOfADetectedServer(ModelContract):
    @pytest.fixture(params=[ChatOnly, ResponsesServer])
    async def detected(self, request):
        with serve(request.param()) as url:
            model = Detected(Responses(url + "/v1"), ChatCompletions(url + "/v1"))
            yield model
            await model.close()

    @pytest.fixture
    def asked(self, detected):
        return detected, "text"

    @pytest.fixture
    def calling(self, detected):
        return detected, "tools"


async def test_aliases_come_first_then_names_patterns_lists_and_the_rest(two):
    (_, first), (_, second) = two
    upstreams = Upstreams(
        [
            route("rest", first, models=["*"]),
            route("a", first, models=["text:*", "empty"], aliases={"gpt-5": "text:alias", "reasoning": "text"}),
            route("b", second, models=["text:exact", "te*"]),
            route("listed", second),
        ]
    )

    assert await asked(upstreams, two, "gpt-5") == [(0, "text:alias")]
    assert await asked(upstreams, two, "reasoning") == [(0, "text")]
    assert await asked(upstreams, two, "text:exact") == [(1, "text:exact")]
    assert await asked(upstreams, two, "text:any") == [(0, "text:any")]
    assert await asked(upstreams, two, "text") == [(1, "text")]
    assert await asked(upstreams, two, "refusal") == [(1, "refusal")]
    assert await asked(upstreams, two, "drip:nowhere listed") == [(0, "drip:nowhere listed")]
    await upstreams.close()


async def test_a_model_that_nobody_has_does_not_exist(one):
    upstreams = Upstreams([route("a", one[1], models=["text"])])
    with pytest.raises(ModelError) as failure:
        await said(upstreams, {"model": "gpt-9"})

    assert failure.value.message == "The requested model 'gpt-9' does not exist."
    assert (failure.value.status, failure.value.code, failure.value.param) == (400, "model_not_found", "model")
    await upstreams.close()


async def test_all_models_are_listed_once_with_their_aliases(two):
    (_, first), (_, second) = two
    upstreams = Upstreams([route("a", first, models=["te*"], aliases={"gpt-5": "text"}), route("b", second)])
    models = await upstreams.models()
    names = [model["id"] for model in models]

    assert names[:2] == ["text", "gpt-5"]
    assert names.count("text") == 1
    assert "refusal" in names
    assert models[1]["owned_by"] == "tests"
    await upstreams.close()


async def test_a_server_that_is_down_is_left_out_of_the_list(one, caplog):
    with nowhere() as address:
        upstreams = Upstreams([route("down", address, aliases={"gpt-5": "x"}), route("up", one[1])])
        names = [model["id"] for model in await upstreams.models()]

        assert "text" in names
        assert "gpt-5" not in names
        assert [record.server in address for record in caplog.records] == [True]
        await upstreams.close()


async def test_each_try_of_a_server_out_of_reach_is_one_line_of_the_log(caplog):
    with nowhere() as address:
        upstreams = Upstreams([route("down", address, models=["*"], retries=1)])
        with pytest.raises(ModelError):
            await said(upstreams, {"model": "m"})
        await upstreams.close()

    assert len(caplog.records) == 2
    assert all(record.server in address and "Unreachable" in record.error for record in caplog.records)


async def test_each_try_of_a_server_that_is_overloaded_is_one_too(one, caplog):
    upstreams = Upstreams([route("busy", one[1], models=["*"])])
    assert text_of(await said(upstreams, {"model": "moody:503:2"}))
    await upstreams.close()

    assert [(record.upstream, record.why) for record in caplog.records] == [("busy", "Not now.")] * 2


async def test_while_a_server_is_down_its_models_are_not_said_to_be_missing(one):
    with nowhere() as address:
        upstreams = Upstreams([route("down", address), route("up", one[1])])

        assert text_of(await said(upstreams, {"model": "text"}))
        with pytest.raises(ModelError) as failure:
            await said(upstreams, {"model": "perhaps-there"})
        assert failure.value.status == 503
        await upstreams.close()


@pytest.mark.parametrize(("status", "after"), [("503", ""), ("429", ""), ("500", ""), ("429", "0.01"), ("503", "0")])
async def test_a_passing_failure_is_tried_again(one, status, after):
    server, url = one
    upstreams = Upstreams([route("a", url, models=["*"])])

    assert text_of(await said(upstreams, {"model": ":".join(filter(None, ["moody", status, "1", after]))}))
    assert server.asked == 2
    await upstreams.close()


@pytest.mark.parametrize(
    ("name", "count"),
    [("error:400", 1), ("error:401", 1), ("moody:429:9:3600", 1), ("break:2", 1), ("moody:503:9:0", 3)],
)
async def test_other_failures_are_not(one, name, count):
    """What is the caller's fault, what takes long to pass, and what has been begun."""
    server, url = one
    upstreams = Upstreams([route("a", url, models=["*"])])
    with pytest.raises(ModelError):
        await said(upstreams, {"model": name})

    assert server.asked == count
    await upstreams.close()


async def test_a_limit_is_told_with_the_time_to_wait(one):
    model = ChatCompletions(one[1])
    with pytest.raises(ModelError) as failure:
        await said(model, {"model": "moody:429:9:30"})

    assert failure.value.status == 429
    assert failure.value.headers == {"retry-after": "30"}
    await model.close()


def test_only_true_times_are_passed_on():
    headers = {"retry-after": "1\r\nx: y", "retry-after-ms": "250", "set-cookie": "a"}

    assert failure_of(429, b"", headers=headers).headers == {"retry-after-ms": "250"}


async def test_so_many_turns_at_once_and_no_more(one):
    server, url = one
    upstreams = Upstreams([route("a", url, models=["*"], max_parallel=1)])
    async with aclosing(upstreams.turn({"model": "gate:1:1"}, [user("Go.")])) as turn:
        await anext(turn)
        second = asyncio.create_task(said(upstreams, {"model": "text:Second"}))
        await asyncio.sleep(0)
        server.requests[0].release()
        async for _ in turn:
            assert len(server.requests) == 1
    assert text_of(await second) == "Second"
    await upstreams.close()


async def test_every_request_carries_the_headers_of_its_server(one):
    server, url = one
    model = ChatCompletions(url, headers={"X-Team": "blue", "Authorization": "Basic abc"}, api_key="k")
    await said(model, {"model": "text"})

    assert server.requests[0].headers["x-team"] == "blue"
    assert server.requests[0].headers["authorization"] == "Basic abc"
    await model.close()


async def test_a_connection_that_the_server_has_closed_meanwhile_is_no_failure():
    """llama.cpp closes each after its answer, and says so to nobody."""

    served = []

    async def once(reader, writer):
        task = asyncio.current_task()
        assert task is not None
        served.append(task)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n" + b'{"data": []}'
        )
        await reader.read(1)  # of the next request
        writer.transport.abort()

    async with await asyncio.start_server(once, "127.0.0.1", 0) as server:
        connection = Connection(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
        for _ in range(5):
            assert await connection.json("GET", "/models") == {"data": []}
        await connection.close()
        await asyncio.wait(served)


async def test_each_tenant_has_a_salt_of_its_own(one):
    server, url = one
    model = ChatCompletions(url, cache_secret="pepper")
    for tenant in ("alice", "bob", "alice"):
        await said(model, {"model": "text", TENANT: tenant})

    salts = [seen.body["cache_salt"] for seen in server.requests]
    assert salts[0] == salts[2] != salts[1]
    assert "alice" not in salts[0]
    assert TENANT not in server.requests[0].body
    await model.close()


@pytest.mark.parametrize("can", [True, False])
async def test_an_unfinished_message_is_continued_where_the_server_can(one, can):
    server, url = one
    model = ChatCompletions(url, continues_prefix=can)
    begun = {"role": "assistant", "status": "incomplete", "content": [{"type": "output_text", "text": "So"}]}
    await said(model, {"model": "text"}, user("Hi"), begun)

    assert server.requests[0].body.get("continue_final_message", False) is can
    await model.close()


@pytest.mark.parametrize(("kind", "path"), [(ChatOnly, "/v1/chat/completions"), (ResponsesServer, "/v1/responses")])
async def test_a_protocol_is_asked_for_once(kind, path):
    server = kind()
    with serve(server) as url:
        model = Detected(Responses(url + "/v1"), ChatCompletions(url + "/v1"))
        for _ in range(2):
            assert text_of(await said(model, {"model": "text"}))
        await model.close()

    asked = [(seen.path, seen.body) for seen in server.requests]
    assert asked[0] == ("/v1/responses", {})
    assert [where for where, _ in asked[1:]] == [path, path]


async def test_a_node_asks_the_server_that_its_settings_name(two, tmp_path):
    (_, first), (second, address) = two
    config = tmp_path / "antiphon.toml"
    config.write_text(
        f'upstream = "{first}"\ndatabase = "sqlite://"\n'
        f'[upstreams.b]\nurl = "{address}"\nmodels = ["echo"]\nprotocol = "chat_completions"\n'
        'aliases = {"gpt-5" = "echo"}\nheaders = {X-Team = "blue"}\n'
    )
    async with node(Settings.load({}, {}, config)) as running:
        assert "echo" in text_of(await said(running.model, {"model": "gpt-5"}))
        assert "gpt-5" in [model["id"] for model in await running.model.models()]
        await running.worker.stop(seconds=0)

    assert second.requests[0].headers["x-team"] == "blue"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"error": {"code": 400, "message": "the request exceeds the available context size, try increasing it",
                         "type": "exceed_context_size_error"}}),
        (400, {"object": "error", "message": "This model's maximum context length is 4096 tokens. However, you "
               "requested 5000 tokens.", "type": "BadRequestError", "param": None, "code": 400}),
        (400, {"error": {"message": "The decoder prompt (length 5000) is longer than the maximum model length of 4096.",
                         "type": "BadRequestError", "param": None, "code": 400}}),
        (400, {"error": {"message": "Your input exceeds the context window of this model.", "code":
                         "context_length_exceeded", "type": "invalid_request_error", "param": "input"}}),
        (400, {"error": {"message": "prompt too long; exceeded max context length by 17 tokens"}}),
        (500, {"error": "the input length exceeds the context length"}),
        (400, {"error": "Trying to keep the first 5000 tokens when context the overflows."}),
        (400, {"object": "error", "message": "The input (5000 tokens) is longer than the model's context length (4096 "
               "tokens).", "type": "BadRequestError", "code": 400}),
    ],
)  # fmt: skip
def test_every_server_is_understood_when_the_context_is_too_long(status, body):
    failure = failure_of(status, msgspec.json.encode(body))

    assert (failure.status, failure.code, failure.type) == (400, "context_length_exceeded", "invalid_request_error")
    assert not failure.passing


def test_a_spent_quota_does_not_come_back_soon():
    error = {"message": "You exceeded your current quota.", "type": "insufficient_quota", "code": "insufficient_quota"}
    failure = failure_of(429, msgspec.json.encode({"error": error}))

    assert (failure.status, failure.type, failure.code) == (429, "insufficient_quota", "insufficient_quota")
    assert not failure.passing


texts = st.text(max_size=8)
steps = st.lists(
    st.one_of(
        texts.map(lambda text: [{"type": "message", "role": "assistant", "content": text}]),
        texts.map(
            lambda text: [
                {
                    "type": "reasoning",
                    "id": "rs_1",
                    "summary": [],
                    "content": [{"type": "reasoning_text", "text": text}],
                },
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]},
            ]
        ),
        st.tuples(texts, texts).map(
            lambda both: [
                {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "get_weather", "arguments": both[0]},
                {"type": "function_call_output", "call_id": "c", "output": both[1]},
            ]
        ),
    ),
    max_size=3,
)


@given(turns=st.lists(st.tuples(steps, texts), min_size=2, max_size=5), instructions=st.none() | texts)
def test_each_turns_prompt_begins_with_the_last_ones_byte_for_byte(turns, instructions):
    """A server that keeps what it has read of a prompt reads the new part alone."""
    context: list[dict[str, Any]] = []
    before = b""
    for steps, text in turns:
        context = [*context, *(item for step in steps for item in step), user(text)]
        request = {"model": "m", "instructions": instructions, "tools": [WEATHER], TENANT: "alice"}
        messages = msgspec.json.encode(chat_body(request, context)["messages"])

        assert messages == msgspec.json.encode(chat_body(request, context)["messages"])
        assert messages.startswith(before)
        before = messages[:-1]


class Refusing:
    """Answers every request with this status and what it says; `{key}` is the request's own `api-key`."""

    def __init__(self, status: int, body: str) -> None:
        self.status, self.body = status, body

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        await _body(receive)
        key = dict(scope["headers"]).get(b"api-key", b"").decode()
        headers = [(b"content-type", b"application/json"), (b"location", b"http://127.0.0.1:1/")]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body.replace("{key}", key).encode()})


@pytest.mark.parametrize("make", [ChatCompletions, Responses])
async def test_a_key_in_any_header_is_left_out_of_what_the_caller_is_told(make):
    with serve(Refusing(400, '{"error": {"message": "Wrong api-key: {key}", "type": "t"}}')) as url:
        model = make(url + "/v1", headers={"Api-Key": "azure-secret"})
        with pytest.raises(ModelError) as failure:
            await said(model, {"model": "m"})
        await model.close()

    assert failure.value.message == "Wrong api-key: ***"


async def test_a_header_of_the_settings_takes_the_place_of_one_of_ours(one):
    server, url = one
    model = ChatCompletions(url, api_key="sk-ours", headers={"authorization": "Basic abc", "ACCEPT-ENCODING": "gzip"})
    await said(model, {"model": "text"})
    await model.close()

    assert server.requests[0].headers["authorization"] == "Basic abc"
    assert server.requests[0].headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize("status", [202, 301, 307])
async def test_a_redirect_is_a_fault_of_the_settings_and_no_answer_to_the_caller(status):
    with serve(Refusing(status, '{"error": {"message": "Moved.", "type": "t"}}')) as url:
        model = ChatCompletions(url + "/v1")
        with pytest.raises(ModelError) as failure:
            await said(model, {"model": "m"})
        await model.close()

    assert failure.value.status == 502
    assert failure.value.message == f"The model's server has no Chat Completions there (status {status})."


async def test_a_server_that_answers_200_to_what_it_does_not_know_is_no_responses_server(one):
    _, url = one
    with serve(
        Refusing(200, '{"error": "Unexpected endpoint or method. (POST /v1/responses). Returning 200 anyway"}')
    ) as odd:
        model = Detected(Responses(odd + "/v1"), ChatCompletions(url))

        assert text_of(await said(model, {"model": "text:Hello there"})) == "Hello there"
        await model.close()


class Mute(ChatCompletions):
    """A server that never lists its models."""

    asked = 0

    async def models(self):
        self.asked += 1
        raise TimeoutError


async def test_a_server_that_does_not_answer_is_not_waited_for_by_every_turn(one):
    mute = Mute("http://127.0.0.1:1/v1")
    upstreams = Upstreams([Route("mute", mute), route("rest", one[1], models=["*"])])
    for _ in range(3):
        assert text_of(await said(upstreams, {"model": "text:Hello"})) == "Hello"

    assert mute.asked == 1
    await upstreams.close()


async def test_a_server_that_hangs_up_is_not_sent_the_same_again_and_again():
    """It may have died of the request; how often it is asked again is the route's affair."""
    with slamming() as (url, read):
        model = ChatCompletions(url + "/v1")
        with pytest.raises(ModelError) as failure:
            await said(model, {"model": "m"})
        await model.close()

    assert failure.value.passing
    assert len(read) == 1

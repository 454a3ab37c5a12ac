"""The clients: what a call becomes on the wire, what comes back, and what is refused before it is sent."""

import asyncio
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

import antiphon
from antiphon import AsyncClient, Client
from antiphon.client.asgi import MESSAGES_AHEAD_MAX
from antiphon.errors import (
    AntiphonError,
    ApiError,
    BadRequest,
    Conflict,
    ConnectionFailed,
    Forbidden,
    InvalidRequest,
    NotFound,
    RateLimited,
    ServerError,
    Timeout,
    TooLarge,
    Unauthorized,
    Unavailable,
    UnknownOperation,
    Unprocessable,
)
from antiphon.spec import Document
from tests.servers.api import RESPONSE, RESPONSE_ID, ApiServer, echo, error, hang, reply, slamming
from tests.servers.running import serve

DOCUMENT = Document.load()
ODD = Path(__file__).parent / "documents" / "odd.yaml"
HELLO: dict[str, Any] = {"model": "m", "input": "Say one fact about tides."}


@pytest.fixture
def server():
    return ApiServer()


@pytest.fixture
def client(server):
    with Client(app=server, max_retries=0) as client:
        yield client


def sent(client, server, operation, **arguments):
    """The request as the server saw it."""
    server.plan.append(echo)
    return client.call(operation, **arguments)


# Names.


@pytest.mark.parametrize("name", ["get_response", "getResponse", "GetResponse"])
def test_a_method_has_every_spelling_of_its_name(client, name):
    assert getattr(client, name)(response_id=RESPONSE_ID) == RESPONSE
    assert client.call(name, response_id=RESPONSE_ID) == RESPONSE


@pytest.mark.parametrize("name", ["get_input_token_counts", "Getinputtokencounts", "getinputtokencounts"])
def test_an_id_without_capitals_has_a_better_name_too(client, server, name):
    server.plan.append(echo)

    assert getattr(client, name)(input="x")["path"] == "/v1/responses/input_tokens"


def test_ids_that_are_no_python_names_can_be_called(client, server):
    assert sent(client, server, "list-audit-logs")["path"] == "/v1/organization/audit_logs"
    assert client.list_audit_logs()["path"] == "/v1/organization/audit_logs"


def test_an_unknown_operation_names_the_nearest(client):
    with pytest.raises(UnknownOperation, match="get_response"):
        client.call("get_respons")


def test_an_unknown_attribute_names_the_nearest_operation(client):
    with pytest.raises(AttributeError, match="get_response"):
        _ = client.get_respons
    assert not hasattr(client, "_repr_html_")


def test_a_client_shows_its_operations(client):
    assert len(client.operations) == len(DOCUMENT.operations)
    assert {"create_response", "get_response", "delete_response", "list_models"} <= set(client.operations)
    assert set(client.operations) <= set(dir(client))
    assert "close" in dir(client)


def test_a_method_has_a_page_of_help(client):
    page = client.get_response.__doc__

    assert page.startswith("get_response(*, response_id, include=None, stream=None,")
    assert "GET /responses/{response_id} (getResponse)" in page
    assert "    response_id (string, in path, required): The ID of the response to retrieve." in page
    assert client.get_response.__name__ == "get_response"


@pytest.mark.parametrize("operation", DOCUMENT.operations)
def test_every_operation_has_a_page(client, operation):
    assert getattr(client, operation.replace("-", "_")).__doc__


# From arguments to a request.


def test_path_and_query_parameters_are_flat_keywords(client, server):
    request = sent(client, server, "listInputItems", response_id="resp_1", limit=5, order="asc", after="msg_1")

    assert request["method"] == "GET"
    assert request["path"] == "/v1/responses/resp_1/input_items"
    assert request["query"] == [["limit", "5"], ["order", "asc"], ["after", "msg_1"]]
    assert request["body"] is None
    assert "content-type" not in request["headers"]


def test_booleans_and_arrays_are_written_as_the_api_reads_them(client, server):
    include = ["reasoning.encrypted_content", "message.output_text.logprobs"]
    request = sent(client, server, "getResponse", response_id="r", include=include, stream=False)

    assert request["query"] == [
        ["include[]", "reasoning.encrypted_content"],
        ["include[]", "message.output_text.logprobs"],
        ["stream", "false"],
    ]


def test_an_object_in_the_query_is_written_in_brackets(client, server):
    request = sent(client, server, "listPaginatedFineTuningJobs", metadata={"team": "a b"})

    assert request["query"] == [["metadata[team]", "a b"]]


@pytest.mark.parametrize("name", ["project_ids", "project_ids[]"])
def test_a_name_with_brackets_can_be_written_without(client, server, name):
    request = sent(client, server, "list-audit-logs", **{name: ["proj_1", "proj_2"]})

    assert request["query"] == [["project_ids[]", "proj_1"], ["project_ids[]", "proj_2"]]


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("a/b", "/v1/models/a%2Fb"),
        ("..", "/v1/models/%2E%2E"),
        ("a?b#c", "/v1/models/a%3Fb%23c"),
        ("ft:gpt:ü", "/v1/models/ft%3Agpt%3A%C3%BC"),
    ],
)
def test_an_id_cannot_leave_its_place_in_the_path(server, value, path):
    with serve(server) as url, Client(f"{url}/v1") as client:
        assert client.call("retrieveModel", model=value)["path"] == path


def test_an_argument_of_none_is_left_out_of_the_query(client, server):
    assert sent(client, server, "getResponse", response_id="r", include=None)["query"] == []


def test_body_fields_are_flat_keywords(client, server):
    request = sent(client, server, "createResponse", **HELLO, temperature=None)

    assert request["method"] == "POST"
    assert request["body"] == {**HELLO, "temperature": None}
    assert request["headers"]["content-type"] == "application/json"


def test_the_body_can_be_given_whole_or_in_part(client, server):
    assert sent(client, server, "createResponse", body=HELLO)["body"] == HELLO
    assert sent(client, server, "createResponse", body={"model": "m"}, input="x")["body"] == {
        "model": "m",
        "input": "x",
    }


def test_a_field_that_is_given_twice_is_refused(client, server):
    with pytest.raises(InvalidRequest, match="'model' is given twice"):
        client.create_response(body=HELLO, model="other")


def test_an_optional_body_is_only_sent_when_given(client, server):
    without = sent(client, server, "createConversation")
    empty = sent(client, server, "createConversation", body={})

    assert (without["body"], empty["body"]) == (None, {})
    assert "content-type" not in without["headers"]


def test_an_idempotency_key_goes_into_its_header(client, server):
    request = sent(client, server, "createResponse", **HELLO, idempotency_key="once")

    assert request["headers"]["idempotency-key"] == "once"
    assert request["body"] == HELLO


def test_operations_with_a_json_form_beside_the_multipart_one_are_sent_as_json(client, server):
    request = sent(client, server, "createImageEdit", images=[{"file_id": "file_1"}], prompt="brighter")

    assert request["body"] == {"images": [{"file_id": "file_1"}], "prompt": "brighter"}


@pytest.fixture
def odd(server):
    """A client of another API."""
    with Client(spec=ODD, app=server) as client:
        yield client


def test_headers_and_cookies_are_parameters_too(odd):
    request = odd.change_thing(id="a", session="s", taste="sweet", X_Trace=7)

    assert request["path"] == "/base/things/a"
    assert (request["headers"]["cookie"], request["headers"]["x-trace"]) == ("session=s; taste=sweet", "7")


def test_a_path_with_a_query_in_its_key_keeps_the_query(odd):
    request = odd.beta_list_things(limit=3, x_beta=["agents=v1", "more=v2"])

    assert (request["path"], request["query"]) == ("/base/things", [["beta", "true"], ["limit", "3"]])
    assert request["headers"]["x-beta"] == "agents=v1,more=v2"


def test_a_body_field_with_the_name_of_a_parameter_is_reached_by_body(odd):
    request = odd.change_thing(id="a", body={"id": 7}, name="n")

    assert (request["path"], request["body"]) == ("/base/things/a", {"id": 7, "name": "n"})


def test_a_deep_object_is_written_in_brackets(odd):
    request = odd.beta_list_things(where={"kind": "a b", "old": True})

    assert request["query"] == [["beta", "true"], ["where[kind]", "a b"], ["where[old]", "true"]]


def test_what_may_be_null_in_the_manner_of_3_0_is_sent_as_null(odd, server):
    assert odd.change_thing(id="a", body={"name": None, "place": None})["body"] == {"name": None, "place": None}
    with pytest.raises(InvalidRequest, match="'size'"):
        odd.change_thing(id="a", size=None)
    with pytest.raises(InvalidRequest, match=r"'place\.house'"):
        odd.change_thing(id="a", place={})
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("name", "arguments", "path"),
    [
        ("drop-thing", {"id": "a"}, "/base/things/a"),
        ("drop_thing", {"id": "a"}, "/base/things/a"),
        ("dropThing", {"id": "a"}, "/base/things/a"),
        ("put_things_id", {"id": "a"}, "/base/things/a"),
        ("получитьВещи", {}, "/base/%D0%B2%D0%B5%D1%89%D0%B8"),
    ],
)
def test_operations_with_odd_ids_or_none_are_called(odd, name, arguments, path):
    assert odd.call(name, **arguments)["path"] == path
    assert getattr(odd, name)(**arguments)["path"] == path


# Refused before it is sent.


@pytest.mark.parametrize(
    ("operation", "arguments", "messages"),
    [
        ("getResponse", {}, ["Missing required parameter: 'response_id'."]),
        ("getResponse", {"response_id": None}, ["Missing required parameter: 'response_id'."]),
        ("getResponse", {"response_id": ""}, ["'response_id' is empty: the path would be another one."]),
        (
            "getResponse",
            {"response_id": "r", "starting_afer": 3},
            ["Unknown parameter: 'starting_afer'. Did you mean 'starting_after'?"],
        ),
        (
            "getResponse",
            {"response_id": "r", "starting_after": "3", "stream": "yes"},
            [
                "Invalid type for 'stream': expected a boolean, but got a string instead.",
                "Invalid type for 'starting_after': expected an integer, but got a string instead.",
            ],
        ),
        (
            "createResponse",
            {"modle": "m", "input": "x", "temperature": "hot"},
            [
                "Missing required parameter: 'model'.",
                "Unknown parameter: 'modle'. Did you mean 'model'?",
                "Invalid type for 'temperature': expected a decimal, but got a string instead.",
            ],
        ),
        ("listModels", {"body": {}}, ["Unknown parameter: 'body'."]),
    ],
)
def test_every_problem_is_told_and_nothing_is_sent(client, server, operation, arguments, messages):
    with pytest.raises(InvalidRequest) as caught:
        client.call(operation, **arguments)

    assert [problem.message for problem in caught.value.problems] == messages
    assert all(message in str(caught.value) for message in messages)
    assert server.requests == []


def test_a_problem_deep_inside_says_where(client):
    with pytest.raises(InvalidRequest, match=r"tools\[1\]\.type: Invalid value: 'web_serch'\. Supported values are: "):
        client.create_response(**HELLO, tools=[{"type": "web_search"}, {"type": "web_serch"}])


def test_a_body_that_cannot_be_json_is_refused(client):
    with pytest.raises(InvalidRequest, match="cannot be written as JSON"):
        client.create_response(model="m", input=object())


def test_what_is_checked_is_what_is_sent(client, server):
    """A tuple is an array on the wire, so it is one for the check."""
    request = sent(client, server, "createResponse", model="m", input=({"role": "user", "content": "hello"},))

    assert request["body"]["input"] == [{"role": "user", "content": "hello"}]


async def test_an_async_call_is_refused_at_once(server):
    async with AsyncClient(app=server) as client:
        with pytest.raises(InvalidRequest):
            client.get_response()  # type: ignore[call-overload]
        with pytest.raises(InvalidRequest):
            client.create_response(stream=True)


# Answers.


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequest),
        (401, Unauthorized),
        (403, Forbidden),
        (404, NotFound),
        (409, Conflict),
        (413, TooLarge),
        (418, ApiError),
        (422, Unprocessable),
        (429, RateLimited),
        (500, ServerError),
        (503, Unavailable),
        (529, ServerError),
    ],
)
def test_an_error_status_becomes_an_error_of_its_kind(client, server, status, kind):
    server.plan.append(error(status, "No.", code="why", param="where", headers={"x-request-id": "req_1"}))
    with pytest.raises(kind) as caught:
        client.list_models()

    found = caught.value
    assert type(found) is kind
    assert (found.status, found.message, found.code, found.param) == (status, "No.", "why", "where")
    assert str(found) == f"{status} No. (request req_1)"


def test_a_failure_that_passes_is_not_noticed(server):
    server.plan.extend([error(429, headers={"retry-after-ms": "1"}), error(503, headers={"retry-after-ms": "1"})])
    with Client(app=server) as client:
        assert client.get_response(response_id=RESPONSE_ID) == RESPONSE
    assert len(server.requests) == 3


def test_an_empty_answer_is_none(client, server):
    server.plan.append(reply(204))

    assert client.delete_response(response_id="r") is None


def test_a_redirect_is_followed(client, server):
    server.plan.append(reply(307, headers={"location": "/v1/elsewhere"}))

    assert client.list_models()["path"] == "/v1/elsewhere"


# Connections.


def test_a_server_that_is_not_there_is_a_failed_connection():
    with slamming() as (url, _):
        pass
    with Client(f"{url}/v1", max_retries=0) as client, pytest.raises(ConnectionFailed) as caught:
        client.list_models()

    assert not caught.value.sent
    assert str(caught.value).startswith(f"{url.removeprefix('http://')} cannot be reached: ")
    assert isinstance(caught.value.__cause__, httpx2.ConnectError)


def test_a_server_that_hangs_up_is_a_failed_connection():
    with slamming() as (url, read), Client(f"{url}/v1") as client, pytest.raises(ConnectionFailed) as caught:
        client.create_response(**HELLO)

    assert caught.value.sent
    assert len(read) == 1


async def test_a_server_that_does_not_answer_is_a_timeout(server):
    server.plan.extend([hang] * 4)
    with serve(server) as url:
        with Client(f"{url}/v1", timeout=0.05, max_retries=0) as client, pytest.raises(Timeout):
            client.list_models()
        async with AsyncClient(f"{url}/v1", timeout=0.05, max_retries=0) as client:
            with pytest.raises(Timeout):
                await client.list_models()
    with Client(app=server, timeout=0.05, max_retries=0) as client, pytest.raises(Timeout):
        client.list_models()
    async with AsyncClient(app=server, timeout=0.05, max_retries=0) as client:
        with pytest.raises(Timeout):
            await client.list_models()

    for request in server.requests:
        await asyncio.to_thread(request.wait_left)


@pytest.mark.parametrize("url", ["ftp://example.org/v1", "/v1", "localhost:8123", "http:///v1", "http://[::1"])
def test_a_base_url_that_is_none_is_refused_before_any_call(url):
    for make in (Client, AsyncClient, Client().with_options):
        with pytest.raises(InvalidRequest, match=f"^base_url: {re.escape(repr(url))} is not an http or https URL"):
            make(base_url=url)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("get_response", "get_response() takes its arguments by name: get_response(response_id=...)"),
        ("create_response", "create_response() takes its arguments by name"),
    ],
)
def test_an_argument_without_a_name_is_refused_with_the_name(client, server, name, told):
    for methods in (client, client.raw):
        with pytest.raises(TypeError, match=f"^{re.escape(told)}$"):
            getattr(methods, name)("resp_x")

    assert server.requests == []


def test_a_file_where_the_body_is_json_is_refused(client, server, tmp_path):
    (tmp_path / "notes.txt").write_text("notes")

    with pytest.raises(InvalidRequest, match=r"^createResponse takes no file: its body is JSON\.$"):
        client.create_response(model="m", input=tmp_path / "notes.txt")
    assert server.requests == []


def test_a_client_for_httpx2_is_used_and_left_open(server):
    with serve(server) as url, httpx2.Client(headers={"x-mine": "1"}) as http:
        with Client(f"{url}/v1", http_client=http) as client:
            assert client.list_models()["headers"]["x-mine"] == "1"
        assert not http.is_closed


async def test_async_calls_run_side_by_side(server):
    async with AsyncClient(app=server) as client, asyncio.TaskGroup() as tasks:
        got = [tasks.create_task(client.get_response(response_id=RESPONSE_ID)) for _ in range(8)]

    assert [task.result() for task in got] == [RESPONSE] * 8


def test_a_client_may_be_used_by_many_threads(server):
    with Client(app=server) as client, ThreadPoolExecutor(8) as threads:
        got = list(threads.map(lambda _: client.get_response(response_id=RESPONSE_ID), range(32)))

    assert got == [RESPONSE] * 32
    assert server.lifespan == ["startup", "shutdown"]


# Where to and as whom.


def test_making_a_client_asks_for_nothing():
    Client().close()


def test_the_environment_is_read_at_the_first_call(server, monkeypatch):
    with serve(server) as url, Client() as client:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{url}/v1/")
        monkeypatch.setenv("OPENAI_API_KEY", "sk-from-outside")

        request = client.list_models()

    assert request["path"] == "/v1/models"
    assert request["headers"]["authorization"] == "Bearer sk-from-outside"
    assert request["headers"]["user-agent"] == f"antiphon/{antiphon.__version__}"


def test_what_is_given_goes_before_the_environment(server, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-outside")
    with serve(server) as url, Client(f"{url}/v2", "sk-given", default_headers={"X-Team": "a"}) as client:
        request = client.list_models()

    assert request["path"] == "/v2/models"
    assert (request["headers"]["authorization"], request["headers"]["x-team"]) == ("Bearer sk-given", "a")


def test_an_app_is_not_told_the_users_key(client, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/elsewhere")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-outside")

    request = client.list_models()

    assert request["path"] == "/v1/models"
    assert request["headers"]["host"] == "localhost"
    assert "authorization" not in request["headers"]


# An application in the same process.


async def test_an_app_is_started_once_and_shut_down(server):
    async with AsyncClient(app=server) as client:
        assert server.lifespan == []
        first, second = await asyncio.gather(client.list_models(), client.list_models())
        assert server.lifespan == ["startup"]

    assert first["state"] == second["state"] == {"born": "at startup"}
    assert server.lifespan == ["startup", "shutdown"]


async def test_an_app_without_a_lifespan_is_called_all_the_same():
    async def app(scope, receive, send):
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": b"[]"})

    async with AsyncClient(app=app) as client:
        assert await client.call("listModels") == []


async def test_an_app_that_does_not_start_says_why():
    async def app(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no disk"})

    async with AsyncClient(app=app) as client:
        with pytest.raises(AntiphonError, match="did not start: no disk"):
            await client.list_models()


async def test_an_app_that_fails_answers_as_a_server_would():
    async def app(scope, receive, send):
        raise ZeroDivisionError

    async with AsyncClient(app=app, max_retries=0) as client:
        with pytest.raises(ServerError, match="Internal Server Error"):
            await client.list_models()


async def test_an_app_that_fails_in_the_middle_breaks_the_connection():
    async def app(scope, receive, send):
        if scope["type"] == "http":
            headers = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"[", "more_body": True})
            raise ZeroDivisionError

    async with AsyncClient(app=app, max_retries=0) as client:
        with pytest.raises(ConnectionFailed) as caught:
            await client.list_models()

    assert isinstance(caught.value.__cause__, httpx2.ReadError)


async def test_an_app_cannot_run_far_ahead_of_its_reader():
    sends = 0

    async def app(scope, receive, send):
        nonlocal sends
        if scope["type"] == "http":
            await send(
                {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
            )
            for number in range(1000):
                data = b'data: {"n": %d}\n\n' % number
                await send({"type": "http.response.body", "body": data, "more_body": True})
                sends += 1
            await send({"type": "http.response.body"})

    async with AsyncClient(app=app) as client:
        messages: Any = [{"role": "user", "content": "hello"}]
        async with client.create_chat_completion(model="m", messages=messages, stream=True) as stream:
            first: Any = await anext(stream)
            for _ in range(100):
                await asyncio.sleep(0)  # time enough for the app to run away
            ahead = sends
            rest: list[Any] = [event async for event in stream]

    assert ahead <= MESSAGES_AHEAD_MAX + 1
    assert [event["n"] for event in [first, *rest]] == list(range(1000))


async def test_closing_the_client_ends_what_the_app_still_does(server):
    begun = asyncio.Event()

    async def begin(exchange):
        begun.set()
        await hang(exchange)

    server.plan.append(begin)
    client = AsyncClient(app=server, max_retries=0)
    waiting = asyncio.ensure_future(client.list_models())
    await begun.wait()
    await client.close()

    with pytest.raises(ConnectionFailed):
        await waiting
    assert server.lifespan == ["startup", "shutdown"]


def test_looking_up_a_method_loads_nothing_that_speaks_or_parses():
    program = (
        "import sys, antiphon; antiphon.Client().get_response\n"
        "print(*{'httpx2', 'asyncio', 'yaml', 'jsonschema_rs', 'ssl'} & sys.modules.keys())"
    )

    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout == "\n"

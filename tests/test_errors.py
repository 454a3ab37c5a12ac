"""What is wrong with a request is told in the API's words, as JSON of the documented form, before anything is done.

That every failure has this form is checked for each answer of the server, when it is stopped.
"""

import json

import pytest

from antiphon.errors import BadRequest
from antiphon.server.request import decode_json
from tests.servers.antiphon import antiphon, created

OK = {"model": "text", "input": "Hi"}


@pytest.fixture(scope="module")
def server():
    with antiphon(max_body_bytes=100_000, max_json_depth=10) as server:
        yield server


@pytest.fixture
async def http(server):
    async with server.http() as http:
        yield http


def fault(answer):
    """Status, param and code of a failure."""
    error = answer.json()["error"]
    return answer.status_code, error["param"], error["code"]


def said(answer):
    return answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/nothing"),
        ("POST", "/nothing"),
        ("GET", "/responses/"),
        ("POST", "/responses/resp_1/nothing"),
        ("GET", "/../nothing"),
        ("GET", "//responses"),
    ],
)
async def test_an_unknown_route_is_an_error_of_the_api(http, method, path):
    answer = await http.request(method, path)

    assert fault(answer) == (404, None, None)
    assert said(answer).startswith(f"Invalid URL ({method} /")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/responses", {"POST"}),
        ("GET", "/responses", {"POST"}),
        ("POST", "/models", {"GET", "HEAD"}),
        ("PATCH", "/responses/resp_1", {"GET", "HEAD", "DELETE"}),
        ("GET", "/responses/resp_1/cancel", {"POST"}),
    ],
)
async def test_a_wrong_method_is_an_error_that_names_the_right_ones(http, method, path, allowed):
    answer = await http.request(method, path)

    assert fault(answer) == (405, None, None)
    assert set(answer.headers["allow"].split(", ")) == allowed


@pytest.mark.parametrize(
    "body", [b"", b"{", b"{'model': 'text'}", b'{"model": NaN}', b"\xff\xfe", b'{"model": "\xff"}', b'{"model": 1} 2']
)
async def test_a_body_that_is_no_json_is_refused(http, body):
    answer = await http.post("/responses", content=body, headers={"content-type": "application/json"})

    assert fault(answer) == (400, None, None)
    assert said(answer).startswith("We could not parse the JSON body of your request")


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"null", b"1"])
async def test_a_body_that_is_no_object_is_refused(http, body):
    answer = await http.post("/responses", content=body, headers={"content-type": "application/json"})

    assert answer.status_code == 400


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_another_content_type_is_refused(http, kind):
    answer = await http.post("/responses", content=json.dumps(OK), headers={"content-type": kind})

    assert answer.status_code == 415
    assert "only accepts 'application/json' requests" in said(answer)


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON"])
async def test_a_content_type_may_be_written_in_other_ways(http, kind):
    answer = await http.post("/responses", content=json.dumps(OK), headers={"content-type": kind})

    assert answer.status_code == 200


async def test_a_body_that_is_too_large_is_refused(http):
    answer = await http.post("/responses", json={**OK, "input": "x" * 100_000})

    assert fault(answer) == (413, None, None)


async def test_a_body_that_does_not_tell_its_size_is_read_no_further_than_the_limit(http):
    async def body():
        yield b'{"model": "text", "input": "'
        for _ in range(20):
            yield b"x" * 10_000
        yield b'"}'

    answer = await http.post("/responses", content=body(), headers={"content-type": "application/json"})

    assert fault(answer) == (413, None, None)


async def test_a_body_of_the_largest_size_is_taken(http):
    body = json.dumps({"model": "text", "input": "x"}).encode()
    body = body.replace(b'"x"', b'"' + b"x" * (100_000 - len(body) + 1) + b'"')
    answer = await http.post("/responses", content=body, headers={"content-type": "application/json"})

    assert len(body) == 100_000
    assert answer.status_code == 200


def test_a_text_that_does_not_end_is_looked_at_once():
    """Looking back from each of its quotes would take hours."""
    with pytest.raises(BadRequest, match="could not parse"):
        decode_json(b"[" * 60 + b"{" * 10 + b'"' + b'\\"' * 500_000, max_depth=70)


async def test_a_body_that_nests_too_deep_is_refused_and_brackets_in_texts_do_not_count(http):
    deep = {**OK, "metadata": {"a": "[" * 50 + '\\"{' * 50}}
    assert (await http.post("/responses", json=deep)).status_code == 200

    for _ in range(10):
        deep = {"a": deep}
    answer = await http.post("/responses", json=deep)

    assert answer.status_code == 400
    assert said(answer) == "The request body nests deeper than 10 levels."


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("stream=maybe", "stream"),
        ("stream=1", "stream"),
        ("stream=true&starting_after=x", "starting_after"),
        ("stream=true&starting_after=1.5", "starting_after"),
        ("stream=true&starting_after=1.0", "starting_after"),
        ("stream=true&starting_after=1e3", "starting_after"),
        ("stream=true&starting_after=true", "starting_after"),
        ("stream=true&starting_after=", "starting_after"),
        ("stream=true&starting_after=99999999999999999999999999", "starting_after"),
        ("starting_after=x", "starting_after"),
        ("include_obfuscation=no", "include_obfuscation"),
        ("include=bogus", "include[0]"),
        ("include[]=message.output_text.logprobs&include[]=bogus", "include[1]"),
        ("include=message.output_text.logprobs,bogus", "include[1]"),
    ],
)
async def test_a_parameter_of_the_wrong_kind_is_refused(http, query, param):
    response = await created(http, "text")
    answer = await http.get(f"/responses/{response['id']}?{query}")

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("DELETE", ""), ("POST", "/cancel")])
async def test_an_unknown_response_is_not_found(http, method, path):
    answer = await http.request(method, f"/responses/resp_unknown{path}")

    assert fault(answer) == (404, None, None)
    assert said(answer) == "Response with id 'resp_unknown' not found."


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("DELETE", ""), ("POST", "/cancel")])
async def test_an_id_of_another_kind_is_refused(http, method, path):
    answer = await http.request(method, f"/responses/msg_1{path}")

    assert fault(answer) == (400, "response_id", "invalid_id_prefix")
    assert said(answer) == "Invalid 'response_id': 'msg_1'. Expected an ID that begins with 'resp'."


async def test_an_unknown_model_is_what_the_model_server_says_it_is(http):
    answer = await http.post("/responses", json={"model": "unheard-of", "input": "Hi"})

    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"


async def test_a_model_server_that_cannot_be_reached_is_told_without_its_address(free_upstream):
    async with free_upstream.http() as http:
        plain = await http.post("/responses", json=OK)
        models = await http.get("/models")

    for answer in (plain, models):
        assert answer.status_code == 503
        assert said(answer) == "The model's server cannot be reached."


@pytest.fixture
def free_upstream():
    with antiphon(upstream="http://127.0.0.1:9/v1") as server:
        yield server


async def test_errors_of_a_stream_that_has_not_begun_are_plain_http(http):
    answer = await http.post("/responses", json={**OK, "stream": True, "temperature": 5})

    assert fault(answer) == (400, "temperature", "decimal_above_max_value")
    assert answer.headers["content-type"] == "application/json"


async def test_a_stream_that_fails_says_error_then_failed(http):
    answer = await http.post("/responses", json={"model": "error:400", "input": "Hi", "stream": True})
    frames = answer.text.strip().split("\n\n")
    error, failed = (json.loads(frame.partition("data: ")[2]) for frame in frames[-2:])

    assert error["type"] == "error"
    assert error["error"] == {
        "type": "invalid_request_error", "code": "some_code", "message": "It said no.", "param": None,
    }  # fmt: skip
    assert (error["code"], error["message"], error["param"]) == ("some_code", "It said no.", None)
    assert failed["type"] == "response.failed"
    assert failed["response"]["error"] == {"code": "server_error", "message": "It said no."}


async def test_a_create_that_failed_is_kept_as_failed(http):
    stream = await http.post("/responses", json={"model": "error:500", "input": "Hi", "stream": True})
    response_id = json.loads(stream.text.partition("data: ")[2].partition("\n")[0])["response"]["id"]
    kept = (await http.get(f"/responses/{response_id}")).json()

    assert (kept["status"], kept["output"], kept["usage"]) == ("failed", [], None)


# Each body has several faults; the first of them in the API's order is the one that is told.
@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"bogus": 1}, "model", "missing_required_parameter"),
        ({"model": "text", "bogus": 1, "temperature": "hot"}, "input", "missing_required_parameter"),
        ({**OK, "bogus": 1, "temperature": "hot"}, "bogus", "unknown_parameter"),
        ({**OK, "input": 1, "previous_response_id": 1, "tools": 1}, "input", "invalid_type"),
        ({**OK, "temperature": "hot", "include": ["bogus"]}, "include[0]", "invalid_value"),
        ({**OK, "temperature": "hot", "tools": "none"}, "tools", "invalid_type"),
        ({**OK, "temperature": "hot", "metadata": 1}, "metadata", "invalid_type"),
        ({**OK, "temperature": "hot", "top_p": "high"}, "temperature", "invalid_type"),
        ({**OK, "stream": "yes", "background": "yes"}, "stream", "invalid_type"),
        ({**OK, "store": "no", "truncation": "bogus"}, "truncation", "invalid_value"),
        # What a value is comes before what it names, and that before what is carried out here.
        ({**OK, "previous_response_id": "resp_0", "top_logprobs": 99}, "top_logprobs", "integer_above_max_value"),
        ({**OK, "conversation": "conv_0", "previous_response_id": "resp_0"}, None, "mutually_exclusive_parameters"),
        (
            {**OK, "truncation": "auto", "previous_response_id": "resp_0"},
            "previous_response_id", "previous_response_not_found",
        ),
        ({"model": "text", "input": [], "truncation": "auto"}, None, "missing_required_parameter"),
        ({**OK, "truncation": "auto"}, "truncation", "unsupported_parameter"),
        (
            {"model": "text", "input": [{"type": "function_call_output", "output": "x"}]},
            "input[0].call_id", "missing_required_parameter",
        ),
    ],
)  # fmt: skip
async def test_the_first_fault_is_told(http, body, param, code):
    answer = await http.post("/responses", json=body)

    assert fault(answer) == (400, param, code)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"input": "Hi"}, "Missing required parameter: 'model'."),
        ({"model": None, "input": "Hi"}, "Invalid type for 'model': expected a string, but got an object instead."),
        ({"model": "text"}, "Missing required parameter: 'input'."),
        (
            {"model": "text", "input": []},
            "One of \"input\" or \"previous_response_id\" or 'prompt' or 'conversation' must be provided.",
        ),
        (
            {"model": "text", "input": ""},
            "One of \"input\" or \"previous_response_id\" or 'prompt' or 'conversation' must be provided.",
        ),
        ({**OK, "stor": True}, "Unknown parameter: 'stor'. Did you mean 'store'?"),
        (
            {**OK, "max_output_tokens": 15},
            "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16, but got 15 instead.",
        ),
        ({**OK, "truncation": "bogus"}, "Invalid value: 'bogus'. Supported values are: 'auto' and 'disabled'."),
        ({**OK, "previous_response_id": "resp_0"}, "Previous response with id 'resp_0' not found."),
        ({**OK, "store": "no"}, "Invalid type for 'store': expected a boolean, but got a string instead."),
    ],
)
async def test_a_fault_is_told_in_the_words_of_the_api(http, body, message):
    answer = await http.post("/responses", json=body)

    assert answer.status_code == 400
    assert said(answer) == message

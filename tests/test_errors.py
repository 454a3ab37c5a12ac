"""What is wrong with a request is told in the API's words, as JSON of the documented form, before anything is done.

That every failure has this form is checked for each answer of the server, when it is stopped.
"""

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
        ("PUT", "/responses", {"GET", "HEAD", "POST"}),
        ("GET", "/conversations", {"POST"}),
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
    "body",
    [
        b"",
        b"{",
        b"{'model': 'text'}",
        b'{"model": NaN}',
        b"\xff\xfe",
        b'{"model": "\xff"}',
        b'{"model": 1} 2',
        b'{"model": "\xed\xa0\x80"}',
        b'{"model": "\\ud800"}',
        b'{"\\udc00": 1}',
        b'{"temperature": 1e999}',
        b'{"top_logprobs": ' + b"9" * 5000 + b"}",
        b'{"a\x00": 1}',
        b"[" * 9,
    ],
)
async def test_a_body_that_is_no_json_is_refused(http, body):
    answer = await http.post("/responses", content=body, headers={"content-type": "application/json"})

    assert fault(answer) == (400, None, None)
    assert said(answer).startswith("We could not parse the JSON body of your request")


@pytest.mark.parametrize(("kind", "body"), [("array", []), ("string", "text"), ("object", None), ("integer", 1)])
@pytest.mark.parametrize(
    "path",
    [
        "/responses",
        "/responses/input_tokens",
        "/responses/compact",
        "/conversations",
        "/conversations/conv_x",
        "/conversations/conv_x/items",
    ],
)
async def test_a_body_that_is_no_object_is_refused(http, path, kind, body):
    """A null is called an object, as everywhere."""
    answer = await http.post(path, content=json.dumps(body), headers={"content-type": "application/json"})

    assert fault(answer) == (400, None, "invalid_type")
    found = f"a{'n' if kind[0] in 'aio' else ''} {kind}"
    assert said(answer) == f"Invalid type for the request body: expected an object, but got {found} instead."


async def test_a_body_that_may_be_left_out_can_be(http):
    for content, headers in ((b"", {}), (b"{}", {"content-type": "application/json"})):
        answer = await http.post("/conversations", content=content, headers=headers)

        assert (answer.status_code, answer.json()["metadata"]) == (200, {})


async def test_a_body_that_is_left_out_lacks_what_it_must_have(http):
    answer = await http.post("/responses/compact")

    assert fault(answer) == (400, "model", "missing_required_parameter")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_another_content_type_is_refused(http, kind):
    answer = await http.post("/responses", content=json.dumps(OK), headers={"content-type": kind})

    assert answer.status_code == 415
    assert "only accepts 'application/json' requests" in said(answer)


async def test_a_body_that_is_packed_is_refused(http):
    packed = gzip.compress(json.dumps(OK).encode())
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    answer = await http.post("/responses", content=packed, headers=headers)

    assert answer.status_code == 415
    assert said(answer) == "Unsupported content encoding: 'gzip'. Send the body as it is."


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


@pytest.mark.parametrize("value", [0, "", [], "a", "[", ',"', "\\", '\\",['])
def test_so_many_values_are_enough(value):
    raw = json.dumps([value] * 249_999).encode()
    assert len(decode_json(raw, max_depth=3)) == 249_999

    with pytest.raises(BadRequest, match="holds more than 500,000 JSON values"):
        decode_json(json.dumps([value] * 500_000).encode(), max_depth=3)


def test_what_stands_in_texts_is_no_value():
    text = '[{",\\"' * 200_000
    assert decode_json(json.dumps({text: text}).encode(), max_depth=1) == {text: text}


@given(
    st.recursive(
        st.text('[]{},:"\\ é', max_size=5),
        lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text('[{"\\', max_size=3), below, max_size=3),
    )
)
def test_no_more_and_no_less_is_too_deep(value):
    raw = json.dumps(value).encode()
    deepest = depth(value)
    assert decode_json(raw, max_depth=deepest) == value
    if deepest:
        with pytest.raises(BadRequest, match="nests deeper"):
            decode_json(raw, max_depth=deepest - 1)


def depth(value):
    if not isinstance(value, (list, dict)):
        return 0
    below = value if isinstance(value, list) else value.values()
    return 1 + max(map(depth, below), default=0)


@pytest.mark.parametrize("raw", [b"[" * 9 + b"1", b"]" * 99, b'{"a":' * 9, b'["' + b"[" * 99, b"[,]" * 99])
def test_what_is_no_json_is_not_called_deep(raw):
    with pytest.raises(BadRequest, match="could not parse"):
        decode_json(raw, max_depth=9)


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
        ("stream=true&starting_after=9223372036854775808", "starting_after"),
        ("stream=true&starting_after=" + "9" * 5000, "starting_after"),
        ("stream=true&starting_after=%D9%A1", "starting_after"),
        ("stream=%00", "stream"),
        ("stream=%ff", "stream"),
        ("starting_after=x", "starting_after"),
        ("include_obfuscation=no", "include_obfuscation"),
        ("include=bogus", "include[0]"),
        ("include[]=message.output_text.logprobs&include[]=bogus", "include[1]"),
        ("include=message.output_text.logprobs,bogus", "include[1]"),
        ("include[0]=message.output_text.logprobs&include[1]=bogus", "include[1]"),
        ("include%5B%5D=bogus", "include[0]"),
        ("include=", "include[0]"),
        ("include=%00", "include"),
    ],
)
async def test_a_parameter_of_the_wrong_kind_is_refused(http, query, param):
    response = await created(http, "text")
    answer = await http.get(f"/responses/{response['id']}?{query}")

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


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


LOGPROBS = "message.output_text.logprobs"
IMAGES = "message.input_image.image_url"


@pytest.mark.parametrize(
    "query",
    [
        f"include={LOGPROBS}&include={IMAGES}",
        f"include[]={LOGPROBS}&include[]={IMAGES}",
        f"include%5B%5D={LOGPROBS}&include%5B%5D={IMAGES}",
        f"include[0]={LOGPROBS}&include[1]={IMAGES}",
        f"include={LOGPROBS},{IMAGES}",
        f"include={LOGPROBS}%2C{IMAGES}",
    ],
)
async def test_an_array_may_be_written_in_each_way_that_clients_have(http, query):
    asked = {"model": "logprobs", "input": "Hi", "include": [LOGPROBS], "top_logprobs": 1}
    response = (await http.post("/responses", json=asked)).json()
    again = await http.get(f"/responses/{response['id']}?{query}")

    assert again.json() == response
    assert again.json()["output"][0]["content"][0]["logprobs"]


async def test_an_object_in_a_query_is_written_by_its_keys(http):
    wanted, _ = [await created(http, "text", metadata={"topic": topic, "a[b]": "c"}) for topic in ("tides", "moons")]
    listed = (await http.get("/responses?metadata[topic]=tides&metadata[a[b]]=c")).json()
    bare = await http.get("/responses?metadata=tides")

    assert [response["id"] for response in listed["data"]] == [wanted["id"]]
    assert fault(bare) == (400, "metadata", "invalid_type")


@pytest.mark.parametrize(
    ("limit", "code"),
    [
        ("0", "integer_below_min_value"),
        ("-1", "integer_below_min_value"),
        ("101", "integer_above_max_value"),
        ("9" * 30, "integer_above_max_value"),
        ("ten", "invalid_type"),
        ("1.5", "invalid_type"),
        ("", "invalid_type"),
    ],
)
@pytest.mark.parametrize("path", ["/responses", "/responses/resp_x/input_items", "/conversations/conv_x/items"])
async def test_a_page_has_between_one_and_a_hundred_entries(http, path, limit, code):
    answer = await http.get(f"{path}?limit={limit}")

    assert fault(answer) == (400, "limit", code)


@pytest.mark.parametrize("path", ["/responses/resp_%00", "/conversations/conv_%00", "/models/%00"])
async def test_a_name_with_a_nul_is_refused(http, path):
    answer = await http.get(path)

    assert answer.status_code == 400
    assert "holds a NUL character" in said(answer)


async def test_a_name_of_broken_characters_is_not_found(http):
    for id in ("resp_%ff", "resp_%ED%A0%80", "resp_" + "x" * 5000):
        answer = await http.get(f"/responses/{id}")

        assert answer.status_code == 404


async def test_of_a_key_that_comes_twice_the_last_counts(http):
    raw = b'{"model": "unheard-of", "input": "Hi", "model": "text"}'
    answer = await http.post("/responses", content=raw, headers={"content-type": "application/json"})

    assert answer.json()["model"] == "text"


@pytest.mark.parametrize("number", ["1000000000000000000000000000000", "1e30", "18446744073709551616"])
async def test_numbers_beyond_all_limits_are_taken_where_there_is_no_limit(http, number):
    raw = b'{"model": "text", "input": "Hi", "max_output_tokens": ' + number.encode() + b"}"
    answer = await http.post("/responses", content=raw, headers={"content-type": "application/json"})

    assert (answer.status_code, answer.json()["max_output_tokens"]) == (200, json.loads(number))


async def test_a_text_may_hold_any_character(http):
    text = "\x00 \u2028 \U0001f600 \ufffe"
    response = await created(http, "text", input=text, metadata={"k\x00": text}, instructions=text)

    assert (response["metadata"], response["instructions"]) == ({"k\x00": text}, text)
    assert (await http.get(f"/responses/{response['id']}")).json() == response

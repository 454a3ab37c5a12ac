"""What those who run a server see of it: counters for Prometheus, and lines of JSON. Never what anybody said."""

import json
import logging

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from antiphon import logs
from antiphon.server.app import OPERATIONS
from antiphon.server.metrics import GAUGES, Metrics
from antiphon.store.base import Claim
from tests.servers.antiphon import PLAIN, Process, antiphon, created, creating, replayed
from tests.servers.chat import SECONDS_MAX, ChatServer
from tests.servers.running import serve

SECRET = "a-word-that-nobody-may-read"


def read(text):
    """The samples of a page, by name and labels."""
    return {
        (sample.name.removeprefix("antiphon_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def page(server):
    async with server.http(base_url=server.url.removesuffix("/v1")) as http:
        answer = await http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return read(answer.text)


async def test_what_happens_is_counted():
    with antiphon() as server:
        async with server.http() as http:
            response = await created(http, "text")
            await http.get(f"/responses/{response['id']}")
            await http.get("/responses/resp_none")
            assert (await http.post("/responses", json={"model": "error:429", "input": "Hi"})).status_code == 429
            async with creating(http, "gate:1:1") as stream:
                await stream.deltas(1)
                during = await page(server)
                server.upstream.requests[-1].release()
                await stream.rest()
            after = await page(server)

    assert after["requests_total", "createResponse", "200"] == 2
    assert after["requests_total", "createResponse", "429"] == 1
    assert after["requests_total", "getResponse", "200"] == after["requests_total", "getResponse", "404"] == 1
    assert after["responses_total", "completed"] == 2
    assert after["responses_total", "failed"] == 1
    assert after["upstream_errors_total", "429"] == 1
    assert after["tokens_total", "input"] >= response["usage"]["input_tokens"]
    assert after["tokens_total", "output"] > response["usage"]["output_tokens"]
    assert after["events_total",] > 10
    assert after["append_seconds_count",] == after["append_seconds_bucket", "+Inf"] >= 3
    assert (during["streams",], during["leases",]) == (1, 1)
    assert (after["streams",], after["leases",], after["queue",]) == (0, 0, 0)
    assert after["process_resident_memory_bytes",] > 1e6


async def test_the_queue_is_what_waits_in_the_store():
    with antiphon(workers=0) as server:
        async with server.http() as http:
            for _ in range(2):
                await created(http, "text", background=True)
        assert (await page(server))["queue",] == 2


def test_what_was_taken_over_is_counted():
    metrics = Metrics()
    metrics.begun(Claim("t", "resp_1", 1, 0.0))
    metrics.begun(Claim("t", "resp_2", 3, 0.0, tries=2))

    assert read(metrics.page(dict.fromkeys(GAUGES, 0)).decode())["takeovers_total",] == 1


def test_appends_are_counted_by_how_long_they_took():
    metrics = Metrics()
    for seconds in (0.0005, 0.003, 60):
        metrics.appended(2, seconds)
    samples = read(metrics.page({}).decode())

    assert samples["events_total",] == 6
    assert [samples["append_seconds_bucket", bound] for bound in ("0.0005", "0.0025", "0.005", "5", "+Inf")] == [
        1, 1, 2, 2, 3,
    ]  # fmt: skip
    assert samples["append_seconds_sum",] == pytest.approx(60.0035)


def test_operations_are_named_by_their_id_and_paths_not_at_all():
    with antiphon() as server:
        base = server.url.removesuffix("/v1")
        for path in ("/v1/none", "/v1/models", f"/{SECRET}"):
            httpx2.get(base + path, **PLAIN)
        text = httpx2.get(base + "/metrics", **PLAIN).text

    operations = {key[1] for key in read(text) if key[0] == "requests_total"}
    assert operations <= {*OPERATIONS, ""}
    assert SECRET not in text


# Lines


@pytest.fixture
def lines():
    """The lines that are logged as JSON, from INFO up."""
    found = []
    formatter = logs.json_lines()

    class Keeping(logging.Handler):
        def emit(self, record):
            found.append(json.loads(formatter.format(record)))

    handler = Keeping()
    logger = logging.getLogger("antiphon")
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel("INFO")
    yield found
    logger.setLevel(level)
    logger.removeHandler(handler)


async def test_a_response_has_two_lines_that_its_request_can_be_found_by(lines):
    with antiphon() as server:
        async with server.http(headers={"x-request-id": "req_mine"}) as http:
            response = await created(http, f"text:{SECRET}", input=SECRET, metadata={"note": SECRET})

    begun, ended = [line for line in lines if line["logger"] == "antiphon.worker"]
    assert begun == {
        "event": "response begun",
        "level": "info",
        "logger": "antiphon.worker",
        "timestamp": begun["timestamp"],
        "request_id": "req_mine",
        "response_id": response["id"],
        "tries": 1,
    }
    assert ended["event"] == "response ended"
    assert (ended["request_id"], ended["response_id"], ended["status"]) == ("req_mine", response["id"], "completed")
    assert ended["seconds"] >= 0
    assert SECRET not in json.dumps(lines)


async def test_lines_count_the_tries_that_are_limited_and_an_orderly_stop_is_none(lines, tmp_path):
    with antiphon(tmp_path, stop_seconds=0.1) as first:
        async with first.http() as http, creating(http, "gate:1:1", background=True) as stream:
            await stream.deltas(1)
    with antiphon(tmp_path) as second:
        (await second.upstream.request()).release()
        async with second.http() as http:
            await replayed(http, stream.response_id)

    told = [(line["tries"], line.get("status")) for line in lines if line["logger"] == "antiphon.worker"]
    assert told == [(1, None), (1, "handed back"), (1, None), (1, "completed")]


def test_what_is_no_text_is_logged_all_the_same():
    """The name of a file need not be UTF-8."""
    name = b"\xff.db".decode("utf-8", "surrogateescape")
    record = logging.makeLogRecord({"msg": "%s is gone", "args": (name,), "file": name})

    line = json.loads(logs.json_lines().format(record))

    assert (line["event"], line["file"]) == (f"{name} is gone", name)


async def test_a_background_response_has_a_line_with_its_request(lines):
    with antiphon() as server:
        async with server.http(headers={"x-request-id": "req_mine"}) as http:
            response = await created(http, "text", background=True, input=SECRET)

    (queued,) = [line for line in lines if line["event"] == "response queued"]
    assert (queued["request_id"], queued["response_id"]) == ("req_mine", response["id"])
    assert SECRET not in json.dumps(lines)


async def test_nothing_that_a_failing_model_says_is_logged_at_info(lines):
    with antiphon() as server:
        async with server.http() as http:
            for model in ("error:500", "break:3"):
                await http.post("/responses", json={"model": model, "input": SECRET})

    assert lines
    assert SECRET not in json.dumps(lines)


def test_a_line_with_an_exception_has_it_in_one_piece(lines):
    try:
        raise ValueError("a reason")
    except ValueError:
        logging.getLogger("antiphon.some").exception("it failed", extra={"odd": {1, 2}, "response_id": "resp_1"})

    (line,) = lines
    assert line["exception"].endswith("ValueError: a reason")
    assert (line["event"], line["response_id"], line["level"]) == ("it failed", "resp_1", "error")


def test_a_server_logs_json_if_it_is_asked_to(tmp_path):
    with serve(ChatServer()) as upstream:
        process = Process(upstream, tmp_path, "--log-level", "info", "--log-format", "json")
        try:
            made = httpx2.post(f"{process.url}/responses", json={"model": "text", "input": SECRET}, **PLAIN)
            process.stop()
            assert process.stopped(seconds=SECONDS_MAX) == 0
        finally:
            process.close()

    logged = [json.loads(line) for line in process._said if line.startswith("{")]
    assert [line["event"] for line in logged] == ["response begun", "response ended"]
    assert {line["request_id"] for line in logged} == {made.headers["x-request-id"]}
    assert SECRET not in "".join(process._said)

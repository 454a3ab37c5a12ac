"""Traces: a call, the work on its response and the turn of the model, as a collector gets them from a real server."""

import json
import subprocess
import sys
from contextlib import contextmanager

import httpx2
import pytest
import websockets

from tests.servers.antiphon import PLAIN, Process
from tests.servers.chat import SECONDS_MAX, ChatServer
from tests.servers.collector import Collector
from tests.servers.running import serve

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SECRET = "a-word-that-nobody-may-read"


class Traced:
    """A server as a process, its model's server, and the collector that it tells."""

    def __init__(self, process, upstream, collector):
        self.process = process
        self.upstream = upstream
        self._collector = collector

    @property
    def url(self):
        return self.process.url

    @property
    def raw(self):
        return self._collector.raw

    def create(self, model="text", *, headers=None, **body):
        return httpx2.post(
            f"{self.url}/responses", json={"model": model, "input": "Hi", **body}, headers=headers, **PLAIN
        )

    def spans(self, *kinds):
        """The first spans of these kinds, as soon as all have come."""

        def found(spans):
            of_kind = {kind: [span for span in spans if span.kind == kind] for kind in kinds}
            return [of_kind[kind].pop(0) if of_kind[kind] else None for kind in kinds]

        return found(self._collector.wait(lambda spans: None not in found(spans)))


@contextmanager
def traced(tmp_path, monkeypatch, *flags):
    upstream, collector = ChatServer(), Collector()
    with serve(upstream) as base, serve(collector, lifespan="off") as collecting:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collecting)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        process = Process(base, tmp_path, "--poll-seconds", "0.1", "--lease-renew-seconds", "0.1", *flags)
        try:
            yield Traced(process, upstream, collector)
        finally:
            process.close()


@pytest.fixture
def server(tmp_path, monkeypatch):
    with traced(tmp_path, monkeypatch) as server:
        yield server


def test_a_call_its_response_and_its_turn_are_one_trace(server):
    made = server.create(max_output_tokens=50, headers={"traceparent": CALLER, "x-request-id": "req_mine"}).json()
    call, work, turn = server.spans("SERVER", "INTERNAL", "CLIENT")

    assert {each.trace_id for each in (call, work, turn)} == {"0af7651916cd43dd8448eb211c80319c"}
    assert (call.parent_id, work.parent_id, turn.parent_id) == ("b7ad6b7169203331", call.span_id, work.span_id)
    assert {each.service for each in (call, work, turn)} == {"antiphon"}
    assert [each.failed for each in (call, work, turn)] == [False] * 3
    assert (call.name, work.name, turn.name) == ("POST /v1/responses", "response", "chat text")
    host, port = server.url.removeprefix("http://").removesuffix("/v1").split(":")
    assert call.facts == {
        "http.request.method": "POST",
        "http.route": "/v1/responses",
        "http.response.status_code": 200,
        "url.path": "/v1/responses",
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "server.address": host,
        "server.port": int(port),
        "antiphon.operation": "createResponse",
        "antiphon.request_id": "req_mine",
        "gen_ai.response.id": made["id"],
    }
    assert work.facts == {
        "gen_ai.response.id": made["id"],
        "gen_ai.request.model": "text",
        "antiphon.tries": 1,
        "antiphon.background": False,
        "antiphon.request_id": "req_mine",
        "antiphon.status": "completed",
    }
    assert turn.facts.pop("gen_ai.response.time_to_first_chunk") > 0
    assert turn.facts.pop("server.port") > 0
    assert turn.facts == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "text",
        "gen_ai.request.stream": True,
        "gen_ai.request.max_tokens": 50,
        "gen_ai.response.id": made["id"],
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": made["usage"]["input_tokens"],
        "gen_ai.usage.output_tokens": made["usage"]["output_tokens"],
        "gen_ai.usage.cache_read.input_tokens": 0,
        "gen_ai.usage.reasoning.output_tokens": 0,
        "server.address": "127.0.0.1",
    }


def test_the_models_server_is_told_the_trace_and_nothing_else(server):
    server.create(headers={"traceparent": CALLER, "tracestate": "a=1", "baggage": f"word={SECRET}"})
    (turn,) = server.spans("CLIENT")
    asked = server.upstream.requests[-1].headers

    assert asked["traceparent"] == f"00-{turn.trace_id}-{turn.span_id}-01"
    assert asked["tracestate"] == "a=1"
    assert "baggage" not in asked


@pytest.mark.parametrize("traceparent", ["", "nonsense", f"{CALLER}-more", "00-" + "0" * 32 + "-b7ad6b7169203331-01"])
def test_without_a_trace_of_the_callers_a_new_one_begins(server, traceparent):
    server.create(headers={"traceparent": traceparent})
    call, turn = server.spans("SERVER", "CLIENT")

    assert call.parent_id == ""
    assert call.trace_id == turn.trace_id != "0af7651916cd43dd8448eb211c80319c"


def test_who_asks_not_to_be_sampled_is_not(server):
    server.create(headers={"traceparent": CALLER[:-1] + "0"})
    assert server.upstream.requests[-1].headers["traceparent"].endswith("-00")
    server.create()

    assert server.spans("SERVER")[0].parent_id == ""


def test_background_work_is_a_trace_of_its_own_found_by_the_responses_id(server):
    made = server.create(background=True, headers={"traceparent": CALLER}).json()
    call, work, turn = server.spans("SERVER", "INTERNAL", "CLIENT")

    assert (work.parent_id, turn.trace_id) == ("", work.trace_id)
    assert call.trace_id != work.trace_id
    assert {each.facts["gen_ai.response.id"] for each in (call, work, turn)} == {made["id"]}
    assert work.facts["antiphon.background"] is True


def test_a_worker_that_takes_over_can_be_found_by_the_responses_id(tmp_path, monkeypatch):
    with traced(tmp_path, monkeypatch) as server:
        made = server.create("gate:1:1", background=True).json()
        server.upstream.wait_request()
        server.process.kill()
        with serve(server.upstream) as base:
            server.process = Process(base, tmp_path)
            server.upstream.wait_request(2).release()
            (work,) = server.spans("INTERNAL")  # the first worker died with its own
            server.process.close()

    assert (work.facts["gen_ai.response.id"], work.facts["antiphon.status"]) == (made["id"], "completed")
    assert work.facts["antiphon.tries"] == 2


def test_what_failed_is_told_by_its_kind(server):
    answer = server.create("error:429")
    call, work, turn = server.spans("SERVER", "INTERNAL", "CLIENT")

    assert (work.failed, turn.failed, turn.facts["error.type"]) == (True, True, "429")
    assert work.facts["antiphon.status"] == "failed"
    assert (answer.status_code, call.failed) == (429, False)  # the caller's affair


def test_a_fault_of_ours_fails_the_call(server):
    assert server.create("error:500").status_code == 500
    (call,) = server.spans("SERVER")

    assert (call.failed, call.facts["error.type"]) == (True, "500")


def test_the_turns_of_a_conversation_name_it(server):
    conversation = httpx2.post(f"{server.url}/conversations", json={}, **PLAIN).json()["id"]
    server.create(conversation=conversation)
    work, turn = server.spans("INTERNAL", "CLIENT")

    assert work.facts["gen_ai.conversation.id"] == turn.facts["gen_ai.conversation.id"] == conversation


def test_nothing_that_anybody_said_is_told(server):
    server.create(
        input=SECRET, instructions=SECRET, metadata={"note": SECRET}, user=SECRET,
        tools=[{"type": "function", "name": SECRET, "parameters": {}}],
    )  # fmt: skip
    server.create("error:500", input=SECRET)
    server.create("break:3", input=SECRET)
    httpx2.get(f"{server.url}/responses?metadata={SECRET}", headers={"x-some": SECRET}, **PLAIN)
    server.spans(*["SERVER"] * 4, *["INTERNAL"] * 3)

    assert SECRET.encode() not in server.raw


def test_probes_are_no_news_and_a_path_that_is_not_served_has_no_route(server):
    for path in ("/healthz", "/readyz", "/metrics", "/nothing"):
        httpx2.get(server.url.removesuffix("/v1") + path, **PLAIN)
    (call,) = server.spans("SERVER")

    assert (call.name, call.facts["url.path"]) == ("GET", "/nothing")
    assert "http.route" not in call.facts


async def test_a_connection_of_a_socket_is_a_call_and_its_responses_are_in_it(server):
    url = server.url.replace("http", "ws", 1) + "/responses"
    async with websockets.connect(url, proxy=None, additional_headers={"traceparent": CALLER}) as socket:
        for _ in range(2):
            await socket.send(json.dumps({"type": "response.create", "model": "text", "input": "Hi"}))
            async for message in socket:
                if json.loads(message)["type"] == "response.completed":
                    break
    call, first, second = server.spans("SERVER", "INTERNAL", "INTERNAL")

    assert call.parent_id == "b7ad6b7169203331"
    assert (first.parent_id, second.parent_id) == (call.span_id, call.span_id)


def test_lines_of_the_log_name_the_trace(tmp_path, monkeypatch):
    with traced(tmp_path, monkeypatch, "--log-level", "info", "--log-format", "json") as server:
        server.create(headers={"traceparent": CALLER})
        server.create(background=True)
        works = server.spans("INTERNAL", "INTERNAL")
        server.process.stop()
        assert server.process.stopped(seconds=SECONDS_MAX) == 0
        lines = [json.loads(line) for line in server.process._said if line.startswith("{")]

    told = [(line["event"], line["trace_id"]) for line in lines]
    assert told[:2] == [("response begun", CALLER[3:35]), ("response ended", CALLER[3:35])]
    assert [id for event, id in told if event == "response begun"] == [work.trace_id for work in works]


def test_what_is_not_sent_yet_is_sent_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    upstream, collector = ChatServer(), Collector()
    with serve(upstream) as base, serve(collector, lifespan="off") as collecting:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{collecting}/v1/traces")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
        process = Process(base, tmp_path)
        httpx2.get(f"{process.url}/models", **PLAIN)
        process.stop()
        assert process.stopped(seconds=SECONDS_MAX) == 0

    assert [(span.name, span.service) for span in collector.spans] == [("GET /v1/models", "mine")]


@pytest.mark.parametrize("name", ["OTEL_SDK_DISABLED=true", "OTEL_TRACES_EXPORTER=none", "NOTHING=0"])
def test_who_names_no_collector_or_wants_none_pays_nothing(name):
    """Not even for the import."""
    wanted = {} if name == "NOTHING=0" else {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    code = (
        "import sys\n"
        "from antiphon.cli.serve import _trace\n"
        "from antiphon.node import _traces\n"
        f"_trace({wanted | dict([name.split('=')])})\n"
        "assert _traces() is None\n"
        "assert 'opentelemetry' not in sys.modules\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=SECONDS_MAX, check=False).returncode == 0


def test_who_has_not_the_packages_is_told():
    code = (
        "import sys\n"
        "sys.modules['opentelemetry'] = None\n"
        "from antiphon.cli.serve import _trace\n"
        "_trace({'OTEL_EXPORTER_OTLP_ENDPOINT': 'http://127.0.0.1:9'})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], timeout=SECONDS_MAX, check=False, capture_output=True, text=True
    )

    assert done.returncode == 0
    assert "pip install 'antiphon[otel]'" in done.stderr


def test_a_program_with_a_provider_of_its_own_gets_the_spans():
    code = """
import asyncio
import httpx2
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from antiphon.node import node
from antiphon.settings import Settings

kept, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(kept))
trace.set_tracer_provider(provider)

async def main():
    async with node(Settings(database="sqlite://", upstream="http://127.0.0.1:9/v1")) as running:
        transport = httpx2.ASGITransport(app=running.app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
            await http.post("/v1/responses", json={"model": "some", "input": "Hi"})
        await running.worker.stop(seconds=0)

asyncio.run(main())
print(*sorted(span.name for span in kept.get_finished_spans()), sep=", ")
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=60, check=True, capture_output=True, text=True)

    assert done.stdout == "POST /v1/responses, chat some, response\n"

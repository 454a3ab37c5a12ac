"""Collector: what OpenTelemetry's exporter sends its spans to, as a real server of OTLP over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1 import trace_pb2

from tests.servers.chat import SECONDS_MAX


@dataclass(frozen=True)
class Seen:
    """A span as it came."""

    name: str
    kind: str  # "SERVER", "INTERNAL", "CLIENT"
    trace_id: str
    span_id: str
    parent_id: str  # "" for the first of its trace here
    facts: dict[str, Any]
    failed: bool
    service: str


class Collector:
    def __init__(self) -> None:
        self.spans: list[Seen] = []
        self.raw = b""  # all that was ever sent
        self._came = threading.Condition()

    def wait(self, enough: Callable[[list[Seen]], Any]) -> list[Seen]:
        """The spans that have come, as soon as they are enough."""
        with self._came:
            assert self._came.wait_for(lambda: enough(self.spans), SECONDS_MAX), self.spans
            return list(self.spans)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        assert (scope["method"], scope["path"]) == ("POST", "/v1/traces")
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})
        with self._came:
            self.raw += body
            self.spans += _spans(ExportTraceServiceRequest.FromString(body))
            self._came.notify_all()


def _spans(request: ExportTraceServiceRequest) -> list[Seen]:
    found: list[Seen] = []
    for each in request.resource_spans:
        service = _facts(each.resource.attributes)["service.name"]
        found += [_span(span, service) for scope in each.scope_spans for span in scope.spans]
    return found


def _span(span: trace_pb2.Span, service: str) -> Seen:
    return Seen(
        span.name,
        trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        _facts(span.attributes),
        span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        service,
    )


def _facts(attributes: Any) -> dict[str, Any]:
    return {each.key: _value(each.value) for each in attributes}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, str(kind))

"""Traces, by OpenTelemetry: how long a call took, the work on its response, each turn of the model, and what failed.

Spans are named as its conventions for HTTP and for generative AI have it; none tells what anybody said. A trace goes on
from the caller's `traceparent`, and with one to the model's server. What is observed is wrapped from outside, so nobody
but the node knows of it, and a process that nobody traces does not import this file.
Source: https://opentelemetry.io/docs/specs/semconv/http/http-spans/ and .../gen-ai/gen-ai-spans/
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from importlib.metadata import version
from typing import Any, cast
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.context import Context, attach
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from antiphon.engine.model import PASSED_ON, Delta, Finish, Model, Usage
from antiphon.errors import ModelError
from antiphon.log import Entry
from antiphon.logs import REQUEST_ID, TRACE_ID
from antiphon.server.access import KEYLESS
from antiphon.store.base import Claim
from antiphon.watch import Watch

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"})
_ASKED = {"temperature": "temperature", "top_p": "top_p", "max_output_tokens": "max_tokens"}

# Of the caller's headers these two alone: `baggage` may hold anything, and would go to the model's server.
_w3c = TraceContextTextMapPropagator()

_work: ContextVar[Span] = ContextVar("antiphon_work_span", default=trace.INVALID_SPAN)
_response_id: ContextVar[str | None] = ContextVar("antiphon_response_id", default=None)
_turn: ContextVar[Span] = ContextVar("antiphon_turn_span", default=trace.INVALID_SPAN)


def set_up() -> None:
    """Send traces to where the standard `OTEL_*` variables say. By the command line alone, as it is with logging."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    ours = {"service.name": "antiphon", "service.version": version("antiphon")}
    resource = Resource.create({**ours, **OTELResourceDetector().detect().attributes})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def in_use() -> Traces | None:
    """The traces of this process, if anybody has set up where they go."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
        return None
    return Traces(provider.get_tracer("antiphon", version("antiphon")))


class Traces:
    """Observers of what a node is put together from."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    def app(self, app: ASGIApp, *, routes: Mapping[str, str]) -> ASGIApp:
        """The app, with a span for each call. routes: the path of each operation, by its id."""
        return _Calls(app, self._tracer, routes)

    def watch(self, watch: Watch) -> Watch:
        """The watch, with a span for each response that is worked on."""
        return _Works(watch, self._tracer)

    def model(self, model: Model, provider: str) -> Model:
        """The model, with a span for each turn. provider: whose, or in whose form it is asked."""
        return cast("Model", _Turns(model, self._tracer, provider))

    def server(self, model: Model, url: str) -> Model:
        """A model's server, which says to the span of a turn that it is the one asked."""
        return cast("Model", _Server(model, url))


class _Calls:
    """Calls of HTTP, and connections of WebSockets; not the probes, which come every few seconds."""

    def __init__(self, app: ASGIApp, tracer: trace.Tracer, routes: Mapping[str, str]) -> None:
        self._app = app
        self._tracer = tracer
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in KEYLESS:
            await self._app(scope, receive, send)
            return
        span = self._begun(scope)
        status = 0

        async def seen(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, seen)
        except Exception as error:
            _fail(span, type(error).__qualname__)
            raise
        finally:
            self._end(span, scope, status)

    def _begun(self, scope: Scope) -> Span:
        carried = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        method = scope.get("method", "GET")  # a WebSocket begins with one
        known = method if method in _METHODS else "_OTHER"
        host, port = scope.get("server") or (None, None)
        span = self._tracer.start_span(
            method if method in _METHODS else "HTTP",
            context=_w3c.extract(carried, Context()),
            kind=SpanKind.SERVER,
            attributes=_without_none(
                {
                    "http.request.method": known,
                    "url.path": scope["path"],  # not its query: that may search for what callers have written
                    "url.scheme": scope["scheme"],
                    "network.protocol.version": scope.get("http_version"),
                    "server.address": host,
                    "server.port": port,
                }
            ),
        )
        _enter(span)
        return span

    def _end(self, span: Span, scope: Scope, status: int) -> None:
        if request_id := REQUEST_ID.get():
            span.set_attribute("antiphon.request_id", request_id)
        exchange = scope.get("antiphon")
        if exchange is not None and exchange.operation in self._routes:
            route = self._routes[exchange.operation]
            span.update_name(f"{scope['method']} {route}")
            span.set_attributes({"http.route": route, "antiphon.operation": exchange.operation})
            if exchange.response_id:
                span.set_attribute("gen_ai.response.id", exchange.response_id)
        if status:
            span.set_attribute("http.response.status_code", status)
        if status >= 500:
            _fail(span, str(status))
        span.end()


class _Works:
    """Responses that are worked on. Each has a task of its own, whose context has the span from `begun` on."""

    def __init__(self, watch: Watch, tracer: trace.Tracer) -> None:
        self._watch = watch
        self._tracer = tracer
        self.appended = watch.appended

    def begun(self, claim: Claim) -> None:
        self._watch.begun(claim)
        facts = {
            "gen_ai.response.id": claim.response_id,  # what ties the traces of all nodes that have worked on it
            "antiphon.tries": claim.tries,
            "antiphon.background": claim.background,
            "antiphon.request_id": REQUEST_ID.get(),
        }
        span = self._tracer.start_span("response", attributes=_without_none(facts))
        _work.set(span)
        _response_id.set(claim.response_id)
        _enter(span)

    def ended(self, status: str, last: Sequence[Entry]) -> None:
        self._watch.ended(status, last)
        span = _work.get()
        span.set_attribute("antiphon.status", status)
        said = [entry["response"] for entry in last if isinstance(entry, dict) and "response" in entry]
        if said:
            conversation = said[-1].get("conversation") or {}
            facts = {"gen_ai.request.model": said[-1]["model"], "gen_ai.conversation.id": conversation.get("id")}
            span.set_attributes(_without_none(facts))
        if status == "failed":
            _fail(span, str(((said[-1].get("error") if said else None) or {}).get("code") or "server_error"))
        span.end()


class _Turns:
    """Turns of a model, each with all that its servers are asked for it; the rest of a Model is as it was."""

    def __init__(self, model: Model, tracer: trace.Tracer, provider: str) -> None:
        self._model = model
        self._tracer = tracer
        self._provider = provider

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    async def turn(
        self, request: Mapping[str, Any], context: Sequence[Mapping[str, Any]]
    ) -> AsyncGenerator[list[Delta]]:
        span = self._begun(request)
        began, first = time.monotonic(), 0.0
        usage: Usage | None = None
        finish: Finish | None = None
        _turn.set(span)
        passed_on: dict[str, str] = {}
        _w3c.inject(passed_on, trace.set_span_in_context(span))
        PASSED_ON.set(passed_on)
        try:
            async with aclosing(self._model.turn(request, context)) as said:
                async for deltas in said:
                    first = first or time.monotonic()
                    for delta in deltas:
                        if type(delta) is Usage:
                            usage = delta
                        elif type(delta) is Finish:
                            finish = delta
                    yield deltas
        except ModelError as failure:
            _fail(span, str(failure.status))
            raise
        finally:
            PASSED_ON.set(None)
            _turn.set(trace.INVALID_SPAN)
            if first:
                span.set_attribute("gen_ai.response.time_to_first_chunk", first - began)
            if finish is not None:
                span.set_attribute("gen_ai.response.finish_reasons", [finish.reason])
            if usage is not None:
                span.set_attributes(_tokens(usage))
            span.end()

    def _begun(self, request: Mapping[str, Any]) -> Span:
        conversation = request.get("conversation")
        facts = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": self._provider,
            "gen_ai.request.model": request["model"],
            "gen_ai.request.stream": True,
            "gen_ai.response.id": _response_id.get(),  # as callers know it; what its server calls it is nowhere kept
            "gen_ai.conversation.id": conversation["id"] if isinstance(conversation, Mapping) else conversation,
            **{f"gen_ai.request.{name}": request.get(field) for field, name in _ASKED.items()},
        }
        return self._tracer.start_span(
            f"chat {request['model']}", kind=SpanKind.CLIENT, attributes=_without_none(facts)
        )


class _Server:
    def __init__(self, model: Model, url: str) -> None:
        self._model = model
        parts = urlsplit(url)
        default = {"http": 80, "https": 443}.get(parts.scheme)
        self._place = _without_none({"server.address": parts.hostname, "server.port": parts.port or default})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def turn(self, request: Mapping[str, Any], context: Sequence[Mapping[str, Any]]) -> AsyncGenerator[list[Delta]]:
        _turn.get().set_attributes(self._place)
        return self._model.turn(request, context)


def _enter(span: Span) -> None:
    """Let what this task does from now on belong to a span, its lines of the log too."""
    attach(trace.set_span_in_context(span))
    TRACE_ID.set(trace.format_trace_id(span.get_span_context().trace_id))


def _fail(span: Span, type: str) -> None:
    """Mark what went wrong, by its kind: a message may tell what somebody said."""
    span.set_attribute("error.type", type)
    span.set_status(StatusCode.ERROR)


def _tokens(usage: Usage) -> dict[str, int]:
    return {
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
    }


def _without_none(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value is not None}

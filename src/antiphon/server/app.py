"""create_app(): the ASGI application. Routes come from the document, by operationId; so do the checks of each call.

Every answer carries `x-request-id`; every failure is an answer in the documented form, unknown routes included.
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from antiphon.budget import Hold
from antiphon.errors import ModelError
from antiphon.logs import REQUEST_ID
from antiphon.server import contexts, conversations, listing, models, prompts, responses, support_page
from antiphon.server.access import KEYLESS
from antiphon.server.call import Api, Call, Operation, json_answer
from antiphon.server.failures import told
from antiphon.server.limits import RATE_HEADERS
from antiphon.server.metrics import CONTENT_TYPE, Metrics
from antiphon.server.readiness import Readyz
from antiphon.server.request import read_call
from antiphon.server.routing import Endpoint, Routes
from antiphon.server.socket import serve_socket

BASE_PATH = "/v1"
OPERATIONS: Mapping[str, Operation] = {
    **responses.OPERATIONS,
    **contexts.OPERATIONS,
    **listing.OPERATIONS,
    **conversations.OPERATIONS,
    **prompts.OPERATIONS,
    **models.OPERATIONS,
    **support_page.OPERATIONS,
}
"""What is served, by operationId."""

BEGINS_RESPONSE = frozenset({"createResponse", "Compactconversation"})
"""What asks a model, and counts against the limits of requests and tokens."""

_NAMES = (b"x-request-id", b"x-client-request-id")
_SANE_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_SECURITY = [(b"x-content-type-options", b"nosniff"), (b"content-security-policy", b"default-src 'none'")]
_EXPOSED = ("x-request-id", "retry-after", "antiphon-unavailable-tools", *RATE_HEADERS)


def create_app(api: Api, *, cors_origins: Sequence[str] = (), hsts: bool = False) -> ASGIApp:
    """The application that serves an Api.

    cors_origins: the sites whose pages may call; hsts: tell browsers to come by TLS alone.
    """
    routes = Routes()
    for operation_id in OPERATIONS:
        operation = api.document.operation(operation_id)
        # A parameter at the end takes the rest: model names may hold slashes.
        rest = operation_id == "retrieveModel"
        routes.add(operation.method, BASE_PATH + operation.path, _endpoint(api, operation_id), rest=rest)
    routes.add("GET", "/openapi.json", _openapi(api))
    probes: dict[str, Callable[[Api], Awaitable[Response]]] = {
        "/healthz": _healthz,
        "/readyz": Readyz(),
        "/metrics": _metrics,
    }
    for path in KEYLESS:
        routes.add("GET", path, _keyless(api, probes[path]))
    app: ASGIApp = App(api, routes)
    if cors_origins:
        app = CORSMiddleware(
            app, allow_origins=cors_origins, allow_methods=["*"], allow_headers=["*"], expose_headers=_EXPOSED
        )
    return Exchange(app, api.metrics, hsts=hsts)  # outside of everything, so that a failure's answer is named too


class App:
    """Hands a call to whom it is for, and turns whatever goes wrong into an answer of the documented form.

    Starlette's own layers for this cost a quarter of the time that a GET takes, and some at each event of a stream.
    """

    def __init__(self, api: Api, routes: Routes) -> None:
        self._api = api
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._converse(WebSocket(scope, receive, send))
            return
        try:
            endpoint, scope["path_params"] = self._routes.find(scope["method"], scope["path"])
            answer = await endpoint(Request(scope, receive))
            await answer(scope, receive, send)
        except Exception as error:
            if scope["antiphon"].begun:
                raise  # the server breaks the connection off: there is no other way to say it now
            await _failure(error)(scope, receive, send)
        finally:
            if scope["antiphon"].hold is not None:
                scope["antiphon"].hold.close()

    async def _converse(self, socket: WebSocket) -> None:
        if socket.url.path == BASE_PATH + "/responses":
            await serve_socket(self._api, socket)
        else:
            await socket.close()


def _failure(error: Exception) -> Response:
    """The answer to a call that failed."""
    if isinstance(error, ModelError):
        wire = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
        return json_answer({"error": wire}, status=error.status, headers=error.headers)
    failure = told(error)
    return json_answer(failure.wire(), status=failure.status, headers=failure.headers)


def _endpoint(api: Api, operation_id: str) -> Endpoint:
    operation = api.document.operation(operation_id)
    act = OPERATIONS[operation_id]

    async def endpoint(request: Request) -> ASGIApp:
        exchange: Exchanged = request.scope["antiphon"]
        exchange.operation = operation_id
        exchange.hold = api.limiter.budget.hold()
        call = await read_call(api, operation, request, exchange.hold)
        if operation_id not in BEGINS_RESPONSE:
            return _Held(api, call, act) if call.parameters.get("stream") else await act(api, call)
        begin = partial(_admitted, act, exchange)
        waits = call.body.get("stream") or not call.body.get("background")
        return _Held(api, call, begin) if waits else await begin(api, call)

    return endpoint


async def _admitted(act: Operation, exchange: Exchanged, api: Api, call: Call) -> ASGIApp:
    """What a call answers that begins a response, within the limits of its key."""
    if call.body.get("background"):
        api.limiter.check_queue(call.caller, await api.log.store.count_background(call.tenant))
    admission = api.limiter.admit(call.caller, call.body, size=call.body_bytes)
    exchange.headers += [(name.encode(), value.encode()) for name, value in admission.headers.items()]

    def began(response_id: str) -> None:
        exchange.response_id = response_id
        admission.began(response_id)

    return await act(api, replace(call, admission=replace(admission, began=began, hold=exchange.hold)))


def _openapi(api: Api) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        await api.access.caller(request.headers)
        server_url = str(request.base_url).rstrip("/") + BASE_PATH
        return json_answer(api.document.subset(OPERATIONS, server_url=server_url))

    return endpoint


def _keyless(api: Api, probe: Callable[[Api], Awaitable[Response]]) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        await api.access.check_keyless(request)
        return await probe(api)

    return endpoint


async def _healthz(api: Api) -> Response:
    return json_answer({"status": "ok"})


async def _metrics(api: Api) -> Response:
    return Response(api.metrics.page(await api.gauges()), media_type=CONTENT_TYPE)


class _Held:
    """The answer of a call that holds on to its connection: it counts as a stream from its first check to its end."""

    def __init__(self, api: Api, call: Call, act: Operation) -> None:
        self._api = api
        self._call = call
        self._act = act

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._api.limiter.stream(self._call.caller):
            answer = await self._act(self._api, self._call)
            await answer(scope, receive, send)


class Exchanged:
    """What becomes known of a call while it is served; in its scope under `antiphon`."""

    __slots__ = ("begun", "headers", "hold", "operation", "response_id")

    def __init__(self, headers: list[tuple[bytes, bytes]]) -> None:
        self.headers = headers  # that its answer is to have
        self.operation = ""
        self.response_id = ""  # of the response that it has begun
        self.begun = False  # the head of its answer is out
        self.hold: Hold | None = None  # of its body


class Exchange:
    """Gives every answer an `x-request-id`: the caller's own where it is sane, else a new one; and counts it.

    An `x-client-request-id` is given back as it came.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, *, hsts: bool) -> None:
        self._app = app
        self._requests = metrics.requests
        self._always = [*_SECURITY, *([(b"strict-transport-security", b"max-age=31536000")] if hsts else [])]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        names = _names(scope)
        REQUEST_ID.set(names[b"x-request-id"].decode())
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        exchanged = scope["antiphon"] = Exchanged([*names.items(), *self._always])

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *exchanged.headers]}
                exchanged.begun = True
                self._requests[exchanged.operation, message["status"]] += 1
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _names(scope: Scope) -> dict[bytes, bytes]:
    """The headers that name a request: our own id, and the caller's `x-client-request-id`."""
    given = {name: value for name, value in scope["headers"] if name in _NAMES and _SANE_REQUEST_ID.fullmatch(value)}
    given.setdefault(b"x-request-id", b"req_" + os.urandom(16).hex().encode())
    return given

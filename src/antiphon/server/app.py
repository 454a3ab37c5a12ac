"""create_app(): the ASGI application. Routes come from the document, by operationId; so do the checks of each call.

Every answer carries `x-request-id`; every failure is an answer in the documented form, unknown routes included.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from antiphon.errors import ApiError, MethodNotAllowed, ModelError, NotFound, ServerError
from antiphon.server import contexts, conversations, listing, models, prompts, responses, support_page
from antiphon.server.access import tenant_of
from antiphon.server.call import Api, Operation, json_answer
from antiphon.server.request import read_call
from antiphon.server.socket import serve_socket

logger = logging.getLogger(__name__)

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

_PARAMETER = re.compile(r"\{(\w+)\}$")
_NAMES = (b"x-request-id", b"x-client-request-id")
_SANE_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")

Lifespan = Callable[[Any], AbstractAsyncContextManager[None]]


def create_app(api: Api, *, lifespan: Lifespan | None = None) -> ASGIApp:
    """The application that serves an Api. lifespan: what runs while it serves, as Starlette wants it."""
    routes: list[BaseRoute] = [_route(api, operation_id) for operation_id in OPERATIONS]
    routes += [
        WebSocketRoute(BASE_PATH + "/responses", _socket(api)),
        Route("/openapi.json", _openapi(api), methods=["GET"]),
        Route("/healthz", _healthz, methods=["GET"]),
        Route("/readyz", _readyz(api), methods=["GET"]),
    ]
    handlers: dict[Any, Any] = {
        ApiError: _api_error,
        ModelError: _model_error,
        HTTPException: _http_error,
        Exception: _unexpected,
    }
    app = Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan)
    app.router.redirect_slashes = False
    return RequestId(app)  # outside of everything, so that a failure's answer has it too


def _route(api: Api, operation_id: str) -> Route:
    operation = api.document.operation(operation_id)
    act = OPERATIONS[operation_id]

    async def endpoint(request: Request) -> ASGIApp:
        return await act(api, await read_call(api, operation, request))

    # A parameter at the end takes the rest: model names may hold slashes.
    path = BASE_PATH + (
        _PARAMETER.sub(r"{\1:path}", operation.path) if operation_id == "retrieveModel" else operation.path
    )
    return Route(path, endpoint, methods=[operation.method], name=operation_id)


def _socket(api: Api) -> Callable[[WebSocket], Any]:
    async def endpoint(socket: WebSocket) -> None:
        await serve_socket(api, socket)

    return endpoint


def _openapi(api: Api) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        tenant_of(request.headers, keys=api.keys, loopback_only=api.loopback_only)
        server_url = str(request.base_url).rstrip("/") + BASE_PATH
        return json_answer(api.document.subset(OPERATIONS, server_url=server_url))

    return endpoint


async def _healthz(request: Request) -> Response:
    return json_answer({"status": "ok"})


def _readyz(api: Api) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        missing = await api.readiness()
        return json_answer({"status": missing or "ready"}, status=503 if missing else 200)

    return endpoint


async def _api_error(request: Request, error: ApiError) -> Response:
    answer = json_answer(error.wire(), status=error.status)
    for name, value in error.headers.items():
        answer.headers[name] = value
    return answer


async def _model_error(request: Request, error: ModelError) -> Response:
    wire = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    return json_answer({"error": wire}, status=error.status, headers=error.headers)


async def _http_error(request: Request, error: HTTPException) -> Response:
    where = f"{request.method} {request.url.path}"
    if error.status_code == 404:
        return await _api_error(request, NotFound(f"Invalid URL ({where})"))
    if error.status_code == 405:
        message = f"Not allowed to {request.method} on {request.url.path}."
        return await _api_error(request, MethodNotAllowed(message, headers={"allow": ", ".join(_methods(request))}))
    return await _api_error(request, ApiError(error.detail, status=error.status_code))


def _methods(request: Request) -> list[str]:
    """What may be done with the path; each method has a route of its own, and Starlette knows only the first."""
    routes = [route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for route in routes for method in route.methods})


async def _unexpected(request: Request, error: Exception) -> Response:
    return await _api_error(
        request, ServerError("The server had an error while processing your request. Sorry about that!")
    )


class RequestId:
    """Gives every answer an `x-request-id`: the caller's own where it is sane, else a new one.

    An `x-client-request-id` is given back as it came.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        named = _names(scope)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *named]}
            await send(message)

        await self._app(scope, receive, send_with_id)


def _names(scope: Scope) -> list[tuple[bytes, bytes]]:
    """The headers that name a request: our own id, and the caller's `x-client-request-id`."""
    given = {name: value for name, value in scope["headers"] if name in _NAMES and _SANE_REQUEST_ID.fullmatch(value)}
    given.setdefault(b"x-request-id", b"req_" + os.urandom(16).hex().encode())
    return list(given.items())

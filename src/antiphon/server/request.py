"""A request as HTTP carries it, made into a Call: parameters converted, body read, both checked by the document.

Whatever is wrong with it is one of the documented errors, with the place named.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import ClientDisconnect, Request

from antiphon.errors import BadRequest, TooLarge, UnsupportedMedia
from antiphon.server.access import tenant_of
from antiphon.server.call import Api, Call, Limits
from antiphon.spec.document import Operation, Parameter

# Possessive throughout: a string of 20 MB, or one that never ends, must not make it look back.
_STRUCTURE = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[{]|[\]}]', re.DOTALL)
_INTEGER = re.compile(r"-?[0-9]{1,18}")  # what every database takes

# Below these fields, clients that people use send more than the document says, and its meaning is plain.
_LENIENT = ("input",)


async def read_call(api: Api, operation: Operation, request: Request) -> Call:
    """The Call that a request stands for. Raises the ApiError that answers it if it is not one."""
    tenant = tenant_of(request.headers, keys=api.keys, loopback_only=api.loopback_only)
    parameters = _parameters(operation, request)
    return Call(tenant, parameters, await _body(api.limits, operation, request) if operation.body else None)


def _parameters(operation: Operation, request: Request) -> dict[str, Any]:
    query = parse_qsl(request.scope["query_string"].decode("utf-8", "replace"), keep_blank_values=True)
    found: dict[str, Any] = {}
    for parameter in operation.parameters:
        if parameter.location == "path":
            texts = [request.path_params[parameter.name]]
        elif parameter.location == "query":
            texts = [value for name, value in query if name.removesuffix("[]") == parameter.name]
        else:
            continue
        if texts:
            found[parameter.name] = _converted(parameter, texts)
        elif parameter.required:
            raise BadRequest(
                f"Missing required parameter: '{parameter.name}'.",
                code="missing_required_parameter",
                param=parameter.name,
            )
    return found


def _converted(parameter: Parameter, texts: list[str]) -> Any:
    type = parameter.schema.raw.get("type")
    if type == "array":
        value: Any = [part for text in texts for part in text.split(",")]
    elif type == "boolean":
        value = {"true": True, "false": False}.get(texts[-1], texts[-1])
    elif type == "integer" and _INTEGER.fullmatch(texts[-1]):
        value = int(texts[-1])
    else:
        value = texts[-1]
    for problem in parameter.schema.problems(value, at=parameter.name):
        raise BadRequest(problem.message, code=problem.code, param=problem.param)
    return value


async def _body(limits: Limits, operation: Operation, request: Request) -> Any:
    assert operation.body is not None
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    raw = await _read(request, limits.max_body_bytes)
    if not raw and not operation.body.required:
        return None
    if media != "application/json":
        raise UnsupportedMedia(
            f"Unsupported content type: '{media}'. This API method only accepts 'application/json' requests."
        )
    value = decode_json(raw, max_depth=limits.max_json_depth)
    schema = operation.body.media["application/json"].strict(lenient=_LENIENT)
    for problem in schema.problems(value):
        raise BadRequest(problem.message, code=problem.code, param=problem.param)
    return value


async def _read(request: Request, max_bytes: int) -> bytes:
    announced = request.headers.get("content-length", "0")
    chunks, size = [], int(announced) if announced.isdecimal() else 0
    if size <= max_bytes:
        size = 0
        try:
            async for chunk in request.stream():
                size += len(chunk)
                if size > max_bytes:
                    break
                chunks.append(chunk)
        except ClientDisconnect as gone:
            raise BadRequest("The request ended before its body did.") from gone
    if size > max_bytes:
        # The connection stays: who closes it on a caller that still sends takes the answer away from him, too.
        raise TooLarge(f"The request body is larger than {max_bytes} bytes.")
    return b"".join(chunks)


def decode_json(raw: bytes, *, max_depth: int) -> Any:
    """The value of a JSON text. Raises BadRequest if it is none, or nests deeper than `max_depth`."""
    if raw.count(b"[") + raw.count(b"{") > max_depth and _depth(raw) > max_depth:
        raise BadRequest(f"The request body nests deeper than {max_depth} levels.")
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"We could not parse the JSON body of your request: {error}.") from error


def _depth(raw: bytes) -> int:
    """How deep a JSON text nests; brackets inside of strings do not count."""
    depth = deepest = 0
    for match in _STRUCTURE.finditer(raw):
        mark = raw[match.start()]
        if mark in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif mark in b"]}":
            depth -= 1
    return deepest

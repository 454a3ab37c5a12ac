"""A request as HTTP carries it, made into a Call: parameters converted, body read, both checked by the document.

Whatever is wrong with it is one of the documented errors, with the place named.
"""

from __future__ import annotations

import asyncio
import re
import sys
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import ClientDisconnect, Request

from antiphon.budget import Hold
from antiphon.errors import ApiError, BadRequest, TooLarge, UnsupportedMedia
from antiphon.server.call import Api, Call
from antiphon.server.limits import Limits
from antiphon.spec.document import Operation, Parameter

VALUES_MAX = 500_000  # in the JSON of one request: tiny ones take a hundred times the CPU and memory of their text

_VALUE_BYTES = 100  # about, beside its text
_MARKS = b'",[]{}'  # what tells the shape of a JSON text, once its escapes are gone
_ONE_KIND_OF_BRACKET = bytes.maketrans(b"{}", b"[]")
_NO_MARKS = bytes(set(range(256)) - set(_MARKS))

_INTEGER = re.compile(r"-?[0-9]{1,100}")  # how large it may be, the document says

# The names that a query gives the members of an array: `include`, `include[]`, `include[0]`.
_INDEX = re.compile(r"\[[0-9]*\]$")

# Below these fields, clients that people use send more than the document says, and its meaning is plain.
_LENIENT = ("input", "items")


async def read_call(api: Api, operation: Operation, request: Request, hold: Hold) -> Call:
    """The Call that a request stands for. Raises the ApiError that answers it if it is not one.

    hold: told of each piece of the body as it comes.
    """
    caller = await api.access.caller(request.headers)
    parameters = _parameters(operation, request)
    body, size = await _body(api.limits, operation, request, hold) if operation.body else (None, 0)
    return Call(caller, parameters, body, size, request.headers.get("idempotency-key"))


def _parameters(operation: Operation, request: Request) -> dict[str, Any]:
    query = parse_qsl(request.scope["query_string"].decode("utf-8", "replace"), keep_blank_values=True)
    found: dict[str, Any] = {}
    for parameter in operation.parameters:
        given = _given(parameter, request, query)
        if given:
            found[parameter.name] = _converted(parameter, given)
        elif parameter.required:
            raise BadRequest(
                f"Missing required parameter: '{parameter.name}'.",
                code="missing_required_parameter",
                param=parameter.name,
            )
    return found


def _given(parameter: Parameter, request: Request, query: list[tuple[str, str]]) -> dict[str, str] | list[str]:
    """The texts of a parameter; those of an object by key, as in `metadata[key]=text`."""
    name = parameter.name
    if parameter.location == "path":
        return [request.path_params[name]]
    if parameter.location == "header":
        return request.headers.getlist(name)
    if parameter.location != "query":
        return []
    if parameter.style == "deepObject":
        start = f"{name}["
        members = {key[len(start) : -1]: text for key, text in query if key.startswith(start) and key.endswith("]")}
        if members:
            return members
    return [text for key, text in query if _INDEX.sub("", key) == name]


def _converted(parameter: Parameter, given: dict[str, str] | list[str]) -> Any:
    type = parameter.schema.raw.get("type")
    value: Any = given
    if isinstance(given, list):
        value = given[-1]
        if type == "array":
            value = [part for text in given for part in text.split(",")]
        elif type == "boolean":
            value = {"true": True, "false": False}.get(value, value)
        elif type == "integer" and _INTEGER.fullmatch(value):
            value = int(value)
    if any("\0" in text for text in (*given, *(given.values() if isinstance(given, dict) else ()))):
        # No id and no word of the API has one, and not every database takes it.
        raise BadRequest(
            f"Invalid '{parameter.name}': it holds a NUL character.", code="invalid_value", param=parameter.name
        )
    for problem in parameter.schema.problems(value, at=parameter.name):
        raise BadRequest(problem.message, code=problem.code, param=problem.param)
    return value


async def _body(limits: Limits, operation: Operation, request: Request, hold: Hold) -> tuple[Any, int]:
    """The body's value, and how many bytes it was."""
    assert operation.body is not None
    raw = await _read(request, hold, limits.max_body_bytes, limits.request_seconds)
    value: Any = {}  # what a body that may be left out, and is, stands for
    if raw or operation.body.required:
        _check_media(request)
        value = decode_json(raw, max_depth=limits.max_json_depth, hold=hold)
    check_body(operation, value)
    return value, len(raw)


def check_body(operation: Operation, value: Any) -> None:
    """Raise BadRequest for the first thing that is wrong with a body."""
    assert operation.body is not None
    schema = operation.body.media["application/json"].strict(lenient=_LENIENT)
    for problem in schema.problems(value):
        raise BadRequest(problem.message, code=problem.code, param=problem.param)


def _check_media(request: Request) -> None:
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise UnsupportedMedia(
            f"Unsupported content type: '{media}'. This API method only accepts 'application/json' requests."
        )
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity":
        raise UnsupportedMedia(f"Unsupported content encoding: '{coding}'. Send the body as it is.")


async def _read(request: Request, hold: Hold, max_bytes: int, max_seconds: float) -> bytes:
    announced = request.headers.get("content-length", "0")
    chunks, size = [], int(announced) if announced.isdecimal() else 0
    if size <= max_bytes:
        size = 0
        try:
            async with asyncio.timeout(max_seconds):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > max_bytes:
                        break
                    hold.add(len(chunk))
                    chunks.append(chunk)
        except ClientDisconnect as gone:
            raise BadRequest("The request ended before its body did.") from gone
        except TimeoutError as late:
            message = f"The request body was not here within {max_seconds:g} seconds."
            raise ApiError(message, status=408, headers={"connection": "close"}) from late
    if size > max_bytes:
        # The connection stays: who closes it on a caller that still sends takes the answer away from him, too.
        raise TooLarge(f"The request body is larger than {max_bytes} bytes.")
    return b"".join(chunks)


def decode_json(raw: bytes, *, max_depth: int, hold: Hold | None = None) -> Any:
    """The value of a JSON text, of a key that comes twice the last one.

    hold: told what its values take beside their texts. Raises BadRequest if it is no JSON, nests deeper than
    `max_depth`, or holds more than VALUES_MAX values.
    """
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") > max_depth:
        shape = _shape(raw)
        _check_depth(shape, max_depth)
        if hold is not None:
            hold.add(_VALUE_BYTES * _count(shape))
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"We could not parse the JSON body of your request: {error}.") from error
    if hold is not None and not (raw.isascii() and rb"\u" not in raw):
        hold.add(_wide_bytes(value))
    return value


def _wide_bytes(value: Any) -> int:
    """What texts take that are more than ASCII: each is kept as wide as its widest character, of up to four bytes."""
    if isinstance(value, str):
        return 0 if value.isascii() else sys.getsizeof(value) - len(value)
    if isinstance(value, dict):
        return sum(map(_wide_bytes, value)) + sum(map(_wide_bytes, value.values()))
    return sum(map(_wide_bytes, value)) if isinstance(value, list) else 0


def _shape(raw: bytes) -> bytes:
    """The brackets of a JSON text, all as square ones, and its commas, without those inside of strings.

    Each step goes through the whole text once, in C. Raises BadRequest if there are too many values.
    """
    if b"\\" in raw:
        raw = raw.replace(rb"\\", b"").replace(rb"\"", b"")
    marks = raw.translate(_ONE_KIND_OF_BRACKET, _NO_MARKS).replace(b'""', b"")  # two that meet change nothing between
    few = marks.count(b'"') <= 4 * VALUES_MAX  # a key and a text, for each value
    shape = b"".join(marks.split(b'"')[::2]) if few else b""
    if not few or _count(shape) > VALUES_MAX:
        raise BadRequest(f"The request body holds more than {VALUES_MAX:,} JSON values.")
    return shape


def _count(shape: bytes) -> int:
    """How many values there are at most: an empty list counts as if there were one in it."""
    return 1 + shape.count(b",") + max(shape.count(b"["), shape.count(b"]"))


def _check_depth(shape: bytes, max_depth: int) -> None:
    """Raise BadRequest if that nests deeper. What is no JSON at all, the decoder finds."""
    brackets = shape.translate(None, b",")
    for _ in range(max_depth):  # of each list, what is innermost
        brackets = brackets.replace(b"[]", b"")
    if b"[]" in brackets or brackets.count(b"[") > max_depth:
        raise BadRequest(f"The request body nests deeper than {max_depth} levels.")

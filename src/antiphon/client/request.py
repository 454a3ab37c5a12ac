"""From an operation and flat keyword arguments to the request that is sent, checked against the description.

A keyword is the name of a parameter (in the path, the query, the headers or the cookies) or else a field of the body,
JSON or a form; `body` gives the body, or the part of it that the keywords do not name. Nothing faulty becomes a
request.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from antiphon.client.call import Request, segment
from antiphon.client.forms import pairs, text
from antiphon.errors import InvalidRequest
from antiphon.spec.faults import Problem, missing, unknown
from antiphon.spec.names import keyword, nearest

if TYPE_CHECKING:
    from antiphon.client.body import Encoded
    from antiphon.client.follow import LogAddress
    from antiphon.spec import Operation, Parameter

OWN_KEYWORDS = ("body", "idempotency_key")
NOTHING: Any = object()  # a body that was not given, which is not the same as null

Given = Sequence[tuple["Parameter", Any]]


@dataclass(frozen=True)
class Prepared:
    request: Request
    log: LogAddress | None  # where the stream can be taken up again, if it is the log of a response


def prepare(operation: Operation, arguments: Mapping[str, Any]) -> Prepared:
    """The request that these keyword arguments mean. Raises InvalidRequest with everything that is wrong with them."""
    faults: list[Problem] = []
    values = [(each, _argument(each, arguments)) for each in operation.parameters]
    body = _body(operation, arguments, faults)
    for parameter, value in values:
        faults += _parameter_faults(parameter, value)
    encoded = None
    if body is not NOTHING:
        from antiphon.client.body import encode  # most calls that only ask have none

        encoded = encode(operation, body)
        faults += encoded.problems
    if faults:
        raise InvalidRequest(_report(operation, faults), problems=faults)
    given = [(each, value) for each, value in values if value is not None]
    request = Request(
        method=operation.method,
        path=_path(operation, given),
        query=(*operation.query, *_query(given)),
        headers=_headers(operation, given, arguments, encoded),
        body=encoded.data if encoded else None,
        wants_stream=_wants_stream(given, encoded.value if encoded else None),
        operation=operation.id,
    )
    return Prepared(request, _log(operation, request, given, encoded.value if encoded else None))


def _argument(parameter: Parameter, arguments: Mapping[str, Any]) -> Any:
    """The value of a parameter. None means that it was left out: no parameter can say null."""
    value = arguments.get(parameter.name)
    return arguments.get(keyword(parameter.name)) if value is None else value


def _rest(operation: Operation, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that are no parameters: fields of the body, or nothing that is known."""
    parameters = {spelling for each in operation.parameters for spelling in (each.name, keyword(each.name))}
    return {name: value for name, value in arguments.items() if name not in parameters and name not in OWN_KEYWORDS}


def _body(operation: Operation, arguments: Mapping[str, Any], faults: list[Problem]) -> Any:
    """The body as a value, or NOTHING."""
    body, fields = arguments.get("body", NOTHING), _rest(operation, arguments)
    if operation.body is None:
        known = [keyword(each.name) for each in operation.parameters]
        given = [*fields, *(["body"] if body is not NOTHING else [])]
        faults += [unknown(name, nearest(name, known)) for name in given]
        return NOTHING
    if body is NOTHING:
        return fields if fields or operation.body.required else NOTHING
    if not fields:
        return body
    if not isinstance(body, Mapping):
        faults.append(Problem("A body that is no object cannot have fields beside it.", "invalid_type", "body"))
        return NOTHING
    faults += [
        Problem(f"'{name}' is given twice: as a keyword and in 'body'.", "duplicate_parameter", name)
        for name in sorted(fields.keys() & body.keys())
    ]
    return {**body, **fields}


def _parameter_faults(parameter: Parameter, value: Any) -> list[Problem]:
    name = parameter.name
    if value is None:
        return [missing(name)] if parameter.required else []
    if parameter.location == "path" and value == "":
        return [Problem(f"'{name}' is empty: the path would be another one.", "invalid_value", name)]
    return parameter.schema.problems(value, at=name)


def _report(operation: Operation, faults: Sequence[Problem]) -> str:
    lines = [_with_place(fault) for fault in faults]
    return f"{operation.id}: {lines[0]}" if len(lines) == 1 else "\n  ".join([f"{operation.id}:", *lines])


def _with_place(fault: Problem) -> str:
    """What is wrong, and where: not every message of the API names the place."""
    named = fault.param is None or f"'{fault.param}'" in fault.message
    return fault.message if named else f"{fault.param}: {fault.message}"


def _path(operation: Operation, given: Given) -> str:
    path = "/" + operation.path.removeprefix("/")  # without the slash it would be a part of the host's name
    for parameter, value in given:
        if parameter.location == "path":
            path = path.replace("{" + parameter.name + "}", segment(text(value)))
    return path


def _query(given: Given) -> Iterator[tuple[str, str]]:
    for parameter, value in given:
        if parameter.location == "query":
            yield from ((name, text(leaf)) for name, leaf in pairs(parameter.name, value))


def _headers(
    operation: Operation, given: Given, arguments: Mapping[str, Any], encoded: Encoded | None
) -> dict[str, str]:
    kinds = {kind: None for status, answer in operation.answers.items() if status[0] == "2" for kind in answer.media}
    headers = {"accept": ", ".join(kinds) or "*/*"}
    if encoded:
        headers["content-type"] = encoded.kind
    cookies = [f"{each.name}={text(value)}" for each, value in given if each.location == "cookie"]
    if cookies:
        headers["cookie"] = "; ".join(cookies)
    headers |= {each.name.lower(): text(value) for each, value in given if each.location == "header"}
    if arguments.get("idempotency_key") is not None:
        headers["idempotency-key"] = str(arguments["idempotency_key"])
    return headers


def _wants_stream(given: Given, body: Any) -> bool:
    if any(each.name == "stream" and value is True for each, value in given):
        return True
    return isinstance(body, dict) and (body.get("stream") is True or body.get("stream_format") == "sse")


def _log(operation: Operation, request: Request, given: Given, body: Any) -> LogAddress | None:
    """Where the stream of a Responses operation is taken up again, with what its caller wanted to see."""
    if not request.wants_stream or operation.path not in ("/responses", "/responses/{response_id}"):
        return None
    from antiphon.client.follow import LogAddress

    headers = {
        name: value for name, value in request.headers.items() if name not in ("content-type", "idempotency-key")
    }
    values = {each.name: value for each, value in given}
    seen = values if operation.method == "GET" else body
    obfuscation = seen.get("include_obfuscation", (seen.get("stream_options") or {}).get("include_obfuscation"))
    query = [*operation.query, *pairs("include", seen.get("include") or [])]
    if obfuscation is not None:
        query.append(("include_obfuscation", text(obfuscation)))
    return LogAddress(
        path="/responses",
        query=tuple(query),
        headers=headers,
        response_id=values.get("response_id"),
        after=values.get("starting_after", -1),
    )

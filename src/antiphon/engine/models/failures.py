"""What a failing model server's answer means to our caller.

Servers say what went wrong in many shapes; our caller gets one, with a status that is true for it: a refused key is our
own key, and no fault of the caller. Our key and the server's address never get into a message.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from antiphon.errors import ModelError

_OUR_FAULT = frozenset({401, 402, 403, 407})  # the key, the account or the proxy of this server
_TYPES = frozenset({"insufficient_quota", "tokens", "requests", "rate_limit_error"})  # kept, being known to clients
_CODES = {"exceed_context_size_error": "context_length_exceeded"}  # by llama.cpp's type of the error
# What llama.cpp, vLLM, OpenAI, Ollama, LM Studio and SGLang say of a request that does not fit, each in its words.
_TOO_LONG = re.compile(
    r"maximum context length|maximum model length|exceed\w* (the |max |maximum |available |model's )*context"
    r"|longer than the (model's |maximum )*(context|model) length|context (length|window|size) (was |is )?exceeded"
    r"|greater than the context length|when context the overflows",
    re.IGNORECASE,
)
_TOO_LONG_STATUSES = frozenset({400, 413, 422, 500, 502})  # as such servers have it; to our caller it is a 400
_PASSING = frozenset({408, 429, 500, 502, 503, 504, 529})
_HEADERS = {"retry-after": re.compile(r"[\w:, .+-]{1,40}"), "retry-after-ms": re.compile(r"\d{1,12}(\.\d{1,3})?")}
_STATUS_OF_CODE = {
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "context_length_exceeded": 400,
    "invalid_prompt": 400,
    "model_not_found": 400,
}
_CODE_OF_STATUS = {404: "model_not_found", 413: "request_too_large", 429: "rate_limit_exceeded"}
_MESSAGE_CHARACTERS_MAX = 2000


def failure_of(
    status: int,
    body: bytes,
    *,
    api: str = "Chat Completions",
    headers: Mapping[str, str] | None = None,
    secrets: Iterable[str] = (),
) -> ModelError:
    """The error that an answer with a failing status stands for. api: what was asked for there."""
    if status in _OUR_FAULT:
        return ModelError(f"The model's server refused this server's credentials (status {status}).", status=502)
    error = _error_in(body)
    if not 400 <= status < 600 or (error is None and status in (404, 405)):
        return ModelError(f"The model's server has no {api} there (status {status}).", status=502)
    failure = failure_in(error or {}, status=status, secrets=secrets)
    if status in (429, 503):
        failure.headers = _kept(headers or {})
    return failure


def failure_in(error: Any, *, status: int | None = None, secrets: Iterable[str] = ()) -> ModelError:
    """The error that an error object stands for.

    status: that of the answer; None for an error inside a stream. secrets: what a server might repeat, and nobody else
    may see.
    """
    error = error if isinstance(error, Mapping) else {"message": str(error)}
    code, type, param = error.get("code"), error.get("type"), error.get("param")
    secrets = tuple(secrets)
    code, param = (None if any(secret in str(told) for secret in secrets) else told for told in (code, param))
    if status is None:
        status = code if isinstance(code, int) and 400 <= code < 600 else 502
        status = _STATUS_OF_CODE.get(str(code), _STATUS_OF_CODE.get(str(type), status))
        if status in _OUR_FAULT:
            return failure_of(status, b"")
    message = str(error.get("message") or f"The model's server answered with status {status} and no explanation.")
    if status in _TOO_LONG_STATUSES and _TOO_LONG.search(message):
        status, code, type = 400, "context_length_exceeded", "invalid_request_error"
    for secret in secrets:
        message = message.replace(secret, "***")
    return ModelError(
        message[:_MESSAGE_CHARACTERS_MAX],
        status=status,
        type=_type(type, status),
        code=_code(code, type, status),
        param=param if isinstance(param, str) else None,
        passing=status in _PASSING and "insufficient_quota" not in (code, type),
    )


def model_not_found(name: str) -> ModelError:
    """The caller asks for a model that is not to be had."""
    return ModelError(
        f"The requested model '{name}' does not exist.",
        status=400,
        type="invalid_request_error",
        code="model_not_found",
        param="model",
    )


def _kept(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that tell the caller when to come again."""
    told = {name: headers.get(name) for name in _HEADERS}
    return {name: value for name, value in told.items() if value is not None and _HEADERS[name].fullmatch(value)}


def _error_in(body: bytes) -> Mapping[str, Any] | None:
    """The error object of OpenAI, llama.cpp and vLLM; older vLLM's bare one; a text, as of Ollama; FastAPI's detail."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    error = value.get("error") or (value if value.get("object") == "error" else None)
    if isinstance(error, dict):
        return error
    if error is None and value.get("detail") in (None, "Not Found"):  # what a framework says of an unknown path
        return None
    return {"message": str(error or value["detail"])}


def _type(type: Any, status: int) -> str:
    if isinstance(type, str) and type in _TYPES:
        return type
    return "requests" if status == 429 else "invalid_request_error" if status < 500 else "server_error"


def _code(code: Any, type: Any, status: int) -> str:
    if isinstance(code, str) and code and not code.isdigit():
        return code
    if isinstance(type, str) and type in _CODES:
        return _CODES[type]
    return _CODE_OF_STATUS.get(status, "server_error" if status >= 500 else "invalid_request_error")

"""What a failing model server's answer means to our caller.

Servers say what went wrong in many shapes; our caller gets one, with a status that is true for it: a refused key is our
own key, and no fault of the caller. Our key and the server's address never get into a message.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from antiphon.errors import ModelError

_OUR_FAULT = frozenset({401, 402, 403, 407})  # the key, the account or the proxy of this server
_TYPES = frozenset({"insufficient_quota", "tokens", "requests", "rate_limit_error"})  # kept, being known to clients
_CODES = {"exceed_context_size_error": "context_length_exceeded"}  # by llama.cpp's type of the error
_CODE_OF_STATUS = {404: "model_not_found", 413: "request_too_large", 429: "rate_limit_exceeded"}
_MESSAGE_CHARACTERS_MAX = 2000


def failure_of(status: int, body: bytes, *, secret: str | None = None) -> ModelError:
    """The error that an answer with a failing status stands for."""
    if status in _OUR_FAULT:
        return ModelError(f"The model's server refused this server's credentials (status {status}).", status=502)
    error = _error_in(body)
    if error is None and (status == 404 or not 400 <= status < 600):
        return ModelError(f"The model's server has no Chat Completions there (status {status}).", status=502)
    return failure_in(error or {}, status=status, secret=secret)


def failure_in(error: Any, *, status: int | None = None, secret: str | None = None) -> ModelError:
    """The error that an error object stands for. status: that of the answer; None for an error inside a stream."""
    error = error if isinstance(error, Mapping) else {"message": str(error)}
    code, type, param = error.get("code"), error.get("type"), error.get("param")
    if status is None:
        status = code if isinstance(code, int) and 400 <= code < 600 else 502
        if code == "rate_limit_exceeded" or type == "insufficient_quota":
            status = 429
        if status in _OUR_FAULT:
            return failure_of(status, b"")
    message = str(error.get("message") or f"The model's server answered with status {status} and no explanation.")
    if secret:
        message = message.replace(secret, "***")
    return ModelError(
        message[:_MESSAGE_CHARACTERS_MAX],
        status=status,
        type=_type(type, status),
        code=_code(code, type, status),
        param=param if isinstance(param, str) else None,
    )


def _error_in(body: bytes) -> Mapping[str, Any] | None:
    """The error object of OpenAI, llama.cpp and vLLM; older vLLM's bare one; a text, as of Ollama; FastAPI's detail."""
    try:
        value = msgspec.json.decode(body)
    except msgspec.DecodeError:
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
    if type in _TYPES:
        return str(type)
    return "requests" if status == 429 else "invalid_request_error" if status < 500 else "server_error"


def _code(code: Any, type: Any, status: int) -> str:
    if isinstance(code, str) and code and not code.isdigit():
        return code
    if type in _CODES:
        return _CODES[type]
    return _CODE_OF_STATUS.get(status, "server_error" if status >= 500 else "invalid_request_error")

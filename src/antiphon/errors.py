"""Everything that can go wrong, as one tree, and its form on the wire.

    AntiphonError
    ├── ApiError                  an answer with an error status: raised by the server, met again by the client
    │   ├── BadRequest            400
    │   ├── Unauthorized          401
    │   ├── Forbidden             403
    │   ├── NotFound              404
    │   ├── MethodNotAllowed      405
    │   ├── Conflict              409
    │   ├── TooLarge              413
    │   ├── UnsupportedMedia      415
    │   ├── Unprocessable         422
    │   ├── RateLimited           429
    │   └── ServerError           500 and above
    │       └── Unavailable       503
    ├── InvalidRequest            the client refused to send it; lists every problem
    ├── InvalidAnswer             an answer or an event does not match the API description; lists every problem
    ├── UnknownOperation          no such operationId
    ├── DocumentError             an API description that cannot be used
    ├── ConnectionFailed          no answer, or none that could be read to its end
    │   └── Timeout
    ├── StreamBroken              a stream that could not be resumed
    ├── ProtocolError             an event that breaks the rules of the log
    │   ├── Gap
    │   └── IllegalEvent
    ├── LeaseLost                 another worker, a cancel or a deletion owns the log now
    ├── Repeated                  a create came again with its idempotency key
    ├── BrokenSeal                encrypted content that cannot be opened
    ├── StoreError                a database that cannot be used
    ├── ModelError                the model's server failed
    └── BadSetting                a setting with a value that makes no sense

Imports nothing of the package. A class's docstring is its default message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class AntiphonError(Exception):
    """Something went wrong."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip().split("\n")[0])

    @property
    def message(self) -> str:
        return str(self.args[0])


class ApiError(AntiphonError):
    """The API answered with an error."""

    status: int = 500
    default_type: ClassVar[str] = "invalid_request_error"

    def __init__(
        self,
        message: str | None = None,
        *,
        code: str | None = None,
        param: str | None = None,
        type: str | None = None,
        status: int | None = None,
        request_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.param = param
        self.type = type or self.default_type
        self.status = status or self.status
        self.request_id = request_id
        self.headers = dict(headers or {})
        self.body = body

    def __str__(self) -> str:
        where = f" (request {self.request_id})" if self.request_id else ""
        return f"{self.status} {self.message}{where}"

    def wire(self) -> dict[str, Any]:
        """The error's form on the wire, `{"error": {message, type, param, code}}`; all four keys are always there."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    @staticmethod
    def of(
        status: int, body: Any, *, request_id: str | None = None, headers: Mapping[str, str] | None = None
    ) -> ApiError:
        """The error that an answer stands for; `body` is its decoded JSON, or its text where it was none."""
        error = body.get("error", body) if isinstance(body, dict) else {"message": str(body or "").strip()[:2000]}
        if not isinstance(error, dict):
            error = {"message": str(error)}
        code = error.get("code")
        return _class_of(status)(
            str(error.get("message") or f"The server answered with status {status}."),
            code=None if code is None else str(code),
            param=error.get("param"),
            type=error.get("type"),
            status=status,
            request_id=request_id,
            headers=headers,
            body=body,
        )


class BadRequest(ApiError):
    """The request is not valid."""

    status = 400


class Unauthorized(ApiError):
    """The key is missing or wrong."""

    status = 401


class Forbidden(ApiError):
    """This is not allowed here."""

    status = 403


class NotFound(ApiError):
    """There is no such thing."""

    status = 404


class MethodNotAllowed(ApiError):
    """The path exists, but not with this method."""

    status = 405


class Conflict(ApiError):
    """The request contradicts the present state."""

    status = 409


class TooLarge(ApiError):
    """The request is too large."""

    status = 413


class UnsupportedMedia(ApiError):
    """The body has a content type that is not accepted."""

    status = 415


class Unprocessable(ApiError):
    """The request was understood and cannot be carried out."""

    status = 422


class RateLimited(ApiError):
    """Too many requests."""

    status = 429
    default_type = "requests"


class ServerError(ApiError):
    """The server failed."""

    status = 500
    default_type = "server_error"


class Unavailable(ServerError):
    """The server cannot do this now."""

    status = 503


_BY_STATUS: dict[int, type[ApiError]] = {
    kind.status: kind
    for kind in (
        BadRequest, Unauthorized, Forbidden, NotFound, MethodNotAllowed, Conflict,
        TooLarge, UnsupportedMedia, Unprocessable, RateLimited, ServerError, Unavailable,
    )
}  # fmt: skip


def _class_of(status: int) -> type[ApiError]:
    return _BY_STATUS.get(status, ServerError if status >= 500 else ApiError)


class InvalidRequest(AntiphonError):
    """The request does not match the API description, so it was not sent."""

    def __init__(self, message: str | None = None, *, problems: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class InvalidAnswer(AntiphonError):
    """The answer does not match the API description."""

    def __init__(self, message: str | None = None, *, problems: Sequence[Any] = (), value: Any = None) -> None:
        super().__init__(message)
        self.problems = tuple(problems)
        self.value = value  # the answer or the event itself


class UnknownOperation(AntiphonError):
    """The API description has no such operation."""


class DocumentError(AntiphonError):
    """The API description cannot be used."""


class ConnectionFailed(AntiphonError):
    """The server could not be reached, or its answer broke off.

    sent: False if the request had not left yet, so that sending it again is safe.
    """

    def __init__(self, message: str | None = None, *, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


class Timeout(ConnectionFailed):
    """The server did not answer in time."""


class StreamBroken(AntiphonError):
    """The stream broke off and could not be resumed."""

    def __init__(
        self, message: str | None = None, *, response_id: str | None = None, sequence_number: int = -1
    ) -> None:
        super().__init__(message)
        self.response_id = response_id
        self.sequence_number = sequence_number


class ProtocolError(AntiphonError):
    """An event breaks the rules of the log."""


class Gap(ProtocolError):
    """An event does not have the number that comes next."""


class IllegalEvent(ProtocolError):
    """An event may not come at this point."""


class LeaseLost(AntiphonError):
    """This worker no longer owns the response's log."""


class BrokenSeal(AntiphonError):
    """This was not sealed here, or not for this tenant, or the key is gone."""


class Repeated(AntiphonError):
    """This create was carried out before."""

    def __init__(self, response_id: str) -> None:
        super().__init__()
        self.response_id = response_id  # the response that it made then


class StoreError(AntiphonError):
    """The database cannot be used.

    passing: the same may succeed a little later, when a disk has room or a server is back.
    """

    def __init__(self, message: str | None = None, *, passing: bool = True) -> None:
        super().__init__(message)
        self.passing = passing


class ModelError(AntiphonError):
    """The model's server failed.

    headers: for the caller, `retry-after` and `retry-after-ms` as the server sent them.
    passing: the same request may succeed a little later.
    """

    def __init__(
        self,
        message: str | None = None,
        *,
        status: int = 502,
        type: str = "server_error",
        code: str | None = "server_error",
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        passing: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.type = type
        self.code = code
        self.param = param
        self.headers = dict(headers or {})
        self.passing = passing


class BadSetting(AntiphonError):
    """A setting has a value that makes no sense."""

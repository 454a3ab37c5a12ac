"""Where a server is reached: its socket, its certificate and its URL, and how many connections it may have."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
import sys

from antiphon.errors import AntiphonError, BadSetting
from antiphon.server.app import BASE_PATH
from antiphon.settings import Settings


def allow_connections() -> None:
    """Allow as many open files as this process may have: by custom it begins with 1,024, fewer than `max_streams`."""
    if sys.platform != "win32":
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        with contextlib.suppress(ValueError):  # some systems have a limit that they do not tell
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def listen(settings: Settings) -> socket.socket:
    """The socket of the server. Raises AntiphonError: what is in the way, such as the last server's end, may pass."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise AntiphonError(
                f"port: {settings.port} is in use by another program; choose another with --port, or 0 for a free one."
            ) from error
        place = f"{settings.host!r} and port {settings.port}"
        raise AntiphonError(f"host: {place} cannot be listened on: {error.strerror}.") from error


def check_certificate(settings: Settings) -> None:
    """Raise BadSetting if TLS is wanted and the files are of no use, before anything is begun."""
    if settings.tls_cert is None or settings.tls_key is None:
        return
    for name, path in (("tls_cert", settings.tls_cert), ("tls_key", settings.tls_key)):
        if not os.access(path, os.R_OK):
            raise BadSetting(f"{name}: {path} cannot be read.")
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(settings.tls_cert, settings.tls_key)
    except ssl.SSLError as error:
        raise BadSetting(
            f"tls_cert: {settings.tls_cert} and {settings.tls_key} are no certificate and its key, as PEM files "
            f"without a password: {error.reason or error}."
        ) from error


def url(settings: Settings, listening: socket.socket) -> str:
    name = f"[{settings.host}]" if ":" in settings.host else settings.host
    scheme = "https" if settings.tls_cert else "http"
    return f"{scheme}://{name}:{listening.getsockname()[1]}{BASE_PATH}"

"""The kinds of values that settings have.

Each reads a text, as the command line and the environment give it, or a value of TOML.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from antiphon.errors import BadSetting
from antiphon.upstream import Upstream, http_url, read_upstreams


class Refused(ValueError):
    """A value has the right form and cannot be used; the message says why."""


@dataclass(frozen=True)
class Kind:
    """What a value must be. `read` takes a text, a TOML value, or what it gave before.

    It raises Refused where there is a reason to tell, else ValueError, KeyError or OverflowError.
    """

    expected: str
    read: Callable[[Any], Any]


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError
    return value.strip()


def _host(value: Any) -> str:
    return _text(value).strip("[]")  # brackets belong to URLs


def _path(value: Any) -> Path:
    return value if isinstance(value, Path) else Path(_text(value)).expanduser()


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    return {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}[
        _text(value).lower()
    ]


def whole(least: int, most: int | None = None) -> Kind:
    def read(value: Any) -> int:
        number = int(_text(value)) if isinstance(value, str) else value
        if type(number) is not int or number < least or (most is not None and number > most):
            raise ValueError
        return number

    return Kind(f"a whole number from {least}" + (" up" if most is None else f" to {most}"), read)


def amount(*, zero: bool = False) -> Kind:
    def read(value: Any) -> float:
        number = float(_text(value)) if isinstance(value, str) else value
        if type(number) not in (int, float) or not (0 < number < float("inf") or (zero and number == 0)):
            raise ValueError
        return float(number)

    return Kind("a number from 0 up" if zero else "a number above 0", read)


def one_of(*choices: str) -> Kind:
    def read(value: Any) -> str:
        if (choice := _text(value).lower()) not in choices:
            raise ValueError
        return choice

    return Kind("one of " + ", ".join(choices), read)


def _database(value: Any) -> str:
    url = _text(value)
    scheme, separator, rest = url.partition("://")
    if scheme in ("postgres", "postgresql") and separator:
        return url
    if scheme != "sqlite" or not separator or not (rest == "" or (rest.startswith("/") and len(rest) > 1)):
        raise ValueError
    return url


def _bell(value: Any) -> str:
    url = _text(value)
    if urlsplit(url).scheme not in ("valkey", "valkeys", "redis", "rediss") or not urlsplit(url).hostname:
        raise ValueError
    return url


def _http_url(value: Any) -> str:
    url = http_url(_text(value))
    if urlsplit(url).username or urlsplit(url).password:
        raise Refused("a key does not belong into the URL, name its variable with upstream_key_env")
    return url


def _upstreams(value: Any) -> Mapping[str, Upstream]:
    try:
        return read_upstreams(value)
    except BadSetting as bad:
        raise Refused(bad.message) from bad


def _api_keys(value: Any) -> Mapping[str, str]:
    """Give the key of each name. The text form is `name:key,name:key`, the TOML form a table."""
    if isinstance(value, str):
        pairs = [part.partition(":")[::2] for part in value.split(",")]
    elif isinstance(value, Mapping):
        pairs = list(value.items())
    else:
        raise ValueError
    named = [(_text(name), _text(key)) for name, key in pairs]
    if len({name for name, _ in named}) < len(named):
        raise Refused("a name is given twice")
    if len({key for _, key in named}) < len(named):
        raise Refused("two names have the same key")
    return MappingProxyType(dict(named))


def _days(value: Any) -> Mapping[str, float]:
    """Give the days of each tenant. The text form is `tenant:days,tenant:days`, the TOML form a table."""
    if isinstance(value, str):
        pairs: list[tuple[Any, Any]] = [part.rpartition(":")[::2] for part in value.split(",")]
    elif isinstance(value, Mapping):
        pairs = list(value.items())
    else:
        raise ValueError
    if len({_text(tenant) for tenant, _ in pairs}) < len(pairs):
        raise Refused("a tenant is given twice")
    return MappingProxyType({_text(tenant): DAYS.read(days) for tenant, days in pairs})


def _seal_keys(value: Any) -> tuple[str, ...]:
    """Give the keys, the newest first. The text form separates them by commas, the TOML form is a list."""
    keys = tuple(_text(key) for key in (value.split(",") if isinstance(value, str) else value))
    if not all(len(key) >= 32 for key in keys):
        raise ValueError
    return keys


def _origins(value: Any) -> tuple[str, ...]:
    origins = tuple(_text(origin).rstrip("/") for origin in (value.split(",") if isinstance(value, str) else value))
    for origin in origins:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.netloc or origin != f"{parts.scheme}://{parts.netloc}":
            raise ValueError
    return origins


TEXT = Kind("a text that is not empty", _text)
PATH = Kind("a path", _path)
HOST = Kind("a name or an address", _host)
FLAG = Kind("true or false", _flag)
DATABASE = Kind(
    "sqlite:///relative/path, sqlite:////absolute/path, sqlite:// for memory, or postgresql://user@host/name", _database
)
BELL = Kind("a URL like valkey://127.0.0.1:6379/0, of valkey, valkeys, redis or rediss", _bell)
HTTP_URL = Kind("an http or https URL like http://127.0.0.1:8080/v1", _http_url)
UPSTREAMS = Kind("a table for each model server", _upstreams)
API_KEYS = Kind("name:key pairs separated by commas, no name and no key twice", _api_keys)
DAYS = amount(zero=True)
TENANT_DAYS = Kind("tenant:days pairs separated by commas, no tenant twice, days from 0 up", _days)
ORIGINS = Kind("origins like https://example.com, separated by commas", _origins)
SEAL_KEYS = Kind("keys of 32 characters and more, separated by commas", _seal_keys)

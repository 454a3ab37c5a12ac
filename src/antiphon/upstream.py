"""Upstream: a model server as antiphon.toml describes it, a table `[upstreams.NAME]`, read and checked.

The keys of the table are the fields of the class; units are part of their names.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Literal
from urllib.parse import urlsplit

from antiphon.errors import BadSetting

PROTOCOLS = ("auto", "chat_completions", "responses")

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def http_url(url: str) -> str:
    """The URL without its last slash. Raises ValueError, with a reason where there is one to tell."""
    url = url.strip().rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError
    if parts.port == 0:  # to ask raises ValueError for a port that is none
        raise ValueError
    return url


def _key(expected: str, read: Callable[[Any], Any], help: str, default: Any = MISSING, *, secret: bool = False) -> Any:
    metadata = {"expected": expected, "read": read, "help": help}
    if isinstance(default, Mapping):
        return field(default_factory=lambda: default, repr=not secret, metadata=metadata)
    return field(default=default, repr=not secret, metadata=metadata)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError
    return value.strip()


def _url(value: Any) -> str:
    url = http_url(_text(value))
    if urlsplit(url).username or urlsplit(url).password:
        raise ValueError
    return url


def _secret(value: Any) -> str:
    secret = _text(value)
    if not secret.isprintable():  # it is sent in a header
        raise ValueError
    return secret


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise ValueError
    return tuple(map(_text, value))


def _names(value: Any) -> Mapping[str, str]:
    return MappingProxyType({_text(name): _text(meant) for name, meant in value.items()})


def _headers(value: Any) -> Mapping[str, str]:
    headers = _names(value)
    for name, content in headers.items():
        if not _HEADER_NAME.fullmatch(name) or not content.isprintable():
            raise ValueError
    return headers


def _protocol(value: Any) -> str:
    if value not in PROTOCOLS:
        raise ValueError
    return str(value)


def _seconds(value: Any) -> float:
    if type(value) not in (int, float) or not 0 < value < float("inf"):
        raise ValueError
    return float(value)


def _whole(least: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if type(value) is not int or value < least:
            raise ValueError
        return value

    return read


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError
    return value


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """One model server, and which models it is asked for."""

    name: str
    url: str = _key("an http or https URL without a key in it, with its `/v1`", _url, "Where it is; must be given.")
    key: str | None = _key("a text", _secret, "Its key; better leave it in the environment.", None, secret=True)
    key_env: str | None = _key("a text", _text, "The name of the environment variable that holds its key.", None)
    headers: Mapping[str, str] = _key(
        "a table of header names and texts", _headers, "Sent with every request.", MappingProxyType({}), secret=True
    )
    models: tuple[str, ...] = _key(
        "a list of names and patterns",
        _texts,
        "The models that it is asked for, `qwen3-*` for example; `*` is whatever no other has. "
        "Otherwise those that it lists itself.",
        (),
    )
    aliases: Mapping[str, str] = _key(
        "a table of names", _names, "Its names of models, by those that callers use.", MappingProxyType({})
    )
    protocol: Literal["auto", "chat_completions", "responses"] = _key(
        "one of " + ", ".join(PROTOCOLS), _protocol, "How it is asked; `auto` tries once which it knows.", "auto"
    )
    connect_seconds: float = _key("a number above 0", _seconds, "How long reaching it may take.", 10.0)
    idle_seconds: float = _key("a number above 0", _seconds, "How long it may be silent in an answer.", 300.0)
    retries: int = _key(
        "a whole number from 0 up",
        _whole(0),
        "How often it is asked again when it cannot be reached, is overloaded (429) or failed (5xx), "
        "as long as it has said nothing.",
        2,
    )
    max_parallel: int | None = _key("a whole number from 1 up", _whole(1), "Turns at once; more of them wait.", None)
    continues_prefix: bool = _key(
        "true or false",
        _flag,
        "It goes on with an unfinished message of the assistant (vLLM's `continue_final_message`).",
        False,
    )
    cache_salt: str | None = _key(
        "a text",
        _text,
        "A secret, from which each tenant gets a `cache_salt`: tenants then share no prefix cache (vLLM).",
        None,
        secret=True,
    )


def read_upstreams(value: Any) -> Mapping[str, Upstream]:
    """The upstreams by their names, in their order. value: the tables, or the same as JSON. Raises BadSetting."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise BadSetting("it is not JSON") from error
    if not isinstance(value, Mapping) or not all(isinstance(table, Mapping | Upstream) for table in value.values()):
        raise BadSetting("it is not made of tables")
    upstreams = {name: table if isinstance(table, Upstream) else _read(name, table) for name, table in value.items()}
    _check_together(upstreams.values())
    return MappingProxyType(upstreams)


def with_keys(upstreams: Mapping[str, Upstream], environ: Mapping[str, str]) -> Mapping[str, Upstream]:
    """The upstreams, each with the key that its variable holds. Raises BadSetting if that is not set."""
    found = {}
    for name, upstream in upstreams.items():
        if upstream.key_env is not None:
            key = environ.get(upstream.key_env, "").strip()
            if not key or not key.isprintable():
                raise BadSetting(
                    f"upstreams.{name}.key_env: the variable {upstream.key_env} is not set, empty, or more than a "
                    "line; expected the model server's key."
                )
            upstream = replace(upstream, key=key)
        found[name] = upstream
    return MappingProxyType(found)


def keys_page() -> str:
    """The keys of a table as Markdown."""
    lines = ["| Key | Default | Meaning | Values |", "|---|---|---|---|"]
    for key in _KEYS.values():
        default = key.default if key.default_factory is MISSING else key.default_factory()
        shown = "none" if default in (MISSING, None, (), {}) else f"`{json.dumps(default)}`".replace('"', "")
        lines.append(f"| `{key.name}` | {shown} | {key.metadata['help']} | {key.metadata['expected']} |")
    return "\n".join(lines)


_KEYS = {key.name: key for key in fields(Upstream) if key.metadata}


def _read(name: str, table: Mapping[str, Any]) -> Upstream:
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in _KEYS:
            near = difflib.get_close_matches(key.lower().replace("-", "_"), _KEYS, n=1)
            raise BadSetting(f"{name}.{key} is not a key of it" + (f", did you mean {near[0]!r}?" if near else ""))
        try:
            values[key] = _KEYS[key].metadata["read"](value)
        except (ValueError, AttributeError, TypeError):
            found = repr(value) if _KEYS[key].repr and "@" not in str(value) else "the value"  # it may hold a key
            raise BadSetting(f"{name}.{key}: {found} is not {_KEYS[key].metadata['expected']}") from None
    if "url" not in values:
        raise BadSetting(f"{name} has no url")
    if "key" in values and "key_env" in values:
        raise BadSetting(f"{name} has a key and a key_env")
    return Upstream(name=name, **values)


def _check_together(upstreams: Iterable[Upstream]) -> None:
    """What two of them cannot both have: one would never be asked."""
    owners: dict[str, str] = {}
    for upstream in upstreams:
        for taken in (*upstream.aliases, *upstream.models):
            if owners.setdefault(taken, upstream.name) != upstream.name:
                raise BadSetting(f"{owners[taken]} and {upstream.name} both have {taken!r}")

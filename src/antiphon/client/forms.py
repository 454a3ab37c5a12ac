"""The forms that a body can have, and values as the API reads them in queries and forms: pairs of a name and a leaf."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from antiphon.spec import Body, Schema

JSON = "application/json"
MULTIPART = "multipart/form-data"
URLENCODED = "application/x-www-form-urlencoded"


def json_kind(body: Body) -> str | None:
    """The content type of the body's JSON form, if it has one."""
    return JSON if JSON in body.media else next((kind for kind in body.media if kind.endswith("+json")), None)


def form_kind(body: Body) -> str | None:
    return next((kind for kind in (MULTIPART, URLENCODED) if kind in body.media), None)


def field_schema(body: Body) -> Schema | None:
    """The schema whose fields can be given as keywords; None if the body is only bytes."""
    kind = json_kind(body) or form_kind(body)
    return body.media[kind] if kind else None


def pairs(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Arrays as `name[]=a&name[]=b`, objects as `name[key]=a`: the API reads both so, whatever style is described."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from pairs(f"{name}[{key}]", each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from pairs(name if name.endswith("[]") else f"{name}[]", each)
    else:
        yield name, value


def text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return ",".join(text(each) for each in value)
    return str(value)

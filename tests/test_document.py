"""The document: what is read from it, where it may come from, and that its cache can only ever help."""

import asyncio
import gc
import io
import json
import os
import stat
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from antiphon.errors import DocumentError, UnknownOperation
from antiphon.spec import Document
from antiphon.spec.cache import INDEX_VERSION, cached
from antiphon.spec.names import BETTER_NAMES, method_name, snake_case

ENTRIES: dict[str, dict[str, object]] = {"about": {}, "operations": {}, "schemas": {}}
PETS = {
    "openapi": "3.0.3",
    "info": {"title": "Pets", "version": "7"},
    "servers": [{"url": "https://{region}.pets.test/v2", "variables": {"region": {"default": "eu"}}}],
    "paths": {
        "/pets/{pet-id}": {
            "parameters": [{"$ref": "#/components/parameters/Id"}],
            "get": {
                "operationId": "find-pet",
                "parameters": [
                    {"name": "fields", "in": "query", "schema": {"type": "array", "items": {"type": "string"}}}
                ],
                "responses": {200: {"$ref": "#/components/responses/Pet"}, "default": {"description": "no"}},
            },
        },
        "/pets?draft=true": {
            "post": {
                "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Pet"}}}},
                "responses": {"201": {"description": "made"}},
            },
        },
    },
    "components": {
        "parameters": {"Id": {"name": "pet-id", "in": "path", "required": True, "schema": {"type": "integer"}}},
        "responses": {
            "Pet": {
                "description": "a pet",
                "content": {
                    "application/json": {"schema": {"$ref": "#/components/schemas/Pet"}, "example": {"name": "Rex"}}
                },
            }
        },
        "schemas": {
            "Pet": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"type": "string", "nullable": True},
                    "$ref": {"type": "string", "description": "a property that looks like a reference"},
                    "mother": {"$ref": "#/components/schemas/Pet"},
                    "weight": {"type": "number", "minimum": 0, "exclusiveMinimum": True},
                    "colour": {"$ref": "#/components/schemas/Odd name~1%/properties/colour"},
                    "size": {"type": "string", "enum": ["s", "l"], "nullable": True},
                },
            },
            "Odd name/%": {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}},
        },
    },
}


@pytest.fixture(scope="module")
def document():
    return Document.load()


@pytest.fixture
def written(tmp_path):
    def write(value, name="api.json"):
        path = tmp_path / name
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        return path

    return write


def test_the_packaged_document_is_the_official_one(document):
    assert document.title == "OpenAI API"
    assert document.server_url == "https://api.openai.com/v1"
    ours = [each for each in document.operations.values() if each.tags == ("Antiphon",)]
    assert len(document.operations) - len(ours) == 271


def test_an_operation_tells_all_that_a_call_needs(document):
    operation = document.operation("getResponse")

    assert (operation.method, operation.path, operation.query) == ("GET", "/responses/{response_id}", ())
    assert [(each.name, each.location, each.required) for each in operation.parameters] == [
        ("response_id", "path", True),
        ("include", "query", False),
        ("stream", "query", False),
        ("starting_after", "query", False),
        ("include_obfuscation", "query", False),
    ]
    include = operation.parameters[1]
    assert (include.style, include.explode) == ("form", True)
    assert include.schema.valid(["reasoning.encrypted_content"])
    assert operation.body is None
    assert set(operation.answers["200"].media) == {"application/json", "text/event-stream"}
    assert operation.answers["200"].example["object"] == "response"
    assert operation.security == ((document.security["ApiKeyAuth"],),)


def test_the_answers_that_the_official_document_shows_beside_openapi_are_read(document):
    assert document.operation("deleteResponse").answers["200"].example["deleted"] is True
    assert document.operation("deleteFile").answers["200"].example["object"] == "file"


def test_exactly_the_operations_that_answer_with_events_stream(document):
    streaming = {operation.id for operation in document.operations.values() if operation.streams}

    assert {"createResponse", "getResponse", "createChatCompletion"} <= streaming
    assert not streaming & {"deleteResponse", "listModels", "cancelResponse"}


@pytest.mark.parametrize("name", ["getResponse", "get_response", "GetResponse", "GET-RESPONSE", "getresponse"])
def test_an_operation_answers_to_every_spelling_of_its_name(document, name):
    assert document.operation(name) is document.operations["getResponse"]


@pytest.mark.parametrize(
    ("operation_id", "name"),
    [
        ("createResponse", "create_response"),
        ("admin-api-keys-create", "admin_api_keys_create"),
        ("ListContainers", "list_containers"),
        ("beta_createResponse", "beta_create_response"),
        ("Getinputtokencounts", "get_input_token_counts"),
        ("beta_Compactconversation", "beta_compact_conversation"),
        ("CreateanAPIkeyforaserviceaccount", "create_an_api_key_for_a_service_account"),
        ("submitToolOuputsToRun", "submit_tool_outputs_to_run"),
    ],
)
def test_methods_have_readable_names(operation_id, name):
    assert method_name(operation_id) == name


def test_the_plain_rule_keeps_acronyms_together():
    assert snake_case("CreateanAPIkeyforaserviceaccount") == "createan_ap_ikeyforaserviceaccount"
    assert snake_case("getHTTPResponse2Go") == "get_http_response2_go"


def test_better_names_keep_the_plain_ones_as_aliases(document):
    for operation_id in BETTER_NAMES.keys() & document.operations.keys():
        assert document.operation(snake_case(operation_id)).id == operation_id
    assert document.operation("getinputtokencounts").name == "get_input_token_counts"


def test_all_methods_have_names_of_their_own(document):
    names = [operation.name for operation in document.operations.values()]

    assert len(set(names)) == len(names)
    assert all(name.isidentifier() for name in names)


def test_an_unknown_operation_names_the_nearest(document):
    with pytest.raises(UnknownOperation, match=r"no operation 'compact_response'.* 'compact_conversation'"):
        document.operation("compact_response")
    with pytest.raises(UnknownOperation, match=r"no operation 'get_respones'. Did you mean 'get_response'"):
        document.operation("get_respones")
    with pytest.raises(UnknownOperation, match=r"no operation 'xyzzy'\.$"):
        document.operation("xyzzy")


def test_every_schema_of_the_packaged_document_compiles(document, recwarn):
    """The raw document has ten that do not."""
    for name in [*document._index.schemas]:
        document.schema(name).valid(None)

    assert not recwarn.list
    multiplier = {"learning_rate_multiplier": 0}
    assert not document.schema("FineTuneSupervisedHyperparameters").valid(multiplier)


def test_an_unknown_schema_or_event_is_refused(document):
    with pytest.raises(DocumentError, match="no schema 'Nothing'"):
        document.schema("Nothing")
    with pytest.raises(DocumentError, match="no event 'keepalive'"):
        document.event_schema("keepalive")


def test_any_document_can_be_read(written):
    document = Document.load(written(PETS))
    find, make = document.operations.values()

    assert (document.title, document.version, document.server_url) == ("Pets", "7", "https://eu.pets.test/v2")
    assert (find.id, find.name, find.path) == ("find-pet", "find_pet", "/pets/{pet-id}")
    assert [(each.name, each.location) for each in find.parameters] == [("pet-id", "path"), ("fields", "query")]
    assert find.answers["200"].example == {"name": "Rex"}
    assert (make.id, make.path, make.query) == ("post_pets", "/pets", (("draft", "true"),))
    assert document.event_types == ()


@pytest.mark.parametrize(
    ("pet", "verdict"),
    [
        ({"name": "Rex"}, True),
        ({"name": None}, True),
        ({}, False),
        ({"name": "Rex", "$ref": "x", "mother": {"name": "Ann", "mother": {"name": "Eve"}}}, True),
        ({"name": "Rex", "mother": {}}, False),
        ({"name": "Rex", "$ref": 5}, False),
        ({"name": "Rex", "weight": 0}, False),
        ({"name": "Rex", "weight": 0.5}, True),
        ({"name": "Rex", "colour": "red"}, True),
        ({"name": "Rex", "colour": "green"}, False),
        ({"name": "Rex", "size": None}, True),
        ({"name": "Rex", "size": "m"}, False),
    ],
)
def test_schemas_of_openapi_3_0_mean_what_they_say(written, pet, verdict):
    document = Document.load(written(PETS))

    assert document.schema("Pet").valid(pet) is verdict
    assert document.schema("Pet").strict().valid(pet) is verdict


def test_a_yaml_document_says_the_same_as_its_json(written):
    path = written(
        """
        openapi: 3.1.0
        info: {title: Dates, version: 2024-01-02}
        paths:
          /on:
            get:
              operationId: on
              responses: {200: {description: ok, content: {text/plain: {schema: {enum: [on, off, 1:30, 2020-01-01]}}}}}
        """,
        "api.yaml",
    )
    document = Document.load(path)
    schema = document.operation("on").answers["200"].media["text/plain"]

    assert document.version == "2024-01-02"
    assert all(schema.valid(word) for word in ("on", "off", "1:30", "2020-01-01"))
    assert not schema.valid(True)


def test_what_had_to_be_mended_in_a_document_of_the_user_is_told(written):
    schema = {"type": "number", "minimum": 1, "exclusiveMinimum": True}
    path = written({"openapi": "3.1.0", "paths": {}, "components": {"schemas": {"More": schema}}})

    with pytest.warns(UserWarning, match="In the schema More `exclusiveMinimum: true` is taken as in OpenAPI 3.0"):
        document = Document.load(path)

    assert not document.schema("More").valid(1)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[1, 2]", "no keys"),
        ("{", "neither JSON nor YAML"),
        ('{"swagger": "2.0"}', "not an OpenAPI 3 document"),
        ('{"openapi": "3.1.0", "paths": [1]}', "does not have the shape"),
        ('{"openapi": "3.1.0", "components": {"schemas": {"A": {"$ref": "#/nowhere"}}}}', "leads to nothing"),
        ('{"openapi": "3.1.0", "components": {"schemas": {"A": {"$ref": "other.yaml#/A"}}}}', "leads out"),
        ("[" * 100_000, "nested too deeply|neither JSON nor YAML"),
    ],
)
def test_what_is_no_document_is_refused_with_the_reason(written, text, reason):
    with pytest.raises(DocumentError, match=reason):
        Document.load(written(text))


def test_of_two_operations_with_one_id_the_later_is_renamed(written):
    operation = {"get": {"operationId": "same", "responses": {}}}
    path = written({"openapi": "3.1.0", "paths": {"/a": operation, "/b": operation}})

    with pytest.warns(UserWarning, match="two operations with the id 'same'"):
        document = Document.load(path)

    assert {each.id: each.path for each in document.operations.values()} == {"same": "/a", "get_b": "/b"}


def test_a_missing_file_and_a_strange_url_are_refused(tmp_path):
    with pytest.raises(DocumentError, match="cannot be read"):
        Document.load(tmp_path / "nothing.json")
    with pytest.raises(DocumentError, match="http or https"):
        Document.load("ftp://example.test/openapi.json")


def test_a_broken_schema_is_told_when_it_is_used(written):
    path = written({"openapi": "3.1.0", "paths": {}, "components": {"schemas": {"Bad": {"pattern": "["}}}})

    with pytest.raises(DocumentError, match="not a usable schema"):
        Document.load(path).schema("Bad").valid("x")


@pytest.fixture
def served():
    """A web server with the pets' document, its server URL relative."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            found = self.path == "/docs/openapi.json"
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(json.dumps({**PETS, "servers": [{"url": "../v2"}]}).encode() if found else b"")

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


async def test_a_document_can_come_from_the_network(served):
    document = await asyncio.to_thread(Document.load, served + "/docs/openapi.json")

    assert document.operation("find_pet").path == "/pets/{pet-id}"
    assert document.server_url == served + "/v2"
    with pytest.raises(DocumentError, match="cannot be fetched"):
        await asyncio.to_thread(Document.load, served + "/nothing.json")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "antiphon"


def test_the_index_is_kept_for_the_user_alone(written, cache):
    Document.load(written(PETS))
    (index,) = cache.iterdir()

    assert stat.S_IMODE(index.stat().st_mode) == 0o600
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700


def test_a_later_start_does_not_parse_the_document(written, cache, monkeypatch):
    path = written(PETS)
    Document.load(path)
    monkeypatch.setattr("antiphon.spec.source.Source.parse", lambda self: pytest.fail("it was parsed"))

    assert Document.load(path).operation("find_pet").id == "find-pet"


def test_a_changed_document_is_compiled_anew(written, cache):
    Document.load(written(PETS))
    changed = Document.load(written({**PETS, "info": {"title": "Cats", "version": "8"}}))

    assert changed.title == "Cats"


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-20] + b"x" + data[-19:],
        lambda data: b"\0" * len(data),
        lambda data: data.replace(b'"operations"', b'"operators"', 1),
        lambda data: data.split(b"\n")[0] + b"\n[]\n",
    ],
)
def test_a_damaged_index_is_built_again(written, cache, damage):
    path = written(PETS)
    Document.load(path)
    (index,) = cache.iterdir()
    whole = index.read_bytes()
    index.write_bytes(damage(whole))

    assert Document.load(path).operation("find_pet").id == "find-pet"
    assert index.read_bytes() == whole


def test_without_a_place_for_the_cache_it_works_all_the_same(written, cache):
    cache.parent.write_text("a file where the directory should be")

    assert Document.load(written(PETS)).operation("find_pet").id == "find-pet"


def test_two_processes_may_build_the_index_at_once(written, cache):
    path = written(PETS)
    code = f"from antiphon.spec import Document; print(Document.load({str(path)!r}).operation('find_pet').id)"
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache.parent)}
    processes = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE) for _ in range(3)
    ]
    answers = [process.communicate()[0] for process in processes]

    assert answers == [b"find-pet\n"] * 3
    assert [each.suffix for each in cache.iterdir()] == [".index"]


def test_a_new_index_takes_the_place_of_those_that_older_versions_left(written, cache):
    cache.mkdir(parents=True)
    kept = {f"spec-{'a' * 32}-{INDEX_VERSION + 1}.index", "notes.txt", "spec-notes-1.index"}
    for name in [*kept, f"spec-{'a' * 32}-{INDEX_VERSION - 1}.index", f"spec-{'b' * 32}-1.index"]:
        (cache / name).touch()
    Document.load(written(PETS))

    (new,) = {each.name for each in cache.iterdir()} - kept
    assert new.endswith(f"-{INDEX_VERSION}.index")


def test_a_new_index_takes_the_place_of_those_that_were_not_used_for_long(written, cache):
    longer_ago, not_as_long_ago = time.time() - 91 * 86400, time.time() - 89 * 86400
    Document.load(written(PETS))
    (index,) = cache.iterdir()
    for name in ("used", "forgotten"):
        Document.load(written({**PETS, "info": {"title": name, "version": "1"}}))
    used, forgotten = sorted(set(cache.iterdir()) - {index}, key=lambda each: b'"used"' not in each.read_bytes())
    unfinished = cache / ".spec-unfinished"
    unfinished.touch()
    for path, moment in ((index, longer_ago), (used, not_as_long_ago), (forgotten, longer_ago)):
        os.utime(path, (moment, moment))
    os.utime(unfinished, (longer_ago, longer_ago))
    Document.load(written(PETS))  # which is a use
    Document.load(written({**PETS, "info": {"title": "new", "version": "1"}}))

    assert {index, used} < set(cache.iterdir())
    assert len(list(cache.iterdir())) == 3


def test_whoever_waits_long_for_a_document_is_told_why(cache, monkeypatch):
    class Heard(io.StringIO):
        def write(self, text):
            super().write(text)
            said.set()

    said, heard = threading.Event(), Heard()
    monkeypatch.setattr("sys.stderr", heard)

    def make():
        assert said.wait(30)
        return ENTRIES

    cached("a", make, location="pets.yaml", silent_seconds=0)

    assert heard.getvalue() == f"antiphon: reads the API description pets.yaml, once: what it says is kept in {cache}\n"


def test_whoever_does_not_wait_long_is_told_nothing(written, cache, capsys):
    cached("a", lambda: ENTRIES, location="pets.yaml")
    cached("a", lambda: pytest.fail("it was made again"), location="pets.yaml", silent_seconds=0)

    assert capsys.readouterr().err == ""


def test_loading_leaves_the_garbage_collector_as_it_was(written, cache):
    path = written(PETS)
    gc.disable()
    try:
        Document.load(path)
        was_off = not gc.isenabled()
    finally:
        gc.enable()
    Document.load(written({**PETS, "info": {"title": "Cats", "version": "8"}}))

    assert was_off
    assert gc.isenabled()


def test_looking_an_operation_up_does_not_load_what_it_does_not_need(written):
    code = (
        "import sys; from antiphon.spec import Document; Document.load().operation('getResponse').parameters;"
        "print(sorted({'yaml', 'jsonschema_rs', 'httpx2', 'difflib'} & sys.modules.keys()))"
    )
    Document.load()  # so that the cache is there
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert answer.stdout == "[]\n"


def test_a_subset_is_a_document_of_its_own(document, written):
    part = document.subset(["create_response", "getResponse"], server_url="http://127.0.0.1:8080/v1")
    again = Document.load(written(part))

    assert list(again.operations) == ["createResponse", "getResponse"]
    assert again.server_url == "http://127.0.0.1:8080/v1"
    assert again.operation("getResponse").parameters[1].name == "include"
    assert again.event_types == document.event_types
    assert "CreateChatCompletionRequest" not in part["components"]["schemas"]
    assert set(part["components"]["securitySchemes"]) == {"ApiKeyAuth"}
    described = again.operation("createResponse").body
    assert described is not None
    body = described.media["application/json"].strict(lenient=("input",))
    assert body.valid({"model": "m", "input": [{"role": "user", "content": "x"}], "client_metadata": {}})
    assert not body.valid({"model": "m", "input": "x", "other": 1})


def test_a_subset_keeps_the_fixed_query_of_a_path(written):
    part = Document.load(written(PETS)).subset(["post_pets"], server_url="/")

    assert list(part["paths"]) == ["/pets?draft=true"]


def test_the_table_of_better_names_is_in_order():
    assert list(BETTER_NAMES) == sorted(BETTER_NAMES)

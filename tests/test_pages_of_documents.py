"""The pages of a document: their programs run, their links lead somewhere, their examples are what they say."""

import json
import posixpath
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qsl, unquote

import pytest

from antiphon.cli import main
from antiphon.pages import Caller, write
from antiphon.pages.example import example, literal
from antiphon.pages.model import Bullets, Entry, Listing, Paragraph, Span
from antiphon.pages.places import placed
from antiphon.pages.prose import blocks
from antiphon.pages.sample import NoSample, sample
from antiphon.protocol.sse import encode
from antiphon.spec import Document, Schema
from tests.servers.api import LOG
from tests.servers.running import serve

DOCUMENT = Document.load()
ZOO = Path(__file__).parent / "documents" / "zoo.yaml"
FENCE = re.compile(r"^(\s*)```(\w*)\n(.*?)^\s*```$", re.DOTALL | re.MULTILINE)


class Checking:
    """An app that answers each request that its document describes with what it got, and any other with 400."""

    def __init__(self, document):
        self.operations = [(_pattern(each.path), each) for each in document.operations.values()]
        # A path without parameters goes before one that fits too.
        self.operations.sort(key=lambda each: each[1].path.count("{"))
        self.base = re.sub(r"^https?://[^/]*", "", document.server_url)
        self.called: list[str] = []
        self.streamed: list[str] = []

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        path = scope["raw_path"].decode().removeprefix(self.base)
        query = parse_qsl(scope["query_string"].decode(), keep_blank_values=True)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        faults = self.faults(scope["method"], path, query, headers, body)
        if not faults and _asks_for_events(query, headers, body):
            self.streamed.append(self.called[-1])
            kind = (b"content-type", b"text/event-stream")
            await send({"type": "http.response.start", "status": 200, "headers": [kind]})
            await send({"type": "http.response.body", "body": b"".join(map(encode, LOG))})
            return
        said = {"faults": faults} if faults else {"path": path, "query": query, "object": "echo", "id": "1"}
        start = {"type": "http.response.start", "status": 400 if faults else 200}
        await send(start | {"headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": json.dumps(said).encode()})

    def faults(self, method, path, query, headers, body):
        for pattern, operation in self.operations:
            found = pattern.fullmatch(path)
            if operation.method == method and found and set(operation.query) <= set(query):
                self.called.append(operation.id)
                return [*_parameter_faults(operation, found, query, headers), *_body_faults(operation, headers, body)]
        return [f"There is no {method} {path}."]


def _asks_for_events(query, headers, body):
    kind = headers.get("content-type", "").partition(";")[0]
    if kind == "application/json":
        given = json.loads(body)
        return given.get("stream") is True or given.get("stream_format") == "sse"
    return ("stream", "true") in query or b'name="stream"\r\n\r\ntrue' in body


def _pattern(path):
    return re.compile(
        "".join("([^/]+)" if part[0] == "{" else re.escape(part) for part in re.findall(r"{.*?}|[^{]+", path))
    )


def _parameter_faults(operation, found, query, headers):
    names = re.findall(r"{(.*?)}", operation.path)
    given = {
        "path": {name: unquote(value) for name, value in zip(names, found.groups(), strict=True)},
        "query": {name.partition("[")[0]: value for name, value in query},
        "header": headers,
        "cookie": dict(pair.split("=", 1) for pair in headers.get("cookie", "").split("; ") if pair),
    }
    for each in operation.parameters:
        name = each.name.lower() if each.location == "header" else each.name.partition("[")[0]
        value = given[each.location].get(name)
        if value is None and each.required:
            yield f"{each.name} is missing"
        elif value is not None and not any(map(each.schema.valid, _readings(value))):
            yield f"{each.name} is {value!r}"


def _readings(text):
    yield text
    yield [text]
    try:
        yield json.loads(text)
        yield [json.loads(text)]
    except ValueError:
        pass


def _body_faults(operation, headers, body):
    kind = headers.get("content-type", "").partition(";")[0]
    if operation.body is None:
        return ["a body"] if body else []
    if not body:
        return ["no body"] if operation.body.required else []
    if kind not in operation.body.media:
        return [f"a body of {kind}"]
    if kind == "application/json":
        return [each.message for each in operation.body.media[kind].closed().problems(json.loads(body))]
    if kind == "multipart/form-data":
        fields = set(re.findall(rb'form-data; name="([^"\[]*)', body))
        required = operation.body.media[kind].problems({})
        return [each.param for each in required if each.param and each.param.encode() not in fields]
    return []


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The pages of the packaged document, in both formats."""
    directory = tmp_path_factory.mktemp("pages")
    for format in ("md", "html"):
        write(DOCUMENT, directory / format, format=format)
    return directory


def programs(directory):
    for file in sorted(directory.rglob("*.md")):
        for _, language, text in FENCE.findall(file.read_text("utf-8")):
            if language == "python":
                yield pytest.param(text, id=file.stem)


def run_all(document, directory, monkeypatch):
    """Run all programs of the pages against an app that checks what they send; gives the app."""
    app = Checking(document)
    with serve(app) as url:
        monkeypatch.setenv("OPENAI_API_KEY", "key")
        for program in programs(directory):
            there = re.sub(r"with Client\((spec=)?", rf'with Client("{url + app.base}", \1', program.values[0])
            exec(compile(there, str(program.id), "exec"), {})
    return app


def test_every_program_on_the_pages_runs(written, monkeypatch, capsys):
    app = run_all(DOCUMENT, written / "md", monkeypatch)

    streams = [each.id for each in DOCUMENT.operations.values() if each.streams]
    assert sorted(app.called) == sorted([*DOCUMENT.operations, *streams])
    assert sorted(app.streamed) == sorted(streams)
    told = capsys.readouterr().out
    assert "faults" not in told
    assert told.count("'sequence_number': 11") == len(streams)


def test_a_stream_is_shown_event_by_event(written):
    page = (written / "md" / "paths" / "responses-response_id.md").read_text("utf-8")

    assert (
        """    with client.get_response(response_id="response_id", stream=True) as stream:
        for event in stream:
            print(event)
"""
        in page
    )


def test_the_programs_of_another_document_name_it(tmp_path, monkeypatch, capsys):
    assert main(["docs", "--out", str(tmp_path), "--spec", str(ZOO)]) == 0
    document = Document.load(ZOO)

    app = run_all(document, tmp_path, monkeypatch)

    assert sorted(app.called) == sorted(document.operations)
    assert "faults" not in capsys.readouterr().out
    assert f'Client(spec="{ZOO}")' in (tmp_path / "paths" / "animals.md").read_text("utf-8")


def test_the_pages_have_every_operation_and_every_schema(written):
    index = (written / "md" / "index.md").read_text("utf-8")
    schemas = (written / "md" / "schemas" / "index.md").read_text("utf-8")

    assert all(f"[`{each.name}`]" in index for each in DOCUMENT.operations.values())
    assert all(f"| [{name}](" in schemas.replace("\\", "") for name in DOCUMENT.schemas)


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.targets, self.anchors, self.open = [], set(), []

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.targets += [found["href"]] if "href" in found else []
        self.anchors |= {found["id"]} if "id" in found else set()
        self.open += [tag] if tag not in ("meta",) else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def html_links(text):
    links = Links()
    links.feed(text)
    assert not links.open
    return links.targets, links.anchors


def markdown_links(text):
    text = FENCE.sub("", text)
    anchors = {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in re.findall(r"^#+ (.*)$", text, re.M)}
    return re.findall(r"\]\(([^()\s]+)\)", re.sub(r"(`+)(?:(?!\]\().)*?\1(?!\])", "", text)), anchors


@pytest.mark.parametrize(("format", "links"), [("md", markdown_links), ("html", html_links)])
def test_every_link_between_the_pages_leads_somewhere(written, format, links):
    root = written / format
    found = {each.relative_to(root).as_posix(): links(each.read_text("utf-8")) for each in root.rglob(f"*.{format}")}
    inner = 0
    for place, (targets, _) in found.items():
        for target in targets:
            if target.startswith(("http://", "https://")):
                continue
            file, _, anchor = target.partition("#")
            there = posixpath.normpath(posixpath.join(posixpath.dirname(place), file)) if file else place
            assert there in found, (place, target)
            assert not anchor or anchor in found[there][1], (place, target)
            inner += 1

    assert inner > 5000


def test_every_example_of_an_answer_is_allowed_by_its_schema(written):
    shown = 0
    for file in (written / "md" / "paths").iterdir():
        text = file.read_text("utf-8")
        kinds = re.findall(r"^`application/json`, \[([^]]*)\]\(\S*\)\n\n```json\n(.*?)^```$", text, re.M | re.S)
        for name, shown_json in kinds:
            shown += 1
            assert DOCUMENT.schema(name.replace("\\", "")).valid(json.loads(shown_json)), (file.name, name)

    assert shown > 200


def test_every_schema_has_a_sample_that_it_allows():
    for name in DOCUMENT.schemas:
        schema = DOCUMENT.schema(name)
        assert schema.valid(sample(schema, known=False)), name


def test_the_pages_are_the_same_every_time(written, tmp_path):
    write(DOCUMENT, tmp_path)

    for file in tmp_path.rglob("*.md"):
        assert file.read_bytes() == (written / "md" / file.relative_to(tmp_path)).read_bytes()


def test_nothing_in_a_document_becomes_markup(tmp_path):
    evil = '<script>alert("x")</script> & [a](javascript:alert(1)) | `<b>` <img src=x>'
    raw = {
        "openapi": "3.1.0",
        "info": {"title": evil, "version": "1", "description": evil},
        "paths": {
            "/a|b": {
                "get": {
                    "tags": [evil],
                    "summary": evil,
                    "parameters": [{"name": "q|<i>", "in": "query", "description": evil, "schema": {"const": "<u>|"}}],
                    "responses": {"200": {"description": evil}},
                }
            }
        },
    }
    path = tmp_path / "evil.json"
    path.write_text(json.dumps(raw))
    for format in ("md", "html"):
        write(Document.load(path), tmp_path / format, format=format)

    for file in tmp_path.rglob("*.html"):
        text = file.read_text("utf-8")
        assert not re.search(r"<(script|img|b|i|u)\b", text)
        targets, _ = html_links(text)
        assert not [each for each in targets if "javascript" in each]
    for file in tmp_path.rglob("*.md"):
        plain = re.sub(r"(`+).*?\1", "", file.read_text("utf-8"))
        assert not re.search(r"<\w|(?<!\\)\]\(javascript", plain)
        tables = [line for line in plain.splitlines() if line.startswith("| ")]
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in tables}) <= 1


def test_a_parameter_has_its_place_type_default_and_meaning(tmp_path):
    write(Document.load(ZOO), tmp_path)
    page = (tmp_path / "paths" / "animals.md").read_text("utf-8")

    assert "| `limit` | query | integer, at least 1, at most 50 |  | `20` | How many, at most. |" in page
    assert "| `kind` | query | [Kind](../schemas/Kind.md) |  |  | Only these. |" in page


def test_nested_fields_stand_below_their_object(tmp_path):
    write(Document.load(ZOO), tmp_path)
    page = (tmp_path / "paths" / "animals.md").read_text("utf-8")

    assert "- `name`: string, at least 1 characters, required. What it is called." in page
    assert "- `home`: object. Where it lives.\n  - `house`: string, required\n  - `box`: integer or null" in page
    assert "- `parents`: array of [Animal](../schemas/Animal.md)" in page


def test_callers_read_how_they_are_known(tmp_path):
    write(Document.load(ZOO), tmp_path)
    page = (tmp_path / "paths" / "animals.md").read_text("utf-8")

    assert "Callers are known by HTTP bearer, or a key in the header `x-key` and a key in the cookie `session`." in page


def test_the_example_of_the_document_is_shown_only_if_it_is_one(tmp_path):
    write(Document.load(ZOO), tmp_path)
    page = (tmp_path / "paths" / "animals-animal-id.md").read_text("utf-8")

    assert '"name": "Rex"' in page
    assert '"wrong"' not in page


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string", "minLength": 24}, "a" * 24),
        ({"type": "string", "pattern": "^[A-Z]+$"}, "A"),
        ({"type": "string", "pattern": r"^(id|ID)_[0-9a-f]{4}(-\w)?-[^a]\.\d+.$"}, "id_0000-1.1a"),
        ({"type": "string", "format": "date"}, "2026-01-31"),
        ({"type": "integer", "minimum": 5}, 5),
        ({"type": "integer", "maximum": -5}, -5),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, 0.5),
        ({"type": "integer", "multipleOf": 10}, 10),
        ({"type": "array", "items": {"enum": ["a"]}, "minItems": 2}, ["a", "a"]),
        ({"anyOf": [{"type": "null"}, {"const": 7}]}, 7),
        ({"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}, {"a": True}),
        ({"type": "string", "default": "usual"}, "usual"),
        ({"type": "array", "items": {"type": "integer"}, "maxItems": 0}, []),
    ],
)
def test_a_sample_is_small_and_allowed(schema, value):
    assert sample(Schema(schema, DOCUMENT.named)) == value


def test_no_sample_is_better_than_a_wrong_one():
    with pytest.raises(NoSample):
        sample(Schema({"type": "string", "pattern": r"^(a|b)\1$", "minLength": 9}, DOCUMENT.named))


def test_what_the_client_itself_has_is_called_by_its_id():
    operation = DOCUMENT.operation("listModels")

    assert 'client.call("listModels")' in (example(operation, Caller(taken=frozenset(["list_models"]))) or "")


def test_long_values_are_written_over_several_lines():
    value = {"name": "x" * 60, "items": ["y" * 60, None, True, 1.5], "empty": {}}
    text = literal(value)

    assert eval(text) == value
    assert text.count("\n") == 4
    assert literal("it's") == '"it\'s"'


@pytest.mark.parametrize(
    ("markdown", "read"),
    [
        ("One\ntwo.\n\nThree.", (Paragraph((Span("One two."),)), Paragraph((Span("Three."),)))),
        ("- a\n  b\n\n- c", (Bullets((Entry((Span("a b"),)), Entry((Span("c"),)))),)),
        ("Of:\n1. `a`", (Paragraph((Span("Of:"),)), Bullets((Entry((Span("a", "code"),)),)))),
        ("```py\nx = 1\n```", (Listing("py", "x = 1"),)),
        ("## Head ##\ntext", (Paragraph((Span("Head", "strong"),)), Paragraph((Span("text"),)))),
        ("[a](/b) [c](https://d.test/(e))", (Paragraph((Span("a"), Span(" "), Span("c", href="https://d.test/(e)"))),)),
        (
            "**b** <https://x.test>",
            (Paragraph((Span("b", "strong"), Span(" "), Span("https://x.test", href="https://x.test"))),),
        ),
        ("[a](javascript:x) *b* <i>", (Paragraph((Span("a"), Span(" *b* <i>"))),)),
        ("", ()),
    ],
)
def test_descriptions_are_read_as_markdown(markdown, read):
    assert blocks(markdown) == read


def test_places_are_distinct_on_every_file_system():
    names = ["/a/{b}", "/a/b", "/A/b", "/", "/é", "x" * 300, "x" * 301, "../../etc/passwd"]
    places = placed("paths", names)

    assert len({place.lower() for place in places.values()}) == len(names)
    assert places["/a/{b}"] == "paths/a-b"
    assert all(re.fullmatch(r"paths/[\w-][\w.-]*", place, re.ASCII) for place in places.values())


def test_the_command_gives_the_index_and_says_no_more(tmp_path, capsys):
    assert main(["docs", "--out", str(tmp_path / "new" / "pages"), "--format", "html", "--spec", str(ZOO)]) == 0
    said = capsys.readouterr()

    assert said.out == f"{tmp_path / 'new' / 'pages' / 'index.html'}\n"
    assert said.err == ""


def test_a_directory_that_cannot_be_written_is_told(tmp_path, capsys):
    (tmp_path / "file").write_text("")

    assert main(["docs", "--out", str(tmp_path / "file"), "--spec", str(ZOO)]) == 2
    assert "--out" in capsys.readouterr().err

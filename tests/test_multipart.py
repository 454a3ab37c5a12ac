"""Forms with files: what goes over the wire, what is refused, and that no file is held or lost."""

import io
import json
import os
import re
from pathlib import Path

import httpx2
import pytest

from antiphon import AsyncClient, Client, ConnectionFailed, InvalidRequest, ServerError
from antiphon.client.upload import CHUNK_BYTES, Upload, content, multipart
from antiphon.spec import Document
from tests.servers.api import ApiServer, echo, error, slamming
from tests.servers.running import serve

ODD = Path(__file__).parent / "documents" / "odd.yaml"


@pytest.fixture
def server():
    return ApiServer()


@pytest.fixture
def client(server):
    with Client(app=server, max_retries=0) as client:
        yield client


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "lines.json"
    path.write_bytes(b'{"a": 1}\n')
    return path


def sent(client, operation, **arguments):
    """The parts of the form, as the server read them."""
    return client.call(operation, **arguments)["body"]


def part(name, data, *, filename=None, kind=None):
    return {"name": name, "filename": filename, "type": kind, "data": data}


def test_a_path_is_sent_under_its_name_and_type(client, lines):
    assert sent(client, "createFile", file=lines, purpose="batch") == [
        part("file", '{"a": 1}\n', filename="lines.json", kind="application/json"),
        part("purpose", "batch"),
    ]


@pytest.mark.parametrize("value", [b"abc", bytearray(b"abc"), memoryview(b"abc"), io.BytesIO(b"abc")])
def test_bytes_need_no_name(client, value):
    first = sent(client, "createFile", file=value, purpose="batch")[0]

    assert first == part("file", "abc", filename="upload", kind="application/octet-stream")


@pytest.mark.parametrize("make", [bytes, io.BytesIO])
@pytest.mark.parametrize(("given", "kind"), [((), "image/png"), (("text/x-odd",), "text/x-odd")])
def test_a_tuple_gives_name_and_type(client, make, given, kind):
    first = sent(client, "createFile", file=("dir/a.png", make(b"abc"), *given), purpose="vision")[0]

    assert first == part("file", "abc", filename="dir/a.png", kind=kind)


def test_a_tuple_may_name_what_is_on_the_disk(client, lines):
    assert sent(client, "createFile", file=("b.txt", lines), purpose="batch")[0]["filename"] == "b.txt"


def test_an_open_file_is_sent_from_where_it_stands_and_stays_open(client, lines):
    with lines.open("rb") as file:
        file.seek(4)
        first = sent(client, "createFile", file=file, purpose="batch")[0]

        assert not file.closed
    assert first == part("file", ": 1}\n", filename="lines.json", kind="application/json")


def test_a_name_cannot_leave_its_line(client):
    name = 'a"\r\nX: y.png'
    form = client.raw.create_file(file=(name, b"x", "a/b\r\nX: y"), purpose="batch").json()["body"]

    assert [each["name"] for each in form] == ["file", "purpose"]
    assert form[0]["filename"] == "a%22%0D%0AX: y.png"
    assert form[0]["type"] == "a/b  X: y"


def test_arrays_and_objects_are_written_in_brackets(client):
    form = sent(client, "createImageEdit", image=[b"1", ("b.png", b"2")], prompt="brighter", n=2)
    options = sent(
        client, "createFile", file=b"x", purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )

    assert [(each["name"], each["data"]) for each in form] == [
        ("image[]", "1"),
        ("image[]", "2"),
        ("prompt", "brighter"),
        ("n", "2"),
    ]
    assert [(each["name"], each["data"]) for each in options[2:]] == [
        ("expires_after[anchor]", "created_at"),
        ("expires_after[seconds]", "3600"),
    ]


def test_one_file_where_many_may_be_is_one(client):
    assert sent(client, "createImageEdit", image=b"1", prompt="brighter")[0]["name"] == "image"


def test_booleans_are_words_and_nothing_is_left_out(client):
    form = sent(client, "CreateSkillVersion", skill_id="s", files=[("a/SKILL.md", b"1")], default=True)
    variation = sent(client, "createImageVariation", image=b"1", n=None)

    assert form[1] == part("default", "true")
    assert form[0]["name"] == "files[]"
    assert [each["name"] for each in variation] == ["image"]


def test_two_texts_in_a_tuple_are_no_file(client):
    fields = {"timestamp_granularities": ("word", "segment"), "response_format": "verbose_json"}
    form = sent(client, "createTranscription", file=b"x", model="whisper-1", **fields)

    assert [each["data"] for each in form if each["name"] == "timestamp_granularities[]"] == ["word", "segment"]


def test_fields_with_a_type_of_their_own_have_it(client):
    form = sent(client, "create-realtime-call", sdp="v=0", session={"type": "realtime", "model": "gpt-realtime"})

    assert form[0] == part("sdp", "v=0", kind="application/sdp")
    assert (form[1]["type"], form[1]["data"]) == ("application/json", '{"type": "realtime", "model": "gpt-realtime"}')


def test_the_document_says_which_type_a_field_has(server):
    with Client(spec=ODD, app=server) as client:
        form = sent(client, "hand_in", paper=("a.pdf", b"x"), about={"pages": [1]}, notes="*so*", title="T")

    assert form == [
        part("paper", "x", filename="a.pdf", kind="application/pdf"),
        part("about", '{"pages": [1]}', kind="application/json"),
        part("notes", "*so*", kind="text/markdown"),
        part("title", "T"),
    ]


def test_a_part_of_a_document_keeps_the_types_of_fields(server, tmp_path):
    file = tmp_path / "part.json"
    file.write_text(json.dumps(Document.load(ODD).subset(["hand_in"], server_url="/v1")))
    with Client(spec=file, app=server) as client:
        assert sent(client, "hand_in", notes="*so*") == [part("notes", "*so*", kind="text/markdown")]


def test_a_body_that_is_no_form_is_sent_as_it_is(client):
    seen = client.create_realtime_call(body="v=0")

    assert (seen["headers"]["content-type"], seen["body"]) == ("application/sdp", "v=0")


def test_what_can_be_json_is_json_until_it_holds_a_file(client):
    asked = client.create_video(prompt="tides", input_reference={"file_id": "file_1"})
    with_file = client.create_video(prompt="tides", input_reference=b"x")

    assert asked["headers"]["content-type"] == "application/json"
    assert with_file["headers"]["content-type"].startswith("multipart/form-data; boundary=")


def test_the_body_may_hold_the_files(client):
    assert sent(client, "createFile", body={"file": b"x"}, purpose="batch")[0]["data"] == "x"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"purpose": "batch"}, "Missing required parameter: 'file'."),
        ({"file": b"x", "purpose": "fun"}, "Invalid value: 'fun'."),
        ({"file": "lines.json", "purpose": "batch"}, r"Invalid type for 'file': expected a file \(a Path"),
        ({"file": b"x", "purpose": b"batch"}, "Invalid type for 'purpose': expected a string, but got a file instead."),
        ({"file": Path("no/such.txt"), "purpose": "batch"}, "no/such.txt cannot be read: No such file or directory."),
        ({"file": b"x", "purpose": "batch", "purpos": "x"}, "Unknown parameter: 'purpos'."),
        ({"file": io.StringIO("x"), "purpose": "batch"}, "upload is open as text"),
    ],
)
def test_nothing_is_sent_of_a_faulty_form(client, server, fields, message):
    with pytest.raises(InvalidRequest, match=message):
        client.create_file(**fields)
    assert server.requests == []


def test_a_string_among_files_is_refused_at_its_place(client):
    with pytest.raises(InvalidRequest, match=r"Invalid type for 'image\[1\]': expected a file"):
        client.create_image_edit(image=[b"1", "2.png"], prompt="brighter")


def test_a_body_of_bytes_cannot_be_made_of_anything_else(client):
    with pytest.raises(InvalidRequest, match="takes a body of multipart/form-data or application/sdp"):
        client.create_realtime_call(body=7)


async def test_a_large_file_goes_over_a_socket_piece_by_piece(server, tmp_path):
    path = tmp_path / "large.bin"
    data = os.urandom(1000) * 2000
    path.write_bytes(data)
    with serve(server) as url:
        with Client(f"{url}/v1") as client:
            client.create_file(file=path, purpose="batch")
        async with AsyncClient(f"{url}/v1") as client:
            await client.create_file(file=path, purpose="batch")

    for request in server.requests:
        assert request.body[0]["data"] == data.decode("latin-1")
        assert int(request.headers["content-length"]) == len(request.raw)


def test_a_file_is_never_read_whole(tmp_path):
    path = tmp_path / "sparse.bin"
    with path.open("wb") as file:
        file.truncate(10 * CHUNK_BYTES)

    kind, upload = multipart({}, {})
    sizes = [len(chunk) for chunk in Upload([content(path)])]

    assert sizes == [CHUNK_BYTES] * 10
    assert re.fullmatch(r"multipart/form-data; boundary=[0-9a-f]{32}", kind)
    assert upload.size == len(b"".join(upload))


class Pipe(io.RawIOBase):
    """What can only be read once."""

    def __init__(self, data):
        self._data = io.BytesIO(data)

    def readable(self):
        return True

    def read(self, size=-1):
        return self._data.read(size)


async def test_what_has_no_known_size_is_sent_all_the_same(server):
    with serve(server) as url:
        with Client(f"{url}/v1") as client:
            client.create_file(file=Pipe(b"abc"), purpose="batch")
        async with AsyncClient(f"{url}/v1") as client:
            await client.create_file(file=Pipe(b"abc"), purpose="batch")

    for request in server.requests:
        assert request.headers["transfer-encoding"] == "chunked"
        assert request.body[0]["data"] == "abc"


@pytest.mark.parametrize(
    "make", [lambda path: path, lambda path: path.read_bytes(), lambda path: io.BytesIO(path.read_bytes())]
)
def test_a_form_is_sent_again_if_its_files_can_be(server, lines, make):
    server.plan.extend([error(503, headers={"retry-after-ms": "1"}), echo])
    with Client(app=server) as client:
        form = sent(client, "createFile", file=make(lines), purpose="batch")

    assert form[0]["data"] == '{"a": 1}\n'
    assert server.requests[0].raw == server.requests[1].raw


def test_a_form_is_not_sent_again_if_a_file_cannot_be(server):
    server.plan.append(error(503, headers={"retry-after-ms": "1"}))
    with Client(app=server) as client, pytest.raises(ServerError):
        client.create_file(file=Pipe(b"abc"), purpose="batch")

    assert len(server.requests) == 1


def test_a_file_that_was_not_begun_to_be_sent_can_be(server):
    """Where no connection could be made nothing of the file is used up."""
    with slamming() as (url, _):
        pass
    file = Pipe(b"abc")
    with Client(f"{url}/v1", max_retries=0) as client, pytest.raises(ConnectionFailed) as caught:
        client.create_file(file=file, purpose="batch")

    assert not caught.value.sent
    assert file.read() == b"abc"


def test_a_file_that_changes_while_it_is_sent_is_told(server, lines):
    def shrink(request: httpx2.Request) -> None:
        lines.write_bytes(b"")

    with (
        serve(server) as url,
        Client(f"{url}/v1", on_request=shrink) as client,
        pytest.raises(InvalidRequest, match=r"lines\.json became shorter while it was sent"),
    ):
        client.create_file(file=lines, purpose="batch")


def test_a_plain_form_is_written_as_one(server):
    with Client(spec=ODD, app=server) as client:
        seen = client.fill(tags=["a", "b c"], on=True)

    assert seen["body"] == [["tags[]", "a"], ["tags[]", "b c"], ["on", "true"]]

"""The disk is full, read-only, broken or slow; files vanish; the database goes away.

Nothing that was shown is lost, who calls is told, and all goes on by itself when the cause is gone.
"""

from __future__ import annotations

import asyncio
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import apsw
import httpx2
import msgspec
import pytest
import websockets

from antiphon.errors import StoreError
from antiphon.server import readiness
from antiphon.settings import Settings
from antiphon.store.postgres import PostgresStore
from antiphon.store.sqlite import SqliteStore
from tests.contracts.store import new, running, segment
from tests.servers import postgres
from tests.servers.antiphon import (
    QUICK,
    Antiphon,
    App,
    Process,
    created,
    creating,
    events,
    faults,
    following,
    replayed,
)
from tests.servers.chat import SECONDS_MAX, ChatServer
from tests.servers.failing_vfs import Disk, failing_disk
from tests.servers.running import serve

FAULTS = ["full", "read_only", "write_fails", "sync_fails"]


@contextmanager
def at_work(database: str, **settings: Any) -> Iterator[Antiphon]:
    """A node in a thread, of which every answer must have the documented form; it may log errors."""
    upstream = ChatServer()
    with ExitStack() as stack:
        base = stack.enter_context(serve(upstream))
        app = App(Settings(**{**QUICK, "upstream": f"{base}/v1", "database": database, **settings}))
        yield Antiphon(stack.enter_context(serve(app, lifespan="on")) + "/v1", upstream)
    found = [fault for answer in app.answers if answer.path != "/readyz" for fault in faults(answer)]
    assert not found, "\n".join(found)


@pytest.fixture
def disk() -> Iterator[Disk]:
    with failing_disk() as disk:
        yield disk


@pytest.fixture
def server(disk: Disk, tmp_path: Path) -> Iterator[Antiphon]:
    with at_work(f"sqlite:///{tmp_path / 'antiphon.db'}", durability="full") as server:
        yield server


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores give up at once what they would try again for a minute."""
    monkeypatch.setitem(SqliteStore.__init__.__kwdefaults__ or {}, "append_seconds", 0.0)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  # other threads make it true
        await asyncio.sleep(0)


async def refusals(disk: Disk, count: int = 20) -> None:
    """Return when the disk has refused so often since now."""
    least = disk.refused + count
    await until(lambda: disk.refused >= least)


async def ended(http: httpx2.AsyncClient, response_id: str) -> dict[str, Any]:
    """The response, when it has come to its end."""
    said = events(await replayed(http, response_id))
    assert [event["sequence_number"] for event in said] == list(range(len(said)))
    response: dict[str, Any] = said[-1]["response"]
    return response


def text_of(response: dict[str, Any]) -> str:
    return "".join(part["text"] for item in response["output"] for part in item.get("content", ()))


async def ready(http: httpx2.AsyncClient) -> tuple[int, str]:
    answer = await http.get(str(http.base_url).replace("/v1/", "/readyz"))
    return answer.status_code, answer.json()["status"]


def check_unavailable(answer: httpx2.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert answer.headers["retry-after"] == "5"
    assert answer.json()["error"] == {
        "message": "The server cannot use its database at the moment. Please try again later.",
        "type": "server_error",
        "param": None,
        "code": None,
    }


@pytest.mark.parametrize("fault", FAULTS)
class TestDiskThatTakesNothing:
    async def test_calls_that_write_are_told_to_come_again_and_others_are_answered(
        self, server: Antiphon, disk: Disk, fault: str
    ) -> None:
        async with server.http() as http:
            kept = await created(http, "text:Kept")
            path = f"/responses/{kept['id']}"
            assert await ready(http) == (200, "ready")

            setattr(disk, fault, True)
            for body in ({}, {"stream": True}, {"background": True}):
                check_unavailable(await http.post("/responses", json={"model": "text", "input": "Hi", **body}))
            check_unavailable(await http.post("/conversations", json={}))
            check_unavailable(await http.delete(path))
            assert (await ready(http))[0] == 503
            assert (await http.get(path)).json() == kept
            assert (await ended(http, kept["id"])) == kept

            disk.well()
            assert await ready(http) == (200, "ready")
            again = await created(http, "text:Again")
            listed = (await http.get("/responses")).json()["data"]
            assert [each["id"] for each in listed] == [again["id"], kept["id"]]
            assert (await http.delete(path)).status_code == 200

    @pytest.mark.parametrize("background", [False, True])
    async def test_a_running_response_goes_on_where_it_was(
        self, server: Antiphon, disk: Disk, fault: str, background: bool
    ) -> None:
        async with server.http() as http, creating(http, "gate:2:2", background=background) as stream:
            await stream.deltas(2)
            setattr(disk, fault, True)
            (await server.upstream.request(1)).release()
            await refusals(disk)
            check_unavailable(await http.post(f"/responses/{stream.response_id}/cancel"))
            disk.well()
            await stream.rest()
            response = await ended(http, stream.response_id)
            whole = await replayed(http, stream.response_id)

        assert (response["status"], text_of(response)) == ("completed", " 0 1 and and")
        assert whole == stream.raw
        assert len(server.upstream.requests) == 1

    async def test_a_plain_create_waits_with_its_response(self, server: Antiphon, disk: Disk, fault: str) -> None:
        async with server.http() as http:
            creation = asyncio.create_task(created(http, "gate:2:2"))
            asking = await server.upstream.request(1)
            setattr(disk, fault, True)
            asking.release()
            await refusals(disk)
            disk.well()

            assert text_of(await creation) == " 0 1 and and"

    async def test_a_response_that_was_given_up_is_taken_over(
        self, impatient: None, disk: Disk, fault: str, tmp_path: Path
    ) -> None:
        """The disk fails for longer than an append waits: its worker stops, and another one begins when it is well."""
        database = f"sqlite:///{tmp_path / 'antiphon.db'}"
        with at_work(database, durability="full", lease_seconds=0.5) as server:
            async with server.http() as http, creating(http, "paced:50:10ms") as stream:
                await stream.deltas(2)
                setattr(disk, fault, True)
                asked = await server.upstream.request(1)
                await until(lambda: asked.closed)
                disk.well()
                await stream.rest()
                response = await ended(http, stream.response_id)
                whole = await replayed(http, stream.response_id)

        assert (response["status"], text_of(response)) == ("completed", "".join(f" {n}" for n in range(50)))
        assert whole == stream.raw
        assert len(server.upstream.requests) == 2


async def test_over_a_websocket_the_same_is_told(server: Antiphon, disk: Disk) -> None:
    url = server.url.replace("http", "ws", 1) + "/responses"
    create = {"type": "response.create", "model": "text:Hello", "input": "Hi"}
    async with websockets.connect(url) as socket:
        disk.full = True
        await socket.send(msgspec.json.encode(create).decode())
        refused = msgspec.json.decode(await socket.recv())
        disk.well()
        await socket.send(msgspec.json.encode(create).decode())
        said = [msgspec.json.decode(await socket.recv())]
        while said[-1]["type"] != "response.completed":
            said.append(msgspec.json.decode(await socket.recv()))

    assert (refused["type"], refused["status"], refused["error"]["type"]) == ("error", 503, "server_error")
    assert said[0]["type"] == "response.created"


async def test_who_follows_waits_while_nothing_can_be_read(server: Antiphon, disk: Disk) -> None:
    async with server.http() as http, creating(http, "gate:2:2", background=True) as stream:
        await stream.deltas(2)
        async with following(http, stream.response_id) as follower:
            await follower.deltas(2)
            disk.read_fails = disk.write_fails = True
            (await server.upstream.request(1)).release()
            await refusals(disk)
            disk.well()
            whole = await follower.rest()
        assert await stream.rest() == whole
        assert (await ended(http, stream.response_id))["status"] == "completed"


PAGE_BYTES = 4096


def damage(database: Path, text: bytes) -> None:
    """Break the pages that hold nothing but a part of this text: their links lead out of the file."""
    # A page of a b-tree does not begin with a zero; a link to one of the next pages of a small file does.
    raw = bytearray(database.read_bytes())
    whole = 0
    for begin in range(0, len(raw), PAGE_BYTES):
        if not raw[begin] and raw[begin + 4 : begin + PAGE_BYTES].count(text) > 100:
            raw[begin : begin + 4] = b"\xff" * 4
            whole += 1
    assert whole
    database.write_bytes(raw)


class TestDamagedPage:
    @pytest.fixture
    async def ids(self, tmp_path: Path) -> list[str]:
        """Three finished responses, the second of them damaged."""
        with at_work(f"sqlite:///{tmp_path / 'antiphon.db'}") as server:
            async with server.http() as http:
                texts = [word * 4000 for word in ("first ", "second ", "third ")]
                ids = [(await created(http, "echo", input=text))["id"] for text in texts]
        damage(tmp_path / "antiphon.db", b"second ")
        return ids

    async def test_only_what_is_damaged_cannot_be_read(self, ids: list[str], tmp_path: Path) -> None:
        first, second, third = ids
        with at_work(f"sqlite:///{tmp_path / 'antiphon.db'}") as server:
            async with server.http() as http:
                damaged = await http.get(f"/responses/{second}")
                continued = await http.post(
                    "/responses", json={"model": "text", "input": "Hi", "previous_response_id": second}
                )
                assert [damaged.status_code, continued.status_code] == [500, 500]
                assert "retry-after" not in damaged.headers
                for id in (first, third):
                    assert (await http.get(f"/responses/{id}/input_items")).status_code == 200
                    assert text_of(await created(http, "text:More", previous_response_id=id)) == "More"
                    assert (await http.delete(f"/responses/{id}")).status_code == 200
                assert await ready(http) == (200, "ready")

    async def test_the_others_expire(self, ids: list[str], tmp_path: Path) -> None:
        store = SqliteStore(str(tmp_path / "antiphon.db"), now=lambda: 1e11)
        await store.open()

        upkeep = store.upkeep
        gone = [await upkeep.expire(limit=2) for _ in range(3)]

        assert gone == [[("default", ids[0])], [("default", ids[2])], []]
        await store.close()

    async def test_the_others_are_compacted(self, ids: list[str], tmp_path: Path) -> None:
        store = SqliteStore(str(tmp_path / "antiphon.db"))
        await store.open()

        upkeep, failures = store.upkeep, 0
        more = True
        while more:
            try:
                more = await upkeep.compact(settled_seconds=-60)
            except StoreError:
                failures += 1

        assert failures == 1
        await store.close()


class TestVanishedFiles:
    @pytest.mark.parametrize("suffix", ["", "-wal"])
    async def test_nothing_is_acknowledged_that_would_be_written_into_a_deleted_file(
        self, suffix: str, tmp_path: Path
    ) -> None:
        database = tmp_path / "antiphon.db"
        with at_work(f"sqlite:///{database}", lease_seconds=0.5) as server:
            async with server.http() as http:
                kept = await created(http, "text:Kept")
                async with creating(http, "paced:50:10ms") as stream:
                    await stream.deltas(2)
                    moved = (tmp_path / f"antiphon.db{suffix}").rename(tmp_path / "moved")

                    refused = await http.post("/responses", json={"model": "text", "input": "Hi"})
                    assert refused.status_code == 500
                    status, message = await ready(http)
                    assert status == 503
                    assert f"antiphon.db{suffix} was moved, deleted or replaced" in message
                    asked = await server.upstream.request(2)
                    await until(lambda: asked.closed)

                    moved.rename(tmp_path / f"antiphon.db{suffix}")
                    await stream.rest()
                assert await ready(http) == (200, "ready")
                response = await ended(http, stream.response_id)
                listed = (await http.get("/responses")).json()["data"]

        assert response["status"] == "completed"
        assert [each["id"] for each in listed] == [response["id"], kept["id"]]

    async def test_another_database_in_its_place_is_left_alone(self, tmp_path: Path) -> None:
        database = tmp_path / "antiphon.db"
        with at_work(f"sqlite:///{database}") as server:
            async with server.http() as http:
                kept = await created(http, "text:Kept")
                shutil.copy(database, tmp_path / "copy")
                (tmp_path / "copy").rename(database)
                before = database.read_bytes()

                refused = await http.post("/responses", json={"model": "text", "input": "Hi"})
                assert refused.status_code == 500
                assert (await http.get(f"/responses/{kept['id']}")).json() == kept
                assert database.read_bytes() == before


class TestLogThatCannotBeEmptied:
    async def test_a_reader_that_stays_stops_nobody(self, server: Antiphon, disk: Disk, tmp_path: Path) -> None:
        """While it reads an old state the write-ahead log grows; when it is gone, what was deleted leaves the files."""
        database = tmp_path / "antiphon.db"
        reader = apsw.Connection(str(database))
        async with server.http() as http:
            secret = await created(http, "text", input="secret " * 2000)
            reader.execute("BEGIN; SELECT count(*) FROM responses").fetchall()
            assert (await http.delete(f"/responses/{secret['id']}")).status_code == 200
            responses = [await created(http, "burst:2000") for _ in range(3)]
            assert [each["status"] for each in responses] == ["completed"] * 3
            assert await ready(http) == (200, "ready")
            assert b"secret secret" in (tmp_path / "antiphon.db-wal").read_bytes() + database.read_bytes()

            reader.close()
            await until(lambda: not (tmp_path / "antiphon.db-wal").stat().st_size)

        assert b"secret secret" not in database.read_bytes()


class TestSlowDisk:
    async def test_what_can_be_read_is_read_and_what_is_written_comes_when_it_can(
        self, server: Antiphon, disk: Disk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(readiness, "CHECK_SECONDS", 0.05)
        async with server.http() as http, creating(http, "gate:2:2") as stream:
            await stream.deltas(2)
            with disk.hanging():
                (await server.upstream.request(1)).release()
                creation = asyncio.create_task(created(http, "text:Late"))
                assert await ready(http) == (503, "the database takes longer than 0.05 s for a write")
                answer = await http.get(f"/responses/{stream.response_id}")
                assert (answer.status_code, answer.json()["status"]) == (200, "in_progress")
                assert not creation.done()
            await stream.rest()

            assert stream.events[-1]["type"] == "response.completed"
            assert text_of(await creation) == "Late"
            assert (await ready(http))[0] == 200

    async def test_what_waits_for_it_has_a_limit(self, disk: Disk, tmp_path: Path) -> None:
        store = SqliteStore(str(tmp_path / "antiphon.db"))
        await store.open()
        claim = await running(store)
        request = b'"%s"' % (b"x" * (1 << 20))
        with disk.hanging():
            creates = [
                asyncio.create_task(store.create("alice", new(f"resp_{n}", request=request))) for n in range(2, 40)
            ]
            append = asyncio.create_task(store.append(claim, [segment(1)]))
            assert store._writer is not None
            writer = store._writer
            await until(lambda: writer.full)
            await asyncio.sleep(0)
            assert writer.waiting_bytes < 10 << 20
        await asyncio.gather(append, *creates)
        assert (await store.get("alice", "resp_39")).request == request
        await store.close()


class TestFullFileSystem:
    """A file system that is really full: a small one, in memory, that only the server sees."""

    @pytest.fixture
    def start(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Small]]:
        if not may_mount(tmp_path):
            pytest.skip("nothing can be mounted here")
        started: list[Small] = []
        upstream = ChatServer()

        with serve(upstream) as url:

            def start(prepare: str = "true") -> Small:
                started.append(Small(url, tmp_path, prepare, monkeypatch))
                return started[-1]

            yield start
            for process in started:
                process.close()

    def test_a_server_that_cannot_start_says_why(self, start: Callable[[str], Small], tmp_path: Path) -> None:
        full = in_small(f"cat /dev/zero > filler; exec {sys.executable}")
        command = [*full, "-m", "antiphon", "serve", "--port", "0", "--database", "sqlite:///antiphon.db"]
        refused = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS_MAX, check=False
        )

        assert refused.returncode == 1
        assert re.search(r"^antiphon: antiphon\.db: .*(full|No space left)", refused.stderr, re.MULTILINE)
        assert "Traceback" not in refused.stderr

    async def test_what_was_shown_is_there_when_there_is_room_again(self, start: Callable[[str], Small]) -> None:
        server = start("head -c 4M /dev/zero > filler")
        async with server.http() as http, creating(http, "paced:200:5ms", background=True) as stream:
            await stream.deltas(3)
            kept: list[str] = []
            while (answer := await post(http, "x" * 200_000, background=True)).status_code == 200:
                kept.append(answer.json()["id"])
            check_unavailable(answer)

            (server.directory / "filler").unlink()
            await stream.rest()
            assert stream.events[-1]["type"] == "response.completed"
            assert await ready(http) == (200, "ready")
            for id in kept:
                assert (await ended(http, id))["status"] == "completed"
            assert (await post(http, "x" * 200_000)).status_code == 200


async def post(http: httpx2.AsyncClient, text: str, **body: Any) -> httpx2.Response:
    return await http.post("/responses", json={"model": "text:Yes", "input": text, **body})


def in_small(script: str) -> list[str]:
    """The command that runs a shell's script in a file system of 8 MB, mounted over the current directory; arguments
    behind it are those of the script's last command.
    """
    mounted = f'mount -t tmpfs -o size=8m antiphon-tests . && cd "$PWD" && {{ {script} "$@"; }}'
    return ["unshare", "--map-root-user", "--mount", "sh", "-c", mounted, "sh"]


def may_mount(directory: Path) -> bool:
    if shutil.which("unshare") is None:
        return False
    return not subprocess.run(in_small("true"), cwd=directory, capture_output=True, check=False).returncode


class Small(Process):
    """A server whose directory is a file system of 8 MB; `prepare` is done there before it starts."""

    def __init__(self, upstream: str, directory: Path, prepare: str, monkeypatch: pytest.MonkeyPatch) -> None:
        launcher = directory.parent / f"{directory.name}-launcher"
        command = shlex.join(in_small(f"{prepare}; exec {sys.executable}"))
        launcher.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        launcher.chmod(0o700)
        with monkeypatch.context() as patched:
            patched.setattr(sys, "executable", str(launcher))
            super().__init__(upstream, directory, "--poll-seconds", "0.05", "--lease-renew-seconds", "0.1")
        self.directory = Path(f"/proc/{self._process.pid}/cwd")


class Line(postgres.Wire):
    """A way to PostgreSQL that is cut, and stays cut until it is mended."""

    away = False

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.away:
            writer.transport.abort()
        else:
            await super()._connected(reader, writer)

    def fall(self) -> None:
        self.away = True
        self.cut()


@pytest.fixture(scope="module")
def postgres_url() -> Iterator[str]:
    with postgres.any_server() as url:
        yield url


@pytest.fixture
async def line(postgres_url: str) -> AsyncIterator[Line]:
    database = await postgres.create_database(postgres_url)
    line = Line(database)
    yield line
    await line.close()
    await postgres.drop_database(postgres_url, database)


@asynccontextmanager
async def at_work_over(line: Line) -> AsyncIterator[Antiphon]:
    """A node in a thread, while this one's loop passes on what it says to its database."""
    working = at_work(await line.open())
    server = await asyncio.to_thread(working.__enter__)
    try:
        yield server
    finally:
        line.away = False
        await asyncio.to_thread(working.__exit__, None, None, None)


class TestPostgresAway:
    @pytest.fixture(autouse=True)
    def quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(PostgresStore.__init__.__kwdefaults__ or {}, "call_seconds", 0.2)

    async def test_a_stream_goes_on_over_a_cut(self, line: Line) -> None:
        async with at_work_over(line) as server, server.http() as http:
            async with creating(http, "paced:60:5ms") as stream:
                for count in (5, 20, 40):
                    await stream.deltas(count)
                    line.cut()
                await stream.rest()
            response = await ended(http, stream.response_id)
            whole = await replayed(http, stream.response_id)

        assert (response["status"], text_of(response)) == ("completed", "".join(f" {n}" for n in range(60)))
        assert whole == stream.raw
        assert len(server.upstream.requests) == 1

    async def test_while_it_is_away_calls_are_told_to_come_again_and_what_runs_waits(self, line: Line) -> None:
        async with at_work_over(line) as server, server.http() as http:
            async with creating(http, "gate:2:2", background=True) as stream:
                await stream.deltas(2)
                line.fall()
                (await server.upstream.request(1)).release()
                check_unavailable(await post(http, "Hi"))
                check_unavailable(await http.get(f"/responses/{stream.response_id}"))
                assert (await ready(http))[0] == 503

                line.away = False
                await stream.rest()
            assert stream.events[-1]["type"] == "response.completed"
            assert await ready(http) == (200, "ready")
            assert (await ended(http, stream.response_id))["status"] == "completed"
            assert (await post(http, "Hi")).status_code == 200

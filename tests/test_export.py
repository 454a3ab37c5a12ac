"""Moving a store: the contract, the form of the file, and the commands."""

from __future__ import annotations

import asyncio
import io
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import asyncpg
import msgspec
import pytest

from antiphon.cli import main
from antiphon.errors import NotFound, StoreError
from antiphon.store.base import Ending, Tokens
from antiphon.store.portable import ApiKey, Exact, Item, Note, Prompt, Secret, Segment, batches
from antiphon.store.portable_file import Decoder, Encoder
from antiphon.store.postgres import PostgresStore
from antiphon.store.sql import queries
from antiphon.store.sqlite import SqliteStore
from tests.contracts.portable import PortableContract, dumped, fill, given, seen
from tests.contracts.store import ending, item, running, turn
from tests.servers import postgres
from tests.servers.antiphon import antiphon, created, creating, replayed

ODD = b"\xff\x00 no text"


async def opened(path):
    store = SqliteStore(None if path is None else str(path), durability="process")
    await store.open()
    return store


class TestFiles(PortableContract):
    """From a file to a file."""

    @pytest.fixture
    async def store(self, tmp_path):
        store = await opened(tmp_path / "one.db")
        yield store
        await store.close()

    @pytest.fixture
    async def other(self, tmp_path):
        store = await opened(tmp_path / "other.db")
        yield store
        await store.close()

    async def test_what_is_deleted_meanwhile_is_erased_when_the_dump_is_over(self, store, tmp_path):
        def is_there():
            return any(b"SECRET" in file.read_bytes() for file in tmp_path.iterdir())

        await running(store, items=[item("i1", "SECRET")])
        reading = store.dump()
        await anext(reading)
        await store.delete("alice", "resp_1")
        erased = asyncio.ensure_future(store.erased())
        await turn(store, "resp_2")
        meanwhile = is_there()

        await reading.aclose()
        await erased

        assert meanwhile
        assert not is_there()

    async def test_the_key_of_encrypted_content_comes_with_it(self, store, other, tmp_path):
        (tmp_path / "one.db.key").write_text("k" * 64)

        await other.load(store.dump())
        added = await other.load(store.dump())

        assert (tmp_path / "other.db.key").read_text() == "k" * 64
        assert stat.S_IMODE((tmp_path / "other.db.key").stat().st_mode) == 0o600
        assert added.total() == 0

    async def test_another_key_is_not_replaced_and_nothing_is_taken_in(self, store, other, tmp_path):
        (tmp_path / "one.db.key").write_text("k" * 64)
        (tmp_path / "other.db.key").write_text("o" * 64)
        await fill(store)

        with pytest.raises(StoreError, match=r"other\.db\.key holds another key"):
            await other.load(store.dump())

        assert (tmp_path / "other.db.key").read_text() == "o" * 64
        assert await dumped(other) == [Secret(name="seals", value="o" * 64)]

    async def test_a_compacted_log_comes_as_it_was_written(self, store, other):
        await fill(store)
        before = await dumped(store)
        while await store.upkeep.compact(settled_seconds=0):
            pass
        logs = [record for record in await dumped(store) if isinstance(record, Segment)]

        await other.load(store.dump())

        assert b"".join(log.frames for log in logs) == b"".join(
            record.frames for record in before if isinstance(record, Segment)
        )
        assert [record for record in await dumped(other) if isinstance(record, Segment)] == logs
        assert (await other.get("alice", "resp_4")).response == (await store.get("alice", "resp_4")).response

    async def test_what_was_used_comes_with_it_once(self, store, other):
        for id in ("resp_1", "resp_2", "resp_3"):
            claim = await running(store, id)
            await store.append(
                claim, [], ending=Ending("completed", b"{}", tokens=Tokens(input=5, output=int(id[-1:]) % 2))
            )
        await store.delete("alice", "resp_1")

        await other.load(store.dump())
        await other.load(store.dump())

        assert await other.upkeep.usage() == await store.upkeep.usage()
        assert (await other.upkeep.usage())[0].responses == 3

    async def test_what_has_expired_is_gone_there_too(self, store, other):
        claim = await running(store, "resp_1", expires_at=2000.0)
        await store.append(claim, [], ending=ending())
        await running(store, "resp_2", expires_at=2000.0)

        await other.load(store.dump())
        added = await other.load(store.dump())

        assert added.total() == 0
        with pytest.raises(NotFound):
            await other.get("alice", "resp_1")
        assert not (await other.get("alice", "resp_2")).closed
        assert await other.upkeep.expire(limit=9) == [("alice", "resp_1")]

    @pytest.mark.parametrize("tenant", ["alice", ""])
    async def test_api_keys_come_with_it_as_they_are(self, store, other, tenant):
        key = ApiKey(
            id="key_1",
            tenant=tenant,
            name="laptop",
            digest=Exact(ODD),
            created_at=1.5,
            expires_at=None,
            revoked_at=2.5,
            used_at=None,
            limits='{"requests_per_minute":60,"retention_days":7}',
        )
        await store.load(given([key]))

        await other.load(store.dump())

        assert await dumped(other) == [key]


class TestMemory(PortableContract):
    """From memory to memory."""

    @pytest.fixture
    async def store(self):
        store = await opened(None)
        yield store
        await store.close()

    @pytest.fixture
    async def other(self):
        store = await opened(None)
        yield store
        await store.close()


@pytest.fixture(scope="module")
def databases():
    """Two databases of one PostgreSQL."""
    with postgres.any_server() as server:
        urls = [asyncio.run(postgres.create_database(server)) for _ in range(2)]
        yield urls
        for url in urls:
            asyncio.run(postgres.drop_database(server, url))


async def emptied(url):
    store = PostgresStore(url)
    await store.open()
    tables = "SELECT string_agg(format('antiphon.%I', tablename), ',') FROM pg_tables "
    tables += "WHERE schemaname = 'antiphon' AND tablename <> 'version'"
    connection = await asyncpg.connect(url)
    await connection.execute("TRUNCATE " + await connection.fetchval(tables))
    await connection.close()
    return store


async def empty(url):
    await (await emptied(url)).close()


class TestPostgres(PortableContract):
    """From PostgreSQL to PostgreSQL."""

    @pytest.fixture
    async def store(self, databases):
        store = await emptied(databases[0])
        yield store
        await store.close()

    @pytest.fixture
    async def other(self, databases):
        store = await emptied(databases[1])
        yield store
        await store.close()

    async def test_the_key_of_encrypted_content_comes_with_it(self, store, other):
        secret = await store.secret("seals")

        await other.load(store.dump())
        added = await other.load(store.dump())

        assert await other.secret("seals") == secret
        assert added.total() == 0

    async def test_another_key_is_not_replaced_and_nothing_is_taken_in(self, store, other):
        await store.secret("seals")
        kept = await other.secret("seals")
        await fill(store)

        with pytest.raises(StoreError, match=r"another key \(seals\) than what is to be loaded"):
            await other.load(store.dump())

        assert await dumped(other) == [Secret(name="seals", value=kept)]

    async def test_a_database_that_is_not_there_is_told(self, databases):
        store = PostgresStore(databases[0])
        store._database._url = "postgresql://127.0.0.1:1/none"

        with pytest.raises(StoreError, match="The database cannot be reached"):
            await dumped(store)


class TestMove(PortableContract):
    """From a file to PostgreSQL."""

    @pytest.fixture
    async def store(self, tmp_path):
        store = await opened(tmp_path / "one.db")
        yield store
        await store.close()

    @pytest.fixture
    async def other(self, databases):
        store = await emptied(databases[1])
        yield store
        await store.close()

    async def test_what_is_moved_back_is_what_it_was(self, store, other, tmp_path):
        await fill(store)
        await other.load(store.dump())
        back = await opened(tmp_path / "back.db")

        await back.load(other.dump())

        assert await seen(back, "alice") == await seen(store, "alice")
        await back.close()


def written(records):
    encoder = Encoder()
    return encoder.header(now=1000.0) + encoder.lines(records) + encoder.end()


def read(content):
    return list(Decoder(io.BytesIO(content), "some.jsonl").records())


@pytest.fixture
async def records():
    store = await opened(None)
    await fill(store)
    return await dumped(store)


class TestForm:
    """Records as lines of a file."""

    def test_it_is_lines_of_json_with_texts_to_be_read(self):
        lines = written([Prompt(tenant="t", id="p", version=1, created_at=7, body=Exact(b'{"a":"\xc3\xa9"}'))]).decode()

        header, prompt, end = (json.loads(line) for line in lines.splitlines())
        assert header == {"record": "antiphon", "version": 1, "exported_at": 1000.0, "sum": header["sum"]}
        assert prompt["body"] == '{"a":"é"}'
        assert end == {"record": "end", "counts": {"prompt": 1}, "sum": end["sum"]}

    def test_the_records_come_back_as_they_were(self, records):
        assert read(written(records)) == records

    @pytest.mark.parametrize(
        "bytes", [b"", ODD, bytes(range(256)), "𝄞\u2028".encode(), b"\xed\xa0\x80", b'{"base64":""}']
    )
    def test_any_bytes_come_back_as_they_were(self, bytes):
        records = [Item(tenant="t", id="i", body=Exact(bytes)), Note(after=0, kind="k", body=Exact(bytes))]

        assert read(written(records)) == records

    def test_a_change_of_any_line_is_found_in_that_line(self, records):
        lines = written(records).splitlines(keepends=True)

        for number, line in enumerate(lines):
            changed = line.replace(b'":"', b'": "', 1)
            with pytest.raises(StoreError, match=rf"^some\.jsonl, line {number + 1}: .* it was changed\. Nothing"):
                read(b"".join([*lines[:number], changed, *lines[number + 1 :]]))

    def test_a_line_that_is_missing_is_found(self, records):
        lines = written(records).splitlines(keepends=True)

        for number in range(1, len(lines) - 1):
            with pytest.raises(StoreError, match=rf", line {number + 1}: "):
                read(b"".join([*lines[:number], *lines[number + 1 :]]))

    def test_a_file_that_was_cut_off_is_refused_wherever_that_was(self, records):
        content = written(records)
        header = content.index(b"\n") + 1

        for length in range(header, len(content), 101):
            line = content[:length].count(b"\n") + 1
            with pytest.raises(StoreError, match=rf", line {line}: the file ends here, .* it was cut off"):
                read(content[:length])

    def test_nothing_may_stand_behind_the_end(self):
        with pytest.raises(StoreError, match="line 3: something stands behind the end"):
            read(written([]) + b"\n")

    @pytest.mark.parametrize("content", [b"", b"\n", b"\0" * 10_000, b'{"id":"resp_1"}\n', b'{"record":"end"}\n'])
    def test_another_file_is_not_an_export(self, content):
        with pytest.raises(StoreError, match=r"^some\.jsonl is not an export of Antiphon\.$"):
            read(content)

    def test_a_newer_form_is_refused(self):
        newer = written([]).replace(b'"version":1', b'"version":2')

        with pytest.raises(StoreError, match=r"written by another Antiphon \(its form is 2; this one knows 1\)"):
            read(newer)

    def test_a_record_of_another_kind_is_refused(self):
        class Song(msgspec.Struct, tag_field="record", tag="song"):
            verse: str

        with pytest.raises(StoreError, match=r"line 2: Invalid value 'song' - at `\$\.record`"):
            read(written([Song("la")]))

    async def test_what_comes_before_a_change_can_be_completed_by_the_whole_file(self, records):
        content = written(records)
        store = await opened(None)
        changed = Decoder(io.BytesIO(content[:-200] + content[-190:]), "some.jsonl")

        async def batches(decoder):
            for record in decoder.records():
                yield [record]

        with pytest.raises(StoreError):
            await store.load(batches(changed))
        await store.load(batches(Decoder(io.BytesIO(content), "some.jsonl")))

        assert await dumped(store) == records


def database(folder):
    return f"sqlite:///{folder / 'antiphon.db'}"


@pytest.fixture
def here(tmp_path):
    """Two folders: of the database that there is, and of the one that is to be."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def filled(here):
    async def fill_it():
        store = await opened(here / "old" / "antiphon.db")
        await fill(store)
        records = await dumped(store)
        await store.close()
        return records

    return asyncio.run(fill_it())


async def answers(http, responses, conversations):
    """The bytes of all answers about these."""
    paths = [
        *(f"/responses/{id}" for id in responses),
        *(f"/responses/{id}?include=reasoning.encrypted_content" for id in responses),
        *(f"/responses/{id}/input_items?limit=100" for id in responses),
        *(f"/conversations/{id}" for id in conversations),
        *(f"/conversations/{id}/items?limit={limit}" for id in conversations for limit in (1, 100)),
        "/responses",
    ]
    found = {path: await http.get(path) for path in paths}
    assert {answer.status_code for answer in found.values()} == {200}
    streams = {id: await replayed(http, id) for id in responses}
    return {path: answer.content for path, answer in found.items()} | streams


class TestCommands:
    """As they are used."""

    async def test_a_server_on_the_new_database_gives_the_same_bytes(self, here):
        """While the old one runs."""
        tools = [{"type": "function", "name": "f", "parameters": {}, "strict": False}]
        sealed = {"include": ["reasoning.encrypted_content"]}
        with antiphon(here / "old") as old:
            async with old.http() as http:
                conversation = (await http.post("/conversations", json={"metadata": {"a": "é"}})).json()["id"]
                made = [
                    await created(http, "text:Hello there", conversation=conversation),
                    await created(http, "tools", tools=tools, conversation=conversation, metadata={"k": "v"}),
                    await created(http, "reasoning", **sealed),
                    await created(http, "drip:Ünder way — 汉字 🌊", background=True),
                    await created(http, "length"),
                ]
                made.append(await created(http, "echo", previous_response_id=made[0]["id"]))
                async with creating(http, "text:a b c", previous_response_id=made[2]["id"], **sealed) as stream:
                    await stream.rest()
                ids = [*(each["id"] for each in made), stream.response_id]
                await replayed(http, made[3]["id"])  # until it is complete
                before = await answers(http, ids, [conversation])
                await asyncio.to_thread(
                    main, ["export", "--to", str(here / "all"), "--database", database(here / "old")]
                )

        await asyncio.to_thread(main, ["import", str(here / "all"), "--database", database(here / "new")])

        with antiphon(here / "new") as new:
            async with new.http() as http:
                assert await answers(http, ids, [conversation]) == before
                reasoning = (await http.get(f"/responses/{ids[2]}?include=reasoning.encrypted_content")).json()[
                    "output"
                ]
                again = await created(http, "echo", input=[*reasoning, {"role": "user", "content": "And?"}])
                assert again["status"] == "completed"

    def test_an_export_to_a_file_tells_what_is_in_it(self, here, filled, capsys):
        assert main(["export", "--to", str(here / "all.jsonl"), "--database", database(here / "old")]) == 0

        told = json.loads(capsys.readouterr().out)
        assert told["file"] == str(here / "all.jsonl")
        records = read((here / "all.jsonl").read_bytes())
        assert sum(told["records"].values()) == len(records)
        assert records == filled
        assert stat.S_IMODE((here / "all.jsonl").stat().st_mode) == 0o600
        assert sorted(os.listdir(here)) == ["all.jsonl", "new", "old"]

    def test_an_export_goes_through_a_pipe_into_an_import(self, here, filled):
        one, other = database(here / "old"), database(here / "new")
        command = f"antiphon export --database {one} | antiphon import --database {other}"
        command = command.replace("antiphon ", f"{sys.executable} -m antiphon ")

        done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=50)

        assert (done.returncode, done.stderr) == (0, "")
        told = json.loads(done.stdout)
        assert told["added"] == told["records"]
        assert told["added"]["response"] == 10

    def test_a_database_moves_to_postgresql_and_back(self, here, filled, databases, capsys):
        asyncio.run(empty(databases[0]))
        for source, target in (
            (database(here / "old"), databases[0]),
            (databases[0], database(here / "new")),
        ):
            assert main(["export", "--to", str(here / "all"), "--database", source]) == 0
            assert main(["import", str(here / "all"), "--database", target]) == 0

        main(["export", "--to", str(here / "again"), "--database", database(here / "new")])
        records = read((here / "again").read_bytes())
        assert records == filled

    def test_an_import_again_adds_nothing(self, here, filled, capsys):
        main(["export", "--to", str(here / "all"), "--database", database(here / "old")])
        main(["import", str(here / "all"), "--database", database(here / "new")])
        capsys.readouterr()

        assert main(["import", str(here / "all"), "--database", database(here / "new")]) == 0

        assert json.loads(capsys.readouterr().out)["added"] == {}

    def test_an_import_that_was_killed_is_completed(self, here, filled):
        main(["export", "--to", str(here / "all"), "--database", database(here / "old")])
        content = (here / "all").read_bytes()
        command = [sys.executable, "-m", "antiphon", "import", "--database", database(here / "new")]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as killed:
            assert killed.stdin
            killed.stdin.write(content[: len(content) // 2])
            killed.stdin.flush()
            killed.kill()

        assert main(["import", str(here / "all"), "--database", database(here / "new")]) == 0

        main(["export", "--to", str(here / "again"), "--database", database(here / "new")])
        assert read((here / "again").read_bytes()) == read(content)

    def test_an_import_into_the_database_of_a_running_server_is_refused(self, here, filled, capsys):
        main(["export", "--to", str(here / "all"), "--database", database(here / "old")])
        with antiphon(here / "new"):
            assert main(["import", str(here / "all"), "--database", database(here / "new")]) == 1

        assert "antiphon.db belongs to another server process" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("words", "code", "told"),
        [
            (["export", "--database", "sqlite:///none.db"], 1, "none.db is not there."),
            (["export", "--database", "sqlite://"], 2, "The database is in memory, so it is that server's alone."),
            (["import", "none", "--database", "sqlite:///new.db"], 1, "none: No such file or directory"),
            (["import", "other", "--database", "sqlite:///new.db"], 1, "other is not an export of Antiphon."),
        ],
    )
    def test_what_cannot_be_done_is_told(self, here, words, code, told, capsys, monkeypatch):
        monkeypatch.chdir(here)
        Path("other").write_text("something")

        assert main(words) == code

        assert capsys.readouterr() == ("", f"antiphon: {told}\n")

    def test_a_failed_export_leaves_the_old_file(self, here, filled, capsys):
        (here / "all").write_text("old")
        (here / "old" / "antiphon.db").write_bytes(b"not a database" * 1000)

        assert main(["export", "--to", str(here / "all"), "--database", database(here / "old")]) == 1

        assert "is not a SQLite database" in capsys.readouterr().err
        assert (here / "all").read_text() == "old"
        assert sorted(os.listdir(here)) == ["all", "new", "old"]

    def test_a_place_that_cannot_be_written_is_told(self, here, filled, capsys):
        assert main(["export", "--to", str(here / "no" / "all"), "--database", database(here / "old")]) == 1

        assert capsys.readouterr().err == f"antiphon: {here}/no/all: No such file or directory\n"


@pytest.mark.parametrize("engine", ["sqlite_portable", "postgres_portable"])
def test_every_query_has_a_name_and_a_sentence(engine):
    for name, statement in queries(engine).items():
        assert statement.startswith("-- "), name
        assert statement.endswith(";"), name


def test_a_long_log_comes_in_pieces():
    """However long a log is, a batch of it is small."""
    pieces = (Segment(first=number, count=1, mask=0, frames=Exact(bytes(300_000))) for number in range(20))

    assert max(len(batch) for batch in batches(pieces)) == 4

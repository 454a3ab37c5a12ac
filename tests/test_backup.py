"""A backup of a SQLite database: whole, of one moment, beside a running server, and without what was deleted."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import stat
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from antiphon.cli import main
from antiphon.errors import StoreError
from antiphon.store import sqlite_backup
from antiphon.store.sqlite import SqliteStore
from tests.contracts.portable import dumped, fill
from tests.contracts.store import ending, item, running, segment, turn
from tests.servers.antiphon import antiphon, created, creating, replayed


@pytest.fixture
def path(tmp_path):
    (tmp_path / "old").mkdir()
    return tmp_path / "old" / "antiphon.db"


@pytest.fixture
def to(tmp_path):
    (tmp_path / "new").mkdir()
    return tmp_path / "new" / "antiphon.db"


def backup(path, to):
    sqlite_backup.backup(str(path), str(to))


async def opened(path):
    store = SqliteStore(str(path), durability="process")
    await store.open()
    return store


@pytest.fixture
async def store(path):
    store = await opened(path)
    yield store
    await store.close()


def beside(path, suffix):
    return path.with_name(path.name + suffix)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


async def content(path):
    store = await opened(path)
    records = await dumped(store)
    await store.close()
    return records


async def test_a_backup_is_a_database_with_the_same_content(store, path, to):
    await fill(store)

    backup(path, to)

    assert os.listdir(to.parent) == ["antiphon.db"]
    assert await content(to) == await dumped(store)


async def test_what_is_still_in_the_write_ahead_log_is_in_the_backup(store, path, to):
    await turn(store, "resp_1")
    before = path.read_bytes()

    backup(path, to)

    assert path.read_bytes() == before
    assert beside(path, "-wal").read_bytes()
    assert len(await content(to)) == len(await dumped(store))


async def test_only_its_owner_can_read_it(store, path, to):
    backup(path, to)

    assert mode(to) == 0o600


async def test_the_key_of_encrypted_content_comes_with_it(store, path, to):
    beside(path, ".key").write_text("k" * 64)

    backup(path, to)

    assert beside(to, ".key").read_text() == "k" * 64
    assert mode(beside(to, ".key")) == 0o600


async def test_a_deleted_text_is_not_in_the_backup(store, path, to):
    """SQLite leaves copies behind when it moves rows, which only checkpoints clear; here there has been none."""
    chance, kept = random.Random(6), list[int]()
    reader = apsw.Connection(str(path))
    cursor = reader.execute("SELECT * FROM sqlite_schema")  # holds up every checkpoint

    async def write(number: int) -> None:
        text = f"<secret {number:04d}>" * chance.choice([1, 3, 20, 100])
        claim = await running(store, f"resp_{number}", items=[item(f"i{number}", text)], request=text.encode())
        await store.append(claim, [segment(1, text=text)], ending=ending(item(f"o{number}", text)))

    for start in range(0, 300, 3):
        await asyncio.gather(*(write(number) for number in range(start, start + 3)))
        kept += range(start, start + 3)
        while len(kept) > 30:
            await store.delete("alice", f"resp_{kept.pop(chance.randrange(len(kept)))}")

    backup(path, to)

    assert {int(number) for number in re.findall(rb"<secret (\d+)>", to.read_bytes())} == set(kept)
    cursor.close()
    reader.close()


async def test_a_backup_is_of_one_moment_whatever_is_written_meanwhile(store, path, to, monkeypatch):
    """The copy is made by a thread, page by page; a copy of several moments would begin anew and never end."""
    monkeypatch.setattr(sqlite_backup, "STEP_PAGES", 1)
    for number in range(40):
        await running(store, f"old_{number}", items=[item("i", "x" * 100_000 + str(number))])
    copying = asyncio.create_task(asyncio.to_thread(backup, path, to))
    number = 0
    while not copying.done():
        await turn(store, f"new_{number}", previous=f"new_{number - 1}" if number else None)
        number += 1
    await copying

    kept = {record.id for record in await content(to) if getattr(record, "model", None)}
    assert kept >= {f"old_{each}" for each in range(40)}
    assert {id for id in kept if id.startswith("new_")} == {f"new_{each}" for each in range(len(kept) - 40)}


async def test_an_old_backup_is_replaced(store, path, to):
    backup(path, to)
    await turn(store, "resp_1")

    backup(path, to)

    assert await content(to) == await dumped(store)


class TestRefusals:
    """What would do harm, or cannot be done."""

    async def test_the_database_itself_is_not_overwritten(self, store, path, tmp_path):
        (tmp_path / "link.db").symlink_to(path)

        for name in (path, tmp_path / "link.db"):
            with pytest.raises(StoreError, match="is the database itself"):
                backup(path, name)

    async def test_another_database_in_use_is_not_overwritten(self, store, path, to):
        other = await opened(to)
        await turn(other, "resp_1")

        with pytest.raises(StoreError, match="is a database in use"):
            backup(path, to)

        assert (await other.get("alice", "resp_1")).closed
        await other.close()

    def test_a_database_that_is_not_there_is_not_made(self, path, to):
        with pytest.raises(StoreError, match=r"antiphon\.db is not there"):
            backup(path, to)

        assert not path.exists()

    def test_a_database_of_something_else_is_refused(self, path, to):
        apsw.Connection(str(path)).execute("CREATE TABLE t (a)")

        with pytest.raises(StoreError, match="is not a database of Antiphon"):
            backup(path, to)

    async def test_a_damaged_database_leaves_the_old_backup(self, path, to):
        store = await opened(path)
        for number in range(30):
            await turn(store, f"resp_{number}")
        await store.close()
        backup(path, to)
        before = await content(to)
        pages = path.read_bytes()
        path.write_bytes(pages[: 4096 * 5] + b"\xff" * 4096 * 3 + pages[4096 * 8 :])

        with pytest.raises(StoreError, match=rf"^{path} is damaged, so there is no backup of it: \w"):
            backup(path, to)

        assert await content(to) == before

    async def test_a_place_that_cannot_be_written_is_told(self, store, path, tmp_path):
        with pytest.raises(StoreError, match="No such file or directory"):
            backup(path, tmp_path / "no" / "antiphon.db")


class TestCommand:
    """As it is used."""

    async def test_a_server_on_the_backup_goes_on_where_that_was_made(self, tmp_path, path, to, capsys):
        sealed = {"include": ["reasoning.encrypted_content"]}
        with antiphon(tmp_path / "old") as old:
            async with old.http() as http, creating(http, "hang") as stream:
                done = await created(http, "reasoning", **sealed)
                said = await replayed(http, done["id"])
                await stream.deltas(1)

                assert main(["backup", str(to), "--database", f"sqlite:///{path}"]) == 0

        told = json.loads(capsys.readouterr().out)
        assert told == {"file": str(to), "bytes": len(to.read_bytes()), "key_file": f"{to}.key"}
        with antiphon(tmp_path / "new") as new:
            async with new.http() as http:
                assert await replayed(http, done["id"]) == said
                again = await created(http, "echo", previous_response_id=done["id"])
                assert again["status"] == "completed"
                cancelled = (await http.post(f"/responses/{stream.response_id}/cancel")).json()
                assert cancelled["status"] == "cancelled"
                assert (await replayed(http, stream.response_id)).startswith(stream.raw)

    @pytest.mark.parametrize(
        ("database", "told"),
        [
            ("sqlite://", "The database is in memory, so it is that server's alone."),
            ("postgresql://h/d", "antiphon backup: the database is PostgreSQL; use pg_dump, or `antiphon export`."),
        ],
    )
    def test_what_makes_no_sense_is_misuse(self, to, database, told, capsys):
        assert main(["backup", str(to), "--database", database]) == 2

        assert capsys.readouterr() == ("", f"antiphon: {told}\n")


PAGE = Path(__file__).parent.parent / "docs" / "operations.md"
FENCE = re.compile(r"^```console operating\n(.*?)^```$", re.DOTALL | re.MULTILINE)


async def test_the_commands_of_the_page_run_in_their_order(tmp_path):
    """In the directory of a database whose server was stopped."""
    commands = "".join(FENCE.findall(PAGE.read_text(encoding="utf-8"))).replace("$ ", "")
    with antiphon(tmp_path) as server:
        async with server.http() as http:
            response_id = (await created(http, "text:Hello there"))["id"]
            said = await replayed(http, response_id)
    path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"

    done = await asyncio.to_thread(
        subprocess.run,
        ["bash", "-e", "-c", commands],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=50,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert len(commands.splitlines()) == 5
    (tmp_path / "moved").mkdir()
    for suffix in ("", ".key"):
        (tmp_path / f"moved.db{suffix}").rename(tmp_path / "moved" / f"antiphon.db{suffix}")
    for folder in (tmp_path, tmp_path / "moved"):  # restored, and imported
        with antiphon(folder) as server:
            async with server.http() as http:
                assert await replayed(http, response_id) == said

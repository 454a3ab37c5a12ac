"""The SQLite store: the contract, in a file and in memory, and what a file adds to it."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from antiphon.errors import AntiphonError, LeaseLost, Repeated, StoreError
from antiphon.store import writer
from antiphon.store.base import Note
from antiphon.store.sql import migrations, queries
from antiphon.store.sqlite import SqliteStore
from antiphon.store.sqlite_file import connect_memory, migrate
from tests.contracts.conversations import ConversationContract, conversation, end, kept, keyed, talking
from tests.contracts.store import StoreContract, ending, ids, item, new, numbers, running, segment, turn
from tests.contracts.upkeep import UpkeepContract


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "antiphon.db")


@pytest.fixture
def clock() -> Clock:
    return Clock()


def files_of(path: str) -> dict[str, bytes]:
    """The database's file and what lies beside it."""
    return {file.name: file.read_bytes() for file in Path(path).parent.iterdir()}


def contains(path: str, text: str) -> bool:
    return any(text.encode() in content for content in files_of(path).values())


def write(path: str, content: bytes) -> None:
    Path(path).write_bytes(content)


def modes_of(path: str) -> set[int]:
    return {file.stat().st_mode & 0o777 for file in Path(path).parent.iterdir()}


async def opened(path: str | None, **options: object) -> SqliteStore:
    store = SqliteStore(path, **options)  # type: ignore[arg-type]
    await store.open()
    return store


@pytest.fixture
async def store(path: str, clock: Clock) -> AsyncIterator[SqliteStore]:
    store = await opened(path, now=clock)
    yield store
    await store.close()


class TestFile(StoreContract, ConversationContract, UpkeepContract):
    """In a file."""


class TestMemory(StoreContract, ConversationContract, UpkeepContract):
    """In memory."""

    @pytest.fixture
    async def store(self) -> AsyncIterator[SqliteStore]:
        store = await opened(None)
        yield store
        await store.close()


class TestRelaxedFile(StoreContract, ConversationContract, UpkeepContract):
    """In a file that survives a killed process only."""

    @pytest.fixture
    async def store(self, path: str) -> AsyncIterator[SqliteStore]:
        store = await opened(path, durability="process")
        yield store
        await store.close()


class TestTime:
    """Leases and graces run out by the store's clock."""

    async def test_a_lease_runs_out(self, store: SqliteStore, clock: Clock) -> None:
        await store.create("alice", new("resp_1", background=True), lease_seconds=10)

        clock.advance(9.9)
        early = await store.claim(limit=1, lease_seconds=10)
        clock.advance(0.2)
        late = await store.claim(limit=1, lease_seconds=10)

        assert early == []
        assert [(claim.response_id, claim.lease_ends) for claim in late] == [("resp_1", clock.now + 10)]

    async def test_a_worker_whose_lease_ran_out_goes_on_as_long_as_nobody_took_over(
        self, store: SqliteStore, clock: Clock
    ) -> None:
        claim = await running(store)
        clock.advance(1000)

        await store.append(claim, [segment(1)])

        assert (await store.renew([claim], lease_seconds=10, grace_seconds=1e9)).lost == frozenset()

    async def test_the_grace_runs_out_after_the_last_follower(self, store: SqliteStore, clock: Clock) -> None:
        claim = await running(store)

        async def unfollowed() -> bool:
            renewal = await store.renew([claim], lease_seconds=10, grace_seconds=5)
            return "resp_1" in renewal.unfollowed

        answers = []
        for seconds in (4.9, 0.2):
            clock.advance(seconds)
            answers.append(await unfollowed())
        await store.mark_followed("alice", "resp_1", seconds=10)
        for seconds in (14.9, 0.2):
            clock.advance(seconds)
            answers.append(await unfollowed())

        assert answers == [False, True, False, True]

    async def test_a_takeover_starts_the_grace_anew(self, store: SqliteStore, clock: Clock) -> None:
        await running(store)
        clock.advance(1000)

        (claim,) = await store.claim(limit=1, lease_seconds=10)

        assert (await store.renew([claim], lease_seconds=10, grace_seconds=5)).unfollowed == frozenset()

    async def test_an_idempotency_key_is_remembered_for_its_time(self, store: SqliteStore, clock: Clock) -> None:
        await store.create("alice", keyed("a", seconds=24 * 3600))

        clock.advance(24 * 3600 - 1)
        with pytest.raises(Repeated):
            await store.create("alice", keyed("b"))
        clock.advance(1)
        await store.create("alice", keyed("b", fingerprint=b"2"))

    async def test_a_turn_that_waited_for_long_has_its_grace_when_it_begins(
        self, store: SqliteStore, clock: Clock
    ) -> None:
        await conversation(store)
        first = await talking(store, "a")
        await talking(store, "b")
        clock.advance(1000)
        await end(store, first)

        (claim,) = await store.claim(limit=1, lease_seconds=10)

        assert (await store.renew([claim], lease_seconds=10, grace_seconds=5)).unfollowed == frozenset()


class TestOwnership:
    """One server process owns the file."""

    async def test_everything_is_there_after_closing_and_opening_again(self, path: str) -> None:
        store = await opened(path)
        await turn(store, "a")
        claim = await running(store, "b", previous="a", items=[item("i1")])
        await store.append(claim, [segment(1)], notes=[Note(1, "turn")])
        before = await store.get("alice", "b")
        await store.close()

        store = await opened(path)

        assert await store.get("alice", "b") == before
        assert await numbers(store, "b") == [0, 1]
        assert await store.notes("alice", "b") == [Note(1, "turn")]
        assert await ids(store, "b") == ["in_a", "out_a", "i1"]
        await store.close()

    async def test_at_the_start_of_a_server_no_lease_is_alive(self, path: str) -> None:
        store = await opened(path)
        await running(store)
        await store.close()

        store = await opened(path)

        (claim,) = await store.claim(limit=1, lease_seconds=60)
        assert (claim.response_id, claim.attempt, claim.tries) == ("resp_1", 2, 2)
        await store.close()

    async def test_a_second_server_is_refused(self, store: SqliteStore, path: str) -> None:
        with pytest.raises(StoreError, match=r"belongs to another server process \(pid \d+\).* need PostgreSQL"):
            await opened(path)

        await running(store)

    async def test_the_file_is_free_again_after_closing(self, path: str) -> None:
        for _ in range(3):
            await (await opened(path)).close()

    async def test_a_short_command_is_let_in_beside_a_server(self, store: SqliteStore, path: str) -> None:
        claim = await running(store)
        command = SqliteStore(path)

        await command.open(exclusive=False)

        assert (await command.get("alice", "resp_1")).attempt == 1
        await command.delete("alice", "resp_1")
        await command.close()
        with pytest.raises(LeaseLost):
            await store.append(claim, [segment(1)])

    async def test_a_short_command_ends_no_lease(self, store: SqliteStore, path: str, clock: Clock) -> None:
        await running(store, background=True)
        command = SqliteStore(path, now=clock)
        await command.open(exclusive=False)

        assert await command.claim(limit=1, lease_seconds=60) == []
        await command.close()

    async def test_nobody_else_may_read_the_files(self, store: SqliteStore, path: str) -> None:
        await running(store)

        assert files_of(path).keys() >= {"antiphon.db", "antiphon.db-wal", "antiphon.db.lock"}
        assert modes_of(path) == {0o600}

    async def test_a_store_that_is_not_open_says_so(self, path: str) -> None:
        for store in (SqliteStore(path), SqliteStore(None)):
            with pytest.raises(StoreError, match="not open"):
                await store.get("alice", "resp_1")
            with pytest.raises(StoreError, match="not open"):
                await store.create("alice", new("resp_1"))


# A finished response, and one that continues it and was at work when its process died.
VERSION_1 = """
INSERT INTO responses VALUES
    (1, 'alice', 'resp_1', 1, 1, 0.0, 1, 0, 5.0, NULL, 0, 1000, NULL, 'completed', 'm', x'7b7d', x'7b7d', 0, x'7b7d'),
    (2, 'alice', 'resp_2', 1, 0, 9e9, 1, 0, 5.0, 1, 1, 1001, NULL, NULL, 'm', x'7b7d', x'7b7d', 0, NULL);
INSERT INTO segments VALUES (1, 1, 0, 1, 0, x'0a0a'), (2, 2, 0, 0, 0, x'0a0a');
INSERT INTO items VALUES (1, 'alice', 'i1', x'7b7d'), (2, 'alice', 'o1', x'7b7d');
INSERT INTO links VALUES (1, 0, 0, 1), (1, 1, 0, 2);
"""


class TestVersions:
    """Opening what another version, or another program, has written."""

    def test_an_older_database_is_brought_up_to_date(self) -> None:
        steps = ["CREATE TABLE a (x)", "ALTER TABLE a ADD COLUMN y DEFAULT 7", "CREATE INDEX i ON a (y)"]
        connection = apsw.Connection(":memory:")
        migrate(connection, "old.db", steps[:1])
        connection.execute("INSERT INTO a VALUES (1)")

        migrate(connection, "old.db", steps)

        assert connection.execute("SELECT x, y FROM a").fetchall() == [(1, 7)]
        assert connection.pragma("user_version") == 3

    def test_a_step_that_fails_leaves_the_version_before(self) -> None:
        connection = apsw.Connection(":memory:")

        with pytest.raises(apsw.SQLError):
            migrate(connection, "old.db", ["CREATE TABLE a (x)", "CREATE TABLE b (x); CREATE TABLE a (x)"])

        assert connection.pragma("user_version") == 1
        assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("a",)]

    async def test_opening_an_older_file_migrates_it(self, path: str) -> None:
        apsw.Connection(path).close()  # version 0: nothing in it

        store = await opened(path)

        await turn(store, "a")
        await store.close()
        assert apsw.Connection(path).pragma("user_version") == len(migrations("sqlite"))

    async def test_a_file_of_the_first_version_is_brought_up_to_date_with_all_that_is_in_it(self, path: str) -> None:
        connection = apsw.Connection(path)
        migrate(connection, path, migrations("sqlite")[:1])
        connection.execute(VERSION_1)
        connection.close()

        store = await opened(path)

        assert [await ids(store, id, output=True) for id in ("resp_1", "resp_2")] == [["i1", "o1"], ["i1", "o1"]]
        stored = await store.get("alice", "resp_1")
        assert (stored.status, stored.response, stored.conversation) == ("completed", b"{}", None)
        page, _ = await store.list_responses("alice", limit=9)
        assert [(each.id, each.status, each.previous) for each in page] == [
            ("resp_2", "in_progress", "resp_1"),
            ("resp_1", "completed", None),
        ]
        (claim,) = await store.claim(limit=9, lease_seconds=60)
        await store.append(claim, [segment(1)], ending=ending(item("o2")))
        await conversation(store)
        await end(store, await talking(store, "resp_3"), item("o3"))
        assert await ids(store, "resp_2", output=True) == ["i1", "o1", "o2"]
        assert await ids(store, "resp_3", output=True) == ["in_resp_3", "o3"]
        await store.close()

    async def test_a_newer_file_is_refused(self, path: str) -> None:
        await (await opened(path)).close()
        connection = apsw.Connection(path)
        connection.execute("PRAGMA user_version = 99")
        connection.close()

        with pytest.raises(StoreError, match="written by a newer Antiphon"):
            await opened(path)

        connection = apsw.Connection(path)
        connection.execute(f"PRAGMA user_version = {len(migrations('sqlite'))}")
        connection.close()
        await (await opened(path)).close()  # the refusal has let go of the file

    async def test_a_file_that_is_no_database_is_refused_and_left_alone(self, path: str) -> None:
        write(path, b"Dear diary, " * 100)

        with pytest.raises(StoreError, match="is not a SQLite database"):
            await opened(path)

        assert files_of(path)["antiphon.db"] == b"Dear diary, " * 100

    async def test_the_database_of_another_application_is_refused_and_left_alone(self, path: str) -> None:
        connection = apsw.Connection(path)
        connection.execute("CREATE TABLE birds (name)")
        connection.close()
        before = files_of(path)["antiphon.db"]

        with pytest.raises(StoreError, match="another application"):
            await opened(path)

        assert files_of(path)["antiphon.db"] == before

    @pytest.mark.parametrize("bad", ["/proc/antiphon.db", "/dev/null/antiphon.db"])
    async def test_a_place_that_cannot_be_written_is_named(self, bad: str) -> None:
        with pytest.raises(StoreError, match=bad):
            await opened(bad)

    async def test_a_directory_is_no_database(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=str(tmp_path)):
            await opened(str(tmp_path))

    async def test_a_missing_directory_is_named_and_not_made(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=f"there is no folder {tmp_path}/a/b"):
            await opened(str(tmp_path / "a" / "b" / "antiphon.db"))

        assert not os.listdir(tmp_path)

    def test_every_query_has_a_name_and_a_sentence(self) -> None:
        for name, statement in queries("sqlite").items():
            assert statement.startswith("-- "), name
            assert statement.endswith(";"), name


SECRET = "a distinctive text, "


class TestErasing:
    """What is deleted is not in the files any more."""

    async def test_a_deleted_text_is_in_no_file(self, path: str) -> None:
        store = await opened(path)
        await turn(store, "kept")
        for length in (1, 50, 1000):
            text = SECRET * length
            claim = await running(store, f"resp_{length}", items=[item(f"i{length}", text)], request=text.encode())
            await store.append(claim, [segment(1, text=text)], notes=[Note(1, "turn", text.encode())])
            await store.append(claim, [segment(2, text=text)], ending=ending(item(f"o{length}", text)))
        before = contains(path, SECRET)

        for length in (1, 50, 1000):
            await store.delete("alice", f"resp_{length}")
        await store.erased()

        assert before
        assert not contains(path, SECRET)
        assert await ids(store, "kept", output=True) == ["in_kept", "out_kept"]
        await store.close()

    async def test_the_text_of_a_deleted_conversation_or_prompt_is_in_no_file(self, path: str) -> None:
        store = await opened(path)
        await conversation(store, "conv_1", item("i1", SECRET))
        claim = await talking(store, "resp_1")
        await end(store, claim, item("o1", SECRET))
        await store.put_prompt("alice", "pmpt_1", SECRET.encode())
        await conversation(store, "conv_2", item("kept"), item("i2", SECRET))
        before = contains(path, SECRET)

        await store.delete("alice", "resp_1")
        await store.delete_conversation("alice", "conv_1")
        await store.delete_item("alice", "conv_2", "i2")
        await store.delete_prompt("alice", "pmpt_1")
        await store.erased()

        assert before
        assert not contains(path, SECRET)
        assert await kept(store, "conv_2") == ["kept"]
        await store.close()

    async def test_a_text_that_was_moved_between_pages_is_erased_too(self, path: str) -> None:
        """SQLite leaves copies behind when it moves rows; without the clearing checkpoints this finds some of them."""
        store = await opened(path)
        chance, kept = random.Random(5), list[int]()

        async def write(number: int) -> None:
            text = f"<secret {number:04d}>" * chance.choice([1, 3, 20, 100])
            claim = await running(store, f"resp_{number}", items=[item(f"i{number}", text)], request=text.encode())
            await store.append(claim, [segment(1, text=text)], ending=ending(item(f"o{number}", text)))

        for start in range(0, 900, 3):
            await asyncio.gather(*(write(number) for number in range(start, start + 3)))
            kept += range(start, start + 3)
            while len(kept) > 30:
                await store.delete("alice", f"resp_{kept.pop(chance.randrange(len(kept)))}")
        await store.erased()

        found = {
            int(number) for content in files_of(path).values() for number in re.findall(rb"<secret (\d+)>", content)
        }
        assert found == set(kept)
        assert apsw.Connection(path).pragma("integrity_check") == "ok"
        await store.close()

    async def test_closing_does_not_wait_to_erase(self, path: str) -> None:
        store = await opened(path)
        await running(store, items=[item("i1", SECRET)])
        await store.delete("alice", "resp_1")

        await store.close()

        assert not contains(path, SECRET)

    async def test_a_reader_in_the_way_only_delays_it(self, store: SqliteStore, path: str) -> None:
        await running(store, items=[item("i1", SECRET)])
        reader = apsw.Connection(path)
        cursor = reader.execute("SELECT * FROM responses, segments")  # holds its snapshot
        await store.delete("alice", "resp_1")
        erased = asyncio.ensure_future(store.erased())
        await running(store, "resp_2")
        in_the_way = erased.done()

        cursor.close()
        reader.close()
        await erased

        assert not in_the_way
        assert not contains(path, SECRET)


# A query, and how it gets at what there may be many of.
PLANS = {
    "claim": "SEARCH earlier USING COVERING INDEX turns_open (conversation=? AND response<?)",
    "context": "SEARCH conversation_items USING COVERING INDEX conversation_items_order (conversation=? AND rowid<?)",
    "find_items": "SEARCH items USING INDEX items_id (tenant=? AND id=?)",
    "same_ids": "SEARCH conversation_items USING INDEX conversation_items_id (tenant=? AND id=? AND conversation=?)",
    "list_items_ascending": "SEARCH conversation_items USING INDEX conversation_items_order (conversation=? AND rowid>?)",  # noqa: E501
    "list_responses_descending": "SEARCH responses USING INDEX responses_tenant (tenant=? AND rowid<?)",
    "delete_key": "SEARCH idempotency USING INDEX idempotency_response (response=?)",
}


@pytest.mark.parametrize("name", PLANS)
def test_a_query_finds_its_rows_by_an_index(name: str) -> None:
    connection = connect_memory()

    plan = connection.execute(f"EXPLAIN QUERY PLAN {queries('sqlite')[name]}", Anything()).fetchall()

    assert PLANS[name] in [step for *_, step in plan]


class Anything(dict[str, Any]):
    """Bindings for any statement."""

    def __missing__(self, name: str) -> int:
        return 1


class TestWriter:
    """Group commit."""

    async def test_an_operation_that_fails_unexpectedly_does_not_disturb_the_others(self, store: SqliteStore) -> None:
        claims = [await running(store, f"resp_{number}") for number in range(5)]
        broken = new("resp_9", items=[item("i1")], model=None)

        results = await asyncio.gather(
            *(store.append(claim, [segment(1)]) for claim in claims[:3]),
            store.create("alice", broken),
            *(store.append(claim, [segment(1)], notes=[Note(1, "turn")]) for claim in claims[3:]),
            return_exceptions=True,
        )

        assert [type(result) for result in results] == [type(None)] * 3 + [StoreError] + [type(None)] * 2
        for number in range(5):
            assert await numbers(store, f"resp_{number}") == [0, 1]

    async def test_an_append_waits_while_too_much_waits_for_the_disk(
        self, store: SqliteStore, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(writer, "WAITING_BYTES_MAX", 10_000)
        claims = [await running(store, f"resp_{number}") for number in range(20)]
        blocker = apsw.Connection(path)
        blocker.execute("BEGIN IMMEDIATE")

        appends = [asyncio.ensure_future(store.append(claim, [segment(1, text="x" * 3000)])) for claim in claims]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert store._writer is not None
        waiting = store._writer.waiting_bytes
        blocker.execute("ROLLBACK")
        blocker.close()
        await asyncio.gather(*appends)

        assert 10_000 <= waiting < 14_000
        for number in range(20):
            assert await numbers(store, f"resp_{number}") == [0, 1]

    async def test_a_cancelled_append_is_committed_or_not_but_whole(self, store: SqliteStore) -> None:
        claim = await running(store)
        task = asyncio.ensure_future(store.append(claim, [segment(1), segment(2)], notes=[Note(2, "turn")]))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

        await store.mark_followed("alice", "resp_1", seconds=1)  # behind it in the queue

        assert (await numbers(store), len(await store.notes("alice", "resp_1"))) in (([0], 0), ([0, 1, 2], 1))

    async def test_what_waits_is_committed_before_closing(self, path: str) -> None:
        store = await opened(path)
        claim = await running(store)
        appends = [asyncio.ensure_future(store.append(claim, [segment(first)])) for first in range(1, 50)]
        await asyncio.sleep(0)

        await store.close()
        await asyncio.gather(*appends)

        store = await opened(path)
        assert await numbers(store) == list(range(50))
        await store.close()

    async def test_after_closing_every_call_is_refused(self, store: SqliteStore) -> None:
        claim = await running(store)
        await store.close()

        calls: list[Callable[[], object]] = [
            lambda: store.append(claim, [segment(1)]),
            lambda: store.append(claim, [], ending=ending()),
            lambda: store.get("alice", "resp_1"),
        ]
        for call in calls:
            with pytest.raises(AntiphonError):
                await call()  # type: ignore[misc]


APPENDING = """
import asyncio, sys
from antiphon.store.sqlite import SqliteStore
from tests.contracts.store import running, segment

async def main():
    store = SqliteStore(sys.argv[1])
    await store.open()

    async def write(number):
        claim = await running(store, f"resp_{number}")
        for first in range(1, 100_000):
            await store.append(claim, [segment(first)])
            print(number, first, flush=True)

    await asyncio.gather(*(write(number) for number in range(10)))

asyncio.run(main())
"""


async def test_what_was_acknowledged_survives_a_killed_process(path: str) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", APPENDING, path, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parent.parent
    )
    assert child.stdout is not None
    acknowledged = dict.fromkeys(range(10), 0)
    while min(acknowledged.values()) < 20:
        number, first = map(int, (await child.stdout.readline()).split())
        acknowledged[number] = first
    child.send_signal(signal.SIGKILL)
    for line in (await child.stdout.read()).splitlines(keepends=True):
        if line.endswith(b"\n"):
            number, first = map(int, line.split())
            acknowledged[number] = first
    await child.wait()

    store = await opened(path)

    for number, first in acknowledged.items():
        written = await numbers(store, f"resp_{number}")
        assert written == list(range(len(written)))
        assert len(written) > first
    assert len(await store.claim(limit=99, lease_seconds=60)) == 10
    await store.close()


async def test_a_statement_is_prepared_once_whatever_number_it_is_asked_for(path: str) -> None:
    store = await opened(path)
    claim = await running(store)
    await store.append(claim, [segment(1), segment(2)])
    prepared_again: list[int] = []
    reader = store._reader
    assert reader is not None
    reader.trace_v2(
        apsw.SQLITE_TRACE_PROFILE,
        lambda told: prepared_again.append(told["stmt_status"]["SQLITE_STMTSTATUS_REPREPARE"]),
    )

    for after in (-1, 0, 1, 2):
        await store.read("alice", "resp_1", after=after)

    assert prepared_again == [0, 0, 0, 0]
    await store.close()

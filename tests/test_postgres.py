"""The PostgreSQL store: the contract, and what many nodes and a database that may go away add to it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from antiphon.cli import main
from antiphon.errors import BadRequest, LeaseLost, Repeated, StoreError
from antiphon.store import postgres_database
from antiphon.store.base import Claim, Note
from antiphon.store.postgres import PostgresStore
from antiphon.store.postgres_bell import PostgresBell
from antiphon.store.postgres_database import Database
from antiphon.store.postgres_search import search
from antiphon.store.shared_bell import SharedBell
from antiphon.store.sql import migrations, queries
from tests.contracts.conversations import ConversationContract, conversation, end, kept, keyed, talking
from tests.contracts.shared_bell import SharedBellContract, outlives_its_server
from tests.contracts.store import StoreContract, ending, ids, item, new, numbers, running, segment, turn
from tests.contracts.upkeep import PAST, UpkeepContract, compacted
from tests.servers import postgres
from tests.servers.antiphon import antiphon, created

TABLES = (
    "responses", "segments", "notes", "items", "links", "conversations", "conversation_items", "turns", "idempotency",
    "prompts", "secrets", "usage", "served",
)  # fmt: skip
EMPTY = "TRUNCATE " + ", ".join(f"antiphon.{table}" for table in TABLES)


@pytest.fixture(scope="module")
def server_url() -> Iterator[str]:
    """The server that this run uses."""
    with postgres.any_server() as url:
        yield url


@pytest.fixture(scope="module")
def database(server_url: str) -> Iterator[str]:
    """A migrated database of this run's own."""

    async def made() -> str:
        url = await postgres.create_database(server_url)
        store = PostgresStore(url)
        await store.open()
        await store.close()
        return url

    url = asyncio.run(made())
    yield url
    asyncio.run(postgres.drop_database(server_url, url))


@pytest.fixture
async def url(database: str) -> str:
    """The same, with nothing in it."""
    await postgres.run(database, EMPTY)
    return database


async def opened(url: str, **options: object) -> PostgresStore:
    store = PostgresStore(url, **options)  # type: ignore[arg-type]
    await store.open()
    return store


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresStore]:
    store = await opened(url)
    yield store
    await store.close()


class TestPostgres(StoreContract, ConversationContract, UpkeepContract):
    """One node."""


async def aged(url: str, seconds: float) -> None:
    """Let time pass, for all that is stored."""
    await postgres.run(
        url, "UPDATE antiphon.responses SET lease_ends = lease_ends - $1, followed_until = followed_until - $1", seconds
    )
    await postgres.run(url, "UPDATE antiphon.idempotency SET expires_at = expires_at - $1", seconds)


class TestTime:
    """Leases and graces run out by the database's clock."""

    async def test_a_lease_runs_out(self, store: PostgresStore, url: str) -> None:
        await store.create("alice", new("resp_1", background=True), lease_seconds=100)

        await aged(url, 50)
        early = await store.claim(limit=1, lease_seconds=100)
        await aged(url, 50)
        late = await store.claim(limit=1, lease_seconds=100)

        assert early == []
        assert [claim.response_id for claim in late] == ["resp_1"]

    @pytest.mark.parametrize("wrong", [-1e6, 1e6])
    async def test_a_node_with_a_wrong_clock_does_no_harm(
        self, url: str, monkeypatch: pytest.MonkeyPatch, wrong: float
    ) -> None:
        right, other = await opened(url), await opened(url)
        now = time.time
        held = await running(right, "resp_1", background=True)
        monkeypatch.setattr(time, "time", lambda: now() + wrong)

        assert await other.claim(limit=1, lease_seconds=60) == []
        await other.create("alice", new("resp_2", background=True), lease_seconds=60)
        monkeypatch.undo()
        assert await right.claim(limit=1, lease_seconds=60) == []
        assert abs(held.lease_ends - now() - 60) < 30
        await right.close()
        await other.close()

    async def test_a_worker_whose_lease_ran_out_goes_on_as_long_as_nobody_took_over(
        self, store: PostgresStore, url: str
    ) -> None:
        claim = await running(store)
        await aged(url, 1000)

        await store.append(claim, [segment(1)])

        assert (await store.renew([claim], lease_seconds=60, grace_seconds=1e9)).lost == frozenset()

    async def test_the_grace_runs_out_after_the_last_follower(self, store: PostgresStore, url: str) -> None:
        claim = await running(store)

        async def unfollowed() -> bool:
            return bool((await store.renew([claim], lease_seconds=60, grace_seconds=50)).unfollowed)

        answers = []
        for seconds in (25, 25):
            await aged(url, seconds)
            answers.append(await unfollowed())
        await store.mark_followed("alice", "resp_1", seconds=100)
        for seconds in (125, 25):
            await aged(url, seconds)
            answers.append(await unfollowed())

        assert answers == [False, True, False, True]

    async def test_a_takeover_starts_the_grace_anew(self, store: PostgresStore, url: str) -> None:
        await running(store)
        await aged(url, 1000)

        (claim,) = await store.claim(limit=1, lease_seconds=60)

        assert (await store.renew([claim], lease_seconds=60, grace_seconds=50)).unfollowed == frozenset()

    async def test_an_idempotency_key_is_remembered_for_its_time(self, store: PostgresStore, url: str) -> None:
        await store.create("alice", keyed("a", seconds=24 * 3600))

        await aged(url, 24 * 3600 - 100)
        with pytest.raises(Repeated):
            await store.create("alice", keyed("b"))
        await aged(url, 100)
        await store.create("alice", keyed("b", fingerprint=b"2"))


@pytest.fixture
async def nodes(url: str) -> AsyncIterator[list[PostgresStore]]:
    """Three nodes on one database."""
    stores = [await opened(url) for _ in range(3)]
    yield stores
    for store in stores:
        await store.close()


class TestNodes:
    """What would be in order on one node, and is in no order on several."""

    async def test_no_two_nodes_claim_the_same(self, nodes: list[PostgresStore]) -> None:
        for number in range(60):
            await nodes[0].create("alice", new(f"resp_{number}", background=True))

        taken = await asyncio.gather(*(node.claim(limit=3, lease_seconds=60) for node in nodes for _ in range(7)))
        rest = await nodes[0].claim(limit=60, lease_seconds=60)

        responses = [claim.response_id for claims in (*taken, rest) for claim in claims]
        assert len(responses) == len(set(responses)) == 60

    async def test_tenants_take_turns_whichever_node_claims(self, nodes: list[PostgresStore]) -> None:
        for tenant, count in (("alice", 10), ("bob", 3)):
            for number in range(count):
                await nodes[0].create(tenant, new(f"{tenant}{number}", background=True))

        taken = [await nodes[number % 3].claim(limit=1, lease_seconds=60) for number in range(7)]

        tenants = [claim.tenant for claims in taken for claim in claims]
        assert tenants == ["alice", "bob", "alice", "bob", "alice", "bob", "alice"]

    async def test_either_the_seizure_or_the_append_comes_first(self, nodes: list[PostgresStore]) -> None:
        first, second, third = nodes
        for round in range(30):
            id = f"resp_{round}"
            worker = await running(first, id)
            append = first.append(worker, [segment(1)], ending=ending() if round % 2 else None)
            appended, seized = await asyncio.gather(
                append, second.seize("alice", id, lease_seconds=60), return_exceptions=True
            )

            written = await numbers(third, id)
            if isinstance(appended, LeaseLost):
                assert written == [0]
            else:
                assert appended is None
                assert written == [0, 1]
            if isinstance(seized, Claim):  # it reads what was written before it, and goes on behind it
                await second.append(seized, [segment(len(written))], ending=ending(status="cancelled"))
                assert (await third.get("alice", id)).status == "cancelled"
            else:
                assert seized is None
                assert (await third.get("alice", id)).status == "completed"

    async def test_of_creates_with_one_key_one_is_made(self, nodes: list[PostgresStore]) -> None:
        for round in range(10):
            creates = [
                node.create("alice", keyed(f"r{round}_{number}", key=f"k{round}")) for number, node in enumerate(nodes)
            ]
            results = await asyncio.gather(*creates, return_exceptions=True)

            (made,) = [f"r{round}_{number}" for number, result in enumerate(results) if result is None]
            repeated = [result.response_id for result in results if isinstance(result, Repeated)]
            assert repeated == [made] * 2

    async def test_turns_of_one_conversation_run_one_after_the_other(self, nodes: list[PostgresStore]) -> None:
        await conversation(nodes[0])
        created = await asyncio.gather(*(talking(nodes[number % 3], f"r{number:02}") for number in range(18)))
        running = [claim for claim in created if claim is not None]
        order: list[str] = []
        while running:
            (claim,) = running
            order.append(claim.response_id)
            await end(nodes[len(order) % 3], claim, item(f"out_{claim.response_id}"))
            running = [
                claim
                for claims in await asyncio.gather(*(node.claim(limit=9, lease_seconds=60) for node in nodes))
                for claim in claims
            ]

        assert len(order) == len(set(order)) == 18
        assert await kept(nodes[0]) == [f"{kind}_{id}" for id in order for kind in ("in", "out")]

    async def test_an_item_is_not_erased_under_who_begins_to_refer_to_it(self, nodes: list[PostgresStore]) -> None:
        for round in range(20):
            await nodes[0].create("alice", new(f"a{round}", items=[item(f"i{round}")]))
            await asyncio.gather(
                nodes[1].create("alice", new(f"b{round}", items=[item(f"i{round}")])),
                nodes[2].delete("alice", f"a{round}"),
            )

            assert await nodes[0].context("alice", f"b{round}") == [item(f"i{round}")]

    async def test_a_chain_stays_whole_when_its_middle_is_erased_while_it_grows(
        self, nodes: list[PostgresStore]
    ) -> None:
        await turn(nodes[0], "root")
        for round in range(20):
            await turn(nodes[0], f"a{round}", previous="root")
            grown, _ = await asyncio.gather(
                nodes[1].create("alice", new(f"b{round}", previous=f"a{round}")),
                nodes[2].delete("alice", f"a{round}"),
                return_exceptions=True,
            )

            if not isinstance(grown, BadRequest):
                assert grown is None
                assert await ids(nodes[0], f"b{round}") == ["in_root", "out_root"]

    async def test_a_chain_stays_whole_when_neighbours_are_erased_at_once(
        self, nodes: list[PostgresStore], url: str
    ) -> None:
        await turn(nodes[0], "root")
        for round in range(20):
            a, b, c, last = (f"{name}{round}" for name in ("a", "b", "c", "last"))
            for id, previous in ((a, "root"), (b, a), (c, b), (last, c)):
                await turn(nodes[0], id, previous=previous)
            await postgres.run(url, "UPDATE antiphon.responses SET expires_at = 1 WHERE id = ANY($1)", [b, c])

            await asyncio.gather(
                nodes[0].delete("alice", a), nodes[1].upkeep.expire(limit=1), nodes[2].upkeep.expire(limit=2)
            )

            assert await ids(nodes[0], last) == ["in_root", "out_root", f"in_{last}"]
            assert (await nodes[0].get("alice", last)).previous in ("root", b, c)

        for round in range(20):
            chain = ["root", *(f"d{round}_{number}" for number in range(6)), last := f"end{round}"]
            for previous, id in pairwise(chain):
                await turn(nodes[0], id, previous=previous)

            await asyncio.gather(*(nodes[number % 3].delete("alice", id) for number, id in enumerate(chain[1:-1])))

            assert await ids(nodes[2], last) == ["in_root", "out_root", f"in_{last}"]

    async def test_what_has_expired_is_erased_by_one_node_each(self, nodes: list[PostgresStore]) -> None:
        for number in range(30):
            claim = await running(nodes[0], f"r{number:02}", expires_at=PAST, items=[item(f"i{number % 3}")])
            await nodes[0].append(claim, [segment(1)], ending=ending(item("o1")))

        batches = await asyncio.gather(*(node.upkeep.expire(limit=2) for node in nodes for _ in range(6)))
        rest = await nodes[0].upkeep.expire(limit=30)

        erased = sorted(id for batch in (*batches, rest) for _, id in batch)
        assert erased == [f"r{number:02}" for number in range(30)]

    async def test_nodes_compact_side_by_side_while_responses_are_read_and_deleted(
        self, nodes: list[PostgresStore]
    ) -> None:
        texts = {f"r{number}": f"Hello {number} " * 50 for number in range(20)}
        for id, text in texts.items():
            claim = await running(nodes[0], id)
            await nodes[0].append(claim, [segment(1, text=text), segment(2)], ending=ending(item("o1")))
        read, deleted = list(texts)[::2], list(texts)[1::2]

        pages = asyncio.gather(*(nodes[2].read("alice", id, after=0) for id in read for _ in range(5)))
        compacting = asyncio.gather(*(compacted(node) for node in nodes))
        await asyncio.gather(*(nodes[0].delete("alice", id) for id in deleted))
        await compacting

        assert {page.segments[-1].last for page in await pages} == {2}
        for id in read:
            (whole,) = (await nodes[0].read("alice", id, after=-1)).segments
            assert (whole.count, texts[id].encode() in whole.frames) == (3, True)

    async def test_nodes_that_start_at_once_make_one_database(self, server_url: str) -> None:
        made = await postgres.create_database(server_url)

        stores = await asyncio.gather(*(opened(made) for _ in range(5)))

        await running(stores[0])
        assert (await stores[4].get("alice", "resp_1")).attempt == 1
        for store in stores:
            await store.close()
        await postgres.drop_database(server_url, made)

    async def test_all_nodes_share_a_secret(self, nodes: list[PostgresStore]) -> None:
        one, *others = await asyncio.gather(*(node.secret("seals") for node in nodes))

        assert others == [one, one]
        assert len(one) == 64
        assert await nodes[0].secret("other") != one


class TestOpening:
    """Databases that cannot be used, and why."""

    async def test_a_newer_database_is_refused(self, url: str) -> None:
        await postgres.run(url, "UPDATE antiphon.version SET number = 99")

        with pytest.raises(StoreError, match="written by a newer Antiphon"):
            await opened(url)

        await postgres.run(url, "UPDATE antiphon.version SET number = $1", len(migrations("postgres")))
        await (await opened(url)).close()

    async def test_a_server_that_is_not_there_is_named_without_its_password(self) -> None:
        with pytest.raises(StoreError, match=r"postgresql://127\.0\.0\.1:1/x cannot be opened") as refusal:
            await opened("postgresql://me:secret@127.0.0.1:1/x", call_seconds=0)

        assert "secret" not in refusal.value.message

    async def test_who_may_not_write_is_told_what_is_missing(self, server_url: str) -> None:
        made = await postgres.create_database(server_url)
        await postgres.run(server_url, "DROP ROLE IF EXISTS antiphon_test_reader")
        await postgres.run(server_url, "CREATE ROLE antiphon_test_reader LOGIN")
        parts = urlsplit(made)

        with pytest.raises(StoreError, match="GRANT CREATE ON DATABASE"):
            await opened(parts._replace(netloc=f"antiphon_test_reader@{parts.netloc.rpartition('@')[2]}").geturl())

        await postgres.drop_database(server_url, made)
        await postgres.run(server_url, "DROP ROLE antiphon_test_reader")

    async def test_a_store_that_is_not_open_says_so(self, url: str) -> None:
        store = PostgresStore(url)
        claim = Claim("alice", "resp_1", 1, 0.0)

        for call in (store.get("alice", "resp_1"), store.delete("alice", "resp_1"), store.append(claim, [segment(1)])):
            with pytest.raises(StoreError, match="not open"):
                await call

    async def test_what_cannot_be_kept_is_the_callers_fault(self, store: PostgresStore) -> None:
        with pytest.raises(BadRequest, match=r"U\+0000"):
            await store.create("alice", new("resp_1", model="m\0"))

    @pytest.mark.parametrize("file", ["postgres", "postgres_upkeep"])
    def test_every_query_has_a_name_and_a_sentence(self, file: str) -> None:
        for name, statement in queries(file).items():
            assert statement.startswith("-- "), name
            assert statement.endswith(";"), name

    @pytest.mark.parametrize("file", ["postgres", "postgres_upkeep"])
    async def test_every_query_finds_its_rows_by_an_index(self, url: str, file: str) -> None:
        connection = await asyncpg.connect(url, server_settings={"search_path": "antiphon", "enable_seqscan": "off"})
        for name, statement in queries(file).items():
            prepared = await connection.prepare(statement)
            values = [VALUES[parameter.name] for parameter in prepared.get_parameters()]

            assert "Seq Scan" not in str(await prepared.explain(*values)), name
        await connection.close()


# A value for a parameter of each type.
ONE = {"text": "x", "bytea": b"x", "int4": 1, "int8": 1, "float8": 1.0, "bool": True}
VALUES = {**ONE, **{f"{name}[]": [value] for name, value in ONE.items()}}


SECRET = "a distinctive text"


@pytest.mark.parametrize("compacting", [False, True])
async def test_what_was_erased_is_in_no_table(store: PostgresStore, url: str, compacting: bool) -> None:
    await conversation(store, "conv_1", item("i1", SECRET))
    claim = await talking(store, "resp_1", request=SECRET.encode())
    assert claim is not None
    await store.append(claim, [segment(1, text=SECRET)], notes=[Note(1, "turn", SECRET.encode())])
    await store.append(claim, [segment(2)], ending=ending(item("o1", SECRET)))
    await store.create("alice", new("resp_2", items=[item("i1", SECRET)], metadata=b'{"k":"%s"}' % SECRET.encode()))
    await store.put_prompt("alice", "pmpt_1", SECRET.encode())
    if compacting:
        await compacted(store)

    async def tables() -> set[str]:
        return {found.place.partition(".")[0] for found in await search(url, SECRET)}

    before = await tables()
    for id in ("resp_1", "resp_2"):
        await store.delete("alice", id)
    await store.delete_conversation("alice", "conv_1")
    await store.delete_prompt("alice", "pmpt_1")

    assert before == {"responses", "segments", "notes", "items", "conversation_items", "prompts"}
    assert await tables() == set()


class TestCommands:
    """What an administrator asks of the database, beside servers."""

    async def test_what_was_used_is_told(
        self, store: PostgresStore, url: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        await turn(store, "resp_1")
        await store.delete("alice", "resp_1")

        assert await asyncio.to_thread(main, ["usage", "--json", "--database", url]) == 0

        counts = {"input": 0, "cached": 0, "output": 0, "reasoning": 0}
        assert json.loads(capsys.readouterr().out) == {"tenant": "alice", "responses": 1, **counts}

    async def test_where_a_text_is_left_is_told_and_what_cannot_be_seen(
        self, store: PostgresStore, url: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        await running(store, items=[item("i1", SECRET)], metadata=b'{"k":"%s"}' % SECRET.encode())
        looking = ["verify-erased", "--text", SECRET, "--database", url]

        assert await asyncio.to_thread(main, looking) == 1
        before = capsys.readouterr()
        await store.delete("alice", "resp_1")
        assert await asyncio.to_thread(main, looking) == 0
        after = capsys.readouterr()

        assert [json.loads(line) for line in before.out.splitlines()] == [
            {"place": "responses.metadata", "where": "resp_1"},
            {"place": "responses.labels", "where": "resp_1"},
            {"place": "items.body", "where": "i1"},
        ]
        assert SECRET not in before.out + before.err
        assert after.out == ""
        assert "until VACUUM has run" in after.err


# Creates that hold a U+0000 where PostgreSQL keeps bytes, and where it keeps text, which cannot hold one.
KEPT: list[dict[str, Any]] = [
    {"input": "a\0b"},
    {"instructions": "a\0b"},
    {"metadata": {"k\0": "v\0"}},
    {"user": "u\0"},
]
REFUSED: list[dict[str, Any]] = [
    {"model": "text:a\0b"},
    {"previous_response_id": "resp_\0"},
    {"conversation": "conv_\0"},
    {"prompt": {"id": "pmpt_\0"}},
    {"input": [{"id": "msg_\0", "type": "message", "role": "user", "content": "x"}]},
    {"input": [{"id": "msg_\0", "type": "item_reference"}]},
]


class TestServer:
    """A whole node on the database."""

    async def test_a_character_that_text_cannot_hold_is_kept_or_the_callers_fault(self, url: str) -> None:
        async def status(body: dict[str, Any]) -> tuple[int, bool]:
            answer = await http.post("/responses", json={"model": "text:Hello", "input": "Hi", **body})
            return answer.status_code, "U+0000" in answer.text

        with antiphon(url) as server:
            async with server.http() as http:
                kept = [await status(body) for body in KEPT]
                refused = [await status(body) for body in REFUSED]
                listed = (await http.get("/responses")).json()["data"]

        assert kept == [(200, False)] * len(KEPT)
        assert refused == [(400, True)] * len(REFUSED)
        assert len(listed) == len(KEPT)

    async def test_it_erases_what_has_expired_and_compacts_what_is_finished(
        self, store: PostgresStore, url: str
    ) -> None:
        await turn(store, "finished")
        claim = await running(store, "expired", expires_at=PAST)
        await store.append(claim, [segment(1)], ending=ending())

        with antiphon(url):
            while await postgres.run(url, "SELECT 1 FROM antiphon.responses WHERE NOT packed"):
                pass

        assert await numbers(store, "finished") == [0, 1]
        assert [row["id"] for row in await postgres.run(url, "SELECT id FROM antiphon.responses")] == ["finished"]

    async def test_a_response_whose_time_is_over_is_unknown_at_once_and_stays_counted(self, url: str) -> None:
        with antiphon(url) as server:
            async with server.http() as http:
                first = await created(http, "text:Hello")
                second = await created(http, "text:Again", previous_response_id=first["id"])
                await postgres.run(url, "UPDATE antiphon.responses SET expires_at = 1 WHERE id = $1", first["id"])

                path = f"/responses/{first['id']}"
                answers = [
                    await http.get(path),
                    await http.get(path, params={"stream": "true"}),
                    await http.get(f"{path}/input_items"),
                    await http.post(f"{path}/cancel"),
                    await http.delete(path),
                ]
                seen = (await http.get(f"/responses/{second['id']}/input_items")).json()["data"]

        assert [answer.status_code for answer in answers] == [404] * 5
        assert len(seen) == 1
        store = await opened(url)
        (used,) = await store.upkeep.usage()
        await store.close()
        assert (used.responses, used.tokens.output) == (
            2, sum(each["usage"]["output_tokens"] for each in (first, second))
        )  # fmt: skip


@pytest.fixture
def mortal() -> Iterator[postgres.Postgres]:
    """A server that may be killed."""
    with postgres.server() as own:
        yield own


class TestLosing:
    """The database goes away, and comes back."""

    @pytest.mark.parametrize("way", ["kill", "stop"])
    async def test_what_is_appended_during_a_restart_is_there_once(self, mortal: postgres.Postgres, way: str) -> None:
        store = await opened(mortal.url())
        claims = [await running(store, f"resp_{number}") for number in range(5)]

        written: asyncio.Queue[int] = asyncio.Queue()

        async def write(claim: Claim) -> None:
            for first in range(1, 300):
                await store.append(claim, [segment(first)], notes=[Note(first, "n")] if first % 10 == 0 else ())
                written.put_nowait(first)
            await store.append(claim, [], ending=ending(item(f"o_{claim.response_id}")))

        writing = [asyncio.create_task(write(claim)) for claim in claims]
        for _ in range(2):
            for _ in range(100):
                await written.get()
            await asyncio.to_thread(getattr(mortal, way))
            await asyncio.to_thread(mortal.start)
        await asyncio.gather(*writing)

        for claim in claims:
            assert await numbers(store, claim.response_id) == list(range(300))
            assert [note.after for note in await store.notes("alice", claim.response_id)] == list(range(10, 300, 10))
            assert await ids(store, claim.response_id, output=True) == [f"o_{claim.response_id}"]
        await store.close()

    async def test_who_lost_the_claim_meanwhile_is_told_so(self, mortal: postgres.Postgres) -> None:
        store, other = await opened(mortal.url()), await opened(mortal.url())
        claim = await running(store)
        await asyncio.to_thread(mortal.kill)
        appending = asyncio.create_task(store.append(claim, [segment(1)]))
        seizing = asyncio.create_task(other.seize("alice", "resp_1", lease_seconds=60))
        await asyncio.to_thread(mortal.start)

        assert await seizing is not None
        (outcome,) = await asyncio.gather(appending, return_exceptions=True)

        assert await numbers(store) == ([0] if isinstance(outcome, LeaseLost) else [0, 1])
        with pytest.raises(LeaseLost):
            await store.append(claim, [segment(2)])
        await store.close()
        await other.close()

    async def test_a_database_that_stays_away_is_told_and_what_comes_later_succeeds(
        self, mortal: postgres.Postgres
    ) -> None:
        store = await opened(mortal.url(), call_seconds=0.1, append_seconds=0.1)
        claim = await running(store)
        await asyncio.to_thread(mortal.kill)

        for call in (
            store.append(claim, [segment(1)]),
            store.get("alice", "resp_1"),
            store.create("alice", new("resp_2")),
            store.renew([claim], lease_seconds=60, grace_seconds=60),
        ):
            with pytest.raises(StoreError, match="cannot be reached"):
                await call

        await asyncio.to_thread(mortal.start)
        await store.append(claim, [segment(1)])
        assert await numbers(store) == [0, 1]
        await store.close()

    async def test_the_bell_outlives_its_server(self, mortal: postgres.Postgres) -> None:
        made: list[PostgresBell] = []

        async def make() -> PostgresBell:
            made.append(PostgresBell(mortal.url(), 3600))
            await made[-1].open()
            return made[-1]

        await outlives_its_server(make, mortal)
        for bell in made:
            await bell.aclose()


@pytest.fixture
async def wire(url: str) -> AsyncIterator[postgres.Wire]:
    wire = postgres.Wire(url)
    yield wire
    await wire.close()


@pytest.fixture
async def distant(wire: postgres.Wire) -> AsyncIterator[PostgresStore]:
    """A store whose wire can be cut."""
    store = await opened(await wire.open())
    yield store
    await store.close()


async def test_a_change_that_is_cancelled_ends_though_the_database_says_nothing(
    wire: postgres.Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_database, "ROLLBACK_SECONDS", 0.01)
    database = Database(await wire.open(), connections_max=1, call_seconds=5.0, durability="full")
    await database.open()
    begun = asyncio.Event()

    async def slow(connection: asyncpg.Connection) -> None:
        begun.set()
        await connection.execute("SELECT pg_sleep(60)")

    async def quick(connection: asyncpg.Connection) -> int:
        return int(await connection.fetchval("SELECT 1"))

    changing = asyncio.create_task(database.change(slow))
    await begun.wait()
    wire.silent = True
    changing.cancel()
    await asyncio.wait([changing], timeout=10)

    assert changing.cancelled()
    wire.silent = False
    assert await database.run(quick) == 1
    await database.close()


# What the server says when it has committed a statement, or a transaction.
STATEMENT, COMMIT = b"SELECT 0", b"COMMIT"


# An append of one segment, by the first attempt at resp_1.
LATE = """
WITH held AS (SELECT row FROM antiphon.responses WHERE id = 'resp_1' FOR NO KEY UPDATE)
INSERT INTO antiphon.segments (response, first, last, mask, attempt, frames) SELECT row, 1, 1, 0, 1, 'x' FROM held
"""


async def blocked(url: str, statement: str) -> None:
    """Return when a statement that holds this text waits for a lock."""
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND strpos(query, $1) > 0"
    while not await postgres.run(url, waiting, statement):
        pass


class TestUncertainty:
    """The connection is cut when the database has committed, and before we hear of it."""

    async def test_an_append_is_not_doubled(self, distant: PostgresStore, wire: postgres.Wire) -> None:
        claim = await running(distant)
        await distant.append(claim, [segment(1)])

        wire.cut_answer(STATEMENT)
        await distant.append(claim, [segment(2)])

        assert wire.cuts == 1
        assert await numbers(distant) == [0, 1, 2]
        with pytest.raises(LeaseLost):
            await distant.append(claim, [segment(2)])

    async def test_an_append_that_is_committed_late_is_known_for_our_own(
        self, distant: PostgresStore, wire: postgres.Wire, url: str
    ) -> None:
        """What went out over the lost connection may still be under way when we ask for it over the next one."""
        claim = await running(distant)
        connection = await asyncpg.connect(url)
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(LATE)
        appending = asyncio.create_task(distant.append(claim, [segment(1)]))
        await blocked(url, "INSERT INTO segments")

        wire.cut()
        await blocked(url, "SELECT row FROM responses")
        await transaction.commit()
        await appending

        assert await numbers(distant) == [0, 1]
        await connection.close()

    async def test_notes_are_not_doubled(self, distant: PostgresStore, wire: postgres.Wire) -> None:
        claim = await running(distant)

        wire.cut_answer(COMMIT)
        await distant.append(claim, [], notes=[Note(0, "a"), Note(0, "b")])

        assert wire.cuts == 1
        assert await distant.notes("alice", "resp_1") == [Note(0, "a"), Note(0, "b")]

    async def test_an_ending_is_not_taken_for_lost(self, distant: PostgresStore, wire: postgres.Wire) -> None:
        claim = await running(distant)

        wire.cut_answer(COMMIT)
        await distant.append(claim, [segment(1)], notes=[Note(1, "a")], ending=ending(item("o1")))

        assert wire.cuts == 1
        assert await ids(distant, "resp_1", output=True) == ["o1"]
        assert (await distant.get("alice", "resp_1")).status == "completed"
        assert [each.responses for each in await distant.upkeep.usage()] == [1]

    async def test_a_create_is_carried_out_once(self, distant: PostgresStore, wire: postgres.Wire) -> None:
        wire.cut_answer(COMMIT)
        claim = await distant.create("alice", keyed("resp_1", items=[item("i1")]), lease_seconds=60)

        assert wire.cuts == 1
        assert claim is not None
        assert (claim.attempt, claim.tries) == (1, 1)
        await distant.append(claim, [segment(1)])
        assert await ids(distant, "resp_1") == ["i1"]

    async def test_what_was_deleted_is_not_reported_as_unknown(
        self, distant: PostgresStore, wire: postgres.Wire
    ) -> None:
        await running(distant)
        await conversation(distant, "conv_1", item("a"))
        await distant.put_prompt("alice", "p", b"1")

        for delete in (
            lambda: distant.delete("alice", "resp_1"),
            lambda: distant.delete_item("alice", "conv_1", "a"),
            lambda: distant.delete_conversation("alice", "conv_1"),
            lambda: distant.delete_prompt("alice", "p"),
        ):
            wire.cut_answer(COMMIT)
            await delete()

        assert wire.cuts == 4

    async def test_a_version_and_a_conversation_are_made_once(
        self, distant: PostgresStore, wire: postgres.Wire
    ) -> None:
        wire.cut_answer(COMMIT)
        prompt = await distant.put_prompt("alice", "p", b"1")
        wire.cut_answer(COMMIT)
        await conversation(distant, "conv_1", item("a"))

        assert wire.cuts == 2
        assert prompt.version == 1
        assert (await distant.get_prompt("alice", "p")).version == 1
        assert await kept(distant) == ["a"]


class TestPostgresBell(SharedBellContract):
    @pytest.fixture
    def new(self, database: str) -> Callable[[float], SharedBell]:
        return lambda poll_seconds: PostgresBell(database, poll_seconds)

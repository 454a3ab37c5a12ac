"""PostgreSQL refuses: its disk is full, it takes no writes, no connections, or waits for no lock.

The real server says so: an administrator's setting makes it, or a trigger for what only a broken machine does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from antiphon.errors import AntiphonError, StoreError
from antiphon.server.failures import told
from antiphon.store.postgres import PostgresStore
from tests.contracts.store import new, numbers, running, segment
from tests.servers import postgres
from tests.servers.antiphon import creating, replayed
from tests.test_faults import at_work, check_unavailable, ended, post, ready, text_of

FULL = "53100"
STATUSES = {
    "40001": 503,  # it could not serialise
    "40P01": 503,  # a deadlock
    "53000": 503,  # it has too little of something
    FULL: 503,
    "53200": 503,  # out of memory
    "53300": 503,  # too many connections
    "53400": 503,  # a limit of its configuration
    "55P03": 503,  # a lock was not to be had in time
    "57014": 503,  # a statement took longer than it may
    "57P01": 503,  # it is being shut down
    "57P03": 503,  # it is starting
    "58030": 503,  # its disk fails
    "42501": 500,  # a right was taken away
    "XX001": 500,  # a page is damaged
}


@pytest.fixture(scope="module")
def server_url() -> Iterator[str]:
    with postgres.any_server() as url:
        yield url


class Refusing:
    """A database of a user like any other, and its administrator."""

    def __init__(self, server: str, administrator: str, user: str) -> None:
        self._server = server
        self._administrator = administrator
        self.url = urlsplit(administrator)._replace(netloc=f"{user}@{urlsplit(administrator).netloc.split('@')[1]}")
        self._name = self.url.path.strip("/")
        self._user = user

    async def order(self, statement: str) -> None:
        await postgres.run(self._administrator, statement)

    async def set(self, change: str) -> None:
        """Change the database, for all that connect from now on, and have everybody connect anew."""
        leave = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{self._user}'"
        for statement in (f"ALTER DATABASE {self._name} {change}", leave):
            await postgres.run(self._server, statement)

    async def refuse(self, code: str) -> None:
        """Raise this error wherever an event is to be written."""
        raising = f"BEGIN RAISE EXCEPTION 'it does not work' USING ERRCODE = '{code}'; END"
        await self.order(f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $${raising}$$")
        await self.order("CREATE TRIGGER refusing BEFORE INSERT ON antiphon.segments EXECUTE FUNCTION refuse()")

    async def accept(self) -> None:
        await self.order("DROP FUNCTION refuse CASCADE")


@pytest.fixture
async def database(server_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Refusing]:
    monkeypatch.setitem(PostgresStore.__init__.__kwdefaults__ or {}, "call_seconds", 0.2)
    url = await postgres.create_database(server_url)
    user = f"user_of_{url.rpartition('/')[2]}"
    await postgres.run(server_url, f"CREATE ROLE {user} LOGIN")
    await postgres.run(server_url, f"GRANT ALL ON DATABASE {url.rpartition('/')[2]} TO {user}")
    yield Refusing(server_url, url, user)
    await postgres.drop_database(server_url, url)
    await postgres.run(server_url, f"DROP ROLE {user}")


@pytest.mark.parametrize("code", STATUSES)
async def test_every_refusal_has_a_documented_status(database: Refusing, code: str) -> None:
    store = PostgresStore(database.url.geturl(), append_seconds=0.2)
    await store.open()
    claim = await running(store, "resp_1")
    await database.refuse(code)
    refused = []
    for call in (store.create("alice", new("resp_2")), store.append(claim, [segment(1)])):
        with pytest.raises(AntiphonError) as raised:
            await call
        assert isinstance(raised.value, StoreError)
        refused.append(told(raised.value).status)
    await database.accept()
    await store.append(claim, [segment(1)])

    assert refused == [STATUSES[code]] * 2
    assert await numbers(store, "resp_1") == [0, 1]
    await store.close()


class Fault:
    """Something that begins and ends."""

    def __init__(self, database: Refusing, kind: str) -> None:
        self._database, self._kind = database, kind

    async def begin(self) -> None:
        match self._kind:
            case "disk full":
                await self._database.refuse(FULL)
            case "read-only":
                await self._database.set("SET default_transaction_read_only = on")
            case "no connections":
                await self._database.set("CONNECTION LIMIT 0")

    async def end(self) -> None:
        match self._kind:
            case "disk full":
                await self._database.accept()
            case "read-only":
                await self._database.set("RESET default_transaction_read_only")
            case "no connections":
                await self._database.set("CONNECTION LIMIT -1")


@pytest.fixture(params=["disk full", "read-only", "no connections"])
def fault(request: Any, database: Refusing) -> Fault:
    return Fault(database, request.param)


async def test_what_runs_waits_and_calls_are_told_to_come_again(database: Refusing, fault: Fault) -> None:
    with at_work(database.url.geturl()) as server:
        async with server.http() as http:
            async with creating(http, "gate:2:2") as stream:
                await stream.deltas(2)
                await fault.begin()
                server.upstream.requests[0].release()
                check_unavailable(await post(http, "Hi"))
                await fault.end()
                await stream.rest()
            response = await ended(http, stream.response_id)

            assert (response["status"], text_of(response)) == ("completed", " 0 1 and and")
            assert await replayed(http, stream.response_id) == stream.raw
            assert len(server.upstream.requests) == 1
            assert (await post(http, "Hi")).status_code == 200
            assert await ready(http) == (200, "ready")


async def test_a_database_that_takes_no_writes_is_still_read(database: Refusing) -> None:
    with at_work(database.url.geturl()) as server:
        async with server.http() as http:
            made = (await post(http, "Hi")).json()
            await database.set("SET default_transaction_read_only = on")

            assert (await http.get(f"/responses/{made['id']}")).json() == made
            assert (await ready(http))[0] == 503
            check_unavailable(await http.delete(f"/responses/{made['id']}"))


async def test_the_defaults_of_an_administrator_change_nothing(database: Refusing) -> None:
    """What is serialised by locks would else collide."""
    await database.set("SET default_transaction_isolation = 'serializable'")
    store = PostgresStore(database.url.geturl())
    await store.open()

    assert await store._database.run(_isolation) == "read committed"
    await store.close()


async def test_a_pooler_that_shares_sessions_is_named(database: Refusing) -> None:
    """Such a one gives a new connection what another has left in its session."""
    await database.set("SET antiphon.session = 'of another'")

    with pytest.raises(StoreError, match="pool_mode=session"):
        await PostgresStore(database.url.geturl()).open()


async def _isolation(connection: Any) -> str:
    level: str = await connection.fetchval("SHOW transaction_isolation")
    return level

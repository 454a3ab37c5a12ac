"""The pool of connections to PostgreSQL: how many there are, who waits, and which are not used again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from antiphon.errors import StoreError
from antiphon.store import postgres_pool
from antiphon.store.postgres_pool import Pool
from tests.servers import postgres

SOON = 5.0


@pytest.fixture(scope="module")
def server_url() -> Iterator[str]:
    with postgres.any_server() as url:
        yield url


@pytest.fixture
async def pool(server_url: str) -> AsyncIterator[Pool]:
    pool = Pool(lambda: asyncpg.connect(server_url), 2)
    yield pool
    await pool.close(SOON)


async def backend(pool: Pool) -> int:
    """The process that serves the connection which is lent now."""
    async with pool.lend(SOON) as connection:
        return int(connection.get_server_pid())


async def test_there_are_no_more_connections_than_allowed_and_calls_wait(pool: Pool) -> None:
    backends = await asyncio.gather(*(backend(pool) for _ in range(20)))

    assert len(set(backends)) == 2


async def test_the_connection_that_was_used_last_is_used_next(pool: Pool) -> None:
    async with pool.lend(SOON):
        last = await backend(pool)
    first = await backend(pool)

    assert last != first
    assert [await backend(pool) for _ in range(3)] == [first] * 3


async def test_who_waits_for_too_long_is_told(pool: Pool) -> None:
    async with pool.lend(SOON), pool.lend(SOON):
        with pytest.raises(TimeoutError):
            async with pool.lend(0.01):
                pass

    assert await backend(pool)


async def test_a_place_is_free_again_after_a_connection_could_not_be_made(server_url: str) -> None:
    pool = Pool(lambda: asyncpg.connect(server_url.rpartition("/")[0] + "/nowhere"), 1)
    for _ in range(3):
        with pytest.raises(asyncpg.InvalidCatalogNameError):
            await backend(pool)
    await pool.close(SOON)


async def test_a_connection_that_is_left_in_a_transaction_is_not_used_again(pool: Pool) -> None:
    async with pool.lend(SOON) as connection:
        left = connection.get_server_pid()
        await connection.execute("BEGIN")

    assert await backend(pool) != left


async def test_after_a_cancelled_call_the_next_one_has_a_connection_that_works(pool: Pool) -> None:
    async def slow() -> None:
        async with pool.lend(SOON) as connection:
            sleeping.set()
            await connection.execute("SELECT pg_sleep(60)")

    for _ in range(3):
        sleeping = asyncio.Event()
        call = asyncio.create_task(slow())
        await sleeping.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

        async with pool.lend(SOON) as connection:
            assert await connection.fetchval("SELECT 1") == 1


async def test_what_is_idle_for_long_is_closed(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    async with pool.lend(SOON):
        idle = await backend(pool)
        monkeypatch.setattr(postgres_pool, "IDLE_SECONDS_MAX", -1.0)

    async with pool.lend(SOON) as one, pool.lend(SOON) as other:
        assert idle not in {one.get_server_pid(), other.get_server_pid()}


async def test_what_the_server_has_closed_meanwhile_is_not_lent(pool: Pool, server_url: str) -> None:
    gone = asyncio.Event()
    async with pool.lend(SOON) as connection:
        connection.add_termination_listener(lambda _connection: gone.set())
    other = await asyncpg.connect(server_url)
    await other.execute("SELECT pg_terminate_backend($1)", connection.get_server_pid())
    await other.close()
    async with asyncio.timeout(SOON):
        await gone.wait()

    async with pool.lend(SOON) as connection:
        assert await connection.fetchval("SELECT 1") == 1


async def test_what_was_idle_for_too_long_is_not_lent(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    idle = await backend(pool)
    monkeypatch.setattr(postgres_pool, "IDLE_SECONDS_MAX", -1.0)

    assert await backend(pool) != idle


async def test_a_closed_pool_finishes_what_is_lent_and_lends_nothing_more(server_url: str) -> None:
    pool = Pool(lambda: asyncpg.connect(server_url), 2)
    async with pool.lend(SOON) as connection:
        closing = asyncio.create_task(pool.close(SOON))
        assert await connection.fetchval("SELECT 1") == 1
    await closing

    assert connection.is_closed()
    with pytest.raises(StoreError, match="closed"):
        await backend(pool)


async def test_what_is_lent_for_too_long_is_cut_off_when_the_pool_closes(server_url: str) -> None:
    pool = Pool(lambda: asyncpg.connect(server_url), 1)
    async with pool.lend(SOON) as connection:
        await pool.close(0.01)

        assert connection.is_closed()


async def test_who_still_waits_when_the_pool_closes_gets_no_connection(server_url: str) -> None:
    pool = Pool(lambda: asyncpg.connect(server_url), 1)
    async with pool.lend(SOON):
        waiting = asyncio.create_task(backend(pool))
        await asyncio.sleep(0)
        await pool.close(0.01)

    with pytest.raises(StoreError, match="closed"):
        await waiting


async def test_what_is_given_back_after_the_pool_was_closed_is_closed_too(server_url: str) -> None:
    connecting, wanted = asyncio.Event(), asyncio.Event()

    async def connect() -> asyncpg.Connection:
        connecting.set()
        await wanted.wait()
        return await asyncpg.connect(server_url)

    pool = Pool(connect, 1)

    async def late() -> asyncpg.Connection:
        async with pool.lend(SOON) as connection:
            return connection

    call = asyncio.create_task(late())
    await connecting.wait()
    await pool.close(0.01)
    wanted.set()

    assert (await call).is_closed()

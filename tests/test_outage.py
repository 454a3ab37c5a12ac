"""What is said while a database is away, and what becomes of a file that cannot be opened whole."""

from __future__ import annotations

import asyncio
import os
import resource
from contextlib import ExitStack
from pathlib import Path

import pytest

from antiphon.errors import StoreError
from antiphon.log import CLAIMS, WORK, Log
from antiphon.node import node
from antiphon.settings import Settings
from antiphon.store.bell import LocalBell
from antiphon.store.follow import Tail
from antiphon.store.outage import Outage
from antiphon.store.sqlite import SqliteStore
from tests.contracts.store import new, running, turn
from tests.servers import postgres
from tests.servers.antiphon import Process, creating
from tests.servers.chat import ChatServer
from tests.servers.running import serve
from tests.test_faults import Line, at_work_over, line, postgres_url, ready, until  # noqa: F401  # fixtures


def lines(caplog: pytest.LogCaptureFixture, logger: str) -> list[str]:
    return [record.message.partition(":")[0] for record in caplog.records if record.name == logger]


async def test_a_node_that_ends_by_an_error_tries_nothing_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(database=f"sqlite:///{tmp_path / 'antiphon.db'}", upstream="http://127.0.0.1:9/v1")

    with pytest.raises(ZeroDivisionError):
        async with node(settings):
            raise ZeroDivisionError

    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert not lines(caplog, "antiphon.store.outage")


class TestOutage:
    def test_it_is_told_once_and_so_is_its_end(self, caplog: pytest.LogCaptureFixture) -> None:
        outage = Outage()
        for _ in range(3):
            for act in ("read", "write"):
                with outage.trying(act):
                    raise StoreError("Away.")
        for act in ("read", "read", "write", "write"):
            with outage.trying(act):
                pass

        assert lines(caplog, "antiphon.store.outage") == [
            "the database fails, and is tried again until it is well",
            "the database is well again",
        ]

    def test_what_is_no_fault_of_the_database_is_not_taken_for_one(self) -> None:
        with pytest.raises(ZeroDivisionError), Outage().trying("divide"):
            raise ZeroDivisionError


async def test_a_database_that_is_away_is_told_in_few_lines(
    line: Line,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with (
        at_work_over(line) as server,
        server.http() as http,
        creating(http, "gate:2:2") as stream,
        creating(http, "gate:2:2", background=True) as other,
    ):
        for each in (stream, other):
            await each.deltas(2)
        line.fall()
        for _ in range(3):
            assert (await ready(http))[0] == 503
        counted = (await http.get(str(http.base_url).replace("/v1/", "/metrics"))).text
        assert "\nantiphon_leases 2.0\n" in counted
        assert "antiphon_queue" not in counted
        line.away = False
        for asked in server.upstream.requests:
            asked.release()
        for each in (stream, other):
            await each.rest()
            assert each.events[-1]["type"] == "response.completed"
        await until(lambda: "the database is well again" in lines(caplog, "antiphon.store.outage"))

    said = [record for record in caplog.records if record.name.startswith("antiphon.")]
    assert not [record.getMessage() for record in said if record.exc_info]
    assert lines(caplog, "antiphon.store.outage") == [
        "the database fails, and is tried again until it is well",
        "the database is well again",
    ]


async def test_a_cancel_reaches_the_worker_of_another_node_without_a_bell(postgres_url: str, tmp_path: Path) -> None:  # noqa: F811
    """Nobody listens where the bell should be: the worker finds at its next renewal that it has lost its claim."""
    database, upstream = await postgres.create_database(postgres_url), ChatServer()
    flags = ("--database", database, "--bell", "redis://127.0.0.1:1")
    with ExitStack() as stack:
        url = stack.enter_context(serve(upstream))
        front, worker = await asyncio.gather(
            asyncio.to_thread(Process, url, tmp_path, *flags, "--workers", "0"),
            asyncio.to_thread(Process, url, tmp_path, *flags),
        )
        for node in (front, worker):
            stack.callback(node.close)
        async with front.http() as http, creating(http, "hang:2", background=True) as stream:
            await stream.deltas(2)
            cancelled = await http.post(f"/responses/{stream.response_id}/cancel")
            assert cancelled.json()["status"] == "cancelled"
            await upstream.requests[0].closing()
    await postgres.drop_database(postgres_url, database)


class TestFileThatCannotBeOpened:
    """The process may have only so many files open: the opening of the database fails at each of them once."""

    @pytest.mark.parametrize("more", range(8))
    async def test_it_can_be_tried_again(self, more: int, tmp_path: Path) -> None:
        store = SqliteStore(str(tmp_path / "antiphon.db"))
        await store.open()
        await store.close()
        await asyncio.to_thread(int)  # its thread is there
        free = os.open("/dev/null", os.O_RDONLY)
        os.close(free)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

        resource.setrlimit(resource.RLIMIT_NOFILE, (free + more, hard))
        try:
            with pytest.raises(StoreError):
                await store.open()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await store.open()

        assert await running(store)
        await store.close()


class TestDeletions:
    @pytest.fixture
    async def log(self) -> Log:
        """A node that knows nothing of what others have written to the store."""
        store = SqliteStore(None)
        await store.open()
        return Log(store, tail=Tail(bytes_max=1 << 20), bell=LocalBell(1000))

    async def test_to_delete_what_has_ended_wakes_no_worker(self, log: Log) -> None:
        await turn(log.store, "resp_1")
        with log.bell.listen(CLAIMS) as claims, log.bell.listen(WORK) as work:
            waiting = [asyncio.ensure_future(each.wait()) for each in (claims, work)]
            await log.delete("alice", "resp_1")
            await asyncio.sleep(0)
            assert not any(each.done() for each in waiting)

            await log.store.create("alice", new("resp_2"))
            await log.delete("alice", "resp_2")
            assert await asyncio.gather(*waiting) == [True, True]
        await log.store.close()

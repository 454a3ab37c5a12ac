"""What a response held in memory goes with it, however it ends.

The collector is off: it counts objects, not bytes, so what waits for it in a cycle may be a gigabyte of other people's
prompts. Nothing of a response may lie in one.
"""

from __future__ import annotations

import gc
import re
import weakref
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import apsw
import httpx2
import pytest

from antiphon.errors import LeaseLost
from antiphon.protocol.transcript import Transcript
from antiphon.store.writer import Operation, carry_out
from tests.servers.antiphon import Antiphon, antiphon, created, creating

Ending = Callable[[httpx2.AsyncClient], Awaitable[None]]


@pytest.fixture
def collector_off() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def _cancelled(http: httpx2.AsyncClient) -> None:
    async with creating(http, "hang:3", background=True) as stream:
        await stream.deltas(1)
        await http.post(f"/responses/{stream.response_id}/cancel")
        await stream.rest()


async def _cancelled_while_it_says_something(http: httpx2.AsyncClient) -> None:
    async with creating(http, "paced:100000:1ms", background=True) as stream:
        await stream.deltas(3)
        await http.post(f"/responses/{stream.response_id}/cancel")
        await stream.rest()


async def _deleted(http: httpx2.AsyncClient) -> None:
    async with creating(http, "paced:100000:1ms", background=True) as stream:
        await stream.deltas(3)
        await http.delete(f"/responses/{stream.response_id}")
        await stream.rest()


async def _left_by_its_caller(http: httpx2.AsyncClient) -> None:
    async with creating(http, "hang:3", store=False) as stream:
        await stream.deltas(1)


async def _broken_off(http: httpx2.AsyncClient) -> None:
    async with creating(http, "break:3") as stream:
        await stream.rest()


async def _refused_by_the_model(http: httpx2.AsyncClient) -> None:
    assert (await http.post("/responses", json={"model": "error:400", "input": "Hi"})).status_code == 400


async def _overdue(http: httpx2.AsyncClient) -> None:
    async with creating(http, "hang:3") as stream:
        await stream.rest()


ENDINGS = (
    _cancelled, _cancelled_while_it_says_something, _deleted, _left_by_its_caller, _broken_off, _refused_by_the_model,
    _overdue,
)  # fmt: skip


@pytest.mark.usefixtures("collector_off")
@pytest.mark.parametrize("end", ENDINGS, ids=lambda end: end.__name__.strip("_"))
async def test_nothing_of_a_response_waits_for_the_collector(end: Ending, tmp_path: Path) -> None:
    with antiphon(tmp_path, response_seconds=0.3 if end is _overdue else 60.0) as server:
        async with server.http() as http:
            before = _transcripts()
            for _ in range(5):
                await end(http)
            await _at_rest(server)
            await created(http, "text:Fine.")  # the store's writer holds on to what it did last
            await _at_rest(server)
            assert _transcripts() == before


def _refuse(_cursor: apsw.Cursor) -> None:
    raise LeaseLost


def _refuse_half_done(cursor: apsw.Cursor) -> None:
    cursor.execute("INSERT INTO t VALUES (1)")
    raise LeaseLost


def _fail(cursor: apsw.Cursor) -> None:
    cursor.execute("INSERT INTO nowhere VALUES (1)")


class _Fault(Exception):
    """Of the store's own."""


def _err(_cursor: apsw.Cursor) -> None:
    raise _Fault


def _refuse_all(cursor: apsw.Cursor, _rows: object) -> None:
    _refuse(cursor)


@pytest.mark.usefixtures("collector_off")
@pytest.mark.parametrize(
    "operation",
    [
        Operation(_refuse, ()),
        Operation(_refuse_half_done, ()),
        Operation(_refuse, (), together=_refuse_all),
        Operation(_fail, ()),
        Operation(_err, ()),
    ],
    ids=["refused", "refused when half done", "refused together", "failed", "erred"],
)
@pytest.mark.parametrize("count", [1, 2])
def test_an_error_of_the_store_is_gone_with_the_last_who_has_it(operation: Operation, count: int) -> None:
    cursor = apsw.Connection(":memory:").cursor()
    cursor.execute("CREATE TABLE t (a)")
    errors = [weakref.ref(error) for error in carry_out(cursor, [operation] * count)]
    assert len(errors) == count
    assert not any(error() for error in errors)


def _transcripts() -> int:
    return sum(isinstance(each, Transcript) for each in gc.get_objects())


async def _at_rest(server: Antiphon) -> None:
    """Return when nobody works on any response."""
    async with server.http(base_url=server.url.removesuffix("/v1")) as http:
        while not re.search(r"^antiphon_leases 0\.0$", (await http.get("/metrics")).text, re.MULTILINE):
            pass

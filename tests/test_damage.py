"""What is stored of an open response is damaged: it comes to an end with what can be read, or is left alone, and nobody
waits behind it. As long as the pages of the database can be read, it can be deleted, and then nothing of it is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.servers import postgres
from tests.servers.antiphon import antiphon, created, creating, events, replayed
from tests.servers.chat import Stream, script
from tests.test_faults import at_work, damage, ended, text_of


@script("large")
async def _large(stream: Stream) -> None:
    """A large piece of text between two small ones, and nothing more."""
    await stream.chunk({"content": "before"})
    await stream.released()
    await stream.chunk({"content": "damaged " * 4000})
    await stream.chunk({"content": "behind"})
    await asyncio.Event().wait()


@pytest.fixture(scope="module")
def postgres_url() -> Iterator[str]:
    with postgres.any_server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'antiphon.db'}"
        return
    server = request.getfixturevalue("postgres_url")
    url = await postgres.create_database(server)
    yield url
    await postgres.drop_database(server, url)


async def change(database: str, statement: str) -> None:
    """Change what a stopped server has stored."""
    if database.startswith("sqlite"):
        with contextlib.closing(apsw.Connection(database.removeprefix("sqlite:///"))) as connection:
            connection.execute(statement)
    else:
        statement = re.sub(r"x'(\w+)'", r"'\\x\1'", statement)
        await postgres.run(database, re.sub(r"(UPDATE|FROM) ", r"\1 antiphon.", statement))


async def left_open(database: str, model: str = "hang:3", **body: Any) -> tuple[str, int]:
    """A response that a stopped server has left in the middle, and the number of its last event."""
    with antiphon(database) as server:
        async with server.http() as http, creating(http, model, background=True, **body) as stream:
            await stream.deltas(1)
            if model == "large":
                server.upstream.requests[0].release()
            await stream.deltas(3)
    return stream.response_id, stream.events[-1]["sequence_number"]


def is_erased(database: str, text: str) -> bool:
    command = [sys.executable, "-m", "antiphon", "verify-erased", "--text", text, "--database", database]
    return not subprocess.run(command, capture_output=True, check=False).returncode


PACKED = {  # as what they say they are, they cannot be unpacked
    "deflated": "01ffffffffff", "compressed": "02ffffffffff", "compressed without tails": "0328b52ffd00",
}  # fmt: skip
DAMAGES = {
    **{f"{name}, the last": f"UPDATE segments SET frames = x'{frames}' WHERE last = (SELECT max(last) FROM segments)"
       for name, frames in PACKED.items()},
    **{f"{name}, one": f"UPDATE segments SET frames = x'{frames}' WHERE first = 2"
       for name, frames in PACKED.items()},
    "all": "UPDATE segments SET frames = x'02ff'",
    "one is missing": "DELETE FROM segments WHERE first = 2",
    "the context": "UPDATE items SET body = x'00'",
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_response_has_failed_and_can_be_deleted(database: str, damage: str) -> None:
    id, last = await left_open(database, input="A secret thing")
    await change(database, DAMAGES[damage])

    with at_work(database, lease_seconds=600) as server:
        async with server.http() as http:
            said = events(await replayed(http, id, starting_after=last))
            response = (await http.get(f"/responses/{id}")).json()
            others = await created(http, "text:Well", background=True)
            assert (await ended(http, others["id"]))["status"] == "completed"
            deleted = await http.delete(f"/responses/{id}")
            gone = await http.get(f"/responses/{id}")

    assert said[0]["sequence_number"] == last + 1
    assert said[-1]["type"] == "response.failed"
    assert said[-1]["response"] == response
    assert (response["status"], response["error"]["code"]) == ("failed", "server_error")
    assert (deleted.status_code, gone.status_code) == (200, 404)
    assert is_erased(database, "A secret thing")
    assert is_erased(database, id)


@pytest.mark.parametrize("part", ["its log", "its row"])
async def test_a_response_with_an_unreadable_page_is_ended_or_left_alone(part: str, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'antiphon.db'}"
    body = {"instructions": "damaged " * 4000} if part == "its row" else {}
    id, last = await left_open(database, "large" if part == "its log" else "hang:3", **body)
    damage(tmp_path / "antiphon.db", b"damaged ")

    with at_work(database, lease_seconds=0.5) as server:
        async with server.http() as http:
            if part == "its log":
                said = events(await replayed(http, id, starting_after=last))
                assert said[0]["sequence_number"] == last + 1
                assert said[-1]["response"]["status"] == "failed"
            others = [await created(http, "text:Well", background=True) for _ in range(20)]
            for other in others:
                assert text_of(await ended(http, other["id"])) == "Well"

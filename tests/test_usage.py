"""What was used is counted when a response ends, told by `antiphon usage`, and outlives the response."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.servers.antiphon import antiphon, created, creating


def usage(path: Path, *arguments: str) -> tuple[int, str, str]:
    """The command as somebody calls it beside a server."""
    command = [sys.executable, "-m", "antiphon", "usage", "--database", f"sqlite:///{path / 'antiphon.db'}"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=path, timeout=30)
    return done.returncode, done.stdout, done.stderr


def sums(path: Path, *arguments: str) -> list[dict[str, Any]]:
    code, told, complaint = usage(path, "--json", *arguments)
    assert (code, complaint) == (0, "")
    return [json.loads(line) for line in told.splitlines()]


async def test_the_command_tells_the_sums_of_what_responses_say_they_used(tmp_path: Path) -> None:
    with antiphon(tmp_path) as server:
        async with server.http() as http:
            made = [await created(http, model) for model in ("text:Hello there", "text:Hello there", "length")]
            failed = await http.post("/responses", json={"model": "error:500", "input": "Hi"})
            await http.delete(f"/responses/{made[0]['id']}")
            (total,) = await asyncio.to_thread(sums, tmp_path)
            by_model = await asyncio.to_thread(sums, tmp_path, "--by", "model")

    assert failed.status_code >= 500
    assert total == {
        "tenant": total["tenant"],
        "responses": 4,
        "input": sum(each["usage"]["input_tokens"] for each in made),
        "cached": sum(each["usage"]["input_tokens_details"]["cached_tokens"] for each in made),
        "output": sum(each["usage"]["output_tokens"] for each in made),
        "reasoning": sum(each["usage"]["output_tokens_details"]["reasoning_tokens"] for each in made),
    }
    assert total["output"] > 0
    assert {each["model"]: each["responses"] for each in by_model} == {
        "error:500": 1, "length": 1, "text:Hello there": 2
    }  # fmt: skip


async def test_a_cancelled_response_is_counted_and_none_of_its_text_is_there(tmp_path: Path) -> None:
    with antiphon(tmp_path) as server:
        async with server.http() as http, creating(http, "gate:2:2", background=True) as stream:
            await stream.deltas(2)
            await http.post(f"/responses/{stream.response_id}/cancel")
            await stream.rest()

    (row,) = apsw.Connection(str(tmp_path / "antiphon.db")).execute("SELECT * FROM usage").fetchall()
    assert [value for value in row if isinstance(value, str)][1:] == ["gate:2:2", "cancelled"]


async def test_days_can_be_chosen_and_told_apart(tmp_path: Path) -> None:
    with antiphon(tmp_path) as server:
        async with server.http() as http:
            for _ in range(3):
                await created(http, "text:Hello")
    connection = apsw.Connection(str(tmp_path / "antiphon.db"))
    for row, day in enumerate(("2026-10-31", "2026-11-01", "2026-11-02"), 1):
        connection.execute("UPDATE usage SET created_at = unixepoch(?) + 86399 WHERE row = ?", (day, row))
    connection.close()

    days = sums(tmp_path, "--by", "day")
    november = sums(tmp_path, "--from", "2026-11-01", "--to", "2026-11-01", "--by", "day")

    assert [each["day"] for each in days] == ["2026-10-31", "2026-11-01", "2026-11-02"]
    assert november == days[1:2]
    assert sums(tmp_path, "--tenant", "nobody") == []


async def test_without_json_it_is_a_table(tmp_path: Path) -> None:
    with antiphon(tmp_path) as server:
        async with server.http() as http:
            await created(http, "text:Hello")

    code, told, _ = usage(tmp_path, "--by", "model")

    head, row = told.splitlines()
    assert code == 0
    assert head.split() == ["tenant", "model", "responses", "input", "cached", "output", "reasoning"]
    assert row.split()[1:3] == ["text:Hello", "1"]


def test_where_no_database_is_none_is_made(tmp_path: Path) -> None:
    assert usage(tmp_path) == (1, "", f"antiphon: {tmp_path / 'antiphon.db'} is not there.\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["--from", "yesterday"], ["--to", "2026-13-01"]])
def test_a_day_that_is_none_is_a_misuse(tmp_path: Path, arguments: list[str]) -> None:
    code, told, complaint = usage(tmp_path, *arguments)

    assert (code, told) == (2, "")
    assert "is not a day" in complaint

"""The suite finds what is wrong: here with servers that are, and with logs that do not fit together."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from antiphon.conformance import FAULTS, Cell, Schedule, checks, draw, matrix
from tests.durability.sites import free_port, sqlite

Json = dict[str, Any]


def log(change: Callable[[list[Json]], object] = lambda events: None) -> list[bytes]:
    """A whole log with one message, changed as a test wants it."""
    message: Json = {"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
    part: Json = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    done = {**message, "status": "completed", "content": [{**part, "text": "Hi"}]}
    at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    head = {"id": "resp_1", "status": "in_progress", "output": []}
    events: list[Json] = [
        {"type": "response.created", "response": head},
        {"type": "response.in_progress", "response": head},
        {"type": "response.output_item.added", "output_index": 0, "item": message},
        {"type": "response.content_part.added", **at, "part": part},
        {"type": "response.output_text.delta", **at, "delta": "Hi", "logprobs": []},
        {"type": "response.output_text.done", **at, "text": "Hi", "logprobs": []},
        {"type": "response.content_part.done", **at, "part": done["content"][0]},
        {"type": "response.output_item.done", "output_index": 0, "item": done},
        {"type": "response.completed", "response": {"id": "resp_1", "status": "completed", "output": [done]}},
    ]
    for number, event in enumerate(events):
        event["sequence_number"] = number
    change(events)
    return [msgspec.json.encode(event) for event in events]


def test_a_whole_log_is_accepted() -> None:
    assert not list(checks.of_log(log()))
    assert not list(checks.of_client(log()[:4], log()))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda events: events.pop(4), "the log's numbers are"),
        (lambda events: events.pop(), "the log has 0 terminal events"),
        (lambda events: events.append({**events[-1], "sequence_number": 9}), "the log has 2 terminal events"),
        (lambda events: events.append({**events[4], "sequence_number": 9}), "comes after response.completed"),
        (lambda events: events[7].update(output_index=1), "the log cannot be folded"),
        (lambda events: events[8]["response"].update(output=[{"id": "msg_2"}]), "the end has item msg_2"),
    ],
)
def test_a_broken_log_is_not(change: Callable[[list[Json]], object], found: str) -> None:
    assert any(found in problem for problem in checks.of_log(log(change)))


def test_a_call_that_is_made_twice_is_found() -> None:
    def call_twice(events: list[Json]) -> None:
        call = {"type": "function_call", "name": "f", "arguments": "{}", "status": "completed"}
        for number in range(2):
            item = {**call, "id": f"fc_{number}"}
            events.append({"type": "response.output_item.done", "output_index": number, "item": item})

    assert "f({}) was called 2 times" in list(checks.of_log(log(call_twice)))


def test_an_event_that_is_not_in_the_log_as_it_was_seen_is_found() -> None:
    assert list(checks.of_client([b"{}"], log()))
    assert list(checks.of_client([*log(), b"{}"], log()))


def test_an_answer_that_differs_from_its_log_is_found() -> None:
    answer = msgspec.json.decode(log()[-1])["response"]

    assert not list(checks.of_answer(answer, log()))
    assert list(checks.of_answer({**answer, "output": []}, log())) == [
        "the response and the end of its log differ in output"
    ]


async def test_a_server_that_keeps_its_log_in_memory_alone_is_found_out(tmp_path: Path) -> None:
    async with sqlite(tmp_path, "--database", "sqlite://") as suite:
        found = await suite.run(Schedule(1, ("kill-server",), (Cell("both", "text"),)))

    assert ["is unknown now" in finding.problem for finding in found] == [True]


async def test_a_server_that_lets_the_model_go_on_for_nobody_is_found_out(tmp_path: Path) -> None:
    async with sqlite(tmp_path, "--orphan-grace-seconds", "600", settle_seconds=2) as suite:
        found = await suite.run(Schedule(1, ("cut",), (Cell("plain", "text"),)))
        left = await suite.left_running()

    assert ["not settled" in finding.problem for finding in found] == [True]
    assert len(left) == 1


def test_a_seed_gives_one_schedule() -> None:
    assert draw(7, FAULTS) == draw(7, FAULTS)
    assert len({str(draw(seed, FAULTS)) for seed in range(50)}) > 40


def test_the_matrix_has_each_cell_under_each_fault() -> None:
    cells = [(schedule.faults, cell) for schedule in matrix(FAULTS) for cell in schedule.cells]

    assert len(cells) == len(set(cells)) == 6 * 4 * 7


def test_the_command_measures_the_server_that_it_starts(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    start = f"{sys.executable} -m antiphon serve --port {url.rpartition(':')[2]} --upstream {{upstream}}"
    database = f" --database sqlite:///{tmp_path / 'antiphon.db'}"

    done = command(
        "--base-url",
        f"{url}/v1",
        "--start",
        start + database + " --orphan-grace-seconds 1",
        "--schedules",
        "1",
        "--seed",
        "7",
    )

    assert done.returncode == 0, done.stdout
    assert "seed 7: " in done.stdout
    assert "1 schedules, 0 bad" in done.stdout


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "antiphon.conformance", *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def test_a_fault_that_cannot_be_done_is_a_misuse() -> None:
    done = command("--base-url", "http://127.0.0.1:9/v1", "--faults", "bell")

    assert done.returncode == 2
    assert "cannot do bell here; what can be done: cut" in done.stderr


def test_a_server_that_does_not_come_up_is_said_so() -> None:
    done = command("--base-url", "http://127.0.0.1:9/v1", "--start-seconds", "0.2")

    assert done.returncode == 1
    assert done.stdout == "http://127.0.0.1:9/v1 did not answer in 0.2 s.\n"

"""The measurements, as a program sees them. What they say of speed is not tested."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from bench.rig import pieces_of, rig
from bench.scale import filled

from tests.servers.api import LOG, RESPONSE, ApiServer, play, reply
from tests.servers.postgres import any_server
from tests.servers.running import serve

ROOT = Path(__file__).parent.parent


def bench(*arguments):
    return subprocess.run([sys.executable, "-m", "bench", *arguments], cwd=ROOT, capture_output=True, text=True)


def test_a_run_is_told_in_the_documented_form():
    done = bench("--quick", "--json", "create")

    assert done.returncode == 0, done.stderr
    whole = json.loads(done.stdout)
    figures = whole.pop("figures")
    documented = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8").split("## The JSON")[1]
    assert all(f"`{key}`" in documented for key in [*whole, *figures[0]])
    assert (whole["quick"], whole["database"]) == (True, "sqlite")
    for figure in figures:
        assert (figure["scenario"], figure["unit"], figure["counted"]) == ("create", "us", "requests")
        assert figure["runs"] == len(figure["samples"]) == len(figure["floors"]) == 2
        assert figure["ratio"] == figure["measured"] / figure["floor"] > 0
    one, _, many, _ = figures
    assert (one["target"], one["met"]) == ({"value": None, "ratio": None}, None)
    assert (many["target"], many["met"]) == ({"value": 600, "ratio": None}, many["measured"] <= 600)


def test_an_unknown_scenario_is_a_misuse_that_names_the_known_ones():
    done = bench("liv")

    assert done.returncode == 2
    assert "unknown scenario: liv; there are live, burst" in done.stderr


def test_two_nodes_are_not_measured_on_a_database_for_one():
    done = bench("--quick", "nodes")

    assert done.returncode == 1
    assert "nodes cannot be measured: SQLite is for one node; this needs --database postgresql" in done.stderr


def test_a_figure_can_be_of_a_server_on_postgresql():
    with any_server() as url:
        done = bench("--quick", "--json", "--database", url, "delete")

    assert done.returncode == 0, done.stderr
    whole = json.loads(done.stdout)
    assert whole["database"] == "postgresql"
    assert [figure["counted"] for figure in whole["figures"]] == ["requests"]


def test_a_filled_database_is_as_a_server_leaves_one(tmp_path):
    database = f"sqlite:///{tmp_path}/bench.db"
    with rig(quick=True) as measuring:
        turns, others = asyncio.run(filled(measuring, database, 8, turns=3, spare=0))
        with measuring.antiphon(database) as server:
            listed = [each["id"] for each in answer(server, "?limit=100")["data"]]
            items = answer(server, f"/{turns[-1]}/input_items")["data"]
            whole = answer(server, f"/{others[0]}")
            stream = b"".join(pieces_of(server, f"/responses/{others[0]}?stream=true"))

    assert {*turns, *others} < {*listed}
    assert len(items) == 5  # what was asked and answered, twice, and asked
    assert whole["id"] == others[0]
    assert stream.count(others[0].encode()) >= 3  # created, in progress, completed


def answer(server, path):
    return json.loads(b"".join(pieces_of(server, f"/responses{path}")))


def calling(job, caller, url, count):
    arguments = [sys.executable, "-m", "bench.callers", job, caller, f"{url}/v1", str(count)]
    return subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("caller", ["antiphon", "openai", "httpx2"])
def test_each_caller_makes_its_calls(caller):
    server = ApiServer(*[reply(body=RESPONSE)] * 3)
    with serve(server) as url:
        done = calling("calls", caller, url, 2)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["count"] == 2
    assert [each.path for each in server.requests] == ["/v1/responses"] * 3


def test_the_caller_that_checks_answers_checks_them():
    with serve(ApiServer(reply(body=RESPONSE))) as url:
        done = calling("calls", "checking", url, 1)

    assert done.returncode == 1
    assert "the answer does not match the description" in done.stderr


@pytest.mark.parametrize("caller", ["antiphon", "openai"])
def test_each_caller_reads_streams_to_their_end(caller):
    server = ApiServer(*[play()] * 3)
    with serve(server) as url:
        done = calling("events", caller, url, 2)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["count"] == 2 * len(LOG)
    assert len(server.requests) == 3


def test_an_answer_that_was_not_to_be_measured_is_no_measurement():
    with serve(ApiServer(*[reply(body={**RESPONSE, "status": "failed"})] * 3)) as url:
        done = calling("calls", "antiphon", url, 2)

    assert done.returncode == 1
    assert "The response is failed." in done.stderr

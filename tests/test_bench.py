"""The measurements, as a program sees them. What they say of speed is not tested."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.api import LOG, RESPONSE, ApiServer, play, reply
from tests.servers.running import serve

ROOT = Path(__file__).parent.parent


def bench(*arguments):
    return subprocess.run([sys.executable, "-m", "bench", *arguments], cwd=ROOT, capture_output=True, text=True)


def test_a_run_is_told_in_the_documented_form():
    done = bench("--quick", "--json", "create")

    assert done.returncode == 0, done.stderr
    whole = json.loads(done.stdout)
    (figure,) = whole.pop("figures")
    documented = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8").split("## The JSON")[1]
    assert all(f"`{key}`" in documented for key in [*whole, *figure])
    assert whole["quick"] is True
    assert (figure["scenario"], figure["unit"], figure["counted"]) == ("create", "us", "requests")
    assert figure["runs"] == len(figure["samples"]) == len(figure["floors"]) == 2
    assert figure["ratio"] == figure["measured"] / figure["floor"] > 0
    assert figure["target"] == {"value": None, "ratio": None}
    assert figure["met"] is None


def test_an_unknown_scenario_is_a_misuse_that_names_the_known_ones():
    done = bench("liv")

    assert done.returncode == 2
    assert "unknown scenario: liv; there are live, burst" in done.stderr


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

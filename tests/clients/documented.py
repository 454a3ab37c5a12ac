"""docs/clients.md names the versions that are run."""

import json
import re

from tests.clients.conftest import PROGRAMS

PAGE = (PROGRAMS.parent.parent / "docs/clients.md").read_text(encoding="utf-8")


def test_the_page_names_the_versions():
    of_node = json.loads((PROGRAMS / "package.json").read_text(encoding="utf-8"))["dependencies"]
    of_python = re.findall(r"^([\w-]+)==(.+)$", (PROGRAMS / "requirements.txt").read_text("utf-8"), re.MULTILINE)
    clients = ["@ai-sdk/openai", "@openai/codex", "ai", "langchain-openai", "node", "openai", "openai-agents"]
    run = {(name, version) for name, version in [*of_node.items(), *of_python] if name in clients}

    assert {name for name, _ in run} == {*clients}
    assert [(name, version) for name, version in run if version not in PAGE] == []

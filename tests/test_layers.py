"""Who may import whom. The arrows of the design point one way; this holds them there."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "antiphon"

# A layer is a package or a module right under antiphon. Each may import itself and what its line names.
MAY_IMPORT = {
    "errors": set(),
    "setting_kinds": {"errors", "upstream"},
    "settings": {"errors", "upstream", "setting_kinds"},
    "upstream": {"errors"},
    "seals": {"errors", "store"},
    "logs": set(),
    "spec": {"errors"},
    "stubs": {"errors", "spec"},
    "protocol": {"errors"},
    "store": {"errors", "protocol"},
    "engine": {"errors", "protocol", "spec"},
    "client": {"errors", "protocol", "spec"},
    "pages": {"errors", "spec"},
    "segments": {"errors", "protocol", "store"},
    "log": {"errors", "protocol", "store", "segments"},
    "budget": {"errors"},
    "pen": {"store", "log", "budget"},
    "watch": {"store", "log"},
    "worker": {"errors", "protocol", "store", "log", "pen", "engine", "seals", "budget", "watch"},
    "tracing": {"errors", "engine", "store", "log", "logs", "server", "watch"},
    "listening": {"errors", "server", "settings"},
    "maintenance": {"store", "log"},
    "conformance": {"errors", "protocol"},
    "server": {"errors", "protocol", "spec", "store", "log", "logs", "seals", "budget"},
    "__init__": {"errors", "client"},
    "__main__": {"cli"},
}
# Files that know more than their layer.
ALSO = {"engine/models/responses.py": {"client"}}
# What puts a process together may import everything.
ASSEMBLY = {"cli", "node", "demo"}

# What the bare package installs must be enough for these.
CLIENT_SIDE = {"__init__", "errors", "spec", "protocol", "client"}
# The rules are plain functions: whoever needs time, chance or a socket hands in what came of it.
IMPURE = {"asyncio", "socket", "ssl", "http", "urllib", "time", "datetime", "random", "secrets", "os", "threading"}


def files():
    return sorted(SOURCE.rglob("*.py"))


def place(path):
    return path.relative_to(SOURCE).as_posix()


def layer(path):
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(path):
    """Every module that a file imports, at its top or deeper; `from a import b` is `a.b`, since b may be a module."""
    package = ("antiphon", *path.relative_to(SOURCE).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) + 1 - node.level]) if node.level else ""
            origin = ".".join(part for part in (base, node.module) if part)
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def own_layers(path):
    """The layers of this package that a file imports; `from antiphon import Client` is the layer __init__."""
    for name in imports(path):
        if name.split(".")[0] == "antiphon":
            found = name.removeprefix("antiphon").removeprefix(".").split(".")[0]
            yield found if found in MAY_IMPORT or found in ASSEMBLY else "__init__"


def foreign(path):
    return {name.split(".")[0] for name in imports(path)} - {"antiphon"}


@pytest.mark.parametrize("path", files(), ids=place)
def test_a_layer_imports_only_what_it_may_know(path):
    if layer(path) in ASSEMBLY:
        return

    known = {layer(path)} | MAY_IMPORT[layer(path)] | ALSO.get(place(path), set())

    assert set(own_layers(path)) <= known


@pytest.mark.parametrize("path", [path for path in files() if layer(path) in CLIENT_SIDE], ids=place)
def test_the_client_needs_only_what_the_bare_package_installs(path):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {re.split(r"[^\w-]", line)[0].replace("-", "_") for line in project["dependencies"]}
    installed = {{"pyyaml": "yaml"}.get(name, name) for name in names}

    assert foreign(path) <= installed | sys.stdlib_module_names


@pytest.mark.parametrize("path", [path for path in files() if layer(path) == "protocol"], ids=place)
def test_the_protocol_does_no_io_and_has_no_clock(path):
    assert not foreign(path) & IMPURE


def test_relative_and_hidden_imports_are_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "SOURCE", tmp_path)
    (tmp_path / "server").mkdir()
    file = tmp_path / "server" / "app.py"
    file.write_text(
        "from ..errors import NotFound\ndef later():\n    from antiphon import Client, engine\nfrom . import x\n"
    )

    assert set(own_layers(file)) == {"errors", "__init__", "engine", "server"}

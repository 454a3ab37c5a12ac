"""Clients that others wrote, run against `antiphon serve` by `make clients`: each in a file of its own here.

They and the Node that some of them want are installed below .clients; a client that is not there is skipped. The
model behind the server follows the scripts of tests/servers/chat.py, and nothing here reaches beyond loopback.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.servers.antiphon import Process
from tests.servers.chat import ChatServer
from tests.servers.running import serve

PROGRAMS = Path(__file__).parent
INSTALLED = PROGRAMS.parent.parent / ".clients"

KEY = "sk-clients"  # every client wants one; a server on loopback takes any


@dataclass(frozen=True)
class Served:
    """`antiphon serve`, and the model server that it asks."""

    url: str  # with /v1
    upstream: ChatServer


@pytest.fixture(scope="session", autouse=True)
def _quiet():
    """No client reports its traces to anybody, nor asks a proxy for the way."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OPENAI_AGENTS_DISABLE_TRACING", "1")
        environment.setenv("LANGSMITH_TRACING", "false")
        environment.setenv("NO_PROXY", "*")
        yield


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    upstream = ChatServer()
    with serve(upstream) as base:
        process = Process(base, tmp_path_factory.mktemp("server"))
        yield Served(process.url, upstream)
        process.close()


@pytest.fixture
def run(server, tmp_path):
    """Run a program in an empty home; gives what it printed, or fails with all that it said."""

    def run(*command: str | Path, **environment: str) -> str:
        ours = {
            "HOME": str(tmp_path),
            "OPENAI_BASE_URL": server.url,
            "OPENAI_API_KEY": KEY,
            "NODE_PATH": str(INSTALLED / "node_modules"),
        }
        done = subprocess.run(
            list(map(str, command)),
            cwd=tmp_path,
            env={**os.environ, **ours, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=50,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
def node(run):
    """Run a file of Node's own tests."""
    binary = INSTALLED / "node_modules/.bin/node"
    if not binary.exists():
        pytest.skip("Node is not installed below .clients")
    return lambda program: run(binary, "--test", PROGRAMS / program)

"""Codex CLI: `codex exec` runs one shell command and answers, with Antiphon as its provider."""

import json

import pytest

from tests.clients.conftest import INSTALLED
from tests.servers.call_forms import piece
from tests.servers.chat import SCRIPTS

CODEX = INSTALLED / "node_modules/.bin/codex"

CONFIG = """
model_provider = "antiphon"
check_for_update_on_startup = false

[model_providers.antiphon]
name = "Antiphon"
base_url = "{url}"
wire_api = "responses"

[analytics]
enabled = false
"""

PATCH = """*** Begin Patch
*** Add File: hello.txt
+Hello
*** End Patch
"""


@pytest.fixture
def codex(server, run, tmp_path):
    """`codex exec` in a home that knows nothing but this server; gives its answer, which it prints alone."""
    if not CODEX.exists():
        pytest.skip("Codex CLI is not installed below .clients")
    (tmp_path / "config.toml").write_text(CONFIG.format(url=server.url))
    work = tmp_path / "work"
    work.mkdir()

    def codex(*arguments):
        # The sandbox of its commands wants rights that a container does not have.
        sandbox = "--dangerously-bypass-approvals-and-sandbox"
        command = [CODEX, "exec", "--skip-git-repo-check", sandbox, "--cd", work, *arguments]
        return run(*command, CODEX_HOME=str(tmp_path)).strip()

    return codex


@pytest.fixture
def plays(monkeypatch):
    """Make a model under a name that Codex knows, so that it offers what it offers to that model: it makes the calls
    given, one a turn, and then says the result of the last."""

    def plays(name, *calls):
        async def play(stream):
            results = [message["content"] for message in stream.body["messages"] if message["role"] == "tool"]
            if len(results) == len(calls):
                await stream.say(f"The result: {results[-1]}")
                await stream.end()
            else:
                function, arguments = calls[len(results)]
                await stream.chunk(
                    {"tool_calls": [piece(json.dumps(arguments), index=0, id=f"call_{len(results)}", name=function)]}
                )
                await stream.end("tool_calls")

        monkeypatch.setitem(SCRIPTS, name, play)
        return name

    return plays


def offered(seen):
    return [tool["function"]["name"] for tool in seen.body["tools"]]


def test_it_answers(codex):
    assert codex("--model", "text:All is done", "Do it") == "All is done"


def test_it_runs_a_command_and_hears_the_answer_to_its_output(codex, server):
    before = len(server.upstream.requests)
    said = codex("--model", 'call-once:exec_command:{"cmd": "echo $((6 * 7)) > sum && cat sum"}', "Six times seven?")
    first, second = server.upstream.requests[before:]

    assert said.startswith("The result:")
    assert said.endswith("42")
    assert [message["role"] for message in second.body["messages"]][-3:] == ["user", "assistant", "tool"]
    # Functions of a namespace reach a model that knows no namespaces; web_search, which is not set up, does not.
    assert {"exec_command", "multi_agent_v1__spawn_agent"} <= {*offered(first)}
    assert not [name for name in offered(first) if "web_search" in name]


def test_a_function_of_a_namespace_is_called(codex, plays):
    model = plays("any", ("multi_agent_v1__wait_agent", {"targets": ["nobody"], "timeout_ms": 10_000}))

    assert "invalid agent id nobody" in codex("--model", model, "Wait")


@pytest.mark.parametrize("websockets", ["false", "true"])
def test_it_applies_a_patch(codex, plays, tmp_path, websockets):
    """A custom tool, whose input is free text."""
    model = plays("gpt-5.5", ("apply_patch", {"input": PATCH}))
    said = codex(
        "--config", f"model_providers.antiphon.supports_websockets={websockets}", "--model", model, "Say hello"
    )

    assert "Success" in said
    assert (tmp_path / "work/hello.txt").read_text() == "Hello\n"


def test_it_searches_for_tools_that_are_offered_from_then_on(codex, plays, server):
    model = plays(
        "gpt-5.5",
        ("tool_search", {"query": "spawn agent"}),
        ("multi_agent_v1__wait_agent", {"targets": ["nobody"], "timeout_ms": 10_000}),
    )
    before = len(server.upstream.requests)
    said = codex("--model", model, "Wait")

    assert "invalid agent id nobody" in said
    has = ["multi_agent_v1__wait_agent" in offered(seen) for seen in server.upstream.requests[before:]]
    assert has == [False, True, True]


def test_it_runs_code_that_calls_tools(codex, plays):
    """A custom tool in a namespace, which is what Codex offers to its newest models."""
    code = 'const done = await tools.exec_command({cmd: "echo $((6 * 7))"}); text(done.output);'
    said = codex("--model", plays("gpt-5.6-sol", ("functions__exec", {"input": code})), "Six times seven?")

    assert said.endswith("42")


def test_it_goes_on_with_an_earlier_session(codex, server):
    """All is sent again, with the reasoning that the server sealed: nothing is stored."""
    codex("--model", "reasoning", "Two and two?")
    assert codex("--model", "text:Yes", "resume", "--last", "Sure?") == "Yes"
    contents = [message["content"] for message in server.upstream.requests[-1].body["messages"]]
    said = [content for content in contents if content in ("Two and two?", "It is four.", "Sure?")]

    assert said == ["Two and two?", "It is four.", "Sure?"]


def test_it_says_what_the_server_refused(codex):
    with pytest.raises(AssertionError, match="It said no"):
        codex("--model", "error:400", "Hi")

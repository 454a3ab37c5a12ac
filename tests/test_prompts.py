"""Prompt templates: what they become, how they are kept, and how they are managed."""

import io
import json

import pytest

from antiphon.cli import main
from antiphon.errors import BadRequest
from antiphon.server.templates import rendered, variables_of
from tests.servers.antiphon import antiphon, created

PICTURE = {"type": "input_image", "image_url": "https://example.com/a.png", "detail": "auto"}
TEMPLATE = {"model": "echo", "instructions": "Speak like {{who}}.", "input": "Tell me of {{ city }}."}


def user(content):
    return [{"role": "user", "content": content}]


class TestRendering:
    """Without any server."""

    def test_placeholders_are_filled_in_wherever_a_text_is(self):
        template = {
            "model": "m",
            "instructions": "You are {{who}}, {{ who }}.",
            "input": user([{"type": "input_text", "text": "{{a}}{{b}}"}]),
            "tools": [{"type": "function", "name": "f", "description": "Of {{a}}", "strict": True}],
            "temperature": 0.5,
        }

        assert rendered(template, {"who": "Ann", "a": "x", "b": "{{a}}"}) == {
            "model": "m",
            "instructions": "You are Ann, Ann.",
            "input": user([{"type": "input_text", "text": "x{{a}}"}]),
            "tools": [{"type": "function", "name": "f", "description": "Of x", "strict": True}],
            "temperature": 0.5,
        }

    @pytest.mark.parametrize(
        "input",
        ["{{it}}", user("{{it}}"), user([{"type": "input_text", "text": "{{it}}"}])],
    )
    def test_a_part_stands_for_a_whole_text(self, input):
        assert rendered({"model": "m", "input": input}, {"it": PICTURE})["input"] == user([PICTURE])

    @pytest.mark.parametrize(
        "fields",
        [{"input": "Look: {{it}}"}, {"input": "{{it}}", "instructions": "{{it}}"}, {"model": "{{it}}"}],
    )
    def test_a_part_stands_nowhere_else(self, fields):
        with pytest.raises(BadRequest, match="'it': input_image can only stand where") as refusal:
            rendered(fields, {"it": PICTURE})

        assert refusal.value.param == "prompt.variables"

    @pytest.mark.parametrize(
        ("variables", "message", "code"),
        [
            (None, "Missing prompt variable: 'city'.", "missing_required_parameter"),
            ({"who": "Ann"}, "Missing prompt variable: 'city'.", "missing_required_parameter"),
            (
                {"who": "Ann", "city": "Rome", "x": "y"},
                "Unknown prompt variable: 'x'. The prompt's variables are: 'city', 'who'.",
                "invalid_value",
            ),
        ],
    )
    def test_variables_must_fit(self, variables, message, code):
        with pytest.raises(BadRequest) as refusal:
            rendered(TEMPLATE, variables)

        assert (refusal.value.message, refusal.value.code) == (message, code)
        assert refusal.value.param == "prompt.variables"

    def test_a_declared_variable_may_be_given_though_no_text_uses_it(self):
        template = {"variables": ["tone", "city"], "model": "m", "input": "{{city}}"}

        assert variables_of(template) == ["tone", "city"]
        assert rendered(template, {"city": "Rome", "tone": "calm"}) == {"model": "m", "input": "Rome"}

    def test_a_template_is_not_changed(self):
        template = json.loads(json.dumps(TEMPLATE))

        rendered(template, {"who": "Ann", "city": "Rome"})

        assert template == TEMPLATE


@pytest.fixture(scope="module")
def server():
    with antiphon() as server:
        yield server


@pytest.fixture
async def http(server):
    async with server.http() as http:
        yield http


async def prompt(http, template=TEMPLATE, **body):
    answer = await http.post("/prompts", json={"template": template, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def error(answer, status):
    assert answer.status_code == status, answer.text
    return answer.json()["error"]


class TestOperations:
    """Over HTTP."""

    async def test_a_prompt_is_kept_with_its_variables(self, http):
        made = await prompt(http)

        assert made == {
            "id": made["id"],
            "object": "prompt",
            "created_at": made["created_at"],
            "version": "1",
            "variables": ["city", "who"],
            "template": TEMPLATE,
        }
        assert made["id"].startswith("pmpt_")
        assert (await http.get(f"/prompts/{made['id']}")).json() == made

    async def test_a_known_id_makes_a_new_version(self, http):
        first = await prompt(http)
        second = await prompt(http, {"model": "m"}, id=first["id"])
        path = f"/prompts/{first['id']}"

        assert (second["id"], second["version"], second["template"]) == (first["id"], "2", {"model": "m"})
        assert (await http.get(path)).json() == second
        assert (await http.get(path, params={"version": "1"})).json() == first

    async def test_prompts_are_listed_newest_first_in_their_newest_version(self, http):
        first, second = await prompt(http), await prompt(http)
        again = await prompt(http, id=first["id"])

        page = (await http.get("/prompts", params={"limit": 2})).json()
        rest = (await http.get("/prompts", params={"order": "asc", "after": first["id"]})).json()

        assert page["data"] == [second, again]
        assert (page["first_id"], page["last_id"]) == (second["id"], first["id"])
        assert rest["data"] == [second]

    async def test_a_deleted_prompt_is_gone(self, http):
        made = await prompt(http)
        path = f"/prompts/{made['id']}"

        deleted = (await http.delete(path)).json()

        assert deleted == {"id": made["id"], "object": "prompt.deleted", "deleted": True}
        for answer in (
            await http.get(path),
            await http.delete(path),
            await http.post("/prompts", json={"template": TEMPLATE, "id": made["id"]}),
            await http.get("/prompts", params={"after": made["id"]}),
        ):
            assert error(answer, 404)["message"] == f"Prompt with id '{made['id']}' not found."

    @pytest.mark.parametrize("version", ["2", "0", "latest", "9" * 30])
    async def test_an_unknown_version_is_not_found(self, http, version):
        made = await prompt(http)

        answer = await http.get(f"/prompts/{made['id']}", params={"version": version})

        assert error(answer, 404)["message"] == f"Prompt with id '{made['id']}' and version '{version}' not found."

    @pytest.mark.parametrize(
        ("template", "code", "param"),
        [
            ({"temperature": 9}, "decimal_above_max_value", "template.temperature"),
            ({"nonsense": 1}, "unknown_parameter", "template.nonsense"),
            ({"stream": True}, "unknown_parameter", "template.stream"),
            ({"prompt": {"id": "pmpt_1"}}, "unknown_parameter", "template.prompt"),
            ({"input": [{"role": "{{who}}", "content": "x"}]}, "invalid_value", "template.input[0]"),
            ({"variables": "city"}, "invalid_type", "template.variables"),
            ({"variables": ["city"], "input": "{{who}}"}, "invalid_value", "template.variables"),
        ],
    )
    async def test_a_template_of_which_no_create_could_be_made_is_refused(self, http, template, code, param):
        refused = error(await http.post("/prompts", json={"template": template}), 400)

        assert (refused["code"], refused["param"]) == (code, param)

    async def test_an_id_of_another_kind_is_refused(self, http):
        assert error(await http.get("/prompts/conv_1"), 400)["code"] == "invalid_id_prefix"


def seen(response):
    """The messages that the model was sent, by the script `echo`."""
    messages = json.loads(response["output"][0]["content"][0]["text"])["messages"]
    return [(message["role"], message["content"]) for message in messages]


class TestCreates:
    """Responses with a `prompt`."""

    async def ask(self, http, **body):
        return await http.post("/responses", json=body)

    async def test_a_prompt_supplies_what_the_create_leaves_out(self, http):
        made = await prompt(http)
        named = {"id": made["id"], "variables": {"who": "Ann", "city": "Rome"}}

        response = (await self.ask(http, prompt=named)).json()

        assert (response["model"], response["instructions"]) == ("echo", "Speak like Ann.")
        assert response["prompt"]["id"] == made["id"]
        assert seen(response)[-1] == ("user", "Tell me of Rome.")

    async def test_the_creates_own_fields_come_first(self, http):
        made = await prompt(http)
        named = {"id": made["id"], "version": "1", "variables": {"who": "Ann", "city": "Rome"}}

        response = await created(http, "echo", input="Of Oslo.", prompt=named, instructions=None)

        assert seen(response)[-1] == ("user", "Of Oslo.")
        assert response["instructions"] == "Speak like Ann."

    async def test_an_unknown_prompt_is_not_found(self, http):
        found = error(await self.ask(http, model="text", input="Hi", prompt={"id": "pmpt_x"}), 404)

        assert found["message"] == "Prompt with id 'pmpt_x' not found."
        assert (found["type"], found["param"], found["code"]) == ("invalid_request_error", None, None)

    async def test_variables_that_do_not_fit_are_refused(self, http):
        made = await prompt(http)

        refused = error(await self.ask(http, prompt={"id": made["id"], "variables": {"who": "Ann"}}), 400)

        assert refused["param"] == "prompt.variables"

    async def test_a_variable_must_fit_the_field_that_it_fills(self, http):
        made = await prompt(http, {"model": "echo", "input": "Hi", "metadata": {"topic": "{{topic}}"}})

        answer = await self.ask(http, prompt={"id": made["id"], "variables": {"topic": "x" * 513}})

        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "template.metadata.topic"

    async def test_somebody_must_name_a_model(self, http):
        made = await prompt(http, {"instructions": "Be short."})

        refused = error(await self.ask(http, prompt={"id": made["id"]}), 400)

        assert (refused["code"], refused["param"]) == ("missing_required_parameter", "model")


class TestCommand:
    """`antiphon prompts`."""

    @pytest.fixture
    def prompts(self, server, monkeypatch, capsys):
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-tests")

        def prompts(*words):
            code = main(["prompts", *words])
            said = capsys.readouterr()
            return code, [json.loads(line) for line in said.out.splitlines()], said.err

        return prompts

    def test_a_prompt_is_created_shown_listed_and_deleted(self, prompts, tmp_path, monkeypatch):
        file = tmp_path / "template.json"
        file.write_text(json.dumps(TEMPLATE), encoding="utf-8")

        code, (made,), _ = prompts("create", str(file))
        monkeypatch.setattr("sys.stdin", io.StringIO('{"model": "m"}'))
        _, (second,), _ = prompts("create", "-", "--id", made["id"])

        assert code == 0
        assert (made["version"], second["version"]) == ("1", "2")
        assert prompts("show", made["id"]) == (0, [second], "")
        assert prompts("show", made["id"], "--version", "1") == (0, [made], "")
        assert second in prompts("list")[1]
        assert prompts("delete", made["id"])[1] == [{"id": made["id"], "object": "prompt.deleted", "deleted": True}]
        code, answers, complaint = prompts("show", made["id"])
        assert (code, answers) == (1, [])
        assert f"Prompt with id '{made['id']}' not found." in complaint

    @pytest.mark.parametrize("words", [["list"], ["show", "pmpt_1"], ["delete", "pmpt_1"]])
    def test_no_server_is_guessed(self, prompts, words, monkeypatch):
        monkeypatch.delenv("OPENAI_BASE_URL")

        code, answers, complaint = prompts(*words)

        assert (code, answers) == (2, [])
        assert complaint == "antiphon: antiphon prompts: no server is named; give --base-url or OPENAI_BASE_URL.\n"

    @pytest.mark.parametrize(
        "words",
        [
            ["create"],
            ["show"],
            ["list", "x"],
            ["create", "/nowhere/template.json"],
            ["show", "x", "--id", "y"],
            ["delete", "x", "--version", "1"],
        ],
    )
    def test_a_command_that_makes_no_sense_is_refused(self, prompts, words):
        code, answers, complaint = prompts(*words)

        assert (code, answers) == (2, [])
        assert complaint.startswith("antiphon: ")

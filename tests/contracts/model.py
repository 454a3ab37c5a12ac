"""What every way of asking a model promises.

A subclass gives the fixtures `asked`, a Model and the id of one that it has, and `calling`, the same for one that calls
functions.
"""

from contextlib import aclosing
from typing import Any

import pytest

from antiphon.engine import model as engine
from antiphon.engine.model import Call, Carried, Delta, Finish, Model, Usage
from antiphon.errors import ModelError

WEATHER: dict[str, Any] = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather in a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


def user(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


async def said(model: Model, request: dict[str, Any], *context: dict[str, Any]) -> list[Delta]:
    """All the pieces of one turn."""
    async with aclosing(model.turn(request, context or [user("Say hello.")])) as turn:
        return [delta async for deltas in turn for delta in deltas]


def text_of(deltas: list[Delta]) -> str:
    return "".join(map(engine.text_of, deltas))


def called(deltas: list[Delta]) -> list[str]:
    """The name of each call, in the order of their first pieces."""
    named = [delta.name for delta in deltas if isinstance(delta, Call) and delta.name]
    events = [delta.event for delta in deltas if isinstance(delta, Carried)]
    items = [event["item"] for event in events if event["type"] == "response.output_item.added"]
    return named + [item["name"] for item in items if item["type"] == "function_call"]


class ModelContract:
    """Tests of one Model, whatever is behind it."""

    async def test_a_turn_says_text_and_then_why_it_ended(self, asked):
        model, name = asked
        deltas = await said(model, {"model": name, "max_output_tokens": 16})

        assert text_of(deltas)
        assert [type(delta) for delta in deltas].count(Finish) == 1
        finish = next(place for place, delta in enumerate(deltas) if isinstance(delta, Finish))
        assert all(isinstance(delta, Usage) for delta in deltas[finish + 1 :])

    async def test_a_turn_tells_what_it_cost(self, asked):
        model, name = asked
        deltas = await said(model, {"model": name, "max_output_tokens": 16})

        usage = [delta for delta in deltas if isinstance(delta, Usage)][-1]
        assert usage.input_tokens > 0
        assert usage.output_tokens > 0

    async def test_no_list_of_pieces_is_empty(self, asked):
        model, name = asked
        async with aclosing(model.turn({"model": name, "max_output_tokens": 16}, [user("Hello.")])) as turn:
            sizes = [len(deltas) async for deltas in turn]

        assert min(sizes) > 0

    async def test_the_first_piece_of_a_call_has_its_name(self, calling):
        model, name = calling
        request = {"model": name, "tools": [WEATHER], "tool_choice": "required"}
        deltas = await said(model, request, user("What is the weather in Rome?"))

        assert called(deltas)[0] == "get_weather"
        assert all(delta.name for delta in deltas if isinstance(delta, Call) and delta.call_id)
        assert [delta.reason for delta in deltas if isinstance(delta, Finish)] == ["tool_calls"]

    async def test_a_turn_may_be_left_in_its_middle_and_another_begun(self, asked):
        model, name = asked
        async with aclosing(model.turn({"model": name}, [user("Count to a thousand.")])) as turn:
            async for _ in turn:
                break

        assert text_of(await said(model, {"model": name, "max_output_tokens": 16}))

    async def test_an_unknown_model_is_the_callers_fault(self, asked):
        model, _ = asked
        with pytest.raises(ModelError) as failure:
            await said(model, {"model": "no-such-model"})

        assert failure.value.status in (400, 404)
        assert failure.value.code == "model_not_found"

    async def test_more_input_has_more_tokens(self, asked):
        model, name = asked
        request = {"model": name, "instructions": "Be kind."}
        short = await model.count_tokens(request, [user("Hello.")])
        long = await model.count_tokens(request, [user("Hello."), user("And a good day to you, " * 20)])

        assert 0 < short.input_tokens < long.input_tokens
        assert short.exact == long.exact

    async def test_its_models_are_listed(self, asked):
        model, name = asked
        models = await model.models()

        assert name.partition(":")[0] in [entry["id"] for entry in models]
        assert all(set(entry) == {"id", "object", "created", "owned_by"} for entry in models)

    async def test_it_may_be_closed_twice(self, asked):
        model, _ = asked
        await model.close()
        await model.close()
